"""What is not an ordinary GET, through two sidecars that are joined by mutual TLS: nothing of HTTP may be lost on the way.

``web`` calls ``raw``, whose app is the test's own hands; every byte between the two sidecars is TLS.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.secure_mesh import SecureMesh, Steady, running, security
from tests.e2e.semantics_support import until
from tests.e2e.support.sockets import Listening, Peer, connect
from tests.e2e.test_sidecar_pressure import BOUND, GIB, MIB, OK, stuff

pytestmark = [pytest.mark.system("kubectl"), pytest.mark.timeout(180)]
GET = b"GET /x HTTP/1.1\r\nhost: raw\r\n\r\n"
RAW = "outbound|80||raw.default.svc.cluster.local"
UPGRADE = b"connection: Upgrade\r\nupgrade: websocket\r\n"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureMesh]:
    with running(SecureMesh(tmp_path_factory.mktemp("wire"))) as made:
        made.workload("web")
        made.workload("bank")
        made.workload("raw", app=9082)
        made.ready()
        for name in ("bank", "raw"):
            made.endpoints(name, 1)
        made.apply(security("PeerAuthentication", "default", {"mtls": {"mode": "STRICT"}}, "istio-system"))
        yield made


@pytest.fixture(scope="module")
def app(mesh: SecureMesh) -> Iterator[Listening]:
    with Listening(mesh.ips["raw"], 65536, port=9082) as listening:
        yield listening


@pytest.fixture
def client(mesh: SecureMesh) -> Iterator[Peer]:
    with connect((mesh.proxies["web"].ip, 15001)) as peer:
        yield peer


@pytest.fixture(autouse=True)
def forget(mesh: SecureMesh, app: Listening) -> Iterator[None]:
    yield
    app.forget()

    def over() -> bool:
        asked, served = (
            mesh.proxies[name].cluster(cluster)["active"] for name, cluster in (("web", RAW), ("raw", "inbound|8080||"))
        )
        return not asked["requests"] and not served["requests"] and not served["connections"]

    until(over, "all is over, and the app's sidecar knows which connections are gone")


def start(client: Peer, app: Listening, head: bytes) -> Peer:
    client.send(head)
    return app.accept()


def test_it_is_mutual_tls(mesh: SecureMesh, client: Peer, app: Listening) -> None:
    server = start(client, app, GET)
    headers = server.request()[1]
    assert headers["x-forwarded-client-cert"].endswith(";URI=spiffe://cluster.local/ns/default/sa/web")
    assert not [name for name in headers if "peer-metadata" in name]
    server.send(OK)
    assert client.response().body == b"ok"
    assert mesh.metric("raw", "mesh_tls_handshakes_total", side="server") > 0


def test_an_upgrade_and_both_ways_to_end_it(mesh: SecureMesh, app: Listening) -> None:
    for last in ("client", "app"):
        with connect((mesh.proxies["web"].ip, 15001)) as client:
            server = start(client, app, b"GET /chat HTTP/1.1\r\nhost: raw\r\n" + UPGRADE + b"\r\n")
            headers = server.head()[1]
            assert (headers["upgrade"], headers["connection"].lower()) == ("websocket", "upgrade")
            server.send(b"HTTP/1.1 101 Switching Protocols\r\n" + UPGRADE + b"\r\nhello")
            assert client.response().status == 101 and client.exactly(5) == b"hello"
            piece = os.urandom(MIB)
            sender = threading.Thread(target=client.send, args=(piece,))
            sender.start()
            assert server.exactly(MIB) == piece
            sender.join(10)
            first, second = (client, server) if last == "app" else (server, client)
            first.send(b"good-bye")
            first.finish()
            assert second.rest() == b"good-bye"
            second.send(b"a long good-bye")
            second.finish()
            assert first.rest() == b"a long good-bye"


def test_a_tunnel_that_is_cut_is_cut_on_both_sides(client: Peer, app: Listening) -> None:
    server = start(client, app, b"GET /chat HTTP/1.1\r\nhost: raw\r\n" + UPGRADE + b"\r\n")
    server.head()
    server.send(b"HTTP/1.1 101 Switching Protocols\r\n" + UPGRADE + b"\r\n")
    assert client.response().status == 101
    server.cut()
    assert client.ended()


def test_a_tunnel_outlives_rotation_and_ends_with_its_identity(mesh: SecureMesh, client: Peer, app: Listening) -> None:
    server = start(client, app, b"GET /chat HTTP/1.1\r\nhost: raw\r\n" + UPGRADE + b"\r\n")
    server.head()
    server.send(b"HTTP/1.1 101 Switching Protocols\r\n" + UPGRADE + b"\r\n")
    assert client.response().status == 101
    mesh.meshctl("ca", "rotate")
    mesh.reconnect()
    for sender, receiver in ((client, server), (server, client)):
        sender.send(b"still here")
        assert receiver.exactly(10) == b"still here"
    mesh.meshctl("ca", "revoke", "default/web")
    try:
        assert client.ended() and server.ended()
    finally:
        mesh.meshctl("ca", "restore", "default/web")


def test_continue_is_asked_and_answered_once(client: Peer, app: Listening) -> None:
    head = b"PUT /x HTTP/1.1\r\nhost: raw\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n"
    server = start(client, app, head)
    assert server.head()[1]["expect"] == "100-continue"
    assert client.silent()
    server.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert client.response().status == 100
    client.send(b"data")
    assert server.exactly(4) == b"data"
    server.send(OK)
    assert client.response().body == b"ok"


def test_no_body_after_a_417(client: Peer, app: Listening) -> None:
    head = b"PUT /x HTTP/1.1\r\nhost: raw\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n"
    server = start(client, app, head)
    server.head()
    server.send(b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n")
    assert client.response().status == 417
    assert server.ended()


def test_chunks_and_trailers_both_ways(client: Peer, app: Listening) -> None:
    post = b"POST /up HTTP/1.1\r\nhost: raw\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\nte: trailers\r\n\r\n"
    server = start(client, app, post + b"5\r\nhello\r\n")
    server.head()
    client.send(b"6\r\n world\r\n0\r\nx-sum: 11\r\n\r\n")
    assert server.chunks() == (b"hello world", {"x-sum": "11"})
    server.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-end\r\n\r\n4\r\nwxyz\r\n0\r\nx-end: yes\r\n\r\n")
    answer = client.response()
    assert (answer.body, answer.trailers) == (b"wxyz", {"x-end": "yes"})


def test_http_1_0_clients(client: Peer, app: Listening) -> None:
    server = start(client, app, b"GET /old HTTP/1.0\r\nhost: raw\r\n\r\n")
    assert server.request()[0].endswith("HTTP/1.1")
    server.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nold\r\n0\r\n\r\n")
    answer = client.response()
    assert "transfer-encoding" not in answer.headers and answer.body == b"old"
    assert client.ended()


def test_an_answer_until_the_end_of_the_connection(client: Peer, app: Listening) -> None:
    """Whole when the app closes, cut when it is cut: TLS has an end of its own, and that is what tells them apart."""
    server = start(client, app, GET)
    server.request()
    server.send(b"HTTP/1.1 200 OK\r\n\r\n" + b"w" * 100_000)
    server.close()
    assert client.response().body == b"w" * 100_000


def test_an_answer_that_is_cut_is_cut(client: Peer, app: Listening) -> None:
    for framing in (b"content-length: 9", b"transfer-encoding: chunked"):
        with connect(client.sock.getpeername()) as peer:
            server = start(peer, app, GET)
            server.request()
            server.send(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
            peer.head()
            server.cut()
            assert peer.rest() == b""


def test_an_early_answer_and_103(client: Peer, app: Listening) -> None:
    server = start(client, app, GET)
    server.request()
    server.send(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + OK)
    assert client.response().status == 103 and client.response().body == b"ok"
    client.send(b"POST /big HTTP/1.1\r\nhost: raw\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 1000)
    server.head()
    server.send(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig")
    answer = client.response()
    assert (answer.status, answer.body) == (413, b"big")


def resident(mesh: SecureMesh) -> dict[str, int]:
    """Bytes of each sidecar on the way."""
    page = os.sysconf("SC_PAGE_SIZE")
    pids = {name: mesh.proxies[name].process.pid for name in ("web", "raw")}
    return {name: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for name, pid in pids.items()}


def grown(mesh: SecureMesh, before: dict[str, int]) -> int:
    """How much the sidecar grew that grew most."""
    return max(size - before[name] for name, size in resident(mesh).items())


@pytest.fixture
def warm(client: Peer, app: Listening) -> None:
    """What is made at the first use is no growth."""
    server = start(client, app, b"POST / HTTP/1.1\r\nhost: raw\r\ncontent-length: 1000000\r\n\r\n" + bytes(1000000))
    server.request()
    server.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\nconnection: close\r\n\r\n" + bytes(1000000))
    client.response()


@pytest.mark.parametrize("framing", [f"content-length: {GIB}", "transfer-encoding: chunked"])
@pytest.mark.usefixtures("warm")
def test_an_app_that_stopped_reading_stops_the_client(mesh: SecureMesh, app: Listening, framing: str) -> None:
    with connect((mesh.proxies["web"].ip, 15001)) as client:
        server = start(client, app, f"POST / HTTP/1.1\r\nhost: raw\r\n{framing}\r\n\r\n".encode())
        server.head()
        before = resident(mesh)
        piece = b"z" * MIB if "length" in framing else b"%x\r\n%b\r\n" % (MIB, b"z" * MIB)
        sent = stuff(client, piece, GIB)
        assert sent < 64 * MIB, "nobody holds it up"
        assert grown(mesh, before) < BOUND


@pytest.mark.parametrize("framing", [f"content-length: {GIB}", "transfer-encoding: chunked"])
@pytest.mark.usefixtures("warm")
def test_a_client_that_stopped_reading_stops_the_app(mesh: SecureMesh, app: Listening, framing: str) -> None:
    with connect((mesh.proxies["web"].ip, 15001), receive_buffer=65536) as client:
        server = start(client, app, GET)
        server.head()
        before = resident(mesh)
        server.send(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
        piece = b"%x\r\n%b\r\n" % (MIB, b"z" * MIB) if "chunked" in framing else b"z" * MIB
        sent = stuff(server, piece, GIB)
        assert sent < 64 * MIB
        assert grown(mesh, before) < BOUND
        client.until(b"\r\n\r\n")
        client.exactly(8 * MIB)  # it reads again: so it goes on
        assert stuff(server, piece, 4 * MIB, begun=sent) >= 4 * MIB
        assert grown(mesh, before) < BOUND


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_a_quarter_of_a_gib_each_way(mesh: SecureMesh, app: Listening) -> None:
    before, piece = resident(mesh), os.urandom(MIB)
    with connect((mesh.proxies["web"].ip, 15001)) as client:
        server = start(client, app, b"POST / HTTP/1.1\r\nhost: raw\r\ncontent-length: %d\r\n\r\n" % (256 * MIB))
        server.head()
        for sender, receiver in ((client, server), (server, client)):
            sending = threading.Thread(target=lambda sender=sender: [sender.send(piece) for _ in range(256)])
            sending.start()
            for _ in range(256):
                assert receiver.exactly(MIB) == piece
            sending.join(20)
            if sender is client:
                server.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (256 * MIB))
                client.head()
    assert grown(mesh, before) < BOUND


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("who", ["web", "bank"])
def test_a_sidecar_that_ends_loses_no_request(mesh: SecureMesh, who: str, keep: bool) -> None:
    """SIGTERM on the client's side and on the server's, under load: whoever was answered was answered well."""
    web = mesh.proxies["web"]
    with Steady((web.ip, web.port), "http://bank/x", "bank", 4, keep=keep) as load:
        load.more(100)
        process = mesh.proxies[who].process
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, mesh.log(who)[-2000:]
    refused = ("ConnectionRefusedError",) if who == "web" else ("503 upstream connect error or disconnect/reset before headers.",)
    assert [one for one in load.bad if not one.startswith(refused)] == []
    if who == "bank":
        assert [one for one in load.bad if "remote connection failure" not in one] == [], "only dials that nobody took fail"
    mesh.again(who)
    mesh.ready()
    until(lambda: mesh.proxies["web"].ask("http://bank/x").status == 200, "it serves again")
