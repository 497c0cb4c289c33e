"""The chunked reader: same bytes however cut, the same object where it can be, and bounds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.codec.h1_body import ChunkedReader
from meshproxy.codec.h1_rules import H1Limits
from meshproxy.message.reason import Reason
from tests.codec.fakes import cuts

LIMITS = H1Limits()


def read_all(reads: list[bytes]) -> tuple[bytes, ChunkedReader, bytes]:
    """Body, reader, and what came after it in the reads."""
    reader = ChunkedReader(LIMITS)
    body = rest = b""
    for read in reads:
        if reader.done:
            rest += read
        elif reader.fault is None:
            body += reader.read(read)
            rest = reader.rest
    return body, reader, rest


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=50), max_size=6),
    st.lists(st.sampled_from([(b"x", b"1"), (b"X-Long", b"a" * 30), (b"y", b"")]), max_size=3),
    st.sampled_from([b"", b";a", b';a="b c"']),
    st.sampled_from([b"", b"\r\n", b"GET / HTTP/1.1\r\n"]),
    st.integers(0, 999),
)
def test_any_cut_gives_the_same(
    chunks: list[bytes], trailers: list[tuple[bytes, bytes]], extension: bytes, rest: bytes, seed: int
) -> None:
    data = b"".join(b"%X%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    data += b"0" + extension + b"\r\n" + b"".join(b"%b: %b\r\n" % pair for pair in trailers) + b"\r\n"
    for reads in cuts(data + rest, seed):
        body, reader, after = read_all(reads)
        assert reader.fault is None
        assert reader.done
        assert body == b"".join(chunks)
        assert reader.trailers == [(name.lower(), value) for name, value in trailers]
        assert after == rest


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from([b"3\r\nabc\r\n", b"0\r\n", b"\r\n", b"X: a\r\n", b"\r", b"\n", b"f", b";", b" "]), max_size=6))
def test_any_bytes_end_alike_however_cut(parts: list[bytes]) -> None:
    data = b"".join(parts)
    results = []
    for reads in cuts(data, len(data)):
        body, reader, rest = read_all(reads)
        results.append((body, reader.done, reader.fault and reader.fault[0], reader.trailers, rest if reader.done else b""))
    assert all(result == results[0] for result in results)


def test_a_read_within_a_chunk_is_the_same_object() -> None:
    reader = ChunkedReader(LIMITS)
    assert reader.read(b"10000\r\n") == b""
    read = b"x" * 65535
    assert reader.read(read) is read
    assert reader.read(b"x\r\n0\r\n\r\n") == b"x"
    assert reader.done


def test_one_byte_chunks_in_one_read_are_one_piece() -> None:
    reader = ChunkedReader(LIMITS)
    assert reader.read(b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n") == b"x" * 1000
    assert reader.done


@pytest.mark.parametrize("endless", [b"1;a", b"0\r\nX: a"])
def test_what_never_ends_is_refused_within_bounds(endless: bytes) -> None:
    reader = ChunkedReader(LIMITS)
    reader.read(endless)
    fed = 0
    while reader.fault is None:
        reader.read(b"a" * 100)
        fed += 100
        assert fed <= LIMITS.head + 200
    assert reader.fault[0] in (Reason.BAD_REQUEST, Reason.HEADERS_TOO_LARGE)


def test_what_was_good_before_a_fault_still_counts() -> None:
    reader = ChunkedReader(LIMITS)
    assert reader.read(b"3\r\nabc\r\nzz\r\n") == b"abc"
    assert reader.fault is not None
