"""Heads that go through h11: what the quick reading declines, in the same form."""

from __future__ import annotations

from meshproxy.codec.h1_strange import read_request, read_response
from meshproxy.message.head import UNTIL_CLOSE, RequestHead, ResponseHead


def request(text: bytes) -> RequestHead:
    head = read_request(text)
    assert isinstance(head, RequestHead)
    return head


def response(text: bytes, method: bytes = b"GET") -> ResponseHead:
    head = read_response(text, method)
    assert isinstance(head, ResponseHead)
    return head


def test_http10() -> None:
    head = request(b"GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n")
    assert (head.version, head.close, head.expect, head.headers, head.authority) == (10, True, False, [], b"")


def test_upgrade_needs_connection_and_is_never_h2c() -> None:
    start = b"GET / HTTP/1.1\r\nHost: a\r\n"
    assert request(start + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n").upgrade == b"websocket"
    assert request(start + b"Upgrade: websocket\r\n\r\n").upgrade == b""
    assert request(start + b"Connection: upgrade\r\nUpgrade: foo, h2c\r\n\r\n").upgrade == b""


def test_what_h11_refuses_is_a_fault() -> None:
    assert isinstance(read_request(b"GET / HTTP/1.1\r\n\r\n"), tuple)
    assert isinstance(read_response(b"HTTP/1.1 2 OK\r\n\r\n", b"GET"), tuple)


def test_responses() -> None:
    assert response(b"HTTP/1.1 100 Continue\r\n\r\n").status == 100
    switching = response(b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert (switching.status, switching.upgrade, switching.headers) == (101, b"websocket", [])
    old = response(b"HTTP/1.0 200 OK\r\n\r\n")
    assert (old.version, old.length, old.close) == (10, UNTIL_CLOSE, True)
    assert not response(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n").close


def test_a_connect_answered_has_no_body() -> None:
    head = response(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"CONNECT")
    assert (head.length, head.headers) == (0, [])
