"""Room: traces. An OTLP/HTTP body -> spans. Whatever stands in it, what comes out is bounded.

In: the body's bytes, its content type and encoding, who sent it. Out: ``Decoded``, or ``Unreadable`` with a status of HTTP. May
take milliseconds: not for an event loop. Source: the OTLP specification, section OTLP/HTTP.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple, get_args

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from control.traces.span import Event, Kind, Span

__all__ = ["MAX_BODY", "MAX_EXPANDED", "PROTOBUF", "Decoded", "Unreadable", "decode"]

PROTOBUF = "application/x-protobuf"
MAX_BODY = 4 << 20  # bytes as sent
MAX_EXPANDED = 8 << 20  # protobuf makes up to thirty times as much memory of it
MAX_PIECES = 10_000  # spans, and what holds them: one that says nothing takes two bytes here, and a hundred once it is read
_MOST_TAGS, _MOST_EVENTS = 128, 64
_LONGEST_KEY, _LONGEST_VALUE, _LONGEST_NAME = 256, 4096, 512
_KINDS: dict[int, Kind] = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}
assert set(_KINDS.values()) == set(get_args(Kind))


class Unreadable(Exception):
    """``status``: 400, 413 or 415; the message is one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Decoded(NamedTuple):
    """``rejected``: spans without an id or with impossible times."""

    spans: list[Span]
    rejected: int


def decode(body: bytes, content_type: str, encoding: str, reporter: str) -> Decoded:
    """``reporter``: ``namespace/pod`` whose token it was. It becomes the tag ``mesh.reporter``; the rest is its word."""
    if content_type.partition(";")[0].strip().lower() != PROTOBUF:
        raise Unreadable(415, f"content-type: must be {PROTOBUF}")
    if len(body) > MAX_BODY:
        raise Unreadable(413, f"the body is longer than {MAX_BODY} bytes: send fewer spans at a time")
    if encoding.strip().lower() == "gzip":
        body = _expanded(body)
    elif encoding.strip().lower() not in ("", "identity"):
        raise Unreadable(415, "content-encoding: must be gzip, or absent")
    try:
        if _pieces(body, 0, len(body), (1, 2, 2)) > MAX_PIECES:  # resource_spans, scope_spans, spans
            raise Unreadable(413, f"the body has more than {MAX_PIECES} spans: send fewer at a time")
        request = ExportTraceServiceRequest.FromString(body)
    except (DecodeError, IndexError):
        raise Unreadable(400, "the body is no ExportTraceServiceRequest of OTLP") from None
    spans: list[Span] = []
    rejected = 0
    for of_resource in request.resource_spans:
        service = _service(of_resource.resource.attributes, reporter)
        for scope in of_resource.scope_spans:
            for given in scope.spans:
                span = _span(given, service, reporter)
                if span is None:
                    rejected += 1
                else:
                    spans.append(span)
    return Decoded(spans, rejected)


def _expanded(body: bytes) -> bytes:
    machine = zlib.decompressobj(31)
    try:
        data = machine.decompress(body, MAX_EXPANDED)
    except zlib.error:
        raise Unreadable(400, "the body is not gzip, though content-encoding says so") from None
    if machine.unconsumed_tail:
        raise Unreadable(413, f"the body is longer than {MAX_EXPANDED} bytes when it is unpacked: send fewer spans at a time")
    if not machine.eof:
        raise Unreadable(400, "the body's gzip is cut short")
    return data


def _pieces(body: bytes, at: int, end: int, path: tuple[int, ...]) -> int:
    """How many messages stand in ``body[at:end]`` on ``path``, field by field; it stops when they are too many.

    Not a second reader of protobuf: what is wrong ends the count (or is an IndexError), and the real one says so.
    """
    found = 0
    while at < end and found <= MAX_PIECES:
        key, at = _varint(body, at)
        if key & 7 == 0:
            _, at = _varint(body, at)
        elif key & 7 == 2:
            size, at = _varint(body, at)
            if key >> 3 == path[0]:
                found += 1 if len(path) == 1 else 1 + _pieces(body, at, min(at + size, end), path[1:])
            at += size
        elif key & 7 in (1, 5):
            at += 8 if key & 7 == 1 else 4
        else:  # groups are not in OTLP
            raise IndexError
    return found


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """(value, where it ends)."""
    value = shift = 0
    while (byte := body[at]) & 0x80 and shift < 63:
        value |= (byte & 0x7F) << shift
        shift += 7
        at += 1
    return value | (byte & 0x7F) << shift, at + 1


def _service(attributes: Iterable[Any], reporter: str) -> str:
    for one in attributes:
        if one.key == "service.name":
            return _text(one.value)[:_LONGEST_KEY] or reporter
    return reporter


def _span(given: Any, service: str, reporter: str) -> Span | None:
    start, end = given.start_time_unix_nano, given.end_time_unix_nano
    good = len(given.trace_id) == 16 and len(given.span_id) == 8 and len(given.parent_span_id) in (0, 8) and end >= start > 0
    if not good or end > 1 << 62:  # what SQLite can hold, and the year 2116
        return None
    tags = _tags(given.attributes)
    tags["mesh.reporter"] = reporter
    return Span(
        trace_id=given.trace_id.hex(),
        span_id=given.span_id.hex(),
        parent_id=given.parent_span_id.hex(),
        service=service,
        operation=given.name[:_LONGEST_NAME],
        kind=_KINDS.get(given.kind, "internal"),
        start=start / 1e9,
        duration=(end - start) / 1e9,
        status="error" if given.status.code == 2 else "ok",
        tags=tags,
        events=tuple(
            Event(one.name[:_LONGEST_NAME], one.time_unix_nano / 1e9, _tags(one.attributes))
            for one in given.events[:_MOST_EVENTS]
        ),
    )


def _tags(attributes: Any) -> dict[str, str]:
    return {one.key[:_LONGEST_KEY]: _text(one.value)[:_LONGEST_VALUE] for one in attributes[:_MOST_TAGS]}


def _text(value: Any) -> str:
    """Of an AnyValue; lists and maps are not looked into."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return str(value.string_value)
    if kind == "bool_value":
        return "true" if value.bool_value else "false"
    if kind in ("int_value", "double_value"):
        return str(getattr(value, kind))
    return "" if kind is None else f"({kind.removesuffix('_value')})"
