"""History, views: samples as the pictures of the page: the graph, a node's or an edge's series, golden signals.

Room: control/history. In: samples of a window (each call may be told by both its ends) and what is not at rest. Out: plain
dictionaries, as the page gets them. Pure. Rates are per second, durations milliseconds, shares from 0 to 1.

Nodes: ``workload/NAMESPACE/NAME``, ``service/NAMESPACE/NAME``, ``external/HOST``. A call to a service goes from its workload to
the service and from there to the workload that answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from control.history.calls import Call, Sample, Totals, once, told_by_destination
from control.history.history import State

__all__ = ["Node", "callers", "graph", "hops", "matcher", "series", "signals"]

OUTSIDE = "outside the mesh"
Pair = tuple[tuple[str, str], str]  # a workload, and the host that it calls
_CATCH_ALL = ("PassthroughCluster", "BlackHoleCluster", "InboundPassthroughCluster")


class Node(NamedTuple):
    kind: str
    name: str
    namespace: str
    app: str = ""
    version: str = ""

    @property
    def id(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}" if self.kind != "external" else f"external/{self.name}"

    def shown(self) -> dict[str, str]:
        return {"id": self.id, **self._asdict()}


def hops(call: Call) -> list[tuple[Node, Node]]:
    """The edges that one kind of call stands for: to the service, and on to the workload."""
    source = _workload(call.source, call.source_app, call.source_version)
    target = _workload(call.target, call.target_app, call.target_version) if call.target[1] else None
    service = _service(call)
    if service is None:
        return [(source, target)] if target is not None else []
    if target is None or not call.arrived:
        return [(source, service)]
    return [(source, service), (service, target)]


def _workload(who: tuple[str, str], app: str, version: str) -> Node:
    return Node("workload", who[1], who[0], app, version) if who[1] else Node("external", OUTSIDE, "")


def _service(call: Call) -> Node | None:
    namespace, name = call.service
    if name and name not in _CATCH_ALL and namespace:
        return Node("service", name, namespace)
    if call.target[1] and call.reporter == "destination":
        return None
    host = call.host or name
    return Node("external", host, "") if host else None


def graph(samples: Iterable[Sample], states: Iterable[State], at: float, window: float, namespace: str = "") -> dict[str, Any]:
    """``namespace``: only edges that begin or end there."""
    edges: dict[tuple[str, str], _Edge] = {}
    nodes: dict[str, Node] = {}
    for call, totals in once(samples):
        for begin, end in hops(call):
            if namespace and namespace not in (begin.namespace, end.namespace):
                continue
            for node in (begin, end):
                known = nodes.get(node.id)
                if known is None or (node.version and not known.version):
                    nodes[node.id] = node
            edge = edges.setdefault((begin.id, end.id), _Edge())
            edge.add(call, totals)
            if begin.id == f"workload/{call.source[0]}/{call.source[1]}":  # what goes on from a service nobody ejected
                edge.pairs.add((call.source, call.host))
    trouble: dict[Pair, dict[str, int]] = {}
    for state in states:
        host = state.cluster.rpartition("|")[2]
        found = trouble.setdefault((state.source, host), {})
        found[state.what] = found.get(state.what, 0) + state.number
    return {
        "at": at,
        "window": window,
        "nodes": [nodes[key].shown() for key in sorted(nodes)],
        "edges": [{"from": key[0], "to": key[1], **edges[key].shown(window, trouble)} for key in sorted(edges)],
    }


def callers(samples: Iterable[Sample], window: float, node: str) -> list[dict[str, Any]]:
    """Who calls ``node``, by workload also where a service stands between."""
    edges: dict[str, _Edge] = {}
    for call, totals in once(samples):
        path = hops(call)
        if any(end.id == node for _, end in path):
            edges.setdefault(path[0][0].id, _Edge()).add(call, totals)
    return [{"from": source, "to": node, **edges[source].shown(window, {})} for source in sorted(edges)]


class _Edge:
    __slots__ = ("pairs", "plain", "protocols", "secured", "totals")

    def __init__(self) -> None:
        self.totals = Totals()
        self.secured = self.plain = 0.0
        self.protocols: dict[str, float] = {}
        self.pairs: set[Pair] = set()  # whose troubles are this edge's

    def add(self, call: Call, totals: Totals) -> None:
        self.totals.add(totals)
        self.protocols[call.protocol] = self.protocols.get(call.protocol, 0.0) + totals.requests
        if call.mtls is True:
            self.secured += totals.requests
        elif call.mtls is False:
            self.plain += totals.requests

    def shown(self, window: float, trouble: dict[Pair, dict[str, int]]) -> dict[str, Any]:
        found = [trouble[pair] for pair in self.pairs if pair in trouble]
        return {
            **signals(self.totals, window),
            # one call in plaintext is no lock
            "mtls": False if self.plain else True if self.secured else None,
            "mtlsShare": self.secured / (self.secured + self.plain) if self.secured + self.plain else None,
            "protocol": max(sorted(self.protocols), key=lambda name: self.protocols[name]) if self.protocols else "",
            "breaker": any(row.get(what) for row in found for what in ("overflow", "connections")),
            "ejected": sum(row.get("ejected", 0) for row in found),
            "bytesIn": self.totals.received,
            "bytesOut": self.totals.sent,
        }


def signals(totals: Totals, window: float) -> dict[str, Any]:
    """The golden signals of some calls."""
    return {
        "requests": totals.requests,
        "rps": totals.requests / window if window else 0.0,
        "errors": totals.errors,
        "errorShare": totals.errors / totals.requests if totals.requests else 0.0,
        "p50": totals.quantile(0.50),
        "p95": totals.quantile(0.95),
        "p99": totals.quantile(0.99),
    }


def matcher(node: str, edge: tuple[str, str] | None, direction: str) -> Callable[[Call], bool]:
    """Which calls a series is of: those through an edge, or into (``inbound``) or out of (``outbound``) a node."""

    def of_edge(call: Call) -> bool:
        return any((begin.id, end.id) == edge for begin, end in hops(call))

    def of_node(call: Call) -> bool:
        return any((begin if direction == "outbound" else end).id == node for begin, end in hops(call))

    return of_edge if edge is not None else of_node


def series(pieces: Sequence[Iterable[Sample]], wanted: Callable[[Call], bool], start: float, step: float) -> dict[str, Any]:
    """One value per piece. ``times``: the end of each piece, as Prometheus' range queries name them."""
    totals: list[Totals] = []
    codes: dict[str, list[float]] = {}
    told = set().union(*map(told_by_destination, pieces))
    for index, piece in enumerate(pieces):
        whole = Totals()
        for call, counted in once(piece, told):
            if wanted(call):
                whole.add(counted)
                codes.setdefault(call.code or "0", [0.0] * len(pieces))[index] += counted.requests / step
        totals.append(whole)
    return {
        "step": step,
        "times": [start + (index + 1) * step for index in range(len(pieces))],
        "rps": [one.requests / step for one in totals],
        "errors": [one.errors / step for one in totals],
        "p50": [one.quantile(0.50) for one in totals],
        "p95": [one.quantile(0.95) for one in totals],
        "p99": [one.quantile(0.99) for one in totals],
        "codes": {code: codes[code] for code in sorted(codes)},
    }
