"""The cluster's store on another server than our fake: control's own Kubernetes-shaped API, over TLS, with kubectl writing."""

from __future__ import annotations

import asyncio
import json
import subprocess
from contextlib import aclosing
from pathlib import Path

import pytest

from control.resources.kinds import by_kind
from control.store.kubernetes.client import ApiServer
from control.store.kubernetes.reflector import Timing
from control.store.kubernetes.store import KubernetesStore
from tests.e2e.mesh_control_process import ControlProcess

SERVICE, VS = by_kind("", "Service"), by_kind("networking.istio.io", "VirtualService")


@pytest.mark.system("kubectl")
def test_what_kubectl_applies_is_followed_also_over_a_restart_of_the_server(tmp_path: Path) -> None:
    server = ControlProcess(tmp_path / "state", "127.0.41.9")
    server.start()
    config = tmp_path / "state" / "kubeconfig"

    def kubectl(*words: str, given: object = None) -> None:
        text = json.dumps(given) if given is not None else None
        done = subprocess.run(
            ["kubectl", "--kubeconfig", str(config), *words], input=text, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr

    async def story() -> None:
        api = ApiServer(config)
        await api.connect()
        store = KubernetesStore(api, timing=Timing(first=0.05, longest=0.2, missing=0.2, pause=0.05))
        try:
            await asyncio.wait_for(store.open(), 30)
            async with aclosing(store.watch(store.version, VS)) as events:
                meta = {"name": "v", "namespace": "default"}
                spec = {"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a"}}]}]}
                body = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta, "spec": spec}
                await asyncio.to_thread(kubectl, "apply", "-f", "-", given=body)
                event = await asyncio.wait_for(anext(events), 30)
                assert (event.type, event.object["spec"]) == ("ADDED", spec)
                service = {"metadata": {"name": "a", "namespace": "default"}, "spec": {"ports": [{"port": 80}]}}
                made = await store.create(SERVICE, {"apiVersion": "v1", "kind": "Service", **service})
                assert (await store.get(SERVICE, "default", "a"))["metadata"]["uid"] == made["metadata"]["uid"]
                port = server.port
                await asyncio.to_thread(server.stop)
                while "virtualservices.networking.istio.io" not in store.problems():
                    await asyncio.sleep(0.01)
                assert await store.get(VS, "default", "v"), "what is known stays"
                await asyncio.to_thread(server.start, port)
                await asyncio.to_thread(kubectl, "delete", "virtualservice", "v")
                event = await asyncio.wait_for(anext(events), 30)
                assert (event.type, event.object["metadata"]["name"]) == ("DELETED", "v")
                assert "nodes" in store.problems(), "it has no Nodes, which is no reason to wait"
        finally:
            await store.close()
            await api.close()

    try:
        asyncio.run(story())
    finally:
        server.stop()
