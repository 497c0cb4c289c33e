"""PeerAuthentication at mesh, namespace, workload and port, for each kind of client: what it sees, and what both sides say of it.

A real mesh: ``web`` calls ``bank`` through two sidecars, ``plain`` has none. Strangers come with curl and openssl.
"""

from __future__ import annotations

import http.client
import re
import socketserver
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.certs import Authority, Pair, spiffe
from tests.e2e.secure_mesh import INBOUND, SecureMesh, Steady, running, security, shell
from tests.e2e.semantics_support import Obj, Proxy, destination_rule, until

pytestmark = [pytest.mark.system("kubectl", "curl", "openssl"), pytest.mark.timeout(180)]
ISTIO = ("-alpn", "istio-http/1.1,istio")
UF = "upstream connect error or disconnect/reset before headers. reset reason: "


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureMesh]:
    with running(SecureMesh(tmp_path_factory.mktemp("modes"))) as made:
        made.workload("web")
        made.workload("bank")
        made.bare("plain")
        made.ready()
        for name in ("web", "bank", "plain"):
            made.endpoints(name, 1)
        yield made


@pytest.fixture
def web(mesh: SecureMesh) -> Proxy:
    return mesh.proxies["web"]


@pytest.fixture(autouse=True)
def clean(mesh: SecureMesh) -> Iterator[None]:
    yield
    for kind in ("peerauthentications", "destinationrules"):
        mesh.kubectl("delete", kind, "--all", "--all-namespaces")
    mesh.settle()


def peers(name: str, mode: str, namespace: str = "default", labels: dict[str, str] | None = None, **ports: str) -> Obj:
    spec: Obj = {"mtls": {"mode": mode}}
    if labels:
        spec["selector"] = {"matchLabels": labels}
    if ports:
        spec["portLevelMtls"] = {port.removeprefix("p"): {"mode": value} for port, value in ports.items()}
    return security("PeerAuthentication", name, spec, namespace)


def at_mesh(mode: str) -> list[Obj]:
    return [peers("default", mode, "istio-system")]


def at_namespace(mode: str) -> list[Obj]:
    return [*at_mesh("STRICT" if mode != "STRICT" else "DISABLE"), peers("default", mode)]


def at_workload(mode: str) -> list[Obj]:
    return [*at_namespace("STRICT" if mode != "STRICT" else "DISABLE"), peers("bank", mode, labels={"app": "bank"})]


def at_port(mode: str) -> list[Obj]:
    other = "STRICT" if mode != "STRICT" else "DISABLE"
    return [*at_mesh(other), peers("bank", other, labels={"app": "bank"}, **{f"p{INBOUND}": mode})]


def curl(*words: str) -> tuple[int, str]:
    """(exit code, status and what was said)."""
    return shell("curl", "-sS", "-k", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code} ", *words)


def s_client(ip: str, *options: str) -> str:
    request = b"GET /x HTTP/1.0\r\nhost: bank\r\n\r\n"
    return shell("openssl", "s_client", "-connect", f"{ip}:{INBOUND}", "-quiet", "-ign_eof", *options, send=request)[1]


def outcome(said: str) -> str:
    return "answered" if "HTTP/1.1 200" in said else "refused"


@pytest.mark.parametrize("level", [at_mesh, at_namespace, at_workload, at_port])
@pytest.mark.parametrize("mode", ["DISABLE", "PERMISSIVE", "STRICT"])
def test_each_mode_at_each_level_for_each_kind_of_client(mesh: SecureMesh, web: Proxy, level: Any, mode: str) -> None:
    mesh.apply(*level(mode))
    bank = mesh.proxies["bank"].ip

    # The sidecar begins mutual TLS by itself, unless the port has it switched off; the app is told who it is.
    answer = web.ask("http://bank/x")
    assert answer.status == 200
    (told,) = answer.asked("x-forwarded-client-cert") or [""]
    assert told.endswith(f";URI={spiffe('web')}") if mode != "DISABLE" else told == ""
    assert f"By={spiffe('bank')};Hash=" in told or mode == "DISABLE"

    # curl in plaintext
    before = mesh.refused("bank", "plaintext")
    code, said = curl(f"http://{bank}:{INBOUND}/x")
    if mode == "STRICT":
        assert code == 56 and "Recv failure: Connection reset by peer" in said
        assert mesh.refused("bank", "plaintext") == before + 1
        assert "plaintext where mutual TLS is demanded" in mesh.log("bank")
    else:
        assert (code, said) == (0, "200 ")

    # curl -k https://: TLS that is not the mesh's
    before = mesh.refused("bank", "not_mesh"), mesh.refused("bank", "no_certificate")
    code, said = curl(f"https://{bank}:{INBOUND}/x")
    after = mesh.refused("bank", "not_mesh"), mesh.refused("bank", "no_certificate")
    if mode == "STRICT":
        assert code == 56 and "certificate required" in said and after == (before[0], before[1] + 1)
    elif mode == "PERMISSIVE":
        assert code == 35 and after == (before[0] + 1, before[1])
    else:
        assert code == 35 and after == before, "no TLS there: what it says is no HTTP"

    # openssl with a certificate of the mesh, with and without the mesh's protocol names
    cert, key = mesh.files("right", mesh.mesh_pair("web"))
    own = ("-cert", cert, "-key", key)
    assert outcome(s_client(bank, *own, *ISTIO)) == ("refused" if mode == "DISABLE" else "answered")
    assert outcome(s_client(bank, *own)) == ("answered" if mode == "STRICT" else "refused")


