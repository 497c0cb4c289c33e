"""Traces along the whole data path: what the next hop sees, and what is told of a sampled request."""

from __future__ import annotations

import random
from typing import Any

import pytest

from meshproxy.apply import Refused
from meshproxy.message.record import ExchangeRecord
from meshproxy.model.route import Forward, Retry, WeightedCluster
from meshproxy.model.telemetry import Telemetry, Tracing
from meshproxy.policy import format as log_format
from meshproxy.policy.context import readable_traceparent
from tests.flow.memnet import OK, World, simple
from tests.flow.test_mesh import ask, inbound, names, value

T, S = b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331"
CAME = b"traceparent: 00-%b-%b-01\r\n" % (T, S)
UNWANTED = b"traceparent: 00-%b-%b-00\r\n" % (T, S)
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


def traced(*tracing: Tracing, **more: Any) -> tuple[World, list[ExchangeRecord]]:
    resources = simple(**more)
    resources["telemetry"] = {"workload": Telemetry(tracing=tracing)}
    world = World(resources)
    world.corridor.dice = random.Random(7).random
    told: list[ExchangeRecord] = []
    world.corridor.spans = told.append
    return world, told


def sent(world: World, more: bytes = b"") -> bytes:
    """What the upstream hears of a request."""
    client = world.client()
    client.deliver(ask(more))
    wire = world.accept()
    head = wire.take()
    wire.deliver(OK)
    client.lose()
    return head


def test_without_tracing_there_is_no_filter_and_no_header() -> None:
    plain, traced_world = World(), traced(Tracing())[0]
    assert len(plain.slot.current.chain) == len(traced_world.slot.current.chain) - 1
    assert value(sent(plain), b"traceparent") is None
    assert value(sent(plain, CAME), b"traceparent") == CAME[13:-2]


def test_a_sampled_trace_begins() -> None:
    world, told = traced(Tracing(sampling=100.0))
    head = sent(world)
    (record,) = told
    trace = record.trace
    assert trace is not None and trace.parent_id == b"" and trace.route.name == "r"
    assert value(head, b"traceparent") == b"00-%b-%b-01" % (trace.trace_id, trace.span_id)
    request_id = value(head, b"x-request-id")
    assert request_id is not None and request_id[14:15] == b"9"
    assert (record.status, record.ended) == (200, world.clock.at)


def test_a_caller_that_samples_is_the_parent() -> None:
    world, told = traced(Tracing(sampling=0.0))
    head = sent(world, CAME + b"tracestate: a=b\r\n")
    trace = told[0].trace
    assert trace is not None and (trace.trace_id, trace.parent_id, trace.state) == (T, S, b"a=b")
    assert value(head, b"traceparent") == b"00-%b-%b-01" % (T, trace.span_id)
    assert value(head, b"tracestate") == b"a=b"


@pytest.mark.parametrize("more", [b"", b"tracestate: a=b\r\n"])
def test_a_caller_that_does_not_want_it_is_obeyed(more: bytes) -> None:
    world, told = traced(Tracing(sampling=100.0))
    head = sent(world, UNWANTED + more)
    assert not told
    assert value(head, b"traceparent") == UNWANTED[13:-2]


def test_what_begins_unsampled_stays_so() -> None:
    world, told = traced(Tracing(sampling=0.0))
    parent = value(sent(world), b"traceparent")
    assert parent is not None and parent.endswith(b"-00")
    other, told_there = traced(Tracing(sampling=100.0))
    sent(other, b"traceparent: " + parent + b"\r\n")
    assert not told and not told_there


@pytest.mark.parametrize("bad", [b"traceparent: evil", b"b3: \x80", b"x-b3-traceid: zz", b"traceparent: 00-" + b"0" * 51])
@pytest.mark.parametrize("sampling", [0.0, 100.0])
def test_what_cannot_be_read_is_replaced(bad: bytes, sampling: float) -> None:
    world, told = traced(Tracing(sampling=sampling))
    head = sent(world, bad + b"\r\n")
    assert bad not in head
    assert len(value(head, b"traceparent") or b"") == 55
    assert len(told) == (sampling > 0)


@pytest.mark.parametrize(
    "bad", [b"00-00000000000000000000000000000000-x", b"----" + b"0" * 32, b"0" * 36, b"", b"--------" + b"1" * 28]
)
def test_a_hostile_request_id_costs_nobody_a_trace(bad: bytes) -> None:
    world, _ = traced(Tracing(sampling=0.0))
    head = sent(world, b"x-request-id: " + bad + b"\r\n")
    parent = value(head, b"traceparent")
    assert parent is not None and readable_traceparent(parent)


def test_a_sidecar_may_be_told_to_trace() -> None:
    world, told = traced(Tracing(sampling=0.0))
    sent(world, b"x-envoy-force-trace: true\r\n")
    assert len(told) == 1


def test_context_may_be_left_alone_and_spans_unsent() -> None:
    world, told = traced(Tracing(sampling=100.0, propagate=False))
    assert value(sent(world, CAME), b"traceparent") == CAME[13:-2]
    assert told[0].trace is not None and told[0].trace.parent_id == S
    world, told = traced(Tracing(sampling=100.0, report=False))
    assert value(sent(world, CAME), b"traceparent") == CAME[13:-2]
    assert (value(sent(world), b"traceparent") or b"").endswith(b"-01")
    assert not told


@pytest.mark.parametrize(("mode", "direction", "expected"), [("SERVER", "inbound", 1), ("CLIENT", "inbound", 0)])
def test_a_mode_is_for_its_direction(mode: Any, direction: str, expected: int) -> None:
    world = inbound(direction)
    resources = {kind: dict(items) for kind, items in world.snapshot.resources.items()}
    resources["telemetry"] = {"workload": Telemetry(tracing=(Tracing(mode=mode, sampling=100.0),))}
    world.install(resources)
    told: list[ExchangeRecord] = []
    world.corridor.spans = told.append
    head = sent(world)
    assert len(told) == expected
    assert (b"traceparent" in names(head)) == bool(expected)


def test_tries_are_events_of_one_span() -> None:
    retry = Retry(attempts=2, on=("5xx",))
    world, told = traced(
        Tracing(sampling=100.0), action=Forward(clusters=(WeightedCluster(cluster="c"),), retry=retry), endpoints=1
    )
    client = world.client()
    client.deliver(ask())
    wire = world.accept()
    first = value(wire.take(), b"traceparent")
    wire.deliver(UNAVAILABLE)
    world.clock.advance(1.0)
    second = value(wire.take(), b"traceparent")
    wire.deliver(OK)
    assert first == second is not None
    (record,) = told
    assert record.trace is not None
    assert [event[1:] for event in record.trace.events] == [
        ("retry", {"attempt": "1", "reason": "503", "upstream_address": "127.1.0.2:8080"})
    ]


def test_a_tracing_that_cannot_be_obeyed_is_refused() -> None:
    with pytest.raises(Refused, match=r"telemetry workload: tracing\[0\].sampling"):
        traced(Tracing(sampling=-1.0))


def test_a_log_line_may_name_the_trace() -> None:
    line = log_format.compile("%TRACE_ID%", "format")
    world, told = traced(Tracing(sampling=100.0))
    sent(world, CAME)
    assert line(told[0]) == T
    sent(world, UNWANTED)
    assert line(world.records[-1]) == T
