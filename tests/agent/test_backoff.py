"""The wait between attempts grows, is bounded, and is spread by the dice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshproxy.agent.backoff import Backoff


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=40))
def test_every_wait_is_within_bounds(dice: list[float]) -> None:
    rolls = iter(dice)
    backoff = Backoff(lambda: next(rolls), first=0.1, most=5.0)
    assert all(0.05 <= backoff.next() <= 5.0 for _ in dice)


def test_doubles_up_to_the_most_and_starts_over() -> None:
    backoff = Backoff(lambda: 1.0, first=0.1, most=1.0)
    assert [backoff.next() for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    backoff.reset()
    assert backoff.next() == 0.1
