"""Room: policy. Local replies: every early end as a head and a body (semantics B4).

In: a ``Reason``. Out: ``local_reply`` -> ``Reply`` whose head the caller owns. The header lists are prepared once, at import;
a call copies one short list. ``server`` and ``date`` are the exchange's to add, hop-by-hop headers the codec's.
"""

from __future__ import annotations

from datetime import UTC, datetime

from meshproxy.message.grpc import HTTP_TO_GRPC, is_grpc
from meshproxy.message.head import Headers, RequestHead, ResponseHead
from meshproxy.message.reason import Reason
from meshproxy.message.verdict import Reply

__all__ = ["as_grpc", "date_header", "local_reply", "plain_reply"]

_DAYS = (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")
_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_known: tuple[int, tuple[bytes, bytes]] = (-1, (b"date", b""))  # the last second and its header


def date_header(wall: float) -> tuple[bytes, bytes]:
    """``date`` for a Unix time (RFC 9110 section 6.6.1: whoever makes a response says when). Not by strftime: locales."""
    global _known
    second = int(wall)
    if second != _known[0]:
        at = datetime.fromtimestamp(second, UTC)
        day, month = _DAYS[at.weekday()], _MONTHS[at.month - 1]
        text = b"%b, %02d %b %04d %02d:%02d:%02d GMT" % (day, at.day, month, at.year, at.hour, at.minute, at.second)
        _known = (second, (b"date", text))
    return _known[1]


def _headers(body: bytes, extra: Headers) -> Headers:
    headers: Headers = [(b"content-length", b"%d" % len(body))]
    if body:
        headers.append((b"content-type", b"text/plain"))
    return headers + extra


_OVERLOADED: Headers = [(b"x-envoy-overloaded", b"true")]
_EXTRA: dict[Reason, Headers] = {Reason.OVERFLOW: _OVERLOADED}
_PREPARED = {reason: _headers(reason.body, _EXTRA.get(reason, [])) for reason in Reason}


def local_reply(reason: Reason, body: bytes | None = None, detail: str = "") -> Reply:
    """The reply of a reason. ``body`` overrides the table's (``reset_body`` with its particulars); ``detail`` likewise."""
    if body is None:
        head = ResponseHead(reason.status, list(_PREPARED[reason]), len(reason.body), close=reason.close)
        return Reply(head, reason.body, reason, detail)
    head = ResponseHead(reason.status, _headers(body, _EXTRA.get(reason, [])), len(body), close=reason.close)
    return Reply(head, body, reason, detail)


def plain_reply(status: int, body: bytes = b"", headers: Headers | None = None, detail: str = "") -> Reply:
    """An ordinary local response: redirect, direct response, preflight. No body and no length on 1xx, 204 and 304."""
    if status < 200 or status in (204, 304):
        return Reply(ResponseHead(status, list(headers or ()), 0), b"", None, detail)
    return Reply(ResponseHead(status, _headers(body, headers or []), len(body)), body, None, detail)


_GRPC = b"application/grpc"
_OF_THE_BODY = frozenset((b"content-length", b"content-type"))


def as_grpc(reply: Reply, request: RequestHead) -> None:
    """A local reply to a gRPC request is trailers-only: HTTP 200, the status mapped, the body as its message. In place."""
    if not is_grpc(request.headers):
        return
    head = reply.head
    if any(name == b"grpc-status" for name, _ in head.headers):
        return
    status = HTTP_TO_GRPC.get(head.status, 2)
    head.headers = [
        (b"content-type", _GRPC),
        (b"grpc-status", b"%d" % status),
        *([(b"grpc-message", _percent_encoded(reply.body))] if reply.body else ()),
        (b"content-length", b"0"),
        *(pair for pair in head.headers if pair[0] not in _OF_THE_BODY),
    ]
    head.status, head.length = 200, 0
    reply.body = b""


def _percent_encoded(text: bytes) -> bytes:
    """gRPC over HTTP/2, "Percent-Encoded": everything but printable ASCII, and the percent sign."""
    return b"".join(b"%c" % byte if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte for byte in text)
