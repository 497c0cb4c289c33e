"""What the page shows of workloads and services (dashboard): golden signals, mutual TLS, policies, who may call, sync state.

In: the hub's world and the samples of a window. Out: routes ``/api/workloads``, ``/api/services``, ``/api/node``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from control.history.calls import Sample, Totals, once
from control.history.views import callers, graph, hops, signals
from control.resources.security import AuthorizationPolicySpec, Rule
from control.serve.dashboard.guard import problem
from control.serve.dashboard.reading import Calls, guarded, window_of
from control.serve.hub import Hub
from control.translate.inbound import target_port
from control.translate.peers import mtls_mode
from control.world import PodInfo, World
from control.world.endpoints import TLS_MODE_LABEL
from control.world.security import Scoped, in_force
from control.world.services import MeshService

__all__ = ["applied", "routes"]

Ref = dict[str, str]
_ANYBODY = {"summary": "There is no sidecar: whoever reaches it may call, and no policy holds.", "rules": []}
_WORST = ("ERROR", "NOT SENT", "STALE", "SYNCED")


def routes(hub: Hub, calls: Calls) -> list[Route]:
    async def workloads(request: Request) -> Response:
        world, seen = hub.world, await _Seen.lately(calls, request)
        return JSONResponse({"workloads": [] if world is None else [_workload(world, hub, *one, seen) for one in _groups(world)]})

    async def services(request: Request) -> Response:
        world, seen = hub.world, await _Seen.lately(calls, request)
        if world is None:
            return JSONResponse({"services": []})
        found, pods = [service for group in world.config.services.values() for service in group], _by_address(world)
        return JSONResponse({"services": [_service(world, one, pods, seen) for one in sorted(found, key=_by_name)]})

    async def node(request: Request) -> Response:
        wanted, world = request.query_params.get("id", ""), hub.world
        window = window_of(request, calls)
        samples, at = await calls.lately(window)
        seen, whole = _Seen(samples, window), graph(samples, calls.history.state(calls.clock()), at, window)
        about = next((one for one in whole["nodes"] if one["id"] == wanted), None)
        if world is not None:
            about = _details(world, hub, wanted, seen) or about
        if about is None:
            return problem(404, f"there is no {wanted[:100]!r}")
        outbound = [edge for edge in whole["edges"] if edge["from"] == wanted]
        inbound = callers(samples, window, wanted)
        return JSONResponse({**seen.of(wanted), **about, "inbound": inbound, "outbound": outbound})

    return [
        Route("/api/workloads", guarded(workloads)),
        Route("/api/services", guarded(services)),
        Route("/api/node", guarded(node)),
    ]


class _Seen:
    """Signals by node: of what came in; of a node that nobody calls, of what went out."""

    def __init__(self, samples: Iterable[Sample], window: float) -> None:
        into: dict[str, Totals] = {}
        out: dict[str, Totals] = {}
        for call, totals in once(samples):
            for begin, end in hops(call):
                out.setdefault(begin.id, Totals()).add(totals)
                into.setdefault(end.id, Totals()).add(totals)
        self._totals = {**out, **into}
        self._window = window

    @classmethod
    async def lately(cls, calls: Calls, request: Request) -> _Seen:
        window = window_of(request, calls)
        return cls((await calls.lately(window))[0], window)

    def of(self, node: str) -> dict[str, Any]:
        return signals(self._totals.get(node, Totals()), self._window)


def applied(world: World) -> dict[tuple[str, str, str], list[str]]:
    """By resource (kind, namespace, name): the workloads and services that it is about."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for (namespace, name), pods in _groups(world):
        for ref in _config(world, pods):
            found.setdefault((ref["kind"], ref["namespace"], ref["name"]), []).append(f"workload/{namespace}/{name}")
    for group in world.config.services.values():
        for service in group:
            refs = [*_routing(world, service), _resource(service)]
            for ref in refs:
                nodes = found.setdefault((ref["kind"], ref["namespace"], ref["name"]), [])
                nodes.append(f"service/{service.namespace}/{service.name}")
    return found


def _details(world: World, hub: Hub, wanted: str, seen: _Seen) -> dict[str, Any] | None:
    kind, _, rest = wanted.partition("/")
    namespace, _, name = rest.partition("/")
    if kind == "workload":
        for key, pods in _groups(world):
            if key == (namespace, name):
                row = _workload(world, hub, key, pods, seen)
                bare = row["sync"] == "NO SIDECAR"
                return {**row, "config": _config(world, pods), "callers": _ANYBODY if bare else _callers(world, pods[0])}
    if kind == "service":
        for found in world.config.services.values():
            for service in found:
                if (service.namespace, service.name) == (namespace, name):
                    pods_by_address = _by_address(world)
                    row = _service(world, service, pods_by_address, seen)
                    refs = [*_routing(world, service), _resource(service), *row["policies"]]
                    behind = _behind(world, service, pods_by_address)
                    return {**row, "config": refs, "callers": _callers_of_any(world, behind)}
    return None


