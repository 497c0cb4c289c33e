"""Two real sidecars joined by mutual TLS, with identities from files; and TLS origination to OpenSSL's own server."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshproxy.model.base import Model
from meshproxy.model.cluster import Endpoint, Endpoints
from meshproxy.model.security import ClientTls, Secret, Trust
from tests.certs import Authority, Pair, spiffe
from tests.e2e.support.app import App
from tests.e2e.support.config import Config
from tests.e2e.support.sidecar import Sidecar
from tests.e2e.support.sockets import Peer, Response, own_address, until

ROOT, ELSEWHERE = Authority("mesh"), Authority("elsewhere")
WEB, RATING, BOOK = spiffe("web"), spiffe("rating"), spiffe("book")
PORT = 8080
RESET = "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure, "


class MeshConfig(Config):
    """``more``: resources of other kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.more: dict[str, Model] = {}

    def resources(self) -> list[tuple[str, Model]]:
        return [*self.more.items(), *super().resources()]

    def meshed(self, name: str, address: tuple[str, int], *identities: str, tls: ClientTls | None = None) -> MeshConfig:
        """A service whose one endpoint has a sidecar."""
        self.service(name, address, tls=tls or ClientTls())
        cluster = f"outbound|80||{name}"
        one = Endpoint(address=address[0], port=address[1], mtls=True)
        self.endpoints[cluster] = Endpoints(name=cluster, endpoints=(one,), identities=identities)
        return self


def trust(**more: tuple[str, ...]) -> Trust:
    return Trust(roots=(ROOT.root.decode(),), **more)  # type: ignore[arg-type]


def identity(home: Path, pair: Pair) -> list[str]:
    home.mkdir(exist_ok=True)
    options = []
    for flag, content in (("cert", pair.certificate), ("key", pair.key), ("roots", ROOT.root)):
        (home / f"{flag}.pem").write_bytes(content)
        (home / f"{flag}.pem").chmod(0o600)
        options += [f"--identity-{flag}", str(home / f"{flag}.pem")]
    return options


class Mesh:
    """``web`` calls ``rating``, an app behind a STRICT sidecar."""

    def __init__(self, home: Path, app: App) -> None:
        self.app = app
        self.home = home
        self.host = own_address()
        self.inbound = MeshConfig()
        self.inbound.listener("inbound|8080", "inbound", PORT, "*", app.address, mtls="STRICT")
        self.inbound.listener("inbound|8081", "inbound", PORT + 1, "*", app.address)
        self.inbound.more["trust"] = trust()
        self.outbound = MeshConfig().meshed("rating", (self.host, PORT), RATING)
        self.outbound.meshed("stranger", (self.host, PORT), BOOK)
        self.outbound.meshed("plain", (self.host, PORT + 1), RATING)
        self.outbound.more["trust"] = trust()
        self.theirs = ROOT.issue(RATING)
        self.rating = Sidecar(
            self.inbound,
            *identity(home / "rating-pem", self.theirs),
            *("--namespace", "default", "--workload-labels", "app=rating"),
            ip=self.host,
            pod="rating-1",
            home=_made(home / "rating"),
        )
        self.web = Sidecar(
            self.outbound,
            *identity(home / "web-pem", ROOT.issue(WEB)),
            *("--namespace", "default", "--workload-labels", "app=web,version=v1", "--workload-name", "web"),
            *("--access-log", str(home / "access.log")),
            pod="web-1",
            home=_made(home / "web"),
        )
        self.log = home / "access.log"

    def client(self) -> Peer:
        return self.web.client()

    def close(self) -> None:
        for sidecar in (self.web, self.rating):
            with contextlib.ExitStack() as stack:
                stack.enter_context(sidecar)


def _made(home: Path) -> Path:
    home.mkdir()
    return home


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with App("rating") as app:
        made = Mesh(tmp_path_factory.mktemp("mesh"), app)
        try:
            yield made
        finally:
            made.close()


def ask(client: Peer, host: str = "rating", more: str = "") -> Response:
    return client.ask(f"GET /x HTTP/1.1\r\nhost: {host}\r\n{more}\r\n".encode())


def failures(sidecar: Sidecar, side: str, reason: str) -> float:
    return sidecar.metrics("mesh_tls_failures_total", side=side, reason=reason)


