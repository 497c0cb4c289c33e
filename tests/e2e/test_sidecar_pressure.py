"""A real sidecar between peers that do not keep pace, or come by the thousand: memory and descriptors stay flat."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from meshproxy.model.route import Retry
from tests.e2e.support.app import App
from tests.e2e.support.config import Config
from tests.e2e.support.sidecar import Sidecar
from tests.e2e.support.sockets import Listening, Peer, until

MIB = 1 << 20
GIB = 1 << 30
BOUND = 8 * MIB
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    with App() as app:
        yield app


@pytest.fixture(scope="module")
def raw() -> Iterator[Listening]:
    with Listening(receive_buffer=65536) as listening:
        yield listening


@pytest.fixture(scope="module")
def sidecar(app: App, raw: Listening) -> Iterator[Sidecar]:
    config = Config().service("app", app.address).service("raw", raw.address)
    config.service("armed", raw.address, forward={"retry": Retry(attempts=2, on=("5xx",))})
    with Sidecar(config) as sidecar:
        with sidecar.client() as client:  # what is made at the first use is no growth
            client.ask(b"GET /bytes/1000000 HTTP/1.1\r\nhost: app\r\n\r\n")
        yield sidecar


def stuff(peer: Peer, data: bytes, most: int, quiet: float = 0.3, begun: int = 0) -> int:
    """Send ``data`` again and again until nothing moves for ``quiet`` seconds, or ``most`` bytes are on their way. How many are.

    begun: bytes that were sent before.
    """
    peer.sock.setblocking(False)
    view = memoryview(data)
    sent, moved = 0, time.monotonic()
    while sent < most and time.monotonic() - moved < quiet:
        try:
            sent += peer.sock.send(view[(begun + sent) % len(data) :][: most - sent])
            moved = time.monotonic()
        except BlockingIOError:
            time.sleep(0.005)
    peer.sock.settimeout(10)
    return sent


@pytest.mark.parametrize("host", ["raw", "armed"])
@pytest.mark.parametrize("framing", [f"content-length: {GIB}", "transfer-encoding: chunked"])
def test_an_app_that_stopped_reading_stops_the_client(sidecar: Sidecar, raw: Listening, host: str, framing: str) -> None:
    with sidecar.client() as client:
        client.send(f"POST / HTTP/1.1\r\nhost: {host}\r\n{framing}\r\n\r\n".encode())
        server = raw.accept()
        server.head()
        before = sidecar.resident()
        piece = b"z" * MIB if "length" in framing else b"%x\r\n%b\r\n" % (MIB, b"z" * MIB)
        sent = stuff(client, piece, GIB)
        assert sent < 64 * MIB, "nobody holds it up"
        assert sidecar.resident() - before < BOUND
    raw.forget()
    sidecar.settled(host)


@pytest.mark.parametrize("framing", [f"content-length: {GIB}", "transfer-encoding: chunked", "x: until-close"])
def test_a_client_that_stopped_reading_stops_the_app(sidecar: Sidecar, raw: Listening, framing: str) -> None:
    with sidecar.client(receive_buffer=65536) as client:
        client.send(b"GET / HTTP/1.1\r\nhost: raw\r\n\r\n")
        server = raw.accept()
        server.head()
        before = sidecar.resident()
        server.send(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
        piece = b"%x\r\n%b\r\n" % (MIB, b"z" * MIB) if "chunked" in framing else b"z" * MIB
        sent = stuff(server, piece, GIB)
        assert sent < 64 * MIB
        assert sidecar.resident() - before < BOUND
        client.until(b"\r\n\r\n")
        client.exactly(8 * MIB)  # it reads again: so it goes on
        assert stuff(server, piece, 4 * MIB, begun=sent) >= 4 * MIB
    raw.forget()
    sidecar.settled("raw")


def test_a_tunnel_is_bounded_too(sidecar: Sidecar, raw: Listening) -> None:
    with sidecar.client(receive_buffer=65536) as client:
        client.send(b"CONNECT raw:80 HTTP/1.1\r\nhost: raw:80\r\n\r\n")
        server = raw.accept()
        client.response("CONNECT")
        before = sidecar.resident()
        assert stuff(client, b"z" * MIB, GIB) < 64 * MIB
        assert stuff(server, b"z" * MIB, GIB) < 64 * MIB
        assert sidecar.resident() - before < BOUND
    raw.forget()


def test_a_client_that_only_asks_makes_no_answers_pile_up(sidecar: Sidecar, app: App) -> None:
    with sidecar.client(receive_buffer=65536) as client:
        before, seen = sidecar.resident(), app.seen
        asked = stuff(client, b"GET /bytes/300000 HTTP/1.1\r\nhost: app\r\n\r\n" * 1000, 1000 * 49)
        assert asked
        assert app.seen - seen < 200
        assert sidecar.resident() - before < BOUND
    sidecar.settled("app")


@pytest.mark.slow
def test_a_quarter_of_a_gib_each_way(sidecar: Sidecar) -> None:
    size = 256 * MIB
    before = sidecar.resident()
    with sidecar.client() as client:
        client.send(f"GET /bytes/{size} HTTP/1.1\r\nhost: app\r\n\r\n".encode())
        client.head()
        left = size - len(client.buffer)
        client.buffer = b""
        scratch = bytearray(MIB)
        while left:
            left -= client.sock.recv_into(scratch)
        piece = bytes(MIB)
        client.send(f"POST /up HTTP/1.1\r\nhost: app\r\ncontent-length: {size}\r\n\r\n".encode())
        for _ in range(256):
            client.send(piece)
        assert f'"size": {size}'.encode() in client.response().body
    assert sidecar.resident() - before < BOUND


def churn(sidecar: Sidecar, count: int) -> None:
    """Connections that come, ask once and go; every tenth goes without a word, or in the middle of one."""
    for number in range(count):
        with sidecar.client() as client:
            if number % 10 == 7:
                client.send(b"GET / HTTP/1.1\r\nho")
            elif number % 10 != 3:
                client.send(b"GET /x HTTP/1.1\r\nhost: app\r\n\r\n")
                client.sock.recv(65536)


@pytest.mark.slow
def test_ten_thousand_connections_leave_nothing_behind(sidecar: Sidecar) -> None:
    churn(sidecar, 3000)
    until(lambda: sidecar.metrics("mesh_downstream_connections") == 0, "all gone")
    before, files = sidecar.resident(), sidecar.files()
    churn(sidecar, 7000)
    until(lambda: sidecar.metrics("mesh_downstream_connections") == 0, "all gone")
    assert sidecar.resident() - before < 3 * MIB
    assert sidecar.files() <= files + 2
    sidecar.settled("app")


def test_descriptors_run_out_and_come_back(app: App) -> None:
    with Sidecar(Config().service("app", app.address), files=80) as sidecar:
        crowd = []
        for _ in range(120):
            try:
                crowd.append(sidecar.client())
            except OSError:
                break
        for client in crowd:
            client.close()
        assert until(lambda: _served(sidecar), "it serves again")
        assert sidecar.get("/ready") == (200, "LIVE\n")


def _served(sidecar: Sidecar) -> bool:
    with contextlib.suppress(OSError, EOFError), sidecar.client() as client:
        return client.ask(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n").status == 200
    return False


def test_half_open_sockets_are_not_kept(sidecar: Sidecar, raw: Listening) -> None:
    """A client that resets within every phase of a request."""
    phases = [
        b"",
        b"GET",
        b"GET / HTTP/1.1\r\nhost: raw\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: raw\r\ncontent-length: 9\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nhost: raw\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        b"CONNECT raw:80 HTTP/1.1\r\nhost: raw:80\r\n\r\n",
    ]
    files = sidecar.files()
    for phase in phases:
        for how in (Peer.cut, Peer.close):
            client = sidecar.client()
            client.send(phase)
            how(client)
    assert _served(sidecar), "those before it in the queue have been taken, too"
    raw.sock.setblocking(False)
    until(lambda: not _answered(raw) and not sidecar.active("raw")["requests"], "the app's side is empty")
    raw.sock.settimeout(10)
    sidecar.settled("raw")
    until(lambda: sidecar.files() <= files + 1, "descriptors are back")


def _answered(raw: Listening) -> bool:
    """Answer one who came; False when nobody did."""
    try:
        peer = Peer(raw.sock.accept()[0])
    except BlockingIOError:
        return False
    with peer, contextlib.suppress(OSError):
        peer.send(OK)
    return True
