"""A rotation: each step only when nobody is hurt by it, and a control that dies at any point goes on where it was."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

import control.ca.authority as authority_module
from control.ca.authority import Authority
from control.ca.issuer import fingerprint
from control.ca.ledger import Ledger
from control.ca.request import Forbidden
from control.ca.rotation import PATIENCE, Busy, Rotation
from control.ca.service import CertificateAuthority
from control.files import FileProblem
from control.identity import ProxyIdentity
from control.tasks import spawn
from meshproxy.model.delivery import SignedCertificate
from meshproxy.model.security import Trust
from tests.control.ca.requests import company, request

START = 1_800_000_000.0
SETTLE = 2.0
EFFECTS = 7  # writes and removals of a whole rotation
TTL = 3600.0


class Fleet:
    """Sidecars by ``namespace/pod``: those that are connected, those whose Pod exists, those that do not answer."""

    def __init__(self, *names: str) -> None:
        self.there = set(names)
        self.pods = set(names)
        self.deaf: set[str] = set()

    def distrusting(self) -> dict[str, str]:
        return dict.fromkeys(self.deaf & self.there, "has not confirmed yet")

    def connected(self, namespace: str, pod: str) -> bool:
        return f"{namespace}/{pod}" in self.there

    def exists(self, namespace: str, pod: str) -> bool:
        return f"{namespace}/{pod}" in self.pods


class Mesh:
    """Control's part of a mesh, on a clock of its own; ``reopen`` is what a kill and a new start leave."""

    def __init__(self, at: Path, *names: str) -> None:
        self.at = at
        self.now = START
        self.fleet = Fleet(*names)
        self.told: list[Trust] = []
        self.open()

    def open(self) -> None:
        self.ca = CertificateAuthority(
            Authority.open(self.at / "ca", self.now),
            Ledger(self.at / "certificates.db"),
            lambda: "cluster.local",
            TTL,
            lambda: self.now,
        )

        async def changed() -> None:
            self.told.append(self.ca.trust())

        self.ca.changed = changed
        self.rotation = Rotation(self.ca, self.fleet, lambda: self.now, SETTLE)

    async def reopen(self) -> None:
        await self.ca.close()
        self.open()

    async def sign(self, name: str) -> SignedCertificate:
        namespace, _, pod = name.partition("/")
        return await self.ca.sign(ProxyIdentity(namespace, pod, pod, self.now + 1e6), request())

    async def step(self, seconds: float = 0.0) -> str:
        """The phase after one look."""
        self.now += seconds
        await self.rotation.step()
        return str(self.rotation.report()["phase"])

    @property
    def roots(self) -> int:
        return len(self.ca.authority.roots)


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)


def test_two_roots_then_the_new_issuer_then_one_root(tmp_path: Path) -> None:
    async def story() -> None:
        mesh = Mesh(tmp_path, "default/a", "default/b")
        first = [await mesh.sign(name) for name in ("default/a", "default/b")]
        mesh.fleet.deaf = {"default/b"}
        await mesh.rotation.begin(None, False)
        assert mesh.roots == 2
        assert mesh.ca.trust().issuer == first[0].issuer
        with pytest.raises(Busy, match="under way"):
            await mesh.rotation.begin(None, False)

        assert await mesh.step(60) == "distributing"  # however long it takes
        assert mesh.rotation.waiting == ("default/b has not confirmed yet",)
        assert (await mesh.sign("default/a")).issuer == first[0].issuer
        mesh.fleet.deaf = set()
        assert await mesh.step() == "replacing"
        assert mesh.ca.trust().issuer != first[0].issuer
        assert mesh.roots == 2

        renewed = await mesh.sign("default/a")
        assert renewed.issuer == mesh.ca.trust().issuer
        assert len(renewed.roots) == 2
        assert await mesh.step(60) == "replacing"
        assert mesh.rotation.waiting == ("default/b has not renewed its certificate yet",)
        await mesh.sign("default/b")
        assert await mesh.step() == "replacing"  # not in use yet
        assert await mesh.step(SETTLE / 2) == "replacing"
        assert await mesh.step(SETTLE) == "none"
        assert mesh.ca.trust().roots == (renewed.roots[1],)
        assert [path.name for path in (tmp_path / "ca").iterdir() if path.is_dir()] == [mesh.ca.authority.issuer.id]
        assert (tmp_path / "ca" / "root.pem").read_bytes() == mesh.ca.authority.root_pem
        assert [len(trust.roots) for trust in mesh.told] == [2, 2, 1]
        await mesh.ca.close()

    run(story())


