"""Room: policy. Envoy's command operators (``%REQ(USER-AGENT)%``), compiled once: for header values and for access logs.

In: a format text. Out: ``compile`` -> a function from ``ExchangeRecord`` to bytes; ``policy.line`` makes a quicker one of whole
lines. Assumes the exchange keeps in the record the very header lists of the request and the response, and the peers' addresses.
An operator that has no value gives ``-`` (access log) or nothing (header value). ``%%`` is a percent sign. Unknown operators are
refused at config time, with the nearest name. Source: Envoy, "Access logging: command operators".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Literal

from meshproxy.message.head import Headers
from meshproxy.message.record import ExchangeRecord
from meshproxy.message.secured import Peer, Secured
from meshproxy.model.texts import Operator, format_parts
from meshproxy.policy.invalid import Invalid
from meshproxy.policy.jwt_places import without_params

__all__ = [
    "ISTIO_DEFAULT",
    "NUMBERS",
    "Formatter",
    "Read",
    "alone",
    "compile",
    "fill_in",
    "find",
    "has_operators",
    "operator",
    "parts_of",
    "reader",
]

Formatter = Callable[[ExchangeRecord], bytes]
Read = Callable[[ExchangeRecord], bytes | None]

ISTIO_DEFAULT = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    '%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% '
    '%BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" '
    '"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% '
    "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
)

_PROTOCOLS = {10: b"HTTP/1.0", 11: b"HTTP/1.1", 20: b"HTTP/2"}


def _text(value: str) -> bytes | None:
    # Free text (transport failure, route name) must not break a log line or a header in two.
    return value.replace("\r", " ").replace("\n", " ").encode("utf-8", "backslashreplace") if value else None


def _milliseconds(start: float, end: float) -> bytes:
    # Whole milliseconds, truncated as in Envoy; the tiny bit keeps 40 ms from becoming 39 by binary fractions.
    return b"%d" % int((end - start) * 1000 + 1e-6)


def _address(pair: tuple[str, int] | None) -> bytes | None:
    if pair is None:
        return None
    host, port = pair[0], pair[1]
    return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode()


def _ip(pair: tuple[str, int] | None) -> bytes | None:
    return pair[0].encode() if pair is not None else None


def _port(pair: tuple[str, int] | None) -> bytes | None:
    return b"%d" % pair[1] if pair is not None else None


def _endpoint(record: ExchangeRecord) -> tuple[str, int] | None:
    endpoint = record.endpoint
    return None if endpoint is None else (endpoint.address, endpoint.port)


def _flags(record: ExchangeRecord) -> bytes | None:
    return ",".join(reason.flag for reason in record.flags if reason.flag).encode() or None


def _of_peer(read: Callable[[Peer], str]) -> Callable[[Secured], str]:
    return lambda secured: read(secured.peer) if secured.peer is not None else ""


# What either side's TLS says; for downstream and upstream alike.
_TLS: dict[str, Callable[[Secured], str]] = {
    "LOCAL_URI_SAN": lambda s: s.local,
    "PEER_FINGERPRINT_256": _of_peer(lambda p: p.digest),
    "PEER_SERIAL": _of_peer(lambda p: p.serial),
    "PEER_SUBJECT": _of_peer(lambda p: p.subject),
    "PEER_URI_SAN": _of_peer(lambda p: ",".join(p.uris) or p.identity),
    "TLS_CIPHER": lambda s: s.cipher,
    "TLS_VERSION": lambda s: s.version,
}


def _of_tls(side: Literal["secured", "upstream_secured"], read: Callable[[Secured], str]) -> Read:
    def of_tls(record: ExchangeRecord) -> bytes | None:
        secured: Secured | None = getattr(record, side)
        return None if secured is None else _text(read(secured))

    return of_tls


_LONG_FLAGS = {
    "UH": "NoHealthyUpstream",
    "UT": "UpstreamRequestTimeout",
    "LR": "LocalReset",
    "UR": "UpstreamRemoteReset",
    "UF": "UpstreamConnectionFailure",
    "UC": "UpstreamConnectionTermination",
    "UO": "UpstreamOverflow",
    "NR": "NoRouteFound",
    "DI": "DelayInjected",
    "FI": "FaultInjected",
    "RL": "RateLimited",
    "UAEX": "UnauthorizedExternalService",
    "DC": "DownstreamConnectionTermination",
    "URX": "UpstreamRetryLimitExceeded",
    "SI": "StreamIdleTimeout",
    "DPE": "DownstreamProtocolError",
    "UPE": "UpstreamProtocolError",
    "NC": "NoClusterFound",
    "OM": "OverloadManagerTerminated",
}


def _long_flags(record: ExchangeRecord) -> bytes | None:
    return ",".join(_LONG_FLAGS[reason.flag] for reason in record.flags if reason.flag).encode() or None


def _grpc_status(record: ExchangeRecord) -> int | None:
    return None if record.grpc is None else record.grpc.status(record.status, record.response_headers)


def _grpc_number(record: ExchangeRecord) -> bytes | None:
    status = _grpc_status(record)
    return None if status is None else b"%d" % status


# gRPC's status codes in order, as Envoy spells them; "Canceled" in one word, "CANCELLED" in the other.
_GRPC_CAMEL = (
    *("OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists", "PermissionDenied"),
    *("ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable"),
    *("DataLoss", "Unauthenticated"),
)
_GRPC_SNAKE = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)


def _grpc_name(argument: str | None) -> Read:
    if argument == "NUMBER":
        return _grpc_number
    names = _GRPC_SNAKE if argument == "SNAKE_STRING" else _GRPC_CAMEL

    def name(record: ExchangeRecord) -> bytes | None:
        status = _grpc_status(record)
        if status is None:
            return None
        return (names[status] if status < len(names) else str(status)).encode()

    return name


def _original_path(record: ExchangeRecord) -> bytes | None:
    """Before a rewrite, by us or by the caller's sidecar, which knows nothing of the tokens in it."""
    value = find(record.request_headers, b"x-envoy-original-path")
    return value if value is None or not record.hidden_params else without_params(value, record.hidden_params)


