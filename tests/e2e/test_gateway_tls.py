"""TLS at a gateway, from Secrets that kubectl makes, with curl as the user; and TLS origination to servers outside the mesh."""

from __future__ import annotations

import http.server
import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.certs import Authority, Pair, spiffe
from tests.e2e.secure_mesh import SecureMesh, put, running, shell
from tests.e2e.semantics_support import Obj, Proxy, destination_rule, resource, until, virtual_service

pytestmark = [pytest.mark.system("kubectl", "curl"), pytest.mark.timeout(180)]
WEB, CUSTOMERS, ELSEWHERE = Authority("web"), Authority("customers"), Authority("elsewhere")
PORT, PLAIN = 8443, 8088
HOSTS = {"shop": "SIMPLE", "club": "MUTUAL", "cafe": "OPTIONAL_MUTUAL"}
UF = "remote connection failure, transport failure reason: TLS_error: "


def host(name: str) -> str:
    return f"{name}.example.com"


def server(name: str, mode: str, credential: str = "") -> Obj:
    tls = {"mode": mode, "credentialName": credential or name}
    return {"port": {"number": PORT, "name": name, "protocol": "HTTPS"}, "hosts": [host(name)], "tls": tls}


def gateway() -> Obj:
    servers = [server(name, mode) for name, mode in HOSTS.items()]
    servers += [server("late", "SIMPLE")]
    redirecting = {"port": {"number": PLAIN, "name": "plain", "protocol": "HTTP"}, "hosts": ["*.example.com"]}
    servers += [{**redirecting, "tls": {"httpsRedirect": True}}]
    return resource("Gateway", "edge", {"selector": {"edge": "yes"}, "servers": servers})


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureMesh]:
    with running(SecureMesh(tmp_path_factory.mktemp("edge"))) as made:
        made.gateway("edge", PORT, edge="yes")
        made.workload("bank")
        made.workload("web")
        for name in HOSTS:
            secret(made, name, site(name), ca=CUSTOMERS.root if name != "shop" else b"")
        made.ready()
        made.endpoints("bank", 1)
        route = [{"route": [{"destination": {"host": "bank"}}]}]
        made.apply(gateway(), virtual_service("all", route, hosts=["*.example.com"], gateways=["edge"]))
        yield made


def site(name: str) -> Pair:
    return WEB.issue(dns=(host(name),))


def secret(mesh: SecureMesh, name: str, pair: Pair, ca: bytes = b"") -> None:
    """As a user makes them: ``kubectl create secret tls``, or generic where a CA is needed; again: replaces it."""
    cert, key = mesh.files(f"secret-{name}", pair)
    words = ["create", "secret", "tls", name, f"--cert={cert}", f"--key={key}"]
    if ca:
        words = ["create", "secret", "generic", name, f"--from-file=tls.crt={cert}", f"--from-file=tls.key={key}"]
        words += [f"--from-file=ca.crt={put(mesh.state, 'ca.crt', ca)}"]
    made = mesh.kubectl(*words, "--dry-run=client", "-o", "yaml").stdout
    mesh.kubectl("apply", "-f", "-", stdin=made)


def curl(mesh: SecureMesh, name: str, *words: str, path: str = "/x", port: int = PORT) -> tuple[int, int, str]:
    """(exit code, status, what came)."""
    scheme = "https" if port == PORT else "http"
    at = ("--resolve", f"{host(name)}:{port}:{mesh.proxies['edge'].ip}", f"{scheme}://{host(name)}:{port}{path}")
    root = ("--cacert", put(mesh.state, "web.crt", WEB.root))
    code, said = shell("curl", "-sS", "--max-time", "10", "-w", "\n%{http_code}", *root, *words, *at)
    body, _, rest = said.rpartition("\n") if code == 0 else (said, "", "0")
    return code, int(rest), body


def own(mesh: SecureMesh, pair: Pair) -> tuple[str, ...]:
    cert, key = mesh.files("customer", pair)
    return ("--cert", cert, "--key", key)


def headers(body: str, name: str) -> list[str]:
    return [value for key, value in json.loads(body)["headers"] if key == name]


