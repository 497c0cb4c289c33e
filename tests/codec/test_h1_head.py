"""The quick reading: what it takes, what it declines, what it keeps."""

from __future__ import annotations

import pytest

from meshproxy.codec import h1_head
from meshproxy.codec.h1_head import recognise_request, recognise_response
from meshproxy.message.head import CHUNKED, UNTIL_CLOSE
from tests.codec.fakes import show

GET = (
    b"GET /reviews/7?x=y HTTP/1.1\r\nHost: reviews:9080\r\nUser-Agent: curl/8\r\nAccept: */*\r\nX-Request-Id: 1\r\n"
    b"Connection: keep-alive\r\n\r\n"
)


def test_a_plain_get() -> None:
    found = recognise_request(GET + b"next", 61440, 100)
    assert found is not None
    head, end = found
    assert end == len(GET)
    assert show(head) == {
        "method": b"GET",
        "target": b"/reviews/7?x=y",
        "authority": b"reviews:9080",
        "headers": [(b"user-agent", b"curl/8"), (b"accept", b"*/*"), (b"x-request-id", b"1")],
        "length": 0,
        "version": 11,
        "scheme": b"",
        "absolute": False,
        "upgrade": b"",
        "expect": False,
        "close": False,
        "te_trailers": False,
    }


@pytest.mark.parametrize(
    ("extra", "length", "close"),
    [
        (b"Content-Length: 12\r\n", 12, False),
        (b"Content-Length: 0\r\n", 0, False),
        (b"Transfer-Encoding: chunked\r\n", CHUNKED, False),
        (b"Connection: close\r\n", 0, True),
        (b"Proxy-Connection: Keep-Alive\r\nKeep-Alive: 5\r\n", 0, False),
    ],
)
def test_framing_and_connection(extra: bytes, length: int, close: bool) -> None:
    found = recognise_request(b"POST / HTTP/1.1\r\nHost: a\r\n" + extra + b"\r\n", 61440, 100)
    assert found is not None
    assert (found[0].length, found[0].close) == (length, close)
    assert all(name == b"content-length" for name, _ in found[0].headers)


@pytest.mark.parametrize(
    "extra", [b"Expect: 100-continue\r\n", b"Upgrade: x\r\n", b"TE: trailers\r\n", b"Connection: x\r\n", b"HTTP2-Settings: x\r\n"]
)
def test_the_unusual_is_declined(extra: bytes) -> None:
    assert recognise_request(b"GET / HTTP/1.1\r\nHost: a\r\n" + extra + b"\r\n", 61440, 100) is None


def test_incomplete_large_and_many_are_declined() -> None:
    assert recognise_request(GET[:-1], 61440, 100) is None
    assert recognise_request(GET, len(GET) - 1, 100) is None
    assert recognise_request(GET, len(GET), 5) is not None
    assert recognise_request(GET, len(GET), 4) is None


@pytest.mark.parametrize(
    ("head", "method", "length"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", b"GET", 7),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", b"HEAD", 0),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"GET", CHUNKED),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"GET", UNTIL_CLOSE),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"GET", 0),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", b"GET", 0),
    ],
)
def test_responses(head: bytes, method: bytes, length: int) -> None:
    found = recognise_response(head, method, 61440, 100)
    assert found is not None
    assert found[0].length == length


@pytest.mark.parametrize("line", [b"HTTP/1.1 100 Continue", b"HTTP/1.1 101 x", b"HTTP/1.0 200 OK", b"HTTP/1.1 2000 OK"])
def test_unusual_responses_are_declined(line: bytes) -> None:
    assert recognise_response(line + b"\r\n\r\n", b"GET", 61440, 100) is None


@pytest.mark.parametrize(
    "name",
    [b"Authorization", b"Cookie", b"Set-Cookie", b"Proxy-Authorization", b"X-Api-Key", b"X-Auth-Token", b"X-Session-Id",
     b"X-Forwarded-Client-Cert", b"X-Jwt-Payload"],
)  # fmt: skip
def test_what_may_be_secret_is_never_kept(name: bytes) -> None:
    secret = b"hunter2-" + name
    for _ in range(2):
        assert recognise_request(b"GET / HTTP/1.1\r\nHost: a\r\n%b: %b\r\n\r\n" % (name, secret), 61440, 100) is not None
        assert recognise_request(b"GET /?key=%b HTTP/1.1\r\nHost: a\r\n\r\n" % secret, 61440, 100) is not None
        assert recognise_request(b"GET / HTTP/1.1\r\nHost: a\r\nReferer: /?k=%b\r\n\r\n" % secret, 61440, 100) is not None
    kept = [h1_head._plain, h1_head._special, h1_head._requests, h1_head._names, h1_head._statuses]
    assert not any(b"hunter2" in line for table in kept for line in table)


def test_what_is_kept_is_bounded() -> None:
    for i in range(6000):
        head = b"GET /%d HTTP/1.1\r\nHost: h%d\r\nX-%d: 1\r\nX-Y: %d\r\nContent-Length: %d\r\n\r\n" % (i, i, i, i, i)
        assert recognise_request(head, 61440, 100) is not None
        assert recognise_response(b"HTTP/1.1 200 %d\r\n\r\n" % i, b"GET", 61440, 100) is not None
    assert len(h1_head._plain) <= h1_head._LINES_MAX
    assert len(h1_head._special) <= h1_head._LINES_MAX
    assert len(h1_head._requests) <= h1_head._STARTS_MAX
    assert len(h1_head._statuses) <= h1_head._STARTS_MAX
    assert len(h1_head._names) <= h1_head._NAMES_MAX
    assert max(map(len, h1_head._plain)) <= h1_head._LINE_MAX


def test_heads_do_not_share_their_header_lists() -> None:
    first = recognise_request(GET, 61440, 100)
    second = recognise_request(GET, 61440, 100)
    assert first is not None
    assert second is not None
    first[0].headers.clear()
    assert len(second[0].headers) == 3


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (b"Bearer a.b-c_d", b"Bearer a.b-c_d"),
        (b" Bearer a.b-c_d", b"Bearer a.b-c_d"),
        (b"Bearer a.b-c_d \t", b"Bearer a.b-c_d"),
        (b"  ", b""),
        (b"", b""),
        (b'Digest username="Mufasa", uri="/"', b'Digest username="Mufasa", uri="/"'),
        (b"\xff\x80", b"\xff\x80"),
    ],
)
def test_credentials_are_read_quickly_and_alike_and_never_kept(given: bytes, read: bytes) -> None:
    line = b"Authorization: " + given + b"\r"
    for _ in range(2):  # the name is learnt the first time
        found = recognise_request(b"GET / HTTP/1.1\r\nHost: a\r\n" + line + b"\n\r\n", 61440, 100)
        assert found is not None
        assert found[0].headers == [(b"authorization", read)]
    assert line not in h1_head._plain
    assert line not in h1_head._special


@pytest.mark.parametrize("bad", [b"a\0b", b"a\x7fb", b"a\rb", b"a\x01b"])
def test_controls_in_credentials_are_declined(bad: bytes) -> None:
    for _ in range(2):
        assert recognise_request(b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: " + bad + b"\r\n\r\n", 61440, 100) is None
