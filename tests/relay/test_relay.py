"""Connections whose bytes are relayed, in memory: what goes where, how it ends, what is told of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.cluster.status import cluster_status
from meshproxy.message.reason import Reason
from meshproxy.message.record import StreamRecord
from meshproxy.model.cluster import Cluster, ConnectionPool, Endpoint, Endpoints, LoadBalancer, Outlier
from meshproxy.model.listener import Listener
from meshproxy.model.route import WeightedCluster
from meshproxy.model.tcp import Chain, TcpRoute
from tests.flow.memnet import World, simple

DB = ("10.96.0.7", 5432)


def to(*clusters: str, **fields: Any) -> TcpRoute:
    return TcpRoute(clusters=tuple(WeightedCluster(cluster=name) for name in clusters), **fields)


def world(*chains: Chain, listener: dict[str, Any] | None = None, **cluster: Any) -> World:
    """An outbound listener whose chains, one for the database unless others are given, go to cluster "db" of one endpoint."""
    given = chains or (Chain(name="db", port=5432, addresses=("10.96.0.7",), protocol="TCP", tcp=(to("db"),)),)
    resources = simple(listener={"chains": given, **(listener or {})})
    resources["cluster"]["db"] = Cluster(name="db", **cluster)
    resources["endpoints"]["db"] = Endpoints(name="db", endpoints=(Endpoint(address="127.1.0.9", port=5432),))
    resources["cluster"]["PassthroughCluster"] = Cluster(
        name="PassthroughCluster", type="PASSTHROUGH", lb=LoadBalancer(policy="PASSTHROUGH")
    )
    return World(resources)


def rest(made: World) -> None:
    """Nothing is held any more."""
    assert not made.gate.connections
    made.settled()
    for cluster in made.snapshot.clusters.values():
        assert cluster.limits.connections == 0


def flags(made: World) -> list[list[str]]:
    return [[reason.flag for reason in record.flags] for record in made.streams]


def test_bytes_go_both_ways_and_each_end_is_passed_on() -> None:
    made = world()
    client = made.intercepted(DB)
    client.deliver(b"early ")
    server = made.accept()
    assert server.take() == b"early "
    client.deliver(b"question")
    assert server.take() == b"question"
    server.deliver(b"answer")
    assert client.take() == b"answer"
    client.deliver_eof()
    assert server.eof and not client.closing
    server.deliver(b" more")
    assert client.take() == b" more"
    server.deliver_eof()
    assert client.closing and server.closing and not client.aborted and not server.aborted
    server.lose()
    client.lose()
    (record,) = made.streams
    assert (record.body_received, record.body_sent, record.flags) == (14, 11, ())
    assert (record.cluster_name, record.downstream_local, record.endpoint.label) == ("db", DB, b"127.1.0.9:5432")
    rest(made)


def test_a_server_that_speaks_first_and_ends_first_is_heard() -> None:
    made = world()
    client = made.intercepted(DB)
    server = made.accept(early=b"220 hello", ended=True)
    assert client.take() == b"220 hello"
    assert client.eof and not client.closing
    client.deliver(b"QUIT")
    client.deliver_eof()
    assert server.take() == b"QUIT" and server.closing and client.closing
    server.lose()
    client.lose()
    rest(made)


def test_a_client_that_ends_before_the_endpoint_is_there() -> None:
    made = world()
    client = made.intercepted(DB)
    client.deliver(b"all of it")
    client.deliver_eof()
    server = made.accept()
    assert server.take() == b"all of it" and server.eof
    server.deliver(b"ok")
    server.deliver_eof()
    assert client.take() == b"ok" and client.closing
    server.lose()
    client.lose()
    rest(made)


@pytest.mark.parametrize("reason", [Reason.CONNECT_FAILURE, Reason.CONNECT_TIMEOUT])
def test_a_dial_that_fails_resets_the_client_and_counts_against_the_endpoint(reason: Reason) -> None:
    made = world(outlier=Outlier(consecutive_5xx=1, max_ejection_percent=100))
    client = made.intercepted(DB)
    made.refuse(reason, "delayed connect error: Connection refused")
    assert client.aborted
    client.lose()
    assert flags(made) == [["UF", "URX"]]
    (endpoint,) = made.snapshot.clusters["db"].endpoints
    assert endpoint.health.ejected
    rest(made)


def test_successes_end_a_run_of_failures() -> None:
    made = world(outlier=Outlier(consecutive_5xx=2, max_ejection_percent=100))
    for dialed in (False, True, False):
        client = made.intercepted(DB)
        if dialed:
            server = made.accept()
            client.lose()
            server.lose()
        else:
            made.refuse()
            client.lose()
    (endpoint,) = made.snapshot.clusters["db"].endpoints
    assert not endpoint.health.ejected
    rest(made)


def test_one_connection_too_many_is_reset() -> None:
    made = world(pool=ConnectionPool(max_connections=1))
    first = made.intercepted(DB)
    server = made.accept()
    second = made.intercepted(DB)
    assert second.aborted and not made.dials
    second.lose()
    assert flags(made) == [["UO"]]
    assert made.limits("db").connection_overflow == 1
    first.deliver_eof()
    server.deliver_eof()
    first.lose()
    server.lose()
    made.intercepted(DB)
    assert made.dials


def test_nobody_there() -> None:
    made = world()
    made.install({**made.snapshot.resources, "endpoints": {}})
    client = made.intercepted(DB)
    assert client.aborted
    assert flags(made) == [["UH"]]


def test_no_such_cluster() -> None:
    made = world(Chain(name="db", port=5432, protocol="TCP", tcp=(to("gone"),)))
    assert made.intercepted(DB).aborted
    assert flags(made) == [["NC"]]


def test_a_reset_is_passed_on() -> None:
    made = world()
    client = made.intercepted(DB)
    server = made.accept()
    server.deliver(b"half an ans")
    server.lose()
    assert client.aborted
    client.lose()
    client = made.intercepted(DB)
    server = made.accept()
    client.lose()
    assert server.aborted
    server.lose()
    assert flags(made) == [["UC"], ["DC"]]
    rest(made)


def test_a_client_that_leaves_while_dialing() -> None:
    made = world()
    client = made.intercepted(DB)
    client.lose()
    server = made.accept()
    assert server.aborted
    server.lose()
    assert flags(made) == [["DC"]]
    rest(made)


def test_who_reads_slowly_stops_the_other() -> None:
    made = world()
    client = made.intercepted(DB)
    server = made.accept()
    client.protocol.pause_writing()
    assert not server.reading
    client.protocol.resume_writing()
    assert server.reading
    server.protocol.pause_writing()
    assert not client.reading
    server.protocol.resume_writing()
    assert client.reading


def test_what_comes_before_the_endpoint_is_bounded() -> None:
    made = world()
    client = made.intercepted(DB)
    client.deliver(b"x" * 60_000)
    assert client.reading
    client.deliver(b"x" * 60_000)
    assert not client.reading
    server = made.accept()
    assert client.reading and len(server.take()) == 120_000


def test_an_idle_connection_ends_and_a_busy_one_does_not() -> None:
    made = world(Chain(name="db", port=5432, protocol="TCP", tcp=(to("db"),), idle_timeout=10.0))
    client = made.intercepted(DB)
    server = made.accept()
    for _ in range(4):
        made.clock.advance(9)
        server.deliver(b".")
        made.sweep()
    assert not client.closing
    made.clock.advance(10)
    made.sweep()
    assert client.aborted and server.aborted
    client.lose()
    server.lose()
    assert made.streams[0].termination == "tcp_session_idle_timeout"
    rest(made)


def test_a_connection_lives_no_longer_than_it_may() -> None:
    made = world(pool=ConnectionPool(max_connection_duration=30.0))
    client = made.intercepted(DB)
    made.accept()
    made.clock.advance(29)
    client.deliver(b".")
    made.sweep()
    assert not client.closing
    made.clock.advance(1)
    made.sweep()
    assert client.aborted


def test_a_chain_that_is_gone_lets_a_busy_connection_stay_for_a_while() -> None:
    made = world()
    client = made.intercepted(DB)
    made.accept()
    resources = dict(made.snapshot.resources)
    resources["listener"] = {"outbound": Listener(name="outbound", direction="outbound", port=15001, route_ports=(8080,))}
    made.install(resources)
    made.gate.reconfigured()
    (stream,) = made.gate.connections
    assert stream.gate.gone
    stream.drain()
    made.clock.advance(0.4)
    made.sweep()
    assert not client.closing
    made.clock.advance(0.2)
    made.sweep()
    assert client.aborted
    assert made.streams[0].termination == "configuration_changed"


def test_a_sidecar_that_stops_lets_it_go_on() -> None:
    made = world()
    client = made.intercepted(DB)
    made.accept()
    made.gate.drain()
    (stream,) = made.gate.connections
    stream.drain()
    made.clock.advance(600)
    made.sweep()
    assert not client.closing


def test_weights_are_drawn_once_a_connection() -> None:
    route = TcpRoute(clusters=(WeightedCluster(cluster="c", weight=0), WeightedCluster(cluster="db", weight=3)))
    made = world(Chain(name="db", port=5432, protocol="TCP", tcp=(route,)))
    for draw in (0.0, 0.99):
        made.draw = draw
        made.intercepted(DB)
    assert [line.cluster.name for line in made.dials] == ["db", "db"]


def test_passthrough_goes_to_where_it_was_meant_to_go() -> None:
    made = world(Chain(name="passthrough", protocol="TCP", tcp=(to("PassthroughCluster"),)))
    made.intercepted(("198.51.100.7", 4000))
    assert made.dials[0].endpoint.key == ("198.51.100.7", 4000)
    made.refuse(Reason.EGRESS_REFUSED, "")
    assert flags(made) == [[""]]
    assert made.streams[0].termination == "egress_refused"


def test_reports_now_and_again() -> None:
    made = world()
    client = made.intercepted(DB)
    made.accept()
    told: list[tuple[int, bool]] = []

    def streamed(record: StreamRecord, now: float, over: bool) -> None:
        record.told = (record.body_received, record.body_sent)
        told.append((record.body_received, over))

    made.streamed = streamed  # type: ignore[method-assign]
    for _ in range(12):
        client.deliver(b"12345")
        made.clock.advance(1)
        made.sweep()
    assert told == [(5, False), (30, False), (55, False)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("csCSpPqQ"), st.binary(min_size=1, max_size=40)), max_size=40), st.integers(0, 20))
def test_whatever_the_order_all_bytes_arrive_once(steps: list[tuple[str, bytes]], dialed: int) -> None:
    """c/s: client or server says something; C/S: says its end; p/P: client reads slowly, or again; q/Q: server."""
    made = world()
    client, server = made.intercepted(DB), None
    said = {"c": b"", "s": b""}
    over: set[str] = set()
    slow: set[str] = set()
    for at, (step, data) in enumerate(steps):
        if at >= dialed and server is None:
            server = made.accept()
        side = client if step.lower() in "cp" else server
        if side is None or client.closing:
            continue
        if step in "cs" and step not in over and side.reading:
            side.deliver(data)
            said[step] += data
        elif step in "CS" and step.lower() not in over and side.reading:
            over.add(step.lower())
            side.deliver_eof()
        elif step in "pq" and step not in slow:  # a transport tells of changes only
            slow.add(step)
            side.protocol.pause_writing()
        elif step in "PQ" and step.lower() in slow:
            slow.remove(step.lower())
            side.protocol.resume_writing()
    if server is None:
        server = made.accept()
    for name, wire in (("p", client), ("q", server)):
        if name in slow and not client.closing:
            wire.protocol.resume_writing()
    if not client.closing:
        assert client.reading and server.reading
    for name, wire in (("c", client), ("s", server)):
        if name not in over and not wire.closing:
            wire.deliver_eof()
    assert server.sent == said["c"] and client.sent == said["s"]
    assert client.closing and server.closing and not client.aborted and not server.aborted
    (record,) = made.streams
    assert (record.body_received, record.body_sent, record.flags) == (len(said["c"]), len(said["s"]), ())
    for wire in (server, client):
        wire.lose()
    made.clock.advance(60)
    rest(made)


@pytest.mark.parametrize("state", ["dialing", "joined"])
def test_who_is_cut_by_us_has_not_gone_away_by_himself(state: str) -> None:
    made = world()
    client = made.intercepted(DB)
    server = made.accept() if state == "joined" else None
    (stream,) = made.gate.connections
    stream.expel("drain_time_over")
    assert client.aborted and (server is None or server.aborted)
    client.lose()
    if server is not None:
        server.lose()
    else:
        made.refuse()
    assert (flags(made), made.streams[0].termination) == ([[]], "drain_time_over")
    rest(made)


def test_endpoints_count_their_connections() -> None:
    made = world()
    (endpoint,) = made.snapshot.clusters["db"].members()
    client = made.intercepted(DB)
    assert endpoint.lines == 1
    server = made.accept()
    other = made.intercepted(DB)
    made.refuse()
    assert endpoint.lines == 1 and made.snapshot.clusters["db"].limits.connections == 1
    (row,) = cluster_status(made.snapshot.clusters["db"], made.clock.now())["endpoints"]
    assert row["cx_active"] == 1
    for wire in (client, server, other):
        wire.lose()
    assert endpoint.lines == 0
    rest(made)
