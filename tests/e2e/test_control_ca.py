"""Certificates over the real door: who gets one, for whom, and what rotation and revocation mean to connected sidecars."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from control.client.api import AsyncApi, Unreachable
from control.client.kubeconfig import load
from control.tasks import cancel, spawn
from meshproxy.model.security import Trust
from tests.control.ca.requests import company, request
from tests.e2e.mesh_control_process import KILL, ROOT, TERM, ControlProcess, Sidecar, create, pod, running, until

PATH = "/mesh/v1/certificate"


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlProcess]:
    process = ControlProcess(tmp_path / "mesh")
    process.start()
    yield process
    process.stop()


async def signed(control: ControlProcess, token: str, csr: str = "") -> httpx.Response:
    async with control.client(token) as client:
        return await client.post(PATH, json={"csr": csr or request()})


async def phase(control: ControlProcess) -> dict[str, Any]:
    async with control.client() as client:
        found: dict[str, Any] = (await client.get("/mesh/v1/ca/rotation")).json()
        return found


class Member:
    """A sidecar that gets a certificate, and another as soon as control issues under another root; ``willing``: it does so."""

    def __init__(self, control: ControlProcess, sidecar: Sidecar, token: str) -> None:
        self.control, self.sidecar, self.token = control, sidecar, token
        self.held: dict[str, Any] = {}
        self.willing = True

    @property
    def trust(self) -> Trust | None:
        found: Any = self.sidecar.state.resources["trust"].get("mesh")
        return found

    async def follow(self) -> None:
        while True:
            trust = self.trust
            if trust is not None and self.willing and trust.issuer != self.held.get("issuer"):
                with suppress(httpx.HTTPError):
                    self.held = (await signed(self.control, self.token)).json()
            await asyncio.sleep(0.01)


@asynccontextmanager
async def member(control: ControlProcess, tmp_path: Path, name: str = "a") -> AsyncIterator[Member]:
    async with control.client() as client:
        await create(client, pod(name, "127.9.8.7", name))
    token = await control.join_token(name, serviceAccount=name)
    file = tmp_path / f"{name}.token"
    file.write_text(token)
    async with running(Sidecar(control, file, name)) as sidecar:
        found = Member(control, sidecar, token)
        following = spawn(found.follow(), "member")
        try:
            await until(lambda: found.held)
            yield found
        finally:
            await cancel(following)


def meshctl(control: ControlProcess, *words: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "control.cli", "ca", *words, "--kubeconfig", str(control.state / "kubeconfig")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout + done.stderr


def test_a_sidecar_gets_a_certificate_for_itself_only(control: ControlProcess, tmp_path: Path) -> None:
    async def story() -> None:
        token = await control.join_token("sleep-1", serviceAccount="sleep")
        answer = await signed(control, token)
        assert answer.status_code == 201
        assert answer.headers["cache-control"] == "no-store"
        made = answer.json()
        assert made["identity"] == "spiffe://cluster.local/ns/default/sa/sleep"
        assert made["expires"] == pytest.approx(time.time() + 24 * 3600, abs=60)
        (tmp_path / "leaf.pem").write_text(made["certificate"])
        (tmp_path / "root.pem").write_text("".join(made["roots"]))
        verify = ["openssl", "verify", "-x509_strict", "-CAfile", str(tmp_path / "root.pem"), str(tmp_path / "leaf.pem")]
        assert subprocess.run(verify, capture_output=True, timeout=20).returncode == 0

        other = x509.UniformResourceIdentifier("spiffe://cluster.local/ns/default/sa/other")
        refused = [
            ({"csr": request(names=[other])}, 403, "another identity"),
            ({"csr": request(extensions=[x509.BasicConstraints(True, None)])}, 403, "asks to be a certificate authority"),
            ({"csr": request(key=ec.generate_private_key(ec.SECP256K1()))}, 400, "curve secp256k1"),
            ({"csr": "nonsense"}, 400, "not one PEM"),
            ({"csr": 5}, 400, "not SigningRequest"),
            ({"csr": "x" * 40_000}, 413, "limit is"),
        ]
        async with control.client(token) as client:
            for body, status, why in refused:
                answer = await client.post(PATH, json=body)
                assert (answer.status_code, why in answer.json()["message"]) == (status, True), answer.text
            assert (await client.post(PATH, content=b"\xff{")).status_code == 400
            assert (await client.get("/mesh/v1/ca")).status_code == 403
            given = 1
            while (late := await client.post(PATH, json={"csr": request()})).status_code == 201:
                given += 1
            assert late.status_code == 429
            assert int(late.headers["retry-after"]) >= 1
        assert (await signed(control, control.admin_token)).status_code == 403
        assert (await signed(control, "nonsense")).status_code == 401
        assert (await signed(control, await control.join_token("sleep-2", serviceAccount="sleep"))).status_code == 201

        async with httpx.AsyncClient(trust_env=False) as client:
            text = (await client.get(f"{control.metrics}/metrics")).text
        assert f"citadel_server_success_cert_issuance_count {given + 1:.1f}" in text
        assert "citadel_server_csr_parsing_err_count 4.0" in text
        assert "citadel_server_authentication_failure_count 1.0" in text
        assert "citadel_server_root_cert_expiry_timestamp 2.1" in text
        assert "PRIVATE KEY" not in control.logged() + text
        assert control.admin_token not in control.logged()

    asyncio.run(story())


def test_a_rotation_that_is_killed_twice_ends_with_one_new_root(control: ControlProcess, tmp_path: Path) -> None:
    async def story() -> None:
        async with member(control, tmp_path) as a:
            first = a.held["issuer"]
            old = (control.state / "ca" / "root.pem").read_bytes()
            a.willing = False
            launcher = AsyncApi(load([control.state / "kubeconfig"]), again=lambda: load([control.state / "kubeconfig"]))
            async with control.client() as client:
                assert (await client.post("/mesh/v1/ca/rotation", json={})).status_code == 202
                assert (await client.post("/mesh/v1/ca/rotation", json={})).status_code == 409
            await until(lambda: a.trust and a.trust.issuer != first)
            assert a.trust is not None
            assert len(a.trust.roots) == 2
            port = control.port
            for _ in range(2):
                assert control.signal(KILL) == -KILL
                control.start(port)
                assert (await phase(control))["phase"] == "replacing"
                await until(lambda: a.sidecar.agent.status.connected)
                assert (await phase(control))["phase"] == "replacing"
            a.willing = True
            await until(lambda: a.trust and len(a.trust.roots) == 1, 20)
            assert a.held["issuer"] == a.trust.issuer != first
            assert (await phase(control))["phase"] == "none"
            assert len(ssl.create_default_context(cafile=str(control.state / "ca" / "root.pem")).get_ca_certs()) == 1
            assert (control.state / "ca" / "root.pem").read_bytes() != old

            with pytest.raises(Unreachable):  # whoever stays, and believes the old root only, looks again
                await launcher.request("GET", "/version")
            await launcher.request("GET", "/version")
            await launcher.close()

    asyncio.run(story())


def test_rotation_by_command_to_the_users_own_authority(control: ControlProcess, tmp_path: Path) -> None:
    async def story() -> None:
        async with member(control, tmp_path) as a:
            code, said = await asyncio.to_thread(
                meshctl, control, "rotate", "--from", str(company(tmp_path / "own", time.time()))
            )
            assert (code, said.splitlines()[-1]) == (0, "root rotated"), said
            assert len(x509.load_pem_x509_certificates(a.held["certificate"].encode())) == 2
            code, said = await asyncio.to_thread(meshctl, control, "status")
            assert code == 0
            assert "company root" in said
            assert "intermediate" in said
            code, said = await asyncio.to_thread(meshctl, control, "list")
            assert (said.count("active"), said.count("root dropped")) == (1, 1), said

    asyncio.run(story())


def test_revocation_is_durable_and_everywhere_at_once(control: ControlProcess, tmp_path: Path) -> None:
    async def story() -> None:
        async with member(control, tmp_path) as a:
            serial = f"{x509.load_pem_x509_certificate(a.held['certificate'].encode()).serial_number:x}"
            async with control.client() as client:
                began = time.monotonic()
                answer = await client.post("/mesh/v1/ca/revocations", json={"subject": "default/a"})
                assert answer.status_code == 201
                await until(lambda: a.trust and a.trust.revoked_identities == (a.held["identity"],))
                assert time.monotonic() - began < 2
                assert (await client.post("/mesh/v1/ca/revocations", json={"subject": serial.upper()})).status_code == 201
                await until(lambda: a.trust and a.trust.revoked_serials == (serial,))
            assert (await signed(control, a.token)).status_code == 403
            port = control.port
            assert control.signal(KILL) == -KILL
            control.start(port)
            assert (await signed(control, a.token)).status_code == 403
            code, said = await asyncio.to_thread(meshctl, control, "revoke", "--list")
            assert code == 0
            assert serial in said
            await until(lambda: a.sidecar.agent.status.connected)
            code, said = await asyncio.to_thread(meshctl, control, "restore", "default/a")
            assert (code, said) == (0, f"{a.held['identity']} restored\nall 1 connected sidecars know\n")
            assert a.trust is not None
            assert a.trust.revoked_identities == ()
            assert a.trust.revoked_serials == (serial,)
            assert (await signed(control, a.token)).status_code == 201
            code, said = await asyncio.to_thread(meshctl, control, "revoke", "istio-system/gateway")
            assert code == 1
            assert "confirm with --yes" in said
        assert control.signal(TERM) == 0

    asyncio.run(story())
