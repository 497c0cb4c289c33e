"""The mesh from what ``meshctl install`` prints: its pods and injected ones, with the very commands, variables, mounts and users
of their manifests, on one machine. What is not real is the API server (``KubeServer``) and the kubelet (``kubelet``)."""

from __future__ import annotations

import asyncio
import base64
import copy
import itertools
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from control.resources.kinds import by_kind
from control.store.api import NotFound
from injector.patch import apply
from tests.certs import Authority
from tests.control.incluster import Tokens, Wanted
from tests.control.kubeserver import KubeServer
from tests.e2e.kubelet import Node, Pod, at, node
from tests.e2e.pods import ROOT, needs_root

pytestmark = needs_root

Obj = dict[str, Any]
SERVICE, POD, SLICE = by_kind("", "Service"), by_kind("", "Pod"), by_kind("discovery.k8s.io", "EndpointSlice")
SECRET, CONFIG_MAP, NAMESPACE = by_kind("", "Secret"), by_kind("", "ConfigMap"), by_kind("", "Namespace")
PEER, GATEWAY = by_kind("security.istio.io", "PeerAuthentication"), by_kind("networking.istio.io", "Gateway")
VS = by_kind("networking.istio.io", "VirtualService")
HOOKS = "admissionregistration.k8s.io"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_numbers = itertools.count()


