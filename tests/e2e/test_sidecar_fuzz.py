"""Nonsense on both sides of a real sidecar, seeded: it answers or closes, never crashes, and goes on serving."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from meshproxy.model.route import Retry
from tests.e2e.support.app import App
from tests.e2e.support.config import Config
from tests.e2e.support.sidecar import Sidecar
from tests.e2e.support.sockets import own_address

CASES = 400
GET = b"GET /x HTTP/1.1\r\nhost: app\r\n\r\n"
REQUESTS = (
    GET,
    b"POST /x?y=%41 HTTP/1.1\r\nhost: app\r\ncontent-length: 5\r\n\r\nhello",
    b"POST /x HTTP/1.1\r\nhost: app\r\ntransfer-encoding: chunked\r\ntrailer: x\r\n\r\n5;a=b\r\nhello\r\n0\r\nx: y\r\n\r\n",
    b"PUT /x HTTP/1.1\r\nhost: app\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\nabc",
    b"GET http://app/x HTTP/1.0\r\nconnection: keep-alive, x-a\r\nx-a: 1\r\n\r\n",
    b"CONNECT app:80 HTTP/1.1\r\nhost: app:80\r\n\r\nGET / HTTP/1.1\r\nhost: in\r\n\r\n",
    b"GET /x HTTP/1.1\r\nhost: app\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n\x81\x05hello",
    b"OPTIONS * HTTP/1.1\r\nhost: app\r\n\r\n",
    b"HEAD /x HTTP/1.1\r\nhost: wild\r\n\r\n",
    b"GET /x HTTP/1.1\r\nhost: wild\r\n\r\n",
)
RESPONSES = (
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n\x81\x05hello",
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\nretry-after: 1\r\n\r\ndown",
    b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
)
PIECES = (
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"\t", b"0\r\n\r\n", b"\xff\xfe", b"%00", b"-1", b"99999999999999999999"),
    *(b"content-length: 3\r\n", b"transfer-encoding: chunked\r\n", b"host: app\r\n", b"connection: close\r\n", b"HTTP/1.1"),
)


def mutate(dice: random.Random, data: bytes) -> bytes:
    """A few cuts, flips, doublings and insertions."""
    out = bytearray(data)
    for _ in range(dice.randrange(1, 4)):
        at = dice.randrange(len(out) + 1)
        match dice.randrange(5):
            case 0:
                del out[at : at + dice.randrange(1, 9)]
            case 1 if out:
                out[at % len(out)] = dice.randrange(256)
            case 2:
                out[at:at] = dice.choice(PIECES)
            case 3:
                out[at:at] = out[at : at + dice.randrange(1, 40)]
            case _:
                out[at:at] = dice.randbytes(dice.randrange(1, 20))
    return bytes(out)


class Wild:
    """An upstream that answers each connection with a mutated answer, in random pieces, then closes in a random way."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._sock = socket.create_server((own_address(), 0), backlog=128)
        self.address: tuple[str, int] = self._sock.getsockname()
        self.served = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                peer, _ = self._sock.accept()
            except OSError:
                return
            with peer:
                peer.settimeout(0.05)
                try:
                    peer.recv(65536)
                    for piece in pieces(self._dice, answer(self._dice)):
                        peer.sendall(piece)
                    if self._dice.random() < 0.5:
                        peer.recv(65536)
                except OSError:
                    pass
            self.served += 1

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._thread.join(10)


def answer(dice: random.Random) -> bytes:
    if dice.random() < 0.1:
        return dice.randbytes(dice.randrange(400))
    whole = dice.choice(RESPONSES)
    return whole if dice.random() < 0.2 else mutate(dice, whole)


def pieces(dice: random.Random, data: bytes) -> Iterator[bytes]:
    while data:
        size = dice.randrange(1, len(data) + 1)
        yield data[:size]
        data = data[size:]


@pytest.fixture(scope="module")
def wild() -> Iterator[Wild]:
    wild = Wild(20)
    yield wild
    wild.close()


@pytest.fixture(scope="module")
def sidecar(wild: Wild) -> Iterator[Sidecar]:
    with App() as app:
        config = Config().service("app", app.address)
        config.service(
            "wild", wild.address, forward={"timeout": 1.0, "retry": Retry(attempts=1, on=("5xx",), per_try_timeout=0.5)}
        )
        config.service("plain", wild.address, forward={"timeout": 1.0})
        config.listener("inbound|8081", "inbound", 8081, "*", app.address)
        config.listener("gateway|8082", "gateway", 8082, "*", app.address, path_normalization="DECODE_AND_MERGE_SLASHES")
        with Sidecar(config, "--access-log", "/dev/stdout") as sidecar:
            yield sidecar


def attack(sidecar: Sidecar, make: Callable[[random.Random], bytes], seed: int, cases: int) -> None:
    dice = random.Random(seed)
    for number in range(cases):
        with sidecar.client(dice.choice((15001, 15001, 8081, 8082))) as client:
            client.sock.settimeout(5)
            try:
                for piece in pieces(dice, make(dice)):
                    client.send(piece)
                if dice.random() < 0.7:
                    client.finish()
                    client.rest()
                elif dice.random() < 0.5:
                    client.cut()
            except TimeoutError:
                raise AssertionError(f"seed {seed}, case {number}: no answer and no end") from None
            except OSError:
                pass
    with sidecar.client() as client:
        assert client.ask(GET).status == 200
    sidecar.check_log()


def test_random_bytes(sidecar: Sidecar) -> None:
    attack(sidecar, lambda dice: dice.randbytes(dice.randrange(600)), 1, CASES)


def test_mutated_requests(sidecar: Sidecar) -> None:
    attack(sidecar, lambda dice: mutate(dice, dice.choice(REQUESTS)), 2, CASES)


def test_mutated_pipelines(sidecar: Sidecar) -> None:
    attack(sidecar, lambda dice: mutate(dice, b"".join(dice.choices(REQUESTS[:5], k=3))), 3, CASES)


def test_wild_answers(sidecar: Sidecar, wild: Wild) -> None:
    before = wild.served
    heads = (GET.replace(b"app", b"wild"), GET.replace(b"app", b"plain"), *(one.replace(b"app", b"plain") for one in REQUESTS))
    dice = random.Random(4)
    for number in range(CASES):
        with sidecar.client() as client:
            client.sock.settimeout(5)
            try:
                client.send(dice.choice(heads))
                if dice.random() < 0.8:
                    client.finish()
                    client.rest()
                else:
                    client.sock.settimeout(0.02)
                    client.sock.recv(1000)
            except TimeoutError:
                assert client.sock.gettimeout() != 5, f"case {number}: no answer and no end"
            except OSError:
                pass
    assert wild.served - before > CASES / 4
    with sidecar.client() as client:
        assert client.ask(GET).status == 200
    sidecar.check_log()
    sidecar.settled("wild")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 104))
def test_more_of_the_same(sidecar: Sidecar, seed: int) -> None:
    attack(sidecar, lambda dice: mutate(dice, b"".join(dice.choices(REQUESTS, k=2))), seed, 2 * CASES)