def _path(argument: str | None) -> Read:
    """``NQ``: without the query. ``ORIG``: before rewrites; ``PATH``: after them; else the original where there is one."""
    parts = (argument or "").split(":")

    def path(record: ExchangeRecord) -> bytes | None:
        original = None if "PATH" in parts else _original_path(record)
        value = original or record.path
        return (value.partition(b"?")[0] if "NQ" in parts else value) or None

    return path


def _query_parameter(name: str) -> Read:
    """As it stands in the path, not decoded."""
    prefix = name.encode() + b"="

    def parameter(record: ExchangeRecord) -> bytes | None:
        for pair in record.path.partition(b"?")[2].split(b"&"):
            if pair.startswith(prefix):
                return pair[len(prefix) :]
        return None

    return parameter


def _trace(record: ExchangeRecord) -> bytes | None:
    """Of a trace that is not sampled too: its id is in what is handed on (W3C Trace Context, ``traceparent``)."""
    if record.trace is not None:
        return record.trace.trace_id
    context = find(record.request_headers, b"traceparent")
    return context[3:35] if context is not None and len(context) >= 55 else None


_PLAIN: dict[str, Read] = {
    "PROTOCOL": lambda r: _PROTOCOLS.get(r.protocol),
    "RESPONSE_CODE": lambda r: b"%d" % r.status,
    "RESPONSE_FLAGS": _flags,
    "RESPONSE_FLAGS_LONG": _long_flags,
    "GRPC_STATUS_NUMBER": _grpc_number,
    "REQUEST_HEADERS_BYTES": lambda r: b"%d" % (r.request_size - r.body_received),
    "RESPONSE_HEADERS_BYTES": lambda r: b"%d" % (r.response_size - r.body_sent),
    "DOWNSTREAM_HEADER_BYTES_RECEIVED": lambda r: b"%d" % (r.request_size - r.body_received),
    "DOWNSTREAM_HEADER_BYTES_SENT": lambda r: b"%d" % (r.response_size - r.body_sent),
    "DOWNSTREAM_WIRE_BYTES_RECEIVED": lambda r: b"%d" % r.request_size,
    "DOWNSTREAM_WIRE_BYTES_SENT": lambda r: b"%d" % r.response_size,
    "RESPONSE_CODE_DETAILS": lambda r: _text(r.detail.replace(" ", "_")),  # one word, as Envoy's
    "CONNECTION_TERMINATION_DETAILS": lambda r: _text(r.termination.replace(" ", "_")),
    "UPSTREAM_TRANSPORT_FAILURE_REASON": lambda r: _text(r.transport_failure),
    "BYTES_RECEIVED": lambda r: b"%d" % r.body_received,
    "BYTES_SENT": lambda r: b"%d" % r.body_sent,
    "DURATION": lambda r: _milliseconds(r.started, r.ended),
    "RESPONSE_DURATION": lambda r: _milliseconds(r.started, r.first_upstream_byte) if r.first_upstream_byte else None,
    "RESPONSE_TX_DURATION": lambda r: _milliseconds(r.first_upstream_byte, r.ended) if r.first_upstream_byte else None,
    "UPSTREAM_HOST": lambda r: _address(_endpoint(r)),
    "UPSTREAM_REMOTE_ADDRESS": lambda r: _address(_endpoint(r)),
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": lambda r: _ip(_endpoint(r)),
    "UPSTREAM_REMOTE_PORT": lambda r: _port(_endpoint(r)),
    "UPSTREAM_CLUSTER": lambda r: _text(r.cluster_name),
    "UPSTREAM_CLUSTER_RAW": lambda r: _text(r.cluster_name),
    "UPSTREAM_LOCAL_ADDRESS": lambda r: _address(r.upstream_local),
    "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": lambda r: _ip(r.upstream_local),
    "UPSTREAM_LOCAL_PORT": lambda r: _port(r.upstream_local),
    "UPSTREAM_REQUEST_ATTEMPT_COUNT": lambda r: b"%d" % r.attempts,
    "DOWNSTREAM_LOCAL_ADDRESS": lambda r: _address(r.downstream_local),
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": lambda r: _ip(r.downstream_local),
    "DOWNSTREAM_LOCAL_PORT": lambda r: _port(r.downstream_local),
    "DOWNSTREAM_REMOTE_ADDRESS": lambda r: _address(r.downstream_remote),
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": lambda r: _ip(r.downstream_remote),
    "DOWNSTREAM_REMOTE_PORT": lambda r: _port(r.downstream_remote),
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS": lambda r: _address(r.downstream_remote),
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": lambda r: _ip(r.downstream_remote),
    "DOWNSTREAM_DIRECT_REMOTE_PORT": lambda r: _port(r.downstream_remote),
    **{f"DOWNSTREAM_{name}": _of_tls("secured", read) for name, read in _TLS.items()},
    **{f"UPSTREAM_{name}": _of_tls("upstream_secured", read) for name, read in _TLS.items()},
    "REQUESTED_SERVER_NAME": lambda r: _text(r.sni),
    "TRACE_ID": _trace,
    "ROUTE_NAME": lambda r: _text(r.route_name),
}

