"""The client machine: what an endpoint sees, what an attempt is told, and when a connection may serve again."""

from __future__ import annotations

import pytest

from meshproxy.message.head import CHUNKED, RequestHead, ResponseHead
from meshproxy.message.reason import Reason
from tests.codec.fakes import Client, Response, get

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CODED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_one_request_after_the_other() -> None:
    client = Client()
    for _ in range(3):
        assert client.wire.take() == b"GET / HTTP/1.1\r\nhost: reviews:9080\r\naccept: */*\r\n\r\n"
        assert not client.codec.reusable
        client.feed(OK)
        assert client.response.body == b"ok"
        assert client.codec.reusable
        client.again(get())


def test_a_new_cycle_may_start_in_the_last_call() -> None:
    client = Client()
    second = Response()

    class Eager(Response):
        def on_response_data(self, data: bytes, end: bool, now: float) -> None:
            assert client.codec.reusable
            client.codec.start(second, b"GET")
            client.codec.send_head(get(b"/2"), True)

    client.codec.sink = Eager()
    client.feed(OK)
    client.feed(OK)
    assert second.ended
    assert client.codec.reusable


def test_bodies_of_requests() -> None:
    client = Client(RequestHead(b"POST", b"/", b"a", [(b"content-length", b"5")], 5), False)
    client.codec.send_data(b"he", False)
    client.codec.send_data(b"llo", True)
    assert client.wire.take() == b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello"
    client.feed(OK)
    assert client.codec.reusable
    client.again(RequestHead(b"POST", b"/", b"a", [], CHUNKED), False)
    client.codec.send_data(b"hello", False)
    client.codec.send_trailers([(b"x", b"1")])
    assert (
        client.wire.take() == b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: 1\r\n\r\n"
    )