def test_simple(mesh: SecureMesh) -> None:
    code, status, body = curl(mesh, "shop", "-H", "x-forwarded-client-cert: URI=spiffe://cluster.local/ns/default/sa/bank")
    assert (code, status) == (0, 200)
    assert headers(body, "x-forwarded-proto") == ["https"]
    (told,) = headers(body, "x-forwarded-client-cert")
    assert told.startswith(f"By={spiffe('bank')};") and told.endswith(f";URI={spiffe('edge')}") and "," not in told


def test_mutual_and_what_the_app_is_told_of_the_client(mesh: SecureMesh) -> None:
    code, _, said = curl(mesh, "club")
    assert code == 56 and "certificate required" in said
    code, _, said = curl(mesh, "club", *own(mesh, ELSEWHERE.issue(dns=("one.customer.org",))))
    assert code == 56 and "unknown ca" in said
    code, _, said = curl(mesh, "club", *own(mesh, CUSTOMERS.issue(dns=("one.customer.org",), ends=-60)))
    assert code == 56 and "certificate expired" in said
    pair = CUSTOMERS.issue(dns=("one.customer.org",), common_name="one")
    code, status, body = curl(mesh, "club", *own(mesh, pair), "-H", "x-forwarded-client-cert: Hash=made-up")
    assert (code, status) == (0, 200)
    (told,) = headers(body, "x-forwarded-client-cert")
    first, _, second = told.partition(",")
    assert re.fullmatch(r'Hash=[0-9a-f]{64};Subject="CN=one";URI=', first), told  # URI stands there without one, as in Envoy
    assert second.startswith(f"By={spiffe('bank')};")
    for reason in ("no_certificate", "untrusted", "expired"):
        assert mesh.refused("edge", reason) == 1, reason


def test_the_ca_in_a_secret_of_its_own_and_a_list_of_revoked_certificates(mesh: SecureMesh) -> None:
    """``<name>-cacert``, as Istio has it, counts before the one beside the certificate."""
    good, taken_back = (CUSTOMERS.issue(dns=(f"{name}.customer.org",)) for name in ("one", "two"))
    other = ELSEWHERE.issue(dns=("one.customer.org",))
    ca, crl = put(mesh.state, "own-ca.crt", CUSTOMERS.root), put(mesh.state, "ca.crl", CUSTOMERS.crl(taken_back.serial))
    secret(mesh, "club", site("club"), ca=ELSEWHERE.root)
    until(lambda: curl(mesh, "club", *own(mesh, other))[:2] == (0, 200), "the other CA")
    mesh.kubectl("create", "secret", "generic", "club-cacert", f"--from-file=ca.crt={ca}", f"--from-file=ca.crl={crl}")
    until(lambda: curl(mesh, "club", *own(mesh, good))[:2] == (0, 200), "the CA of the Secret of its own")
    assert curl(mesh, "club", *own(mesh, other))[0] == 56
    code, _, said = curl(mesh, "club", *own(mesh, taken_back))
    assert code == 56 and "certificate revoked" in said, said
    mesh.kubectl("delete", "secret", "club-cacert")
    secret(mesh, "club", site("club"), ca=CUSTOMERS.root)
    until(lambda: curl(mesh, "club", *own(mesh, taken_back))[:2] == (0, 200), "as it was")


def test_optional_mutual(mesh: SecureMesh) -> None:
    assert curl(mesh, "cafe")[:2] == (0, 200)
    assert curl(mesh, "cafe", *own(mesh, CUSTOMERS.issue(dns=("one.customer.org",))))[:2] == (0, 200)
    code, _, said = curl(mesh, "cafe", *own(mesh, ELSEWHERE.issue(dns=("one.customer.org",))))
    assert code == 56 and "unknown ca" in said


def test_a_redirect_to_https(mesh: SecureMesh) -> None:
    code, status, body = curl(mesh, "shop", "-D", "-", path="/cart?a=b", port=PLAIN)
    assert (code, status) == (0, 301)
    assert f"location: https://{host('shop')}:{PLAIN}/cart?a=b" in body, "the authority as it was asked for, as in Envoy"


def test_a_name_that_nobody_has_and_plaintext_are_reset(mesh: SecureMesh) -> None:
    before = mesh.refused("edge", "unknown_name")
    code, _, said = curl(mesh, "nobody", "-k")
    assert code == 35 and "reset" in said.lower()
    assert mesh.refused("edge", "unknown_name") == before + 1
    edge = mesh.proxies["edge"]
    code, said = shell("curl", "-sS", "--max-time", "10", f"http://{edge.ip}:{PORT}/x")
    assert code == 56 and "reset" in said


