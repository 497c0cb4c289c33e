"""A real sidecar's doors under TLS, with curl and ``openssl s_client`` as the peers: who comes in, who does not, and why."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from meshproxy.model.base import Model
from meshproxy.model.security import Secret, ServerTls, Trust
from meshproxy.tls.contexts import client_context
from meshproxy.tls.session import Session
from tests.certs import Authority, Pair, spiffe
from tests.e2e.support.app import App
from tests.e2e.support.config import Config
from tests.e2e.support.sidecar import Sidecar
from tests.e2e.support.sockets import Listening, until

ROOT = Authority("mesh root")
WEB = Authority("web root")
CUSTOMERS = Authority("customers")
SITE = WEB.issue(dns=("shop.example.com",))
MIB = 1 << 20

pytestmark = pytest.mark.system("curl", "openssl")


class TlsConfig(Config):
    """With a trust and secrets."""

    def __init__(self) -> None:
        super().__init__()
        self.trust = Trust(roots=(ROOT.root.decode(),))
        self.secrets: dict[str, Secret] = {}

    def resources(self) -> list[tuple[str, Model]]:
        return [("trust", self.trust), *(("secret", one) for one in self.secrets.values()), *super().resources()]

    def secret(self, name: str, pair: Pair, **fields: bytes) -> None:
        texts = {field: value.decode() for field, value in fields.items()}
        self.secrets[name] = Secret(name=name, certificate=pair.certificate.decode(), key=pair.key.decode(), **texts)


class Files:
    """PEM files of what the peers use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str, content: bytes) -> str:
        path = self.folder / name
        fresh = path.with_suffix(".new")
        fresh.write_bytes(content)
        os.replace(fresh, path)
        return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("pem"))


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    with App() as app:
        yield app


def gate(app: App, files: Files) -> TlsConfig:
    """Inbound in each mode, and a gateway with two TLS servers, one of which has files."""
    config = TlsConfig()
    for mode, port in (("PERMISSIVE", 8001), ("STRICT", 8002), ("DISABLE", 8003)):
        config.listener(f"inbound|{port}", "inbound", port, "*", app.address, mtls=mode)
    config.secret("default/shop", SITE, ca=CUSTOMERS.root)
    other = WEB.issue(dns=("*.other.org",))
    servers = (
        ServerTls(hosts=("shop.example.com",), route="gateway|8443", secret="default/shop"),
        ServerTls(hosts=("club.example.com",), route="gateway|8443", secret="default/shop", mode="MUTUAL"),
        ServerTls(
            hosts=("*.other.org",),
            route="gateway|8443",
            certificate_file=files.put("other.crt", other.certificate),
            key_file=files.put("other.key", other.key),
        ),
    )
    config.listener("gateway|8443", "gateway", 8443, "*", app.address, tls=servers)
    return config


@pytest.fixture(scope="module")
def sidecar(app: App, files: Files) -> Iterator[Sidecar]:
    own = ROOT.issue(spiffe("book"))
    options = (
        *("--identity-cert", files.put("own.crt", own.certificate), "--identity-key", files.put("own.key", own.key)),
        *("--identity-roots", files.put("roots.crt", ROOT.root)),
    )
    with Sidecar(gate(app, files), *options) as sidecar:
        yield sidecar


def curl(*arguments: str) -> tuple[int, str]:
    """(exit code, what it said)."""
    done = subprocess.run(
        ["curl", "-sS", "-k", "--max-time", "10", "-w", "\n%{http_code}", *arguments], capture_output=True, text=True, timeout=20
    )
    return done.returncode, done.stdout.rpartition("\n")[2] + done.stderr


def s_client(address: tuple[str, int], *options: str, send: bytes = b"GET / HTTP/1.0\r\nhost: a\r\n\r\n") -> str:
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"{address[0]}:{address[1]}", "-quiet", "-no_ign_eof", *options],
        input=send,
        capture_output=True,
        timeout=20,
    )
    return (done.stdout + done.stderr).decode(errors="replace")


def credentials(files: Files, name: str, pair: Pair | None) -> tuple[str, ...]:
    if pair is None:
        return ()
    return ("-cert", files.put(f"{name}.crt", pair.certificate), "-key", files.put(f"{name}.key", pair.key))


