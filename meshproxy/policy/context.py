"""Room: policy. Which trace a request belongs to: W3C trace context, B3 (one header or several), and whether it is sampled.

In: a request's headers, ``model.telemetry.Tracing``, draws. Out: ``Context`` of what came in; headers to send on; ids. Parent
based: who began a trace has decided for all (Envoy's OpenTelemetry tracer). A trace that begins here is sampled by the number in
its ``x-request-id``, so that every hop that is asked about one id says the same (Envoy's UUIDRequestIDExtension; Istio:
``useRequestIdForTraceSampling``), or by a draw. What cannot be read counts as absent and is replaced; nothing here raises on the
data path.

Sources: W3C Trace Context level 1; openzipkin/b3-propagation; Envoy's ``mutateTracingRequestHeader``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from meshproxy.message.head import Headers
from meshproxy.message.ports import Dice
from meshproxy.message.record import ExchangeRecord
from meshproxy.model.telemetry import CustomTag, Tracing
from meshproxy.policy import format as log_format
from meshproxy.policy.invalid import Invalid

__all__ = [
    "B3",
    "CONTEXT",
    "HEX",
    "SAMPLED",
    "CompiledTracing",
    "Context",
    "compile_tracing",
    "extract",
    "inject",
    "is_request_id",
    "new_span_id",
    "new_trace_id",
    "readable_traceparent",
    "request_id",
    "sampled_request_id",
    "traceparent",
]

TRACEPARENT, TRACESTATE = b"traceparent", b"tracestate"
_B3, _TRACE, _SPAN, _PARENT = b"b3", b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid"
_DECISION, _FLAGS = b"x-b3-sampled", b"x-b3-flags"
B3 = frozenset((_B3, _TRACE, _SPAN, _PARENT, _DECISION, _FLAGS))
CONTEXT = B3 | {TRACEPARENT, TRACESTATE}

HEX = b"0123456789abcdef"
_traceparent = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}").fullmatch
# Whether it is a UUID: only of such a one is anything concluded.
is_request_id = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch
_MOST_STATE = 512  # characters of tracestate that are passed on (W3C section 3.3.1.5: at least so many)
_MOST_MEMBERS = 32
SAMPLED = b"9ab"  # the 15th character of a request id that is traced: sampled, forced, asked for by the client


class Context(NamedTuple):
    """What came with a request. ``trace_id`` b"": only a decision came. ``sampled`` None: it is left to us."""

    trace_id: bytes = b""
    span_id: bytes = b""
    sampled: bool | None = None
    state: bytes = b""


_NOTHING = Context()


def new_trace_id(dice: Dice) -> bytes:
    """128 bits out of three draws of 53; never all zeros."""
    return b"%012x%010x%010x" % (int(dice() * 0x1000000000000), int(dice() * 0x10000000000), 1 + int(dice() * 0xFFFFFFFFFF))


def new_span_id(dice: Dice) -> bytes:
    """64 bits out of two draws; never all zeros."""
    return b"%08x%08x" % (int(dice() * 0x100000000), 1 + int(dice() * 0xFFFFFFFF))


def request_id(dice: Dice) -> tuple[bytes, int]:
    """A random UUID (RFC 9562 section 5.4), 122 bits out of three draws of 53; and the number that its first 8 characters are."""
    head, middle, tail = int(dice() * 0x1000000000000), int(dice() * 0x4000000), int(dice() * 0x1000000000000)
    first = head >> 16
    return b"%08x-%04x-4%03x-%04x-%012x" % (first, head & 0xFFFF, middle & 0xFFF, 0x8000 | middle >> 12, tail), first


def traceparent(trace_id: bytes, span_id: bytes, sampled: bool) -> bytes:
    return b"00-%b-%b-%b" % (trace_id, span_id, b"01" if sampled else b"00")


def readable_traceparent(value: bytes) -> bool:
    """Whether it is one of version 00, whole and in its only spelling. Hot. (benchmarks/micro_tracing.py)"""
    return _traceparent(value) is not None


def _hex(value: bytes, *sizes: int) -> bool:
    return len(value) in sizes and not value.translate(None, HEX) and bool(value.strip(b"0"))


def _of_traceparent(value: bytes) -> Context | None:
    """Version 00, or the part of a later version that is 00's (W3C section 3.2.4)."""
    if not readable_traceparent(value):
        later = len(value) >= 55 and value[2:3] == b"-" and value[:2] not in (b"00", b"ff") and value[55:56] in (b"", b"-")
        if not later or value[:2].translate(None, HEX) or not readable_traceparent(b"00" + value[2:55]):
            return None
    return Context(value[3:35], value[36:52], bool(int(value[53:55], 16) & 1))


def _of_b3(value: bytes) -> Context | None:
    """``{trace}-{span}[-{decision}[-{parent}]]``, or the decision alone."""
    if len(value) > 100:
        return None
    parts = value.split(b"-")
    if len(parts) == 1:
        return Context(sampled=_decision(value)) if _decision(value) is not None else None
    if len(parts) > 4 or not _hex(parts[0].lower(), 16, 32) or not _hex(parts[1].lower(), 16):
        return None
    return Context(parts[0].lower().rjust(32, b"0"), parts[1].lower(), _decision(parts[2]) if len(parts) > 2 else None)


def _decision(value: bytes) -> bool | None:
    if value in (b"1", b"d", b"true"):
        return True
    return False if value in (b"0", b"false") else None


