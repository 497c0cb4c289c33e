"""For tests of Istio semantics, black box: one small mesh of real processes, resources applied with the real kubectl.

A ``Mesh`` is a ``mesh-control``, sidecars and gateways as real ``meshproxy`` processes, and pods whose app is ``Echo``: one
thread that answers on many addresses with what it was asked, as JSON, and obeys the header ``x-do``. Pods without a sidecar of
their own are dialled directly, so that what is seen is what the client's sidecar did.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.e2e.mesh_control_process import ROOT, ControlProcess
from tests.e2e.semantics_echo import APP_PORT, Echo

Obj = dict[str, Any]
_keys = itertools.count(1)
_meshes = itertools.count(1)


def until(true: Callable[[], Any], what: str, limit: float = 20.0) -> Any:
    """Ask until the answer is true; returns it."""
    deadline = time.monotonic() + limit
    while not (found := true()):
        assert time.monotonic() < deadline, f"not within {limit:g} s: {what}"
        time.sleep(0.01)
    return found


# -- answers


@dataclass
class Answer:
    """What a client got. ``json``: what the echo app says of the request; ``list``: every value of a header."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    took: float

    @property
    def json(self) -> Obj:
        return dict(json.loads(self.body))

    @property
    def pod(self) -> str:
        return str(self.json["pod"])

    @property
    def path(self) -> str:
        return str(self.json["path"])

    @property
    def text(self) -> str:
        return self.body.decode()

    def list(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def get(self, name: str) -> str | None:
        """The only value of a header; None when it is absent."""
        found = self.list(name)
        assert len(found) < 2, f"{name}: {found}"
        return found[0] if found else None

    def asked(self, name: str) -> list[str]:
        """Every value of a header that the app got."""
        return [value for key, value in self.json["headers"] if key == name]


@dataclass
class Proxy:
    """A running sidecar or gateway; ``ask`` sends one request through it on a connection of its own."""

    name: str
    ip: str
    process: subprocess.Popen[bytes]
    port: int
    gateway: bool = False

    def ask(
        self,
        url: str,
        headers: dict[str, str] | Iterable[tuple[str, str]] = (),
        method: str = "GET",
        body: bytes | None = None,
        do: str = "",
        key: str = "",
        port: int = 0,
        timeout: float = 15.0,
    ) -> Answer:
        """``url`` stands in the request line towards a sidecar, as ``http_proxy`` has it; a gateway gets path and Host."""
        given = list(headers.items()) if isinstance(headers, dict) else list(headers)
        if do:
            given.append(("x-do", do))
        if key:
            given.append(("x-key", key))
        authority, slash, rest = url.removeprefix("http://").partition("/")
        if not any(name.lower() == "host" for name, _ in given):
            given.insert(0, ("Host", authority))
        connection = http.client.HTTPConnection(self.ip, port or self.port, timeout=timeout)
        started = time.monotonic()
        try:
            target = f"{slash}{rest}" or "/"
            if not self.gateway and url.startswith("http://"):
                target = url
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in given:
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("content-length", str(len(body)))
            connection.endheaders(body)
            got = connection.getresponse()
            data = got.read()
        finally:
            connection.close()
        return Answer(got.status, [(n.lower(), v) for n, v in got.getheaders()], data, time.monotonic() - started)

    def pods(self, url: str, count: int, **asking: Any) -> list[str]:
        """Who answered so many requests, each on its own connection."""
        return [self.ask(url, **asking).pod for _ in range(count)]

    def together(self, count: int, url: str, **asking: Any) -> list[Answer]:
        """So many requests at once."""
        with ThreadPoolExecutor(count) as pool:
            return [one.result() for one in [pool.submit(self.ask, url, **asking) for _ in range(count)]]

    def cluster(self, name: str) -> Obj:
        """``/clusters`` of one cluster."""
        with httpx.Client(trust_env=False) as client:
            found = client.get(f"http://{self.ip}:15000/clusters?format=json").json()["clusters"]
        return next(one for one in found if one["name"] == name)

    def requests(self, **labels: str) -> float:
        """``istio_requests_total``, the sum over samples with these labels."""
        with httpx.Client(trust_env=False) as client:
            text = client.get(f"http://{self.ip}:15020/stats/prometheus").text
        total = 0.0
        for line in text.splitlines():
            found = re.fullmatch(r"istio_requests_total\{(.*)\} (\S+)", line)
            if found and labels.items() <= dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found[1])).items():
                total += float(found[2])
        return total


