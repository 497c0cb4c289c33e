"""The small server: who may ask, what it refuses, and that nobody can wear it down."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from meshproxy.admin import http
from meshproxy.admin.http import Request, Response, Route, Site
from tests.admin.fakes import HOST, Answer, Client, Pages, pages


def on_pages(story: Callable[[Pages], Awaitable[Any]], host: str = HOST) -> Any:
    async def run() -> Any:
        async with pages(host) as found:
            return await story(found)

    return asyncio.run(run())


async def raw(client: Client, data: bytes, half_close: bool = False) -> bytes:
    """Send bytes, hear everything until the server closes."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    try:
        writer.write(data)
        if half_close:
            writer.write_eof()
        async with asyncio.timeout(20):
            return await reader.read(-1)
    finally:
        writer.close()


# -- who may ask


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        (HOST, True),
        (f"{HOST}:15000", True),
        ("localhost", True),
        ("LocalHost:8080", True),
        ("127.0.0.1:9", True),
        ("[::1]:9", True),
        ("evil.example", False),
        ("evil.example@localhost", False),
        ("localhost/.evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.2", False),
        ("evil.example:15000", False),
        ("", False),
        ("[::1", False),
    ],
)
def test_the_host_must_be_ours(host: str, allowed: bool) -> None:
    async def story(found: Pages) -> Answer:
        return await found.admin.get("/ready", Host=host)

    answer = on_pages(story)
    assert answer.status == (200 if allowed else 403)
    assert allowed or answer.body == "the Host header names neither this proxy's address nor localhost\n"


def test_the_address_a_connection_came_in_on_is_ours() -> None:
    async def story(found: Pages) -> None:
        other = Client("127.87.0.9", found.admin.port)
        assert (await other.get("/ready")).status == 200
        assert (await other.get("/ready", Host="127.87.0.8")).status == 403

    on_pages(story, host="0.0.0.0")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": f"http://{HOST}:15000"}, 200),
        ({"Origin": "http://localhost:15000", "Sec_Fetch_Site": "same-origin"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
    ],
)
def test_no_other_web_page_may_change_anything(headers: dict[str, Any], status: int) -> None:
    async def story(found: Pages) -> None:
        assert (await found.admin.post("/drain", **headers)).status == status
        assert found.sidecar.calls == (["drain"] if status == 200 else [])

    on_pages(story)


def test_local_pages_are_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_is_local", lambda remote, own: False)

    async def story(found: Pages) -> None:
        answer = await found.metrics.post("/quitquitquit")
        assert (answer.status, answer.body) == (403, "/quitquitquit is only for callers on this machine\n")
        assert found.sidecar.calls == []
        assert (await found.metrics.get("/stats/prometheus")).status == 200

    on_pages(story)


@pytest.mark.parametrize(
    ("remote", "local"), [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("10.0.0.7", True), ("10.0.0.8", False)]
)
def test_who_is_local(remote: str, local: bool) -> None:
    assert http._is_local(remote, frozenset({"10.0.0.7"})) == local


# -- what is refused


def test_unknown_pages_say_which_there_are() -> None:
    async def story(found: Pages) -> None:
        answer = await found.health.get("/nope")
        assert (answer.status, answer.body) == (404, "no page '/nope' here; there are: /healthz/ready\n")
        assert (await found.health.get("/healthz/ready/")).status == 200

    on_pages(story)


@pytest.mark.parametrize(
    ("method", "path", "allow"), [("POST", "/ready", "GET, HEAD"), ("DELETE", "/drain", "POST"), ("PUT", "/stats", "GET, HEAD")]
)
def test_methods(method: str, path: str, allow: str) -> None:
    async def story(found: Pages) -> None:
        answer = await found.admin.get(path, method)
        assert (answer.status, answer.headers["allow"]) == (405, allow)

    on_pages(story)


def test_head_has_no_body() -> None:
    async def story(found: Pages) -> None:
        for path in ("/listeners", "/stats/prometheus"):
            answer = await found.admin.get(path, "HEAD")
            assert (answer.status, answer.body) == (200, "")

    on_pages(story)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GARBAGE\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),  # no Host
        (b"GET / HTTP/1.0\r\n\r\n", b"403"),
        (b"GET /" + b"a" * 30_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"431"),
        (b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n", b"400"),
        (b"POST /drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 70000\r\n\r\n" + b"a" * 70_000, b"413"),
        (b"POST /drain HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"POST /drain HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n", b"417"),
    ],
)
def test_bad_requests_are_answered_and_the_connection_ends(data: bytes, status: bytes) -> None:
    async def story(found: Pages) -> bytes:
        answer = await raw(found.admin, data)
        assert found.sidecar.calls == []
        return answer

    answer = on_pages(story)
    assert answer.split()[1] == status and b"connection: close" in answer.lower()


