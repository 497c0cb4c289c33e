"""For tests of identity and policy: a mesh of real processes whose pods have sidecars on both sides, and strangers' certificates.

A ``SecureMesh`` is a ``semantics_support.Mesh`` with workloads as the demo has them: a pod with a service account of its own,
an echo app, a sidecar whose inbound port is 8080, a Service of the pod's name. ``mesh_pair`` signs with the mesh's own key:
any fault that a test wants under the right root. ``Steady`` asks without a pause and counts what was not answered well.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.certs import Authority, Pair, spiffe
from tests.e2e.mesh_control_process import ROOT
from tests.e2e.semantics_echo import APP_PORT
from tests.e2e.semantics_support import Mesh, Obj, Proxy, resource, until

__all__ = ["INBOUND", "SecureMesh", "Steady", "put", "security", "shell"]

INBOUND = 8080


def security(kind: str, name: str, spec: Obj | str, namespace: str = "default", **annotations: str) -> Obj:
    """An object of security.istio.io; ``spec`` may be YAML."""
    made = resource(kind, name, spec, namespace)
    made["apiVersion"] = "security.istio.io/v1"
    if annotations:
        made["metadata"]["annotations"] = {key.replace("_", "/"): value for key, value in annotations.items()}
    return made


def put(folder: Path, name: str, content: bytes) -> str:
    """A PEM file, replaced in one step."""
    path = folder / name
    fresh = path.with_suffix(".new")
    fresh.touch(0o600)
    fresh.write_bytes(content)
    os.replace(fresh, path)
    return str(path)


def shell(*words: str, send: bytes = b"", timeout: float = 30) -> tuple[int, str]:
    """(exit code, what it said on both streams)."""
    done = subprocess.run(words, input=send, capture_output=True, timeout=timeout)
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


class _MeshAuthority(Authority):
    """Control's own issuer, with its key: it signs what control would not."""

    def __init__(self, folder: Path) -> None:
        key = serialization.load_pem_private_key((folder / "ca-key.pem").read_bytes(), None)
        self._certificate = x509.load_pem_x509_certificate((folder / "ca-cert.pem").read_bytes())
        self._key, self._name = key, self._certificate.subject  # type: ignore[assignment]
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM)
        self.chain, self.root = b"", self.pem


class SecureMesh(Mesh):
    def __init__(self, state: Path, *options: str) -> None:
        super().__init__(state, options=options)

    # -- who is there

    def workload(
        self,
        name: str,
        account: str = "",
        namespace: str = "default",
        app: int = APP_PORT,
        options: tuple[str, ...] = (),
        **labels: str,
    ) -> Proxy:
        """A pod as injection makes it, with its Service. ``app``: where it listens; an echo app unless it is another port."""
        made = self.proxy(
            name,
            namespace,
            annotations={"mesh.dev/inbound-ports": f"{INBOUND}:{app}"},
            account=account or name,
            serve=app == APP_PORT,
            options=("--access-log", str(self.state / f"{name}.access"), *options),
            **{"app": name, "security.istio.io/tlsMode": "istio", **labels},
        )
        self.service(name, INBOUND, namespace, app=name)
        return made

    def gateway(self, name: str, port: int, **labels: str) -> Proxy:
        more = ("--access-log", str(self.state / f"{name}.access"))
        return self.proxy(
            name, role="gateway", port=port, annotations={"mesh.dev/role": "gateway"}, account=name, options=more, **labels
        )

    def bare(self, name: str, namespace: str = "default") -> str:
        """A pod without a sidecar, with its Service; its address."""
        ip = self.pod(name, namespace, app=name)
        self.service(name, APP_PORT, namespace, app=name)
        return ip

    def service(self, name: str, target: int, namespace: str = "default", **selector: str) -> None:
        ports = [{"name": "http", "port": 80, "targetPort": target, "protocol": "TCP"}]
        meta = {"name": name, "namespace": namespace}
        made = {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"selector": selector, "ports": ports}}
        self._post(f"/api/v1/namespaces/{namespace}/services", made)

    def again(self, name: str, account: str = "", namespace: str = "default") -> Proxy:
        """Start a workload's sidecar again that has ended."""
        proxy = self.proxies[name]
        more = ("--access-log", str(self.state / f"{name}.access"))
        proxy.process = self.spawn(name, proxy.ip, namespace, account or name, "sidecar", *more)
        return proxy

    # -- certificates that are not control's

    @property
    def authority(self) -> Authority:
        """The issuer of now."""
        issuer = json.loads((self.control.state / "ca" / "state.json").read_text())["issuer"]
        return _MeshAuthority(next(path for path in (self.control.state / "ca").glob(f"**/{issuer}*") if path.is_dir()))

    def mesh_pair(self, account: str = "stranger", namespace: str = "default", domain: str = "cluster.local", **how: Any) -> Pair:
        return self.authority.issue(spiffe(account, namespace, domain), **how)

    def files(self, name: str, pair: Pair) -> tuple[str, str]:
        """Paths of certificate and key."""
        return put(self.state, f"{name}.crt", pair.certificate), put(self.state, f"{name}.pem", pair.key)

    # -- what is said

    def meshctl(self, *words: str, check: bool = True) -> str:
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "KUBECONFIG": str(self.control.state / "kubeconfig"), "COLUMNS": "200"}
        command = [sys.executable, "-m", "control.cli", *words]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, env=environ, cwd=self.state, stdin=subprocess.DEVNULL
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def log(self, name: str) -> str:
        return (self.state / f"{name}.log").read_text(errors="replace")

    def access(self, name: str) -> str:
        file = self.state / f"{name}.access"
        return file.read_text(errors="replace") if file.exists() else ""

    def page(self, name: str, path: str) -> str:
        with httpx.Client(trust_env=False) as client:
            return client.get(f"http://{self.proxies[name].ip}:15000{path}").text

    def metric(self, name: str, metric: str, **labels: str) -> float:
        """The sum over a sidecar's samples with these labels."""
        with httpx.Client(trust_env=False) as client:
            text = client.get(f"http://{self.proxies[name].ip}:15020/stats/prometheus").text
        total = 0.0
        for line in text.splitlines():
            found = re.fullmatch(rf"{metric}(?:\{{(.*)\}})? (\S+)", line)
            if found and labels.items() <= dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found[1] or "")).items():
                total += float(found[2])
        return total

    def refused(self, name: str, reason: str, side: str = "server") -> float:
        return self.metric(name, "mesh_tls_failures_total", side=side, reason=reason)

    def identity(self, name: str) -> Obj:
        found: Obj = json.loads(self.page(name, "/server_info"))["identity"]
        return found

    def serial(self, name: str) -> str:
        (own, *_) = json.loads(self.page(name, "/certs"))["certificates"]
        return str(own["cert_chain"][0]["serial_number"])

    def reconnect(self) -> None:
        """With the kubeconfig as it is now: control is another process, or under another root."""
        self.api.close()
        headers = {"authorization": f"Bearer {self.control.admin_token}"}
        self.api = httpx.Client(base_url=self.control.url, verify=self.control.tls, headers=headers, timeout=20, trust_env=False)

    def ca(self) -> Obj:
        found: Obj = self.api.get("/mesh/v1/ca").json()
        return found

    def check_logs(self) -> None:
        """No sidecar has met a bug of ours."""
        for name in self.proxies:
            text = self.log(name)
            assert "bug in" not in text and "Traceback" not in text and "crashed" not in text, text


