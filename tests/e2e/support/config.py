"""Configuration files for a standalone sidecar, put together from the model's structs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from meshproxy.model.base import Model, encode, fingerprint
from meshproxy.model.cluster import Cluster, ConnectionPool, Endpoint, Endpoints, Service, Workload
from meshproxy.model.listener import Listener
from meshproxy.model.route import Forward, Route, RouteConfig, VirtualHost, WeightedCluster

Address = tuple[str, int]


class Config:
    """An outbound listener whose port 80 knows ``service``s by name, and whatever else is added."""

    def __init__(self, policy: str = "REGISTRY_ONLY") -> None:
        self.policy = policy
        self.clusters: dict[str, Cluster] = {}
        self.endpoints: dict[str, Endpoints] = {}
        self.hosts: dict[str, dict[str, VirtualHost]] = {}
        self.listeners: dict[str, Listener] = {}

    def service(
        self,
        name: str,
        *addresses: Address,
        table: str = "80",
        cluster: str = "",
        action: Any = None,
        pool: dict[str, Any] | None = None,
        forward: dict[str, Any] | None = None,
        route: dict[str, Any] | None = None,
        workload: str = "",
        **fields: Any,
    ) -> Config:
        """``http://NAME/`` goes to these addresses. ``fields`` are the cluster's."""
        cluster = cluster or f"outbound|80||{name}"
        known = Service(host=f"{name}.default.svc.cluster.local", name=name, namespace="default")
        self.clusters[cluster] = Cluster(name=cluster, service=known, pool=ConnectionPool(**(pool or {})), **fields)
        group = tuple(Endpoint(address=host, port=port, workload=_workload(workload)) for host, port in addresses)
        self.endpoints[cluster] = Endpoints(name=cluster, endpoints=group)
        action = action or Forward(clusters=(WeightedCluster(cluster=cluster),), **(forward or {}))
        self.host(name, Route(name=name, action=action, **(route or {})), table=table)
        return self

    def host(self, name: str, *routes: Route, table: str = "80") -> Config:
        self.hosts.setdefault(table, {})[name] = VirtualHost(name=name, domains=(name,), routes=routes)
        return self

    def listener(self, name: str, direction: Any, port: int, service: str = "*", *addresses: Address, **fields: Any) -> Config:
        """An inbound or gateway listener with a route configuration of its own."""
        self.service(service, *addresses, table=name, cluster=f"{name}||")
        self.listeners[name] = Listener(name=name, direction=direction, port=port, route=name, **fields)
        return self

    def resources(self) -> list[tuple[str, Model]]:
        outbound_tables = tuple(sorted(int(table) for table in self.hosts if table.isdecimal()))
        outbound: Any = Listener(
            name="outbound",
            direction="outbound",
            port=15001,
            route_ports=outbound_tables,
            default_policy=self.policy,  # type: ignore[arg-type]
        )
        tables = [RouteConfig(name=name, virtual_hosts=tuple(hosts.values())) for name, hosts in self.hosts.items()]
        listeners = {"outbound": outbound, **self.listeners}
        return [
            *(("cluster", one) for one in self.clusters.values()),
            *(("endpoints", one) for one in self.endpoints.values()),
            *(("route", one) for one in tables),
            *(("listener", one) for one in listeners.values()),
        ]

    def bytes(self) -> bytes:
        documents = []
        for kind, value in self.resources():
            body = encode(value)
            name = value.name  # type: ignore[attr-defined]
            documents.append({"kind": kind, "name": name, "version": fingerprint(body), "body": msgspec.Raw(body)})
        return encode({"resources": documents})

    def write(self, path: Path) -> Path:
        """Replace the file in one step."""
        fresh = path.with_suffix(".new")
        fresh.write_bytes(self.bytes())
        os.replace(fresh, path)
        return path


def _workload(name: str) -> Workload | None:
    if not name:
        return None
    app, _, version = name.rpartition("-")
    return Workload(pod=name, namespace="default", workload=name, app=app or name, version=version, canonical_service=app)
