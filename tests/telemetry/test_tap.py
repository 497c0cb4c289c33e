"""Taps of one process: bounded in every way, and nothing left behind."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from meshproxy.message.record import ExchangeRecord
from meshproxy.model.cluster import Workload
from meshproxy.model.tap import MOST_SECONDS, TapFilter, TapOrder
from meshproxy.telemetry import tap as tapping
from meshproxy.telemetry.observe import Observer
from meshproxy.telemetry.tap import MOST_TAPS, Taps


class Logs:
    """Access logs that keep records."""

    def __init__(self) -> None:
        self.records: list[ExchangeRecord] = []
        self.writers: dict[str, Any] = {"outbound": self.records.append}
        self.dropped = self.buffered = 0


class Bench:
    def __init__(self) -> None:
        self.now = 100.0
        self.logs = Logs()
        self.observer = Observer(Workload(workload="book", namespace="default"), self.logs)  # type: ignore[arg-type]
        self.taps = Taps(self.observer, lambda: self.now)

    def request(self, status: int = 200, at: float | None = None, direction: str = "outbound") -> None:
        made = ExchangeRecord(SimpleNamespace(name="l", direction=direction), self.now, 1.0)
        made.status, made.path, made.method = status, b"/a", b"GET"
        made.request_headers = [(b"x", b"y" * 100)]
        made.ended = self.now if at is None else at
        self.observer.finished(made, made.ended)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def order(id_: str = "a", **more: Any) -> TapOrder:
    return TapOrder(id=id_, **more)


def test_an_observer_is_the_same_before_and_after(bench: Bench) -> None:
    """What runs for a request where nobody taps is what ran before anybody did."""
    before = bench.observer._logs
    assert before is bench.logs.writers
    bench.taps.open(order())
    assert bench.observer._logs is not before
    bench.request()
    bench.taps.close("a")
    assert bench.observer._logs is before and not len(bench.taps)
    bench.request()
    assert len(bench.logs.records) == 2 and bench.taps.collect() == []


def test_several_hear_of_what_each_wants(bench: Bench) -> None:
    bench.taps.open(order("all"))
    bench.taps.open(order("bad", filter=TapFilter(statuses=((500, 599),))))
    for status in (200, 503, 404):
        bench.request(status)
    bench.request(503, direction="inbound")
    told = {batch.id: [event.status for event in batch.events] for batch in bench.taps.collect()}
    assert told == {"all": [200, 503, 404, 503], "bad": [503, 503]}
    assert all(not batch.events for batch in bench.taps.collect())
    assert [record.status for record in bench.logs.records] == [200, 503, 404]


def test_the_logs_change_while_somebody_taps(bench: Bench) -> None:
    bench.taps.open(order())
    bench.logs.writers = {}
    bench.observer.report({})
    bench.request()
    assert len(bench.taps.collect()[0].events) == 1 and not bench.logs.records
    bench.taps.close("a")
    assert bench.observer._logs is bench.logs.writers


def test_more_than_the_rate_are_counted(bench: Bench) -> None:
    bench.taps.open(order(rate=3))
    for _ in range(5):
        bench.request()
    bench.now += 1
    bench.request()
    (batch,) = bench.taps.collect()
    assert (len(batch.events), batch.over, batch.slow) == (4, 2, 0) and bench.taps.left_out == 2


def test_what_waits_is_bounded_in_number_and_in_bytes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tapping, "_WAITING", 2)
    bench.taps.open(order())
    for _ in range(5):
        bench.request()
    (batch,) = bench.taps.collect()
    assert (len(batch.events), batch.slow) == (2, 3)
    monkeypatch.setattr(tapping, "_BYTES", 1)
    for _ in range(5):
        bench.request()
    (batch,) = bench.taps.collect()
    assert (len(batch.events), batch.slow) == (1, 4)


def test_it_ends_after_as_many_as_were_asked_for(bench: Bench) -> None:
    bench.taps.open(order(most=2))
    for _ in range(5):
        bench.request()
    (batch,) = bench.taps.collect()
    assert len(batch.events) == 2 and batch.ended == "as many as were asked for"
    assert not len(bench.taps) and bench.observer._logs is bench.logs.writers


@pytest.mark.parametrize("requests", [0, 1])
def test_it_ends_when_its_time_is_over(bench: Bench, requests: int) -> None:
    bench.taps.open(order(seconds=5))
    bench.now += 5
    for _ in range(requests):
        bench.request()
    (batch,) = bench.taps.collect()
    assert batch.ended == "its time is over" and not batch.events and not len(bench.taps)


def test_so_many_and_no_more(bench: Bench) -> None:
    for number in range(MOST_TAPS):
        bench.taps.open(order(str(number)))
    with pytest.raises(ValueError, match="taps are open here already"):
        bench.taps.open(order("more"))
    bench.taps.close("0")
    bench.taps.open(order("more"))


@pytest.mark.parametrize(
    "more",
    [
        {"seconds": 0},
        {"seconds": MOST_SECONDS + 1},
        {"rate": 0},
        {"rate": 10**6},
        {"most": -1},
        {"filter": TapFilter(flags=("XX",))},
    ],
)
def test_what_cannot_be_obeyed_opens_nothing(bench: Bench, more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        bench.taps.open(order(**more))
    assert not len(bench.taps) and bench.observer._logs is bench.logs.writers


def test_a_bug_ends_the_taps_and_no_request(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("bug")

    monkeypatch.setattr(tapping, "event", broken)
    bench.taps.open(order())
    bench.request()
    bench.request()
    (batch,) = bench.taps.collect()
    assert "failed" in batch.ended and not len(bench.taps) and len(bench.logs.records) == 2


def test_it_is_a_metric(bench: Bench) -> None:
    bench.taps.open(order())
    found = {family.name: family.rows[0].value for family in bench.taps.families()}
    assert found == {"mesh_taps": 1, "mesh_tap_left_out_total": 0}
