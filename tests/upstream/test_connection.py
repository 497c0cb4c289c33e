"""An upstream connection on a real socket: when it may be used again, and that it is given back once."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from meshproxy.cluster.cluster import Cluster as Live
from meshproxy.message.head import RequestHead
from meshproxy.model.cluster import Cluster, Endpoint
from meshproxy.upstream.connection import UpstreamConnection
from meshproxy.upstream.dial import TcpDialer
from meshproxy.upstream.pool import Pool

HOST = "127.61.0.42"


class Sink:
    """A request's attempt."""

    def __init__(self, connection: UpstreamConnection) -> None:
        self.connection = connection
        self.ended = ""

    def on_response_head(self, head: Any, end: bool, now: float) -> None:
        if end:
            self._done()

    def on_response_data(self, data: bytes, end: bool, now: float) -> None:
        if end:
            self._done()

    def on_upstream_failed(self, reason: Any, now: float) -> None:
        self.ended = reason.name
        self.connection.end(False)

    def on_response_flush(self, now: float) -> None: ...

    def _done(self) -> None:
        self.ended = "done"
        self.connection.end(self.connection.codec.reusable)


class World:
    def __init__(self, connection: UpstreamConnection, peer: socket.socket, pool: Pool, bugs: list[BaseException]) -> None:
        self.connection, self.peer, self.pool, self.bugs = connection, peer, pool, bugs

    def ask(self) -> Sink:
        sink = Sink(self.connection)
        self.connection.begin(sink)  # type: ignore[arg-type]
        self.connection.codec.start(sink, b"GET")
        self.connection.codec.send_head(RequestHead(b"GET", b"/", b"app", []), True)
        return sink

    async def until(self, true: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not true():
                await asyncio.sleep(0.001)

    async def served(self) -> Sink:
        sink = self.ask()
        self.peer.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        await self.until(lambda: sink.ended)
        assert sink.ended == "done"
        return sink


def run(story: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        with socket.create_server((HOST, 0)) as server:
            bugs: list[BaseException] = []
            loop = asyncio.get_running_loop()
            cluster = Live(Cluster(name="c"), [Endpoint(address=HOST, port=server.getsockname()[1])])
            pool = Pool(cluster, cluster.endpoints[0], TcpDialer(loop, lambda where, bug: bugs.append(bug)))
            told: asyncio.Future[Any] = loop.create_future()

            class Waiter:
                def on_leased(self, connection: Any, now: float) -> None:
                    told.set_result(connection)

            pool.acquire(Waiter(), 0.0)  # type: ignore[arg-type]
            connection = await told
            peer, _ = server.accept()
            with peer:
                await story(World(connection, peer, pool, bugs))
                pool.retire()
                connection.transport.abort()
                for _ in range(5):
                    await asyncio.sleep(0)
            assert not bugs
            assert pool.limits.idle

    asyncio.run(whole())


@pytest.mark.parametrize("last", [b"", b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n"])
def test_what_waits_in_the_kernel_makes_an_idle_connection_unusable(last: bytes) -> None:
    async def story(world: World) -> None:
        await world.served()
        idle = world.connection.idle_since
        assert world.connection.usable(idle + 1)
        if last:
            world.peer.sendall(last)
        else:
            world.peer.shutdown(socket.SHUT_WR)
        assert not world.connection.usable(idle + 1), "the loop has not heard of it yet"

    run(story)


def test_a_connection_that_was_busy_just_now_is_not_looked_at() -> None:
    """The look is a system call, and the race needs idleness."""

    async def story(world: World) -> None:
        await world.served()
        world.peer.shutdown(socket.SHUT_WR)
        assert world.connection.usable(world.connection.idle_since + 0.001)

    run(story)


def test_the_end_of_an_idle_connection_takes_it_out_of_the_pool() -> None:
    async def story(world: World) -> None:
        await world.served()
        assert world.pool.idle == [world.connection]
        world.peer.close()
        await world.until(lambda: not world.pool.total)

    run(story)


def test_bytes_that_nobody_asked_for_close_it() -> None:
    async def story(world: World) -> None:
        await world.served()
        world.peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        await world.until(lambda: not world.pool.total)

    run(story)


@pytest.mark.parametrize("end", ["eof", "reset"])
def test_an_end_within_a_request_is_told_once(end: str) -> None:
    async def story(world: World) -> None:
        sink = world.ask()
        if end == "reset":
            world.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        world.peer.close()
        await world.until(lambda: sink.ended)
        assert sink.ended == "UPSTREAM_TERMINATION"
        await world.until(lambda: not world.pool.total)

    run(story)


def test_a_crash_in_a_sink_costs_this_connection() -> None:
    async def story(world: World) -> None:
        sink = world.ask()

        def boom(*_: Any) -> None:
            raise RuntimeError("boom")

        sink.on_response_head = boom  # type: ignore[method-assign]
        world.peer.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        await world.until(lambda: world.bugs)
        assert str(world.bugs.pop()) == "boom"
        await world.until(lambda: not world.pool.total)

    run(story)
