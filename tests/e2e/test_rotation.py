"""Certificates and roots that change under load: no request fails, on kept connections and new ones, through the gateway too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.certs import spiffe
from tests.e2e.mesh_control_process import KILL, ROOT
from tests.e2e.secure_mesh import INBOUND, SecureMesh, Steady, running, security, shell
from tests.e2e.semantics_support import resource, until, virtual_service

pytestmark = [pytest.mark.system("kubectl", "openssl"), pytest.mark.timeout(240)]
EDGE = 8081
PROXIES = ("web", "bank", "edge")


@contextmanager
def made(state: Path, *options: str, more: tuple[str, ...] = ()) -> Iterator[SecureMesh]:
    """``web`` and the gateway ``edge`` call ``bank``; STRICT, so that whatever fails to be TLS fails."""
    with running(SecureMesh(state, *options)) as mesh:
        for name in ("web", "bank", *more):
            mesh.workload(name)
        mesh.gateway("edge", EDGE, edge="yes")
        mesh.ready()
        mesh.endpoints("bank", 1)
        servers = [{"port": {"number": EDGE, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}]
        mesh.apply(
            security("PeerAuthentication", "default", {"mtls": {"mode": "STRICT"}}, "istio-system"),
            resource("Gateway", "edge", {"selector": {"edge": "yes"}, "servers": servers}),
            virtual_service("all", [{"route": [{"destination": {"host": "bank"}}]}], hosts=["*"], gateways=["edge"]),
        )
        yield mesh


@contextmanager
def load(mesh: SecureMesh, pause: float = 0.01) -> Iterator[list[Steady]]:
    """Through both callers, on kept connections and on new ones. Nothing may fail."""
    web, edge = mesh.proxies["web"], mesh.proxies["edge"]
    loads = [
        Steady(address, target, "bank", 2, keep=keep, pause=pause)
        for address, target in (((web.ip, web.port), "http://bank/x"), ((edge.ip, EDGE), "/x"))
        for keep in (True, False)
    ]
    with ExitStack() as stack:
        for one in loads:
            stack.enter_context(one)
        yield loads
    assert [one.bad for one in loads] == [[]] * 4, mesh.logs()


def another_connection(mesh: SecureMesh) -> None:
    """A TLS connection between web's and bank's sidecars that is made now: what is kept from before would prove nothing."""
    before = mesh.metric("bank", "mesh_tls_handshakes_total", side="server")
    answers = mesh.proxies["web"].together(12, "http://bank/x", do="delay=0.05")
    assert {one.status for one in answers} == {200}
    assert mesh.metric("bank", "mesh_tls_handshakes_total", side="server") > before


@pytest.mark.slow
def test_no_request_fails_while_certificates_rotate_every_five_seconds_for_a_minute(tmp_path: Path) -> None:
    with made(tmp_path, "--workload-cert-ttl", "10") as mesh, load(mesh) as loads:

        def renewed() -> int:
            loads[0].more(100)  # which is also how often we look
            assert not any(one.bad for one in loads), [one.bad[:3] for one in loads]
            return min(int(mesh.metric(name, "mesh_certificate_renewals_total")) for name in PROXIES)

        until(lambda: renewed() >= 12, "twelve certificates each", 150)
        assert sum(mesh.metric(name, "mesh_certificate_renewal_failures_total") for name in PROXIES) == 0
        another_connection(mesh)
        asked = sum(one.answers.total() for one in loads)
        assert asked > 1000
        print(f"{asked} requests, none failed")
        for name in PROXIES:
            assert mesh.metric(name, "mesh_tls_failures_total") == 0


@pytest.mark.slow
def test_no_request_fails_while_the_root_is_replaced(tmp_path: Path) -> None:
    with made(tmp_path) as mesh, load(mesh) as loads:
        old = mesh.mesh_pair("web")
        (before,) = mesh.ca()["roots"]
        said = mesh.meshctl("ca", "rotate")
        assert said.splitlines()[-1] == "root rotated", said
        mesh.reconnect()
        (after,) = mesh.ca()["roots"]
        assert after["fingerprint"] != before["fingerprint"]
        assert mesh.kubectl("get", "pods", "--no-headers").stdout.count("\n") == 3, "the kubeconfig goes on"
        another_connection(mesh)
        for one in loads:
            one.more(20)
        # Who comes with a certificate of the old root is nobody now; with one of the new root he is who he was.
        bank, request = mesh.proxies["bank"], b"GET /x HTTP/1.0\r\nhost: bank\r\n\r\n"
        for pair, good in ((old, False), (mesh.mesh_pair("web"), True)):
            cert, key = mesh.files("pair", pair)
            words = ("-connect", f"{bank.ip}:{INBOUND}", "-quiet", "-ign_eof", "-alpn", "istio", "-cert", cert, "-key", key)
            assert ("HTTP/1.1 200" in shell("openssl", "s_client", *words, send=request)[1]) is good
        assert mesh.refused("bank", "untrusted") == 1


@pytest.mark.slow
def test_a_rotation_survives_control_s_death_and_waits_for_who_is_away(tmp_path: Path) -> None:
    with made(tmp_path, more=("sleeper",)) as mesh, load(mesh):
        mesh.endpoints("sleeper", 1)
        sleeper, before = mesh.proxies["sleeper"], mesh.ca()["roots"][0]["fingerprint"]
        sleeper.process.send_signal(signal.SIGKILL)
        sleeper.process.wait()
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "KUBECONFIG": str(mesh.control.state / "kubeconfig")}
        command = [sys.executable, "-m", "control.cli", "ca", "rotate", "--timeout", "2m"]
        rotating = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            until(lambda: "sleeper" in str(mesh.api.get("/mesh/v1/ca/rotation").json()["waiting"]), "it waits for who is away")
            port = mesh.control.port
            for _ in range(2):
                mesh.control.signal(KILL)
                mesh.control.start(port)
                mesh.reconnect()
                status = mesh.api.get("/mesh/v1/ca/rotation").json()
                assert status["phase"] != "none", status
                until(lambda: "sleeper" in str(mesh.api.get("/mesh/v1/ca/rotation").json()["waiting"]), "it still waits")
            mesh.again("sleeper")
            said, _ = rotating.communicate(timeout=120)
        finally:
            rotating.kill()
            rotating.wait()
        assert (rotating.returncode, said.splitlines()[-1]) == (0, "root rotated"), said
        mesh.reconnect()
        (after,) = mesh.ca()["roots"]
        assert after["fingerprint"] != before
        until(lambda: sleeper.ask("http://bank/x").status == 200, "who was away has a certificate of the new root")
        (told,) = sleeper.ask("http://bank/x").asked("x-forwarded-client-cert")
        assert told.endswith(f"URI={spiffe('sleeper')}")
        another_connection(mesh)
