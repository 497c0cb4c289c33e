"""A sidecar that the admin pages can ask, and a plain client, for the tests of this folder."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

from meshproxy.admin.server import AdminServer
from meshproxy.cluster.cluster import Cluster
from meshproxy.cluster.status import cluster_status
from meshproxy.model import cluster as model
from meshproxy.podenv import probers

HOST = "127.87.0.1"


class FakeSidecar:
    """An ``AdminPort`` that answers some questions at once and some later."""

    def __init__(self) -> None:
        self.why = ""
        self.level = "info"
        self.calls: list[str] = []
        outlier = model.Outlier(consecutive_5xx=1, max_ejection_percent=50, base_ejection=30)
        hosts = [
            model.Endpoint(address="10.0.0.1", port=80, workload=model.Workload(pod="rating-1")),
            model.Endpoint(address="10.0.0.2", port=80),
        ]
        self.cluster = Cluster(
            model.Cluster(name="outbound|80||rating", outlier=outlier, pool=model.ConnectionPool(max_connections=3)), hosts
        )

    def ready(self) -> str:
        return self.why

    async def info(self) -> dict[str, Any]:
        return {"version": "0.1.0", "node": "book-1.default"}

    def dump(self) -> dict[str, Any]:
        configs = [
            {"kind": kind, "resources": [{"name": f"{kind}-1", "version": "v", "config": {}}]} for kind in ("cluster", "route")
        ]
        return {"node": "book-1.default", "version": "abc", "configs": configs}

    def certs(self) -> dict[str, Any]:
        return {"certificates": [{"name": "default", "ca_cert": [], "cert_chain": [{"serial_number": "a1"}]}]}

    async def clusters(self) -> list[dict[str, Any]]:
        await asyncio.sleep(0)
        return [cluster_status(self.cluster, 10.0)]

    def listeners(self) -> list[dict[str, Any]]:
        return [{"name": "outbound", "address": "127.0.0.1:15001"}]

    def plaintext(self) -> list[dict[str, Any]]:
        return [{"listener": "inbound|80", "source": "10.0.0.7", "workload": "", "namespace": "", "requests": 3, "seen": 1.5}]

    def stats(self) -> list[tuple[str, float]]:
        return [("cluster.a.upstream_cx_active", 2.0), ("cluster.b.upstream_cx_active", 0.0), ("server.lag", 0.5)]

    async def metrics(self, accept: str) -> tuple[str, Iterator[bytes]]:
        return ("application/openmetrics-text" if "openmetrics" in accept else "text/plain"), iter([b"a 1\n", b"b 2\n"])

    async def scrape(self, accept: str, patience: float) -> tuple[str, Iterator[bytes]]:
        self.calls.append(f"scrape {patience:g}")
        return await self.metrics(accept)

    def log_level(self) -> str:
        return self.level

    def set_log_level(self, level: str) -> None:
        self.level = level

    def drain(self) -> None:
        self.calls.append("drain")

    def quit(self) -> None:
        self.calls.append("quit")


class Answer(NamedTuple):
    status: int
    body: str
    headers: dict[str, str]


class Client:
    """Asks one site, each question on a connection of its own, from a thread, as any program would."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port

    async def get(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        return await asyncio.to_thread(
            self._ask, method, path, body, {key.replace("_", "-"): value for key, value in headers.items()}
        )

    async def post(self, path: str, body: bytes | None = None, **headers: str) -> Answer:
        return await self.get(path, "POST", body, **headers)

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.read().decode(), {k.lower(): v for k, v in response.getheaders()})
        finally:
            connection.close()


class Pages(NamedTuple):
    sidecar: FakeSidecar
    admin: Client
    metrics: Client
    health: Client


@asynccontextmanager
async def pages(host: str = HOST, status: str = "", app_probers: str = "{}", ip: str = HOST) -> AsyncIterator[Pages]:
    sidecar = FakeSidecar()
    ports = {"admin_port": 0, "health_port": 0, "metrics_port": 0, "prometheus_port": None}
    place = SimpleNamespace(ip=ip, admin_bind=host, status_bind=status or host, app_probers=probers(app_probers), **ports)
    server = AdminServer(sidecar, place)
    await server.open()
    try:
        yield Pages(sidecar, *(Client(HOST, site.port) for site in (server.admin, server.metrics, server.health)))
    finally:
        await server.aclose()
