"""A gateway's ports of bytes in a real process: TLS that ends there in every mode, TLS that passes through, plain TCP.

openssl is the client.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshproxy.model.cluster import Cluster, Endpoint, Endpoints
from meshproxy.model.listener import Listener
from meshproxy.model.route import WeightedCluster
from meshproxy.model.security import ServerTls, Trust
from meshproxy.model.tcp import Chain, TcpRoute
from tests.certs import Authority, Pair, spiffe
from tests.e2e.support.app import App
from tests.e2e.support.sidecar import Sidecar
from tests.e2e.support.sockets import Listening, Peer, until
from tests.e2e.test_sidecar_tls import Files, TlsConfig

ROOT, WEB, CUSTOMERS, ELSEWHERE = Authority("mesh root"), Authority("web"), Authority("customers"), Authority("elsewhere")
TLS, TCP, ANY, PASS = 9443, 9000, 9001, 9444
MODES = {"db": "SIMPLE", "club": "MUTUAL", "cafe": "OPTIONAL_MUTUAL", "mesh": "ISTIO_MUTUAL"}

pytestmark = [pytest.mark.system("openssl"), pytest.mark.timeout(180)]


def host(name: str) -> str:
    return f"{name}.example.com"


def to(name: str, **fields: Any) -> TcpRoute:
    return TcpRoute(clusters=(WeightedCluster(cluster=name),), **fields)


class GatewayConfig(TlsConfig):
    def __init__(self, app: App, db: Listening, raw: Listening) -> None:
        super().__init__()
        self.trust = Trust(roots=(ROOT.root.decode(),))
        self.secret("site", WEB.issue(dns=("*.example.com",)), ca=CUSTOMERS.root)
        for name, back in (("db", db), ("raw", raw)):
            self.clusters[name] = Cluster(name=name)
            self.endpoints[name] = Endpoints(name=name, endpoints=(Endpoint(address=back.address[0], port=back.address[1]),))
        ending = [ServerTls(hosts=(host("web"),), secret="site", route="web")]
        for name, mode in MODES.items():
            secret = "" if mode == "ISTIO_MUTUAL" else "site"
            ending.append(
                ServerTls(hosts=(host(name),), mode=mode, secret=secret, route=name, tcp=(to("db"),))  # type: ignore[arg-type]
            )
        self.service("*", app.address, table="web", cluster="web")
        through = Chain(name="through", protocol="TCP", tcp=(to("raw", sni=(host("raw"), "*.raw.example.com")),))
        self.add(TLS, through, route="web", tls=tuple(ending))
        self.add(TCP, Chain(name="bytes", protocol="TCP", tcp=(to("db"),)))
        self.add(ANY, Chain(name="any", tcp=(to("db"),), route="web"))
        self.add(PASS, through)

    def add(self, port: int, chain: Chain, **fields: Any) -> None:
        name = f"gateway|{port}"
        self.listeners[name] = Listener(name=name, direction="gateway", port=port, chains=(chain,), **fields)


class Edge:
    """The gateway and what is behind it."""

    def __init__(self, folder: Path, *options: str, drain: float = 5) -> None:
        self.files = Files(folder)
        own = ROOT.issue(spiffe("edge"))
        names = (("cert", own.certificate), ("key", own.key), ("roots", ROOT.pem))
        identity = [f"--identity-{name}={self.files.put(name, content)}" for name, content in names]
        self.access_file = folder / "access.log"
        self.access_file.touch()
        self.app, self.db, self.raw = App(), Listening(), Listening()
        self.config = GatewayConfig(self.app, self.db, self.raw)
        self.proxy = Sidecar(
            self.config, "--role", "gateway", "--access-log", str(self.access_file), *identity, *options, drain=drain
        )

    def client(self, port: int) -> Peer:
        return self.proxy.client(port)

    def access(self) -> str:
        return self.access_file.read_text()

    @contextlib.contextmanager
    def s_client(self, name: str, pair: Pair | None = None, *words: str, root: bytes = WEB.root) -> Iterator[Any]:
        own: tuple[str, ...] = ()
        if pair is not None:
            own = ("-cert", self.files.put("c.crt", pair.certificate), "-key", self.files.put("c.key", pair.key))
        at = ("-connect", f"{self.proxy.ip}:{TLS}", "-servername", host(name), "-CAfile", self.files.put("ca.crt", root))
        command = ("openssl", "s_client", "-quiet", "-verify_return_error", *at, *own, *words)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    def refused(self, reason: str) -> float:
        return self.proxy.metrics("mesh_tls_failures_total", side="server", reason=reason)

    def calm(self) -> None:
        """Nobody is connected to anybody any more."""
        until(lambda: all(self.proxy.active(name)["connections"] == 0 for name in ("db", "raw")), "no connection is left")


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    made = Edge(tmp_path_factory.mktemp("edge"))
    with made.app, made.db, made.raw, made.proxy:
        yield made


def talks(edge: Edge, name: str, pair: Pair | None = None, *words: str, root: bytes = WEB.root) -> str:
    """A question through s_client, and what the client has heard at the end; it must be told of the end, too."""
    with edge.s_client(name, pair, *words, root=root) as client:
        client.stdin.write(b"question\n")
        client.stdin.flush()
        with edge.db.accept() as server:
            assert server.exactly(9) == b"question\n"
            server.send(b"answer\n")
        heard, said = client.communicate(timeout=20)
    assert client.returncode == 0 and b"unexpected eof" not in said, said
    return str(heard.decode())


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("name", ["db", "club", "cafe", "mesh"])
def test_tls_ends_and_bytes_go_on(edge: Edge, name: str, version: str) -> None:
    pair = {"club": CUSTOMERS.issue(dns=("one.customer",)), "mesh": ROOT.issue(spiffe("web"))}.get(name)
    root = ROOT.root if name == "mesh" else WEB.root
    words = ("-no_check_time",) if name == "mesh" else ("-verify_hostname", host(name))
    assert talks(edge, name, pair, version, *words, root=root) == "answer\n"
    edge.calm()


def test_an_optional_certificate_that_is_shown(edge: Edge) -> None:
    assert talks(edge, "cafe", CUSTOMERS.issue(dns=("one.customer",))) == "answer\n"


@pytest.mark.parametrize(
    ("name", "pair", "reason"),
    [
        ("club", None, "no_certificate"),
        ("club", ELSEWHERE.issue(dns=("one.customer",)), "untrusted"),
        ("club", CUSTOMERS.issue(dns=("one.customer",), ends=-60), "expired"),
        ("cafe", ELSEWHERE.issue(dns=("one.customer",)), "untrusted"),
        ("mesh", None, "no_certificate"),
        ("mesh", ROOT.issue(spiffe("web", domain="elsewhere.org")), "foreign_domain"),
        ("nobody", None, "unknown_name"),
    ],
)
def test_who_is_refused_reaches_nothing(edge: Edge, name: str, pair: Pair | None, reason: str) -> None:
    before, opened = edge.refused(reason), edge.proxy.metrics("istio_tcp_connections_opened_total")
    root = ROOT.root if name == "mesh" else WEB.root
    with edge.s_client(name, pair, root=root) as client:
        heard, _ = client.communicate(b"question\n", timeout=20)
    assert heard == b""
    until(lambda: edge.refused(reason) == before + 1, reason)
    assert edge.proxy.metrics("istio_tcp_connections_opened_total") == opened and edge.proxy.active("db")["connections"] == 0


def test_http_on_the_same_port(edge: Edge) -> None:
    with edge.s_client("web") as client:
        client.stdin.write(b"GET /status/200 HTTP/1.1\r\nhost: web.example.com\r\nconnection: close\r\n\r\n")
        client.stdin.flush()
        assert client.communicate(timeout=20)[0].startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("port", [TLS, PASS])
def test_tls_passes_through_untouched(edge: Edge, port: int) -> None:
    """The certificate that the client sees is the endpoint's, whose authority the gateway has never heard of."""
    pair = ELSEWHERE.issue(dns=("a.raw.example.com",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(edge.files.put("raw.crt", pair.certificate), edge.files.put("raw.key", pair.key))

    def serve() -> None:
        with context.wrap_socket(edge.raw.accept().sock, server_side=True) as sock:
            sock.sendall(b"raw " + sock.recv(100))
            with contextlib.suppress(OSError):
                sock.unwrap()

    thread = threading.Thread(target=serve)
    thread.start()
    asking = ssl.create_default_context(cadata=ELSEWHERE.root.decode())
    with (
        socket.create_connection((edge.proxy.ip, port), 10) as plain,
        asking.wrap_socket(plain, server_hostname="a.raw.example.com") as sock,
    ):
        sock.sendall(b"question")
        assert sock.recv(100) == b"raw question"
    thread.join()
    until(lambda: "a.raw.example.com" in edge.access(), "the server's name in the log")
    edge.calm()


def test_plain_bytes(edge: Edge) -> None:
    with edge.client(TCP) as client, edge.db.accept() as server:
        server.send(b"220 the server speaks first\n")
        assert client.until(b"\n") == b"220 the server speaks first\n"
        client.send(b"x" * 100_000)
        client.finish()
        assert server.exactly(100_000) == b"x" * 100_000 and server.ended()
        (endpoint,) = edge.proxy.cluster("db")["endpoints"]
        assert endpoint["cx_active"] == 1
        server.send(b"bye")
        server.close()
        assert client.rest() == b"bye"
    edge.calm()
    assert edge.proxy.cluster("db")["endpoints"][0]["cx_active"] == 0


def test_two_workers_are_one_gateway(tmp_path: Path) -> None:
    """Both take connections of bytes and are counted together, both end them, and both hear of a new configuration."""
    edge = Edge(tmp_path, "--concurrency", "2", drain=0.2)

    def own_sockets(pid: int) -> int:
        return sum(os.readlink(path).startswith("socket:") for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink())

    with edge.app, edge.db, edge.raw, edge.proxy, contextlib.ExitStack() as stack:
        workers = edge.proxy.children()
        before = {pid: own_sockets(pid) for pid in workers}
        pairs = [
            (stack.enter_context(edge.client(TCP)), stack.enter_context(contextlib.closing(edge.db.accept()))) for _ in range(40)
        ]
        for client, _ in pairs:
            client.send(b"question")
        for _, server in pairs:
            assert server.exactly(8) == b"question"
            server.send(b"answer")
        for client, _ in pairs:
            assert client.exactly(6) == b"answer"
        assert len(workers) == 2 and all(own_sockets(pid) > before[pid] for pid in workers)
        (endpoint,) = edge.proxy.cluster("db")["endpoints"]
        assert endpoint["cx_active"] == 40
        assert talks(edge, "db") == "answer\n"
        edge.config.endpoints["db"] = Endpoints(
            name="db", endpoints=(Endpoint(address=edge.raw.address[0], port=edge.raw.address[1]),)
        )
        edge.proxy.install()
        for _ in range(20):
            with edge.client(TCP), edge.raw.accept():
                pass
        edge.proxy.stop()
        for client, server in pairs:
            assert client.rest() == b"" == server.rest()
        assert edge.access().count("drain_time_over") == 40
