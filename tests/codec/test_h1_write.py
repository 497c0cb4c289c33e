"""Heads and chunks as bytes."""

from __future__ import annotations

from meshproxy.codec import h1_write
from meshproxy.message.head import CHUNKED, RequestHead
from tests.codec.fakes import get


def test_a_request() -> None:
    assert h1_write.request(get(b"/a?b"), False) == b"GET /a?b HTTP/1.1\r\nhost: reviews:9080\r\naccept: */*\r\n\r\n"


def test_connection_headers_come_back() -> None:
    head = RequestHead(b"GET", b"/", b"a", [], upgrade=b"websocket", te_trailers=True)
    out = b"GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    assert h1_write.request(head, False) == out
    assert h1_write.request(get(), True).endswith(b"connection: close\r\n\r\n")


def test_framing_headers() -> None:
    head = RequestHead(b"POST", b"/", b"a", [], CHUNKED)
    assert h1_write.request(head, False).endswith(b"\r\ntransfer-encoding: chunked\r\n\r\n")
    head = RequestHead(b"POST", b"/", b"a", [], 5)
    assert h1_write.request(head, False).endswith(b"\r\ncontent-length: 5\r\n\r\n")
    head = RequestHead(b"POST", b"/", b"a", [(b"content-length", b"5")], 5)
    assert h1_write.request(head, False).count(b"content-length") == 1


def test_a_value_cannot_break_out_of_its_header() -> None:
    headers = [(b"a", b"1\r\nx-evil: 1"), (b"b", b"2"), (b"c\n", b"3"), (b"d", b"4\r5")]
    for bad in headers[0], headers[2], headers[3]:
        assert h1_write.fields(b"HTTP/1.1 200 OK", [bad, (b"b", b"2")], b"\r\n") == b"HTTP/1.1 200 OK\r\nb: 2\r\n\r\n"
    assert h1_write.fields(b"HTTP/1.1 200 OK", headers, b"\r\n") == b"HTTP/1.1 200 OK\r\nb: 2\r\n\r\n"


def test_status_lines() -> None:
    assert h1_write.status_line(404, b"") == b"HTTP/1.1 404 Not Found"
    assert h1_write.status_line(404, b"Nope") == b"HTTP/1.1 404 Nope"
    assert h1_write.status_line(599, b"") == b"HTTP/1.1 599 "
    assert h1_write.status_line(200, b"x\r\ny: z") == b"HTTP/1.1 200 "


def put(before: bytes, data: bytes, end: bool) -> list[bytes]:
    out: list[bytes] = []
    h1_write.put_chunk(out.append, before, data, end)
    return out


def test_chunks() -> None:
    assert put(b"head", b"x" * 26, False) == [b"head1a\r\n" + b"x" * 26 + b"\r\n"]
    assert put(b"", b"ab", True) == [b"2\r\nab\r\n0\r\n\r\n"]
    assert put(b"", b"", False) == []
    assert put(b"head", b"", False) == [b"head"]
    assert put(b"", b"", True) == [b"0\r\n\r\n"]
    assert h1_write.last_chunk([]) == b"0\r\n\r\n"
    assert h1_write.last_chunk([(b"x", b"1")]) == b"0\r\nx: 1\r\n\r\n"


def test_a_large_chunk_is_not_copied() -> None:
    data = b"x" * 65536
    out = put(b"head", data, True)
    assert out[1] is data
    assert b"".join(out) == b"head10000\r\n" + data + b"\r\n0\r\n\r\n"
