"""The whole data path in memory with somebody who taps: he hears of each request once, as it ended, and leaves no trace."""

from __future__ import annotations

from meshproxy.model.cluster import Workload
from meshproxy.model.tap import TapFilter, TapOrder
from meshproxy.telemetry.observe import Observer
from meshproxy.telemetry.tap import Taps
from tests.flow.memnet import GET, OK, World, simple, status_of


def test_requests_before_during_and_after_a_tap() -> None:
    world = World(simple(endpoints=1))
    observer = Observer(Workload(workload="book", namespace="default"))
    world.corridor.observer = observer
    taps = Taps(observer, world.clock.now)
    quiet = observer._logs
    client = world.client()
    client.deliver(GET)
    app = world.accept()
    app.deliver(OK)
    assert status_of(client.take()) == 200

    client.deliver(GET)  # under way when the tap begins: it ends while somebody listens
    taps.open(TapOrder(id="t", filter=TapFilter(path="/a")))
    app.deliver(OK)
    (batch,) = taps.collect()
    (event,) = batch.events
    assert (event.status, event.method, event.path, event.authority) == (200, "GET", "/a", "rating:8080")
    assert (event.cluster, event.endpoint, event.source, event.tries) == ("c", "127.1.0.2:8080", "book.default", 1)

    client.deliver(GET)
    app.lose()  # without a word
    (event,) = taps.collect()[0].events
    assert (event.status, event.flags) == (503, ("UC",)) and "connection_termination" in event.detail

    taps.close("t")
    assert observer._logs == quiet == {}
    world.settled()
