"""The wait between attempts grows, is bounded, stays brisk for a while, and is spread by the dice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshproxy.agent.backoff import Backoff


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=80))
def test_every_wait_is_within_bounds(dice: list[float]) -> None:
    rolls = iter(dice)
    backoff = Backoff(lambda: next(rolls), first=0.1, most=5.0, brisk=0.5, eager=10.0)
    waited = 0.0
    for _ in dice:
        wait = backoff.next()
        assert 0.05 <= wait <= (0.5 if waited < 10.0 else 5.0)
        waited += wait


def test_doubles_up_to_the_most_and_starts_over() -> None:
    backoff = Backoff(lambda: 1.0, first=0.1, most=1.0, eager=0.0)
    assert [backoff.next() for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    backoff.reset()
    assert backoff.next() == 0.1


def test_a_restart_of_control_is_noticed_soon_for_a_while() -> None:
    backoff = Backoff(lambda: 1.0, first=0.25, most=4.0, brisk=0.5, eager=2.0)
    assert [backoff.next() for _ in range(9)] == [0.25, 0.5, 0.5, 0.5, 0.5, 0.5, 1.0, 2.0, 4.0]
    backoff.reset()
    assert [backoff.next() for _ in range(3)] == [0.25, 0.5, 0.5]