# Whose values are numbers where a format has types (JSON).
NUMBERS = frozenset(
    name
    for name in (*_PLAIN, "GRPC_STATUS_NUMBER")
    if name.endswith(("_BYTES", "_BYTES_RECEIVED", "_BYTES_SENT", "DURATION", "_PORT", "_COUNT", "_NUMBER", "RESPONSE_CODE"))
    or name in ("BYTES_RECEIVED", "BYTES_SENT")
) - {name for name in _PLAIN if name.endswith("_WITHOUT_PORT")}

_PSEUDO: dict[str, Read] = {
    ":method": lambda r: r.method or None,
    ":path": lambda r: r.path or None,
    ":authority": lambda r: r.authority or None,
    "host": lambda r: r.authority or None,
    "x-envoy-original-path": _original_path,
    ":scheme": lambda r: find(r.request_headers, b"x-forwarded-proto") or b"http",
}


def find(headers: Headers, name: bytes) -> bytes | None:
    for key, value in headers:
        if key == name:
            return value
    return None


def _header(operator: str, names: tuple[str, ...]) -> Read:
    """``%REQ(X?Y)%``: the first header, or else the second."""
    reads = [_one_header(operator, name) for name in names]
    if len(reads) == 1:
        return reads[0]
    main, other = reads

    def either(record: ExchangeRecord) -> bytes | None:
        value = main(record)
        return other(record) if value is None else value

    return either


def _one_header(operator: str, name: str) -> Read:
    key = name.encode()
    if operator == "REQ":
        return _PSEUDO.get(name) or (lambda record: find(record.request_headers, key))
    if name == ":status":
        return lambda record: b"%d" % record.status
    return lambda record: find(record.response_headers, key)