def test_both_sides_know_each_other_and_the_app_is_told(mesh: Mesh) -> None:
    with mesh.client() as client:
        answer = ask(client, more=f"x-forwarded-client-cert: URI={BOOK}\r\nx-envoy-peer-metadata: AAAA\r\n")
        assert answer.status == 200
        headers = dict(json.loads(answer.body)["headers"])
        element, _, digest = headers["x-forwarded-client-cert"].partition(";Hash=")
        assert element == f"By={RATING}"
        assert digest.partition(";")[2] == f'Subject="";URI={WEB}' and len(digest.partition(";")[0]) == 64
        assert not [name for name in {**headers, **answer.headers} if "peer-metadata" in name]
        assert ask(client).status == 200
    principals = {"source_principal": WEB, "destination_principal": RATING}
    told = mesh.rating.metrics(
        "istio_requests_total",
        **principals,
        reporter="destination",
        source_workload="web",
        source_app="web",
        source_version="v1",
        connection_security_policy="mutual_tls",
    )
    assert told >= 2
    asked = mesh.web.metrics(
        "istio_requests_total", **principals, reporter="source", destination_app="rating", connection_security_policy="unknown"
    )
    assert asked >= 2
    assert mesh.web.metrics("mesh_tls_handshakes_total", side="client") >= 1