def _groups(world: World) -> list[tuple[tuple[str, str], list[PodInfo]]]:
    groups: dict[tuple[str, str], list[PodInfo]] = {}
    for key in sorted(world.pods):
        pod = world.pods[key]
        groups.setdefault((pod.namespace, pod.workload.workload), []).append(pod)
    return sorted(groups.items())


def _workload(world: World, hub: Hub, key: tuple[str, str], pods: list[PodInfo], seen: _Seen) -> dict[str, Any]:
    id_, one = f"workload/{key[0]}/{key[1]}", pods[0].workload
    states = [session.plan.status() for pod in pods if (session := hub.session(pod.namespace, pod.name)) is not None]
    meshed = bool(states) or any(map(_meshed, pods))
    modes = {_mode(world, pods[0], port) for port in _ports(world, pods[0]) or (0,)} if meshed else {"DISABLE"}
    return {
        "id": id_,
        "kind": "workload",
        "name": key[1],
        "namespace": key[0],
        "app": one.canonical_service or one.app,
        "version": one.canonical_revision or one.version,
        **seen.of(id_),
        "mtls": "/".join(sorted(modes)),
        "policies": [_ref(one) for one in _policies(world, pods[0])],
        "sync": min(states, key=_WORST.index) if states else "NOT CONNECTED" if meshed else "NO SIDECAR",
        "pods": len(pods),
        "ready": sum(pod.ready for pod in pods),
        "connected": len(states),
    }


def _meshed(pod: PodInfo) -> bool:
    """Whether its labels say that a proxy stands there."""
    return pod.role == "gateway" or (TLS_MODE_LABEL, "istio") in pod.labels


def _ports(world: World, pod: PodInfo) -> tuple[int, ...]:
    index = world.config.selectors.get(pod.namespace)
    found = index.matching(pod.labels) if index is not None else ()
    return tuple(sorted({port for s in found for p in s.ports if (port := target_port(p, pod.ports)) is not None}))


def _mode(world: World, pod: PodInfo, port: int) -> str:
    return mtls_mode(world.config, pod.namespace, dict(pod.labels), port)[0]


def _by_address(world: World) -> dict[str, PodInfo]:
    return {pod.ip: pod for pod in world.pods.values() if pod.ip}


def _by_name(service: MeshService) -> tuple[str, str]:
    return (service.namespace, service.name)


def _service(world: World, service: MeshService, pods: dict[str, PodInfo], seen: _Seen) -> dict[str, Any]:
    """``pods``: by address."""
    id_ = f"service/{service.namespace}/{service.name}"
    behind = _behind(world, service, pods)
    modes = {_mode(world, pod, port) for pod in behind for port in _ports(world, pod)}
    return {
        "id": id_,
        "kind": "service",
        "name": service.name,
        "namespace": service.namespace,
        "host": service.host,
        **seen.of(id_),
        "mtls": "/".join(sorted(modes)),
        "policies": list({str(ref): ref for pod in behind for ref in map(_ref, _policies(world, pod))}.values()),
        "ports": [{"port": port.number, "name": port.name, "protocol": port.protocol} for port in service.ports],
        "endpoints": len(world.endpoints_of(service)),
        "external": service.external,
    }


def _behind(world: World, service: MeshService, pods: dict[str, PodInfo]) -> list[PodInfo]:
    return [pod for one in world.endpoints_of(service) if (pod := pods.get(one.address)) is not None]


def _resource(service: MeshService) -> Ref:
    kind = "Service" if service.kubernetes else "ServiceEntry"
    return {"kind": kind, "namespace": service.namespace, "name": service.resource}


def _ref(one: Scoped) -> Ref:
    return {"kind": one.kind, "namespace": one.namespace, "name": one.name}


def _policies(world: World, pod: PodInfo) -> Iterator[Scoped]:
    """The security policies that select the pod."""
    root, own = in_force(world.config.security, world.mesh.root_namespace, pod.namespace)
    labels, gateway = dict(pod.labels), pod.role == "gateway"
    for side in (root, own) if own is not None else (root,):
        for one in side.all:
            elsewhere = side is root and own is not None
            if elsewhere and (one.gateways is not None or (one.kind == "PeerAuthentication" and one.labels)):
                continue
            if one.selects(labels, gateway=gateway):
                yield one


