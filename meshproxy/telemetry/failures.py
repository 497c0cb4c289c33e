"""Telemetry room: requests that failed lately, so that it can be told afterwards why, without an access log.

In: records of failures, at their end; successes cost nothing here. Out: ``Failure``s, newest first, chosen by what a question
(``meshctl why``) asks for. Bounded in number and in size: a flood of refused callers cannot push out what the mesh's own failed.
Tokens in queries are kept out of paths as they are kept out of the access log, ``access_token`` even where nobody says that it is
one; of headers only the request's id is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from meshproxy.message.reason import Reason
from meshproxy.policy.jwt_places import without_params

if TYPE_CHECKING:
    from meshproxy.message.record import ExchangeRecord

__all__ = ["KEPT", "Failure", "Failures", "chosen"]

KEPT = 256  # of each sort
_TEXT = 512  # characters of what callers choose
_SHORT = 160
_LONGEST_PATH = 4096  # bytes, before what is secret is taken out of it
_TOKENS = frozenset((b"access_token",))  # the usual parameter (RFC 6750), which callers' sidecars know nothing of
_MOST = 2 * KEPT
_Kept = tuple[Any, ...]  # as ``_kept`` makes it and ``_failure`` reads it


class Decided(msgspec.Struct):
    """What a policy said (``message.decision``)."""

    action: str
    policy: str
    rule: int
    allowed: bool
    reason: str
    dry_run: bool = False


class Failure(msgspec.Struct):
    """One failed request as one sidecar saw it.

    ``at``: Unix seconds of its head; ``ms``: until its end. ``first_byte_ms``: from there to the upstream's first byte, None
    where there was none. ``reasons``: names of ``message.reason.Reason``. ``source``: the resource that the route comes from.
    ``endpoint``: where the last try went, ``target`` its workload. ``caller``: who sent it, as far as that is proved or known.
    """

    at: float
    ms: float
    listener: str
    direction: str
    method: str
    authority: str
    path: str
    status: int
    flags: tuple[str, ...]
    reasons: tuple[str, ...]
    detail: str
    request_id: str
    trace_id: str
    grpc: str = ""
    route: str = ""
    source: str = ""
    cluster: str = ""
    service: str = ""
    endpoint: str = ""
    target: dict[str, str] = {}
    attempts: int = 0
    first_byte_ms: float | None = None
    transport: str = ""
    caller: dict[str, str] = {}
    remote: str = ""
    mtls: bool | None = None
    upstream_mtls: bool | None = None
    decisions: tuple[Decided, ...] = ()


class Failures:
    """``see`` is told of every record that may be one; what was answered 4xx and what failed otherwise are kept apart.

    Hot in a storm of failures: what is needed is kept as it is, and described only for who asks (benchmarks/micro_telemetry.py
    "observe, two response flags"). Not the record itself: that would keep heads of 60 kB and configurations that have gone.
    """

    __slots__ = ("_refused", "_failed")

    def __init__(self, kept: int = KEPT) -> None:
        self._refused: deque[_Kept] = deque(maxlen=kept)
        self._failed: deque[_Kept] = deque(maxlen=kept)

    def see(self, record: ExchangeRecord, grpc: str, now: float) -> None:
        """``grpc``: its gRPC status, "" where it has none."""
        status = record.status
        if status < 400 and status and grpc in ("", "0") and all(reason is Reason.FAULT_DELAY for reason in record.flags):
            return  # delayed on purpose, or gRPC that went well
        # Without a head there was no request to speak of: whoever sent it can send many.
        refused = 400 <= status < 500 or not record.method
        (self._refused if refused else self._failed).append(_kept(record, grpc, now))

    def rows(self) -> list[Failure]:
        """Everything kept, newest first."""
        return sorted(map(_failure, (*self._refused, *self._failed)), key=lambda one: one.at, reverse=True)


def _kept(record: ExchangeRecord, grpc: str, now: float) -> _Kept:
    endpoint, route, service, listener = record.endpoint, record.chosen, record.service, record.listener
    secured, upstream, trace = record.secured, record.upstream_secured, record.trace
    request_id = b""
    for name, value in record.request_headers:
        if name == b"x-request-id":
            request_id = value[:_SHORT]
            break
    return (
        *(record.wall, now - record.started, record.first_upstream_byte - record.started, grpc),
        *(listener.name, listener.direction, record.downstream_remote, record.peer),
        None if secured is None else (secured.who, secured.peer is not None),
        *(record.method[:_SHORT], record.authority[:_SHORT], record.path[:_LONGEST_PATH], record.hidden_params, request_id),
        *(record.status, record.flags, record.detail, record.transport_failure, record.decisions),
        *(b"" if trace is None else trace.trace_id, record.route_name, "" if route is None else route.model.source),
        *(record.cluster_name, "" if service is None else service.host, record.attempts),
        None if endpoint is None else (endpoint.label, endpoint.workload, upstream is not None and upstream.mesh),
    )


def _failure(kept: _Kept) -> Failure:
    at, took, first, grpc, listener, direction, remote, peer, secured, method, authority, path, hidden, request_id, *rest = kept
    status, flags, detail, transport, decisions, trace_id, route, source, cluster, service, attempts, endpoint = rest
    label, workload, upstream_mtls = endpoint or (b"", None, None)
    who, proved = secured or ("", False)
    return Failure(
        at=at,
        ms=round(took * 1000, 3),
        listener=listener,
        direction=direction,
        method=_text(method, _SHORT),
        authority=_text(authority, _SHORT),
        path=_text(without_params(path, hidden | _TOKENS) if b"?" in path else path),
        status=status,
        flags=tuple(reason.flag for reason in flags if reason.flag),
        reasons=tuple(reason.name for reason in flags),
        detail=detail[:_TEXT],
        request_id=_text(request_id, _SHORT),
        trace_id=trace_id.decode(),
        grpc=grpc,
        route=route,
        source=source,
        cluster=cluster,
        service=service,
        endpoint=label.decode(),
        target=_who(workload),
        attempts=attempts,
        first_byte_ms=round(first * 1000, 3) if first > 0 else None,
        transport=transport[:_TEXT],
        caller={**_who(peer), "principal": who} if who else _who(peer),
        remote=remote[0] if remote is not None else "",
        mtls=None if direction == "outbound" else proved,
        upstream_mtls=upstream_mtls,
        decisions=tuple(
            Decided(one.action, one.policy, one.rule, one.allowed, one.reason[:_TEXT], one.dry_run) for one in decisions
        ),
    )


def _who(workload: Any) -> dict[str, str]:
    if workload is None:
        return {}
    names = ("namespace", "workload", "pod", "version")
    return {name: value for name in names if (value := getattr(workload, name, ""))}


def _text(value: bytes, most: int = _TEXT) -> str:
    """One line, whatever a caller sent."""
    found = value[:most].decode("utf-8", "backslashreplace")
    return found if found.isprintable() else ascii(found)[1:-1]


def chosen(rows: Iterable[Failure], args: Mapping[str, Any], now: float) -> list[Failure]:
    """What a question asks for, newest first: ``id`` (a request's or a trace's), ``status`` (503, 5xx, failed), ``direction``,
    ``since`` (seconds), ``limit``. Raises ``ValueError``, one line.
    """
    unknown = set(args) - {"id", "status", "direction", "since", "limit"}
    if unknown:
        raise ValueError(f"{min(unknown)}: unknown; there are id, status, direction, since and limit")
    id_, status, direction = (str(args.get(name) or "") for name in ("id", "status", "direction"))
    since, limit = _number(args, "since", float("inf")), int(min(_number(args, "limit", _MOST), _MOST))
    wanted = _wanted(status)
    found = [
        one
        for one in rows
        if (not id_ or id_ in (one.request_id, one.trace_id))
        and (not direction or one.direction == direction)
        and wanted(one.status)
        and now - one.at - one.ms / 1000 <= since
    ]
    found.sort(key=lambda one: one.at + one.ms / 1000, reverse=True)
    return found[:limit]


def _wanted(status: str) -> Callable[[int], bool]:
    """A client that went away has no status: that is a failure of neither class."""
    if status in ("", "failed"):
        return lambda found: True
    if len(status) == 3 and status.isascii() and status[0].isdigit() and status[1:] == "xx":
        return lambda found: found // 100 == int(status[0])
    if len(status) == 3 and status.isascii() and status.isdigit():
        return lambda found: found == int(status)
    raise ValueError(f"status: must be a status such as 503, a class such as 5xx, or failed, not {status[:40]!r}")


def _number(args: Mapping[str, Any], name: str, default: float) -> float:
    given = args.get(name)
    if given in (None, ""):
        return default
    try:
        value = float(str(given))
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name}: must be a number, not {str(given)[:40]!r}")
    return value
