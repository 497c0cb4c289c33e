"""Revocation in a real mesh under load: who is revoked is refused everywhere, cut off where it is connected, and comes back."""

from __future__ import annotations

import signal
import socket
import ssl
import time
from collections.abc import Iterator

import pytest

from tests.certs import Pair, spiffe
from tests.control.ca.requests import request
from tests.e2e.secure_mesh import INBOUND, SecureMesh, Steady, running
from tests.e2e.semantics_support import until

pytestmark = [pytest.mark.system("kubectl"), pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureMesh]:
    with running(SecureMesh(tmp_path_factory.mktemp("revoked"))) as made:
        for name in ("web", "bank", "till"):
            made.workload(name)
        made.ready()
        for name in ("web", "bank", "till"):
            made.endpoints(name, 1)
        yield made


def load(mesh: SecureMesh, name: str, to: str = "bank", keep: bool = True) -> Steady:
    proxy = mesh.proxies[name]
    return Steady((proxy.ip, proxy.port), f"http://{to}/x", to, 2, keep=keep, pause=0.002)


def certificate(mesh: SecureMesh, name: str) -> int:
    """The status of asking for a certificate as this sidecar."""
    token = (mesh.state / f"{name}.token").read_text()
    answer = mesh.api.post("/mesh/v1/certificate", json={"csr": request()}, headers={"authorization": f"Bearer {token}"})
    return answer.status_code


def stranger(mesh: SecureMesh, pair: Pair) -> ssl.SSLSocket:
    """A connection to bank's sidecar with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(*mesh.files("stranger", pair))
    context.set_alpn_protocols(["istio-http/1.1"])
    return context.wrap_socket(socket.create_connection((mesh.proxies["bank"].ip, INBOUND), 10))


def served(secure: ssl.SSLSocket) -> bool:
    """One request; False when the connection has ended instead."""
    try:
        secure.sendall(b"GET /x HTTP/1.1\r\nhost: bank\r\n\r\n")
        return secure.recv(65536).startswith(b"HTTP/1.1 200")
    except (OSError, EOFError):
        return False


def test_an_identity_is_refused_everywhere_and_comes_back(mesh: SecureMesh) -> None:
    kept, new, other = load(mesh, "web"), load(mesh, "web", keep=False), load(mesh, "till")
    to_web = load(mesh, "till", "web", keep=False)
    with kept, new, other, to_web, stranger(mesh, mesh.mesh_pair("web")) as open_one:
        assert served(open_one)
        assert not kept.bad and not new.bad
        began = time.monotonic()
        said = mesh.meshctl("ca", "revoke", "default/web")
        print(f"revoke took {time.monotonic() - began:.2f} s with its process:", said.strip())
        assert "all 3 connected sidecars know" in said, said
        # From here on nobody hears web, nor does anybody speak to it; connections that it had are gone.
        for one in (kept, new):
            assert set(one.fresh(20)) == {503}
        assert set(to_web.fresh(20)) == {503}
        assert "TLS_error: the peer's certificate or identity is revoked" in to_web.bad[-1], to_web.bad[-1]
        assert not served(open_one), "an open connection of that identity is closed"
        assert certificate(mesh, "web") == 403
        assert mesh.refused("bank", "revoked") > 0 and mesh.refused("till", "revoked", "client") > 0
        assert set(other.fresh(20)) == {200} and not other.bad, "nobody else notices"
        said = mesh.meshctl("ca", "restore", "default/web")
        assert "restored" in said
        for one in (kept, new, to_web):
            assert set(one.fresh(20)) == {200}
        assert certificate(mesh, "web") == 201
        assert not other.bad


def test_how_long_it_takes(mesh: SecureMesh) -> None:
    """From the request to the first refusal, over the API: printed, and bounded by patience only."""
    with load(mesh, "web") as one:
        began = time.monotonic()
        assert mesh.api.post("/mesh/v1/ca/revocations", json={"subject": "default/web"}).status_code == 201
        until(lambda: one.bad, "the first refusal")
        print(f"refused {1000 * (time.monotonic() - began):.0f} ms after the request for revocation")
        mesh.meshctl("ca", "restore", "default/web")
        until(lambda: one.fresh(4)[200], "it is heard again")


def test_a_serial_is_refused_and_its_sidecar_gets_another(mesh: SecureMesh) -> None:
    first = mesh.serial("web")
    with load(mesh, "web") as one:
        said = mesh.meshctl("ca", "revoke", first)
        until(lambda: mesh.serial("web") != first, "another certificate")
        until(lambda: set(one.fresh(4)) == {200}, "it is heard again")
        count = len(one.bad)
        one.more(40)
        assert len(one.bad) == count, "and stays so"
        print(f"{count} requests failed meanwhile:", said.strip())
    (told,) = mesh.proxies["web"].ask("http://bank/x").asked("x-forwarded-client-cert")
    assert told.endswith(f"URI={spiffe('web')}")
    listed = mesh.meshctl("ca", "list")
    assert any(first in line and "revoked" in line for line in listed.splitlines()), listed


def test_who_has_not_heard_of_it_is_named(mesh: SecureMesh) -> None:
    """A sidecar that stands still: the others refuse at once, and the command says whom it waits for."""
    till = mesh.proxies["till"].process
    till.send_signal(signal.SIGSTOP)
    try:
        said = mesh.meshctl("ca", "revoke", "default/web", check=False)
        assert "till" in said and "all 3" not in said, said
        assert mesh.proxies["web"].ask("http://bank/x").status == 503
    finally:
        till.send_signal(signal.SIGCONT)
    until(lambda: mesh.proxies["till"].ask("http://web/x").status == 503, "it hears of it when it goes on")
    mesh.meshctl("ca", "restore", "default/web")
    until(lambda: mesh.proxies["till"].ask("http://web/x").status == 200, "it is spoken to again")
    assert mesh.proxies["web"].ask("http://bank/x").status == 200


def test_it_is_remembered_by_a_sidecar_that_was_away(mesh: SecureMesh) -> None:
    """Bank's sidecar is stopped while the revocation is made, and starts with it."""
    bank = mesh.proxies["bank"]
    bank.process.kill()
    bank.process.wait()
    mesh.meshctl("ca", "revoke", "default/web")
    mesh.again("bank")
    mesh.ready()
    assert mesh.proxies["till"].ask("http://bank/x").status == 200
    assert mesh.proxies["web"].ask("http://bank/x").status == 503
    mesh.meshctl("ca", "restore", "default/web")
    until(lambda: mesh.proxies["web"].ask("http://bank/x").status == 200, "it is heard again")
