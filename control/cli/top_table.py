"""The tables of ``meshctl top``: rows of the API as cells, and what is said where there are none.

In: the API's answer. Out: columns and cells of text. Nothing is asked here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from control.cli.out import columns

__all__ = ["SORTS", "Table"]

_CALLS = ("rps", "success", "p50", "p95", "p99", "name")
SORTS: dict[str, tuple[str, ...]] = {
    "routes": _CALLS,
    "services": _CALLS,
    "workloads": _CALLS,
    "pods": ("name", "cpu", "memory"),
}
_HEADERS = {
    "routes": ("FROM", "TO", "ROUTE", "RPS", "SUCCESS", "P50", "P99", "RETRIES", "MTLS"),
    "services": ("SERVICE", "RPS", "SUCCESS", "P50", "P99", "CALLERS", "MTLS"),
    "workloads": ("WORKLOAD", "RPS", "SUCCESS", "P50", "P99", "CALLERS", "OUT RPS", "MTLS"),
    "pods": ("POD", "CPU", "MEMORY", "RPS", "CONNECTIONS", "STATUS"),
}
_WIDE = {"routes": ("P95", "FLAGS", "ANSWERED BY"), "services": ("P95", "FLAGS", "ANSWERED BY"), "workloads": ("P95", "FLAGS")}
_WIDE_PODS = ("WORKLOAD", "LOOP LAG", "CERTIFICATE", "HEARD")


class Table:
    """``chosen``: only some calls are asked for."""

    def __init__(self, kind: str, sort: str, wide: bool, limit: int, chosen: bool) -> None:
        self.kind, self.sort, self.wide, self.limit, self.chosen = kind, sort, wide, limit, chosen
        more = _WIDE_PODS if kind == "pods" else _WIDE[kind]
        self.header = _HEADERS[kind] + (more if wide else ())

    def sorted(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The worst or the busiest first."""
        if self.sort == "name":
            return sorted(
                rows, key=lambda row: [str(row.get(name, "")) for name in ("namespace", "from", "name", "to", "source")]
            )
        if self.sort == "success":
            return sorted(rows, key=lambda row: (row["success"], -row["rps"]))
        field = {"cpu": "cpuShare", "memory": "memoryBytes"}.get(self.sort, self.sort)
        return sorted(rows, key=lambda row: -(row[field] if row[field] is not None else -1.0))

    def rows(self, answer: dict[str, Any]) -> list[tuple[str, ...]]:
        cells = {"routes": _route, "services": _named, "workloads": _named, "pods": _pod}[self.kind]
        return [tuple(map(_plain, cells(row, self.wide))) for row in answer["rows"][: self.limit]]

    def lines(self, answer: dict[str, Any]) -> Iterator[str]:
        """One table, or why there is none."""
        if not answer["rows"]:
            yield self.nothing(answer)
            return
        yield columns([self.header, *self.rows(answer)])
        if len(answer["rows"]) > self.limit:
            yield f"… and {len(answer['rows']) - self.limit} more (--limit)"

    def nothing(self, answer: dict[str, Any]) -> str:
        """Why there is no row."""
        if self.kind == "pods":
            return "No sidecar has reported lately; `meshctl proxy-status` lists those that are connected."
        if not answer["sidecars"]:
            return "No sidecar is connected, so nothing is counted; `meshctl proxy-status`, `kubectl get pods`."
        such = "No such requests" if self.chosen else "No requests"
        return (
            f"{such} in the last {_span(answer['window'])}; {answer['sidecars']} sidecars are connected and report every 5 s. "
            f"Send some, or look further back with --window."
        )

    def caption(self, answer: dict[str, Any]) -> str:
        if self.kind == "pods":
            return f"{len(answer['rows'])} sidecars"
        total = sum(row["rps"] for row in answer["rows"])
        return f"last {_span(answer['window'])} · {total:.1f} requests/s · by {self.sort} · {answer['sidecars']} sidecars"


def _route(row: dict[str, Any], wide: bool) -> Sequence[str]:
    to = row["to"] + (f":{row['port']}" if row["port"] else "")
    retries = f"{row['retries'] / row['requests'] * 100:.0f}%" if row["retries"] else "0"
    speed = (_rate(row["rps"]), _share(row), _ms(row["p50"]), _ms(row["p99"]))
    cells = (row["from"], to, _by(row), *speed, retries, _lock(row))
    return (*cells, _ms(row["p95"]), _flags(row), ", ".join(row["workloads"]) or "-") if wide else cells


def _by(row: dict[str, Any]) -> str:
    """The VirtualService's rule, or what else chose the destination."""
    if not row["told"]:
        return "- (caller without a sidecar)"
    kind, _, rule = row["source"].partition(" ")
    name = rule if kind == "VirtualService" else row["source"]
    if row["route"] and row["source"]:
        name = f"{name.partition(' ')[0]} {row['route']}"
    elif not row["source"]:
        name = row["route"] or "-"
    return f"{name} → {row['subset']}" if row["subset"] else name


def _named(row: dict[str, Any], wide: bool) -> Sequence[str]:
    cells = [row["name"], _rate(row["rps"]), _share(row), _ms(row["p50"]), _ms(row["p99"]), str(row["callers"])]
    if "outRps" in row:
        cells.append(_rate(row["outRps"]))
    cells.append(_lock(row))
    if wide:
        cells += [_ms(row["p95"]), _flags(row)]
        if "outRps" not in row:
            cells.append(", ".join(row["workloads"]) or "-")
    return cells


def _pod(row: dict[str, Any], wide: bool) -> Sequence[str]:
    cpu = "-" if row["cpuShare"] is None else f"{row['cpuShare'] * 1000:.0f}m"
    memory = "-" if row["memoryBytes"] is None else f"{row['memoryBytes'] / (1 << 20):.0f}Mi"
    connections = "-" if row["connections"] is None else f"{row['connections']:.0f}"
    cells = [f"{row['name']}.{row['namespace']}", cpu, memory, _rate(row["rps"]), connections, row["status"]]
    if wide:
        lag, left = row["loopLagSeconds"], row["certificateSeconds"]
        cells += [row["workload"], "-" if lag is None else _ms(lag * 1000), "-" if left is None else _span(left)]
        cells.append(f"{row['age']:.0f} s ago")
    return cells


def _rate(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def _share(row: dict[str, Any]) -> str:
    """Never 100 % where anything failed."""
    if not row["requests"]:
        return "-"
    text = f"{row['success'] * 100:.2f}"
    return f"{'99.99' if text == '100.00' and row['errors'] else text}%".replace(".00%", "%")


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value / 1000:.2f}s" if value >= 1000 else f"{value:.0f}ms" if value >= 10 else f"{value:.1f}ms"


def _lock(row: dict[str, Any]) -> str:
    return {True: "yes", False: "no"}.get(row["mtls"], "-")


def _flags(row: dict[str, Any]) -> str:
    return " ".join(f"{flag}:{count:.0f}" for flag, count in row["flags"].items()) or "-"


def _span(value: float) -> str:
    value = round(value)
    if value < 120:
        return f"{value}s"
    return (
        f"{value // 60}m" + (f"{value % 60}s" if value % 60 else "") if value < 7200 else f"{value // 3600}h{value % 3600 // 60}m"
    )


def _plain(text: str) -> str:
    """What others named must not steer a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
