"""The bounded log of changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.resources.kinds import by_kind
from control.store.api import Gone
from control.store.history import History
from control.store.table import Change, Key

KEY = Key(by_kind("", "Service"), "a", "b")


def change(version: int, size: int = 10) -> Change:
    return Change("MODIFIED", KEY, version, b"x" * size)


@given(st.integers(1, 20), st.integers(0, 60), st.integers(1, 5))
def test_what_is_kept_is_the_end_without_gaps(limit: int, count: int, first: int) -> None:
    history = History(first, max_changes=limit)
    for i in range(count):
        history.add(change(first + 1 + i))
    last = first + count
    assert history.last == last
    for since in range(first, last + 1):
        if since < history.floor:
            with pytest.raises(Gone):
                history.after(since)
        else:
            assert [c.version for c in history.after(since)] == list(range(since + 1, last + 1))
    assert last - history.floor == min(count, limit)


def test_bytes_are_bounded_too() -> None:
    history = History(1, max_bytes=100)
    for version in range(2, 50):
        history.add(change(version, 30))
        assert sum(len(c.body) for c in history.after(history.floor)) <= 100
    history.add(change(50, 1000))
    assert [c.version for c in history.after(49)] == [50], "one object over the limit is still told"


def test_dropped_changes_are_let_go_in_time() -> None:
    history = History(1, max_changes=10)
    for version in range(2, 30_000):
        history.add(change(version))
    assert len(history._changes) < 3000


def test_a_gap_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="consecutive"):
        History(1).add(change(3))
