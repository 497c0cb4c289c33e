"""What only the leader does: the webhooks' certificate, the roots everywhere, status."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from control.analyze.finding import Finding
from control.ca.authority import Authority
from control.cluster.authority import ClusterAuthority, begin
from control.cluster.roots import Roots
from control.cluster.status import StatusWriter, wanted_status
from control.cluster.webhooks import Webhooks
from control.resources.kinds import by_kind
from control.store.kubernetes.client import ApiServer
from control.store.kubernetes.reflector import Timing
from control.store.memory import MemoryStore
from tests.control.incluster import furnish
from tests.control.kubeserver import Fault, KubeServer

SECRET, CONFIG_MAP, NAMESPACE = by_kind("", "Secret"), by_kind("", "ConfigMap"), by_kind("", "Namespace")
VS = by_kind("networking.istio.io", "VirtualService")
QUICK = Timing(first=0.01, longest=0.05, missing=0.02, pause=0.01)


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def cluster(tmp_path: Path) -> AsyncIterator[tuple[KubeServer, ApiServer]]:
    async with KubeServer() as server:
        await furnish(server)
        api = ApiServer(server.kubeconfig(tmp_path / "kubeconfig"))
        await api.connect()
        try:
            yield server, api
        finally:
            await api.close()


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 60))  # type: ignore[arg-type]


def authority(tmp_path: Path) -> ClusterAuthority:
    return ClusterAuthority(*begin(time.time()), tmp_path, lambda data: None)


async def served(server: KubeServer) -> x509.Certificate:
    found = await server.store.get(SECRET, "istio-system", "istio-sidecar-injector-certs")
    return x509.load_pem_x509_certificate(base64.b64decode(found["data"]["tls.crt"]))


async def bundles(server: KubeServer) -> set[str]:
    said = set()
    for plural, name in (
        ("mutatingwebhookconfigurations", "istio-sidecar-injector"),
        ("validatingwebhookconfigurations", "istio-validator-istio-system"),
    ):
        found = await server.store.get(server.kind("admissionregistration.k8s.io", plural), None, name)
        said |= {hook["clientConfig"]["caBundle"] for hook in found["webhooks"]}
    return said


def test_the_webhooks_certificate_is_renewed_at_half_of_its_life_and_for_another_authority(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as (server, api):
            clock, signs = Clock(), authority(tmp_path)
            webhooks = Webhooks(api, "istio-system", lambda: signs, wall=clock)
            await webhooks.settle()
            first = await served(server)
            assert await bundles(server) == {base64.b64encode(signs.root_pem).decode()}
            await webhooks.settle()
            assert await served(server) == first, "what is right is not written"
            clock.now += 16 * 86400
            await webhooks.settle()
            second = await served(server)
            assert second != first
            signs.begin(clock())
            await webhooks.settle()
            assert await bundles(server) == {base64.b64encode(signs.root_pem).decode()}, (
                "both roots, before anything is under the new"
            )
            signs.switch(clock())
            await webhooks.settle()
            third = await served(server)
            third.verify_directly_issued_by(signs.issuer.certificate)

    run(story)


def test_a_bundle_that_cannot_be_written_does_not_keep_the_injector_from_its_certificate(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as (server, api):
            signs: Authority = authority(tmp_path)
            server.faults.append(Fault("mutatingwebhook", 403, method="PATCH"))
            with pytest.raises(Exception, match="403"):
                await Webhooks(api, "istio-system", lambda: signs).settle()
            await served(server)

    run(story)


def test_every_namespace_has_the_roots_and_gets_them_back(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as (server, api):
            said = [b"one"]
            roots = Roots(api, server.store, lambda: said[0], QUICK)
            tasks = [asyncio.ensure_future(roots.run()), asyncio.ensure_future(roots.watch.run())]

            async def holds(namespace: str, text: bytes) -> None:
                async with asyncio.timeout(20):
                    async for _ in _changes(server.store):
                        found, _ = await server.store.list(CONFIG_MAP, namespace)
                        if [one["data"]["root-cert.pem"].encode() for one in found] == [text]:
                            return

            try:
                for namespace in ("default", "istio-system"):
                    await holds(namespace, b"one")
                await server.store.create(NAMESPACE, {"metadata": {"name": "late"}})
                await holds("late", b"one")
                said[0] = b"two"
                roots.look()
                for namespace in ("default", "istio-system", "late"):
                    await holds(namespace, b"two")
                await server.until(lambda: server.watching("configmaps"))
                await server.store.delete(CONFIG_MAP, "late", "istio-ca-root-cert")
                await holds("late", b"two")
                ending = {"name": "ending", "deletionTimestamp": "2026-01-01T00:00:00Z"}
                await server.store.create(NAMESPACE, {"metadata": ending})
                assert not await roots.settle()
                assert not (await server.store.list(CONFIG_MAP, "ending"))[0]
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    run(story)


async def _changes(store: MemoryStore) -> AsyncIterator[None]:
    """Once now, and after every change."""
    events = store.watch(store.version)
    yield None
    try:
        async for _ in events:
            yield None
    finally:
        await events.aclose()  # type: ignore[attr-defined]


def finding(level: Any = "Error") -> Finding:
    return Finding("IST0101", level, "VirtualService", "default", "v", "spec.http[0]", "there is no host nobody")


def test_status_in_istios_words() -> None:
    obj: dict[str, Any] = {"metadata": {"name": "v", "generation": 3}, "spec": {}}
    status = wanted_status(obj, [finding()], 0.0)
    assert status is not None
    assert status["observedGeneration"] == 3
    assert status["validationMessages"] == [
        {
            "type": {"name": "ReferencedResourceNotFound", "code": "IST0101"},
            "level": "ERROR",
            "documentationUrl": "https://istio.io/latest/docs/reference/config/analysis/ist0101/",
            "message": "spec.http[0]: there is no host nobody",
        }
    ]
    condition = status["conditions"][0]
    assert (condition["type"], condition["status"]) == ("PassedValidation", "False")
    assert condition["lastTransitionTime"] == "1970-01-01T00:00:00Z"
    assert wanted_status({**obj, "status": status}, [finding()], 99.0) is None, "what is so already is not written"
    other = {"type": "Reconciled", "status": "True"}
    mended = wanted_status({**obj, "status": {**status, "conditions": [other, condition]}}, [], 99.0)
    assert mended is not None and mended["validationMessages"] == []
    assert mended["conditions"][0] == other, "what others write stays"
    assert mended["conditions"][1]["status"] == "True"
    assert mended["conditions"][1]["lastTransitionTime"] == "1970-01-01T00:01:39Z"
    warned = wanted_status({**obj, "status": mended}, [finding("Warning")], 200.0)
    assert warned is not None and warned["conditions"][1]["status"] == "True", "a warning is no failure"
    assert warned["conditions"][1]["lastTransitionTime"] == "1970-01-01T00:01:39Z"


@pytest.mark.parametrize("odd", [None, 7, {"conditions": 7}, {"conditions": [None]}, {"validationMessages": "x"}])
def test_a_status_that_is_none_is_replaced(odd: Any) -> None:
    status = wanted_status({"metadata": {"name": "v"}, "status": odd}, [], 0.0)
    assert status is not None and [one["type"] for one in status["conditions"]] == ["PassedValidation"]


def test_status_is_written_once_and_a_conflict_costs_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as (server, api):
            for name in ("a", "v"):
                await server.store.create(VS, {"metadata": {"name": name, "namespace": "default"}, "spec": {}})
            pauses: list[float] = []
            rest = asyncio.Event()

            async def sleep(seconds: float) -> None:
                pauses.append(seconds)
                if seconds >= 1:
                    rest.set()
                    await asyncio.Event().wait()

            async def analyse() -> list[Finding]:
                return [finding()]

            server.faults.append(Fault("virtualservices/a/status", 409, method="PATCH", reason="Conflict"))
            for writes in (2, 3, 3):
                rest.clear()
                writer = asyncio.ensure_future(StatusWriter(api, server.store, analyse, sleep=sleep).run())
                await asyncio.wait_for(rest.wait(), 20)
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
                assert sum("/status" in line for line in server.requests) == writes
            assert (await server.store.get(VS, "default", "v"))["status"]["conditions"][0]["status"] == "False"
            assert (await server.store.get(VS, "default", "a"))["status"]["conditions"][0]["status"] == "True"
            assert (await server.store.get(VS, "default", "a"))["metadata"]["generation"] == 1

    run(story)
