"""History, tables: what ``meshctl top`` shows: who calls whom and by which route, services, workloads, sidecars.

Room: control/history. In: samples of a window (each call may be told by both its ends), what sidecars say of themselves. Out:
plain dictionaries, busiest first. Pure. Rates are per second, durations milliseconds, shares from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

from control.history.calls import Call, Sample, Totals, once
from control.history.history import SidecarState
from control.history.views import signals

__all__ = ["Keep", "by_route", "by_service", "by_workload", "sidecars"]

Keep = Callable[[Call], bool]
_PASSED_ON = ("PassthroughCluster", "InboundPassthroughCluster")
_Who = tuple[str, str]


class _Row:
    __slots__ = ("callers", "flags", "plain", "secured", "targets", "totals")

    def __init__(self) -> None:
        self.totals = Totals()
        self.flags: dict[str, float] = {}
        self.targets: dict[_Who, float] = {}
        self.callers: set[_Who] = set()
        self.secured = self.plain = 0.0

    def add(self, call: Call, totals: Totals) -> None:
        self.totals.add(totals)
        for flag in filter(None, call.flags.split(",")):
            self.flags[flag] = self.flags.get(flag, 0.0) + totals.requests
        if call.target[1]:
            self.targets[call.target] = self.targets.get(call.target, 0.0) + totals.requests
        self.callers.add(call.source)
        if call.mtls is not None:
            self.locked(*((0.0, totals.requests) if call.mtls else (totals.requests, 0.0)))

    def locked(self, plain: float, secured: float) -> None:
        self.plain += plain
        self.secured += secured

    def shown(self, window: float) -> dict[str, Any]:
        told = signals(self.totals, window)
        return {
            **told,
            "success": 1 - told["errorShare"],
            "retries": self.totals.retried,
            "mtls": False if self.plain else True if self.secured else None,  # one call in plaintext is no lock
            "flags": {flag: self.flags[flag] for flag in sorted(self.flags)},
            "workloads": [f"{name}.{space}" for space, name in sorted(self.targets)],
        }


def _gathered(samples: Iterable[Sample], key: Callable[[Call], Hashable]) -> dict[Any, _Row]:
    rows: dict[Any, _Row] = {}
    for call, totals in samples:
        if totals.requests:
            rows.setdefault(key(call), _Row()).add(call, totals)
    return rows


def _sorted(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (-row["rps"], *(str(row.get(name, "")) for name in ("from", "to", "route", "name"))))


def by_route(samples: Iterable[Sample], window: float, keep: Keep) -> list[dict[str, Any]]:
    """One row for each caller, service and route of it. Only the caller's sidecar knows by which route a call went; of callers
    that have none, or do not tell, there is what the destination counted.
    """
    samples = [sample for sample in samples if sample[1].requests]
    told = {
        call.source for call, _ in samples if call.reporter == "source"
    }  # of tries that others followed it tells the last one
    locks: dict[tuple[_Who, _Who], list[float]] = {}
    for call, totals in samples:  # that a call was in plaintext only the destination says
        if call.mtls is not None:
            found = locks.setdefault((call.source, call.target), [0.0, 0.0])
            found[call.mtls] += totals.requests
    rows: dict[Any, _Row] = {}
    for call, totals in samples:
        if not keep(call) or (call.reporter == "destination" and call.source in told):
            continue
        row = rows.setdefault((call.source, _service(call), call.reporter == "source", call.route), _Row())
        row.add(call, totals)
        if call.mtls is None:
            row.locked(*locks.get((call.source, call.target), (0.0, 0.0)))
    return _sorted(
        {"from": _name(source), "to": to, **_route(route, told_by_caller), **row.shown(window)}
        for (source, to, told_by_caller, route), row in rows.items()
    )


def by_service(samples: Iterable[Sample], window: float, keep: Keep) -> list[dict[str, Any]]:
    """One row for each service that was called, whoever called."""
    rows = _gathered((sample for sample in once(samples) if keep(sample[0])), _service)
    return _sorted({"name": name, "callers": _callers(row), **row.shown(window)} for name, row in rows.items())


def by_workload(samples: Iterable[Sample], window: float, keep: Keep) -> list[dict[str, Any]]:
    """One row for each workload: what it was asked. ``outRps``: what it asked of others."""
    counted = list(once(samples))
    rows = _gathered((one for one in counted if one[0].target[1] and one[0].arrived), lambda call: call.target)
    calls = _gathered(counted, lambda call: call.source)
    wanted = {call.target for call, _ in counted if keep(call)} | {call.source for call, _ in counted if keep(call)}
    return _sorted(
        {
            "name": _name(who),
            "callers": _callers(row := rows.get(who) or _Row()),
            **row.shown(window),
            "outRps": calls[who].totals.requests / window if who in calls and window else 0.0,
        }
        for who in wanted
        if who[1]
    )


def sidecars(states: Iterable[SidecarState], now: float) -> list[dict[str, Any]]:
    """One row for each sidecar that was heard of lately."""
    rows = [
        {
            "name": one.pod,
            "namespace": one.namespace,
            "workload": one.workload,
            "cpuShare": one.cpu,
            "memoryBytes": one.gauges.get("rss_bytes"),
            "connections": one.gauges.get("connections"),
            "loopLagSeconds": one.gauges.get("loop_lag_seconds"),
            "certificateSeconds": one.gauges["certificate_expires"] - now if "certificate_expires" in one.gauges else None,
            "rps": one.rps,
            "age": now - one.seen,
        }
        for one in states
    ]
    return sorted(rows, key=lambda row: (row["namespace"], row["name"]))


def _callers(row: _Row) -> int:
    return len(row.callers)


def _name(who: _Who) -> str:
    return f"{who[1]}.{who[0]}" if who[1] else "unknown"


def _service(call: Call) -> str:
    namespace, name = call.service
    if name in _PASSED_ON:
        return call.host or name
    if name and namespace:
        return f"{name}.{namespace}"
    return call.host or name or (_name(call.target) if call.target[1] else "unknown")


def _route(route: tuple[str, str, str], told_by_caller: bool) -> dict[str, Any]:
    """``outbound|8080|v1|host``: port and subset say what the row's ``to`` does not."""
    name, source, cluster = route
    parts = cluster.split("|")
    port, subset = (parts[1], parts[2]) if len(parts) == 4 else ("", "")
    return {"route": name, "source": source, "cluster": cluster, "port": port, "subset": subset, "told": told_by_caller}