def failures(sidecar: Sidecar, reason: str) -> float:
    return sidecar.metrics("mesh_tls_failures_total", side="server", reason=reason)


# -- inbound

MESH = ("-alpn", "istio-http/1.1,istio")


@pytest.mark.parametrize("port", [8001, 8002])
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_s_client_with_a_certificate_of_the_mesh(sidecar: Sidecar, files: Files, port: int, version: str) -> None:
    pair = credentials(files, "web", ROOT.issue(spiffe("web")))
    before = sidecar.metrics("mesh_tls_handshakes_total", side="server")
    assert "HTTP/1.1 200" in s_client((sidecar.ip, port), version, *MESH, *pair, "-ign_eof")
    assert sidecar.metrics("mesh_tls_handshakes_total", side="server") == before + 1


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize(
    ("name", "pair", "reason", "said"),
    [
        ("expired", ROOT.issue(spiffe("web"), ends=-60), "expired", "certificate expired"),
        ("early", ROOT.issue(spiffe("web"), begins=3600), "not_yet_valid", "bad certificate"),
        ("foreign", Authority("x").issue(spiffe("web")), "untrusted", "unknown ca"),
        ("none", None, "no_certificate", "handshake failure|certificate required"),
        (
            "domain",
            ROOT.issue(spiffe("web", domain="elsewhere.org")),
            "foreign_domain",
            "access denied|errno=104|Connection reset",
        ),
        ("nobody", ROOT.issue(dns=("a.example.com",)), "wrong_identity", "access denied|errno=104|Connection reset"),
    ],
)
def test_s_client_with_a_fault(
    sidecar: Sidecar, files: Files, version: str, name: str, pair: Pair | None, reason: str, said: str
) -> None:
    before, seen = failures(sidecar, reason), sidecar.metrics("istio_requests_total")
    told = s_client((sidecar.ip, 8002), version, *MESH, *credentials(files, name, pair), "-ign_eof")
    assert any(words in told for words in said.split("|")), told
    assert "HTTP/1.1" not in told
    assert failures(sidecar, reason) == before + 1
    assert sidecar.metrics("istio_requests_total") == seen


def test_curl_in_plaintext(sidecar: Sidecar) -> None:
    assert curl(f"http://{sidecar.ip}:8001/")[1] == "200"
    assert curl(f"http://{sidecar.ip}:8003/")[1] == "200"
    before = failures(sidecar, "plaintext")
    code, said = curl(f"http://{sidecar.ip}:8002/")
    assert code == 56 and "Connection reset by peer" in said
    assert failures(sidecar, "plaintext") == before + 1
    callers = sidecar.json("/plaintext")["callers"]
    assert [(one["listener"], one["source"]) for one in callers] == [("inbound|8001", "127.0.0.1")]
    assert callers[0]["requests"] >= 1 and sidecar.metrics("mesh_plaintext_requests_total", listener="inbound|8001") >= 1


def test_curl_with_tls_that_is_not_the_mesh_s(sidecar: Sidecar, files: Files) -> None:
    before = failures(sidecar, "not_mesh")
    assert curl(f"https://{sidecar.ip}:8001/")[0] == 35
    assert failures(sidecar, "not_mesh") == before + 1
    code, said = curl(f"https://{sidecar.ip}:8002/")
    assert code == 56 and "certificate required" in said
    pair = ROOT.issue(spiffe("web"))
    own = ("--cert", files.put("c.crt", pair.certificate), "--key", files.put("c.key", pair.key))
    assert curl(f"https://{sidecar.ip}:8002/", *own)[1] == "200"


# -- gateway


def at(sidecar: Sidecar, host: str) -> tuple[str, ...]:
    return ("--resolve", f"{host}:8443:{sidecar.ip}", f"https://{host}:8443/")


def test_gateway_servers_by_name(sidecar: Sidecar, files: Files) -> None:
    root = ("--cacert", files.put("web-root.crt", WEB.root), "--no-insecure")
    assert curl(*root, *at(sidecar, "shop.example.com"))[1] == "200"
    assert curl(*root, *at(sidecar, "a.other.org"))[1] == "200"
    before = failures(sidecar, "unknown_name")
    code, said = curl(*at(sidecar, "nobody.example.com"))
    assert code == 35 and "reset" in said.lower()
    assert failures(sidecar, "unknown_name") == before + 1
    code, said = curl(f"http://{sidecar.ip}:8443/")
    assert code == 56 and "reset" in said


