"""Model -> compiled snapshot: the proxy's side of the configuration. Whole or not at all; what did not change is kept.

In: every resource as decoded structs, the snapshot before, and a maker of live clusters. Out: ``Snapshot`` (immutable) or
``Refused``. Assumes structs decoded strictly. A refusal leaves everything as it was: live clusters are told of their new
configuration last, when nothing can fail any more. The order of filters is ``walk.py``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from meshproxy.compiled import NO_ROUTES, CompiledListener, PeerOf, Tunnels, compile_chains
from meshproxy.filters.authz import authz_filter
from meshproxy.filters.ext_authz import ext_authz_filter, ext_authz_response
from meshproxy.model.base import Model
from meshproxy.model.cluster import Cluster, Endpoint, Endpoints, LoadBalancer, Workload
from meshproxy.model.delivery import Kind
from meshproxy.model.listener import Listener
from meshproxy.model.route import RouteConfig
from meshproxy.model.security import ExtAuthz, Security, Trust
from meshproxy.model.telemetry import Telemetry
from meshproxy.policy.compiled import PASSTHROUGH, CompiledRoute, allow_any, block_all
from meshproxy.policy.context import CompiledTracing, compile_tracing
from meshproxy.policy.invalid import Invalid
from meshproxy.policy.jwt import Verifier
from meshproxy.policy.rbac import CompiledPolicy, Custom, Judge, admitter, compile_policies
from meshproxy.policy.rbac_match import address_of
from meshproxy.policy.routes import PortTables, RouteTable
from meshproxy.policy.server_names import ServerNames
from meshproxy.policy.tcp_routes import TcpRoutes
from meshproxy.tls.vault import Vault
from meshproxy.walk import Guard, ServerOf, Stage

__all__ = ["CompiledListener", "MakeCluster", "Refused", "Resources", "Snapshot", "compile_snapshot", "trust_of"]

IDLE = 3600.0  # seconds without a byte, of what a gateway takes out of TLS (Envoy's default)
Resources = Mapping[str, Mapping[str, Model]]  # kind -> name -> struct
# The live cluster for a configuration. Given the old one it must update that in place and return it: connections and outlier
# state live there. It may raise ValueError only when there is no old one.
MakeCluster = Callable[[Cluster, tuple[Endpoint, ...], Any], Any]


class Refused(Exception):
    """A resource that cannot be obeyed. ``kind`` and ``name`` of the resource; one line, starting with the field's path."""

    def __init__(self, kind: Kind, name: str, message: str) -> None:
        super().__init__(f"{kind} {name}: {message}")
        self.kind = kind
        self.name = name
        self.message = message


class Snapshot:
    """What the proxy runs. Never changed; a request keeps the one that was in force when its head arrived."""

    __slots__ = ("_peers", "clusters", "endpoints", "guard", "listeners", "resources", "tables", "version")

    def __init__(
        self,
        version: str,
        resources: Resources,
        clusters: Mapping[str, Any],
        endpoints: Mapping[str, tuple[Endpoint, ...]],
        tables: Mapping[str, RouteTable],
        peers: Peers,
        guard: Guard,
    ) -> None:
        self.version = version
        self.resources = resources
        self.clusters = clusters
        self.endpoints = endpoints
        self.tables = tables
        self.guard = guard
        self.listeners: Mapping[str, CompiledListener] = {}
        self._peers = peers

    def peer(self, address: str) -> Workload | None:
        """The workload behind an IP address, from every endpoint known; None: not one of ours."""
        return self._peers.find(address)


class Peers:
    """Workloads by address, built at the first question and kept while no endpoint changes."""

    __slots__ = ("_by_address", "_endpoints")

    def __init__(self, endpoints: Mapping[str, tuple[Endpoint, ...]]) -> None:
        self._endpoints = endpoints
        self._by_address: dict[str, Workload] | None = None

    def find(self, address: str) -> Workload | None:
        known = self._by_address
        if known is None:
            known = self._by_address = {
                endpoint.address: endpoint.workload
                for group in self._endpoints.values()
                for endpoint in group
                if endpoint.workload is not None
            }
        return known.get(address)


