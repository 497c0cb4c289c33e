"""Lines come out as they went in, however the bytes were cut."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.agent.lines import LineBuffer, LineTooLong


@given(lines=st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line)), cuts=st.lists(st.integers(0, 400)))
def test_any_cutting_gives_the_same_lines(lines: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(line + b"\n" for line in lines)
    edges = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    buffer = LineBuffer(100)
    got = [line for start, end in pairwise(edges) for line in buffer.feed(wire[start:end])]
    assert lines == got
    assert buffer.pending == 0


def test_a_line_over_the_limit_is_refused_before_it_is_whole() -> None:
    buffer = LineBuffer(4)
    assert buffer.feed(b"abcd\n") == [b"abcd"]
    buffer.feed(b"abc")
    with pytest.raises(LineTooLong):
        buffer.feed(b"de")


def test_a_line_that_comes_byte_by_byte_costs_its_bytes() -> None:
    buffer = LineBuffer(1 << 20)
    tracemalloc.start()
    try:
        for _ in range(50_000):
            buffer.feed(b"x")
        assert tracemalloc.get_traced_memory()[0] < 150_000
    finally:
        tracemalloc.stop()
    assert buffer.feed(b"\n") == [b"x" * 50_000]