def _routing(world: World, service: MeshService) -> list[Ref]:
    """What says where the service's requests go."""
    found = [
        {"kind": "VirtualService", "namespace": one.namespace, "name": one.resource.metadata.name}
        for one in world.config.virtual_services
        if service.host in one.hosts
    ]
    for index in world.config.destination_rules.values():
        for rule in index.lookup(service.host):
            found.append({"kind": "DestinationRule", "namespace": rule.metadata.namespace, "name": rule.metadata.name})
    return found


def _config(world: World, pods: list[PodInfo]) -> list[Ref]:
    pod = pods[0]
    index = world.config.selectors.get(pod.namespace)
    found = [_ref(one) for one in _policies(world, pod)]
    for service in index.matching(pod.labels) if index is not None else ():
        found += [_resource(service), *_routing(world, service)]
    root = world.mesh.root_namespace
    for namespace in dict.fromkeys((root, pod.namespace)):
        side = world.config.telemetry.get(namespace)
        narrow = (
            side.of(dict(pod.labels), gateway=pod.role == "gateway") if side is not None and namespace == pod.namespace else None
        )
        for one in (side.wide if side is not None else None, narrow):
            if one is not None:
                found.append({"kind": "Telemetry", "namespace": namespace, "name": one.metadata.name})
    return list({str(ref): ref for ref in found}.values())


def _callers_of_any(world: World, pods: list[PodInfo]) -> dict[str, Any] | None:
    """Of a service: of the workloads behind it, told apart where they differ."""
    told = {pod.workload.workload: _callers(world, pod) for pod in pods}
    if not told:
        return None
    different = list({str(one): one for one in told.values()}.values())
    if len(different) == 1:
        return different[0]
    rules = [{**rule, "what": f"{rule['what']} at {name}".strip()} for name in told for rule in told[name]["rules"]]
    return {"summary": " ".join(f"{name}: {one['summary']}" for name, one in told.items()), "rules": rules}


def _callers(world: World, pod: PodInfo) -> dict[str, Any]:
    """Who may call, in words: the authorisation policies as they are judged, DENY first."""
    policies = [one for one in _policies(world, pod) if one.kind == "AuthorizationPolicy" and not one.dry_run]
    modes = {_mode(world, pod, port) for port in _ports(world, pod) or (0,)}
    who = "only callers with a certificate of this mesh" if modes == {"STRICT"} else "callers with and without mutual TLS"
    rules = [rule for action in ("CUSTOM", "DENY", "ALLOW") for one in policies for rule in _rules(one, action)]
    allowing = any(rule["action"] == "ALLOW" for rule in rules) or any(_action(one) == "ALLOW" for one in policies)
    rest = "; what no ALLOW policy names is denied" if allowing else "; what no policy denies is allowed"
    return {"summary": f"{who[0].upper()}{who[1:]} get to the policies{rest}.", "rules": rules}


def _action(one: Scoped) -> str:
    return one.spec.action if isinstance(one.spec, AuthorizationPolicySpec) else "DENY"


def _rules(one: Scoped, action: str) -> Iterator[dict[str, str]]:
    if _action(one) != action:
        return
    policy = f"{one.kind}/{one.namespace}/{one.name}"
    if not isinstance(one.spec, AuthorizationPolicySpec):
        yield {"action": "DENY", "policy": policy, "who": "anyone", "what": f"the policy cannot be used: {one.why}"}
        return
    if not one.spec.rules:
        yield {"action": action, "policy": policy, "who": "nobody", "what": "it has no rules"}
    for rule in one.spec.rules:
        yield {"action": action, "policy": policy, "who": _who(rule), "what": _what(rule)}


def _who(rule: Rule) -> str:
    found = []
    for origin in rule.from_ or ():
        source = origin.source
        if source is None:
            continue
        parts = [f"not {', '.join(v)}" if name.startswith("not_") else ", ".join(v) for name, v in _lists(source)]
        found.append(" and ".join(parts))
    return " or ".join(found) or "anyone"


def _what(rule: Rule) -> str:
    found = []
    for to in rule.to or ():
        if to.operation is not None:
            parts = [f"{name.replace('_', ' ')} {', '.join(v)}" for name, v in _lists(to.operation)]
            found.append(" and ".join(parts))
    when = [f"{c.key} is {', '.join(c.values)}" if c.values else f"{c.key} is not {', '.join(c.not_values)}" for c in rule.when]
    return "; when ".join(filter(None, (" or ".join(found), " and ".join(when))))


def _lists(part: Any) -> list[tuple[str, tuple[str, ...]]]:
    return [(name, values) for name in part.__struct_fields__ if (values := getattr(part, name))]