def test_a_body_longer_than_one_read_passes_as_it_is() -> None:
    client = Client().feed(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n")
    reads = [b"x" * 65536, b"y" * 65536]
    client.feed(*reads)
    assert all(a is b for a, b in zip(client.response.objects, reads, strict=True))


@pytest.mark.parametrize(
    "answer",
    [
        OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK + b"x",
        OK + OK,
    ],
)
def test_what_makes_a_connection_unfit(answer: bytes) -> None:
    client = Client().feed(answer)
    assert client.response.ended
    assert client.response.body == b"ok"
    assert not client.codec.reusable


def test_an_early_answer_makes_a_connection_unfit() -> None:
    client = Client(RequestHead(b"POST", b"/", b"a", [], CHUNKED), False).feed(OK)
    assert client.response.ended
    assert not client.codec.reusable
    client.wire.take()
    client.codec.send_data(b"late", True)
    assert client.wire.out == b""


def test_the_peers_close_stays_here() -> None:
    client = Client().feed(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert client.response.head is not None
    assert client.response.head.close is False


def test_the_last_request_of_a_connection_says_so() -> None:
    client = Client().feed(OK)
    client.wire.take()
    client.codec.last = True
    client.again(get())
    assert client.wire.out.endswith(b"\r\nconnection: close\r\n\r\n")
    client.feed(OK)
    assert not client.codec.reusable


def test_bytes_nobody_asked_for() -> None:
    client = Client().feed(OK)
    client.feed(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert not client.codec.reusable
    assert client.wire.calls == ["close"]


def test_until_close() -> None:
    client = Client().feed(b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo")
    assert not client.response.ended
    client.codec.feed_eof(1.0)
    assert client.response.ended
    assert client.response.body == b"hello"
    assert not client.codec.reusable
    client.codec.closed(1.0)


def test_until_close_without_an_eof_is_cut() -> None:
    client = Client().feed(b"HTTP/1.1 200 OK\r\n\r\nhel")
    client.codec.closed(1.0)
    assert client.response.failed is Reason.UPSTREAM_TERMINATION


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 2", OK[:-1], CODED + b"5\r\nhe", CODED + b"0\r\n"])
@pytest.mark.parametrize("how", ["feed_eof", "closed"])
def test_cut_short(start: bytes, how: str) -> None:
    client = Client()
    if start:
        client.feed(start)
    getattr(client.codec, how)(1.0)
    client.codec.closed(1.0)
    assert client.response.failed is Reason.UPSTREAM_TERMINATION
    assert not client.codec.reusable


def test_eof_when_idle() -> None:
    client = Client().feed(OK)
    client.codec.feed_eof(1.0)
    assert not client.codec.reusable
    assert client.response.failed is None


def test_informational_responses_come_before_the_final_one() -> None:
    client = Client().feed(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK)
    assert client.response.informational == [(100, []), (103, [(b"link", b"x")])]
    assert client.response.body == b"ok"
    assert client.codec.reusable


def test_chunked_with_trailers() -> None:
    client = Client().feed(CODED + b"5\r\nhello\r\n", b"0\r\nX: 1\r\nContent-Length: 9\r\n\r\n")
    assert (client.response.body, client.response.trailers) == (b"hello", [(b"x", b"1")])
    assert client.codec.reusable


def test_abandon() -> None:
    client = Client().feed(OK[:-1])
    client.codec.abandon()
    assert client.wire.calls == ["abort"]
    client.feed(b"k")
    client.codec.closed(1.0)
    assert not client.response.ended
    assert client.response.failed is None


def test_abandoned_from_within_the_head() -> None:
    client = Client()
    client.response.on_head = lambda head: client.codec.abandon()
    client.feed(OK)
    assert client.response.body == b""
    assert client.wire.calls == ["abort"]


def test_another_sink_may_take_the_rest() -> None:
    client = Client()
    drain = Response()
    drain.head = ResponseHead(503, [])

    def swap(head: ResponseHead) -> None:
        client.codec.sink = drain

    client.response.on_head = swap
    client.feed(OK)
    assert client.response.body == b""
    assert drain.body == b"ok"
    assert client.codec.reusable


UPGRADE = RequestHead(b"GET", b"/chat", b"a", [], upgrade=b"websocket")
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.mark.parametrize("prompt", [True, False])
def test_an_upgrade_becomes_a_tunnel(prompt: bool) -> None:
    client = Client(UPGRADE)
    if prompt:
        client.response.on_head = lambda head: client.codec.start_tunnel()
    assert client.wire.take().endswith(b"connection: upgrade\r\nupgrade: websocket\r\n\r\n")
    client.feed(SWITCH + b"early")
    if not prompt:
        assert client.response.body == b""
        client.codec.start_tunnel()
    assert client.codec.tunnel
    assert client.response.head is not None
    assert (client.response.head.status, client.response.head.upgrade) == (101, b"websocket")
    client.feed(b" late")
    assert client.response.body == b"early late"
    client.codec.send_data(b"raw", False)
    client.codec.send_data(b"", True)
    assert client.wire.out == b"raw"
    assert client.wire.calls == ["write_eof"]
    client.codec.feed_eof(1.0)
    assert client.response.ended
    client.codec.abandon()
    assert client.wire.calls == ["write_eof", "close"]


def test_an_upgrade_may_be_declined() -> None:
    client = Client(UPGRADE).feed(OK)
    assert client.response.body == b"ok"
    assert client.codec.reusable


def test_a_tunnel_from_the_start() -> None:
    client = Client()
    client.wire.take()
    client.codec.start_tunnel()
    client.codec.send_data(b"\x16", False)
    assert client.wire.out == b"\x16"


def test_a_connect_answered() -> None:
    client = Client(get(b"b:443", b"CONNECT"))
    client.response.on_head = lambda head: client.codec.start_tunnel()
    client.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nraw")
    assert client.response.body == b"raw"


def test_a_connect_refused_is_an_ordinary_response() -> None:
    client = Client(get(b"b:443", b"CONNECT")).feed(OK.replace(b"200", b"403"))
    assert client.response.body == b"ok"
    assert client.codec.reusable


def test_no_body_for_head() -> None:
    client = Client(get(method=b"HEAD")).feed(OK[:-2])
    assert client.response.ended
    assert client.codec.reusable
