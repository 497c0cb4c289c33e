"""Moody clients, moody apps and changing configuration at once, on a real sidecar: at the end nothing is held, nothing crashed.

What happens is drawn from seeds; in which order it meets is up to the machine. So only what must hold in any order is asked.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from meshproxy.model.cluster import Outlier
from meshproxy.model.route import Delay, Fault, Mirror, Retry
from tests.e2e.support.config import Config
from tests.e2e.support.sidecar import Sidecar
from tests.e2e.support.sockets import Peer, own_address, until

RESET = b"\1\0\0\0\0\0\0\0"  # struct linger: on, 0 seconds
GET = b"GET /x HTTP/1.1\r\nhost: %b\r\n\r\n"


class Moody:
    """An app that answers well, badly, late, in part, or not at all."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._sock = socket.create_server((own_address(), 0), backlog=512)
        self.address: tuple[str, int] = self._sock.getsockname()
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        for thread in (self._accepting, *self._threads):
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._sock.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(peer, random.Random(self._dice.random())), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: socket.socket, dice: random.Random) -> None:
        with peer, contextlib.suppress(OSError):
            peer.settimeout(2)
            seen = b""
            while True:
                while b"\r\n\r\n" not in seen:
                    data = peer.recv(65536)
                    if not data:
                        return
                    seen += data
                seen = b""
                if not self._answer(peer, dice):
                    return

    @staticmethod
    def _answer(peer: socket.socket, dice: random.Random) -> bool:
        match dice.randrange(20):
            case 0:
                return False
            case 1:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                return False
            case 2:
                peer.sendall(b"HTTP/1.1 503 X\r\ncontent-length: 2\r\n\r\nno")
            case 3:
                peer.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
                if dice.random() < 0.5:
                    return False
                peer.sendall(b"0\r\nx-t: 1\r\n\r\n")
            case 4:
                size = dice.randrange(2_000_000)
                peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + bytes(size))
            case 5:
                time.sleep(0.2)  # an app that takes its time
                peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            case 6:
                peer.sendall(b"HTTP/1.0 200 OK\r\n\r\nbye")
                return False
            case 7:
                peer.sendall(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
            case _:
                peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        return dice.random() < 0.9


def converse(sidecar: Sidecar, dice: random.Random) -> None:
    """One client's connection."""
    with contextlib.suppress(OSError), sidecar.client() as client:
        for _ in range(dice.randrange(1, 6)):
            client.send(request(dice))
            if dice.random() < 0.2:
                client.finish()
            how = dice.random()
            if how < 0.1:
                client.cut()
                return
            if how < 0.2 or not _heard(client, dice):
                return


def request(dice: random.Random) -> bytes:
    host = dice.choice((b"a", b"a", b"b", b"c"))
    get = GET % host
    match dice.randrange(10):
        case 0:
            return get * dice.randrange(2, 6)
        case 1:
            size = dice.randrange(1_500_000)
            return get.replace(b"GET", b"POST")[:-2] + b"content-length: %d\r\n\r\n" % size + bytes(size)
        case 2:
            end = b"0\r\n\r\n" if dice.random() < 0.8 else b""
            return get.replace(b"GET", b"POST")[:-2] + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n" + end
        case 3:
            return b"CONNECT %b:80 HTTP/1.1\r\nhost: %b:80\r\n\r\n%b" % (host, host, get)
        case 4:
            return get[:-2] + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n"
        case 5:
            return get.replace(b"GET", b"HEAD")
        case _:
            return get


def _heard(client: Peer, dice: random.Random) -> bool:
    client.sock.settimeout(1)
    try:
        return bool(client.sock.recv(dice.choice((10, 65536, 1 << 20))))
    except TimeoutError:
        return False


def config(seed: int, one: Moody, other: Moody) -> Config:
    dice = random.Random(seed)
    pool = {
        "max_connections": dice.choice((None, 2, 5)),
        "max_pending_requests": dice.choice((None, 3)),
        "max_requests": dice.choice((None, 6)),
        "max_requests_per_connection": dice.choice((0, 3)),
        "max_retries": dice.choice((None, 1)),
    }
    retry = Retry(attempts=2, on=("5xx", "reset", "connect-failure"), per_try_timeout=0.3)
    forward = {
        "timeout": dice.choice((0.3, 1.0, 3.0)),
        "retry": dice.choice((None, retry)),
        "mirrors": dice.choice(((), (Mirror(cluster="outbound|80||b"),))),
    }
    outlier = Outlier(consecutive_5xx=2, interval=0.2, base_ejection=0.2, max_ejection_percent=100)
    fault = Fault(delay=Delay(seconds=0.02, percent=20.0))
    made = Config()
    ends = dice.choice(((one.address,), (one.address, other.address), (other.address, (own_address(), 9))))
    made.service(
        "a", *ends, pool=pool, forward=forward, outlier=dice.choice((None, outlier)), route={"fault": dice.choice((None, fault))}
    )
    made.service("b", other.address, forward={"timeout": 1.0})
    if dice.random() < 0.5:
        made.service("c", one.address, forward={"timeout": 2.0})
    return made


@pytest.fixture
def moods() -> Iterator[tuple[Moody, Moody]]:
    one, other = Moody(1), Moody(2)
    yield one, other
    one.close()
    other.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_whatever_happens_nothing_is_held_at_the_end(moods: tuple[Moody, Moody], workers: int) -> None:
    with Sidecar(config(0, *moods), "--concurrency", str(workers)) as sidecar:
        files = sidecar.files()
        talking = [threading.Thread(target=_talk, args=(sidecar, seed, 25), daemon=True) for seed in range(12)]
        for thread in talking:
            thread.start()
        for seed in range(1, 40):
            sidecar.install(config(seed, *moods))
        for thread in talking:
            thread.join(60)
            assert not thread.is_alive()
        until(lambda: sidecar.metrics("mesh_downstream_connections") == 0, "all clients are gone", 20)
        for name in ("a", "b"):
            sidecar.settled(name)
        assert sidecar.metrics("istio_requests_total") > 300
        assert sidecar.metrics("mesh_bugs_total") == 0
        sidecar.install(Config())
        until(lambda: sidecar.files() <= files + 2, "descriptors are back")
        assert max(sidecar.resident(pid) for pid in (sidecar.pid, *sidecar.children())) < 80 << 20


def _talk(sidecar: Sidecar, seed: int, times: int) -> None:
    dice = random.Random(seed)
    for _ in range(times):
        converse(sidecar, dice)