def compile_snapshot(resources: Resources, previous: Snapshot | None, make_cluster: MakeCluster, version: str = "") -> Snapshot:
    """Compile everything that differs from ``previous``; raise ``Refused`` and change nothing if any of it cannot be obeyed."""
    _check_trust(trust_of(resources), trust_of(previous.resources) if previous is not None else None)
    listeners = cast("Mapping[str, Listener]", resources.get("listener", {}))
    models = dict(cast("Mapping[str, Cluster]", resources.get("cluster", {})))
    if PASSTHROUGH not in models and any(
        listener.direction == "outbound" and listener.default_policy == "ALLOW_ANY" for listener in listeners.values()
    ):
        models[PASSTHROUGH] = _PASSTHROUGH
    groups = cast("Mapping[str, Endpoints]", resources.get("endpoints", {}))
    endpoints, changed = _endpoints(models, groups, previous)
    clusters, updates = _clusters(models, endpoints, changed, previous, make_cluster)
    tables = _tables(cast("Mapping[str, RouteConfig]", resources.get("route", {})), clusters, previous)
    peers = previous._peers if previous is not None and not changed else Peers(endpoints)
    guard = _guard(resources, clusters, previous)
    snapshot = Snapshot(version, resources, clusters, endpoints, tables, peers, guard)
    before = previous.listeners if previous is not None else {}
    snapshot.listeners = _listeners(listeners, tables, clusters, snapshot.peer, guard, before)
    for update in updates:
        update()
    return snapshot


def trust_of(resources: Resources) -> Trust | None:
    """Whom the mesh believes; None: nobody has said."""
    return cast("Trust | None", resources.get("trust", {}).get("mesh"))


def _check_trust(trust: Trust | None, before: Trust | None) -> None:  # a credential's fault is its own connections' loss
    if trust is not None and trust != before and (why := Vault.check(trust)):
        raise Refused("trust", trust.name, f"{why} - at `$.roots`")


_PASSTHROUGH = Cluster(name=PASSTHROUGH, type="PASSTHROUGH", lb=LoadBalancer(policy="PASSTHROUGH"))


def _endpoints(
    models: Mapping[str, Cluster], groups: Mapping[str, Endpoints], previous: Snapshot | None
) -> tuple[dict[str, tuple[Endpoint, ...]], set[str]]:
    """Endpoints per cluster, and the names of the clusters whose endpoints changed (or which came or went)."""
    before: Mapping[str, tuple[Endpoint, ...]] = previous.endpoints if previous is not None else {}
    found: dict[str, tuple[Endpoint, ...]] = {}
    changed: set[str] = set(before).symmetric_difference(models) if before.keys() != models.keys() else set()
    for name in models:
        group = groups.get(name)
        new = group.endpoints if group is not None else ()
        old = before.get(name)
        if old is not None and (old is new or old == new):
            found[name] = old  # the same tuple goes on, so that next time "is" is enough
            continue
        for index, endpoint in enumerate(new):
            if not 0 < endpoint.port < 65536:
                raise Refused("endpoints", name, f"endpoints[{index}].port: must be between 1 and 65535, not {endpoint.port}")
            if not endpoint.address:
                raise Refused("endpoints", name, f"endpoints[{index}].address: must not be empty")
        found[name] = new
        changed.add(name)
    return found, changed


def _clusters(
    models: Mapping[str, Cluster],
    endpoints: Mapping[str, tuple[Endpoint, ...]],
    changed: set[str],
    previous: Snapshot | None,
    make_cluster: MakeCluster,
) -> tuple[dict[str, Any], list[Callable[[], None]]]:
    """Live clusters by name, new ones made already; and the updates of the old ones, to be done last."""
    live: Mapping[str, Any] = previous.clusters if previous is not None else {}
    before = cast("Mapping[str, Cluster]", previous.resources.get("cluster", {})) if previous is not None else {}
    clusters: dict[str, Any] = {}
    updates: list[Callable[[], None]] = []
    for name, model in models.items():
        if model.bind and address_of(model.bind) is None:
            raise Refused("cluster", name, f"bind: must be an IP address, not {model.bind!r}")
        old = live.get(name)
        if old is None:
            try:
                clusters[name] = make_cluster(model, endpoints[name], None)
            except ValueError as error:
                raise Refused("cluster", name, str(error)) from None
            continue
        clusters[name] = old
        was = before.get(name, _PASSTHROUGH)
        if name in changed or (was is not model and was != model):
            updates.append(_updater(make_cluster, model, endpoints[name], old))
    return clusters, updates


def _updater(make_cluster: MakeCluster, model: Cluster, group: tuple[Endpoint, ...], old: Any) -> Callable[[], None]:
    def update() -> None:
        if make_cluster(model, group, old) is not old:
            raise RuntimeError(f"cluster {model.name}: an update must keep the live cluster")

    return update


def _tables(configs: Mapping[str, RouteConfig], clusters: Mapping[str, Any], previous: Snapshot | None) -> dict[str, RouteTable]:
    before: Mapping[str, RouteTable] = previous.tables if previous is not None else {}
    live: Mapping[str, Any] = previous.clusters if previous is not None else {}
    moved = frozenset(live.keys() ^ clusters.keys())
    tables: dict[str, RouteTable] = {}
    for name, config in configs.items():
        old = before.get(name)
        if old is not None and old.clusters.isdisjoint(moved) and (old.config is config or old.config == config):
            tables[name] = old
            continue
        try:
            tables[name] = RouteTable(config, clusters.get, old, moved)
        except Invalid as error:
            raise Refused("route", name, str(error)) from None
    return tables


def _guard(resources: Resources, clusters: Mapping[str, Any], previous: Snapshot | None) -> Guard:
    """The workload's policies. What did not change goes on, and with it the tokens that were verified already."""
    model = cast("Security | None", resources.get("security", {}).get("workload"))
    tracing = _compiled_tracing(resources)
    if model is None:
        return Guard(tracing=tracing)
    verifier = previous.guard.verifier if previous is not None else None
    if not model.jwt:
        verifier = None
    elif verifier is None or verifier.models != model.jwt:
        try:
            verifier = Verifier(model.jwt)
        except Invalid as error:
            raise Refused("security", model.name, str(error)) from None
    policies = _policies(model, resources, previous)
    listeners = cast("Mapping[str, Listener]", resources.get("listener", {}))
    admit = None
    if policies and any(one.chains and one.direction != "outbound" for one in listeners.values()):
        admit = admitter(compile_policies(model.policies, trust_of(resources) or _UNTOLD, for_bytes=True))
    judge = Judge(policies)
    authz = Stage(authz_filter(judge)) if judge.policies else None
    vouches = bool(verifier is not None and verifier.places.written) or any(
        provider.headers_to_upstream_on_allow for provider in model.ext_authz
    )
    return Guard(verifier, policies, _ext_authz(model, policies, clusters), authz, vouches, tracing, admit)


def _compiled_tracing(resources: Resources) -> tuple[CompiledTracing, ...]:
    model = cast("Telemetry | None", resources.get("telemetry", {}).get("workload"))
    if model is None:
        return ()
    try:
        return tuple(compile_tracing(one, f"tracing[{index}]") for index, one in enumerate(model.tracing))
    except Invalid as error:
        raise Refused("telemetry", model.name, str(error)) from None


def _policies(model: Security, resources: Resources, previous: Snapshot | None) -> tuple[CompiledPolicy, ...]:
    """The AuthorizationPolicies; those of ``previous`` where neither they nor the trust domain have changed."""
    trust = trust_of(resources) or _UNTOLD
    if previous is not None:
        old = cast("Security | None", previous.resources.get("security", {}).get("workload"))
        before = trust_of(previous.resources) or _UNTOLD
        same = (before.domain, before.aliases) == (trust.domain, trust.aliases)
        if same and old is not None and old.policies == model.policies:
            return previous.guard.policies
    return compile_policies(model.policies, trust)


_UNTOLD = Trust()


def _ext_authz(model: Security, policies: tuple[CompiledPolicy, ...], clusters: Mapping[str, Any]) -> tuple[Stage, ...]:
    """A filter for each provider that CUSTOM policies name, known here or not."""
    known: dict[str, ExtAuthz] = {provider.name: provider for provider in model.ext_authz}
    stages: list[Stage] = []
    for name in sorted({policy.provider for policy in policies if policy.action == "CUSTOM"}):
        provider = known.get(name)
        custom = Custom(name, policies, provider is not None)
        cluster = clusters.get(provider.cluster) if provider is not None else None
        hook = ext_authz_response if provider is not None and provider.headers_to_downstream_on_allow else None
        stages.append(Stage(ext_authz_filter(custom, provider, cluster), hook))
    return tuple(stages)


