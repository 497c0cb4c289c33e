"""Dialing in TLS, against real servers on loopback: who is let in, who is refused, in which words, and what ends afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from meshproxy.cluster.cluster import Cluster as Live
from meshproxy.message.head import RequestHead
from meshproxy.message.reason import Reason
from meshproxy.message.secured import TlsFault
from meshproxy.model.cluster import Cluster, ConnectionPool, Endpoint, Endpoints, LoadBalancer, Workload
from meshproxy.model.security import ClientTls, Secret, Trust
from meshproxy.policy.peer_metadata import OwnMetadata
from meshproxy.tls.contexts import MESH_SERVER_ALPN, server_context
from meshproxy.tls.session import Session
from meshproxy.tls.vault import Vault
from meshproxy.upstream.dial import TcpDialer
from meshproxy.upstream.secure import ClientSide
from tests.certs import Authority, Pair, spiffe

HOST = "127.61.0.42"
ME, RATING, BOOK = spiffe("web"), spiffe("rating"), spiffe("book")
ROOT, OTHER_ROOT = Authority("mesh"), Authority("elsewhere")
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await story()

    asyncio.run(bounded())


class Server:
    """A TLS server that answers every head it sees. ``heads``: what came; ``names``: what was asked for."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.names: list[str | None] = []
        self.clients: list[asyncio.StreamWriter] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.clients.append(writer)
        with contextlib.suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError):
            if writer.get_extra_info("ssl_object") is None and (await reader.readexactly(1)) == b"\x16":
                writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            while not reader.at_eof():
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(OK)
        writer.close()

    def named(self, tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        self.names.append(name)


@contextlib.asynccontextmanager
async def serving(context: ssl.SSLContext | None) -> AsyncIterator[Server]:
    made = Server()
    if context is not None:
        context.sni_callback = made.named  # type: ignore[assignment]
    server = await asyncio.start_server(made.serve, HOST, 0, ssl=context)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for writer in made.clients:
            writer.transport.abort()
        await server.wait_closed()


def mesh(pair: Pair, roots: tuple[bytes, ...] = (ROOT.pem,)) -> ssl.SSLContext:
    return server_context(pair.certificate, pair.key, verify="required", roots=roots, alpn=MESH_SERVER_ALPN)


class Door(asyncio.Protocol):
    """The server's half of a handshake, which says why it refuses (asyncio's own keeps the alert to itself)."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.session = Session(context, True)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.session.receive(data)
        self.transport.write(self.session.take())
        if self.session.fault is not None:
            self.transport.close()


class Waiter:
    def __init__(self, authority: bytes = b"rating:8080") -> None:
        self.told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.authority = authority

    def on_leased(self, connection: Any, now: float) -> None:
        self.told.set_result(connection)

    def on_dial_failed(self, reason: Reason, failure: str, now: float) -> None:
        self.told.set_result((reason, failure))


class Sink:
    """An attempt's ears."""

    def __init__(self) -> None:
        self.told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def on_response_head(self, head: Any, end: bool, now: float) -> None:
        pass

    def on_response_data(self, data: bytes, end: bool, now: float) -> None:
        if end:
            self.told.set_result(data)

    def on_response_flush(self, now: float) -> None: ...

    def on_upstream_failed(self, reason: Reason, now: float) -> None:
        self.told.set_result(reason)


class Client:
    """One cluster with one endpoint, and all that dials it."""

    def __init__(
        self, port: int, tls: ClientTls | None, *, mtls: bool = True, identities: tuple[str, ...] = (), **more: Any
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.bugs: list[BaseException] = []
        self.vault = Vault()
        self.own = OwnMetadata(
            Workload(pod="web-1", namespace="default"), "sidecar~1.2.3.4~web-1.default~default.svc.cluster.local"
        )
        self.side = ClientSide(self.vault, self.own)
        self.dialer = TcpDialer(self.loop, lambda where, bug: self.bugs.append(bug), secure=self.side)
        pool = ConnectionPool(connect_timeout=more.pop("connect_timeout", 10.0))
        self.config = Cluster(
            name=more.pop("name", "outbound|8080|v1|rating.default.svc.cluster.local"), tls=tls, pool=pool, **more
        )
        self.endpoint = Endpoint(address=HOST, port=port, mtls=mtls)
        self.cluster = Live(self.config, [self.endpoint])
        self.identities = identities

    def identify(self, *, root: Authority = ROOT, trust: Trust | None = None, **leaf: float) -> Client:
        self.vault.identify(root.identity(ME, **leaf))
        return self.configured(trust or Trust(roots=(ROOT.pem.decode(),)))

    def configured(self, trust: Trust | None = None, secrets: dict[str, Secret] | None = None) -> Client:
        self.vault.configure(trust, secrets or {})
        groups = {self.config.name: Endpoints(name=self.config.name, identities=self.identities)}
        self.side.configured([self.cluster], groups, self.loop.time())
        return self

    @property
    def live(self) -> Any:
        return self.cluster.endpoints[0]

    async def connect(self, authority: bytes = b"rating:8080") -> Any:
        """A leased connection, or (reason, words)."""
        endpoint = self.live
        if endpoint.pool is None:
            endpoint.pool = self.side.pool(self.cluster, endpoint, self.dialer)
        waiter = Waiter(authority)
        got = endpoint.pool.acquire(waiter, self.loop.time())
        return got if got is not None else await waiter.told

    async def ask(self, connection: Any, headers: list[tuple[bytes, bytes]] | None = None) -> Any:
        sink = Sink()
        connection.begin(sink)
        connection.codec.start(sink, b"GET")
        connection.codec.send_head(RequestHead(b"GET", b"/", b"rating:8080", headers or []), True)
        said = await sink.told
        connection.end(said == b"ok")
        return said

    def failures(self) -> dict[str, int]:
        return {fault.name: count for (side, fault), count in self.vault.tally.failures.items() if side == "client"}

    async def aclose(self) -> None:
        await self.dialer.aclose()
        for connection in list(self.side.connections):
            connection.transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not self.bugs


AUTO = ClientTls()
EXPIRED = {"begins": -7200.0, "ends": -3600.0}
FAULTS: list[tuple[str, Callable[[], ssl.SSLContext | None], TlsFault]] = [
    ("expired", lambda: mesh(ROOT.issue(RATING, begins=-7200.0, ends=-3600.0)), TlsFault.EXPIRED),
    ("not yet valid", lambda: mesh(ROOT.issue(RATING, begins=3600.0, ends=7200.0)), TlsFault.NOT_YET_VALID),
    ("other root", lambda: mesh(OTHER_ROOT.issue(RATING)), TlsFault.UNTRUSTED),
    ("other account", lambda: mesh(ROOT.issue(BOOK)), TlsFault.WRONG_IDENTITY),
    ("no identity", lambda: mesh(ROOT.issue(dns=("rating",))), TlsFault.WRONG_IDENTITY),
    ("two identities", lambda: mesh(ROOT.issue((RATING, BOOK))), TlsFault.WRONG_IDENTITY),
    ("foreign domain", lambda: mesh(ROOT.issue(spiffe("rating", domain="evil.example"))), TlsFault.FOREIGN_DOMAIN),
    ("plaintext", lambda: None, TlsFault.PROTOCOL),
]


@pytest.mark.parametrize(("what", "make", "fault"), FAULTS, ids=[one[0] for one in FAULTS])
def test_a_server_that_is_not_who_it_should_be(what: str, make: Callable[[], ssl.SSLContext | None], fault: TlsFault) -> None:
    async def story() -> None:
        async with serving(make()) as server:
            client = Client(server.port, AUTO, identities=(RATING,)).identify()
            reason, words = await client.connect()
            assert reason is Reason.CONNECT_FAILURE
            assert words.startswith(f"TLS_error: {fault.value}") and "spiffe" not in words
            assert client.failures() == {fault.name: 1}
            assert client.live.cx_connect_fail == 1
            assert client.cluster.limits.idle and not client.side.connections and not server.heads
            await client.aclose()

    run(story)


def test_a_revoked_server_is_refused_by_serial_and_by_identity() -> None:
    async def story() -> None:
        pair = ROOT.issue(RATING)
        async with serving(mesh(pair)) as server:
            for trust in (
                Trust(roots=(ROOT.pem.decode(),), revoked_serials=(pair.serial,)),
                Trust(roots=(ROOT.pem.decode(),), revoked_identities=(RATING,)),
            ):
                client = Client(server.port, AUTO, identities=(RATING,)).identify(trust=trust)
                assert (await client.connect())[1].startswith("TLS_error: the peer's certificate or identity is revoked")
                assert client.failures() == {"REVOKED": 1}
                await client.aclose()

    run(story)


def test_the_right_server_gets_istios_name_and_our_metadata_once() -> None:
    async def story() -> None:
        async with serving(mesh(ROOT.issue(RATING))) as server:
            client = Client(server.port, AUTO, identities=(RATING, BOOK)).identify()
            connection = await client.connect()
            assert await client.ask(connection) == b"ok"
            assert await client.connect() is connection  # reused
            assert await client.ask(connection) == b"ok"
            facts = connection.secured
            assert (facts.who, facts.local, facts.mesh, facts.alpn, facts.version) == (
                RATING,
                ME,
                True,
                "istio-http/1.1",
                "TLSv1.3",
            )
            assert server.names == ["outbound_.8080_.v1_.rating.default.svc.cluster.local"]
            assert [b"x-envoy-peer-metadata: " in head for head in server.heads] == [True, False]
            assert client.vault.tally.handshakes["client"] == 1
            client.own.update(Workload(pod="web-1", namespace="default", app="web"))
            await client.connect()
            await client.ask(connection)
            assert b"x-envoy-peer-metadata: " in server.heads[2]
            await client.aclose()

    run(story)


@pytest.mark.parametrize(
    ("tls", "identities", "server", "good"),
    [
        (AUTO, (), BOOK, True),  # nobody knows the service's accounts: anybody of the mesh
        (ClientTls(mode="ISTIO_MUTUAL", sans=(BOOK,)), (RATING,), BOOK, True),  # sans say more than identities
        (ClientTls(mode="ISTIO_MUTUAL", sans=(BOOK,)), (RATING,), RATING, False),
        (AUTO, (RATING,), spiffe("rating", domain="old.example"), True),  # an alias
    ],
)
def test_whom_the_mesh_believes(tls: ClientTls, identities: tuple[str, ...], server: str, good: bool) -> None:
    async def story() -> None:
        async with serving(mesh(ROOT.issue(server))) as there:
            trust = Trust(roots=(ROOT.pem.decode(),), aliases=("old.example",))
            client = Client(there.port, tls, identities=identities).identify(trust=trust)
            got = await client.connect()
            assert isinstance(got, tuple) is not good
            await client.aclose()

    run(story)


def test_without_a_certificate_of_our_own_nothing_is_sent() -> None:
    async def story() -> None:
        async with serving(None) as server:
            client = Client(server.port, AUTO).configured()
            reason, words = await client.connect()
            assert (reason, words) == (Reason.CONNECT_FAILURE, f"TLS_error: {TlsFault.NO_IDENTITY.value}")
            assert not server.clients
            await client.aclose()
            bare = TcpDialer(client.loop, lambda where, bug: client.bugs.append(bug))  # no TLS at hand: never plaintext instead
            client.live.pool = None
            client.dialer = bare
            client.live.pool = client.side.pool(client.cluster, client.live, bare)
            assert (await client.connect())[1] == f"TLS_error: {TlsFault.NO_IDENTITY.value}"
            await client.aclose()

    run(story)


def test_endpoints_without_a_sidecar_are_spoken_to_in_plaintext() -> None:
    async def story() -> None:
        async with serving(None) as server:
            client = Client(server.port, AUTO, mtls=False).configured()
            connection = await client.connect()
            assert await client.ask(connection) == b"ok"
            assert connection.secured is None
            assert b"peer-metadata" not in server.heads[0]
            connection.transport.abort()
            await client.aclose()

    run(story)


@pytest.mark.parametrize(
    ("certificate", "words"),
    [
        ({"root": OTHER_ROOT}, "alert unknown ca"),
        ({"begins": -7200.0, "ends": -3600.0}, "alert certificate expired"),
    ],
)
def test_a_server_that_refuses_us_after_our_handshake_fails_the_first_request_safely(certificate: Any, words: str) -> None:
    async def story() -> None:
        context = mesh(ROOT.issue(RATING))
        server = await asyncio.get_running_loop().create_server(lambda: Door(context), HOST, 0)
        async with server:
            client = Client(server.sockets[0].getsockname()[1], AUTO, identities=(RATING,)).identify(**certificate)
            connection = await client.connect()
            if not isinstance(connection, tuple):  # in TLS 1.3 we learn of it later, unless its answer was quicker than the pool
                assert await client.ask(connection) is Reason.CONNECT_FAILURE
                failure = connection.failure
            else:
                failure = connection[1]
            assert failure.startswith(f"TLS_error: {TlsFault.REFUSED.value}: ") and words in failure
            assert client.failures() == {"REFUSED": 1}
            assert client.live.cx_connect_fail == 1
            await client.aclose()

    run(story)


def test_a_server_that_says_nothing_costs_the_connect_timeout() -> None:
    async def story() -> None:
        quiet = await asyncio.start_server(lambda reader, writer: held.append(writer), HOST, 0)
        held: list[asyncio.StreamWriter] = []
        client = Client(quiet.sockets[0].getsockname()[1], AUTO, connect_timeout=0.05).identify()
        assert await client.connect() == (Reason.CONNECT_TIMEOUT, "")
        assert client.failures() == {"TIMEOUT": 1}
        await client.aclose()
        for writer in held:
            writer.transport.abort()
        quiet.close()
        await quiet.wait_closed()

    run(story)


def test_a_revocation_cuts_what_is_open_and_a_renewal_does_not() -> None:
    async def story() -> None:
        pair = ROOT.issue(RATING)
        async with serving(mesh(pair)) as server:
            client = Client(server.port, AUTO, identities=(RATING,)).identify()
            busy = await client.connect()
            idle = await client.connect()
            await client.ask(idle)
            pool = client.live.pool
            client.identify(ends=500.0)  # our own certificate is renewed
            assert client.live.pool is pool and (len(pool.idle), len(pool.busy)) == (1, 1)
            sink = Sink()
            busy.begin(sink)
            busy.codec.start(sink, b"POST")
            client.configured(Trust(roots=(ROOT.pem.decode(),), revoked_serials=(pair.serial,)))
            assert await sink.told is Reason.UPSTREAM_TERMINATION
            assert busy.failure.startswith("TLS_error: the peer's certificate or identity is revoked")
            busy.end(False)
            assert (pool.idle, pool.busy) == ([], set())
            assert client.cluster.limits.idle
            await client.aclose()

    run(story)


def test_other_settings_leave_nothing_of_the_old_for_new_requests() -> None:
    async def story() -> None:
        async with serving(mesh(ROOT.issue(RATING))) as server:
            client = Client(server.port, AUTO, identities=(RATING,)).identify()
            busy = await client.connect()
            idle = await client.connect()
            await client.ask(idle)
            old = client.live.pool
            client.cluster.update(client.config, [Endpoint(address=HOST, port=server.port, mtls=False)])
            client.configured(client.vault.trust)
            assert client.live.pool is None and not old.idle
            assert await client.ask(busy) == b"ok"  # what is under way ends as it began
            assert old.total == 0 and client.cluster.limits.idle
            await client.aclose()

    run(story)


def test_an_identity_that_is_no_longer_expected_serves_no_further_request() -> None:
    async def story() -> None:
        async with serving(mesh(ROOT.issue(RATING))) as server:
            client = Client(server.port, AUTO, identities=(RATING,)).identify()
            busy = await client.connect()
            idle = await client.connect()
            await client.ask(idle)
            client.identities = (BOOK,)
            client.configured(client.vault.trust)
            assert await client.ask(busy) == b"ok"
            assert client.cluster.limits.idle and not client.live.pool.idle
            assert (await client.connect())[1].startswith("TLS_error: the peer is not who it should be")
            await client.aclose()

    run(story)


# -- TLS origination


WORLD = Authority("world")
CA = {"ca": Secret(name="ca", ca=WORLD.pem.decode())}


def plain_server(**names: Any) -> ssl.SSLContext:
    pair = WORLD.issue(**names)
    return server_context(pair.certificate, pair.key)


ORIGINS: list[tuple[str, ClientTls, dict[str, Any], str]] = [
    ("the request's host", ClientTls(mode="SIMPLE", secret="ca"), {"dns": ("api.world.example",)}, ""),
    ("a wildcard", ClientTls(mode="SIMPLE", secret="ca"), {"dns": ("*.world.example",)}, ""),
    ("another host", ClientTls(mode="SIMPLE", secret="ca"), {"dns": ("evil.example",)}, TlsFault.WRONG_IDENTITY.value),
    ("a name of its own", ClientTls(mode="SIMPLE", secret="ca", sni="inner.example"), {"dns": ("inner.example",)}, ""),
    ("sans", ClientTls(mode="SIMPLE", secret="ca", sans=("a.example", "b.example")), {"dns": ("b.example",)}, ""),
    (
        "no san",
        ClientTls(mode="SIMPLE", secret="ca", sans=("a.example",)),
        {"dns": ("api.world.example",)},
        "the peer is not who it should be",
    ),
    ("nobody checks", ClientTls(mode="SIMPLE", insecure_skip_verify=True), {"dns": ("evil.example",)}, ""),
    ("the system's roots", ClientTls(mode="SIMPLE"), {"dns": ("api.world.example",)}, TlsFault.UNTRUSTED.value),
    ("no such secret", ClientTls(mode="SIMPLE", secret="gone"), {"dns": ("api.world.example",)}, TlsFault.NO_CREDENTIAL.value),
    (
        "MUTUAL without a key",
        ClientTls(mode="MUTUAL", secret="ca"),
        {"dns": ("api.world.example",)},
        TlsFault.NO_CREDENTIAL.value,
    ),
]


@pytest.mark.parametrize(("what", "tls", "names", "words"), ORIGINS, ids=[one[0] for one in ORIGINS])
def test_tls_origination(what: str, tls: ClientTls, names: dict[str, Any], words: str) -> None:
    async def story() -> None:
        async with serving(plain_server(**names)) as server:
            client = Client(server.port, tls, mtls=False).configured(secrets=CA)
            got = await client.connect(b"api.world.example:8080")
            if words:
                assert got[0] is Reason.CONNECT_FAILURE and got[1].startswith(f"TLS_error: {words}")
            else:
                assert await client.ask(got) == b"ok"
                assert server.names == [tls.sni or "api.world.example"]
                assert not got.secured.mesh and got.secured.alpn == "http/1.1"
                assert b"peer-metadata" not in server.heads[0]
            await client.aclose()

    run(story)


def test_a_connection_for_one_host_serves_no_other() -> None:
    async def story() -> None:
        async with serving(plain_server(dns=("a.example", "b.example"))) as server:
            client = Client(server.port, ClientTls(mode="SIMPLE", secret="ca"), mtls=False).configured(secrets=CA)
            one = await client.connect(b"a.example")
            await client.ask(one)
            other = await client.connect(b"b.example")
            assert other is not one
            await client.ask(other)
            assert await client.connect(b"A.example:80") is one
            assert server.names == ["a.example", "b.example"]
            assert client.live.pool.total == 2
            client.live.pool.retire()
            assert len(client.live.pool.idle) == 0
            await client.aclose()

    run(story)


def test_a_client_certificate_of_our_own_choice() -> None:
    async def story() -> None:
        mine = WORLD.issue(dns=("me.example",))
        pair = WORLD.issue(dns=("api.world.example",))
        context = server_context(pair.certificate, pair.key, verify="required", roots=(WORLD.pem,))
        async with serving(context) as server:
            secret = Secret(name="me", certificate=mine.certificate.decode(), key=mine.key.decode(), ca=WORLD.pem.decode())
            tls = ClientTls(mode="MUTUAL", secret="me")
            client = Client(server.port, tls, mtls=False).configured(secrets={"me": secret})
            connection = await client.connect(b"api.world.example")
            assert await client.ask(connection) == b"ok"
            peer = server.clients[0].get_extra_info("peercert")
            assert ("DNS", "me.example") in peer["subjectAltName"]
            renewed = WORLD.issue(dns=("me2.example",))
            changed = Secret(name="me", certificate=renewed.certificate.decode(), key=renewed.key.decode(), ca=WORLD.pem.decode())
            client.configured(secrets={"me": changed})
            again = await client.connect(b"api.world.example")
            assert again is not connection
            await client.ask(again)
            assert ("DNS", "me2.example") in server.clients[1].get_extra_info("peercert")["subjectAltName"]
            await client.aclose()

    run(story)


def test_a_passthrough_cluster_originates_to_the_host_that_was_asked_for() -> None:
    async def story() -> None:
        async with serving(plain_server(ip=(HOST,))) as server:
            tls = ClientTls(mode="SIMPLE", secret="ca")
            client = Client(server.port, tls, mtls=False, type="PASSTHROUGH", lb=LoadBalancer(policy="PASSTHROUGH"))
            client.configured(secrets=CA)
            connection = await client.connect(b"whatever")
            assert await client.ask(connection) == b"ok"  # its address is in the certificate
            assert server.names == [None]
            await client.aclose()

    run(story)