def test_bodies_pass_both_ways_whatever_their_size(mesh: Mesh) -> None:
    with mesh.client() as client:
        assert len(client.ask(b"GET /bytes/5000000 HTTP/1.1\r\nhost: rating\r\n\r\n").body) == 5_000_000
        client.send(b"POST /x HTTP/1.1\r\nhost: rating\r\ncontent-length: 3000000\r\n\r\n" + b"x" * 3_000_000)
        assert json.loads(client.response().body)["size"] == 3_000_000
        client.send(b"POST /x HTTP/1.1\r\nhost: rating\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(50):
            client.send(b"4e20\r\n" + b"y" * 20_000 + b"\r\n")
        client.send(b"0\r\n\r\n")
        assert json.loads(client.response().body)["size"] == 1_000_000


def test_whoever_is_not_the_service_is_not_spoken_to(mesh: Mesh) -> None:
    before = failures(mesh.web, "client", "wrong_identity")
    with mesh.client() as client:
        answer = ask(client, "stranger")
        assert answer.status == 503
        assert answer.body.decode().startswith(f"{RESET}transport failure reason: TLS_error: the peer is not who it should be")
        answer = ask(client, "plain")
        assert answer.body.decode().startswith(f"{RESET}transport failure reason: TLS_error: the TLS handshake failed")
    assert failures(mesh.web, "client", "wrong_identity") == before + 1
    assert failures(mesh.web, "client", "protocol") >= 1
    line = '503 UF upstream_reset_before_response_started{remote_connection_failure} - "TLS_error: '
    until(lambda: mesh.log.exists() and line in mesh.log.read_text(), "the access log's line")


@pytest.mark.parametrize("how", ["serial", "identity"])
def test_a_revocation_ends_open_connections_and_is_undone(mesh: Mesh, how: str) -> None:
    with mesh.client() as client:
        assert ask(client).status == 200
        revoked = {"revoked_serials": (mesh.theirs.serial,)} if how == "serial" else {"revoked_identities": (RATING,)}
        mesh.outbound.more["trust"] = trust(**revoked)
        mesh.web.install()
        answer = ask(client)
        assert answer.status == 503
        assert b"TLS_error: the peer's certificate or identity is revoked" in answer.body
        assert failures(mesh.web, "client", "revoked") >= 1
        mesh.outbound.more["trust"] = trust()
        mesh.web.install()
        assert ask(client).status == 200


def test_a_caller_that_is_revoked_is_refused_by_the_service(mesh: Mesh) -> None:
    mesh.inbound.more["trust"] = trust(revoked_identities=(WEB,))
    mesh.rating.install()
    try:
        with mesh.client() as client:
            until(lambda: ask(client).status == 503, "the refusal")
        assert failures(mesh.rating, "server", "revoked") >= 1
    finally:
        mesh.inbound.more["trust"] = trust()
        mesh.rating.install()
    with mesh.client() as client:
        until(lambda: ask(client).status == 200, "the pardon")


def test_another_way_of_speaking_is_taken_at_once(mesh: Mesh) -> None:
    cluster = "outbound|80||rating"
    group = mesh.outbound.endpoints[cluster]
    with mesh.client() as client:
        assert ask(client).status == 200
        plain = Endpoint(address=mesh.host, port=PORT)
        mesh.outbound.endpoints[cluster] = Endpoints(name=cluster, endpoints=(plain,), identities=group.identities)
        mesh.web.install()
        assert ask(client).status == 503  # plaintext, which the service's sidecar does not take
        mesh.outbound.endpoints[cluster] = group
        mesh.web.install()
        assert ask(client).status == 200


def test_a_renewal_ends_nothing_and_is_shown_on_new_connections(mesh: Mesh) -> None:
    with mesh.client() as early, mesh.client() as late:
        seen = mesh.app.seen
        early.send(b"GET /slow HTTP/1.1\r\nhost: rating\r\n\r\n")
        until(lambda: mesh.app.seen > seen, "the request")
        before = mesh.web.get("/certs")[1]
        identity(mesh.home / "web-pem", ROOT.issue(WEB))
        mesh.web.signal(signal.SIGHUP)
        until(lambda: mesh.web.get("/certs")[1] != before, "the new certificate")
        elements = set()
        for client in (late, early):  # the first connection is in use, so that the late request makes one of its own
            answer = ask(late) if client is late else early.response()
            assert answer.status == 200
            elements.add(dict(json.loads(answer.body)["headers"])["x-forwarded-client-cert"])
            mesh.app.release()
        assert len(elements) == 2


# -- origination, with OpenSSL's server as the other side


class Openssl:
    """``openssl s_server -www``: answers any GET with a page about the connection."""

    def __init__(self, home: Path, pair: Pair, *options: str) -> None:
        (home / "server.pem").write_bytes(pair.certificate + pair.key)
        self.host = own_address()
        command = ["openssl", "s_server", "-accept", f"{self.host}:0", "-cert", str(home / "server.pem"), "-www", *options]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("ACCEPT "):
                self.port = int(line.strip().rpartition(":")[2])
                break

    def __enter__(self) -> Openssl:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_simple_and_mutual_tls_to_a_server_of_another_world(tmp_path: Path, version: str) -> None:
    server, mine = ELSEWHERE.issue(dns=("api.world.example",)), ELSEWHERE.issue(dns=("me.example",))
    ca = ELSEWHERE.root.decode()
    (tmp_path / "ca.pem").write_bytes(ELSEWHERE.root)
    verify = ("-Verify", "1", "-verify_return_error", "-CAfile", str(tmp_path / "ca.pem"))
    with Openssl(tmp_path, server, version) as simple, Openssl(tmp_path, server, version, *verify) as mutual:
        config = MeshConfig()
        by_file = ClientTls(mode="SIMPLE", ca_file=str(tmp_path / "ca.pem"))
        config.service("api.world.example", (simple.host, simple.port), tls=by_file)
        config.service("named", (simple.host, simple.port), tls=ClientTls(mode="SIMPLE", sni="api.world.example", secret="me"))
        config.service("wrong", (simple.host, simple.port), tls=by_file)
        config.service("mutual", (mutual.host, mutual.port), tls=ClientTls(mode="MUTUAL", sni="api.world.example", secret="me"))
        config.service("bare", (mutual.host, mutual.port), tls=ClientTls(mode="SIMPLE", sni="api.world.example", secret="me"))
        config.more["secret"] = Secret(name="me", certificate=mine.certificate.decode(), key=mine.key.decode(), ca=ca)
        with Sidecar(config) as sidecar, sidecar.client() as client:
            for host in ("api.world.example", "named", "mutual"):
                page = ask(client, host)
                assert page.status == 200 and b"Cipher" in page.body, host
            assert b"TLS_error: the peer is not who it should be" in ask(client, "wrong").body
            refused = ask(client, "bare")  # it wants a certificate of ours
            assert refused.status == 503
            assert b"remote connection failure, transport failure reason: TLS_error: the peer refused us: " in refused.body
            assert b"alert" in refused.body
