"""Where spans are kept: found by everything that they say, forgotten by age and by size."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from control.traces.span import Event, Query, Span
from control.traces.store import TraceStore, _conditions

NOW = 1_000_000.0


class Clock:
    now = NOW


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[TraceStore]:
    made = TraceStore(tmp_path / "traces.db", clock=lambda: clock.now)
    made.open()
    yield made
    made.close()


def span(trace: int, number: int = 1, parent: int = 0, **more: Any) -> Span:
    fields: dict[str, Any] = {
        "trace_id": f"{trace:032x}",
        "span_id": f"{number:016x}",
        "parent_id": f"{parent:016x}" if parent else "",
        "service": "book-service.default",
        "operation": "rating.default.svc.cluster.local:8080/*",
        "kind": "client",
        "start": NOW - 100 + trace,
        "duration": 0.25,
        "status": "ok",
        "tags": {"http.status_code": "200", "guid:x-request-id": f"id-{trace}", "user_agent": "curl"},
    }
    return Span(**{**fields, **more})


def fill(store: TraceStore, *spans: Span) -> None:
    assert store.add(spans)
    store.flush()


def found(store: TraceStore, **query: Any) -> list[int]:
    return [int(one.trace_id, 16) for one in store.search(Query(**query))]


def test_a_trace_is_told_in_order_and_summed_up(store: TraceStore) -> None:
    tags = {"http.method": "GET", "http.url": "http://book/1", "http.status_code": "404"}
    gateway = span(
        7, 1, 0, service="gateway.istio-system", operation="book:80/*", kind="server", start=NOW - 10, duration=1.0, tags=tags
    )
    book = span(7, 2, 1, start=NOW - 9.5, duration=0.25, events=(Event("retry", NOW - 9.4, {"attempt": "1"}),))
    rating = span(7, 3, 2, service="rating.default", start=NOW - 9.4, duration=0.9, status="error")
    fill(store, rating, book)
    fill(store, gateway, book)  # sent twice
    assert store.trace(f"{7:032x}") == [gateway, book, rating]
    (summary,) = store.search(Query())
    assert (summary.spans, summary.errors) == (3, 1)
    assert summary.services == ("gateway.istio-system", "book-service.default", "rating.default")
    assert (summary.root.service, summary.root.operation) == ("gateway.istio-system", "book:80/*")
    assert (summary.method, summary.url, summary.code) == ("GET", "http://book/1", 404)
    assert summary.start == NOW - 10 and summary.duration == pytest.approx(1.5)
    assert store.services() == ["book-service.default", "gateway.istio-system", "rating.default"]
    assert store.operations("gateway.istio-system") == ["book:80/*"]


def test_what_begins_a_trace_may_not_have_been_sampled_here(store: TraceStore) -> None:
    fill(store, span(1, 5, 4))
    (summary,) = store.search(Query())
    assert summary.root.service == "book-service.default"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [5, 4, 3, 2, 1]),
        ({"limit": 2}, [5, 4]),
        ({"service": "rating"}, [2]),
        ({"service": "rating.default"}, [2]),
        ({"service": "rating.shop"}, []),
        ({"operation": "/rate"}, [3]),
        ({"min_duration": 1.0}, [4]),
        ({"max_duration": 0.1}, [1]),
        ({"status": "error"}, [5]),
        ({"status": "503"}, [5]),
        ({"status": "5xx"}, [5]),
        ({"status": "404"}, []),
        ({"status": "ok", "min_duration": 1.0}, [4]),
        ({"tags": (("guid:x-request-id", "id-3"),)}, [3]),
        ({"tags": (("user_agent", "wget"),)}, [2]),
        ({"tags": (("guid:x-request-id", "id-2"), ("user_agent", "wget"))}, [2]),
        ({"tags": (("guid:x-request-id", "' OR 1=1 --"),)}, []),
        ({"begin": NOW - 96.5}, [5, 4]),
        ({"end": NOW - 98.5}, [1]),
    ],
)
def test_a_trace_is_found_by_what_one_of_its_spans_says(store: TraceStore, query: dict[str, Any], expected: list[int]) -> None:
    fill(
        store,
        span(1, duration=0.1),
        span(2, service="rating.default", tags={"user_agent": "wget", "guid:x-request-id": "id-2"}),
        span(3, operation="rating:8080/rate*"),
        span(4, duration=2.0),
        span(5, status="error", tags={"http.status_code": "503"}),
    )
    assert found(store, **query) == expected


def test_the_beginning_of_an_id_will_do(store: TraceStore) -> None:
    fill(store, span(0xABCDEF12 << 96, start=NOW))
    assert len(store.trace("ABCDEF12")) == 1
    assert store.trace("abc") == store.trace("abcdef13") == store.trace("'; drop table spans") == []


def test_what_is_old_is_forgotten(store: TraceStore, clock: Clock) -> None:
    fill(store, span(1), span(2))
    clock.now += 3600 - 98.5
    assert found(store) == [2]
    with store._connected() as db:
        store.prune(db)
    assert not store.trace(f"{1:032x}") and store.trace(f"{2:032x}")
    with store._connected() as db:
        assert db.execute("SELECT count(DISTINCT number) FROM tags").fetchone() == (1,)


def test_too_much_costs_the_oldest(tmp_path: Path) -> None:
    limit = 400_000
    store = TraceStore(tmp_path / "traces.db", limit=limit, clock=lambda: NOW)
    store.open()
    for begin in range(1, 2001, 200):
        fill(store, *(span(number, tags={"a": "x" * 200, "n": str(number)}, start=NOW) for number in range(begin, begin + 200)))
    with store._connected() as db:
        assert store._size(db) > limit
        store.prune(db)
        assert store._size(db) <= limit
    assert store.trace(f"{2000:032x}") and not store.trace(f"{1:032x}")
    store.close()


def test_a_full_queue_takes_nothing(tmp_path: Path) -> None:
    store = TraceStore(tmp_path / "traces.db", waiting=2)  # not open: nobody writes
    assert store.add([span(1), span(2)])
    assert not store.add([span(3)])
    assert store.refused == 1


def test_a_file_that_is_no_database_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "traces.db"
    path.write_bytes(b"not a database, whatever its name says" * 100)
    store = TraceStore(path, clock=lambda: NOW)
    store.open()
    fill(store, span(1))
    assert found(store) == [1]
    assert "made anew" in caplog.text and path.stat().st_mode & 0o777 == 0o600
    store.close()


def test_what_cannot_be_forgotten_now_keeps_nothing_from_being_written(store: TraceStore, tmp_path: Path, clock: Clock) -> None:
    """A full disk may fail a deletion half-way: the next batch must not find a transaction that nobody ends."""
    fill(store, span(1))
    with closing(store._connected()) as db:
        db.execute("CREATE TRIGGER full BEFORE DELETE ON spans BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END")
        clock.now += 3600
        with pytest.raises(sqlite3.Error, match="full"):
            store.prune(db)
        assert not db.in_transaction
        store._write(db, [span(3500)])
    assert found(store) == [3500]


@pytest.mark.parametrize("reads", [True, False])
def test_a_file_that_is_damaged_later_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture, reads: bool) -> None:
    store = TraceStore(tmp_path / "traces.db", clock=lambda: NOW)
    store.open()
    fill(store, *(span(number) for number in range(200)))
    with closing(store._connected()) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    damaged = bytearray((tmp_path / "traces.db").read_bytes())
    damaged[100:] = bytes(len(damaged) - 100)
    (tmp_path / "traces.db").write_bytes(damaged)
    if reads:
        assert found(store) == [] and store.trace("00000001") == [] and store.services() == store.operations("x") == []
    for number in range(300, 303):  # the first of them may be what finds it
        fill(store, span(number))
    assert 302 in found(store)
    assert caplog.text.count("made anew") == 1
    store.close()


def test_a_file_that_is_taken_away_is_made_anew(store: TraceStore, tmp_path: Path) -> None:
    fill(store, span(1))
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"traces.db{suffix}").unlink()
    assert found(store) == []
    for number in (2, 3):
        fill(store, span(number))
    assert 3 in found(store)
    assert (tmp_path / "traces.db").stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_made_anew_is_said_once_and_costs_nothing_else(tmp_path: Path, monkeypatch: Any, caplog: Any) -> None:
    store = TraceStore(tmp_path / "traces.db", clock=lambda: NOW)
    store.open()

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(store, "_write", full)
        for number in range(3):
            fill(store, span(number))
    fill(store, span(9))
    assert (store.lost, found(store)) == (3, [9])
    assert caplog.text.count("disk is full") == 1
    store.close()


def test_spans_of_a_clock_that_is_far_ahead_do_not_stay_the_newest(store: TraceStore) -> None:
    fill(store, span(1, start=NOW * 50), span(2))
    with closing(store._connected()) as db:
        store.prune(db)
    assert found(store) == [2]


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    for _ in range(2):
        store = TraceStore(tmp_path / "traces.db", clock=lambda: NOW)
        store.open()
        fill(store, span(1))
        assert found(store) == [1]
        store.close()


@pytest.mark.parametrize(
    "asked",
    [
        Query(),
        Query(service="a.b"),
        Query(service="a"),
        Query(operation="x"),
        Query(min_duration=1.0),
        Query(status="error"),
        Query(status="5xx"),
        Query(tags=(("guid:x-request-id", "1"),)),
        Query(service="a.b", tags=(("istio.canonical_revision", "v1"),)),
        Query(begin=1.0, end=2.0),
    ],
)
def test_no_search_reads_every_span(store: TraceStore, tmp_path: Path, asked: Query) -> None:
    conditions, values = _conditions(asked, NOW - 3600)
    with closing(sqlite3.connect(tmp_path / "traces.db")) as db:
        wanted = f"SELECT trace FROM spans WHERE {' AND '.join(conditions)} ORDER BY start DESC"
        plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {wanted}", values)]
    assert any(step.startswith("SEARCH spans USING") for step in plan)
    assert not any(step.startswith(("SCAN spans", "SCAN tags")) for step in plan)