def test_who_is_away_is_waited_for_as_long_as_it_may_speak(tmp_path: Path) -> None:
    async def story() -> None:
        mesh = Mesh(tmp_path, "default/a", "default/away", "default/gone")
        for name in ("default/a", "default/away", "default/gone"):
            await mesh.sign(name)
        mesh.fleet.there = {"default/a"}
        mesh.fleet.pods.discard("default/gone")
        await mesh.rotation.begin(None, False)
        assert await mesh.step(TTL / 2) == "distributing"
        (waiting,) = mesh.rotation.waiting
        assert waiting.startswith("default/away is not connected and has a certificate until 2027-01-15")
        assert await mesh.step(TTL) == "replacing"  # its certificate has ended meanwhile
        await mesh.sign("default/a")
        assert await mesh.step() == "replacing"
        assert await mesh.step(SETTLE) == "none"
        await mesh.ca.close()

    run(story())


def test_force_waits_for_nobody_who_is_away_and_not_long_for_others(tmp_path: Path) -> None:
    async def story() -> None:
        mesh = Mesh(tmp_path, "default/a", "default/away")
        for name in ("default/a", "default/away"):
            await mesh.sign(name)
        mesh.fleet.there = mesh.fleet.deaf = {"default/a"}
        await mesh.rotation.begin(None, False)
        assert await mesh.step() == "distributing"
        await mesh.rotation.begin(None, True)
        assert await mesh.step() == "distributing"
        assert mesh.rotation.waiting == ("default/a has not confirmed yet",)
        assert await mesh.step(PATIENCE + 1) == "replacing"
        assert await mesh.step(1) == "replacing"
        assert mesh.rotation.waiting == ("default/a has not renewed its certificate yet",)
        assert await mesh.step(PATIENCE) == "replacing"
        assert await mesh.step(SETTLE) == "none"
        await mesh.ca.close()

    run(story())


def test_a_revoked_identity_holds_nothing_up(tmp_path: Path) -> None:
    async def story() -> None:
        mesh = Mesh(tmp_path, "default/a")
        made = await mesh.sign("default/a")
        await mesh.ca.revoke_identity(made.identity)
        await mesh.rotation.begin(None, False)
        assert await mesh.step() == "replacing"
        with pytest.raises(Forbidden):
            await mesh.sign("default/a")
        assert await mesh.step() == "replacing"
        assert await mesh.step(SETTLE) == "none"
        await mesh.ca.close()

    run(story())


def test_to_an_authority_of_the_users_own_and_to_its_next_intermediate(tmp_path: Path) -> None:
    async def story() -> None:
        mesh = Mesh(tmp_path, "default/a")
        await mesh.sign("default/a")
        at = company(tmp_path / "company", START)
        with pytest.raises(FileProblem, match=r"ca-key\.pem: cannot be read"):
            await mesh.rotation.begin(tmp_path, False)
        assert mesh.roots == 1
        await mesh.rotation.begin(at, False)
        assert await mesh.step() == "replacing"
        made = await mesh.sign("default/a")
        assert len(x509.load_pem_x509_certificates(made.certificate.encode())) == 2
        assert await mesh.step() == "replacing"
        assert await mesh.step(SETTLE) == "none"
        with pytest.raises(FileProblem, match="signs already"):
            await mesh.rotation.begin(at, False)
        await mesh.ca.close()

    run(story())


class Killed(BaseException):
    """The process is no more."""