def _of_headers(found: Mapping[bytes, bytes]) -> Context | None:
    """B3 in several headers."""
    sampled = True if found.get(_FLAGS) == b"1" else _decision(found.get(_DECISION, b""))
    trace, span = found.get(_TRACE, b"").lower(), found.get(_SPAN, b"").lower()
    if _hex(trace, 16, 32) and _hex(span, 16):
        return Context(trace.rjust(32, b"0"), span, sampled)
    return Context(sampled=sampled) if sampled is not None else None


def extract(headers: Headers) -> Context:
    """The context of a request: W3C's before B3's, one header before several. A header that came twice says nothing."""
    found: dict[bytes, bytes] = {}
    states: list[bytes] = []
    twice: set[bytes] = set()
    for name, value in headers:
        if name == TRACESTATE:
            states.append(value)
        elif name in CONTEXT:
            if name in found:
                twice.add(name)
            found[name] = value
    for name in twice:
        del found[name]
    if TRACEPARENT in found and (context := _of_traceparent(found[TRACEPARENT])) is not None:
        return context._replace(state=_state(states)) if states else context
    if _B3 in found and (context := _of_b3(found[_B3])) is not None:
        return context
    return _of_headers(found) or _NOTHING


def _state(values: list[bytes]) -> bytes:
    """As it came, joined; nothing of what is too long to pass on."""
    state = b",".join(values)
    plain = state.isascii() and not any(byte < 0x20 or byte == 0x7F for byte in state if byte != 0x09)
    return state if len(state) <= _MOST_STATE and state.count(b",") < _MOST_MEMBERS and plain else b""


def inject(headers: Headers, trace_id: bytes, span_id: bytes, parent_id: bytes, sampled: bool, state: bytes) -> None:
    """Set the context that the next hop shall see: W3C's, and B3's in the form in which the request brought it."""
    names = {name for name, _ in headers if name in CONTEXT}
    if names:
        headers[:] = [pair for pair in headers if pair[0] not in CONTEXT]
    headers.append((TRACEPARENT, traceparent(trace_id, span_id, sampled)))
    if state:
        headers.append((TRACESTATE, state))
    if names.isdisjoint(B3):
        return
    said = b"1" if sampled else b"0"
    if _B3 in names:
        headers.append((_B3, b"%b-%b-%b%b" % (trace_id, span_id, said, b"-" + parent_id if parent_id else b"")))
        names.discard(_B3)
    if not names.isdisjoint(B3):
        headers += ((_TRACE, trace_id), (_SPAN, span_id), (_DECISION, said))
        if parent_id:
            headers.append((_PARENT, parent_id))


def sampled_request_id(value: bytes, threshold: int) -> bytes | None:
    """The id as it is sent on when the trace that begins with it is sampled, else None.

    ``threshold``: of 10,000. An id that says already that it is traced stays as it is; one that is no UUID is not traced.
    """
    if is_request_id(value.lower()) is None:
        return None
    if value[14] in SAMPLED:
        return value
    return None if int(value[:8], 16) % 10000 >= threshold else value[:14] + b"9" + value[15:]


Tag = Callable[[ExchangeRecord], bytes | None]


class CompiledTracing:
    """One ``Tracing``, ready to run. ``threshold``: of 10,000 traces that begin here. ``tags``: name -> its value of a record."""

    __slots__ = ("model", "propagate", "report", "tags", "threshold", "use_request_id")

    def __init__(self, model: Tracing, tags: tuple[tuple[str, Tag], ...]) -> None:
        self.model = model
        self.threshold = round(model.sampling * 100)
        self.use_request_id = model.use_request_id
        self.propagate = model.propagate
        self.report = model.report
        self.tags = tags


def compile_tracing(model: Tracing, path: str, environ: Mapping[str, str] = os.environ) -> CompiledTracing:
    """Raises ``Invalid`` under ``path``."""
    if not 0 <= model.sampling <= 100:
        raise Invalid(f"{path}.sampling", f"must be a percentage from 0 to 100, not {model.sampling:g}")
    if model.exporter and not model.exporter.startswith(("http://", "https://")):
        raise Invalid(f"{path}.exporter", "must be a URL of OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces")
    if model.max_tag_length < 1:
        raise Invalid(f"{path}.max_tag_length", f"must be at least 1, not {model.max_tag_length}")
    tags = tuple((tag.tag, _tag(tag, f"{path}.tags[{index}]", environ)) for index, tag in enumerate(model.tags))
    return CompiledTracing(model, tags)


def _tag(tag: CustomTag, path: str, environ: Mapping[str, str]) -> Tag:
    given = [one for one in (tag.literal, tag.environment, tag.header, tag.formatter) if one is not None]
    if not tag.tag or len(given) != 1:
        raise Invalid(path, "must have a tag and exactly one of literal, environment, header, formatter")
    if tag.header is not None:
        name, default = tag.header[0].lower().encode(), tag.header[1].encode() or None

        def header(record: ExchangeRecord) -> bytes | None:
            for key, value in record.request_headers:
                if key == name:
                    return value
            return default

        return header
    if tag.formatter is not None:
        return log_format.compile(tag.formatter, f"{path}.formatter")
    text = tag.literal if tag.literal is not None else environ.get(*tag.environment) if tag.environment is not None else None
    constant = text.encode() if text else None
    return lambda record: constant
