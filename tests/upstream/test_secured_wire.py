"""A secured connection fed by hand: any fragmentation, any end of the stream, bytes that are no TLS. No sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.cluster.cluster import Cluster as Live
from meshproxy.message.head import RequestHead
from meshproxy.message.reason import Reason
from meshproxy.model.cluster import Cluster, Endpoint
from meshproxy.model.security import ClientTls, Trust
from meshproxy.tls.contexts import MESH_SERVER_ALPN, server_context
from meshproxy.tls.session import Session
from meshproxy.tls.vault import Vault
from meshproxy.upstream.pool import Pool
from meshproxy.upstream.secure import ClientSide, TlsRefused
from meshproxy.upstream.secured import SecuredConnection
from tests.certs import Authority, spiffe
from tests.flow.memnet import Wire

ROOT = Authority()
PAIR = ROOT.issue(spiffe("rating"))
SERVER = server_context(PAIR.certificate, PAIR.key, verify="required", roots=(ROOT.pem,), alpn=MESH_SERVER_ALPN)
VAULT = Vault()
VAULT.identify(ROOT.identity(spiffe("web")))
VAULT.configure(Trust(roots=(ROOT.pem.decode(),)), {})
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nsome of it"


class Sink:
    def __init__(self) -> None:
        self.body = b""
        self.ended = 0
        self.failed: Reason | None = None

    def on_response_head(self, head: Any, end: bool, now: float) -> None: ...
    def on_response_flush(self, now: float) -> None: ...

    def on_response_data(self, data: bytes, end: bool, now: float) -> None:
        self.body += data
        self.ended += end

    def on_response_end(self, trailers: Any, now: float) -> None:
        self.ended += 1

    def on_upstream_failed(self, reason: Reason, now: float) -> None:
        self.failed = reason


class Both:
    """A connection and its server, joined by hand."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pieces: list[int] | None = None) -> None:
        cluster = Live(Cluster(name="c", tls=ClientTls()), [Endpoint(address="10.0.0.1", port=80, mtls=True)])
        self.side = ClientSide(VAULT)
        self.bugs: list[BaseException] = []
        pool = Pool(cluster, cluster.endpoints[0], self)
        plan = self.side.plan(pool)
        assert plan is not None
        session = self.side.session(pool, plan)
        self.connection = SecuredConnection(loop, pool, lambda where, bug: self.bugs.append(bug), self.side, plan, session)
        self.wire = Wire(self.connection, ("10.0.0.1", 80), ("10.0.0.2", 40000))
        self.wire.get_extra_info = lambda name, default=None: self.wire.info[name]  # type: ignore[method-assign]
        self.server = Session(SERVER, True)
        self.pieces = pieces or [1 << 20]
        self.connection.connection_made(self.wire)

    def dial(self, pool: Pool) -> None: ...

    def pump(self, more: bytes = b"") -> bytes:
        """Carry bytes both ways until nobody has any left; what the server heard."""
        heard = b""
        at = 0
        self.deliver(more)
        while said := self.wire.take():
            while said:
                size = self.pieces[at % len(self.pieces)]
                at += 1
                heard += self.server.receive(said[:size])
                if self.server.handshaken:
                    heard += self.server.read()
                said = said[size:]
            self.deliver(self.server.take())
        return heard

    def deliver(self, data: bytes) -> None:
        at = 0
        while data and not self.wire.closing:
            size = self.pieces[at % len(self.pieces)]
            at += 1
            self.wire.deliver(data[:size])
            data = data[size:]

    def ask(self) -> Sink:
        sink = Sink()
        self.connection.begin(sink)  # type: ignore[arg-type]
        self.connection.codec.start(sink, b"GET")
        self.connection.codec.send_head(RequestHead(b"GET", b"/", b"rating", []), True)
        return sink


@pytest.fixture
def loop() -> Any:
    made = asyncio.new_event_loop()
    yield made
    made.close()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=6))
def test_any_fragmentation_carries_the_same(pieces: list[int]) -> None:
    loop = asyncio.new_event_loop()
    try:
        both = Both(loop, pieces)
        both.pump()
        assert both.connection.shaken.done() and both.connection.secured is not None
        sink = both.ask()
        assert both.pump() == b"GET / HTTP/1.1\r\nhost: rating\r\n\r\n"
        both.deliver(both.server.send(b"HTTP/1.1 200 OK\r\ncontent-length: 3000\r\n\r\n" + b"z" * 3000))
        assert (sink.body, sink.ended, sink.failed) == (b"z" * 3000, 1, None)
        assert both.connection.codec.reusable and not both.bugs
        both.wire.lose()
        assert not both.side.connections
    finally:
        loop.close()


def test_a_body_that_ends_with_its_connection_needs_the_peers_word_for_it(loop: asyncio.AbstractEventLoop) -> None:
    for clean in (True, False):
        both = Both(loop)
        both.pump()
        sink = both.ask()
        both.pump()
        both.deliver(both.server.send(UNTIL_CLOSE))
        assert sink.body == b"some of it"
        if clean:
            both.deliver(both.server.finish())
        both.wire.deliver_eof()
        both.wire.lose()
        assert (sink.ended, sink.failed) == ((1, None) if clean else (0, Reason.UPSTREAM_TERMINATION))
        assert not both.bugs


def test_an_answer_that_comes_with_a_goodbye_is_whole_and_its_connection_is_not_used_again(
    loop: asyncio.AbstractEventLoop,
) -> None:
    both = Both(loop)
    both.pump()
    pool = both.connection.pool
    pool.limits.try_connection(True)
    pool.busy.add(both.connection)
    sink = both.ask()
    both.pump()
    both.deliver(both.server.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok") + both.server.finish())
    assert (sink.body, sink.ended) == (b"ok", 1)
    both.connection.end(both.connection.codec.reusable)
    assert not pool.idle and both.wire.closing
    both.wire.lose()
    assert not both.bugs and pool.limits.idle


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x28", b"\x16\x03", b"\x00" * 50]
)
def test_what_is_no_handshake_ends_the_dial(loop: asyncio.AbstractEventLoop, data: bytes) -> None:
    both = Both(loop)
    both.deliver(data)
    if not both.wire.closing:
        both.wire.deliver_eof()
    both.wire.lose()
    assert isinstance(both.connection.shaken.exception(), TlsRefused)
    assert not both.bugs and not both.side.connections


@settings(deadline=None, max_examples=40)
@given(st.binary(min_size=6, max_size=200))
def test_garbage_within_a_session_ends_the_request_and_nothing_else(data: bytes) -> None:
    loop = asyncio.new_event_loop()
    try:
        both = Both(loop)
        both.pump()
        sink = both.ask()
        both.pump()
        both.deliver(data)
        both.wire.lose()
        assert sink.failed is Reason.UPSTREAM_TERMINATION and not sink.body
        assert not both.bugs
    finally:
        loop.close()


def test_bytes_that_nobody_asked_for_end_the_connection(loop: asyncio.AbstractEventLoop) -> None:
    both = Both(loop)
    both.pump()
    both.deliver(both.server.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"))
    assert both.wire.closing and not both.bugs
    both.wire.lose()
