"""One client connection over the real data path in memory: flow control on both sides, drain, half-close, the crash barrier."""

from __future__ import annotations

from typing import Any

import pytest

from meshproxy.message.reason import Reason
from tests.flow.memnet import GET, OK, Wire, World, simple, status_of


def full(wire: Wire) -> None:
    """From the next write on, the peer takes nothing."""
    write = wire.write

    def stuck(data: bytes) -> None:
        wire.write = write  # type: ignore[method-assign]
        write(data)
        wire.protocol.pause_writing()

    wire.write = stuck  # type: ignore[method-assign]


def test_a_client_that_does_not_read_stops_the_app_s_connection() -> None:
    world = World(simple(endpoints=1))
    client = world.client()
    client.deliver(GET)
    server = world.accept()
    full(client)
    server.deliver(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
    assert not server.reading
    client.protocol.resume_writing()
    assert server.reading
    server.deliver(b"-there")
    assert client.take().endswith(b"half-there")
    world.settled()


@pytest.mark.parametrize("end", [b"0\r\n\r\n", b"0\r\nx-sum: 1\r\n\r\n"])
def test_a_pause_within_an_answer_s_last_bytes_does_not_stay_with_the_connection(end: bytes) -> None:
    world = World(simple(endpoints=1))
    client = world.client()
    client.deliver(GET)
    server = world.accept()
    server.deliver(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    full(client)
    server.deliver(b"4\r\nlast\r\n" + end)
    other = world.client()
    other.deliver(GET)
    assert not world.dials, "the connection is free again"
    server.deliver(OK)
    assert status_of(other.take()) == 200
    client.protocol.resume_writing()
    client.deliver(GET)
    server.deliver(OK)
    world.settled()


def test_an_app_that_does_not_read_stops_the_client() -> None:
    world = World(simple(endpoints=1))
    client = world.client()
    client.deliver(b"POST / HTTP/1.1\r\nhost: rating:8080\r\ncontent-length: 9\r\n\r\n")
    server = world.accept()
    full(server)
    client.deliver(b"abc")
    assert not client.reading
    server.protocol.resume_writing()
    client.deliver(b"defghi")
    server.deliver(OK)
    assert status_of(client.take()) == 200
    world.settled()


def test_an_early_answer_while_the_app_does_not_read_frees_the_client() -> None:
    world = World(simple(endpoints=1))
    client = world.client()
    client.deliver(b"POST / HTTP/1.1\r\nhost: rating:8080\r\ncontent-length: 9\r\n\r\n")
    server = world.accept()
    full(server)
    client.deliver(b"abc")
    server.deliver(b"HTTP/1.1 413 Big\r\ncontent-length: 0\r\n\r\n")
    assert status_of(client.take()) == 413
    assert client.reading, "what still comes is read and thrown away"
    assert server.aborted
    world.settled()


def test_no_pipelined_request_is_read_while_its_client_does_not() -> None:
    world = World(simple(endpoints=1))
    client = world.client()
    client.deliver(GET)
    server = world.accept()
    full(client)
    server.take()
    server.deliver(OK)
    client.deliver(GET)
    assert server.take() == b""
    client.protocol.resume_writing()
    assert server.take().startswith(b"GET ")
    server.deliver(OK)
    world.settled()


def test_a_body_waits_for_its_connection_within_bounds() -> None:
    world = World(simple(endpoints=1))
    client = world.client()
    size = 1 << 20
    client.deliver(b"POST / HTTP/1.1\r\nhost: rating:8080\r\ncontent-length: %d\r\n\r\n" % size)
    sent = 0
    while client.reading:
        client.deliver(b"z" * 65536)
        sent += 65536
    assert sent <= 512 * 1024
    server = world.accept()
    assert client.reading
    while sent < size:
        client.deliver(b"z" * 65536)
        sent += 65536
    assert len(server.sent) > size
    server.deliver(OK)
    assert status_of(client.take()) == 200
    world.settled()


def test_a_tunnel_obeys_both_sides() -> None:
    world = World(simple(endpoints=1))
    client = world.client()
    client.deliver(b"CONNECT rating:8080 HTTP/1.1\r\nhost: rating:8080\r\n\r\n")
    server = world.accept()
    assert status_of(client.take()) == 200
    full(client)
    server.deliver(b"down")
    assert not server.reading
    client.protocol.resume_writing()
    assert server.reading
    full(server)
    client.deliver(b"up")
    assert not client.reading
    server.protocol.resume_writing()
    assert client.reading
    client.deliver_eof()
    server.deliver_eof()
    server.lose()
    client.lose()
    world.settled()


@pytest.mark.parametrize("first", ["client", "server"])
def test_a_tunnel_ends_when_both_halves_have(first: str) -> None:
    world = World(simple(endpoints=1))
    client = world.client()
    client.deliver(b"CONNECT rating:8080 HTTP/1.1\r\nhost: rating:8080\r\n\r\n")
    server = world.accept()
    one, other = (client, server) if first == "client" else (server, client)
    one.deliver_eof()
    assert other.eof
    assert not one.closing
    other.deliver_eof()
    assert client.closing
    assert server.closing
    assert world.records[0].flags == ()
    world.settled()


def test_a_tunnel_whose_client_vanishes_is_cut() -> None:
    world = World(simple(endpoints=1))
    client = world.client()
    client.deliver(b"CONNECT rating:8080 HTTP/1.1\r\nhost: rating:8080\r\n\r\n")
    server = world.accept()
    client.lose()
    assert server.closing
    world.settled()


def test_a_foreign_caller_is_cut_off_without_a_word() -> None:
    world = World()
    world.gate.accepts = lambda address: address == "127.0.0.1"
    client = world.client("127.9.9.9")
    assert client.aborted
    client.deliver(GET)
    client.deliver_eof()
    client.lose()
    assert client.sent == b""
    assert not world.gate.connections


def test_a_bug_costs_its_connection_only() -> None:
    world = World(simple(endpoints=1))
    caught: list[str] = []
    world.gate.crash = lambda where, bug: caught.append(f"{where}: {bug}")

    def boom(request: Any) -> None:
        raise RuntimeError("boom")

    victim, other = world.client(), world.client()
    choose, world.slot.current.choose = world.slot.current.choose, boom
    victim.deliver(GET)
    world.slot.current.choose = choose
    assert caught == ["downstream data: boom"]
    assert victim.aborted
    victim.lose()
    other.deliver(GET)
    world.accept().deliver(OK)
    assert status_of(other.take()) == 200
    world.settled()


@pytest.mark.parametrize("body", [b"content-length: 5\r\n\r\nhel", b"transfer-encoding: chunked\r\n\r\n5\r\nhel"])
def test_a_pipelined_request_that_its_client_never_finished_is_cut(body: bytes) -> None:
    """Its first half waits behind the request before it, and the end of the stream has come already."""
    world = World(simple(endpoints=1))
    client = world.client()
    client.deliver(GET + b"POST /b HTTP/1.1\r\nhost: rating:8080\r\n" + body)
    client.deliver_eof()
    server = world.accept()
    server.deliver(OK)
    assert status_of(client.take()) == 200
    assert client.closing
    assert server.closing
    assert world.records[1].flags == (Reason.DOWNSTREAM_GONE,)
    world.settled()


def test_a_pipelined_tunnel_gets_its_bytes_before_its_client_s_end() -> None:
    world = World(simple(endpoints=1))
    client = world.client()
    client.deliver(GET + b"CONNECT rating:8080 HTTP/1.1\r\nhost: rating:8080\r\n\r\nhello")
    client.deliver_eof()
    server = world.accept()
    server.take()
    server.deliver(OK)  # the tunnel opens on the connection that has just become free
    assert server.take() == b"hello"
    assert server.eof
    server.deliver(b"bye")
    server.deliver_eof()
    assert client.take().endswith(b"bye")
    world.settled()
