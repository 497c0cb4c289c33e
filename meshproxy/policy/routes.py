"""Room: policy. Which route a request takes: virtual host by name, then the first route whose conditions hold.

In: ``model.route.RouteConfig`` and a resolver from cluster names to live clusters. Out: ``RouteTable.choose`` (one
configuration) and ``PortTables.choose`` (outbound: the authority's port selects the table), both -> ``CompiledRoute`` or None
(404, NR); ``explain`` gives the same decision with every step in words. Assumes the path is normalised already. Tables never
change; a new configuration compiles new ones and takes over the virtual hosts that are equal. Semantics: A1, B8.4, B9.6;
Envoy's RouteMatcher.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from meshproxy.message.head import RequestHead
from meshproxy.message.ports import ClusterPort
from meshproxy.model.route import RouteConfig, VirtualHost
from meshproxy.policy.compiled import CompiledRoute, Resolve, compile_route
from meshproxy.policy.invalid import Invalid
from meshproxy.policy.matchers import Condition, Predicate, split_target

__all__ = ["OneTable", "PortTables", "RouteTable", "Step", "bare_host", "port_of"]

# Hosts seen are remembered so that a usual request costs one dict lookup. Clients choose the keys, hence the bounds.
_MEMO_ENTRIES = 1024
_MEMO_KEY = 256


class Step(NamedTuple):
    """One thing that was looked at. ``reason`` says why it was taken, or the first condition that did not hold."""

    what: Literal["listener", "virtual host", "route", "token"]
    name: str
    source: str
    taken: bool
    reason: str


def _split_port(authority: bytes) -> tuple[bytes, bytes]:
    host, colon, port = authority.rpartition(b":")
    # A colon belongs to a port unless it stands inside an IPv6 address ("::1", "[::1]").
    if colon and (not port or port.isdigit()) and (b":" not in host or host.endswith(b"]")):
        return host, port
    return authority, b""


def bare_host(authority: bytes) -> bytes:
    """The host for matching: lower case, without port and without an IPv6 address's brackets."""
    host = _split_port(authority)[0].lower()
    return host[1:-1] if host.startswith(b"[") and host.endswith(b"]") else host


def port_of(authority: bytes, default: int) -> int:
    """The authority's port; ``default`` where it names none; 0 (which no table has) where it is out of range."""
    port = _split_port(authority)[1]
    if not port:
        return default
    return int(port) if len(port) <= 5 else 0


class _Host:
    """A compiled virtual host. ``only`` is the first route when nothing can come before it: the usual case, no loop."""

    __slots__ = ("clusters", "conditions", "model", "name", "only", "rules")

    def __init__(self, model: VirtualHost, resolve: Resolve, path: str) -> None:
        self.model = model
        self.name = model.name
        rules: list[tuple[Predicate | None, CompiledRoute]] = []
        conditions: list[tuple[Condition, ...]] = []
        clusters: set[str] = set()
        for index, route in enumerate(model.routes):
            holds, parts, compiled = compile_route(route, resolve, f"{path}.routes[{index}]")
            rules.append((holds, compiled))
            conditions.append(parts)
            clusters.update(compiled.cluster_names())
        self.rules = tuple(rules)
        self.conditions = tuple(conditions)
        self.clusters = frozenset(clusters)
        self.only = rules[0][1] if rules and rules[0][0] is None else None


def _lone(route: CompiledRoute) -> _Host:
    """A virtual host that answers everything by one prepared route."""
    host = _Host(VirtualHost(name=route.name, domains=("*",), routes=()), lambda _: None, "")
    host.only = route
    return host


def _first_match(host: _Host, request: RequestHead) -> CompiledRoute | None:
    path, query = split_target(request.target)
    for holds, route in host.rules:
        if holds is None or holds(request, path, query):
            return route
    return None


