"""The authority in its Secret, shared by replicas."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from control.ca.authority import State
from control.ca.issuer import Issuer
from control.ca.material import make_root
from control.ca.rotation import Rotation
from control.ca.service import CertificateAuthority
from control.cluster.authority import ClusterAuthority, begin, pack, unpack
from control.cluster.keeping import Keeping
from control.cluster.revocations import ClusterLedger
from control.files import FileProblem
from control.resources.kinds import by_kind
from control.store.kubernetes.client import ApiServer
from control.store.kubernetes.reflector import Timing
from tests.control.kubeserver import Fault, KubeServer

SECRET, CONFIG_MAP = by_kind("", "Secret"), by_kind("", "ConfigMap")
QUICK = Timing(first=0.01, longest=0.05, missing=0.02, pause=0.01)


class Replica:
    def __init__(self, keeping: Keeping, authority: ClusterAuthority, ledger: ClusterLedger) -> None:
        self.keeping = keeping
        self.authority = authority
        self.ca = CertificateAuthority(authority, ledger, lambda: "cluster.local")
        self.told = 0
        self.news = asyncio.Event()
        self.ca.changed = self._changed
        self.tasks = [asyncio.ensure_future(keeping.follow(self.ca, authority, ledger))]
        self.tasks += [asyncio.ensure_future(one.run()) for one in keeping.watches]

    async def _changed(self) -> None:
        self.told += 1
        self.news.set()

    async def until(self, holds: Callable[[], Any]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                self.news.clear()
                if holds():
                    return
                await self.news.wait()

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.ca.close()


class Stage:
    def __init__(self, server: KubeServer, api: ApiServer, path: Path) -> None:
        self.server, self.api, self.path = server, api, path
        self.replicas: list[Replica] = []

    async def replica(self, *, leads: bool = False) -> Replica:
        scratch = self.path / f"r{len(self.replicas)}"
        scratch.mkdir(mode=0o700)
        keeping = Keeping(self.api, "istio-system", scratch, timing=QUICK)
        keeping.leading = lambda: leads
        if leads:
            await keeping.make()
        made = Replica(keeping, *await asyncio.wait_for(keeping.open(scratch / "certificates.db"), 20))
        self.replicas.append(made)
        return made

    async def plug(self, issuer: Issuer) -> None:
        data = {name: base64.b64encode(value).decode() for name, value in pack(*_alone(issuer)).items() if name != "state.json"}
        body = {"metadata": {"name": "cacerts", "namespace": "istio-system"}, "type": "Opaque", "data": data}
        await self.server.store.create(SECRET, body)


def _alone(issuer: Issuer) -> tuple[State, dict[str, Issuer]]:
    return State(issuer.id, (issuer.id,)), {issuer.id: issuer}


@asynccontextmanager
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with KubeServer() as server:
        api = ApiServer(server.kubeconfig(tmp_path / "kubeconfig"))
        await api.connect()
        made = Stage(server, api, tmp_path)
        try:
            yield made
        finally:
            for one in made.replicas:
                await one.stop()
            await api.close()


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 60))  # type: ignore[arg-type]


def test_the_secret_is_what_istio_reads_and_writes(tmp_path: Path) -> None:
    now = time.time()
    state, issuers = begin(now)
    data = pack(state, issuers)
    assert data.keys() == {"ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem", "state.json"}
    again, same = unpack(data, now, tmp_path)
    assert (again, same.keys()) == (state, issuers.keys())
    of_istio = {name: value for name, value in data.items() if name != "state.json"}
    assert unpack(of_istio, now, tmp_path)[0] == state
    assert not list(tmp_path.iterdir()), "no key stays on the disk"


@pytest.mark.parametrize("broken", ["ca-key.pem", "ca-cert.pem", "state.json"])
def test_a_damaged_secret_is_told_of_in_one_line_without_its_content(tmp_path: Path, broken: str) -> None:
    data = pack(*begin(time.time()))
    with pytest.raises(FileProblem) as told:
        unpack({**data, broken: b"hidden"}, time.time(), tmp_path)
    assert f"Secret istio-ca-secret: {broken}" in str(told.value)
    assert "hidden" not in str(told.value) and str(tmp_path) not in str(told.value)


def test_a_replica_that_starts_first_waits_for_the_leaders_authority(tmp_path: Path) -> None:
    async def story() -> None:
        async with stage(tmp_path) as s:
            waiting = asyncio.ensure_future(s.replica())
            await s.server.until_asked("istio-ca-secret")
            assert not waiting.done()
            keeping = Keeping(s.api, "istio-system", tmp_path, timing=QUICK)
            await keeping.make()
            assert (await waiting).authority.issuer.expires > time.time()

    run(story)


def test_a_rotation_at_one_replica_is_taken_over_by_the_others(tmp_path: Path) -> None:
    async def story() -> None:
        async with stage(tmp_path) as s:
            first, second = await s.replica(leads=True), await s.replica()
            old = first.authority.issuer.id
            await first.ca.step(lambda authority: authority.begin(time.time()))
            await second.until(lambda: len(second.authority.roots) == 2)
            assert second.authority.issuer.id == old
            await first.ca.step(lambda authority: authority.switch(time.time()))
            await second.until(lambda: second.authority.issuer.id != old)
            assert second.authority.issuer.id == first.authority.issuer.id
            await second.ca.step(lambda authority: authority.finish(time.time()))  # whoever leads by then
            await first.until(lambda: len(first.authority.roots) == 1)
            secret = await s.server.store.get(SECRET, "istio-system", "istio-ca-secret")
            assert len([name for name in secret["data"] if name.endswith("ca-key.pem")]) == 1, "the old key is gone"

    run(story)


def test_a_step_that_the_cluster_did_not_take_was_not_made(tmp_path: Path) -> None:
    async def story() -> None:
        async with stage(tmp_path) as s:
            one = await s.replica(leads=True)
            s.server.faults.append(Fault("istio-ca-secret", 503, method="PUT"))
            with pytest.raises(FileProblem, match="not made"):
                await one.ca.step(lambda authority: authority.begin(time.time()))
            assert len(one.authority.roots) == 1 and one.authority.rotating is None
            await one.ca.step(lambda authority: authority.begin(time.time()))
            assert len(one.authority.roots) == 2

    run(story)


class _Nobody:
    """No sidecar is connected here; those of other replicas are not known."""

    def distrusting(self) -> dict[str, str]:
        return {}

    def connected(self, namespace: str, pod: str) -> bool:
        return False

    def exists(self, namespace: str, pod: str) -> bool:
        return True


def test_a_rotation_waits_for_what_only_others_can_know_and_goes_on_at_the_next_leader(tmp_path: Path) -> None:
    async def story() -> None:
        async with stage(tmp_path) as s:
            first, second = await s.replica(leads=True), await s.replica()
            held = ["certificates of other replicas"]
            now = [time.time()]

            def rotation(one: Replica) -> Rotation:
                return Rotation(one.ca, _Nobody(), wall=lambda: now[0], hold=lambda rotating, at: held[0])

            leader = rotation(first)
            await leader.begin(None, force=False)
            await leader.step()
            assert leader.waiting == ("certificates of other replicas",) and not first.authority.rotating.switched  # type: ignore[union-attr]
            held[0] = ""
            await leader.step()
            assert first.authority.rotating is not None and first.authority.rotating.switched
            held[0] = "certificates under the old root"
            await second.until(lambda: second.authority.rotating is not None and second.authority.rotating.switched)
            successor = rotation(second)
            await successor.step()
            assert successor.waiting == ("certificates under the old root",)
            await successor.begin(None, force=True)
            now[0] += 60  # by force, connected sidecars have half a minute
            await successor.step()
            now[0] += 60
            await successor.step()
            assert second.authority.rotating is None and len(second.authority.roots) == 1
            await first.until(lambda: first.authority.rotating is None)

    run(story)


def test_the_users_own_authority_is_used_from_the_start(tmp_path: Path) -> None:
    async def story() -> None:
        async with stage(tmp_path) as s:
            own = make_root(time.time())
            await s.plug(own)
            one = await s.replica(leads=True)
            assert one.authority.issuer.id == own.id

    run(story)


def test_an_authority_that_is_plugged_in_later_is_rotated_to_by_the_leader(tmp_path: Path) -> None:
    async def story() -> None:
        async with stage(tmp_path) as s:
            leader, other = await s.replica(leads=True), await s.replica()
            own = make_root(time.time())
            await s.plug(own)
            for one in (leader, other):
                await one.until(lambda one=one: own.id in {issuer.id for issuer in one.authority.issuers})
                assert one.authority.rotating is not None and one.authority.issuer.id != own.id

    run(story)


def test_a_revocation_is_durable_before_it_is_acknowledged_and_known_to_all(tmp_path: Path) -> None:
    async def story() -> None:
        async with stage(tmp_path) as s:
            first, second = await s.replica(leads=True), await s.replica()
            s.server.faults.append(Fault("configmaps", 503, method="POST"))
            with pytest.raises(FileProblem):
                await first.ca.revoke_identity("spiffe://cluster.local/ns/a/sa/a")
            assert not first.ca.revoked_identities
            await asyncio.gather(
                first.ca.revoke_identity("spiffe://cluster.local/ns/a/sa/a"),
                second.ca.revoke_identity("spiffe://cluster.local/ns/b/sa/b"),
            )
            await first.until(lambda: len(first.ca.revoked_identities) == 2)
            await second.until(lambda: len(second.ca.revoked_identities) == 2)
            unknown = await second.ca.off_loop(lambda: second.ca.ledger.find("abc"))
            assert unknown is not None
            await second.ca.revoke_serial(unknown)
            await first.until(lambda: "abc" in first.ca.revoked_serials)
            assert await first.ca.restore("spiffe://cluster.local/ns/a/sa/a")
            await second.until(lambda: len(second.ca.revoked_identities) == 1)

    run(story)


def test_what_was_revoked_does_not_come_back_with_its_config_map(tmp_path: Path) -> None:
    async def story() -> None:
        async with stage(tmp_path) as s:
            one = await s.replica(leads=True)
            await one.ca.revoke_identity("spiffe://cluster.local/ns/a/sa/a")
            await s.server.store.delete(CONFIG_MAP, "istio-system", "istio-ca-revocations")
            await one.ca.revoke_identity("spiffe://cluster.local/ns/b/sa/b")
            late = await s.replica()
            assert len(late.ca.revoked_identities) == 2
            body = await s.server.store.get(CONFIG_MAP, "istio-system", "istio-ca-revocations")
            await s.server.store.update(CONFIG_MAP, {**body, "data": {"revocations": "damaged"}})
            with pytest.raises(FileProblem, match="damaged"):
                await s.replica()
            assert len(one.ca.revoked_identities) == 2

    run(story)


def test_a_secret_that_somebody_removed_is_written_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with stage(tmp_path) as s:
            one = await s.replica(leads=True)
            await s.server.store.delete(SECRET, "istio-system", "istio-ca-secret")
            await one.keeping.restore(one.authority)
            late = await s.replica()
            assert late.authority.issuer.id == one.authority.issuer.id

    run(story)
