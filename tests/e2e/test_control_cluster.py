"""mesh-control with a cluster as its store: real processes, before something that behaves as an API server."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509

from control.resources.kinds import by_kind
from control.store.api import NotFound
from tests.control.incluster import Tokens, allowed, furnish
from tests.control.kubeserver import KubeServer
from tests.e2e.mesh_control_process import ROOT, ControlProcess, Sidecar

SERVICE, POD, SLICE = by_kind("", "Service"), by_kind("", "Pod"), by_kind("discovery.k8s.io", "EndpointSlice")
SECRET, CONFIG_MAP, NAMESPACE = by_kind("", "Secret"), by_kind("", "ConfigMap"), by_kind("", "Namespace")
VS = by_kind("networking.istio.io", "VirtualService")
CLUSTER = "outbound|80||rating.default.svc.cluster.local"
Obj = dict[str, Any]


class Scene:
    """A cluster with two pods and a service, and replicas of control on it."""

    def __init__(self, server: KubeServer, tokens: Tokens, tmp_path: Path, bind: str) -> None:
        self.server = server
        self.tokens = tokens
        self.path = tmp_path
        self.bind = bind
        self.replicas: list[ControlProcess] = []

    async def replica(self, *options: str) -> ControlProcess:
        number = len(self.replicas)
        more = ("--store", "kubernetes", "--kubeconfig", str(self.server.kubeconfig(self.path / "kubeconfig")), "--lease", "2")
        made = ControlProcess(self.path / f"state{number}", self.bind, *more, "--debounce", "0.01", *options)
        self.replicas.append(made)
        await asyncio.to_thread(made.start)
        ca = self.path / f"state{number}" / "ca"
        ca.mkdir(exist_ok=True)
        roots = await self.eventually(lambda: self.get(CONFIG_MAP, "default", "istio-ca-root-cert"))
        (ca / "root.pem").write_text(roots["data"]["root-cert.pem"])
        return made

    async def get(self, kind: Any, namespace: str | None, name: str) -> Obj | None:
        try:
            found: Obj = await self.server.store.get(kind, namespace, name)
            return found
        except NotFound:
            return None

    async def eventually(self, look: Callable[[], Awaitable[Any]]) -> Any:
        async with asyncio.timeout(30):
            while not (found := await look()):
                await asyncio.sleep(0.01)
            return found

    async def token_file(self, pod: str) -> Path:
        made = await self.get(POD, "default", pod)
        assert made is not None
        token = self.tokens.issue("default", "sa", "istio-ca", time.time() + 3600, pod, made["metadata"]["uid"])
        path = self.path / f"{pod}.token"
        path.write_text(token)
        return path

    def person(self, role: str) -> str:
        return self.tokens.issue("istio-system", f"mesh-{role}", "mesh-api", time.time() + 600)


def pod(name: str, ip: str) -> Obj:
    spec = {"serviceAccountName": "sa", "containers": [{"name": "app"}]}
    status = {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]}
    return {"metadata": {"name": name, "namespace": "default", "labels": {"app": name}}, "spec": spec, "status": status}


def addresses(*ready: tuple[str, bool]) -> Obj:
    meta = {"name": "rating-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "rating"}}
    endpoints = [{"addresses": [address], "conditions": {"ready": is_ready}} for address, is_ready in ready]
    return {"metadata": meta, "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": 8080}]}


@asynccontextmanager
async def scene(tmp_path: Path, bind: str) -> AsyncIterator[Scene]:
    async with KubeServer() as server:
        tokens = await furnish(server)
        for name, ip in (("book", "10.0.0.1"), ("rating", "10.0.0.2")):
            await server.store.create(POD, pod(name, ip))
        ports = [{"name": "http", "port": 80, "targetPort": 8080}]
        service = {"metadata": {"name": "rating", "namespace": "default"}, "spec": {"clusterIP": "10.96.0.1", "ports": ports}}
        await server.store.create(SERVICE, service)
        await server.store.create(SLICE, addresses(("10.0.0.2", True), ("10.0.0.3", False)))
        made = Scene(server, tokens, tmp_path, bind)
        try:
            yield made
        finally:
            for one in made.replicas:
                await asyncio.to_thread(one.stop)
        refused = {line for agent, line in server.asked if agent == "mesh-control" and not allowed(line)}
        assert not refused, "control's manifests would not let it"


@asynccontextmanager
async def connected(stage: Scene, control: ControlProcess, name: str = "book") -> AsyncIterator[Sidecar]:
    sidecar = Sidecar(control, await stage.token_file(name), name)
    task = asyncio.ensure_future(sidecar.agent.run())
    try:
        yield sidecar
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.01)


def test_a_sidecar_is_served_from_the_cluster_and_goes_on_without_its_api_server(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path, "127.0.41.1") as stage:
            control = await stage.replica()
            async with connected(stage, control) as sidecar:
                await until(lambda: sidecar.addresses(CLUSTER) == ["10.0.0.2"])
                slices = await stage.get(SLICE, "default", "rating-1")
                assert slices is not None
                await stage.server.store.update(SLICE, {**slices, **addresses(("10.0.0.2", True), ("10.0.0.3", True))})
                await until(lambda: sidecar.addresses(CLUSTER) == ["10.0.0.2", "10.0.0.3"])

                await stage.server.stop()
                pushes = len(sidecar.pushes)
                async with control.client(stage.person("view")) as client:
                    answer = await client.get("/mesh/v1/proxies")
                    assert answer.status_code == 503, "nobody new comes in while the API server cannot be asked"
                    assert answer.headers["retry-after"]
                await stage.server.store.delete(POD, "default", "rating")
                slices = await stage.get(SLICE, "default", "rating-1")
                await stage.server.store.update(SLICE, {**slices, **addresses(("10.0.0.3", True))})  # type: ignore[dict-item]
                assert len(sidecar.pushes) == pushes and sidecar.addresses(CLUSTER) == ["10.0.0.2", "10.0.0.3"]
                await stage.server.start()
                await until(lambda: sidecar.addresses(CLUSTER) == ["10.0.0.3"])
                assert CLUSTER in sidecar.names("cluster"), "nothing was taken away meanwhile"
                async with control.client(stage.person("view")) as client:
                    await stage.eventually(lambda: _ok(client, "/mesh/v1/proxies"))
            assert await asyncio.to_thread(control.signal, signal.SIGTERM) == 0

    asyncio.run(story())


async def _ok(client: httpx.AsyncClient, path: str) -> bool:
    return (await client.get(path)).status_code == 200


def test_replicas_share_an_authority_and_one_of_them_leads(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path, "127.0.41.2") as stage:
            first = await stage.replica()
            second = await stage.replica()
            lease = stage.server.kind("coordination.k8s.io", "leases", "Lease")

            async def holder() -> str:
                found = await stage.get(lease, "istio-system", "istio-leader")
                return found["spec"]["holderIdentity"] if found else ""

            leader = await holder()
            async with httpx.AsyncClient(trust_env=False) as client:
                pages = [(await client.get(one.metrics + "/metrics")).text for one in (first, second)]
            assert ["mesh_leader 1.0" in page for page in pages] == [True, False]
            assert all("mesh_cluster_unread 0.0" in page for page in pages)
            secret = await stage.get(SECRET, "istio-system", "istio-ca-secret")
            assert secret is not None and {"ca-cert.pem", "ca-key.pem", "root-cert.pem"} <= secret["data"].keys()
            assert secret["type"] == "istio.io/ca-root"
            root = base64.b64decode(secret["data"]["root-cert.pem"])
            for replica in (first, second):  # each shows a certificate of the one authority, and signs under it
                assert (replica.state / "ca" / "root.pem").read_bytes() == root
                async with connected(stage, replica) as sidecar:
                    await until(lambda one=sidecar: one.addresses(CLUSTER))

            injector = await stage.eventually(lambda: stage.get(SECRET, "istio-system", "istio-sidecar-injector-certs"))
            certificate = x509.load_pem_x509_certificate(base64.b64decode(injector["data"]["tls.crt"]))
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert "istio-sidecar-injector.istio-system.svc" in names.get_values_for_type(x509.DNSName)
            hooks = stage.server.kind("admissionregistration.k8s.io", "mutatingwebhookconfigurations")

            async def bundled() -> bool:
                found = await stage.get(hooks, None, "istio-sidecar-injector")
                assert found is not None
                return all(base64.b64decode(one["clientConfig"]["caBundle"]) == root for one in found["webhooks"])

            await stage.eventually(bundled)

            await asyncio.to_thread(first.stop)  # killed: the Lease has to run out

            async def other() -> bool:
                return await holder() not in ("", leader)

            await stage.eventually(other)
            await stage.server.store.create(NAMESPACE, {"metadata": {"name": "late"}})
            roots = await stage.eventually(lambda: stage.get(CONFIG_MAP, "late", "istio-ca-root-cert"))
            assert roots["data"]["root-cert.pem"].encode() == root
            async with connected(stage, second) as sidecar:
                await until(lambda: sidecar.addresses(CLUSTER))

    asyncio.run(story())


def test_what_analysis_finds_is_written_into_the_object_and_revocations_reach_every_replica(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path, "127.0.41.3") as stage:
            first = await stage.replica()
            second = await stage.replica()
            route = {"route": [{"destination": {"host": "nobody"}}]}
            spec = {"hosts": ["rating"], "http": [route]}
            await stage.server.store.create(VS, {"metadata": {"name": "v", "namespace": "default"}, "spec": spec})

            async def judged() -> Obj | None:
                found = await stage.get(VS, "default", "v")
                return found.get("status") if found else None

            status = await stage.eventually(judged)
            assert [one["type"]["code"] for one in status["validationMessages"]] == ["IST0101"]
            assert status["conditions"][0]["type"] == "PassedValidation" and status["conditions"][0]["status"] == "False"
            assert status["observedGeneration"] == 1

            admin, view = stage.person("admin"), stage.person("view")
            async with first.client(view) as client:
                answer = await client.post("/mesh/v1/ca/revocations", json={"subject": "default/sa"})
                assert answer.status_code == 403
            async with first.client(admin) as client:
                answer = await client.post("/mesh/v1/ca/revocations", json={"subject": "default/sa"})
                assert answer.status_code == 201, answer.text
                assert await stage.get(CONFIG_MAP, "istio-system", "istio-ca-revocations")
            async with second.client(admin) as client:

                async def revoked() -> list[Obj]:
                    found = (await client.get("/mesh/v1/ca/revocations")).json()
                    return found["identities"]

                assert [one["identity"] for one in await stage.eventually(revoked)] == ["spiffe://cluster.local/ns/default/sa/sa"]

    asyncio.run(story())


def test_distribution_is_told_of_objects_by_the_cluster(tmp_path: Path) -> None:
    """``meshctl wait --for=distribution``: versions of the cluster are not those of control."""

    async def story() -> None:
        async with scene(tmp_path, "127.0.41.4") as stage:
            control = await stage.replica()
            async with connected(stage, control) as sidecar, control.client(stage.person("view")) as client:
                await until(lambda: sidecar.addresses(CLUSTER))
                fault = {"abort": {"httpStatus": 418, "percentage": {"value": 100}}}
                spec = {"hosts": ["rating"], "http": [{"fault": fault, "route": [{"destination": {"host": "rating"}}]}]}
                made = await stage.server.store.create(VS, {"metadata": {"name": "v", "namespace": "default"}, "spec": spec})
                params = {"group": VS.group, "plural": VS.plural, "namespace": "default", "name": "v"}
                params["resourceVersion"] = made["metadata"]["resourceVersion"]

                async def done() -> bool:
                    answer = await client.get("/mesh/v1/distribution", params=params)
                    assert answer.status_code == 200, answer.text
                    return answer.json()["pending"] == [] and answer.json()["done"] == ["default/book"]

                await stage.eventually(done)
                assert "418" in json.dumps([str(one) for one in sidecar.state.resources["route"].values()])

    asyncio.run(story())


def test_meshctl_reaches_control_through_the_clusters_api_server(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path, "127.0.41.6") as stage:
            control = await stage.replica()
            stage.server.behind = control.url
            may = {"mesh-view"}
            stage.server.tokens = lambda namespace, account, spec: (
                stage.tokens.issue(namespace, account, spec["audiences"][0], time.time() + 600) if account in may else None
            )
            config = str(stage.server.kubeconfig(tmp_path / "people"))

            async def meshctl(*words: str) -> tuple[int, str]:
                command = (sys.executable, "-m", "control.cli", *words, "--kubeconfig", config)
                pipe = asyncio.subprocess.PIPE
                process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=asyncio.subprocess.STDOUT, cwd=ROOT)
                said, _ = await process.communicate()
                return process.returncode or 0, said.decode()

            async with connected(stage, control) as sidecar:
                await until(lambda: sidecar.addresses(CLUSTER))
                code, said = await meshctl("proxy-status")
                assert code == 0 and "book" in said, said
                code, said = await meshctl("ca", "revoke", "default/sa")
                assert code == 1 and "mesh-admin/token is forbidden" in said, said
                may.add("mesh-admin")
                code, said = await meshctl("ca", "revoke", "default/other", "--yes")
                assert code == 0 and await stage.get(CONFIG_MAP, "istio-system", "istio-ca-revocations"), said
            assert all("control" not in str(line) for line in stage.server.carried), "nobody's own token went there"

    asyncio.run(story())


def test_the_api_servers_proxy_may_carry_a_token_in_a_header_of_ours(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path, "127.0.41.5") as stage:
            control = await stage.replica()
            context = ssl.create_default_context(cadata=(control.state / "ca" / "root.pem").read_text())
            async with httpx.AsyncClient(base_url=control.url, verify=context, trust_env=False) as client:
                carried = {"x-mesh-authorization": f"Bearer {stage.person('view')}"}
                assert (await client.get("/mesh/v1/proxies", headers=carried)).status_code == 200
                assert (await client.get("/mesh/v1/proxies")).status_code == 401
                assert (await client.get("/api/v1/services", headers=carried)).status_code == 404

    asyncio.run(story())
