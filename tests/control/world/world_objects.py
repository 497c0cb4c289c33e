"""Objects for tests of the world and of translation: short builders, and YAML as users write it."""

from __future__ import annotations

from typing import Any, NamedTuple

import yaml

from control.resources.kinds import Kind, kind_of
from control.translate import ProxyId, Snapshot, proxy_of, translate
from control.world import MeshSettings, World
from meshproxy.model.cluster import Cluster, Endpoints
from meshproxy.model.listener import Listener
from meshproxy.model.route import Forward, Route, RouteConfig

Obj = dict[str, Any]


class Event(NamedTuple):
    type: str
    kind: Kind
    object: Obj


def event(type_: str, obj: Obj) -> Event:
    return Event(type_, kind_of(obj), obj)


def load(text: str) -> list[Obj]:
    return [doc for doc in yaml.safe_load_all(text) if doc]


def mesh_object(kind: str, name: str, spec: Obj, namespace: str = "default", created: str = "") -> Obj:
    meta: Obj = {"name": name, "namespace": namespace}
    if created:
        meta["creationTimestamp"] = created
    return {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": meta, "spec": spec}


def virtual_service(
    name: str,
    hosts: list[str],
    http: list[Obj],
    *,
    namespace: str = "default",
    gateways: list[str] | None = None,
    created: str = "",
    export_to: list[str] | None = None,
) -> Obj:
    spec: Obj = {"hosts": hosts, "http": http}
    if gateways:
        spec["gateways"] = gateways
    if export_to:
        spec["exportTo"] = export_to
    return mesh_object("VirtualService", name, spec, namespace, created)


def destination_rule(name: str, host: str, *, namespace: str = "default", created: str = "", **spec: Any) -> Obj:
    return mesh_object("DestinationRule", name, {"host": host, **spec}, namespace, created)


def to(host: str, subset: str = "", port: int = 0, **more: Any) -> Obj:
    destination: Obj = {"host": host}
    if subset:
        destination["subset"] = subset
    if port:
        destination["port"] = {"number": port}
    return {"destination": destination, **more}


def service(
    name: str,
    selector: dict[str, str] | None = None,
    ports: list[Obj] | None = None,
    *,
    namespace: str = "default",
    cluster_ip: str = "",
    annotations: dict[str, str] | None = None,
    created: str = "",
) -> Obj:
    meta: Obj = {"name": name, "namespace": namespace}
    if annotations:
        meta["annotations"] = annotations
    if created:
        meta["creationTimestamp"] = created
    spec: Obj = {"ports": ports or [{"name": "http", "port": 8080}], "selector": selector or {"app": name}}
    if cluster_ip:
        spec["clusterIP"] = cluster_ip
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}


def pod(
    name: str,
    ip: str,
    labels: dict[str, str] | None = None,
    *,
    namespace: str = "default",
    annotations: dict[str, str] | None = None,
    ready: bool = True,
    ports: list[Obj] | None = None,
    **meta: Any,
) -> Obj:
    container: Obj = {"name": "app", "image": "app"}
    if ports:
        container["ports"] = ports
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels or {},
            "annotations": annotations or {},
            **meta,
        },
        "spec": {"containers": [container]},
        "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


def slices(of: str, places: list[tuple[str, str]], *, namespace: str = "default", port: int = 8080, name: str = "http") -> Obj:
    """One EndpointSlice; ``places`` are (pod name, address)."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{of}-1", "namespace": namespace, "labels": {"kubernetes.io/service-name": of}},
        "addressType": "IPv4",
        "ports": [{"name": name, "port": port}],
        "endpoints": [
            {"addresses": [ip], "conditions": {"ready": True}, "targetRef": {"kind": "Pod", "name": who}} for who, ip in places
        ],
    }


def rating() -> list[Obj]:
    """The article's three pods and two services."""
    names, marks = "app.kubernetes.io/name", "app.kubernetes.io/version"
    inbound = {"mesh.dev/inbound-ports": "8080:9080"}
    return [
        pod("book-service", "127.1.0.1", {names: "book-service", marks: "v1.0.0"}, annotations=inbound),
        pod("rating-service-v1", "127.1.0.2", {names: "rating-service", marks: "v1.0.0"}, annotations=inbound),
        pod("rating-service-v2", "127.1.0.3", {names: "rating-service", marks: "v2.0.0"}, annotations=inbound),
        service("book-service", {names: "book-service"}, [{"name": "http", "port": 8080, "targetPort": 8080}]),
        service("rating", {names: "rating-service"}, [{"name": "http", "port": 8080, "targetPort": 8080}]),
        slices("book-service", [("book-service", "127.1.0.1")]),
        slices("rating", [("rating-service-v2", "127.1.0.3"), ("rating-service-v1", "127.1.0.2")]),
    ]


class View:
    """What one proxy runs, decoded."""

    def __init__(self, objs: list[Obj], who: tuple[str, str] | ProxyId, mesh: MeshSettings | None = None) -> None:
        self.world = World.of(objs, mesh)
        assert self.world.problems == (), self.world.problems
        proxy = who if isinstance(who, ProxyId) else proxy_of(self.world, *who)
        assert proxy is not None
        self.proxy = proxy
        self.snapshot: Snapshot = translate(self.world, proxy)
        self.problems = [str(problem) for problem in self.snapshot.problems]

    def names(self, kind: str) -> list[str]:
        return [name for k, name in self.snapshot.resources if k == kind]

    def cluster(self, name: str) -> Cluster:
        found = self.snapshot.get("cluster", name)
        assert isinstance(found, Cluster), self.names("cluster")
        return found

    def endpoints(self, name: str) -> list[str]:
        found = self.snapshot.get("endpoints", name)
        assert isinstance(found, Endpoints), self.names("endpoints")
        return [f"{e.address}:{e.port}" for e in found.endpoints]

    def config(self, name: str) -> RouteConfig:
        found = self.snapshot.get("route", name)
        assert isinstance(found, RouteConfig), self.names("route")
        return found

    def listener(self, name: str) -> Listener:
        found = self.snapshot.get("listener", name)
        assert isinstance(found, Listener), self.names("listener")
        return found

    def routes(self, host: str, config: str = "8080") -> tuple[Route, ...]:
        """The routes of the virtual host that has this domain."""
        for candidate in self.config(config).virtual_hosts:
            if host in candidate.domains:
                return candidate.routes
        raise AssertionError(f"{host} not in {[v.domains for v in self.config(config).virtual_hosts]}")

    def targets(self, host: str, config: str = "8080") -> list[list[tuple[str, int]]]:
        """Per route, its clusters and weights."""
        return [
            [(c.cluster, c.weight) for c in r.action.clusters] if isinstance(r.action, Forward) else []
            for r in self.routes(host, config)
        ]


def forward(route: Route) -> Forward:
    assert isinstance(route.action, Forward)
    return route.action


def client(
    objs: list[Obj],
    *,
    mesh: MeshSettings | None = None,
    labels: dict[str, str] | None = None,
    namespace: str = "default",
) -> View:
    """The view of a pod ``client`` in ``namespace``, beside these objects."""
    return View([*objs, pod("client", "10.9.9.9", labels, namespace=namespace)], (namespace, "client"), mesh)