def killing(monkeypatch: pytest.MonkeyPatch, at: int) -> list[str]:
    """Die at the ``at``-th effect on the disk from now on; what was reached is listed."""
    reached: list[str] = []

    def dying(name: str, real: Any) -> Any:
        def effect(*args: Any, **kwargs: Any) -> Any:
            reached.append(name)
            if len(reached) == at:
                raise Killed(name)
            return real(*args, **kwargs)

        return effect

    for name in ("keep", "write_private"):
        monkeypatch.setattr(authority_module, name, dying(name, getattr(authority_module, name)))
    monkeypatch.setattr(authority_module.shutil, "rmtree", dying("rmtree", authority_module.shutil.rmtree))
    return reached


@pytest.mark.parametrize("at", range(1, EFFECTS + 2))
def test_killed_at_any_write_it_goes_on_and_no_certificate_is_ever_without_its_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    async def story() -> None:
        mesh = Mesh(tmp_path, "default/a")
        issued = [await mesh.sign("default/a")]
        with monkeypatch.context() as patch:
            reached = killing(patch, at)
            with suppress(Killed):
                await rotate(mesh, issued)
        assert len(reached) == min(at, EFFECTS)
        await mesh.reopen()
        # What the dead process had handed out last is believed by the one that came after it.
        if not mesh.ca.authority.rotated:
            assert issued[-1].issuer in {fingerprint(root) for root in mesh.ca.authority.roots}
        assert (tmp_path / "ca" / "root.pem").read_bytes() == mesh.ca.authority.root_pem
        await rotate(mesh, issued)
        assert mesh.roots == 1
        assert issued[-1].issuer == mesh.ca.authority.root_id
        assert [path.name for path in (tmp_path / "ca").iterdir() if path.is_dir()] == [mesh.ca.authority.issuer.id]
        await mesh.ca.close()

    run(story())


async def rotate(mesh: Mesh, issued: list[SignedCertificate]) -> None:
    """From wherever it is to the end; the sidecar renews as soon as it is told to."""
    if mesh.ca.authority.rotating is None:
        await mesh.rotation.begin(None, False)
    for _ in range(10):
        if mesh.ca.trust().issuer != issued[-1].issuer:
            issued.append(await mesh.sign("default/a"))
        trusted = {fingerprint(root) for root in mesh.ca.authority.roots}
        assert issued[-1].issuer in trusted
        if await mesh.step(SETTLE) == "none":
            return
    raise AssertionError(mesh.rotation.waiting)


def test_what_could_not_be_told_is_told_again(tmp_path: Path) -> None:
    async def story() -> None:
        mesh = Mesh(tmp_path, "default/a")
        told = mesh.ca.changed

        async def full() -> None:
            raise FileProblem("kubeconfig: cannot be written: No space left on device")

        mesh.ca.changed = full
        with pytest.raises(FileProblem):
            await mesh.rotation.begin(None, False)
        with pytest.raises(FileProblem):
            await mesh.step()
        assert mesh.ca.authority.rotating is not None
        assert not mesh.ca.authority.rotating.switched  # nobody knows the new root yet
        mesh.ca.changed = told
        assert await mesh.step() == "replacing"
        assert [len(trust.roots) for trust in mesh.told] == [2, 2]
        await mesh.ca.close()

    run(story())


def test_that_an_earlier_change_was_told_says_nothing_of_a_later_one(tmp_path: Path) -> None:
    async def story() -> None:
        mesh = Mesh(tmp_path)
        told, first_waits = asyncio.Event(), asyncio.Event()

        async def slow() -> None:
            first_waits.set()
            await told.wait()

        async def full() -> None:
            raise FileProblem("kubeconfig: cannot be written: No space left on device")

        mesh.ca.changed = slow
        first = spawn(mesh.ca.revoke_identity("spiffe://cluster.local/ns/default/sa/a"), "first")
        await first_waits.wait()
        mesh.ca.changed = full
        with pytest.raises(FileProblem):
            await mesh.ca.revoke_identity("spiffe://cluster.local/ns/default/sa/b")
        told.set()
        await first
        with pytest.raises(FileProblem):
            await mesh.ca.tell()
        await mesh.ca.close()

    run(story())
