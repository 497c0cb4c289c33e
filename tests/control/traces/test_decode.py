"""What sidecars send as OTLP: what is read of it, what is refused, what is bounded."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from control.traces import decode as decoding
from control.traces.decode import PROTOBUF, Unreadable, decode

T, S, P = bytes(range(16)), bytes(range(8)), b"\xff" * 8


def request(**span: object) -> ExportTraceServiceRequest:
    made = ExportTraceServiceRequest()
    of_resource = made.resource_spans.add()
    of_resource.resource.attributes.add(key="service.name").value.string_value = "book-service.default"
    given = {"trace_id": T, "span_id": S, "start_time_unix_nano": 10**18, "end_time_unix_nano": 10**18 + 5 * 10**8, **span}
    of_resource.scope_spans.add().spans.add(name="rating:8080/*", kind=2, **given)
    return made


def test_a_span_is_read() -> None:
    made = request(parent_span_id=P)
    span = made.resource_spans[0].scope_spans[0].spans[0]
    span.attributes.add(key="http.method").value.string_value = "GET"
    span.attributes.add(key="count").value.int_value = 3
    span.attributes.add(key="sure").value.bool_value = True
    span.attributes.add(key="many").value.array_value.values.add().string_value = "x"
    span.events.add(name="retry", time_unix_nano=10**18 + 1)
    span.status.code = 2
    for body, encoding in ((made.SerializeToString(), ""), (gzip.compress(made.SerializeToString()), "gzip")):
        ((told,), rejected) = decode(body, PROTOBUF + "; charset=x", encoding, "default/book-1")
        assert not rejected
        assert (told.trace_id, told.span_id, told.parent_id) == (T.hex(), S.hex(), P.hex())
        assert (told.service, told.operation, told.kind) == ("book-service.default", "rating:8080/*", "server")
        assert (told.start, told.duration, told.status) == (1e9, 0.5, "error")
        assert told.tags == {
            "http.method": "GET",
            "count": "3",
            "sure": "true",
            "many": "(array)",
            "mesh.reporter": "default/book-1",
        }
        assert [event.name for event in told.events] == ["retry"]


@pytest.mark.parametrize(
    "span",
    [
        {"trace_id": b""},
        {"span_id": b"1"},
        {"parent_span_id": b"1"},
        {"start_time_unix_nano": 0},
        {"end_time_unix_nano": 1},
        {"end_time_unix_nano": 2**64 - 1},
    ],
)
def test_a_span_that_cannot_be_is_rejected_alone(span: dict[str, object]) -> None:
    assert decode(request(**span).SerializeToString(), PROTOBUF, "", "default/book-1") == ([], 1)


@pytest.mark.parametrize(
    ("body", "kind", "encoding", "status"),
    [
        (b"{}", "application/json", "", 415),
        (b"", PROTOBUF, "br", 415),
        (b"\xff", PROTOBUF, "", 400),
        (b"nonsense", PROTOBUF, "gzip", 400),
        (gzip.compress(b"x" * 1000, mtime=0)[:-9], PROTOBUF, "gzip", 400),
        (gzip.compress(b"\0" * (decoding.MAX_EXPANDED + 1), mtime=0), PROTOBUF, "gzip", 413),
        (b"\0" * (decoding.MAX_BODY + 1), PROTOBUF, "", 413),
    ],
)
def test_what_cannot_be_read_is_refused(body: bytes, kind: str, encoding: str, status: int) -> None:
    with pytest.raises(Unreadable) as refused:
        decode(body, kind, encoding, "default/book-1")
    assert refused.value.status == status


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_two_bytes_a_span_do_not_become_a_hundred(depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 MiB of spans that say nothing took control 1.4 GB and ten seconds."""

    def never(body: bytes) -> None:
        raise AssertionError("it must not even be read")

    body = (b"\x0a\x00", b"\x12\x00", b"\x12\x00")[depth - 1] * 20_000
    for key in (b"\x0a", b"\x12")[: depth - 1][::-1]:
        body = key + bytes((len(body) & 0x7F | 0x80, len(body) >> 7 & 0x7F | 0x80, len(body) >> 14)) + body
    assert len(ExportTraceServiceRequest.FromString(body).resource_spans) == (20_000 if depth == 1 else 1)
    monkeypatch.setattr(decoding, "ExportTraceServiceRequest", type("Reader", (), {"FromString": never}))
    with pytest.raises(Unreadable) as caught:
        decode(body, PROTOBUF, "", "default/book-1")
    assert caught.value.status == 413


def test_as_many_spans_as_there_may_be_are_read() -> None:
    made = request()
    one = made.resource_spans[0].scope_spans[0].spans[0]
    made.resource_spans[0].scope_spans[0].spans.extend([one] * 4000)
    assert len(decode(made.SerializeToString(), PROTOBUF, "", "default/book-1").spans) == 4001


@given(st.binary(max_size=300), st.sampled_from(["", "gzip"]))
def test_no_bytes_raise_anything_else(body: bytes, encoding: str) -> None:
    try:
        decode(body, PROTOBUF, encoding, "default/book-1")
    except Unreadable as refused:
        assert refused.status in (400, 413)


def test_what_a_span_says_is_bounded() -> None:
    made = request()
    span = made.resource_spans[0].scope_spans[0].spans[0]
    span.name = "n" * 9999
    for index in range(150):
        span.attributes.add(key=f"{index}" + "k" * 999).value.string_value = "v" * 9999
        span.events.add(name="e" * 9999)
    ((told,), _) = decode(made.SerializeToString(), PROTOBUF, "", "default/book-1")
    assert len(told.operation) == 512 and len(told.tags) == 129 and len(told.events) == 64
    assert max(map(len, told.tags)) == 256 and max(map(len, told.tags.values())) == 4096
