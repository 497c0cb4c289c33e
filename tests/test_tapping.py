"""The lease of a tap: what ends it, and that what several workers told together is no more than was asked for."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from meshproxy import tapping
from meshproxy.model.tap import TapBatch, TapEvent, TapOrder
from meshproxy.tapping import Tapping


def event(number: int) -> TapEvent:
    return TapEvent(time=float(number), direction="inbound", method="GET", authority="a", path="/", status=200, duration_ms=1.0)


class Fake:
    """Traffic, control and the stream in one. ``next``: what each tap is told at the next look."""

    def __init__(self) -> None:
        self.open: dict[str, TapOrder] = {}
        self.next: list[TapBatch] = []
        self.sent: list[TapBatch] = []
        self.status = 204
        self.streams = 1

    def tap(self, order: TapOrder) -> None:
        self.open[order.id] = order

    def untap(self, id_: str) -> None:
        del self.open[id_]

    async def tapped(self) -> list[TapBatch]:
        told, self.next = self.next, []
        return told

    async def send(self, body: bytes) -> int:
        self.sent.append(msgspec.json.decode(body, type=TapBatch))
        return self.status


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    monkeypatch.setattr(tapping, "_EVERY", 0.0)
    return Fake()


def story(fake: Fake, order: dict[str, Any], until: Any) -> None:
    """Open a tap and look on until ``until()``."""

    async def run() -> None:
        tapping = Tapping(fake, fake.send, lambda: fake.streams)
        assert tapping.open(order) == {"id": order["id"]}
        async with asyncio.timeout(10):
            while not until():
                await asyncio.sleep(0)
        await tapping.aclose()

    asyncio.run(run())


def test_what_was_told_is_sent_and_closing_ends_it(fake: Fake) -> None:
    fake.next = [TapBatch(id="a", events=(event(1), event(2)), over=3)]
    story(fake, {"id": "a"}, lambda: fake.sent)
    assert [len(batch.events) for batch in fake.sent] == [2] and fake.sent[0].over == 3 and not fake.open


@pytest.mark.parametrize("status", [410, 404, 0])
def test_it_ends_when_control_wants_no_more_or_does_not_answer(fake: Fake, status: int) -> None:
    fake.status = status
    fake.next = [TapBatch(id="a", events=(event(1),))]
    story(fake, {"id": "a"}, lambda: not fake.open)
    assert len(fake.sent) == 1


def test_it_ends_with_the_stream_that_it_came_by(fake: Fake) -> None:
    fake.streams = 0
    story(fake, {"id": "a"}, lambda: True)

    async def run() -> None:
        fake.streams = 1
        tapping = Tapping(fake, fake.send, lambda: fake.streams)
        tapping.open({"id": "b"})
        fake.streams = 2
        async with asyncio.timeout(10):
            while fake.open:
                await asyncio.sleep(0)

    asyncio.run(run())
    assert not fake.sent


def test_a_bug_leaves_no_tap_open(fake: Fake) -> None:
    async def broken() -> list[TapBatch]:
        raise RuntimeError("bug")

    fake.tapped = broken  # type: ignore[method-assign]
    story(fake, {"id": "a"}, lambda: not fake.open)


def test_control_hears_of_a_quiet_tap(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tapping, "_ALIVE", 0.0)
    story(fake, {"id": "a"}, lambda: len(fake.sent) > 2)
    assert not any(batch.events for batch in fake.sent)


def test_no_more_than_were_asked_for(fake: Fake) -> None:
    fake.next = [TapBatch(id="a", events=tuple(map(event, range(5))))]
    story(fake, {"id": "a", "most": 3}, lambda: not fake.open)
    assert [one.time for one in fake.sent[0].events] == [0, 1, 2] and fake.sent[0].ended == "as many as were asked for"


def test_many_are_sent_in_pieces(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tapping, "_PIECE", 2)
    fake.next = [TapBatch(id="a", events=tuple(map(event, range(5))), slow=1, ended="over")]
    story(fake, {"id": "a"}, lambda: not fake.open)
    assert [len(batch.events) for batch in fake.sent] == [2, 2, 1]
    assert [(batch.slow, batch.ended) for batch in fake.sent] == [(0, ""), (0, ""), (1, "over")]


@pytest.mark.parametrize("order", [{}, {"id": 1}, {"id": "a", "more": 1}, {"id": "a", "filter": {"flags": 1}}])
def test_an_order_that_cannot_be_read(fake: Fake, order: dict[str, Any]) -> None:
    async def run() -> None:
        with pytest.raises(ValueError):
            Tapping(fake, fake.send, lambda: 1).open(order)

    asyncio.run(run())
    assert not fake.open