def faults(mesh: SecureMesh) -> dict[str, tuple[Pair | None, str, str]]:
    """kind of client -> (its certificate, the reason in metrics, words in the log)."""
    return {
        "none": (None, "no_certificate", "the peer sent no certificate"),
        "another root": (Authority("another").issue(spiffe("web")), "untrusted", "not under a root that is trusted here"),
        "expired": (mesh.mesh_pair("web", ends=-60), "expired", "has expired"),
        "not yet": (mesh.mesh_pair("web", begins=3600), "not_yet_valid", "is not valid yet"),
        "another domain": (mesh.mesh_pair("web", domain="elsewhere.org"), "foreign_domain", "trust domain is not of this mesh"),
        "no identity": (mesh.authority.issue(dns=("web.example.com",)), "wrong_identity", "is not who it should be"),
        "two identities": (mesh.authority.issue((spiffe("web"), spiffe("bank"))), "wrong_identity", "is not who it should be"),
    }


@pytest.mark.parametrize("mode", ["PERMISSIVE", "STRICT"])
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_each_fault_of_a_certificate_has_a_reason_of_its_own(mesh: SecureMesh, mode: str, version: str) -> None:
    mesh.apply(*at_mesh(mode))
    bank = mesh.proxies["bank"].ip
    for name, (pair, reason, words) in faults(mesh).items():
        own: tuple[str, ...] = ()
        if pair is not None:
            cert, key = mesh.files("fault", pair)
            own = ("-cert", cert, "-key", key)
        asked, before = mesh.metric("bank", "istio_requests_total"), mesh.refused("bank", reason)
        for names, reasons in ((ISTIO, reason), ((), reason if mode == "STRICT" else "not_mesh")):
            count = mesh.refused("bank", reasons)
            said = s_client(bank, version, *own, *names)
            assert outcome(said) == "refused", (name, said)
            assert mesh.refused("bank", reasons) == count + 1, (name, reasons)
        assert mesh.refused("bank", reason) == before + (2 if mode == "STRICT" else 1)
        assert words in mesh.log("bank"), name
        assert mesh.metric("bank", "istio_requests_total") == asked, "no request came of it"
    assert "PRIVATE KEY" not in mesh.log("bank")


def test_plaintext_by_a_rule_against_strict(mesh: SecureMesh, web: Proxy) -> None:
    """DestinationRule DISABLE: the server resets, the client's sidecar answers 503."""
    mesh.apply(destination_rule("bank", {"trafficPolicy": {"tls": {"mode": "DISABLE"}}}))
    answer = web.ask("http://bank/x")
    assert answer.status == 200 and not answer.asked("x-forwarded-client-cert"), "PERMISSIVE takes it"
    mesh.apply(*at_mesh("STRICT"))
    before = mesh.refused("bank", "plaintext")
    until(lambda: web.ask("http://bank/x").status == 503, "connections that came in plaintext have ended")
    answer = web.ask("http://bank/x?strict")
    assert (answer.status, answer.text) == (503, f"{UF}connection termination")
    assert mesh.refused("bank", "plaintext") > before, "Istio tries again; each try is refused"
    until(lambda: "/x?strict" in mesh.access("web"), "the access log")
    (line,) = [line for line in mesh.access("web").splitlines() if "/x?strict" in line]
    assert '" 503 URX,UC upstream_reset_before_response_started{connection_termination} - ' in line or " 503 UC " in line, line
    mesh.kubectl("delete", "destinationrule", "bank")
    mesh.settle()
    assert web.ask("http://bank/x").status == 200


