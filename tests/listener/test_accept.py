"""The listening socket: who is taken, who is swept, and that its end resets nobody."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from meshproxy.exchange.corridor import Slot
from meshproxy.listener.accept import Acceptor, _let_nobody_in, listening_socket
from tests.flow.memnet import World, simple

HOST = "127.61.0.7"
GET = b"GET / HTTP/1.1\r\nhost: elsewhere:8080\r\n\r\n"  # 502 at once: REGISTRY_ONLY


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(story())


@asynccontextmanager
async def accepting(*, opened: bool = True) -> AsyncIterator[Acceptor]:
    world = World(simple(listener={"default_policy": "REGISTRY_ONLY"}))
    acceptor = Acceptor(asyncio.get_running_loop(), "outbound", world.gate, Slot(), HOST, 0)
    if opened:
        await acceptor.open()
    try:
        yield acceptor
    finally:
        acceptor.drain()
        acceptor.abort()
        await until(lambda: not acceptor.connections)


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.002)


async def client(acceptor: Acceptor) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(HOST, acceptor.port)


async def status(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """(status, whether it says close)."""
    head = await reader.readuntil(b"\r\n\r\n")
    return int(head.split()[1]), b"connection: close" in head


async def leave(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


def test_an_address_in_use_is_said_with_its_words() -> None:
    with listening_socket(HOST, 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on {HOST}:{port}: Address already in use"):
            listening_socket(HOST, port)


def test_who_has_been_let_in_stays_and_nobody_else_comes() -> None:
    with listening_socket(HOST, 0) as door, socket.create_connection(door.getsockname()) as inside:
        _let_nobody_in(door)
        with socket.socket() as outside:
            outside.settimeout(0.05)
            with pytest.raises(TimeoutError):
                outside.connect(door.getsockname())
        taken, _ = door.accept()
        with taken:
            inside.sendall(b"hello")
            assert taken.recv(5) == b"hello"


def test_workers_share_an_address() -> None:
    with listening_socket(HOST, 0, shared=True) as one, listening_socket(HOST, one.getsockname()[1], shared=True) as other:
        assert one.getsockname() == other.getsockname()


def test_ipv6_any_takes_both_families() -> None:
    try:
        sock = listening_socket("::", 0)
    except OSError:
        pytest.skip("no IPv6 here")
    with sock:
        assert not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def test_a_drain_takes_those_who_wait_in_the_kernel_s_queue() -> None:
    async def story() -> None:
        async with accepting(opened=False) as acceptor:
            waiting = [await client(acceptor) for _ in range(5)]
            for _, writer in waiting:
                writer.write(GET)
            acceptor.drain()
            assert acceptor.connections == 5
            with pytest.raises(ConnectionRefusedError):
                await client(acceptor)
            for reader, writer in waiting:
                assert await status(reader) == (502, True)
                assert await reader.read() == b""
                await leave(writer)

    run(story)


def test_an_idle_connection_is_closed_a_moment_after_the_drain() -> None:
    async def story() -> None:
        async with accepting() as acceptor:
            (reader, writer), (other, writes) = await client(acceptor), await client(acceptor)
            await until(lambda: acceptor.connections == 2)
            now = asyncio.get_running_loop().time()
            acceptor.drain()
            acceptor.sweep(now + 0.4, 3600, 60)
            assert not any(connection.transport.is_closing() for connection in acceptor.gate.connections)
            writer.write(GET)  # it crossed the drain, and is answered
            assert await status(reader) == (502, True)
            acceptor.sweep(asyncio.get_running_loop().time() + 0.6, 3600, 60)
            assert await other.read() == b""
            await leave(writer)
            await leave(writes)

    run(story)


def test_the_sweep_leaves_those_whose_bytes_have_come() -> None:
    async def story() -> None:
        async with accepting() as acceptor:
            reader, writer = await client(acceptor)
            await until(lambda: acceptor.connections == 1)
            acceptor.drain()
            sock = writer.get_extra_info("socket")
            with socket.socket(fileno=os.dup(sock.fileno())) as same:
                same.send(GET)  # in the kernel now, not yet read by the loop
            acceptor.sweep(asyncio.get_running_loop().time() + 3600, 3600, 60)
            assert await status(reader) == (502, True)
            await leave(writer)

    run(story)


def test_the_sweep_closes_what_is_idle_and_answers_slow_heads_408() -> None:
    async def story() -> None:
        async with accepting() as acceptor:
            (slow, writes), (idle, writer) = await client(acceptor), await client(acceptor)
            writes.write(b"GET / HTTP/1.1\r\nhost: el")
            await until(lambda: acceptor.active == 1)
            now = asyncio.get_running_loop().time()
            acceptor.sweep(now + 59, 3600, 60)
            assert acceptor.connections == 2
            acceptor.sweep(now + 61, 3600, 60)
            assert await status(slow) == (408, True)
            acceptor.sweep(now + 3700, 3600, 60)
            assert await idle.read() == b""
            await leave(writes)
            await leave(writer)

    run(story)


def test_a_client_that_closed_altogether_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel forgets a closed connection after a while (here after a second, not sixty) and resets the next probe."""
    monkeypatch.setattr("meshproxy.listener.downstream._PROBE", 1)

    async def story() -> None:
        async with accepting() as acceptor:
            with socket.socket() as sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, 1)
                sock.connect((HOST, acceptor.port))
                sock.sendall(b"GET / HTTP/1.1\r\nhost: rating:8080\r\n\r\n")  # nobody dials: it waits for its app
                await until(lambda: acceptor.active == 1)

            def swept() -> bool:
                acceptor.sweep(asyncio.get_running_loop().time(), 3600, 60)
                return not acceptor.connections

            await until(swept)

    run(story)


def test_a_client_that_only_sends_no_more_is_left_alone() -> None:
    async def story() -> None:
        async with accepting() as acceptor:
            reader, writer = await client(acceptor)
            writer.write(b"GET / HTTP/1.1\r\nhost: rating:8080\r\n\r\n")
            writer.write_eof()
            await until(lambda: [one for one in acceptor.gate.connections if one.ended])
            acceptor.sweep(asyncio.get_running_loop().time(), 3600, 60)
            assert acceptor.active == 1
            assert not reader.at_eof()
            await leave(writer)

    run(story)


def test_closed_before_it_was_open() -> None:
    async def story() -> None:
        async with accepting(opened=False) as acceptor:
            acceptor.close()
            acceptor.close()
            await acceptor.open()
            with pytest.raises(ConnectionRefusedError):
                await client(acceptor)

    run(story)
