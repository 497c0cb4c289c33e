"""A line's dial over real sockets: TLS for bytes (names, protocols, introductions), the source address, who speaks first."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from meshproxy.cluster.cluster import Cluster as Live
from meshproxy.codec.peer_exchange import PeerReader, preamble
from meshproxy.message.reason import Reason
from meshproxy.model.cluster import Cluster, Endpoint, Endpoints, Service, Workload
from meshproxy.model.security import ClientTls, Trust
from meshproxy.policy.peer_metadata import OwnMetadata
from meshproxy.relay.line import Line
from meshproxy.tls.contexts import MESH_SERVER_ALPN, server_context
from meshproxy.tls.vault import Vault
from meshproxy.upstream.dial import TcpDialer
from meshproxy.upstream.secure import ClientSide
from tests.certs import Authority, spiffe

HOST = "127.61.0.77"
ROOT = Authority()
DB = "db.default.svc.cluster.local"


class Ear:
    """A relay, as far as its endpoint is concerned."""

    def __init__(self) -> None:
        self.leased: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.heard = bytearray()
        self.said = asyncio.Event()
        self.ended = asyncio.Event()
        self.failed: Reason | None = None

    def on_leased(self, connection: Any, now: float) -> None:
        connection.begin(self)
        connection.codec.start(self)
        connection.codec.listened(now)
        self.leased.set_result(connection)

    def on_dial_failed(self, reason: Reason, failure: str, now: float) -> None:
        self.leased.set_result((reason, failure))

    def on_response_data(self, data: bytes, end: bool, now: float) -> None:
        self.heard += data
        if self.heard.endswith(b"bye"):
            self.said.set()

    def on_response_end(self, trailers: Any, now: float) -> None:
        self.ended.set()

    def on_response_flush(self, now: float) -> None: ...

    def on_upstream_failed(self, reason: Reason, now: float) -> None:
        self.failed = reason
        self.ended.set()


class Server:
    """Says ``first`` at once, ``bye`` after ``hello``, and ends after its client (asyncio's TLS knows no half-close)."""

    def __init__(self, first: bytes = b"", context: ssl.SSLContext | None = None) -> None:
        self.first = first
        self.context = context
        self.names: list[str | None] = []
        self.heard = bytearray()
        self.source = ""
        self.alpn: str | None = None
        self.over = asyncio.Event()
        if context is not None:
            context.sni_callback = lambda tls, name, context: self.names.append(name)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.source = writer.get_extra_info("peername")[0]
        tls = writer.get_extra_info("ssl_object")
        self.alpn = tls.selected_alpn_protocol() if tls is not None else None
        writer.write(self.first)
        while data := await reader.read(65536):
            self.heard += data
            if self.heard.endswith(b"hello"):
                writer.write(b"bye")
        writer.close()
        self.over.set()


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await story()

    asyncio.run(bounded())


async def dialed(server: Server, tls: ClientTls | None = None, **cluster: Any) -> tuple[Ear, Any, asyncio.Server, Line]:
    listening = await asyncio.start_server(server.serve, HOST, 0, ssl=server.context)
    port = listening.sockets[0].getsockname()[1]
    bugs: list[BaseException] = []
    vault = Vault()
    vault.identify(ROOT.identity(spiffe("web")))
    vault.configure(Trust(roots=(ROOT.pem.decode(),)), {})
    side = ClientSide(vault, OwnMetadata(Workload(pod="web-1", namespace="default", workload="web"), "sidecar~x"))
    dialer = TcpDialer(asyncio.get_running_loop(), lambda where, bug: bugs.append(bug), secure=side)
    service = Service(host=DB, name="db", namespace="default")
    config = Cluster(name=f"outbound|5432||{DB}", tls=tls, service=service, **cluster)
    live = Live(config, [Endpoint(address=HOST, port=port, mtls=True)])
    groups = {config.name: Endpoints(name=config.name, identities=(spiffe("db"),))}
    side.configured([live], groups, 0.0)
    line, ear = Line(live, live.endpoints[0], dialer), Ear()
    assert line.acquire(ear, 0.0) is None
    got = await ear.leased
    assert not bugs
    return ear, got, listening, line


async def talk(ear: Ear, connection: Any) -> None:
    connection.codec.send_data(b"hello", False)
    await ear.said.wait()
    connection.codec.send_trailers([])
    await ear.ended.wait()
    connection.end(False)


def mesh(alpn: tuple[str, ...] = MESH_SERVER_ALPN, account: str = "db") -> ssl.SSLContext:
    pair = ROOT.issue(spiffe(account))
    return server_context(pair.certificate, pair.key, verify="required", roots=(ROOT.pem,), alpn=alpn)


@pytest.mark.parametrize("first", [b"", b"220 ready\r\n"])
def test_plaintext_from_the_address_that_the_cluster_wants(first: bytes) -> None:
    async def story() -> None:
        server = Server(first)
        ear, connection, listening, line = await dialed(server, bind="127.0.0.6")
        await talk(ear, connection)
        await server.over.wait()
        listening.close()
        assert (server.source, bytes(server.heard), bytes(ear.heard)) == ("127.0.0.6", b"hello", first + b"bye")
        assert line.limits.connections == 0 and ear.failed is None

    run(story)


def test_the_mesh_s_tls_with_introductions() -> None:
    async def story() -> None:
        own = OwnMetadata(Workload(pod="db-1", namespace="default", workload="db"), "sidecar~y")
        server = Server(preamble(own.fields, own.node) + b"220 ready\r\n", mesh())
        ear, connection, listening, _ = await dialed(server, ClientTls())
        await talk(ear, connection)
        await server.over.wait()
        listening.close()
        assert (server.alpn, server.names) == ("istio-peer-exchange", [f"outbound_.5432_._.{DB}"])
        reader = PeerReader()
        assert reader.feed(bytes(server.heard)) == b"hello"
        assert reader.workload is not None and reader.workload.workload == "web"
        assert bytes(ear.heard) == b"220 ready\r\nbye"
        assert connection.secured.workload.workload == "db"

    run(story)


def test_a_peer_without_introductions() -> None:
    async def story() -> None:
        server = Server(context=mesh(("istio",)))
        ear, connection, listening, _ = await dialed(server, ClientTls())
        await talk(ear, connection)
        await server.over.wait()
        listening.close()
        assert (server.alpn, bytes(server.heard), bytes(ear.heard)) == ("istio", b"hello", b"bye")

    run(story)


def test_somebody_else_is_not_spoken_to() -> None:
    async def story() -> None:
        server = Server(context=mesh(account="thief"))
        _, got, listening, line = await dialed(server, ClientTls())
        listening.close()
        assert got == (Reason.CONNECT_FAILURE, "TLS_error: the peer is not who it should be")
        assert not server.heard and line.limits.connections == 0

    run(story)


@pytest.mark.parametrize(("dns", "sni", "works"), [(DB, "", True), ("other", "", False), ("own.example", "own.example", True)])
def test_tls_to_others_asks_for_the_service_s_name_and_no_protocol(tmp_path: Path, dns: str, sni: str, works: bool) -> None:
    async def story() -> None:
        pair = ROOT.issue(dns=(dns,))
        server = Server(b"220 ready\r\n", server_context(pair.certificate, pair.key, alpn=("http/1.1",)))
        roots = tmp_path / "roots"
        roots.write_bytes(ROOT.pem)
        ear, got, listening, _ = await dialed(server, ClientTls(mode="SIMPLE", sni=sni, ca_file=str(roots)))
        if works:
            await talk(ear, got)
            await server.over.wait()
            assert (server.alpn, server.names) == (None, [sni or DB])
            assert bytes(ear.heard) == b"220 ready\r\nbye"
        else:
            assert got[0] is Reason.CONNECT_FAILURE and "TLS_error" in got[1]
        listening.close()

    run(story)


def test_an_end_without_close_notify_is_a_loss() -> None:
    async def story() -> None:
        taken: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
        server = Server(context=mesh(("istio",)))

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            taken.set_result(writer)

        server.serve = serve  # type: ignore[method-assign]
        ear, _, listening, _ = await dialed(server, ClientTls())
        writer = await taken
        writer.transport.get_extra_info("socket").shutdown(socket.SHUT_WR)
        await ear.ended.wait()
        assert ear.failed is Reason.UPSTREAM_TERMINATION
        writer.transport.abort()
        listening.close()

    run(story)