class RouteTable:
    """One route configuration, compiled. Raises ``Invalid`` with the path of the first field that cannot be obeyed.

    ``previous``: the table before; its virtual hosts are taken over where they are equal and none of the clusters that they name
    is in ``moved`` (the names that appeared or disappeared since).
    """

    __slots__ = (
        "_exact",
        "_hosts",
        "_memo",
        "_suffixes",
        "_wildcard",
        "clusters",
        "config",
        "has_cors",
        "has_fault",
        "has_response_ops",
        "name",
        "routes",
    )

    _hosts: tuple[_Host, ...]

    def __init__(
        self,
        config: RouteConfig,
        resolve: Callable[[str], ClusterPort | None],
        previous: RouteTable | None = None,
        moved: frozenset[str] = frozenset(),
    ) -> None:
        self.config = config
        self.name = config.name
        self._exact: dict[bytes, _Host] = {}
        suffixes: dict[bytes, _Host] = {}
        self._wildcard: _Host | None = None
        self._memo: dict[bytes, _Host] = {}
        old = {host.name: host for host in previous._hosts} if previous is not None else {}
        hosts: list[_Host] = []
        owner: dict[str, str] = {}
        for index, model in enumerate(config.virtual_hosts):
            path = f"virtual_hosts[{index}]"
            known = old.get(model.name)
            if known is not None and known.model == model and known.clusters.isdisjoint(moved):
                host = known
            else:
                host = _Host(model, resolve, path)
            hosts.append(host)
            for at, domain in enumerate(model.domains):
                self._place(host, domain, suffixes, owner, f"{path}.domains[{at}]")
        self._hosts = tuple(hosts)
        # Longest suffix first (B9.6).
        self._suffixes = tuple(sorted(suffixes.items(), key=lambda item: -len(item[0])))
        self.clusters = frozenset().union(*(host.clusters for host in hosts))
        self.routes = tuple(route for host in hosts for _, route in host.rules)
        self.has_cors = any(route.cors is not None for route in self.routes)
        self.has_fault = any(route.fault is not None for route in self.routes)
        self.has_response_ops = any(choice.response_ops is not None for route in self.routes for choice in route.choices)

    def _place(self, host: _Host, domain: str, suffixes: dict[bytes, _Host], owner: dict[str, str], path: str) -> None:
        name = domain.lower()
        if name in owner:
            raise Invalid(path, f'duplicate domain "{domain}": virtual host "{owner[name]}" has it already')
        owner[name] = host.name
        key = name.encode()
        if name == "*":
            self._wildcard = host
        elif name.startswith("*") and "*" not in name[1:]:
            suffixes[key[1:]] = host
        elif not name or "*" in name:
            raise Invalid(path, f'bad domain "{domain}": use a host name, "*.suffix" or "*"')
        elif bare_host(key) != key.strip(b"[]"):
            raise Invalid(path, f'domain "{domain}" names a port: leave it out, ports are ignored when hosts are matched')
        else:
            self._exact[bare_host(key)] = host

    def find(self, host: bytes) -> _Host | None:
        """The virtual host for a bare host: exact, then the longest suffix, then ``*``."""
        found = self._exact.get(host)
        if found is None:
            for suffix, candidate in self._suffixes:
                if len(host) > len(suffix) and host.endswith(suffix):
                    return candidate
            return self._wildcard
        return found

    def choose(self, request: RequestHead) -> CompiledRoute | None:
        """The route for a request, or None (404, NR)."""
        authority = request.authority
        host = self._memo.get(authority)
        if host is None:
            host = self.find(bare_host(authority))
            if host is None:
                return None
            if len(authority) <= _MEMO_KEY:
                if len(self._memo) >= _MEMO_ENTRIES:
                    self._memo.clear()
                self._memo[authority] = host
        only = host.only
        return only if only is not None else _first_match(host, request)

    def explain(self, request: RequestHead) -> list[Step]:
        """Every virtual host that lost, the one that won and its routes up to the one taken, with reasons."""
        wanted = bare_host(request.authority)
        won = self.find(wanted)
        shown = wanted.decode("utf-8", "backslashreplace")
        steps = [
            Step("virtual host", host.name, "", False, f'its hosts ({_few(host.model.domains)}) do not include "{shown}"')
            for host in self._hosts
            if host is not won and not _covers(host, wanted)
        ]
        steps += [
            Step("virtual host", host.name, "", False, f'another virtual host matches "{shown}" more closely')
            for host in self._hosts
            if host is not won and _covers(host, wanted)
        ]
        if won is None:
            return steps
        steps.append(Step("virtual host", won.name, "", True, f'"{shown}" is among its hosts'))
        path, query = split_target(request.target)
        taken = False
        for (_, route), conditions in zip(won.rules, won.conditions, strict=True):
            name, source = route.name, route.model.source
            if taken:
                steps.append(Step("route", name, source, False, "a route before it matched"))
                continue
            failed = next((part for part in conditions if not part.holds(request, path, query)), None)
            if failed is not None:
                reason = f"{failed.words}: it is {failed.actual(request, path, query)}"
                steps.append(Step("route", name, source, False, reason))
                continue
            taken = True
            words = " and ".join(part.words for part in conditions) or "it has no conditions"
            steps.append(Step("route", name, source, True, words))
        return steps


