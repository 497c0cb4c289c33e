"""The server machine: what a client sees and what an exchange is told, case by case."""

from __future__ import annotations

import pytest

from meshproxy.codec.h1 import H1Limits
from meshproxy.message.head import CHUNKED, UNTIL_CLOSE, ResponseHead
from meshproxy.message.reason import Reason
from tests.codec.fakes import OK, Server, at_once, never

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
CODED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CLOSING = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"


def ok() -> ResponseHead:
    return ResponseHead(200, list(OK), 2)


def test_keep_alive_serves_one_after_the_other() -> None:
    server = Server()
    for _ in range(3):
        assert server.codec.idle
        server.feed(GET)
    assert server.wire.out == ANSWER * 3
    assert server.codec.requests == 3
    assert server.wire.calls == []


def test_head_and_first_data_are_one_write() -> None:
    server = Server(never).feed(GET)
    server.codec.send_head(ok(), False)
    assert server.wire.writes == 0
    server.codec.send_data(b"ok", True)
    assert (server.wire.writes, server.wire.out) == (1, ANSWER)


def test_flush_lets_the_head_go() -> None:
    server = Server(never).feed(GET)
    server.codec.send_head(ok(), False)
    server.codec.flush()
    assert server.wire.take() == ANSWER[:-2]
    server.codec.flush()
    server.codec.send_data(b"ok", True)
    assert server.wire.take() == b"ok"


def test_body_objects_pass_through() -> None:
    seen: list[bytes] = []
    server = Server(never).feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n")
    server.last.on_request_data = lambda data, end, now: seen.append(data)  # type: ignore[method-assign]
    reads = [b"x" * 65536, b"y" * 65536]
    server.feed(*reads)
    assert all(a is b for a, b in zip(seen, reads, strict=True))


def test_pipelined_bytes_wait_for_the_response() -> None:
    server = Server(never).feed(GET + GET + POST + b"hello")
    assert len(server.requests) == 1
    server.last.respond()
    assert len(server.requests) == 2
    server.last.respond()
    assert server.last.body == b"hello"
    server.last.respond()
    assert server.wire.out == ANSWER * 3
    assert server.codec.idle


def test_a_thousand_pipelined_requests_do_not_recurse() -> None:
    assert Server().feed(GET * 2000).wire.out == ANSWER * 2000


def test_the_pipeline_is_bounded() -> None:
    server = Server(never, H1Limits(pipelined=100)).feed(GET)
    server.feed(b"x" * 100)
    assert server.wire.calls == []
    server.feed(b"x")
    assert server.wire.calls == ["pause"]
    server.last.respond()
    assert server.wire.calls[:2] == ["pause", "resume"]


def test_the_time_of_a_request_that_waited() -> None:
    times: list[float] = []
    server = Server(never, clock=lambda: 7.0)
    server.feed(GET + GET)
    server.answer = lambda request: times.append(server.codec._now) if not times else None
    started: list[float] = []
    first = server.last
    original = server.codec._open

    def opened(codec: object) -> object:
        sink = original(codec)  # type: ignore[arg-type]
        sink.on_request_head = lambda head, end, now: started.append(now)  # type: ignore[method-assign]
        return sink

    server.codec._open = opened  # type: ignore[assignment]
    first.respond()
    assert started == [7.0]


def test_a_client_that_does_not_read_gets_no_further_request_read() -> None:
    server = Server()
    server.codec.pause_writing()
    server.feed(GET, GET)
    assert server.requests == []
    server.codec.resume_writing()
    assert server.wire.out == ANSWER * 2
    assert server.codec.idle


def test_writing_blocks_in_the_middle_of_a_pipeline() -> None:
    server = Server()
    server.answer = lambda request: (server.codec.pause_writing(), request.respond()) if request.ended else None  # type: ignore[assignment]
    server.feed(GET * 3)
    assert len(server.requests) == 1
    server.codec.resume_writing()
    assert len(server.requests) == 2


# -- closing


