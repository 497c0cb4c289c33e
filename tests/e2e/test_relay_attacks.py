"""A gateway's ports of bytes under attack, and what is told of connections that the sidecar cuts itself.

First bytes of every kind, resets at every stage, connections in great numbers.
"""

from __future__ import annotations

import contextlib
import random
import resource
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshproxy.codec.peer_exchange import preamble
from meshproxy.model.security import Trust
from meshproxy.tls.contexts import MESH_BYTES_ALPN, client_context
from tests.certs import Pair, spiffe
from tests.e2e.support.sockets import Peer, until
from tests.e2e.test_gateway_bytes import ANY, PASS, ROOT, TCP, TLS, WEB, Edge, host
from tests.listener.test_entrance import hello

pytestmark = [pytest.mark.system("openssl"), pytest.mark.timeout(180)]
GONE = (ConnectionResetError, BrokenPipeError)
CROWD = 10_000


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    made = Edge(tmp_path_factory.mktemp("edge"))
    with made.app, made.db, made.raw, made.proxy:
        yield made


def over(peer: Peer) -> bool:
    """The other side has ended, by whatever means."""
    with contextlib.suppress(*GONE):
        return peer.rest() == b""
    return True


@pytest.mark.parametrize("port", [TLS, PASS])
def test_a_hello_in_pieces_of_one_byte(edge: Edge, port: int) -> None:
    said = hello("a.raw.example.com")
    with edge.client(port) as client:
        for byte in said:
            client.send(bytes((byte,)))
        with edge.raw.accept() as server:
            assert server.exactly(len(said)) == said
            server.cut()
        assert over(client)
    edge.calm()


@pytest.mark.parametrize("port", [TLS, PASS])
@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + b"A" * 100_000,
        (b"\x16\x03\x01\x00\x01\x01" + b"\x16\x03\x01\x00\x01\x00") * 20_000,
        b"\x16\x03\x01\x00\x00" * 1000,
        b"\x16\x03\x01\x40\x01" + b"\x00" * 70_000,
        b"\x16\x03\x03\x40\x00\x01\x00\x40\xfc" + b"\x03\x03" + b"\x00" * 40_000,
    ],
    ids=["longer than allowed", "in records of one byte", "empty records", "a record too large", "of zeroes"],
)
def test_a_hello_that_is_none(edge: Edge, port: int, said: bytes) -> None:
    with edge.client(port) as client:
        with contextlib.suppress(*GONE):
            client.send(said)
        assert over(client)
    assert edge.proxy.active("raw")["connections"] == 0


def test_first_bytes_of_every_kind_and_ends_of_every_kind(edge: Edge) -> None:
    """Whatever comes: nothing breaks, nothing is left."""
    dice = random.Random(5)
    heads = [
        b"",
        b"GET / HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        hello("db.example.com"),
        b"GET ",
    ]
    taken: list[Peer] = []
    for _ in range(300):
        client = edge.client(dice.choice((TLS, TCP, ANY, PASS)))
        with contextlib.suppress(*GONE):
            head = dice.choice(heads)
            client.send(head[: dice.randrange(len(head) + 1)] + dice.randbytes(dice.choice((0, 1, 7, 300))))
            if dice.random() < 0.3:
                client.finish()
        taken.append(client)
        if dice.random() < 0.7:
            one = taken.pop(dice.randrange(len(taken)))
            with contextlib.suppress(OSError):
                dice.choice((one.cut, one.close))()
    for one in taken:
        one.close()
    leave_alone(edge)
    with edge.client(TCP) as client, edge.db.accept() as server:
        client.send(b"still here")
        assert server.exactly(10) == b"still here"
    edge.calm()


def leave_alone(edge: Edge) -> None:
    """Close all that reached the endpoints, until nobody is connected."""
    edge.db.sock.settimeout(0.05)
    try:

        def quiet() -> bool:
            with contextlib.suppress(TimeoutError):
                while True:
                    edge.db.sock.accept()[0].close()
            return all(edge.proxy.active(name)["connections"] == 0 for name in ("db", "raw"))

        until(quiet, "no connection is left", 30)
    finally:
        edge.db.sock.settimeout(10)


STAGES = [
    "at once",
    "after a word",
    "while dialing",
    "when the server is there",
    "after the server's word",
    "after its end",
    "after both",
]


@pytest.mark.parametrize("side", ["client", "server", "both"])
@pytest.mark.parametrize("port", [TCP, ANY])
@pytest.mark.parametrize("stage", range(len(STAGES)), ids=STAGES)
def test_a_reset_at_every_stage(edge: Edge, stage: int, port: int, side: str) -> None:
    """Four at a time, so that one's end meets another's beginning."""
    clients = [edge.client(port) for _ in range(4)]
    servers: list[Peer] = []
    for client in clients:
        if stage >= 1:
            client.send(b"\x00word")
    if stage >= 3:
        servers = [edge.db.accept() for _ in clients]
    for server in servers:
        if stage >= 4:
            server.send(b"answer")
        if stage >= 5:
            server.finish()
    for client in clients:
        if stage >= 4:
            assert client.exactly(6) == b"answer"
        if stage >= 6:
            client.finish()
    if side != "client":
        for server in servers:
            server.cut()
    if side != "server" or not servers:
        for client in clients:
            client.cut()
    else:
        for client in clients:
            assert over(client)
            client.close()
    for server in servers:
        server.close()
    leave_alone(edge)
    edge.proxy.check_log()