def _listeners(
    models: Mapping[str, Listener],
    tables: Mapping[str, RouteTable],
    clusters: Mapping[str, Any],
    peer: PeerOf,
    guard: Guard,
    before: Mapping[str, CompiledListener],
) -> dict[str, CompiledListener]:
    listeners: dict[str, CompiledListener] = {}
    sockets: dict[tuple[str, int], str] = {}
    for name, model in models.items():
        if not 0 <= model.port < 65536:
            raise Refused("listener", name, f"port: must be between 0 and 65535, not {model.port}")
        if model.port:
            other = sockets.setdefault((model.bind, model.port), name)
            if other != name:
                raise Refused("listener", name, f"port: {model.port} is taken by listener {other}")
        server_of = ServerNames(model.tls).choose  # one for all its servers: there may be hundreds
        judge = _judge(model, tables, clusters)
        listeners[name] = listener = CompiledListener(model, judge, peer, guard, server_of)
        if model.chains:
            _intercept(listener, judge, tables, clusters, peer, guard, server_of, before.get(name))
        if model.tls:
            listener.served = {
                server.route: _served(model, index, tables, clusters, peer, guard, server_of)
                for index, server in enumerate(model.tls)
            }
    return listeners


def _intercept(
    listener: CompiledListener,
    judge: RouteTable | PortTables,
    tables: Mapping[str, RouteTable],
    clusters: Mapping[str, Any],
    peer: PeerOf,
    guard: Guard,
    server_of: ServerOf,
    before: CompiledListener | None,
) -> None:
    model = listener.model
    try:
        fallback = _fallback(model, clusters)
        chains = listener.chains = compile_chains(model, tables, clusters, fallback, peer, guard, server_of, before)
        tunnels = Tunnels(model.chains, chains.by_name, judge)
    except Invalid as error:
        raise Refused("listener", model.name, str(error)) from None
    if model.direction == "outbound" and tunnels:
        listener.choose = tunnels.choose


def _fallback(model: Listener, clusters: Mapping[str, Any]) -> CompiledRoute:
    return allow_any(clusters.get(PASSTHROUGH)) if model.default_policy == "ALLOW_ANY" else block_all()


def _served(
    model: Listener,
    index: int,
    tables: Mapping[str, RouteTable],
    clusters: Mapping[str, Any],
    peer: PeerOf,
    guard: Guard,
    server_of: ServerOf,
) -> CompiledListener:
    """What one of a gateway's TLS servers judges by."""
    server = model.tls[index]
    if not server.tcp:
        return CompiledListener(model, _server_table(model, index, tables), peer, guard, server_of)
    if not model.chains:
        raise Refused("listener", model.name, f"tls[{index}].tcp: needs a listener with chains")
    try:
        streams = TcpRoutes(server.tcp, clusters.get, f"tls[{index}]")
    except Invalid as error:
        raise Refused("listener", model.name, str(error)) from None
    return CompiledListener(model, NO_ROUTES, peer, guard, server_of, streams, "TCP", IDLE)


def _server_table(model: Listener, index: int, tables: Mapping[str, RouteTable]) -> RouteTable:
    """The table of one of a gateway's TLS servers."""
    if model.tls[index].tcp:
        return NO_ROUTES
    route = model.tls[index].route
    if route not in tables:
        raise Refused("listener", model.name, f'tls[{index}].route: there is no route configuration "{route}"')
    return tables[route]


def _judge(model: Listener, tables: Mapping[str, RouteTable], clusters: Mapping[str, Any]) -> RouteTable | PortTables:
    """The table of a listener, or its tables by port."""
    if model.direction == "gateway" and model.tls:
        return _server_table(model, 0, tables)
    if model.direction != "outbound":
        if model.chains and not model.route:
            return NO_ROUTES
        if model.route not in tables:
            raise Refused("listener", model.name, f'route: there is no route configuration "{model.route}"')
        return tables[model.route]
    by_port: dict[int, RouteTable] = {}
    for index, port in enumerate(model.route_ports):
        if str(port) not in tables:
            raise Refused("listener", model.name, f'route_ports[{index}]: there is no route configuration "{port}"')
        by_port[port] = tables[str(port)]
    return PortTables(by_port, _fallback(model, clusters))
