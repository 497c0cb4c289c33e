"""What TLS costs, in µs of CPU per operation: records through a ``Session``, an echo over uvloop beside uvloop's own, handshakes.

"echo" is both ends in one process on loopback, 100 bytes each way, so it holds two reads, two writes and four records; only the
server's side differs between its rows (plaintext, our session, uvloop's ssl). The figure is the best of several rounds.
Usage: python -m benchmarks.micro_tls
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import uvloop

from meshproxy.tls.session import Session
from meshproxy.tls.vault import Vault
from meshproxy.tls.wire import TlsWire
from tests.certs import Authority, spiffe

ROUNDS = 5
MESSAGE = b"x" * 100


def vault(root: Authority, account: str) -> Vault:
    made = Vault()
    made.identify(root.identity(spiffe(account)))
    return made


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    root = Authority()
    server, client = vault(root, "server").mesh_server(), vault(root, "client").mesh_client()
    assert isinstance(server, ssl.SSLContext) and isinstance(client, ssl.SSLContext)
    return server, client


def shaken(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[Session, Session]:
    one, other = Session(server, True), Session(client, False)
    other.start()
    while not (one.handshaken and other.handshaken):
        one.receive(other.take())
        other.receive(one.take())
    one.peer()
    other.peer()
    return one, other


def best(times: int, run: Callable[[], Any]) -> float:
    """µs of CPU per run."""
    found = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(times):
            run()
        found = min(found, (time.process_time() - start) / times * 1e6)
    return found


class Ours(asyncio.Protocol):
    """As the sidecar does it: a session between transport and codec."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.session = Session(context, True)
        self.wire: Any = None

    def connection_made(self, transport: Any) -> None:
        self.wire = TlsWire(transport, self.session)

    def data_received(self, data: bytes) -> None:
        plain = self.session.receive(data)
        if plain:
            self.wire.write(plain)
        else:
            self.wire.flush()


class Plain(asyncio.Protocol):
    """Without TLS, or above uvloop's."""

    transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def echo(make: Callable[[], asyncio.Protocol], times: int, tls: ssl.SSLContext | None, client: ssl.SSLContext | None) -> float:
    """µs of the server thread's CPU per message; the client is a thread with blocking calls."""
    took: list[float] = []
    ready = threading.Event()
    address: list[tuple[str, int]] = []

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(make, "127.0.0.1", 0, ssl=tls)
        address.append(server.sockets[0].getsockname())
        ready.set()
        await done.wait()
        server.close()

    def call() -> None:
        ready.wait()
        with socket.create_connection(address[0]) as plain:
            peer: socket.socket = client.wrap_socket(plain) if client is not None else plain
            with peer:
                for _ in range(ROUNDS + 1):
                    asyncio.run_coroutine_threadsafe(note(), loop).result()
                    for _ in range(times):
                        peer.sendall(MESSAGE)
                        peer.recv(1000)
                asyncio.run_coroutine_threadsafe(note(), loop).result()
        loop.call_soon_threadsafe(done.set)

    async def note() -> None:
        took.append(time.thread_time())

    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    done = asyncio.Event()
    caller = threading.Thread(target=call)
    caller.start()
    loop.run_until_complete(serve())
    caller.join()
    loop.close()
    return min(end - start for start, end in pairwise(took[1:])) / times * 1e6


def main() -> None:
    server, client = contexts()
    one, other = shaken(server, client)
    big = bytes(64 * 1024)
    rows = {
        "send + receive, 100 bytes": best(20_000, lambda: other.receive(one.send(MESSAGE))),
        "send + receive, 64 KiB": best(500, lambda: other.receive(one.send(big))),
        "handshake of the mesh, both sides": best(100, lambda: shaken(server, client)),
        "echo, plaintext": echo(Plain, 10_000, None, None),
        "echo, our session": echo(lambda: Ours(server), 10_000, None, client),
        "echo, uvloop's ssl": echo(Plain, 10_000, server, client),
    }
    for name, figure in rows.items():
        print(f"{name:36} {figure:8.1f} µs")


if __name__ == "__main__":
    main()