def test_draining_says_close_and_closes() -> None:
    server = Server(never).feed(GET)
    server.codec.draining = True
    server.last.respond()
    assert server.wire.out == CLOSING
    assert server.wire.calls == ["close"]


@pytest.mark.parametrize("head", [b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n"])
def test_the_client_asks_to_close(head: bytes) -> None:
    server = Server().feed(head)
    assert server.wire.out == CLOSING
    assert server.wire.calls == ["close"]


def test_a_local_reply_asks_to_close() -> None:
    server = Server(never).feed(GET)
    head = ok()
    head.close = True
    server.codec.send_head(head, False)
    server.codec.send_data(b"ok", True)
    assert server.wire.out == CLOSING
    assert server.wire.calls == ["close"]


def test_http10_keep_alive() -> None:
    server = Server().feed(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert server.wire.out == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok"
    assert server.wire.calls == []


def test_half_close_after_the_request_still_gets_the_answer() -> None:
    server = Server(never).feed(GET)
    server.codec.feed_eof(1.0)
    assert server.wire.calls == []
    server.last.respond()
    assert server.wire.out == CLOSING
    assert server.wire.calls == ["close"]


def test_half_close_after_a_pipeline_gets_every_answer() -> None:
    server = Server(never).feed(GET + GET + GET)
    server.codec.feed_eof(1.0)
    server.answer = lambda request: request.respond()
    server.last.respond()
    assert len(server.requests) == 3
    assert server.wire.out.count(b"200 OK") == 3
    assert server.wire.calls == ["close"]


def test_eof_when_idle_closes() -> None:
    server = Server().feed(GET)
    server.codec.feed_eof(1.0)
    assert server.wire.calls == ["close"]


def test_eof_within_a_head_closes() -> None:
    server = Server().feed(GET[:10])
    server.codec.feed_eof(1.0)
    assert server.wire.calls == ["close"]
    assert server.refused == []


@pytest.mark.parametrize("start", [POST + b"he", CODED + b"5\r\nhe"])
def test_eof_within_a_body_ends_the_exchange(start: bytes) -> None:
    server = Server(never).feed(start)
    server.codec.feed_eof(1.0)
    assert server.last.gone
    server.last.respond()
    server.codec.closed(1.0)
    assert server.wire.out == b""


def test_connection_lost() -> None:
    server = Server(never).feed(GET)
    server.codec.closed(2.0)
    assert server.last.gone
    server.last.respond()
    server.codec.reset()
    assert (server.wire.out, server.wire.calls) == (b"", [])
    idle = Server().feed(GET)
    idle.codec.closed(2.0)
    assert not idle.last.gone


def test_reset_aborts() -> None:
    server = Server(never).feed(GET)
    server.codec.send_head(ResponseHead(200, [], CHUNKED), False)
    server.codec.send_data(b"x", False)
    server.codec.reset()
    assert server.wire.calls == ["abort"]
    server.feed(GET)
    assert len(server.requests) == 1


# -- early answers


def test_an_early_answer_with_the_body_in_hand_keeps_the_connection() -> None:
    server = Server(at_once).feed(POST + b"hello" + POST + b"world")
    assert len(server.requests) == 2
    assert b"connection: close" not in server.wire.out
    assert server.wire.calls == []


@pytest.mark.parametrize("start", [POST + b"he", CODED + b"5\r\nhello\r\n"])
def test_an_early_answer_otherwise_closes_and_lingers(start: bytes) -> None:
    server = Server(at_once, H1Limits(linger=100)).feed(start)
    assert b"\r\nconnection: close\r\n" in server.wire.out
    assert server.wire.calls == ["write_eof"]
    assert not server.codec.idle
    server.feed(b"x" * 90)
    assert server.wire.calls == ["write_eof"]
    server.feed(b"x" * 90)
    assert server.wire.calls == ["write_eof", "close"]
    assert len(server.requests) == 1


def test_lingering_ends_with_the_clients_eof() -> None:
    server = Server(at_once).feed(POST)
    server.codec.feed_eof(1.0)
    assert server.wire.calls == ["write_eof", "close"]


def test_a_connection_that_does_not_end_is_aborted_at_the_second_look() -> None:
    server = Server(at_once).feed(POST)
    assert server.codec.waiting_for_head
    server.codec.timed_out(100.0)
    assert server.codec.head_since == 100.0
    server.codec.timed_out(200.0)
    assert server.wire.calls == ["write_eof", "abort"]


def test_an_answer_may_begin_before_the_body_has_ended() -> None:
    server = Server(never).feed(POST + b"he")
    server.codec.send_head(ResponseHead(200, [], CHUNKED), False)
    server.codec.send_data(b"x", False)
    server.feed(b"llo")
    assert server.last.body == b"hello"
    server.codec.send_data(b"", True)
    assert server.wire.out.endswith(b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
    assert server.wire.calls == ["close"]


# -- framing of responses


def test_no_body_for_head() -> None:
    server = Server(never).feed(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    server.last.respond()
    assert server.wire.out == ANSWER[:-2]
    assert server.codec.idle


@pytest.mark.parametrize("status", [204, 304])
def test_no_body_by_status(status: int) -> None:
    server = Server(never).feed(GET)
    server.codec.send_head(ResponseHead(status, []), True)
    assert server.wire.out.count(b"\r\n") == 2
    assert b"content-length" not in server.wire.out
    assert server.codec.idle


def test_a_length_without_its_header_gets_one() -> None:
    server = Server(never).feed(GET)
    server.codec.send_head(ResponseHead(200, []), True)
    assert server.wire.out == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize("length", [CHUNKED, UNTIL_CLOSE])
def test_unknown_length_is_chunked_for_http11(length: int) -> None:
    server = Server(never).feed(GET)
    server.codec.send_head(ResponseHead(200, [], length), False)
    server.codec.send_data(b"hello", False)
    server.codec.send_data(b"", False)
    server.codec.send_trailers([(b"x", b"1")])
    assert server.wire.out == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: 1\r\n\r\n"
    assert server.codec.idle


def test_unknown_length_ends_with_the_connection_for_http10() -> None:
    server = Server(never).feed(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    server.codec.send_head(ResponseHead(200, [], CHUNKED), False)
    server.codec.send_data(b"hello", False)
    server.codec.send_trailers([(b"x", b"1")])
    assert server.wire.out == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello"
    assert server.wire.calls == ["close"]


def test_a_chunked_head_may_be_the_end() -> None:
    server = Server(never).feed(GET)
    server.codec.send_head(ResponseHead(200, [], CHUNKED), True)
    assert server.wire.out.endswith(b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n")


@pytest.mark.parametrize("body", [b"x", b"xxx"])
def test_a_body_of_another_length_than_promised_resets(body: bytes) -> None:
    server = Server(never).feed(GET)
    server.codec.send_head(ok(), False)
    server.codec.send_data(body, True)
    assert server.wire.calls == ["abort"]
    assert server.wire.out == b""


def test_verbs_after_the_end_do_nothing() -> None:
    server = Server().feed(GET)
    server.codec.send_head(ok(), False)
    server.codec.send_data(b"x", True)
    server.codec.send_trailers([])
    server.codec.send_informational(103, [])
    server.codec.flush()
    server.codec.start_tunnel()
    assert server.wire.out == ANSWER
    server.feed(GET)
    assert server.wire.out == ANSWER * 2


# -- 1xx


def test_one_hundred_reaches_the_client_once() -> None:
    server = Server(never).feed(POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert server.last.head is not None
    assert server.last.head.expect
    server.codec.send_informational(100, [])
    server.codec.send_informational(100, [])
    server.codec.send_informational(103, [(b"link", b"</x>")])
    assert server.wire.take() == b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    server.feed(b"hello")
    server.last.respond()
    assert server.wire.out == ANSWER


def test_no_hundred_for_who_did_not_ask_or_is_http10() -> None:
    server = Server(never).feed(GET)
    server.codec.send_informational(100, [])
    assert server.wire.out == b""
    server = Server(never).feed(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    server.codec.send_informational(100, [])
    server.codec.send_informational(103, [])
    assert server.wire.out == b""


# -- tunnels

UPGRADE = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def test_an_upgrade_becomes_a_tunnel() -> None:
    server = Server(never).feed(UPGRADE + b"early")
    server.codec.send_head(ResponseHead(101, [(b"sec-websocket-accept", b"x")], upgrade=b"websocket"), False)
    server.codec.start_tunnel()
    assert server.wire.take() == (
        b"HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    )
    server.feed(b" late")
    assert server.last.body == b"early late"
    server.codec.send_data(b"raw", False)
    assert server.wire.take() == b"raw"
    server.codec.feed_eof(1.0)
    assert server.last.trace[-1] == ("end", [])
    server.codec.send_data(b"more", True)
    assert server.wire.out == b"more"
    assert server.wire.calls == ["write_eof", "close"]
    server.codec.closed(1.0)
    assert not server.last.gone


def test_a_tunnels_other_half_goes_on() -> None:
    server = Server(never).feed(UPGRADE)
    server.codec.send_head(ResponseHead(101, [], upgrade=b"websocket"), False)
    server.codec.start_tunnel()
    server.codec.send_data(b"", True)
    assert server.wire.calls == ["write_eof"]
    server.feed(b"still")
    assert server.last.body == b"still"
    server.codec.feed_eof(1.0)
    assert server.wire.calls == ["write_eof", "close"]


def test_connect() -> None:
    server = Server(never).feed(b"CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n\x16\x03")
    server.codec.send_head(ResponseHead(200, []), False)
    server.codec.start_tunnel()
    assert server.wire.out == b"HTTP/1.1 200 OK\r\n\r\n"
    assert server.last.body == b"\x16\x03"


def test_a_refused_upgrade_is_an_ordinary_response() -> None:
    server = Server(never).feed(UPGRADE + GET)
    server.last.respond(403)
    assert server.wire.out.startswith(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nok")
    assert len(server.requests) == 2


def test_a_tunnel_before_the_request_has_ended_resets() -> None:
    server = Server(never).feed(CODED.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"))
    server.codec.send_head(ResponseHead(101, [], upgrade=b"x"), False)
    server.codec.start_tunnel()
    assert server.wire.calls == ["abort"]


# -- refusals, time, backpressure


def test_a_head_that_takes_too_long() -> None:
    server = Server().feed(GET[:10])
    assert server.codec.waiting_for_head
    assert server.codec.head_since == 1.0
    server.codec.feed(GET[10:12], 5.0)
    assert server.codec.head_since == 1.0
    server.codec.timed_out(61.0)
    assert [reason for reason, _ in server.refused] == [Reason.REQUEST_TIMEOUT]
    assert server.wire.out.startswith(b"HTTP/1.1 408 Request Timeout\r\n")


def test_a_refusal_after_a_good_request() -> None:
    server = Server().feed(GET + b"nonsense\r\n\r\n")
    assert server.wire.out.startswith(ANSWER + b"HTTP/1.1 400 Bad Request\r\ncontent-length: 11\r\n")
    assert [reason for reason, _ in server.refused] == [Reason.BAD_REQUEST]


def test_a_malformed_body_after_the_response_began() -> None:
    server = Server(never).feed(CODED)
    server.codec.send_head(ok(), False)
    server.feed(b"zz\r\n")
    assert server.last.error is Reason.BAD_REQUEST
    server.codec.reset()
    assert server.wire.calls == ["abort"]


def test_pauses_are_counted() -> None:
    server = Server(never).feed(POST)
    server.codec.pause_reading()
    server.codec.pause_reading()
    server.codec.resume_reading()
    assert server.wire.calls == ["pause"]
    server.codec.resume_reading()
    server.codec.resume_reading()
    assert server.wire.calls == ["pause", "resume"]


def test_the_size_of_a_head() -> None:
    server = Server().feed(GET)
    assert server.last.head is not None
    assert server.last.head.size == len(GET)