def test_a_body_is_read_and_ignored() -> None:
    async def story(found: Pages) -> None:
        assert (await found.admin.post("/drain", b"x" * 1000)).status == 200

    on_pages(story)


# -- connections


def test_connections_are_kept() -> None:
    async def story(found: Pages) -> bytes:
        one = b"GET /listeners HTTP/1.1\r\nHost: localhost\r\n\r\n"
        last = b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        return await raw(found.admin, one + one + last)

    answer = on_pages(story)
    assert answer.count(b"HTTP/1.1 200") == 3 and answer.endswith(b"LIVE\n")


def test_http_1_0_gets_a_body_that_ends_with_the_connection() -> None:
    async def story(found: Pages) -> bytes:
        return await raw(found.admin, b"GET /stats/prometheus HTTP/1.0\r\nHost: localhost\r\n\r\n")

    answer = on_pages(story)
    assert b"chunked" not in answer and answer.endswith(b"\r\n\r\na 1\nb 2\n")


def test_who_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "IDLE", 0.05)
    monkeypatch.setattr(http, "HEAD_TIME", 0.05)

    async def story(found: Pages) -> None:
        assert await raw(found.admin, b"") == b""
        assert await raw(found.admin, b"GET / HT") == b""
        half = await raw(found.admin, b"POST /drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx")
        assert half == b"" and found.sidecar.calls == []

    on_pages(story)


def test_only_so_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 2)

    async def story(found: Pages) -> None:
        held = [await asyncio.open_connection(found.admin.host, found.admin.port) for _ in range(2)]
        for reader, writer in held:
            writer.write(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200" in await reader.readline()
        assert await raw(found.admin, b"") == b""
        for _, writer in held:
            writer.close()
        while True:  # the server hears of the closing a little later
            try:
                assert (await found.admin.get("/ready")).status == 200
                return
            except ConnectionError:
                continue

    on_pages(story)


def test_a_reader_that_stops_does_not_hold_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless answer to somebody who does not read ends by time; others are served meanwhile."""
    monkeypatch.setattr(http, "WRITE_TIME", 0.2)
    ended: list[bool] = []

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 65_536
        finally:
            ended.append(True)

    async def big(request: Request) -> Response:
        return Response(body=endless())

    async def small(request: Request) -> Response:
        return Response.text("small")

    async def run() -> None:
        site = Site("test", HOST, 0, {"/big": Route(big), "/small": Route(small)})
        await site.open()
        client = Client(HOST, site.port)
        _, writer = await asyncio.open_connection(HOST, site.port, limit=1024)
        writer.write(b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await client.get("/small")).body == "small\n"
        async with asyncio.timeout(20):
            while not ended:
                await asyncio.sleep(0)
        writer.close()
        await site.aclose()

    asyncio.run(run())


def test_a_page_with_a_bug_is_a_500_and_a_log_entry(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(request: Request) -> Response:
        raise RuntimeError("secret details")

    async def run() -> Answer:
        site = Site("test", HOST, 0, {"/broken": Route(broken)})
        await site.open()
        try:
            return await Client(HOST, site.port).get("/broken")
        finally:
            await site.aclose()

    with caplog.at_level(logging.ERROR):
        answer = asyncio.run(run())
    assert (answer.status, answer.body) == (500, "internal error; see the log\n")
    assert [entry.getMessage() for entry in caplog.records] == ["bug in admin page /broken"]


def test_an_address_in_use_is_named() -> None:
    async def run() -> None:
        one = Site("admin", HOST, 0, {})
        await one.open()
        try:
            with pytest.raises(OSError, match=rf"admin: cannot listen on {HOST}:{one.port}: .*address already in use"):
                await Site("admin", HOST, one.port, {}).open()
        finally:
            await one.aclose()

    asyncio.run(run())


def test_everywhere_is_every_address_and_admin_is_not() -> None:
    """As in a pod: probes come by whatever address and name, what changes something from within only."""

    async def story() -> None:
        async with pages("127.0.0.1", "::") as site:
            port = site.metrics.port
            for host in ("127.0.0.1", "127.87.0.9", "::1"):
                assert (await Client(host, port).get("/healthz/ready", host="lb.example")).status == 200
                assert (await Client(host, port).get("/stats/prometheus")).status == 200
            assert (await Client("127.0.0.1", port).get("/stats/prometheus", host="lb.example")).status == 403
            assert (await Client("::1", port).post("/quitquitquit")).status == 200
            assert (await Client("127.0.0.1", port).post("/drain")).status == 200
            assert site.sidecar.calls[-2:] == ["quit", "drain"]
            passed_on = "POST /quitquitquit HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.6", 0))
            writer.write(passed_on.encode())  # by our inbound side, for somebody else
            assert (await reader.read()).startswith(b"HTTP/1.1 403")
            writer.close()
            with pytest.raises(ConnectionRefusedError):
                await Client("127.87.0.9", site.admin.port).get("/ready")

    asyncio.run(story())
