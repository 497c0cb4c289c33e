"""Batches, on a fake clock: a lone change goes at once, a burst goes when it is quiet, and never later than the limit."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.serve.debounce import EAGER, Debounce

QUIET, LIMIT = 0.1, 0.5


def drive(times: list[float]) -> tuple[list[tuple[float, int]], list[float]]:
    """Note changes at ``times`` and act exactly when due. Returns the actions (when, how many changes) and each change's wait."""
    debounce = Debounce(QUIET, LIMIT)
    actions: list[tuple[float, int]] = []
    waits: list[float] = []
    pending: list[float] = []

    def act() -> None:
        due = debounce.due
        assert due is not None
        assert debounce.first == pending[0]
        actions.append((due, len(pending)))
        waits.extend(due - came for came in pending)
        pending.clear()
        debounce.fired(due)

    for now in times:
        while debounce.due is not None and debounce.due <= now:
            act()
        pending.append(now)
        debounce.note(now)
    while debounce.due is not None:
        act()
    return actions, waits


def test_a_lone_change_does_not_wait() -> None:
    assert drive([7.0]) == ([(7.0 + EAGER, 1)], [pytest.approx(EAGER)])


def test_what_one_command_writes_goes_out_together() -> None:
    actions, _ = drive([0.0, 0.002, 0.004])
    assert actions == [(EAGER, 3)]


def test_a_burst_waits_for_quiet() -> None:
    actions, _ = drive([0.0, 0.05, 0.1, 0.15])
    assert actions == [(EAGER, 1), (pytest.approx(0.25), 3)]


def test_an_endless_burst_goes_out_at_the_limit() -> None:
    actions, _ = drive([number * 0.05 for number in range(100)])
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(actions)]
    assert all(gap <= LIMIT + 0.05 + 1e-9 for gap in gaps)
    assert len(actions) <= 12


@given(st.lists(st.floats(0, 0.4), max_size=60))
def test_every_change_goes_out_once_and_in_time(gaps: list[float]) -> None:
    times, now = [], 0.0
    for gap in gaps:
        now += gap
        times.append(now)
    actions, waits = drive(times)
    assert sum(count for _, count in actions) == len(times)
    assert all(-1e-9 <= wait <= LIMIT + 1e-9 for wait in waits)
    for (earlier, _), (later, _) in pairwise(actions):
        assert later - earlier >= EAGER - 1e-9


@given(st.lists(st.floats(0.21, 5), min_size=1, max_size=20))
def test_nothing_waits_when_idle(gaps: list[float]) -> None:
    times, now = [], 0.0
    for gap in gaps:
        now += gap
        times.append(now)
    _, waits = drive(times)
    assert all(wait <= EAGER + 1e-9 for wait in waits)


@pytest.mark.parametrize(("quiet", "limit"), [(-1, 1), (0.2, 0.1)])
def test_foolish_times_are_refused(quiet: float, limit: float) -> None:
    with pytest.raises(ValueError, match="debounce"):
        Debounce(quiet, limit)
