"""What the tests of policy, filters and snapshots share: heads, records, clusters and an exchange, all small and honest."""

from __future__ import annotations

from typing import Any

from meshproxy.message.head import RequestHead
from meshproxy.message.record import ExchangeRecord
from meshproxy.model.cluster import Cluster
from meshproxy.model.match import RouteMatch, StringMatch
from meshproxy.model.route import Forward, Route, RouteConfig, VirtualHost, WeightedCluster


class FakeCluster:
    """Enough of a ClusterPort for routes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.config = Cluster(name=name)
        self.limits: Any = None

    def pick(self, *args: Any) -> Any:
        raise NotImplementedError

    def report(self, *args: Any) -> None:
        raise NotImplementedError


CLUSTERS = {name: FakeCluster(name) for name in "abcdefgh"}


def get(path: str = "/", authority: str = "rating:8080", method: str = "GET", scheme: str = "", **headers: str) -> RequestHead:
    """A head; header names are given with underscores for dashes."""
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return RequestHead(method.encode(), path.encode(), authority.encode(), pairs, scheme=scheme.encode())


def record_of(head: RequestHead) -> ExchangeRecord:
    record = ExchangeRecord(None, 1.0, 1_700_000_000.25)
    record.method, record.path, record.authority = head.method, head.target, head.authority
    record.request_headers = head.headers
    return record


def exact(value: str) -> StringMatch:
    return StringMatch(kind="exact", value=value)


def prefix(value: str) -> StringMatch:
    return StringMatch(kind="prefix", value=value)


def regex(value: str) -> StringMatch:
    return StringMatch(kind="regex", value=value)


def to(*clusters: str, **more: Any) -> Forward:
    """A forward; ``"a=75"`` gives a weight."""
    parts = [name.partition("=") for name in clusters]
    return Forward(clusters=tuple(WeightedCluster(cluster=name, weight=int(weight or 1)) for name, _, weight in parts), **more)


def rule(cluster: str, match: RouteMatch | None = None, name: str = "", **more: Any) -> Route:
    return Route(name=name or cluster, match=match or RouteMatch(), action=to(cluster), **more)


def config(*hosts: VirtualHost, name: str = "8080") -> RouteConfig:
    return RouteConfig(name=name, virtual_hosts=hosts)


def host(*routes: Route, domains: tuple[str, ...] = ("*",), name: str = "") -> VirtualHost:
    return VirtualHost(name=name or domains[0], domains=domains, routes=routes)


class FakeExchange:
    """An exchange as filters see it. ``draws``: what the dice say, in order (then 0.5)."""

    def __init__(self, listener: Any, request: RequestHead, draws: tuple[float, ...] = (), source: str = "10.0.0.9") -> None:
        self.listener = listener
        self.request = request
        self.record = record_of(request)
        self.source = source
        self.choice: Any = None
        self.compiled: Any = None
        self.asked = 0
        self.secured: Any = None
        self.own: Any = None
        self._draws = list(draws)
        self._known = False
        self._route: Any = None

    cors_origin: bytes
    __slots__ = ("_draws", "_known", "_route", "asked", "choice", "compiled", "cors_origin", "listener")
    __slots__ += ("own", "record", "request", "secured", "source")

    @property
    def dice(self) -> Any:
        return lambda: self._draws.pop(0) if self._draws else 0.5

    def route(self) -> Any:
        if not self._known:
            self._known = True
            self.asked += 1
            self._route = self.listener.choose(self.request)
        return self._route

    def clear_route(self) -> None:
        self._known = False
