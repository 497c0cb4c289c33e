"""Control on what ``install`` prints: the default revision and one beside it, each on its own objects."""

from __future__ import annotations

import asyncio
import base64
import time
from contextlib import aclosing
from pathlib import Path

import pytest
from cryptography import x509

from control.__main__ import main
from control.cluster.authority import ClusterAuthority, begin
from control.cluster.webhooks import Webhooks
from control.install.manifest import objects
from control.install.overlay import read
from control.install.plan import settle
from control.resources.kinds import by_kind
from control.store.api import NotFound
from control.store.kubernetes.client import ApiServer
from control.store.kubernetes.reflector import Timing
from control.store.kubernetes.store import KubernetesStore
from tests.control.incluster import allowed
from tests.control.kubeserver import KubeServer

SECRET, CONFIG_MAP, NAMESPACE = by_kind("", "Secret"), by_kind("", "ConfigMap"), by_kind("", "Namespace")
GROUP = "admissionregistration.k8s.io"
QUICK = Timing(first=0.01, longest=0.05, missing=0.02, pause=0.01)


async def install(server: KubeServer, revision: str) -> None:
    plan = settle(read([], ["profile=minimal", f"meshConfig.trustDomain={revision or 'first'}.example"], revision)[0])
    for obj in objects(plan):
        if obj["kind"] == "Namespace":
            if not revision:
                await server.store.create(NAMESPACE, obj)
        elif obj["kind"] == "ConfigMap":
            await server.store.create(CONFIG_MAP, obj)
        elif obj["kind"].endswith("WebhookConfiguration"):
            await server.store.create(server.kind(GROUP, obj["kind"].lower() + "s", obj["kind"]), obj)


@pytest.mark.parametrize("revision, suffix, other", [("", "", "-canary"), ("canary", "-canary", "")])
def test_each_keeps_its_own(tmp_path: Path, revision: str, suffix: str, other: str) -> None:
    async def story() -> None:
        async with KubeServer() as server:
            await install(server, "")
            await install(server, "canary")
            api = ApiServer(server.kubeconfig(tmp_path / "kubeconfig"))
            await api.connect()
            try:
                signs = ClusterAuthority(*begin(time.time()), tmp_path, lambda data: None)
                await Webhooks(api, "istio-system", lambda: signs, revision=revision).settle()
                secret = await server.store.get(SECRET, "istio-system", f"istio-sidecar-injector-certs{suffix}")
                certificate = x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))
                names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
                certified = names.get_values_for_type(x509.DNSName)
                with pytest.raises(NotFound):
                    await server.store.get(SECRET, "istio-system", f"istio-sidecar-injector-certs{other}")
                for plural, name in (
                    ("mutatingwebhookconfigurations", "istio-sidecar-injector"),
                    ("validatingwebhookconfigurations", "istio-validator-istio-system"),
                ):
                    mine = await server.store.get(server.kind(GROUP, plural), None, name + suffix)
                    for hook in mine["webhooks"]:
                        client = hook["clientConfig"]
                        assert client["caBundle"] == base64.b64encode(signs.root_pem).decode()
                        assert hook["failurePolicy"] == "Fail", "from here on what cannot be judged is refused"
                        assert f"{client['service']['name']}.istio-system.svc" in certified
                    theirs = await server.store.get(server.kind(GROUP, plural), None, name + other)
                    assert all("caBundle" not in hook["clientConfig"] for hook in theirs["webhooks"])
                if not revision:
                    assert [line for line in server.requests if not line.endswith("/version") and not allowed(line)] == []
            finally:
                await api.close()

    asyncio.run(asyncio.wait_for(story(), 60))


@pytest.mark.parametrize("name, domain", [("istio", "first.example"), ("istio-canary", "canary.example")])
def test_each_reads_its_own_mesh_config(tmp_path: Path, name: str, domain: str) -> None:
    async def story() -> None:
        async with KubeServer() as server:
            await install(server, "")
            await install(server, "canary")
            api = ApiServer(server.kubeconfig(tmp_path / "kubeconfig"))
            await api.connect()
            store = KubernetesStore(api, timing=QUICK, mesh_config=name)
            try:
                await asyncio.wait_for(store.open(), 20)
                found, version = await store.list(CONFIG_MAP)
                assert [one["metadata"]["name"] for one in found] == ["istio"], "there the mesh's settings are looked for"
                assert domain in found[0]["data"]["mesh"]
                await server.store.delete(CONFIG_MAP, "istio-system", name)
                async with asyncio.timeout(20), aclosing(store.watch(version, CONFIG_MAP)) as events:  # type: ignore[type-var]
                    event = await anext(aiter(events))
                    assert (event.type, event.object["metadata"]["name"]) == ("DELETED", "istio")
            finally:
                await store.close()
                await api.close()

    asyncio.run(asyncio.wait_for(story(), 60))


def test_a_revision_is_for_clusters(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["serve", "--state", str(tmp_path), "--revision", "canary"]) == 2
    assert "--revision: is for --store kubernetes" in capsys.readouterr().err