class Deaf(socketserver.BaseRequestHandler):
    """A server that knows no TLS and says so at once, as most do."""

    def handle(self) -> None:
        self.request.recv(65536)
        self.request.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")


def test_mutual_tls_by_a_rule_against_a_pod_without_a_sidecar(mesh: SecureMesh, web: Proxy) -> None:
    def asked(host: str, reason: str) -> str:
        pool = {"tcp": {"connectTimeout": "300ms"}}
        mesh.apply(destination_rule(host, {"trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}, "connectionPool": pool}}))
        before = mesh.refused("web", reason, "client")
        answer = web.ask(f"http://{host}/x?mutual")
        assert answer.status == 503 and mesh.refused("web", reason, "client") > before, answer.text
        line = rf'"GET /x\?mutual HTTP/1.1" 503 UF(,URX)? .*"{host}"'
        until(lambda: re.search(line, mesh.access("web")), "the access log")
        return answer.text

    assert web.ask("http://plain/x").status == 200
    assert asked("plain", "timeout").endswith("reset reason: connection timeout"), "an app that waits for more"
    deaf = mesh.pod("deaf", serve=False, app="deaf")
    mesh.service("deaf", INBOUND, app="deaf")
    mesh.endpoints("deaf", 1)
    with socketserver.ThreadingTCPServer((deaf, INBOUND), Deaf) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        said = asked("deaf", "protocol")
        server.shutdown()
    assert "reset reason: remote connection failure, transport failure reason: TLS_error: the TLS handshake failed" in said


def test_a_server_that_is_somebody_else_is_not_asked(mesh: SecureMesh, web: Proxy) -> None:
    """The certificate is the mesh's, the account is not the service's."""
    rule = {"trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL", "subjectAltNames": [spiffe("treasury")]}}}
    mesh.apply(destination_rule("bank", rule))
    asked = mesh.metric("bank", "istio_requests_total")
    answer = web.ask("http://bank/x")
    assert answer.status == 503 and "TLS_error: the peer is not who it should be" in answer.text
    assert mesh.refused("web", "wrong_identity", "client") > 0
    assert mesh.metric("bank", "istio_requests_total") == asked


def test_the_move_to_strict_and_back_fails_no_request_between_sidecars(mesh: SecureMesh, web: Proxy) -> None:
    loads = [Steady((web.ip, web.port), "http://bank/x", "bank", 2, keep=keep, pause=0.002) for keep in (True, False)]
    with loads[0], loads[1]:
        for mode in ("STRICT", "PERMISSIVE", "STRICT"):
            mesh.apply(*at_mesh(mode))
            for load in loads:
                load.more(30)
    assert [load.bad for load in loads] == [[], []]


def test_who_still_comes_in_plaintext_is_known_before_strict(mesh: SecureMesh) -> None:
    bank = mesh.proxies["bank"].ip
    assert curl(f"http://{bank}:{INBOUND}/x") == (0, "200 ")
    assert '"listener": "inbound|8080"' in mesh.page("bank", "/plaintext")
    assert mesh.metric("bank", "mesh_plaintext_requests_total", listener="inbound|8080") >= 1


def test_strict_ends_what_came_in_plaintext_and_keeps_mutual_tls(mesh: SecureMesh, web: Proxy) -> None:
    """A kept connection of each kind while the mesh becomes STRICT."""
    bank = mesh.proxies["bank"].ip
    open_ones = [http.client.HTTPConnection(bank, INBOUND, timeout=10), http.client.HTTPConnection(web.ip, 15001, timeout=10)]
    for one, target in zip(open_ones, ("/x", "http://bank/x"), strict=True):
        one.request("GET", target, headers={"host": "bank"})
        assert one.getresponse().read()
    shaken = mesh.metric("bank", "mesh_tls_handshakes_total", side="server")
    mesh.apply(*at_mesh("STRICT"))
    assert open_ones[0].sock.recv(1) == b"", "the plaintext one has ended"
    open_ones[1].request("GET", "http://bank/x", headers={"host": "bank"})
    assert open_ones[1].getresponse().status == 200
    assert mesh.metric("bank", "mesh_tls_handshakes_total", side="server") == shaken, "on the connection that it had"
    for one in open_ones:
        one.close()
