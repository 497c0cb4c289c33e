"""A listener, and each chain of one, compiled: all that its connections and requests are judged by. Quiet.

In: ``model.listener.Listener``, route tables and clusters that are compiled already, the workload's policies. Out:
``CompiledListener``. Raises ``Invalid`` with the field's path; never changed afterwards. ``apply`` calls this; the walk's order
is ``walk.py``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from meshproxy.filters.chain import Chain, Hook
from meshproxy.message.head import RequestHead
from meshproxy.model import tcp
from meshproxy.model.cluster import Workload
from meshproxy.model.listener import Listener
from meshproxy.model.route import Forward, Route, RouteConfig
from meshproxy.policy.chains import ChainIndex
from meshproxy.policy.compiled import FORWARD, Choice, CompiledRoute
from meshproxy.policy.invalid import Invalid
from meshproxy.policy.paths import Normalise, normaliser
from meshproxy.policy.routes import OneTable, PortTables, RouteTable, Step, bare_host, port_of
from meshproxy.policy.server_names import closeness
from meshproxy.policy.tcp_routes import CompiledTcpRoute, TcpRoutes, names
from meshproxy.walk import Guard, ServerOf, walk

__all__ = ["Chains", "CompiledListener", "PeerOf", "Tunnels", "compile_chains", "route_of"]

PeerOf = Callable[[str], Workload | None]
Judge = RouteTable | PortTables


class CompiledListener:
    """A listener and all that its requests are judged by. ``choose(request)`` gives the route or None; ``peer(ip)`` the direct
    peer's workload or None (never on outbound, where the peer is the pod itself). ``response_hooks`` stand in running order.

    ``plain``: no connection need be looked at before it is served. ``server_of(name)``: the gateway's TLS server that a client
    means. ``served``: how the requests of such a server are judged, by the name of its route configuration; the listener itself
    judges as its first server does. ``vouches``: an app believes headers because this proxy writes them.

    ``chains``: of a listener that takes intercepted connections. Each chain is a ``CompiledListener`` of its own, with the
    chain's name, port and TLS mode in its ``model``: ``protocol`` says what it looks for, ``streams`` where bytes go, ``admit``
    what policies say of a connection of bytes (None: there are none). ``intercepted``: its connections were meant for elsewhere.
    """

    __slots__ = (
        "admit",
        "chain",
        "chains",
        "choose",
        "default_policy",
        "direction",
        "explain",
        "idle_timeout",
        "intercepted",
        "model",
        "name",
        "normalise",
        "peer",
        "plain",
        "port",
        "protocol",
        "response_hooks",
        "served",
        "server_of",
        "streams",
        "table",
        "tables_by_port",
        "vouches",
    )

    choose: Callable[[RequestHead], CompiledRoute | None]
    explain: Callable[[RequestHead], list[Step]]

    def __init__(
        self,
        model: Listener,
        judge: Judge,
        peer: PeerOf,
        guard: Guard,
        server_of: ServerOf,
        streams: TcpRoutes | None = None,
        protocol: str = "HTTP",
        idle_timeout: float = 0.0,
    ) -> None:
        """streams: of a chain."""
        self.model = model
        self.name = model.name
        self.direction: str = model.direction
        self.port = model.port
        self.default_policy: str = model.default_policy
        self.table = judge if isinstance(judge, RouteTable) else None
        self.tables_by_port = judge.tables if isinstance(judge, PortTables) else {}
        self.choose = judge.choose
        self.explain = judge.explain
        self.peer = _nobody if model.direction == "outbound" else peer
        self.normalise: Normalise = normaliser(model.path_normalization)
        self.plain = model.mtls == "DISABLE" and not model.tls
        self.server_of = server_of
        self.served: Mapping[str, CompiledListener] = {}
        self.vouches = guard.vouches and model.direction != "outbound"
        self.chains: Chains | None = None
        self.streams = streams
        self.protocol = protocol
        self.idle_timeout = idle_timeout
        self.intercepted = streams is not None
        self.admit = guard.admit if model.direction != "outbound" else None
        tables = tuple(self.tables_by_port.values()) if self.table is None else (self.table,)
        stages = walk(model, tables, guard, server_of, self.intercepted) if protocol != "TCP" else ()
        self.chain: Chain = tuple(stage.filter for stage in stages)
        self.response_hooks: tuple[Hook, ...] = tuple(stage.hook for stage in reversed(stages) if stage.hook is not None)

    def passes_through(self, chain: CompiledListener, sni: str, address: str) -> bool:
        """At a gateway's port with TLS servers: whether TLS for this name goes on as it comes, because one of the chain's routes
        names it more closely than any server that would end it.
        """
        route = chain.streams.choose(sni, address) if chain.streams is not None else None
        if route is None or not route.hosts:
            return False
        server = self.server_of(sni)
        return server is None or closeness(route.hosts, sni) >= closeness(map(str.lower, server.hosts), sni)


def _nobody(address: str) -> Workload | None:
    return None


class Chains:
    """A listener's chains, by destination and by name. ``find(address, port)``: the most specific one, or None. ``models``: what
    they were made of.
    """

    __slots__ = ("by_name", "find", "models")

    def __init__(
        self, index: ChainIndex[CompiledListener], by_name: Mapping[str, CompiledListener], models: tuple[tcp.Chain, ...]
    ) -> None:
        self.find = index.find
        self.by_name = by_name
        self.models = {chain.name: chain for chain in models}


class _Before:
    """An outbound listener's chains of bytes as they were: there may be thousands, and a change is of few."""

    __slots__ = ("_chains",)

    def __init__(self, model: Listener, before: CompiledListener | None) -> None:
        same = (
            before is not None
            and model.direction == "outbound"
            and before.chains is not None
            and replace(before.model, chains=()) == replace(model, chains=())
        )
        self._chains = before.chains if same and before is not None else None

    def find(self, chain: tcp.Chain, clusters: Mapping[str, Any]) -> CompiledListener | None:
        if self._chains is None or self._chains.models.get(chain.name) != chain:
            return None
        known = self._chains.by_name[chain.name]
        if known.protocol != "TCP" or known.streams is None:
            return None
        same = all(clusters.get(name) is live for route in known.streams.routes for name, live, _ in route.choices)
        return known if same else None