def test_a_host_of_another_server_on_a_connection_is_not_served(mesh: SecureMesh) -> None:
    """Who came in by the open door may not ask for what stands behind the guarded one."""
    code, status, _ = curl(mesh, "shop", "-H", f"Host: {host('club')}")
    assert code == 0 and status in (404, 421)


@contextmanager
def tls(mesh: SecureMesh, name: str) -> Iterator[ssl.SSLSocket]:
    context = ssl.create_default_context(cadata=WEB.root.decode())
    with (
        socket.create_connection((mesh.proxies["edge"].ip, PORT), 10) as plain,
        context.wrap_socket(plain, server_hostname=host(name)) as secure,
    ):
        yield secure


def shown(mesh: SecureMesh, name: str) -> str:
    """The serial of the certificate that a new connection is shown; "" when there is none."""
    try:
        with tls(mesh, name) as secure:
            facts = secure.getpeercert()
    except (ssl.SSLError, OSError):
        return ""
    assert facts is not None
    return str(facts["serialNumber"]).lower().lstrip("0")


def test_a_new_secret_is_for_new_connections(mesh: SecureMesh) -> None:
    def ask(secure: ssl.SSLSocket) -> bytes:
        secure.sendall(f"GET /x HTTP/1.1\r\nhost: {host('shop')}\r\n\r\n".encode())
        return secure.recv(65536)

    with tls(mesh, "shop") as kept:
        assert ask(kept).startswith(b"HTTP/1.1 200")
        fresh = site("shop")
        secret(mesh, "shop", fresh)
        until(lambda: shown(mesh, "shop") == fresh.serial, "the new certificate")
        assert ask(kept).startswith(b"HTTP/1.1 200"), "the old connection goes on"


def test_a_secret_that_is_missing_bad_there_and_gone(mesh: SecureMesh) -> None:
    """The others on the port are served all the time."""
    assert shown(mesh, "late") == ""
    assert mesh.refused("edge", "no_credential") > 0
    found = mesh.meshctl("analyze", check=False)
    assert "IST0101" in found and "late" in found, found
    cert, _ = mesh.files("late", site("late"))
    _, strange = mesh.files("strange", WEB.issue(dns=("x",)))
    words = ["create", "secret", "generic", "late", f"--from-file=tls.crt={cert}", f"--from-file=tls.key={strange}"]
    mesh.kubectl(*words)
    mesh.settle()
    assert shown(mesh, "late") == "", "a key that does not belong to the certificate"
    assert "late" in mesh.meshctl("analyze", check=False)
    good = site("late")
    secret(mesh, "late", good)
    until(lambda: shown(mesh, "late") == good.serial, "it is served")
    assert curl(mesh, "late")[:2] == (0, 200)
    mesh.kubectl("delete", "secret", "late")
    until(lambda: shown(mesh, "late") == "", "it is gone")
    assert curl(mesh, "shop")[:2] == (0, 200)
    dump = mesh.page("edge", "/config_dump") + mesh.log("edge")
    assert "PRIVATE KEY" not in dump
    mesh.kubectl("get", "secret", "shop")
    assert "BEGIN PRIVATE KEY" not in mesh.meshctl("proxy-config", "secret", "edge", "-o", "json")


# -- TLS origination


class Site(http.server.BaseHTTPRequestHandler):
    """Says whom it sees."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        secure: Any = self.connection
        facts = secure.getpeercert() or {}
        told = {"names": [list(one) for one in facts.get("subjectAltName", ())], "headers": list(self.headers.items())}
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Clients that refuse it are what the tests are about."""

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(10)
        request.do_handshake()
        super().finish_request(request, client_address)


