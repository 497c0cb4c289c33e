"""What waits for one who watches is bounded, what he missed is counted, and others lose nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from control.identity import Person, ProxyIdentity, Role
from control.serve import taps as module
from control.serve.hub import Hub
from control.serve.kube.status import ApiError
from control.serve.metrics import Metrics
from control.serve.taps import TapRequest, Taps
from control.translate.snapshot import Snapshot
from meshproxy.model.delivery import Answer, FromControl, Query
from meshproxy.model.tap import TapBatch, TapEvent

POD = ProxyIdentity("default", "web", "default", 1e12)
ANN = Person("ann", "edit", "t", 1e12)
EVENT = TapEvent(time=1.0, direction="inbound", method="GET", authority="a", path="/", status=200, duration_ms=1.0)


class Scene:
    """A hub with one sidecar that answers every question; ``orders``: what it was asked to tap, by id."""

    def __init__(self) -> None:
        self.now = 0.0
        self.hub = Hub(lambda world, proxy: Snapshot(()), Metrics(), clock=lambda: self.now, wall=lambda: 0.0)
        self.taps = Taps(self.hub, CollectorRegistry(), lambda: self.now)
        self.session = self.hub.connect(POD, "")
        self.orders: list[dict[str, Any]] = []
        self.ended: list[str] = []
        self.refuses = ""

    async def open(self, caller: Person = ANN, **more: Any) -> Any:
        asking = asyncio.ensure_future(self.taps.open(caller, TapRequest(pods=("default/web",), **more)))
        await self.answer(asking)
        return await asking

    async def answer(self, until: asyncio.Future[Any] | None = None) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
            for line in b"".join(self.session.outgoing(0.0)).splitlines():
                message = msgspec.json.decode(line, type=FromControl)
                if isinstance(message, Query):
                    (self.orders.append(message.args) if message.verb == "tap" else self.ended.append(message.args["id"]))
                    self.hub.answered(POD, Answer(id=message.id, ok=not self.refuses, error=self.refuses))

    def tell(self, watch: Any, count: int, **more: Any) -> None:
        (one,) = watch.watched.values()
        watch.take(one, TapBatch(id="x", events=(EVENT,) * count, **more))


def lines(watch: Any) -> list[dict[str, Any]]:
    found = []
    while piece := watch.piece():
        found += [msgspec.json.decode(line) for line in piece.splitlines()]
    return found


def test_a_slow_reader_loses_only_his_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 3)

    async def story() -> None:
        scene = Scene()
        slow, good = await scene.open(), await scene.open()
        assert lines(good) == [{"opened": ["default/web"]}]
        scene.tell(slow, 5, over=2, slow=1)
        scene.tell(good, 3)
        assert slow.left == {"rate": 2, "sidecar": 1, "reader": 3} and sum("event" in one for one in lines(slow)) == 2
        assert good.left == {"rate": 0, "sidecar": 0, "reader": 0} and len(lines(good)) == 3
        monkeypatch.setattr(module, "WAITING_BYTES", 10)
        scene.tell(slow, 3)
        assert slow.left["reader"] == 5

    asyncio.run(story())


def test_the_end_reaches_the_sidecar_and_leaves_nothing() -> None:
    async def story() -> None:
        scene = Scene()
        watch = await scene.open()
        (order,) = scene.orders
        scene.taps.end(watch)
        await scene.answer()
        assert scene.ended == [order["id"]] and not scene.taps._orders and not scene.taps._watches

    asyncio.run(story())


def test_it_ends_with_the_number_the_stream_the_silence_and_control() -> None:
    async def story() -> None:
        scene = Scene()
        watch = await scene.open(most=3)
        scene.tell(watch, 5)
        assert watch.done == "as many as were asked for" and sum("event" in one for one in lines(watch)) == 3
        silent = await scene.open()
        scene.now += module.SILENT + 1
        scene.taps.silent(silent)
        assert silent.done == "nothing was heard of it for 10 s"
        watch = await scene.open()
        scene.hub.disconnect(scene.session)
        assert watch.done == "its connection to control ended"
        assert {"ended": "default/web", "why": "its connection to control ended"} in lines(watch)
        scene.session = scene.hub.connect(POD, "")
        watch = await scene.open()
        scene.taps.close()
        assert watch.done == "control is stopping"
        with pytest.raises(ApiError, match="stopping"):
            await scene.open()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("role", "more", "code"),
    [
        ("edit", {"headers": True}, 403),
        ("admin", {"headers": True}, 200),
        ("edit", {"seconds": 0.0}, 400),
        ("edit", {"seconds": 1e9}, 400),
    ],
)
def test_who_may_and_how_long(role: Role, more: dict[str, Any], code: int) -> None:
    async def story() -> None:
        scene = Scene()
        if code == 200:
            assert await scene.open(Person("ann", role, "t", 1e12), **more)
            assert scene.orders[0]["values"] is True
            return
        with pytest.raises(ApiError) as no:
            await scene.open(Person("ann", role, "t", 1e12), **more)
        assert no.value.code == code and not scene.orders

    asyncio.run(story())


def test_a_refusal_and_a_stranger_leave_nothing() -> None:
    async def story() -> None:
        scene = Scene()
        scene.refuses = "8 taps are open here already"
        with pytest.raises(ApiError, match="sidecar default/web: 8 taps"):
            await scene.open()
        with pytest.raises(ApiError, match="not connected"):
            await scene.taps.open(ANN, TapRequest(pods=("default/nobody",)))
        for pods in ((), ("web",), ("/",)):
            with pytest.raises(ApiError, match="pods: must be"):
                await scene.taps.open(ANN, TapRequest(pods=pods))
        assert not scene.taps._orders and not scene.taps._watches

    asyncio.run(story())
