"""W3C trace context and B3: what is read, what is replaced, what is sent on, what is sampled."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.message.head import Headers
from meshproxy.model.telemetry import CustomTag, Tracing
from meshproxy.policy.context import (
    CONTEXT,
    Context,
    compile_tracing,
    extract,
    inject,
    is_request_id,
    new_span_id,
    new_trace_id,
    readable_traceparent,
    sampled_request_id,
)
from meshproxy.policy.invalid import Invalid

T, S = b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331"
NOTHING = Context()
RID = b"00000063-8f0a-4c3d-9e51-3c7a5e0f9b11"  # 99 of 10,000


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], NOTHING),
        ([(b"traceparent", b"00-%b-%b-01" % (T, S))], Context(T, S, True)),
        ([(b"traceparent", b"00-%b-%b-02" % (T, S))], Context(T, S, False)),
        ([(b"traceparent", b"cc-%b-%b-01-what-the-future-holds" % (T, S))], Context(T, S, True)),
        ([(b"traceparent", b"cc-%b-%b-01what" % (T, S))], NOTHING),
        ([(b"traceparent", b"ff-%b-%b-01" % (T, S))], NOTHING),
        ([(b"traceparent", b"00-%b-%b-01-more" % (T, S))], NOTHING),
        ([(b"traceparent", b"00-%b-%b-01" % (T.upper(), S))], NOTHING),
        ([(b"traceparent", b"00-%b-%b-01" % (b"0" * 32, S))], NOTHING),
        ([(b"traceparent", b"00-%b-%b-01" % (T, b"0" * 16))], NOTHING),
        ([(b"traceparent", b"00-%b-%b-0-" % (T, S))], NOTHING),
        ([(b"traceparent", b"00-%b-%b-01" % (T, S))] * 2, NOTHING),
        ([(b"tracestate", b"a=b")], NOTHING),
        (
            [(b"traceparent", b"00-%b-%b-01" % (T, S)), (b"tracestate", b"a=1"), (b"tracestate", b"b=2")],
            Context(T, S, True, b"a=1,b=2"),
        ),
        ([(b"traceparent", b"00-%b-%b-01" % (T, S)), (b"tracestate", b"a=" + b"x" * 600)], Context(T, S, True)),
        ([(b"traceparent", b"00-%b-%b-01" % (T, S)), (b"tracestate", b"a=\xff")], Context(T, S, True)),
        ([(b"b3", b"%b-%b-1" % (T, S))], Context(T, S, True)),
        ([(b"b3", b"%b-%b-d-%b" % (T, S, S))], Context(T, S, True)),
        ([(b"b3", b"%b-%b" % (T, S))], Context(T, S)),
        ([(b"b3", b"%b-%b-0" % (T[16:], S))], Context(b"0" * 16 + T[16:], S, False)),
        ([(b"b3", b"0")], Context(sampled=False)),
        ([(b"b3", b"x" * 5000)], NOTHING),
        ([(b"b3", b"%b-%b-1" % (T, b"0" * 16))], NOTHING),
        ([(b"x-b3-traceid", T), (b"x-b3-spanid", S), (b"x-b3-sampled", b"1")], Context(T, S, True)),
        ([(b"x-b3-traceid", T), (b"x-b3-spanid", S), (b"x-b3-sampled", b"0"), (b"x-b3-flags", b"1")], Context(T, S, True)),
        ([(b"x-b3-traceid", T), (b"x-b3-spanid", b"")], NOTHING),
        ([(b"x-b3-sampled", b"0")], Context(sampled=False)),
        ([(b"b3", b"0"), (b"traceparent", b"00-%b-%b-01" % (T, S))], Context(T, S, True)),
        ([(b"b3", b"%b-%b-1" % (T, S)), (b"traceparent", b"nonsense")], Context(T, S, True)),
    ],
)
def test_what_a_request_brings(headers: Headers, expected: Context) -> None:
    assert extract(headers) == expected


@given(st.lists(st.tuples(st.sampled_from(sorted(CONTEXT)), st.binary(max_size=80)), max_size=8))
def test_nothing_hostile_raises_or_is_sent_on(headers: Headers) -> None:
    came = extract(headers)
    assert re.fullmatch(rb"|[0-9a-f]{32}", came.trace_id) and re.fullmatch(rb"|[0-9a-f]{16}", came.span_id)
    brought = {name for name, _ in headers}
    inject(headers, T, S, came.span_id, True, came.state)
    assert extract(headers)[:3] == (T, S, True)
    assert len(headers) == len({name for name, _ in headers})
    assert {name for name, _ in headers} <= brought | CONTEXT
    for name, value in headers:
        assert name == b"tracestate" or re.fullmatch(rb"[0-9a-f-]{1,100}", value)


@given(st.integers(0, 2**32))
def test_ids_are_whole_and_never_zero(seed: int) -> None:
    for dice in (random.Random(seed).random, lambda: 0.0, lambda: 1 - 2**-53):
        trace, span = new_trace_id(dice), new_span_id(dice)
        assert readable_traceparent(b"00-%b-%b-01" % (trace, span))
        assert readable_traceparent(b"00-%b-%b-00" % (trace, trace[16:]))


def test_b3_goes_on_in_the_form_in_which_it_came() -> None:
    headers = [(b"b3", b"%b-%b-1" % (T, S)), (b"a", b"b")]
    inject(headers, T, b"1" * 16, S, True, b"")
    assert headers == [
        (b"a", b"b"),
        (b"traceparent", b"00-%b-1111111111111111-01" % T),
        (b"b3", b"%b-1111111111111111-1-%b" % (T, S)),
    ]
    headers = [(b"x-b3-traceid", T), (b"x-b3-spanid", S), (b"x-b3-flags", b"1")]
    inject(headers, T, b"1" * 16, S, False, b"a=b")
    assert headers == [
        (b"traceparent", b"00-%b-1111111111111111-00" % T),
        (b"tracestate", b"a=b"),
        (b"x-b3-traceid", T),
        (b"x-b3-spanid", b"1" * 16),
        (b"x-b3-sampled", b"0"),
        (b"x-b3-parentspanid", S),
    ]


@pytest.mark.parametrize(
    ("value", "threshold", "expected"),
    [
        (RID, 100, RID[:14] + b"9" + RID[15:]),
        (RID, 99, None),
        (RID, 0, None),
        (RID[:14] + b"9" + RID[15:], 0, RID[:14] + b"9" + RID[15:]),
        (RID[:14] + b"a" + RID[15:], 0, RID[:14] + b"a" + RID[15:]),
    ],
)
def test_every_hop_says_the_same_of_an_id(value: bytes, threshold: int, expected: bytes | None) -> None:
    assert sampled_request_id(value, threshold) == expected


@pytest.mark.parametrize("value", [b"", b"not-an-id", b"x" * 36, RID + b"0", RID[:8] + b"0" + RID[9:], b"+" + RID[1:]])
def test_of_what_is_no_uuid_nothing_is_concluded(value: bytes) -> None:
    assert not is_request_id(value)
    assert sampled_request_id(value, 10000) is None
    assert is_request_id(RID) and sampled_request_id(RID.upper(), 10000)


@pytest.mark.parametrize(
    ("tracing", "path"),
    [
        (Tracing(sampling=101.0), "t.sampling"),
        (Tracing(exporter="ftp://x"), "t.exporter"),
        (Tracing(max_tag_length=0), "t.max_tag_length"),
        (Tracing(tags=(CustomTag(tag="a"),)), "t.tags[0]"),
        (Tracing(tags=(CustomTag(tag="a", formatter="%NO_SUCH%"),)), "t.tags[0].formatter"),
    ],
)
def test_what_cannot_be_obeyed_is_refused(tracing: Tracing, path: str) -> None:
    with pytest.raises(Invalid) as refused:
        compile_tracing(tracing, "t", {})
    assert refused.value.path == path