def test_gateway_mutual(sidecar: Sidecar, files: Files) -> None:
    code, said = curl(*at(sidecar, "club.example.com"))
    assert code == 56 and "certificate required" in said
    pair = CUSTOMERS.issue(dns=("one.customer.org",))
    own = ("--cert", files.put("m.crt", pair.certificate), "--key", files.put("m.key", pair.key))
    assert curl(*own, *at(sidecar, "club.example.com"))[1] == "200"


def serial_of(sidecar: Sidecar, name: str) -> str:
    """The serial of the certificate that the gateway shows to this name."""
    context = ssl.create_default_context(cadata=WEB.root.decode())
    with (
        socket.create_connection((sidecar.ip, 8443), 10) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        facts = secure.getpeercert()
        assert facts is not None
        return str(facts["serialNumber"]).lower().lstrip("0")


def test_hot_reload(sidecar: Sidecar, files: Files, app: App) -> None:
    """A new secret and new files are used by the next connection; an open one goes on."""
    context = ssl.create_default_context(cadata=WEB.root.decode())
    with (
        socket.create_connection((sidecar.ip, 8443), 10) as plain,
        context.wrap_socket(plain, server_hostname="shop.example.com") as kept,
    ):
        fresh = WEB.issue(dns=("shop.example.com",))
        config = sidecar.config
        assert isinstance(config, TlsConfig)
        config.secret("default/shop", fresh, ca=CUSTOMERS.root)
        sidecar.install(config)
        assert serial_of(sidecar, "shop.example.com") == fresh.serial
        other = WEB.issue(dns=("*.other.org",))
        files.put("other.key", other.key)  # for a moment key and certificate do not fit: the last good ones stay
        serial_of(sidecar, "b.other.org")
        files.put("other.crt", other.certificate)
        assert serial_of(sidecar, "b.other.org") == other.serial
        kept.sendall(b"GET / HTTP/1.1\r\nhost: shop.example.com\r\n\r\n")
        assert kept.recv(1000).startswith(b"HTTP/1.1 200")


class Caller:
    """A client whose socket is its own, so that a reset is seen as one (Python's ``SSLSocket`` shows an end)."""

    def __init__(self, address: tuple[str, int], pair: Pair) -> None:
        context = client_context(pair.certificate, pair.key, roots=(ROOT.root,), alpn=("istio-http/1.1",))
        self.socket = socket.create_connection(address, 10)
        self.session = Session(context, False)
        self.session.start()
        while True:
            self.socket.sendall(self.session.take())
            if self.session.handshaken:
                return
            self.session.receive(self.socket.recv(65536))

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def get(self) -> bytes:
        """The answer, or a part of it."""
        self.socket.sendall(self.session.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"))
        return self.session.receive(self.socket.recv(65536))

    def closed(self) -> None:
        """Reads until there is an end or a reset."""
        while self.socket.recv(65536):
            pass


def test_revocation_cuts_open_connections_and_refuses_new_ones(sidecar: Sidecar) -> None:
    config = sidecar.config
    assert isinstance(config, TlsConfig)
    clean = config.trust
    thief, honest = ROOT.issue(spiffe("thief")), ROOT.issue(spiffe("web"))
    for trust in (
        Trust(roots=clean.roots, revoked_serials=(thief.serial,)),
        Trust(roots=clean.roots, revoked_identities=(spiffe("thief"),)),
    ):
        before = failures(sidecar, "revoked")
        with Caller((sidecar.ip, 8001), thief) as kept, Caller((sidecar.ip, 8002), honest) as other:
            assert kept.get().startswith(b"HTTP/1.1 200")
            config.trust = trust
            sidecar.install(config)
            with pytest.raises(ConnectionResetError):
                kept.closed()
            assert failures(sidecar, "revoked") == before + 1
            assert other.get().startswith(b"HTTP/1.1 200")
        with Caller((sidecar.ip, 8001), thief) as again, pytest.raises(ConnectionResetError):
            again.closed()
        assert failures(sidecar, "revoked") == before + 2
        config.trust = clean
        sidecar.install(config)


def test_a_trust_that_cannot_be_read_changes_nothing(sidecar: Sidecar) -> None:
    config = sidecar.config
    assert isinstance(config, TlsConfig)
    clean = config.trust
    config.trust = Trust(roots=(*clean.roots, "nonsense"))
    sidecar.offer(config)
    until(lambda: "trust mesh: roots[1]: root: not a PEM certificate" in sidecar.log(), "the refusal")
    config.trust = clean
    with Caller((sidecar.ip, 8002), ROOT.issue(spiffe("web"))) as caller:
        assert caller.get().startswith(b"HTTP/1.1 200")


def test_strict_closes_idle_plaintext_connections_and_keeps_mutual_tls(sidecar: Sidecar) -> None:
    config = sidecar.config
    before = config.listeners["inbound|8001"]
    with sidecar.client(8001) as plain, Caller((sidecar.ip, 8001), ROOT.issue(spiffe("web"))) as secure:
        assert plain.ask(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").status == 200
        config.listeners["inbound|8001"] = msgspec.structs.replace(before, mtls="STRICT")
        sidecar.install(config)
        assert plain.ended()
        assert secure.get().startswith(b"HTTP/1.1 200")
    config.listeners["inbound|8001"] = before
    sidecar.install(config)


def test_a_drain_ends_tls_connections_with_their_answer(app: App, files: Files) -> None:
    own = ROOT.issue(spiffe("book"))
    options = (
        *("--identity-cert", files.put("own2.crt", own.certificate), "--identity-key", files.put("own2.key", own.key)),
        *("--identity-roots", files.put("roots2.crt", ROOT.root)),
    )
    web = ROOT.issue(spiffe("web"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(files.put("w.crt", web.certificate), files.put("w.key", web.key))
    with Sidecar(gate(app, files), *options) as sidecar:
        busy = context.wrap_socket(socket.create_connection((sidecar.ip, 8002), 10))
        idle = context.wrap_socket(socket.create_connection((sidecar.ip, 8002), 10))
        with busy, idle:
            busy.sendall(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
            until(lambda: sidecar.active("inbound|8002||")["requests"] == 1, "the request under way")
            stopping = threading.Thread(target=sidecar.stop)
            stopping.start()
            assert idle.recv(10) == b"", "close_notify, not a cut"
            app.release()
            answer = busy.recv(10000)
            assert answer.startswith(b"HTTP/1.1 200") and b"connection: close" in answer.lower()
            stopping.join(20)


def test_a_peer_that_stops_reading_costs_no_memory(files: Files, app: App) -> None:
    """In both directions: an app that takes no body, a client that takes no answer."""
    own = ROOT.issue(spiffe("book"))
    options = (
        *("--identity-cert", files.put("own3.crt", own.certificate), "--identity-key", files.put("own3.key", own.key)),
        *("--identity-roots", files.put("roots3.crt", ROOT.root)),
    )
    web = ROOT.issue(spiffe("web"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(files.put("p.crt", web.certificate), files.put("p.key", web.key))
    with Listening(receive_buffer=65536) as deaf:
        config = TlsConfig()
        config.listener("inbound|8001", "inbound", 8001, "*", deaf.address, mtls="STRICT")
        config.listener("inbound|8002", "inbound", 8002, "*", app.address, mtls="STRICT")
        with Sidecar(config, *options) as sidecar:
            with context.wrap_socket(socket.create_connection((sidecar.ip, 8002), 10)) as client:  # what is made at first use
                client.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                assert client.recv(10000)
            before = sidecar.resident()
            with context.wrap_socket(socket.create_connection((sidecar.ip, 8001), 10)) as client:
                client.sendall(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1073741824\r\n\r\n")
                client.settimeout(1.0)
                sent = 0
                with pytest.raises(TimeoutError):
                    while sent < 1 << 30:
                        sent += client.send(bytes(65536))
                assert sidecar.resident() - before < 8 * MIB, sent
            with context.wrap_socket(socket.create_connection((sidecar.ip, 8002), 10)) as client:
                client.sendall(b"GET /bytes/1073741824 HTTP/1.1\r\nhost: a\r\n\r\n")
                assert client.recv(100).startswith(b"HTTP/1.1 200")
                stalled = -1.0
                while stalled != (sent_now := sidecar.metrics("istio_requests_total")):
                    stalled = sent_now
                until(lambda: sidecar.active("inbound|8002||")["requests"] == 1, "the answer under way")
                assert sidecar.resident() - before < 8 * MIB