def _few(domains: tuple[str, ...]) -> str:
    return ", ".join(domains[:4]) + (f" and {len(domains) - 4} more" if len(domains) > 4 else "")


def _covers(host: _Host, wanted: bytes) -> bool:
    name = wanted.decode("utf-8", "replace")
    return any(
        domain == "*" or (domain.startswith("*") and name.endswith(domain[1:].lower()) and len(name) >= len(domain))
        for domain in host.model.domains
    )


class PortTables:
    """Outbound: the table named by the authority's port (http 80, https 443 when it names none), else ``fallback``.

    ``fallback`` (allow_any or block_all) also answers for a host that the port's table does not know.
    """

    __slots__ = ("_fallback", "_memo", "fallback", "tables")

    def __init__(self, tables: Mapping[int, RouteTable], fallback: CompiledRoute) -> None:
        self.tables = dict(tables)
        self.fallback = fallback
        self._fallback = _lone(fallback)
        self._memo: dict[bytes, _Host] = {}

    def table(self, request: RequestHead) -> RouteTable | None:
        """The table that judges a request, or None: no table has its port."""
        return self.tables.get(self.asked_port(request))

    def asked_port(self, request: RequestHead) -> int:
        return port_of(request.authority, 443 if request.scheme == b"https" else 80)

    def choose(self, request: RequestHead) -> CompiledRoute | None:
        """The route for a request; None: its host is known but none of the host's routes match (404, NR)."""
        authority = request.authority
        # An https request line has another default port, so it must not share the memo. (benchmarks/micro_policy.py "choose")
        host = self._memo.get(authority) if request.scheme != b"https" else None
        if host is None:
            table = self.table(request)
            host = (table.find(bare_host(authority)) if table is not None else None) or self._fallback
            if len(authority) <= _MEMO_KEY and request.scheme != b"https":
                if len(self._memo) >= _MEMO_ENTRIES:
                    self._memo.clear()
                self._memo[authority] = host
        only = host.only
        return only if only is not None else _first_match(host, request)

    def explain(self, request: RequestHead) -> list[Step]:
        """The same decision in steps."""
        port = self.asked_port(request)
        table = self.table(request)
        if table is None:
            steps = [Step("listener", "outbound", "", False, f"no routes are known for port {port}")]
        else:
            steps = table.explain(request)
            if any(step.taken for step in steps):
                return steps
        reason = f"the host is not known on port {port}: the outbound traffic policy decides"
        return [*steps, Step("route", self.fallback.name, self.fallback.model.source, True, reason)]


class OneTable(PortTables):
    """Outbound, intercepted: the connection's own port has chosen the table, whatever port the authority names."""

    __slots__ = ("_port", "_table")

    def __init__(self, table: RouteTable, port: int, fallback: CompiledRoute) -> None:
        super().__init__({port: table}, fallback)
        self._port = port
        self._table = table

    def table(self, request: RequestHead) -> RouteTable | None:
        return self._table

    def asked_port(self, request: RequestHead) -> int:
        return self._port