class Steady:
    """``clients`` connections in one thread that ask without a pause. ``bad``: what was answered otherwise than 200, or never.

    keep: on kept connections (opened anew when a ``connection: close`` was answered); else a connection per request.
    pause: seconds between an answer and the next request, where processes must have time for something else as well.
    """

    def __init__(
        self, address: tuple[str, int], target: str, host: str, clients: int = 4, *, keep: bool = True, pause: float = 0.0
    ) -> None:
        self.answers: Counter[int] = Counter()
        self._since: Counter[int] = Counter()
        self.bad: list[str] = []
        close = "" if keep else "connection: close\r\n"
        self._request = f"GET {target} HTTP/1.1\r\nhost: {host}\r\n{close}\r\n".encode()
        self._address, self._clients, self._keep, self._pause = address, clients, keep, pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="steady", daemon=True)

    def __enter__(self) -> Steady:
        self._thread.start()
        self.more(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def more(self, count: int) -> None:
        """Until so many more have been answered."""
        goal = self.answers.total() + count
        until(lambda: self.answers.total() >= goal, f"{count} more answers")

    def fresh(self, count: int) -> Counter[int]:
        """The answers to so many requests, or more, that begin from now on."""
        mine = self._since = Counter()
        until(lambda: mine.total() >= count, f"{count} answers")
        return Counter(mine)

    async def _main(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(self._clients)))

    async def _client(self) -> None:
        while not self._stop.is_set():
            writer: asyncio.StreamWriter | None = None
            try:
                reader, writer = await asyncio.open_connection(*self._address)
                while not self._stop.is_set() and await self._ask(reader, writer) and self._keep:
                    pass
            except (OSError, EOFError) as error:
                self.bad.append(repr(error))
                self.answers[0] += 1
                await asyncio.sleep(0.005)
            finally:
                if writer is not None:
                    with contextlib.suppress(OSError):
                        writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        since = self._since
        async with asyncio.timeout(15):
            writer.write(self._request)
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
            fields = {name: value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
            body = await reader.readexactly(int(fields.get("content-length", "0")))
        status = int(lines[0].split()[1])
        self.answers[status] += 1
        since[status] += 1
        if status != 200:
            self.bad.append(f"{status} {body[:400].decode(errors='replace')}")
        if self._pause:
            await asyncio.sleep(self._pause)
        return fields.get("connection") != "close"


@contextlib.contextmanager
def running(mesh: SecureMesh) -> Iterator[SecureMesh]:
    """Close it at the end; show logs when something failed."""
    try:
        yield mesh
        mesh.check_logs()
    finally:
        mesh.close()
