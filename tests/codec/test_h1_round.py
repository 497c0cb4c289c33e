"""Server and client machines back to back, as a proxy and as a pair: what goes in at one end comes out at the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.codec.h1 import ClientCodec, ServerCodec
from meshproxy.message.head import CHUNKED, Headers, RequestHead, ResponseHead
from meshproxy.message.reason import Reason
from tests.codec.fakes import Request, Response, WireLog, cuts, show


class Relay:
    """A proxy of nothing but the two machines: each end's calls go to the other end."""

    def __init__(self) -> None:
        self.down = WireLog()
        self.up = WireLog()
        self.client = ClientCodec(self.up)
        self.server = ServerCodec(self.down, self._open)
        self.failed: Reason | None = None

    def _open(self, codec: ServerCodec) -> Relay:
        return self

    def on_request_head(self, head: RequestHead, end: bool, now: float) -> None:
        self.client.start(self, head.method)
        self.client.send_head(head, end)

    def on_request_data(self, data: bytes, end: bool, now: float) -> None:
        self.client.send_data(data, end)

    def on_request_end(self, trailers: Headers, now: float) -> None:
        self.client.send_trailers(trailers)

    def on_request_error(self, reason: Reason, now: float) -> None:
        self.failed = reason

    def on_downstream_closed(self, now: float) -> None:
        self.client.abandon()

    def on_informational(self, status: int, headers: Headers, now: float) -> None:
        self.server.send_informational(status, headers)

    def on_response_head(self, head: ResponseHead, end: bool, now: float) -> None:
        self.server.send_head(head, end)

    def on_response_data(self, data: bytes, end: bool, now: float) -> None:
        self.server.send_data(data, end)

    def on_response_end(self, trailers: Headers, now: float) -> None:
        self.server.send_trailers(trailers)

    def on_response_flush(self, now: float) -> None:
        self.server.flush()

    def on_upstream_failed(self, reason: Reason, now: float) -> None:
        self.failed = reason
        self.server.reset()


names = st.text("abcdefghij-", min_size=1, max_size=8).map(lambda text: b"x-" + text.encode())
values = st.text('abc XYZ=;/"', max_size=20).map(lambda text: text.strip().encode())
headers = st.lists(st.tuples(names, values), max_size=5)
bodies = st.lists(st.binary(max_size=40), max_size=4)
targets = st.text("abc/?=&%25", max_size=12).map(lambda text: b"/" + text.encode())
methods = st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE"])


def write(send_head: Callable[[Any, bool], None], codec: Any, head: Any, chunks: list[bytes], trailers: Headers) -> None:
    if head.length == CHUNKED:
        send_head(head, False)
        for chunk in chunks:
            codec.send_data(chunk, False)
        codec.send_trailers(trailers)
    elif head.length:
        send_head(head, False)
        left = head.length
        for chunk in chunks:
            left -= len(chunk)
            if chunk:
                codec.send_data(chunk, left == 0)
    else:
        send_head(head, True)


def lengths(coded: bool, chunks: list[bytes], fields: Headers) -> tuple[int, Headers]:
    if coded:
        return CHUNKED, fields
    size = sum(map(len, chunks))
    return size, [*fields, (b"content-length", b"%d" % size)]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_message_survives_every_hop(data: Any) -> None:
    """client machine -> [server -> client machine] -> server machine and back, with reads cut at random."""
    draw = data.draw
    seed = draw(st.integers(0, 999))
    coded, chunks, trailers = draw(st.booleans()), draw(bodies), draw(headers)
    length, fields = lengths(coded, chunks, draw(headers))
    sent = RequestHead(draw(methods), draw(targets), b"reviews:9080", fields, length)
    back_coded, back_chunks, back_trailers = draw(st.booleans()), draw(bodies), draw(headers)
    back_length, back_fields = lengths(back_coded, back_chunks, draw(headers))
    answer = ResponseHead(draw(st.sampled_from([200, 404, 503])), back_fields, back_length, b"Because")

    origin_wire, end_wire = WireLog(), WireLog()
    origin = ClientCodec(origin_wire)
    got = Response()
    relay = Relay()
    received: list[Request] = []

    def opened(codec: ServerCodec) -> Request:
        received.append(Request(codec, lambda request: None))
        return received[-1]

    end = ServerCodec(end_wire, opened)

    for _ in range(2):  # twice, over the same connections
        got = Response()
        origin.start(got, sent.method)
        write(origin.send_head, origin, sent.copy(), chunks, trailers)
        for read in list(cuts(origin_wire.take(), seed))[seed % 5]:
            relay.server.feed(read, 1.0)
        for read in list(cuts(relay.up.take(), seed))[seed % 5]:
            end.feed(read, 1.0)
        request = received[-1]
        assert request.head is not None
        assert {**show(request.head), "te_trailers": False} == {**show(sent), "te_trailers": False}
        assert request.body == (b"".join(chunks))
        assert request.trace[-1] == ("end", trailers if coded else [])

        write(
            end.send_head,
            end,
            ResponseHead(answer.status, list(back_fields), back_length, b"Because"),
            back_chunks,
            back_trailers,
        )
        for read in list(cuts(end_wire.take(), seed))[seed % 5]:
            relay.client.feed(read, 1.0)
        for read in list(cuts(relay.down.take(), seed))[seed % 5]:
            origin.feed(read, 1.0)
        assert got.head is not None
        assert show(got.head) == show(answer)
        assert got.body == b"".join(back_chunks)
        assert got.trailers == (back_trailers if back_coded else [])
        assert got.ended
        assert origin.reusable
        assert relay.client.reusable
        assert relay.server.idle
        assert end.idle


def test_an_expectation_travels_and_one_hundred_comes_back() -> None:
    relay = Relay()
    relay.server.feed(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", 1.0)
    assert relay.up.take() == b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
    relay.client.feed(b"HTTP/1.1 100 Continue\r\n\r\n", 1.0)
    relay.client.feed(b"HTTP/1.1 100 Continue\r\n\r\n", 1.0)
    assert relay.down.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    relay.server.feed(b"hello", 1.0)
    assert relay.up.take() == b"hello"
    relay.client.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 1.0)
    assert relay.down.take() == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    assert relay.server.idle


def test_an_expectation_failed_lets_no_body_through() -> None:
    relay = Relay()
    relay.server.feed(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", 1.0)
    relay.up.take()
    relay.client.feed(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n", 1.0)
    assert b"100 Continue" not in relay.down.out
    assert b"connection: close\r\n" in relay.down.out
    relay.server.feed(b"hello", 1.0)
    assert relay.up.out == b""


def test_hop_by_hop_headers_stop_here() -> None:
    relay = Relay()
    relay.server.feed(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: close\r\n"
        b"TE: gzip\r\nX-Stay: 1\r\n\r\n",
        1.0,
    )
    assert relay.up.out == b"GET / HTTP/1.1\r\nhost: a\r\nx-stay: 1\r\n\r\n"
    relay.client.feed(
        b"HTTP/1.1 200 OK\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nX-Stay: 1\r\nContent-Length: 0\r\n\r\n",
        1.0,
    )
    assert relay.down.out == b"HTTP/1.1 200 OK\r\nx-stay: 1\r\ncontent-length: 0\r\n\r\n"


def test_a_large_body_is_never_kept() -> None:
    """16 MiB through both machines in 64 KiB reads; nothing stays behind at any time."""
    relay = Relay()
    size = 16 * 1024 * 1024
    relay.server.feed(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size, 1.0)
    relay.up.take()
    read = b"x" * 65536
    for _ in range(size // len(read)):
        relay.server.feed(read, 1.0)
        assert relay.up.out is read or relay.up.out == read
        relay.up.take()
        assert len(relay.server._pending) == 0
    relay.client.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % size, 1.0)
    relay.server.flush()
    relay.down.take()
    for _ in range(size // len(read)):
        relay.client.feed(read, 1.0)
        assert len(relay.down.take()) < len(read) + 20
        assert len(relay.client._pending) == 0
    relay.client.feed(b"\r\n0\r\n\r\n", 1.0)
    assert relay.server.idle
    assert relay.client.reusable
