"""The dialer on real sockets: each dial is answered once, from our own address, in Envoy's words when it fails."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from meshproxy.cluster.cluster import Cluster as Live
from meshproxy.message.reason import Reason
from meshproxy.model.cluster import Cluster, ConnectionPool, Endpoint
from meshproxy.upstream.dial import TcpDialer, failure_text
from meshproxy.upstream.pool import Pool

OWN, OTHER = "127.61.0.40", "127.61.0.41"


class Waiter:
    """Who waits for a connection."""

    def __init__(self) -> None:
        self.told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def on_leased(self, connection: Any, now: float) -> None:
        self.told.set_result(connection)

    def on_dial_failed(self, reason: Reason, failure: str, now: float) -> None:
        self.told.set_result((reason, failure))


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(story())


def pool_of(dialer: TcpDialer, host: str, port: int, **pool: Any) -> Pool:
    cluster = Live(Cluster(name="c", pool=ConnectionPool(**pool)), [Endpoint(address=host, port=port)])
    return Pool(cluster, cluster.endpoints[0], dialer)


def dialer(bugs: list[BaseException], **more: Any) -> TcpDialer:
    return TcpDialer(asyncio.get_running_loop(), lambda where, bug: bugs.append(bug), **more)


async def dial(made: TcpDialer, host: str, port: int, **pool: Any) -> tuple[Pool, Any]:
    one, waiter = pool_of(made, host, port, **pool), Waiter()
    assert one.acquire(waiter, 0.0) is None
    async with asyncio.timeout(10):
        return one, await waiter.told


def listening(host: str = OTHER) -> socket.socket:
    return socket.create_server((host, 0))


def test_a_connection_comes_from_our_address_without_delay_or_a_held_port() -> None:
    async def story() -> None:
        with listening() as server:
            bugs: list[BaseException] = []
            made = dialer(bugs, source=OWN)
            pool, connection = await dial(made, *server.getsockname(), tcp_keepalive=(3, 7, 2))
            taken, remote = server.accept()
            sock = connection.transport.get_extra_info("socket")
            with taken:
                assert remote[0] == OWN
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
                assert (pool.total, pool.limits.connections, pool.endpoint.cx_total) == (1, 1, 1)
                connection.end(False)
                await asyncio.sleep(0)
            await made.aclose()
            assert not bugs
            assert pool.limits.idle

    run(story)


@pytest.mark.parametrize(
    ("host", "reason", "words"),
    [
        (OTHER, Reason.CONNECT_FAILURE, "delayed connect error: Connection refused"),
        ("no-such-host.invalid", Reason.CONNECT_FAILURE, "delayed connect error: No route to host"),
        ("a..b", Reason.CONNECT_FAILURE, "delayed connect error: No route to host"),
        ("x" * 64 + ".example", Reason.CONNECT_FAILURE, "delayed connect error: No route to host"),
        ("255.255.255.255", Reason.CONNECT_FAILURE, ""),
    ],
)
def test_what_fails_says_why(host: str, reason: Reason, words: str) -> None:
    async def story() -> None:
        bugs: list[BaseException] = []
        made = dialer(bugs)
        pool, (said, failure) = await dial(made, host, 9)
        await made.aclose()
        assert said is reason
        assert failure.startswith(words)
        assert pool.limits.idle
        assert pool.endpoint.cx_connect_fail == 1
        assert not bugs

    run(story)


def test_nobody_answers_in_time() -> None:
    async def story() -> None:
        with socket.socket() as server, socket.socket() as filler, socket.socket() as more:
            server.bind((OTHER, 0))
            server.listen(0)
            for sock in (filler, more):
                sock.setblocking(False)
                sock.connect_ex(server.getsockname())
            bugs: list[BaseException] = []
            made = dialer(bugs)
            pool, told = await dial(made, *server.getsockname(), connect_timeout=0.05)
            assert told == (Reason.CONNECT_TIMEOUT, "")
            assert pool.limits.idle
            await made.aclose()
            assert not bugs

    run(story)


def test_what_must_not_be_dialed_is_not() -> None:
    async def story() -> None:
        with listening() as server:
            asked: list[tuple[str, int]] = []

            def refuse(address: str, port: int) -> Reason:
                asked.append((address, port))
                return Reason.LOOP_DETECTED

            made = dialer([], refuse=refuse)
            host, port = server.getsockname()
            _, told = await dial(made, f"::ffff:{host}", port)
            assert told == (Reason.LOOP_DETECTED, "")
            assert asked == [(host, port)], "asked about the address as it would be dialed"
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                server.accept()
            await made.aclose()

    run(story)


def test_closing_answers_those_who_wait() -> None:
    async def story() -> None:
        with socket.socket() as server, socket.socket() as filler, socket.socket() as more:
            server.bind((OTHER, 0))
            server.listen(0)
            for sock in (filler, more):
                sock.setblocking(False)
                sock.connect_ex(server.getsockname())
            made = dialer([])
            pool, waiter = pool_of(made, *server.getsockname()), Waiter()
            pool.acquire(waiter, 0.0)
            await asyncio.sleep(0)
            await made.aclose()
            assert (await waiter.told)[0] is Reason.CONNECT_FAILURE
            assert pool.limits.idle

    run(story)


def test_a_waiter_that_left_leaves_an_idle_connection() -> None:
    async def story() -> None:
        with listening() as server:
            made = dialer([])
            pool, waiter = pool_of(made, *server.getsockname()), Waiter()
            pool.acquire(waiter, 0.0)
            pool.cancel(waiter)
            async with asyncio.timeout(10):
                while not pool.idle:
                    await asyncio.sleep(0.001)
            again = pool.acquire(Waiter(), 0.0)
            assert again is not None
            again.end(False)
            await made.aclose()
            server.accept()[0].close()
            assert pool.limits.idle

    run(story)


def test_words() -> None:
    assert failure_text(OSError(errno.ECONNREFUSED, "x")) == "delayed connect error: Connection refused"
    assert failure_text(OSError("no number")) == "delayed connect error: no number"