def test_a_crowd_costs_little_and_does_not_stay(edge: Edge) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    many = min(CROWD, soft - 2000)
    before = edge.proxy.resident()
    files = edge.proxy.files()
    crowd: list[socket.socket] = []
    try:
        for _ in range(many):
            crowd.append(socket.create_connection((edge.proxy.ip, PASS), 10))
        with edge.client(TCP) as client, edge.db.accept() as server:
            server.send(b"hello")
            assert client.exactly(5) == b"hello"
        grown = edge.proxy.resident() - before
        assert grown < many * 16 * 1024, f"{grown / many:.0f} bytes each"
        until(lambda: edge.proxy.files() < files + many // 10, "those that say nothing are sent away", 60)
    finally:
        for sock in crowd:
            sock.close()
    edge.calm()


# -- what we cut ourselves


def peer(edge: Edge, pair: Pair) -> ssl.SSLSocket:
    context = client_context(pair.certificate, pair.key, roots=(ROOT.root,), alpn=MESH_BYTES_ALPN, check_name=False)
    plain = socket.create_connection((edge.proxy.ip, TLS), 10)
    return context.wrap_socket(plain, server_hostname=host("mesh"))


@pytest.mark.parametrize(
    "said",
    [
        b"\x3d\x23\x04\x67\xff\xff\xff\xff" + b"A" * 1000,
        b"\x3d\x23\x04\x67\x00\x01\x00\x01",
        b"\x3d\x23\x04\x67\x7f\xff\xff\xff",
    ],
)
def test_an_introduction_that_is_too_long_is_refused(edge: Edge, said: bytes) -> None:
    with peer(edge, ROOT.issue(spiffe("web"))) as sock:
        sock.sendall(said)
        with contextlib.suppress(OSError):
            while sock.recv(1000):
                pass
    edge.calm()


def test_an_introduction_of_rubbish_costs_nothing_but_the_name(edge: Edge) -> None:
    dice = random.Random(7)
    deep = b"\x0a\x02ab\x12" * 5000
    for told in (
        dice.randbytes(400),
        b"\xff" * 400,
        b"\x0a" * 4000,
        deep,
        preamble({"NAME": {"x": "y"}, "LABELS": "no struct"}, "x")[8:],
        b"",
    ):
        with peer(edge, ROOT.issue(spiffe("web"))) as sock:
            sock.sendall(b"\x3d\x23\x04\x67" + len(told).to_bytes(4, "big") + told + b"question")
            with edge.db.accept() as server:
                assert server.exactly(8) == b"question"
    leave_alone(edge)


def test_a_peer_that_is_revoked_while_it_is_connected(edge: Edge) -> None:
    pair = ROOT.issue(spiffe("thief"))
    with peer(edge, pair) as sock:
        sock.sendall(preamble({}, "x") + b"question")
        server = edge.db.accept()
        assert server.exactly(8) == b"question"
        edge.config.trust = Trust(roots=(ROOT.root.decode(),), revoked_serials=(pair.serial,))
        edge.proxy.install()
        raw = socket.socket(fileno=sock.detach())
        with raw, pytest.raises(ConnectionResetError):
            while raw.recv(1000):
                pass
        assert over(server)
        server.close()
    until(lambda: "peer_revoked" in edge.access(), "the reason in the log")
    edge.calm()


def test_the_drain_s_end_is_said_to_be_ours(tmp_path: Path) -> None:
    edge = Edge(tmp_path, drain=0.2)
    with edge.app, edge.db, edge.raw, edge.proxy, edge.client(TCP) as client, edge.db.accept() as server:
        client.send(b"question")
        assert server.exactly(8) == b"question"
        edge.proxy.stop()
        assert over(client) and over(server)
        (line,) = edge.access().splitlines()
        assert "drain_time_over" in line and " DC " not in line


@pytest.mark.parametrize("stage", ["hello", "handshake", "word", "flood", "answer", "end"])
@pytest.mark.parametrize("side", ["client", "server"])
def test_a_client_of_tls_lost_at_every_stage(edge: Edge, stage: str, side: str) -> None:
    context = ssl.create_default_context(cadata=WEB.root.decode())
    for _ in range(4):
        plain = socket.create_connection((edge.proxy.ip, TLS), 10)
        if stage == "hello":
            plain.sendall(hello(host("db"))[:100])
            Peer(plain).cut()
            continue
        sock = context.wrap_socket(plain, server_hostname=host("db"))
        sock.settimeout(10)
        server = edge.db.accept()
        if stage != "handshake":
            sock.sendall(b"question")
            assert server.exactly(8) == b"question"
        if stage == "flood":
            sock.settimeout(0.2)
            with pytest.raises(TimeoutError):  # the server reads nothing, so the client has to wait
                while True:
                    sock.sendall(b"x" * 65536)
        if stage in ("answer", "end"):
            server.send(b"answer")
            assert sock.recv(6) == b"answer"
        if stage == "end":
            server.finish()
            assert sock.recv(1) == b""
        client = Peer(socket.socket(fileno=sock.detach()))
        one, other = (client, server) if side == "client" else (server, client)
        one.cut()
        if stage != "flood":
            other.rest()  # to its end; who is still connected runs out of time
        other.close()
    leave_alone(edge)
    edge.proxy.check_log()
    assert edge.proxy.resident() < 200 << 20