def _start_time(argument: str | None) -> Read:
    """Default ``2026-01-31T09:05:06.789Z``; else strftime, with ``%3f`` milliseconds, ``%6f``, ``%9f`` and ``%s`` seconds."""
    if not argument:
        # The last moment and its text (requests of one turn of the loop share it), the last second and its: strftime costs
        # more than the rest of a line.
        moment, shown, last, text = -1.0, b"", -1.0, b""

        def iso(record: ExchangeRecord) -> bytes:
            nonlocal moment, shown, last, text
            if record.wall == moment:
                return shown
            moment = record.wall
            second, fraction = divmod(moment, 1.0)
            if second != last:
                last, text = second, datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
            shown = b"%b.%03dZ" % (text, min(999, int(fraction * 1000 + 1e-3)))  # .409 as a float is a bit less
            return shown

        return iso

    def custom(record: ExchangeRecord) -> bytes:
        moment = datetime.fromtimestamp(record.wall, UTC)
        nanoseconds = f"{moment.microsecond:06d}000"
        text = argument.replace("%s", str(int(moment.timestamp())))
        for digits in range(1, 10):
            text = text.replace(f"%{digits}f", nanoseconds[:digits])
        return moment.strftime(text).encode()

    return custom


def operator(given: Operator, hostname: str) -> Read:
    """What one operator gives; None: nothing."""
    if given.headers:
        read = _header(given.name, given.headers)
    elif given.name == "START_TIME":
        read = _start_time(given.argument)
    elif given.name == "GRPC_STATUS":
        read = _grpc_name(given.argument)
    elif given.name == "PATH":
        read = _path(given.argument)
    elif given.name == "QUERY_PARAM":
        read = _query_parameter(given.argument or "")
    elif given.name == "HOSTNAME":
        host = hostname.encode() or None
        read = lambda record: host  # noqa: E731
    else:
        read = _PLAIN[given.name]
    return read if given.limit is None else _cut(read, given.limit)


def _cut(read: Read, limit: int) -> Read:
    def cut(record: ExchangeRecord) -> bytes | None:
        value = read(record)
        return value if value is None else value[:limit]

    return cut


def compile(text: str, path: str = "", empty: bytes = b"-", hostname: str = "") -> Formatter:
    """Compile a format. ``empty`` stands for a missing value, ``hostname`` for %HOSTNAME%. Raises ``Invalid`` at ``path``."""
    return fill_in(parts_of(text, path), empty, hostname)


def parts_of(text: str, path: str) -> list[str | Operator]:
    """Literals and operators. Raises ``Invalid`` at ``path``."""
    try:
        return format_parts(text)
    except ValueError as error:
        raise Invalid(path, str(error)) from None


def alone(text: str, path: str = "") -> str | None:
    """The operator's name, where a format is one operator and nothing else."""
    parts = parts_of(text, path)
    return parts[0].name if len(parts) == 1 and isinstance(parts[0], Operator) else None


def reader(text: str, path: str = "", hostname: str = "") -> Callable[[ExchangeRecord], bytes | None]:
    """What the one operator of ``text`` gives; None: nothing. Raises ``Invalid`` at ``path``."""
    (part,) = parts_of(text, path)
    assert isinstance(part, Operator)
    return operator(part, hostname)


def has_operators(text: str) -> bool:
    """Whether a format that compiles depends on the record."""
    return any(not isinstance(part, str) for part in format_parts(text))


def fill_in(parts: Sequence[str | Operator], empty: bytes, hostname: str) -> Formatter:
    """Literals and operators -> what they give together."""
    template = b""  # for bytes % values: literals with their percents doubled, %b per operator
    reads: list[Read] = []
    for part in parts:
        if isinstance(part, str):
            template += part.replace("%", "%%").encode()
        else:
            template += b"%b"
            reads.append(operator(part, hostname))
    if not reads:
        constant = template % ()
        return lambda record: constant
    if template == b"%b":  # most tags and header values (benchmarks/micro_telemetry.py "observe, two tags with operators")
        (only,) = reads

        def one(record: ExchangeRecord) -> bytes:
            value = only(record)
            return empty if value is None else value

        return one
    return lambda record: template % tuple([empty if (value := read(record)) is None else value for read in reads])
