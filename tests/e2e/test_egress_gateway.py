"""Out of the mesh by one door: sidecar → egress gateway over mutual TLS → a server outside, which gets plaintext or TLS.

The resources are those of Istio's guides: a ServiceEntry, a Gateway with an ISTIO_MUTUAL server, a VirtualService with routes
bound to ``mesh`` and to the gateway, DestinationRules for the way to the gateway and for the way out.
"""

from __future__ import annotations

import http.server
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.certs import Authority
from tests.e2e.secure_mesh import SecureMesh, put, running, security, shell
from tests.e2e.semantics_support import Obj, destination_rule, resource, until

pytestmark = [pytest.mark.system("kubectl", "curl"), pytest.mark.timeout(180)]
OUTSIDE = Authority("outside")
HOST = "api.outside.org"
DOOR, PASSAGE = 8443, 9443
RAW = "raw.outside.org"
EGRESS = "egress.default.svc.cluster.local"


class Site(http.server.BaseHTTPRequestHandler):
    """Says what it was asked, and how."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        told = {"path": self.path, "tls": isinstance(self.connection, ssl.SSLSocket), "headers": list(self.headers.items())}
        body = json.dumps({**told, "from": self.client_address[0]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(10)
        super().finish_request(request, client_address)


@contextmanager
def site(address: str, context: ssl.SSLContext | None = None) -> Iterator[int]:
    with Quiet((address, 0), Site) as listening:
        if context is not None:
            listening.socket = context.wrap_socket(listening.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield int(listening.server_address[1])
        finally:
            listening.shutdown()
            thread.join()


def entry(address: str, plain: int, secure: int) -> Obj:
    ports = [{"number": 80, "name": "http", "protocol": "HTTP"}, {"number": 443, "name": "https", "protocol": "HTTPS"}]
    endpoint = {"address": address, "ports": {"http": plain, "https": secure}}
    return resource(
        "ServiceEntry",
        "outside",
        {"hosts": [HOST], "location": "MESH_EXTERNAL", "resolution": "STATIC", "ports": ports, "endpoints": [endpoint]},
    )


def way_out(port: int) -> Obj:
    """Two matches: from the mesh to the gateway, from the gateway to the host itself."""
    inside = {"match": [{"gateways": ["mesh"], "port": 80}]}
    beyond = {"match": [{"gateways": ["egress"], "port": DOOR}]}
    inside["route"] = [{"destination": {"host": EGRESS, "subset": "outside", "port": {"number": DOOR}}}]
    beyond["route"] = [{"destination": {"host": HOST, "port": {"number": port}}}]
    return resource("VirtualService", "out", {"hosts": [HOST], "gateways": ["mesh", "egress"], "http": [inside, beyond]})


def to_the_gateway() -> Obj:
    tls = {"port": {"number": DOOR}, "tls": {"mode": "ISTIO_MUTUAL", "sni": HOST}}
    subset = {"name": "outside", "trafficPolicy": {"portLevelSettings": [tls]}}
    return destination_rule("egress", {"subsets": [subset]}, host=EGRESS)


def gateway() -> Obj:
    server = {"port": {"number": DOOR, "name": "https", "protocol": "HTTPS"}, "hosts": [HOST], "tls": {"mode": "ISTIO_MUTUAL"}}
    return resource("Gateway", "egress", {"selector": {"egress": "yes"}, "servers": [server]})


def passage(address: str, port: int) -> tuple[Obj, ...]:
    """TLS of the app's own, which the gateway passes on by the server's name."""
    ports = [{"number": 443, "name": "tls", "protocol": "TLS", "targetPort": port}]
    spec = {"hosts": [RAW], "location": "MESH_EXTERNAL", "resolution": "STATIC", "ports": ports}
    server = {"port": {"number": PASSAGE, "name": "tls", "protocol": "TLS"}, "hosts": [RAW], "tls": {"mode": "PASSTHROUGH"}}
    routes = [
        {
            "match": [{"gateways": [name], "port": at, "sniHosts": [RAW]}],
            "route": [{"destination": {"host": host, "port": {"number": to}}}],
        }
        for name, at, host, to in (("mesh", 443, EGRESS, PASSAGE), ("passage", PASSAGE, RAW, 443))
    ]
    return (
        resource("ServiceEntry", "raw", {**spec, "endpoints": [{"address": address}]}),
        resource("Gateway", "passage", {"selector": {"egress": "yes"}, "servers": [server]}),
        resource("VirtualService", "raw", {"hosts": [RAW], "gateways": ["mesh", "passage"], "tls": routes}),
    )


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureMesh]:
    with running(SecureMesh(tmp_path_factory.mktemp("egress"))) as made:
        made.gateway("egress", DOOR, egress="yes")
        ports = [
            {"name": name, "port": port, "targetPort": port, "protocol": "TCP"}
            for name, port in (("https", DOOR), ("tls", PASSAGE))
        ]
        service = {
            "metadata": {"name": "egress", "namespace": "default"},
            "spec": {"selector": {"egress": "yes"}, "ports": ports},
        }
        made.workload("web")
        made.workload("other")
        made.ready()
        made.apply({"apiVersion": "v1", "kind": "Service", **service})
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*made.files("outside", OUTSIDE.issue(dns=(HOST, RAW))))
        address = f"{made.base}.200"
        with site(address) as plain, site(address, context) as secure:
            made.apply(entry(address, plain, secure), gateway(), to_the_gateway(), way_out(80))
            made.apply(*passage(address, secure))
            yield made


def test_http_by_the_gateway(mesh: SecureMesh) -> None:
    answer = mesh.proxies["web"].ask(f"http://{HOST}/plain")
    assert answer.status == 200, answer.text + mesh.logs()
    assert (answer.path, answer.json["tls"]) == ("/plain", False)
    assert answer.json["from"] == mesh.proxies["egress"].ip, "not from the app's pod"
    assert answer.asked("Host") == [HOST] or answer.asked("host") == [HOST]
    leaking = [name for name, _ in answer.json["headers"] if "peer-metadata" in name.lower()]
    assert not leaking, "what is the mesh's stays in it"
    until(
        lambda: mesh.metric("web", "istio_requests_total", response_code="200", destination_service_name="egress") >= 1, "counted"
    )


def test_tls_origination_at_the_gateway(mesh: SecureMesh) -> None:
    roots = put(mesh.state, "outside-root.pem", OUTSIDE.root)
    tls = {"port": {"number": 443}, "tls": {"mode": "SIMPLE", "sni": HOST, "caCertificates": roots}}
    mesh.apply(destination_rule("origin", {"trafficPolicy": {"portLevelSettings": [tls]}}, host=HOST), way_out(443))
    answer = mesh.proxies["web"].ask(f"http://{HOST}/secure")
    assert answer.status == 200, answer.text + mesh.logs()
    assert (answer.path, answer.json["tls"], answer.json["from"]) == ("/secure", True, mesh.proxies["egress"].ip)
    wrong = {**tls, "tls": {**tls["tls"], "sni": "elsewhere.org", "subjectAltNames": ["elsewhere.org"]}}
    mesh.apply(destination_rule("origin", {"trafficPolicy": {"portLevelSettings": [wrong]}}, host=HOST))
    refused = mesh.proxies["web"].ask(f"http://{HOST}/secure")
    assert refused.status == 503 and "TLS_error" in refused.text
    mesh.apply(destination_rule("origin", {"trafficPolicy": {"portLevelSettings": [tls]}}, host=HOST))
    assert mesh.proxies["web"].ask(f"http://{HOST}/secure").status == 200


def test_tls_of_the_apps_own_passes_as_it_is(mesh: SecureMesh) -> None:
    """End to end between the app and the server outside; only the name is read on the way."""
    root = put(mesh.state, "outside-root.pem", OUTSIDE.root)
    proxy = f"http://{mesh.proxies['web'].ip}:15001"
    code, said = shell("curl", "-sS", "--max-time", "20", "--proxy", proxy, "--cacert", root, f"https://{RAW}/raw")
    assert code == 0, said + mesh.logs()
    told = json.loads(said)
    assert (told["path"], told["tls"], told["from"]) == ("/raw", True, mesh.proxies["egress"].ip)
    code, said = shell(
        "curl", "-sS", "--max-time", "20", "--cacert", root, "--resolve", f"elsewhere.org:{PASSAGE}:{mesh.proxies['egress'].ip}",
        f"https://elsewhere.org:{PASSAGE}/",
    )  # fmt: skip
    assert code == 35, f"a name that nobody has is reset: {said}"


def test_who_may_leave_is_the_gateways_to_say(mesh: SecureMesh) -> None:
    mesh.apply(way_out(80))
    principal = "cluster.local/ns/default/sa/web"
    rule = {"from": [{"source": {"principals": [principal]}}], "to": [{"operation": {"hosts": [HOST]}}]}
    spec = {"selector": {"matchLabels": {"egress": "yes"}}, "rules": [rule]}
    mesh.apply(security("AuthorizationPolicy", "leave", spec))
    assert mesh.proxies["web"].ask(f"http://{HOST}/x").status == 200
    refused = mesh.proxies["other"].ask(f"http://{HOST}/x")
    assert (refused.status, refused.text) == (403, "RBAC: access denied")
    mesh.delete("authorizationpolicy/leave")
    assert mesh.proxies["other"].ask(f"http://{HOST}/x").status == 200


def test_the_door_is_the_meshs_own(mesh: SecureMesh) -> None:
    """Without a certificate of the mesh nobody passes, whatever he calls himself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = (mesh.proxies["egress"].ip, DOOR)
    asked = f"GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode()
    with socket.create_connection(address, 10) as sock, pytest.raises(OSError):
        secure = context.wrap_socket(sock, server_hostname=HOST)
        with secure:
            secure.sendall(asked)
            if not secure.recv(100):
                raise ConnectionResetError
    with socket.create_connection(address, 10) as sock:
        sock.sendall(asked)
        try:
            said = sock.recv(100)
        except ConnectionResetError:
            said = b""
        assert b"200" not in said
