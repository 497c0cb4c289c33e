"""h11 is the oracle: what the quick reading accepts, guard and h11 accept equally; and how bytes are cut never matters."""

from __future__ import annotations

import random
from typing import Any

import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.codec.h1_guard import check_request, check_response
from meshproxy.codec.h1_head import recognise_request, recognise_response
from meshproxy.codec.h1_rules import H1Limits
from meshproxy.codec.h1_strange import read_request, read_response
from meshproxy.message.head import RequestHead, ResponseHead
from tests.codec.fakes import Client, Server, cuts, get, show

LIMITS = H1Limits()

METHODS = [b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"CONNECT", b"get", b"M-SEARCH"]
TARGETS = [
    b"/",
    b"/a/b?c=d",
    b"/a#f",
    b"http://a:80/x?y",
    b"http://a",
    b"https://b?q",
    b"*",
    b"a:443",
    b"/%00",
    b"/?%00",
    b"//x",
    b"http://u@a/",
    b"ftp://a/",
    b"/\xff",
    b"",
    b"HTTP://A/",
    b"http://[::1]:8080/z",
]
VERSIONS = [b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.2", b"http/1.1", b"HTTP/1.1 "]
NAMES = [
    b"Host",
    b"host",
    b"Content-Length",
    b"content-length",
    b"Transfer-Encoding",
    b"Connection",
    b"Keep-Alive",
    b"Upgrade",
    b"TE",
    b"Expect",
    b"X-A",
    b"Accept",
    b"Cookie",
    b"User-Agent",
    b"a b",
    b"",
    b" x",
    b"x ",
    b"x_y",
    b"proxy-connection",
    b"x\x00y",
    b"Trailer",
    b"X-Request-Id",
    b"http2-settings",
]
VALUES = [
    b"a",
    b"a:80",
    b"",
    b"0",
    b"5",
    b"05",
    b"+5",
    b"5,5",
    b"-1",
    b"chunked",
    b"Chunked",
    b"gzip, chunked",
    b"xchunked",
    b"identity",
    b"close",
    b"keep-alive",
    b"Keep-Alive",
    b"upgrade",
    b"close, x-a",
    b"host",
    b"websocket",
    b"h2c",
    b"trailers",
    b"100-continue",
    b"*/*",
    b"\t x \t",
    b"\x01",
    b"\xff\xfe",
    b"a b",
    b"a\rb",
    b"a\nb",
    b"a\r\n b",
    b"[::1]:9",
    b"a:99999",
    b"u@h",
    b"999999999999999999",
    b"9999999999999999999",
]
SPACES = [b": ", b":", b":\t", b" : ", b":  "]
STATUSES = [
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 204 No Content",
    b"HTTP/1.1 304 Not Modified",
    b"HTTP/1.1 404",
    b"HTTP/1.1 503 ",
    b"HTTP/1.0 200 OK",
    b"HTTP/1.1 100 Continue",
    b"HTTP/1.1 101 Switching",
    b"HTTP/1.1 099 x",
    b"HTTP/1.1 999 x",
    b"HTTP/1.1 20 OK",
    b"HTTP/2 200",
    b"HTTP/1.1  200 OK",
    b"HTTP/1.1 200 O\x00K",
    b"HTTP/1.1 200 \xff",
    b"ICY 200 OK",
]

# Good lines come often, so that many heads are accepted and the comparison means something.
GOOD = [
    b"Accept: */*",
    b"X-A: 1",
    b"User-Agent:x",
    b"Connection: keep-alive",
    b"connection: Close",
    b"Content-Length: 3",
    b"Cookie: a",
    b"Transfer-Encoding: Chunked",
    b"Keep-Alive: 5",
    b"X-Empty:",
    b"X-Tab: \ta\tb \t",
    b"X-Latin: \xe9",
]
odd_lines = st.tuples(st.sampled_from(NAMES), st.sampled_from(SPACES), st.sampled_from(VALUES)).map(b"".join)
odd_starts = st.tuples(*map(st.sampled_from, (METHODS, TARGETS, VERSIONS))).map(b" ".join)
good_lines = st.sampled_from(GOOD)
good_starts = st.sampled_from([b"GET / HTTP/1.1", b"POST /a?b HTTP/1.1", b"GET http://a:80/x HTTP/1.1", b"OPTIONS * HTTP/1.1"])


def mostly(good: Any, odd: Any) -> Any:
    return st.integers(0, 7).flatmap(lambda n: good if n else odd)


lines = mostly(good_lines, odd_lines)
requests = st.tuples(
    mostly(good_starts, odd_starts),
    mostly(st.sampled_from([b"Host: a", b"host:[::1]:80"]), odd_lines),
    st.lists(lines, max_size=5),
).map(lambda parts: b"\r\n".join((parts[0], parts[1], *parts[2])) + b"\r\n\r\n")
responses = st.tuples(
    mostly(st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.1 304 x"]), st.sampled_from(STATUSES)), st.lists(lines, max_size=5)
).map(lambda parts: b"\r\n".join((parts[0], *parts[1])) + b"\r\n\r\n")


@st.composite
def mutated(draw: Any, source: Any) -> bytes:
    data = bytearray(draw(source))
    for _ in range(max(0, draw(st.integers(-3, 2)))):
        at = draw(st.integers(0, len(data) - 1))
        what = draw(st.integers(0, 2))
        byte = draw(st.one_of(st.sampled_from(b"\r\n\x00 :\t,;#%"), st.integers(0, 255)))
        if what == 0:
            data[at] = byte
        elif what == 1:
            data.insert(at, byte)
        else:
            del data[at]
    return bytes(data) + draw(st.sampled_from([b"", b"abc", b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"]))


@settings(max_examples=1500, deadline=None)
@given(mutated(requests))
def test_what_is_recognised_guard_and_h11_accept_equally(data: bytes) -> None:
    found = recognise_request(data, LIMITS.head, LIMITS.headers)
    again = recognise_request(data, LIMITS.head, LIMITS.headers)  # from what the first has kept
    if found is None:
        assert again is None
        return
    head, end = found
    assert again is not None
    assert show(again[0]) == show(head)
    assert check_request(data[:end], LIMITS) is None
    strange = read_request(data[:end])
    assert isinstance(strange, RequestHead)
    assert show(strange) == show(head)


@settings(max_examples=1500, deadline=None)
@given(mutated(responses), st.sampled_from([b"GET", b"HEAD", b"CONNECT", b"POST"]))
def test_the_same_for_responses(data: bytes, method: bytes) -> None:
    found = recognise_response(data, method, LIMITS.head, LIMITS.headers)
    again = recognise_response(data, method, LIMITS.head, LIMITS.headers)
    if found is None:
        assert again is None
        return
    head, end = found
    assert again is not None
    assert show(again[0]) == show(head)
    assert check_response(data[:end], LIMITS) is None
    strange = read_response(data[:end], method)
    assert isinstance(strange, ResponseHead)
    assert show(strange) == show(head)


@settings(max_examples=500, deadline=None)
@given(mutated(requests))
def test_what_the_guard_lets_through_h11_takes(data: bytes) -> None:
    end = data.find(b"\r\n\r\n") + 4
    if end >= 4 and check_request(data[:end], LIMITS) is None:
        assert isinstance(read_request(data[:end]), RequestHead)


@settings(max_examples=300, deadline=None)
@given(st.lists(mutated(requests), min_size=1, max_size=3).map(b"".join), st.integers(0, 1000))
def test_how_request_bytes_are_cut_does_not_matter(data: bytes, seed: int) -> None:
    outcomes = [Server().feed(*reads).outcome() for reads in cuts(data, seed)]
    assert all(outcome == outcomes[0] for outcome in outcomes)


@settings(max_examples=300, deadline=None)
@given(mutated(responses), st.sampled_from([b"GET", b"HEAD", b"CONNECT"]), st.integers(0, 1000))
def test_how_response_bytes_are_cut_does_not_matter(data: bytes, method: bytes, seed: int) -> None:
    outcomes = []
    for reads in cuts(data, seed):
        client = Client(get(b"a:443" if method == b"CONNECT" else b"/", method))
        for read in reads:
            if client.response.ended or client.response.failed:
                break
            client.feed(read)
        outcomes.append(client.response.outcome())
    assert all(outcome == outcomes[0] for outcome in outcomes)


# Whole messages: bodies and trailers too must read as h11 reads them.
tokens = st.text("abcdefXYZ0189-_.", min_size=1, max_size=8).map(str.encode)
values = st.text('abc XYZ=;/"é', max_size=20).map(lambda text: text.strip().encode("latin-1"))
extra = st.lists(st.tuples(tokens.map(lambda token: b"X-" + token), values), max_size=4)


def wire(
    method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], chunks: list[bytes], coded: bool, trailers: Any
) -> bytes:
    out = b"%b %b HTTP/1.1\r\nHost: a:80\r\n" % (method, target)
    out += b"".join(b"%b: %b\r\n" % pair for pair in headers)
    body = b"".join(chunks)
    if coded:
        out += b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks if c) + b"0\r\n"
        return out + b"".join(b"%b: %b\r\n" % pair for pair in trailers) + b"\r\n"
    return out + (b"Content-Length: %d\r\n\r\n" % len(body) if body else b"\r\n") + body


def by_h11(data: bytes) -> tuple[Any, ...]:
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(data)
    request = parser.next_event()
    assert isinstance(request, h11.Request)
    body = b""
    while True:
        event = parser.next_event()
        if isinstance(event, h11.EndOfMessage):
            fields = [(bytes(n), bytes(v)) for n, v in event.headers]
            return request.method, request.target, body, fields, parser.trailing_data[0]
        assert isinstance(event, h11.Data)
        body += event.data


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whole_messages_read_as_h11_reads_them(data: Any) -> None:
    chunks = data.draw(st.lists(st.binary(max_size=30), max_size=4))
    coded = data.draw(st.booleans())
    trailers = data.draw(extra) if coded else []
    message = wire(b"POST", b"/x?y", data.draw(extra), chunks, coded, trailers)
    rest = data.draw(st.sampled_from([b"", b"GET "]))
    method, target, body, fields, trailing = by_h11(message + rest)
    assert trailing == rest
    for reads in cuts(message + rest, data.draw(st.integers(0, 99))):
        server = Server().feed(*reads)
        assert not server.refused
        (request,) = server.requests
        assert request.head is not None
        assert (request.head.method, request.head.target, request.body) == (method, target, body)
        assert request.trace[-1] == ("end", fields)
        assert bytes(server.codec._pending) == rest


def test_a_long_pipeline_cut_at_random() -> None:
    """Fifty requests of every framing in one stream, cut at random: fifty answers, in order."""
    dice = random.Random(7)
    stream = b"".join(
        wire(b"POST", b"/%d" % i, [], [b"x" * dice.randrange(40) for _ in range(dice.randrange(3))], dice.random() < 0.5, [])
        for i in range(50)
    )
    for reads in cuts(stream, 3):
        server = Server().feed(*reads)
        assert [r.head.target for r in server.requests if r.head] == [b"/%d" % i for i in range(50)]
        assert server.wire.out.count(b"HTTP/1.1 200 OK\r\n") == 50
        assert server.wire.calls == []
