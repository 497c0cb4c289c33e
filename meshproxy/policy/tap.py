"""Room: policy. Which finished requests a tap wants, and what it is told of them. Judged only while somebody taps.

In: a ``TapFilter``, ``ExchangeRecord``s, our own ``Workload``. Out: ``compile_tap`` -> record -> bool (raises ``Invalid`` with
the field's path), ``event`` -> ``TapEvent``. A filter sees what the watcher may see and no more, or it would be a way to guess
the rest: paths without their secrets, and no values of headers that are never shown.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from meshproxy.model.tap import FLAGS, TapEvent, TapFilter
from meshproxy.policy import format as command
from meshproxy.policy.invalid import Invalid
from meshproxy.policy.shown import header_values, secret_name, shown_target

if TYPE_CHECKING:
    from meshproxy.message.record import ExchangeRecord
    from meshproxy.model.cluster import Workload

__all__ = ["Wants", "compile_tap", "event", "globbed", "pathed"]

Wants = Callable[["ExchangeRecord"], bool]
Own = Callable[[], "Workload"]

_HEADERS = 100  # of a message that are told
_LONGEST = 4096  # bytes of a text
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_original = command.reader("%PATH%")  # what was asked for, before rewrites
_trace = command.reader("%TRACE_ID%")
_protocol = command.reader("%PROTOCOL%")
_grpc = command.reader("%GRPC_STATUS_NUMBER%")
_id = command.reader("%REQ(x-request-id)%")


def globbed(pattern: str) -> Callable[[str], bool]:
    """A pattern for the whole text, in which ``*`` stands for anything. Linear in the text."""
    first, *rest = pattern.split("*")
    if not rest:
        return lambda text: text == pattern
    *middle, last = rest

    def matches(text: str) -> bool:
        if not text.startswith(first):
            return False
        at = len(first)
        for part in middle:
            at = text.find(part, at)
            if at < 0:
                return False
            at += len(part)
        return len(text) - at >= len(last) and text.endswith(last)

    return matches


def pathed(pattern: str) -> Callable[[str], bool]:
    """Of a path: its beginning, or with ``*`` all of it. The query counts only where the pattern has one."""
    matches: Callable[[str], bool] = globbed(pattern) if "*" in pattern else lambda path: path.startswith(pattern)
    return matches if "?" in pattern else lambda path: matches(path.partition("?")[0])


def compile_tap(given: TapFilter, own: Own) -> Wants | None:
    """``own``: our workload. None: everything is wanted. Cheap tests first."""
    tests: list[Wants] = []
    if given.directions:
        directions = frozenset(given.directions)
        tests.append(lambda record: record.listener.direction in directions)
    if given.statuses:
        tests.append(_statuses(given.statuses))
    if given.methods:
        methods = frozenset(_method(one).encode() for one in given.methods)
        tests.append(lambda record: record.method in methods)
    if not 0 <= given.min_ms < 1e9:
        raise Invalid("min_ms", f"must be milliseconds, not {given.min_ms:g}")
    if given.min_ms:
        seconds = given.min_ms / 1000.0
        tests.append(lambda record: record.ended - record.started >= seconds)
    if given.flags:
        if unknown := [one for one in given.flags if one not in FLAGS]:
            raise Invalid("flags", f"{unknown[0]!r} is not one of {', '.join(FLAGS)}")
        flags = frozenset(given.flags)
        tests.append(lambda record: any(reason.flag in flags for reason in record.flags))
    if given.authority:
        tests.append(_authority(given.authority))
    if given.path:
        if given.path[0] not in "/*":
            raise Invalid("path", f"must begin with / or *, not {given.path[:40]!r}")
        path = pathed(given.path)
        tests.append(lambda record: path(_path(record)))
    tests += [_header(name, value) for name, value in given.headers]
    if given.source:
        named = _named("source", given.source)
        tests.append(lambda record: named(_source(record, own), None, record.downstream_remote))
    if given.destination:
        toward = _named("destination", given.destination)
        tests.append(lambda record: toward(_target(record, own), record.service, _answering(record)))
    if not tests:
        return None
    every = tuple(tests)
    return every[0] if len(every) == 1 else lambda record: all(test(record) for test in every)


def _statuses(ranges: tuple[tuple[int, int], ...]) -> Wants:
    wanted = frozenset(status for low, high in ranges for status in range(max(low, 0), min(high, 999) + 1))
    return lambda record: record.status in wanted


def _method(name: str) -> str:
    if not name or not _TOKEN.issuperset(name):
        raise Invalid("methods", f"{name[:40]!r} is not a method such as GET")
    return name.upper() if name.isalpha() else name


def _authority(pattern: str) -> Wants:
    """With the port or without it."""
    matches = globbed(pattern.lower())

    def wanted(record: ExchangeRecord) -> bool:
        full = record.authority.decode("utf-8", "backslashreplace").lower()
        name, colon, port = full.rpartition(":")
        return matches(full) or (bool(colon) and port.isdigit() and matches(name))

    return wanted


def _header(name: str, value: str | None) -> Wants:
    if not name or not _TOKEN.issuperset(name):
        raise Invalid("headers", f"{name[:40]!r} is not a header's name")
    if value is not None and secret_name(name):
        raise Invalid("headers", f"{name}: holds credentials, which are never told; write the name alone")
    key, wanted = name.lower().encode(), None if value is None else value.encode()
    return lambda record: any(have == key and (wanted is None or said == wanted) for have, said in record.request_headers)


Named = Callable[["Workload | None", Any, "tuple[str, int] | None"], bool]


def _named(field: str, text: str) -> Named:
    """Whether a workload, service or address is the one that ``text`` names."""
    try:
        address = str(ip_address(text))
    except ValueError:
        pass
    else:
        return lambda workload, service, place: place is not None and place[0] == address
    space, slash, name = text.partition("/")
    if not slash:
        name, _, space = text.partition(".")
        space = space.removesuffix(".").partition(".svc")[0]
    if not name or not all(char.isalnum() or char in "-._" for char in name + space):
        raise Invalid(field, f"{text[:60]!r} names no workload: write NAME, NAME.NAMESPACE, NAMESPACE/NAME or an IP address")
    host = text.lower()

    def named(workload: Workload | None, service: Any, place: tuple[str, int] | None) -> bool:
        if workload is not None and (not space or workload.namespace == space):
            names = (workload.workload, workload.app, workload.canonical_service, workload.pod)
            if name in names:
                return True
        if service is None:
            return False
        if service.host == host:
            return True
        return bool(service.name == name and (not space or service.namespace == space))

    return named


def _source(record: ExchangeRecord, own: Own) -> Workload | None:
    found: Workload | None = record.peer if record.listener.direction == "inbound" else own()
    if record.listener.direction == "gateway":
        found = record.peer
    return found


def _target(record: ExchangeRecord, own: Own) -> Workload | None:
    if record.listener.direction == "inbound":
        return own()
    secured, endpoint = record.upstream_secured, record.endpoint
    if secured is not None and secured.workload is not None:
        return secured.workload
    found: Workload | None = None if endpoint is None else endpoint.workload
    return found


def _answering(record: ExchangeRecord) -> tuple[str, int] | None:
    endpoint = record.endpoint
    return None if endpoint is None else (endpoint.address, endpoint.port)


def _text(value: bytes | None) -> str:
    return value[:_LONGEST].decode("utf-8", "backslashreplace") if value else ""


def _path(record: ExchangeRecord) -> str:
    """What was asked for, without its secrets."""
    return _text(shown_target(_original(record) or b""))


def _name(workload: Workload | None) -> str:
    if workload is None or not workload.workload:
        return ""
    return f"{workload.workload}.{workload.namespace}" if workload.namespace else workload.workload


def _place(pair: tuple[str, int] | None) -> str:
    if pair is None:
        return ""
    return f"[{pair[0]}]:{pair[1]}" if ":" in pair[0] else f"{pair[0]}:{pair[1]}"


def _kind(secured: Any) -> str:
    if secured is None:
        return "none"
    return "mtls" if secured.peer is not None and secured.local else "tls"


def event(record: ExchangeRecord, own: Own, values: bool) -> TapEvent:
    """``values``: headers with their values, as far as those may ever be shown."""
    inbound = record.listener.direction == "inbound"
    down, up = record.secured, record.upstream_secured
    return TapEvent(
        time=round(record.wall, 3),
        direction=record.listener.direction,
        listener=record.listener.name,
        method=_text(record.method),
        authority=_text(record.authority.rpartition(b"@")[2]),  # user information is no host
        path=_path(record),
        protocol=_text(_protocol(record)),
        status=record.status,
        flags=tuple(reason.flag for reason in record.flags if reason.flag),
        detail=record.detail[:_LONGEST],
        failure=record.transport_failure[:_LONGEST],
        duration_ms=round((record.ended - record.started) * 1000.0, 3),
        upstream_ms=round((record.first_upstream_byte - record.started) * 1000.0, 3) if record.first_upstream_byte else None,
        source=_name(_source(record, own)),
        source_address=_place(record.downstream_remote),
        source_principal=down.who if down is not None else "",
        destination=_name(_target(record, own)),
        destination_service=record.service.host if record.service is not None else "",
        destination_principal=up.who if up is not None else down.local if inbound and down is not None else "",
        cluster=record.cluster_name,
        endpoint=_place(_answering(record)),
        route=record.route_name,
        mtls=_kind(down if inbound else up),
        tries=record.attempts,
        request_id=_text(_id(record)),
        trace_id=_text(_trace(record)),
        grpc_status=_text(_grpc(record)),
        bytes_received=record.body_received,
        bytes_sent=record.body_sent,
        request_headers=header_values(record.request_headers, values, _HEADERS),
        response_headers=header_values(record.response_headers, values, _HEADERS),
    )
