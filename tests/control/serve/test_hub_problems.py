"""What could not be done as written: with the sidecar in proxy-status, once for the mesh, and counted; other figures."""

from __future__ import annotations

import asyncio

from control.identity import ProxyIdentity
from control.serve.hub import Hub
from control.serve.metrics import Metrics
from control.translate.translator import Translator
from control.world import World


def _pod(name: str) -> dict[str, object]:
    spec = {"containers": [{"name": "app"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def _mesh(kind: str, name: str, spec: dict[str, object], api: str = "networking.istio.io/v1") -> dict[str, object]:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def test_problems_of_a_running_mesh_are_shown_and_counted() -> None:
    telemetry = _mesh("Telemetry", "t", {"tracing": [{"providers": [{"name": "nobody"}]}]}, "telemetry.istio.io/v1")
    ports = [{"port": 80, "name": "http"}]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "default"}, "spec": {"ports": ports}}
    rules = [_mesh("DestinationRule", name, {"host": "a"}) for name in ("r1", "r2")]
    routes = [
        _mesh("VirtualService", name, {"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a"}}]}]}) for name in "vw"
    ]
    metrics = Metrics()
    hub = Hub(Translator().translate, metrics, clock=lambda: 0.0, wall=lambda: 0.0)
    for name in ("one", "two"):
        hub.connect(ProxyIdentity("default", name, "default", 1e12), "")
    world = World.of([_pod("one"), _pod("two"), service, telemetry, *rules, *routes])
    asyncio.run(hub.publish(world, 1, 0.0))
    said = [problem for problem in hub.problems() if problem.source.startswith("Telemetry")]
    assert [p.source for p in said] == ["Telemetry default/t spec.tracing[0].providers[0].name"]  # once, not per sidecar
    assert all(str(said[0]) in row["problems"] for row in hub.report())
    text = metrics.text().decode()
    for line in (
        *("pilot_services 1.0", "pilot_virt_services 2.0", "pilot_conflict_destination_rules 1.0"),
        *("pilot_conflict_virtual_service_hosts 1.0", f"mesh_config_problems {len(hub.problems())}.0"),
    ):
        assert line in text.splitlines(), line