@pytest.fixture(scope="module")
def outside(mesh: SecureMesh) -> Iterator[tuple[str, int]]:
    """An HTTPS server that asks for a certificate of the customers' CA, and takes none as well."""
    pair = WEB.issue(dns=("api.outside.org",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*mesh.files("outside", pair))
    context.load_verify_locations(cadata=CUSTOMERS.root.decode())
    context.verify_mode = ssl.CERT_OPTIONAL
    with Quiet((f"{mesh.base}.200", 0), Site) as listening:
        listening.socket = context.wrap_socket(listening.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
        address = str(listening.server_address[0]), int(listening.server_address[1])
        ports = [{"number": 80, "name": "http", "protocol": "HTTP", "targetPort": address[1]}]
        spec = {"hosts": ["api.outside.org"], "ports": ports, "resolution": "STATIC", "location": "MESH_EXTERNAL"}
        mesh.apply(resource("ServiceEntry", "api", {**spec, "endpoints": [{"address": address[0]}]}))
        yield address
        listening.shutdown()


def originate(mesh: SecureMesh, **tls: Any) -> Any:
    """The answer through ``web``'s sidecar under these settings."""
    mesh.apply(destination_rule("api", {"trafficPolicy": {"tls": tls}}, host="api.outside.org"))
    return mesh.proxies["web"].ask("http://api.outside.org/x", headers={"x-envoy-peer-metadata": "AAAA"})


def test_origination_simple(mesh: SecureMesh, outside: tuple[str, int]) -> None:
    roots = put(mesh.state, "roots.pem", WEB.root)
    good = originate(mesh, mode="SIMPLE", caCertificates=roots, sni="api.outside.org")
    assert good.status == 200 and good.json["names"] == []
    assert not [name for name, _ in good.json["headers"] if "peer-metadata" in name.lower() or "client-cert" in name.lower()]
    assert originate(mesh, mode="SIMPLE", caCertificates=roots).status == 200, "the name is the host's"
    for settings, words in (
        (
            {"caCertificates": put(mesh.state, "others.pem", ELSEWHERE.root)},
            "the peer's certificate is not under a root that is trusted here",
        ),
        ({"caCertificates": roots, "sni": "other.org"}, "the peer is not who it should be"),
        ({"caCertificates": roots, "subjectAltNames": ["other.org"]}, "the peer is not who it should be"),
        ({}, "the peer's certificate is not under a root that is trusted here"),
        ({"caCertificates": str(mesh.state / "nothing.pem")}, "the credential for this connection is missing or unusable"),
    ):
        bad = originate(mesh, mode="SIMPLE", **settings)
        assert bad.status == 503 and f"TLS_error: {words}" in bad.text, (settings, bad.text)
    assert originate(mesh, mode="SIMPLE", caCertificates=roots, subjectAltNames=["api.outside.org"]).status == 200


def test_origination_mutual_with_files(mesh: SecureMesh, outside: tuple[str, int]) -> None:
    cert, key = mesh.files("member", CUSTOMERS.issue(dns=("member.example.com",)))
    roots = put(mesh.state, "roots.pem", WEB.root)
    files = {"clientCertificate": cert, "privateKey": key, "caCertificates": roots, "sni": "api.outside.org"}
    good = originate(mesh, mode="MUTUAL", **files)
    assert good.status == 200 and good.json["names"] == [["DNS", "member.example.com"]]
    cert, key = mesh.files("other", ELSEWHERE.issue(dns=("member.example.com",)))
    bad = originate(mesh, mode="MUTUAL", **{**files, "clientCertificate": cert, "privateKey": key})
    assert bad.status == 503, bad.text


def test_origination_with_a_secret(mesh: SecureMesh, outside: tuple[str, int]) -> None:
    """At a gateway, and at sidecars that the rule's selector chooses."""
    secret(mesh, "api-client", CUSTOMERS.issue(dns=("secret.example.com",)), ca=WEB.root)
    tls = {"mode": "MUTUAL", "credentialName": "api-client", "sni": "api.outside.org"}
    spec = {"trafficPolicy": {"tls": tls}, "workloadSelector": {"matchLabels": {"app": "web"}}}
    mesh.apply(destination_rule("api", spec, host="api.outside.org"))
    web: Proxy = mesh.proxies["web"]
    answer = web.ask("http://api.outside.org/x")
    assert answer.status == 200 and answer.json["names"] == [["DNS", "secret.example.com"]]
    fresh = CUSTOMERS.issue(dns=("newer.example.com",))
    secret(mesh, "api-client", fresh, ca=WEB.root)
    until(lambda: web.ask("http://api.outside.org/x").json["names"] == [["DNS", "newer.example.com"]], "the new secret")
    mesh.kubectl("delete", "secret", "api-client")
    until(lambda: web.ask("http://api.outside.org/x").status == 503, "without it nothing is sent")
    assert "PRIVATE KEY" not in Path(mesh.state / "web.log").read_text() + mesh.page("web", "/config_dump")