# -- the mesh


@dataclass
class Mesh:
    """``state`` keeps everything. Addresses: control .1, proxies and pods from .10 on. ``options``: more of them for control."""

    state: Path
    proxies: dict[str, Proxy] = field(default_factory=dict)
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.base = f"127.{140 + next(_meshes) % 100}.{os.getpid() % 250 + 1}"
        self._next = itertools.count(10)
        self.echo = Echo()
        self.ips: dict[str, str] = {}
        options = ("--debounce", "0.02", "--debounce-max", "0.1", *self.options)
        self.control = ControlProcess(self.state / "control", f"{self.base}.1", *options)
        self.control.start()
        headers = {"authorization": f"Bearer {self.control.admin_token}"}
        self.api = httpx.Client(base_url=self.control.url, verify=self.control.tls, headers=headers, timeout=20, trust_env=False)

    def close(self) -> None:
        for proxy in self.proxies.values():
            proxy.process.kill()
        for proxy in self.proxies.values():
            proxy.process.wait()
        self.control.stop()
        self.api.close()
        self.echo.close()

    def logs(self) -> str:
        return "".join(f"--- {log.name}\n{log.read_text()[-3000:]}" for log in sorted(self.state.glob("*.log")))

    # -- who is there

    def namespace(self, name: str) -> None:
        self._post("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, there=True)

    def pod(
        self,
        name: str,
        namespace: str = "default",
        serve: bool = True,
        annotations: dict[str, str] | None = None,
        account: str = "default",
        **labels: str,
    ) -> str:
        """A ready pod with an echo app on port 9080; its address."""
        ip = f"{self.base}.{next(self._next)}"
        self.ips[name] = ip
        if serve:
            self.echo.serve(name, ip)
        made = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations or {}},
            "spec": {
                "serviceAccountName": account,
                "containers": [{"name": "app", "image": "echo", "ports": [{"containerPort": APP_PORT}]}],
            },
        }
        path = f"/api/v1/namespaces/{namespace}/pods"
        self._post(path, made)
        conditions = [{"type": "Ready", "status": "True"}]
        status = {"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": conditions}}
        content = {"content-type": "application/merge-patch+json"}
        answer = self.api.patch(f"{path}/{name}/status", content=json.dumps(status), headers=content)
        assert answer.status_code == 200, answer.text
        return ip

    def proxy(
        self,
        name: str,
        namespace: str = "default",
        role: str = "sidecar",
        port: int = 15001,
        annotations: dict[str, str] | None = None,
        account: str = "default",
        serve: bool = False,
        options: tuple[str, ...] = (),
        **labels: str,
    ) -> Proxy:
        """A pod with a sidecar (no app unless ``serve``), or a gateway that serves users on ``port``."""
        ip = self.pod(name, namespace, serve=serve, annotations=annotations, account=account, **labels)
        answer = self.api.post("/mesh/v1/tokens", json={"namespace": namespace, "pod": name, "serviceAccount": account})
        assert answer.status_code == 201, answer.text
        token = self.state / f"{name}.token"
        token.write_text(answer.json()["token"])
        process = self.spawn(name, ip, namespace, account, role, *options)
        made = self.proxies[name] = Proxy(name, ip, process, port, role == "gateway")
        return made

    def spawn(self, name: str, ip: str, namespace: str, account: str, role: str, *more: str) -> subprocess.Popen[bytes]:
        """The process of a sidecar whose token is there."""
        options = ["--pod", name, "--namespace", namespace, "--service-account", account, "--role", role, "--ip", ip]
        options += ["--control", self.control.url, "--control-ca", str(self.control.state / "ca" / "root.pem")]
        options += ["--token-file", str(self.state / f"{name}.token"), "--drain-seconds", "1", *more]
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        with (self.state / f"{name}.log").open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", "meshproxy", *options], stdout=log, stderr=log, env=environ)

    def ready(self) -> None:
        """Every proxy serves."""
        with httpx.Client(trust_env=False) as client:
            for proxy in self.proxies.values():

                def up(proxy: Proxy = proxy) -> bool:
                    assert proxy.process.poll() is None, self.logs()
                    try:
                        return client.get(f"http://{proxy.ip}:15021/healthz/ready").status_code == 200
                    except httpx.TransportError:
                        return False

                until(up, f"{proxy.name} is ready", 30)

    def _post(self, path: str, obj: Obj, there: bool = False) -> None:
        answer = self.api.post(path, json=obj)
        assert answer.status_code == 201 or (there and answer.status_code == 409), answer.text

    # -- resources

    def kubectl(self, *words: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.state), "KUBECONFIG": str(self.control.state / "kubeconfig")}
        done = subprocess.run(["kubectl", *words], input=stdin, env=environ, capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def apply(self, *given: str | Obj, wait: bool = True, check: bool = True) -> subprocess.CompletedProcess[str]:
        """``kubectl apply`` of YAML texts and objects; returns when every proxy runs them."""
        texts = [one if isinstance(one, str) else yaml.safe_dump(one) for one in given]
        done = self.kubectl("apply", "-f", "-", stdin="\n---\n".join(texts), check=check)
        if wait and done.returncode == 0:
            self.settle()
        return done

    def delete(self, *names: str, namespace: str = "default") -> None:
        """``kind/name``s."""
        self.kubectl("delete", "-n", namespace, *names)
        self.settle()

    def settle(self) -> None:
        """Every proxy has what is stored now, and the endpoints that follow from it."""
        listed = self.api.get("/api/v1/namespaces").json()
        version = listed["metadata"]["resourceVersion"]

        def there() -> bool:
            answer = self.api.get("/mesh/v1/distribution", params={"resourceVersion": version}).json()
            assert not answer["errors"], answer
            return not answer["pending"]

        until(there, "every proxy has the configuration")

    def endpoints(self, service: str, count: int, namespace: str = "default") -> None:
        """The service's endpoints are there, everywhere."""

        def there() -> bool:
            query = {"labelSelector": f"kubernetes.io/service-name={service}"}
            found = self.api.get(f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices", params=query).json()
            return sum(len(one["endpoints"] or ()) for one in found["items"]) == count

        until(there, f"{service} has {count} endpoints")
        self.settle()


def new_key(name: str = "k") -> str:
    """A value for ``x-key`` that no other test uses."""
    return f"{name}-{next(_keys)}"


def service(name: str, namespace: str = "default", ports: dict[int, int] | None = None, **selector: str) -> Obj:
    """``ports``: service port -> pod port."""
    listed = [
        {"name": f"http-{number}", "port": number, "targetPort": target, "protocol": "TCP"}
        for number, target in (ports or {80: APP_PORT}).items()
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": selector, "ports": listed},
    }


def resource(kind: str, name: str, spec: Obj | str, namespace: str = "default", version: str = "v1") -> Obj:
    """An object of networking.istio.io; ``spec`` may be YAML."""
    given = yaml.safe_load(spec) if isinstance(spec, str) else spec
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": f"networking.istio.io/{version}", "kind": kind, "metadata": meta, "spec": given}


def virtual_service(name: str, http_rules: str | list[Any], namespace: str = "default", **spec: Any) -> Obj:
    """A VirtualService for the host of its own name; ``http_rules`` is the list of ``spec.http``, as YAML or values."""
    rules = yaml.safe_load(http_rules) if isinstance(http_rules, str) else http_rules
    return resource("VirtualService", name, {"hosts": [name], **spec, "http": rules}, namespace)


def destination_rule(name: str, spec: str | Obj, namespace: str = "default", host: str = "") -> Obj:
    given = yaml.safe_load(spec) if isinstance(spec, str) else spec
    return resource("DestinationRule", name, {"host": host or name, **given}, namespace)