def installed(folder: Path, *words: str) -> list[Obj]:
    """What ``meshctl install`` prints where there is no mesh yet."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "control.cli", "install", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environ, check=False)
    assert done.returncode == 0, done.stderr
    return [obj for obj in yaml.safe_load_all(done.stdout) if obj]


def chosen(selector: Obj | None, labels: dict[str, str]) -> bool:
    for one in (selector or {}).get("matchExpressions") or ():
        there, values = labels.get(one["key"]), one.get("values") or ()
        fits = {"In": there in values, "NotIn": there not in values, "Exists": there is not None, "DoesNotExist": there is None}
        if not fits[one["operator"]]:
            return False
    return all(labels.get(key) == value for key, value in ((selector or {}).get("matchLabels") or {}).items())


class Cluster:
    """What the control plane of Kubernetes does here: objects, admission, tokens, volumes, rights. ``suffix``: of a revision's
    names."""

    def __init__(self, server: KubeServer, tokens: Tokens, machine: Node, roots: bytes, suffix: str) -> None:
        self.server = server
        self.tokens = tokens
        self.suffix = suffix
        self.roots = roots
        self.variables = {"KUBERNETES_SERVICE_HOST": machine.ip, "KUBERNETES_SERVICE_PORT": str(server.port)}
        self.made: dict[str, Obj] = {}  # by kind/name: what was installed
        self.loop = asyncio.get_running_loop()
        self.node = machine
        machine.content = self.content

    async def get(self, kind: Any, namespace: str | None, name: str) -> Obj | None:
        try:
            found: Obj = await self.server.store.get(kind, namespace, name)
            return found
        except NotFound:
            return None

    async def eventually(self, look: Callable[[], Awaitable[Any]]) -> Any:
        async with asyncio.timeout(60):
            while not (found := await look()):
                await asyncio.sleep(0.02)
            return found

    async def apply(self, objs: list[Obj]) -> None:
        kinds = {"Namespace": NAMESPACE, "ConfigMap": CONFIG_MAP, "Service": SERVICE, "Secret": SECRET}
        for obj in objs:
            kind, name = obj["kind"], obj["metadata"]["name"]
            self.made[f"{kind}/{name}"] = obj
            obj = copy.deepcopy(obj)
            if kind == "Namespace":
                obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name
            if kind.endswith("WebhookConfiguration"):
                await self.server.store.create(self.server.kind(HOOKS, kind.lower() + "s", kind), obj)
            elif kind in kinds:
                await self.server.store.create(kinds[kind], obj)

    def content(self, volume: Obj, pod: Obj) -> dict[str, bytes] | None:
        """For the kubelet, which is another thread."""
        return asyncio.run_coroutine_threadsafe(self._content(volume, pod), self.loop).result(30)

    async def _content(self, volume: Obj, pod: Obj) -> dict[str, bytes] | None:
        namespace, account = pod["metadata"]["namespace"], pod["spec"]["serviceAccountName"]
        if "configMap" in volume:
            found = await self.get(CONFIG_MAP, namespace, volume["configMap"]["name"])
            return {key: text.encode() for key, text in found["data"].items()} if found else self._none(volume["configMap"])
        if "secret" in volume:
            found = await self.get(SECRET, namespace, volume["secret"]["secretName"])
            data = {key: base64.b64decode(text) for key, text in found["data"].items()} if found else None
            return data if data is not None else self._none(volume["secret"])
        files = {}
        for source in volume["projected"]["sources"]:
            if "serviceAccountToken" in source:
                wanted = source["serviceAccountToken"]
                bound = pod["metadata"]["name"], pod["metadata"]["uid"]
                until = time.time() + wanted["expirationSeconds"]
                token = self.tokens.issue(namespace, account, wanted.get("audience", "https://kubernetes"), until, *bound)
                files[wanted["path"]] = token.encode()
            else:
                files |= {"ca.crt": self.roots, "namespace": namespace.encode()}
        return files

    @staticmethod
    def _none(source: Obj) -> dict[str, bytes] | None:
        return {} if source.get("optional") else None

    async def ask(self, hook: Obj, request: Obj) -> Obj:
        """An AdmissionReview, sent as an API server does: by the Service, believing only the bundle."""
        client = hook["clientConfig"]
        service = self.made[f"Service/{client['service']['name']}"]
        port = next(one["targetPort"] for one in service["spec"]["ports"] if one["port"] == client["service"]["port"])
        selector = service["spec"]["selector"].items()
        pod = next(one for one in self.node.pods if selector <= one.manifest["metadata"]["labels"].items())
        context = ssl.create_default_context(cadata=base64.b64decode(client["caBundle"]).decode())
        name = f"{client['service']['name']}.{client['service']['namespace']}.svc"
        body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u-1", **request}}
        async with httpx.AsyncClient(verify=context, trust_env=False, timeout=20) as http:
            url = f"https://{at(pod.ip)}:{port}{client['service']['path']}?timeout=10s"
            answer = await http.post(url, json=body, headers={"host": name}, extensions={"sni_hostname": name})
        assert answer.status_code == 200, answer.text
        response: Obj = answer.json()["response"]
        assert response["uid"] == "u-1"
        return response

    async def admitted(self, pod: Obj) -> Obj:
        """A pod after the mutating webhooks whose selectors fit."""
        space = await self.get(NAMESPACE, None, pod["metadata"]["namespace"])
        assert space is not None
        hooks = await self.server.store.get(
            self.server.kind(HOOKS, "mutatingwebhookconfigurations"), None, f"istio-sidecar-injector{self.suffix}"
        )
        fits = [
            hook
            for hook in hooks["webhooks"]
            if chosen(hook["namespaceSelector"], space["metadata"].get("labels") or {})
            and chosen(hook["objectSelector"], pod["metadata"].get("labels") or {})
        ]
        assert len(fits) <= 1
        for hook in fits:
            bare = {**pod, "metadata": {key: value for key, value in pod["metadata"].items() if key != "uid"}}
            request = {"operation": "CREATE", "namespace": pod["metadata"]["namespace"], "object": bare}
            request |= {"kind": {"group": "", "version": "v1", "kind": "Pod"}, "resource": {"group": "", "version": "v1"}}
            response = await self.ask(hook, request)
            assert response["allowed"], response
            if "patch" in response:
                pod = apply(json.loads(base64.b64decode(response["patch"])), pod)
        return pod

    def forbidden(self) -> set[str]:
        """What control has asked for without having a role for it, as installed."""
        roles = [obj for key, obj in self.made.items() if key in (f"Role/istiod{self.suffix}", *self._cluster_roles())]
        found = set()
        for agent, line in self.server.asked:
            wanted = Wanted.of(line)
            rules = [
                rule
                for role in roles
                if role["metadata"].get("namespace", wanted.namespace) == wanted.namespace
                for rule in role["rules"]
            ]
            if agent == "mesh-control" and not wanted.granted(rules):
                found.add(line)
        return found

    def _cluster_roles(self) -> list[str]:
        return [key for key in self.made if key.startswith("ClusterRole/")]

    async def pod(self, template: Obj, name: str, namespace: str) -> Pod:
        """From a template to a machine of its own: defaults, admission, an address."""
        meta = {**template["metadata"], "name": name, "namespace": namespace, "uid": f"uid-{name}"}
        made: Obj = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": copy.deepcopy(template["spec"])}
        spec = made["spec"]
        spec.setdefault("serviceAccountName", "default")
        if spec.get("automountServiceAccountToken", True):  # as the admission plugin ServiceAccount does, before any webhook
            sources = [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}, {"configMap": {}}]
            spec.setdefault("volumes", []).append({"name": "kube-api-access-x", "projected": {"sources": sources}})
            for one in (*spec.get("initContainers", ()), *spec["containers"]):
                mount = {"name": "kube-api-access-x", "mountPath": ACCOUNT, "readOnly": True}
                one.setdefault("volumeMounts", []).append(mount)
        made = {**await self.admitted(made), "apiVersion": "v1", "kind": "Pod"}
        made["metadata"]["uid"] = meta["uid"]
        pod = await asyncio.to_thread(self.node.pod, made, self.variables)
        status = {"phase": "Running", "podIP": pod.ip, "podIPs": [{"ip": pod.ip}]}
        status["conditions"] = [{"type": "Ready", "status": "True"}]
        stored = await self.server.store.create(POD, {**copy.deepcopy(made), "status": status})
        pod.manifest["metadata"]["uid"] = stored["metadata"]["uid"]
        return pod


async def control_and_injector(cluster: Cluster) -> tuple[Pod, Pod]:
    name = f"istiod{cluster.suffix}"
    control = await cluster.pod(cluster.made[f"Deployment/{name}"]["spec"]["template"], "istiod-1", "istio-system")
    cluster.node.hosts[f"{name}.istio-system.svc"] = control.ip
    await asyncio.to_thread(control.start)
    await asyncio.to_thread(control.ready)
    await cluster.eventually(lambda: cluster.get(SECRET, "istio-system", f"istio-sidecar-injector-certs{cluster.suffix}"))
    await cluster.eventually(lambda: cluster.get(CONFIG_MAP, "default", "istio-ca-root-cert"))
    await cluster.eventually(lambda: cluster.get(CONFIG_MAP, "istio-system", "istio-ca-root-cert"))
    injector = await cluster.pod(
        cluster.made[f"Deployment/istio-sidecar-injector{cluster.suffix}"]["spec"]["template"], "injector-1", "istio-system"
    )
    await asyncio.to_thread(injector.start)
    await asyncio.to_thread(injector.ready)
    return control, injector


def service(name: str, ip: str, port: Obj) -> Obj:
    spec = {"clusterIP": ip, "clusterIPs": [ip], "selector": {"app": name}, "ports": [{"protocol": "TCP", **port}]}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


def slice_of(name: str, port: Obj, pod: Pod) -> Obj:
    meta = {"name": f"{name}-abc12", "namespace": "default", "labels": {"kubernetes.io/service-name": name}}
    where = {"kind": "Pod", "name": pod.name, "namespace": "default"}
    endpoint = {"addresses": [pod.ip], "conditions": {"ready": True, "serving": True, "terminating": False}, "targetRef": where}
    ports = [{"name": port["name"], "port": port["targetPort"], "protocol": "TCP"}]
    return {"metadata": meta, "addressType": "IPv6" if ":" in pod.ip else "IPv4", "endpoints": [endpoint], "ports": ports}


@pytest.mark.parametrize(
    ("native", "six", "revision"),
    [
        pytest.param(False, False, "", id="classic"),
        pytest.param(True, False, "", id="native-two-workers"),
        pytest.param(True, True, "canary", id="revision-IPv6-only"),
    ],
)
def test_the_mesh_comes_up_from_its_manifests_and_traffic_flows(native: bool, six: bool, revision: str, tmp_path: Path) -> None:
    wish = f"values.pilot.env.ENABLE_NATIVE_SIDECARS={str(native).lower()}"
    domain = "shop.example" if revision else "cluster.local"
    objs = installed(
        tmp_path,
        *("--set", wish, "--set", f"meshConfig.trustDomain={domain}"),
        *(("--revision", revision) if revision else ()),
    )

    async def story(folder: Path, machine: Node) -> None:
        authority = Authority("cluster")
        pair = authority.issue(ip=(machine.ip,))
        (folder / "api.pem").write_bytes(pair.both)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(folder / "api.pem")
        tokens = Tokens()
        async with KubeServer(host=machine.ip, tls=context) as server:
            server.reviews = tokens.review
            cluster = Cluster(server, tokens, machine, authority.pem, f"-{revision}" if revision else "")
            labels = {"istio.io/rev": revision} if revision else {"istio-injection": "enabled"}
            await cluster.apply([{"kind": "Namespace", "metadata": {"name": "default", "labels": labels}}, *objs])
            await control_and_injector(cluster)
            strict = {"metadata": {"name": "default", "namespace": "istio-system"}, "spec": {"mtls": {"mode": "STRICT"}}}
            await server.store.create(PEER, strict)

            app: Obj = {"name": "app", "image": "app:1", "ports": [{"containerPort": 8080, "name": "web"}]}
            app["readinessProbe"] = {"httpGet": {"path": "/ok?deep=1", "port": "web"}, "timeoutSeconds": 5}
            plain = {"containers": [app], "securityContext": {"runAsUser": 1000}}
            pods = {}
            for name in ("caller", "callee"):
                wishes = "concurrency: 2" if native else "holdApplicationUntilProxyStarts: true"
                meta = {
                    "labels": {"app": name},
                    **({"annotations": {"proxy.istio.io/config": wishes}} if name == "callee" else {}),
                }
                template = {"metadata": meta, "spec": plain}
                pods[name] = await cluster.pod(template, f"{name}-1", "default")
            inits = [one["name"] for one in pods["caller"].manifest["spec"]["initContainers"]]
            assert inits == (["istio-init", "istio-proxy"] if native else ["istio-init"])
            gateway = await cluster.pod(
                cluster.made["Deployment/istio-ingressgateway"]["spec"]["template"], "gateway-1", "istio-system"
            )
            vips = ("fd96::8", "fd96::9") if six else ("10.96.0.8", "10.96.0.9")
            http = {"name": "http", "port": 80, "targetPort": 8080}
            tcp = {"name": "tcp-db", "port": 5432, "targetPort": 5432}
            for name, address, port in (("callee", vips[0], http), ("db", vips[1], tcp)):
                await server.store.create(SERVICE, service(name, address, port))
                await server.store.create(SLICE, slice_of(name, port, pods["callee"]))
            await server.store.create(SLICE, {**slice_of("none", http, gateway), "endpoints": None, "ports": None})
            entrance: Obj = {"selector": {"istio": "ingressgateway"}}
            entrance["servers"] = [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["shop.example"]}]
            await server.store.create(GATEWAY, {"metadata": {"name": "shop", "namespace": "default"}, "spec": entrance})
            spec = {"hosts": ["shop.example"], "gateways": ["shop"], "http": [{"route": [{"destination": {"host": "callee"}}]}]}
            await server.store.create(VS, {"metadata": {"name": "shop", "namespace": "default"}, "spec": spec})

            await asyncio.gather(*(asyncio.to_thread(pod.start, "app") for pod in (*pods.values(), gateway)))
            await asyncio.gather(*(asyncio.to_thread(pod.ready) for pod in (*pods.values(), gateway)))
            await asyncio.to_thread(traffic, pods["caller"], pods["callee"], gateway, *vips, domain)
            await judged(cluster)
            if native:
                proxy = pods["caller"].manifest["spec"]["initContainers"][1]
                await asyncio.to_thread(pods["caller"].exec, proxy, proxy["lifecycle"]["preStop"]["exec"]["command"])
            assert not cluster.forbidden(), "control's role would not let it"
            for pod in machine.pods:
                for one in (*pod.manifest["spec"].get("initContainers", ()), *pod.manifest["spec"]["containers"]):
                    assert "Traceback" not in pod.log(one["name"]), pod.log(one["name"])
            await asyncio.to_thread(stop_all, machine)

    with tempfile.TemporaryDirectory(prefix="cluster") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with node(f"mk{os.getpid() % 100000}{next(_numbers)}", folder / "node", six=six) as machine:
            machine.space.within(lambda: asyncio.run(asyncio.wait_for(story(folder, machine), 240)))


def stop_all(machine: Node) -> None:
    """The workloads first, as one drains a node; all of it while there is an API server."""
    for pod in reversed(machine.pods):
        pod.stop()
    machine.pods.clear()


def traffic(caller: Pod, callee: Pod, gateway: Pod, web: str, db: str, domain: str) -> None:
    probe = next(one for one in callee.manifest["spec"]["containers"] if one["name"] == "app")["readinessProbe"]["httpGet"]
    with callee.space.listen(callee.ip, 8080) as app:
        with caller.node.space.connect(callee.ip, probe["port"]) as kubelet:  # which has no certificate
            kubelet.send(f"GET {probe['path']} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            with app.accept() as server:
                assert server.request()[0] == "GET /ok?deep=1 HTTP/1.1"
                server.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                assert kubelet.response().status == 200
        with caller.space.connect(web, 80) as client:
            client.send(b"GET /a HTTP/1.1\r\nhost: callee\r\n\r\n")
            with app.accept() as server:
                line, headers, _ = server.request()
                assert line == "GET /a HTTP/1.1"
                assert f"URI=spiffe://{domain}/ns/default/sa/default" in headers["x-forwarded-client-cert"]
                assert app.source == ("::6" if ":" in callee.ip else "127.0.0.6")
                server.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                assert client.response().body == b"ok"
        with caller.node.space.connect(gateway.ip, 8080) as client:
            client.send(b"GET /b HTTP/1.1\r\nhost: shop.example\r\n\r\n")
            with app.accept() as server:
                line, headers, _ = server.request()
                account = f"spiffe://{domain}/ns/istio-system/sa/istio-ingressgateway-service-account"
                assert line == "GET /b HTTP/1.1" and account in headers["x-forwarded-client-cert"]
                server.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
                assert client.response().body == b"hi"
    with callee.space.listen(callee.ip, 5432) as app, caller.space.connect(db, 5432) as client:
        client.send(b"select 1")
        with app.accept() as server:
            assert server.exactly(8) == b"select 1"
            server.send(b"one")
            assert client.exactly(3) == b"one"


async def judged(cluster: Cluster) -> None:
    """The validating webhook, by its own name and bundle."""
    kind = cluster.server.kind(HOOKS, "validatingwebhookconfigurations")
    hooks = await cluster.server.store.get(kind, None, f"istio-validator-istio-system{cluster.suffix}")
    bad = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "x", "namespace": "default"}}
    request = {"operation": "CREATE", "namespace": "default", "name": "x", "object": {**bad, "spec": {"hosts": 5}}}
    request |= {"kind": {"group": "networking.istio.io", "version": "v1", "kind": "VirtualService"}}
    response = await cluster.ask(hooks["webhooks"][0], request)
    assert response["allowed"] is False and "hosts" in response["status"]["message"]