def compile_chains(
    model: Listener,
    tables: Mapping[str, RouteTable],
    clusters: Mapping[str, Any],
    fallback: CompiledRoute,
    peer: PeerOf,
    guard: Guard,
    server_of: ServerOf,
    before: CompiledListener | None = None,
) -> Chains:
    """``fallback``: for hosts that an outbound chain's route table does not know. before: this listener until now."""
    old = _Before(model, before)
    by_name: dict[str, CompiledListener] = {}
    rows = []
    for index, chain in enumerate(model.chains):
        path = f"chains[{index}]"
        if chain.name in by_name:
            raise Invalid(path + ".name", f'another chain is called "{chain.name}"')
        known = old.find(chain, clusters)
        if known is not None:
            by_name[chain.name] = known
            if not chain.by_name:
                rows.append((path, chain.port, chain.addresses, known))
            continue
        streams = TcpRoutes(chain.tcp, clusters.get, path)
        protocol = "TCP" if chain.protocol == "AUTO" and not chain.route else chain.protocol
        judge: Judge = NO_ROUTES
        if protocol != "TCP":
            if chain.route not in tables:
                raise Invalid(path + ".route", f'there is no route configuration "{chain.route}"')
            judge = tables[chain.route]
            if model.direction == "outbound":
                judge = OneTable(judge, chain.port, fallback)
        if chain.idle_timeout < 0:
            raise Invalid(path + ".idle_timeout", f"must not be negative, not {chain.idle_timeout}")
        view = replace(
            model,
            name=chain.name,
            port=chain.port,
            route=chain.route,
            mtls=chain.mtls,
            mtls_source=chain.mtls_source,
            tls=(),
            chains=(),
        )
        compiled = CompiledListener(view, judge, peer, guard, server_of, streams, protocol, chain.idle_timeout)
        by_name[chain.name] = compiled
        if not chain.by_name:
            rows.append((path, chain.port, chain.addresses, compiled))
    return Chains(ChainIndex(rows), by_name, model.chains)


NO_ROUTES = RouteTable(RouteConfig(name="", virtual_hosts=()), lambda name: None)


class Tunnels:
    """A forward proxy's CONNECT to a service of bytes: by its chain's names, not by address. Everything else goes on as ever.

    In: chains, and the judge of the listener's other requests. Out: ``choose``, in place of the judge's own.
    """

    __slots__ = ("_exact", "_judge", "_suffixes")

    def __init__(self, chains: tuple[tcp.Chain, ...], compiled: Mapping[str, CompiledListener], judge: Judge) -> None:
        self._judge = judge.choose
        self._exact: dict[tuple[bytes, int], CompiledRoute] = {}
        self._suffixes: list[tuple[Callable[[str], bool], int, CompiledRoute]] = []
        for index, chain in enumerate(chains):
            if not chain.hosts or not chain.port:
                continue
            streams = compiled[chain.name].streams
            chosen = streams.choose("", "") if streams is not None else None
            if chosen is None:
                continue
            route = route_of(chosen, chain.name)
            wild = tuple(host for host in chain.hosts if "*" in host)
            for host in chain.hosts:
                if "*" not in host:
                    self._exact.setdefault((bare_host(host.encode()), chain.port), route)
            if wild:
                self._suffixes.append((names(wild, f"chains[{index}].hosts"), chain.port, route))

    def __bool__(self) -> bool:
        return bool(self._exact or self._suffixes)

    def choose(self, request: RequestHead) -> CompiledRoute | None:
        if request.method == b"CONNECT":
            host, port = bare_host(request.authority), port_of(request.authority, 0)
            found = self._exact.get((host, port))
            if found is not None:
                return found
            text = host.decode("latin-1")
            for named, theirs, route in self._suffixes:
                if theirs == port and named(text):
                    return route
        return self._judge(request)


def route_of(chosen: CompiledTcpRoute, name: str) -> CompiledRoute:
    """A route of bytes as one of requests."""
    action = Forward(clusters=chosen.model.clusters)
    model = Route(name=chosen.name or name, action=action, source=chosen.model.source)
    choices = tuple(Choice(cluster, live, max(weight, 1)) for cluster, live, weight in chosen.choices)
    return CompiledRoute(model, FORWARD, choices, raw=True)
