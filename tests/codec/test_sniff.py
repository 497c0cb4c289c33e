"""What a connection's first bytes are taken for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.codec.sniff import Guess, guess

VERDICTS = {
    b"": Guess.MORE,
    b"G": Guess.MORE,
    b"GET": Guess.MORE,
    b"GET ": Guess.MORE,
    b"GET /": Guess.MORE,
    b"GET / ": Guess.MORE,
    b"GET / HT": Guess.MORE,
    b"GET / HTTP/1.1\r": Guess.MORE,
    b"GET / HTTP/1.1\r\n": Guess.HTTP,
    b"GET / HTTP/1.1\n": Guess.HTTP,
    b"GET / HTTP/1.0\r\nrest": Guess.HTTP,
    b"OPTIONS * HTTP/1.1\r\n": Guess.HTTP,
    b"CONNECT a:1 HTTP/1.1\r\n": Guess.HTTP,
    b"GET http://a/b?c HTTP/1.1\r\n": Guess.HTTP,
    b"M-SEARCH * HTTP/1.1\r\n": Guess.HTTP,
    b"x'y~z /a HTTP/1.9\r\n": Guess.HTTP,
    b"GET /\xc3\xa4 HTTP/1.1\r\n": Guess.HTTP,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": Guess.BYTES,
    b"GET / HTTP/2": Guess.BYTES,
    b"GET key\r\n": Guess.BYTES,
    b"GET  / HTTP/1.1\r\n": Guess.BYTES,
    b"GET / HTTP/1.1 \r\n": Guess.BYTES,
    b"GET / http/1.1\r\n": Guess.BYTES,
    b" GET / HTTP/1.1\r\n": Guess.BYTES,
    b"\r\nGET / HTTP/1.1\r\n": Guess.BYTES,
    b"EHLO mail.example\r\n": Guess.BYTES,
    b"SSH-2.0-x": Guess.MORE,
    b"SSH-2.0-x\r\n": Guess.BYTES,
    b"*1\r\n$4\r\nPING\r\n": Guess.BYTES,
    b"\x00\x00\x00\x08": Guess.BYTES,
    b"GET /\x00": Guess.BYTES,
    b"a" * 64: Guess.MORE,
    b"a" * 65: Guess.BYTES,
    b"GET /" + b"a" * 5000: Guess.HTTP,
}


@pytest.mark.parametrize("data", VERDICTS)
def test_verdicts(data: bytes) -> None:
    assert guess(data) is VERDICTS[data]


@given(st.sampled_from(list(VERDICTS)), st.integers(0, 60))
def test_a_verdict_never_changes(data: bytes, cut: int) -> None:
    """What was decided of the beginning is decided of all of it."""
    before = guess(data[:cut])
    assert before is Guess.MORE or before is guess(data) or len(data) > 4096


@given(st.binary(max_size=80))
def test_anything(data: bytes) -> None:
    if guess(data) is Guess.HTTP:
        assert b" HTTP/1." in data.partition(b"\n")[0]
