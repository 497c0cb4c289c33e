"""For tests: a real mesh-control process, and a sidecar's agent with nothing behind it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from meshproxy.agent.client import Agent, AgentConfig
from meshproxy.agent.state import Candidate, State, receive
from meshproxy.agent.tasks import spawn
from meshproxy.model.delivery import Ack, Answer, Nack, Push, Query

ROOT = Path(__file__).resolve().parents[2]
Obj = dict[str, Any]


class ControlProcess:
    """``mesh-control serve`` on its own loopback address. ``url`` and ``client`` are there once ``start`` returned."""

    def __init__(self, state: Path, bind: str = "127.0.0.1", *options: str) -> None:
        self.state = state
        self.bind = bind
        self.options = options
        self.url = ""
        self.metrics = ""
        self.process: subprocess.Popen[str] | None = None

    def command(self, port: int = 0, metrics_port: int = 0) -> list[str]:
        ports = ["--port", str(port), "--metrics-port", str(metrics_port)]
        options = ["--state", str(self.state), "--bind", self.bind, *ports, *self.options]
        return [sys.executable, "-m", "control", "serve", *options]

    def start(self, port: int = 0) -> None:
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.log = self.state.with_suffix(".log").open("a")
        self.process = subprocess.Popen(self.command(port), stdout=subprocess.PIPE, stderr=self.log, text=True, env=environ)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        words = line.split()
        if words[:2] != ["mesh-control", "ready"]:
            self.stop()
            raise AssertionError(self.logged())
        self.url, self.metrics = words[2], words[4]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def logged(self) -> str:
        return self.state.with_suffix(".log").read_text()

    def signal(self, number: int) -> int:
        """Send a signal and wait for the end; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        assert self.process is not None
        assert self.process.stdout is not None
        code = self.process.wait(20)
        self.process.stdout.close()
        self.log.close()
        self.process = None
        return code

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.wait()

    @property
    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.state / "ca" / "root.pem"))

    @property
    def admin_token(self) -> str:
        """As kubectl would find it."""
        config = yaml.safe_load((self.state / "kubeconfig").read_text())
        assert b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]).startswith(b"-----BEGIN CERT")
        return str(config["users"][0]["user"]["token"])

    def client(self, token: str | None = None) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {token or self.admin_token}"}
        return httpx.AsyncClient(base_url=self.url, verify=self.tls, headers=headers, timeout=20, trust_env=False)

    async def join_token(self, pod: str, namespace: str = "default", **more: Any) -> str:
        async with self.client() as client:
            answer = await client.post("/mesh/v1/tokens", json={"namespace": namespace, "pod": pod, **more})
            assert answer.status_code == 201, answer.text
            return str(answer.json()["token"])


class Sidecar:
    """An agent and the state that it holds. ``refuse`` decides what a real data path would not obey."""

    def __init__(self, control: ControlProcess, token_file: Path, pod: str, namespace: str = "default", **config: Any) -> None:
        self.state = State()
        self.pushes: list[Push] = []
        self.refuse: Callable[[Candidate], Iterable[Nack]] = lambda candidate: ()
        self.answer: Callable[[Query], Answer] = lambda query: Answer(id=query.id, ok=False, error="nothing here")
        self._changed = asyncio.Condition()
        settings = AgentConfig(
            control=control.url,
            ca_file=control.state / "ca" / "root.pem",
            token_file=token_file,
            namespace=namespace,
            pod=pod,
            **config,
        )
        self.agent = Agent(settings, self._apply, lambda query: self.answer(query), lambda: self.state.version)

    def _apply(self, push: Push) -> Ack:
        ack = receive(self.state, push, self.refuse)
        self.pushes.append(push)
        return ack

    def names(self, kind: str) -> set[str]:
        return set(self.state.resources[kind])

    def addresses(self, cluster: str) -> list[str]:
        found: Any = self.state.resources["endpoints"].get(cluster)
        return [] if found is None else [endpoint.address for endpoint in found.endpoints]


async def until(predicate: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Wait until ``predicate()`` is true; asks again every few milliseconds."""
    try:
        async with asyncio.timeout(seconds):
            while not (found := predicate()):
                await asyncio.sleep(0.005)
            return found
    except TimeoutError:
        raise AssertionError("it did not become true in time") from None


@asynccontextmanager
async def running(sidecar: Sidecar) -> AsyncIterator[Sidecar]:
    task = spawn(sidecar.agent.run(), "agent")
    try:
        yield sidecar
    finally:
        sidecar.agent.stop()
        await task


def pod(name: str, ip: str, app: str, ready: bool = True, namespace: str = "default") -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": app}},
        "spec": {"containers": [{"name": "app", "image": "local", "ports": [{"containerPort": 9080}]}]},
        "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def service(name: str, port: int = 8080) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": port, "targetPort": 9080}]},
    }


async def create(client: httpx.AsyncClient, obj: Obj, namespace: str = "default") -> Obj:
    group = "/api/v1" if obj["apiVersion"] == "v1" else f"/apis/{obj['apiVersion']}"
    plural = {"Service": "services", "Pod": "pods", "ConfigMap": "configmaps", "VirtualService": "virtualservices"}[obj["kind"]]
    answer = await client.post(f"{group}/namespaces/{namespace}/{plural}", json=obj)
    assert answer.status_code == 201, answer.text
    made: Obj = answer.json()
    if "status" in obj and made.get("status") != obj["status"]:  # a status is written through its subresource
        made = await set_status(client, made, obj["status"])
    return made


async def set_status(client: httpx.AsyncClient, obj: Obj, status: Obj) -> Obj:
    meta = obj["metadata"]
    answer = await client.patch(
        f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/status",
        content=json.dumps({"status": status}),
        headers={"content-type": "application/merge-patch+json"},
    )
    assert answer.status_code == 200, answer.text
    made: Obj = answer.json()
    return made


def ready(value: bool) -> Obj:
    return {"conditions": [{"type": "Ready", "status": str(value)}]}


TERM, INT, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGKILL
