"""Raw bytes of any kind: only the documented outcomes, never an exception, nothing that grows.

Writes after an end, double calls and the like are caught by the recording ends' own assertions.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.codec.h1 import H1Limits
from meshproxy.message.reason import Reason
from tests.codec.fakes import Client, Server, at_once, get, never, ok

LIMITS = H1Limits()
CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.raw"))
SEEDS = [path.read_bytes()[:2000] for path in CORPUS]
REFUSALS = {Reason.BAD_REQUEST, Reason.HEADERS_TOO_LARGE, Reason.NOT_IMPLEMENTED, Reason.VERSION_NOT_SUPPORTED}
FAILURES = {Reason.UPSTREAM_PROTOCOL_ERROR, Reason.UPSTREAM_HEADERS_TOO_LARGE, Reason.UPSTREAM_TERMINATION}


def serve(reads: list[bytes], answer: object, end: int) -> None:
    server = Server(answer)  # type: ignore[arg-type]
    for read in reads:
        server.feed(read)
        assert len(server.codec._pending) <= LIMITS.head + LIMITS.pipelined + len(read)
    if end == 1:
        server.codec.feed_eof(2.0)
    elif end == 2:
        server.codec.timed_out(2.0)
    server.codec.closed(3.0)
    assert {reason for reason, _ in server.refused} <= REFUSALS | {Reason.REQUEST_TIMEOUT}
    assert len(server.refused) <= 1
    for request in server.requests[:-1]:  # an early answer may spare the sink a body that was in hand
        assert request.ended or request.error or answer is at_once


def call(reads: list[bytes], method: bytes, end: int) -> None:
    client = Client(get(b"a:1" if method == b"CONNECT" else b"/", method))
    for read in reads:
        client.feed(read)
        assert len(client.codec._pending) <= LIMITS.head + LIMITS.pipelined + len(read)
    if end == 1:
        client.codec.feed_eof(2.0)
    elif end == 2:
        client.codec.abandon()
    client.codec.closed(3.0)
    response = client.response
    assert response.failed is None or response.failed in FAILURES
    assert response.ended or response.failed or end == 2
    assert not client.codec.reusable


def cut(data: bytes, dice: random.Random) -> list[bytes]:
    pieces, at = [], 0
    while at < len(data):
        step = dice.choice((1, 5, 50, 5000))
        pieces.append(data[at : at + step])
        at += step
    return pieces


def mutate(data: bytes, dice: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(dice.randrange(4)):
        at = dice.randrange(len(out) + 1)
        what = dice.randrange(4)
        if what == 0 and out:
            out[at % len(out)] = dice.randrange(256)
        elif what == 1:
            out[at:at] = dice.choice(
                (b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"0", b"chunked", b"Transfer-Encoding: chunked\r\n")
            )
        elif what == 2:
            del out[at : at + dice.randrange(10)]
        else:
            out[at:at] = dice.choice(SEEDS)[: dice.randrange(200)]
    return bytes(out)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=50), max_size=5), st.integers(0, 2))
def test_random_bytes(reads: list[bytes], end: int) -> None:
    reads = [read for read in reads if read]
    serve(reads, ok, end)
    call(reads, b"GET", end)


def fuzz(seed: int, rounds: int) -> None:
    dice = random.Random(seed)
    for _ in range(rounds):
        data = b"".join(mutate(dice.choice(SEEDS), dice) for _ in range(dice.randrange(1, 4)))
        reads = cut(data, dice)
        serve(reads, dice.choice((ok, never, at_once)), dice.randrange(3))
        call(reads, dice.choice((b"GET", b"HEAD", b"CONNECT")), dice.randrange(3))


@pytest.mark.parametrize("seed", range(4))
def test_mutated_smuggling_shapes(seed: int) -> None:
    fuzz(seed, 300)


@pytest.mark.slow
def test_mutated_smuggling_shapes_for_long() -> None:
    fuzz(99, 20_000)


def test_the_server_serves_on_after_garbage_elsewhere() -> None:
    """What is kept between connections (lines, names) is not spoilt by what other connections sent."""
    fuzz(5, 100)
    server = Server().feed(b"GET / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n")
    assert server.last.head is not None
    assert server.last.head.headers == [(b"accept", b"*/*")]
