"""The app's probes, relayed: by every kind, with real sockets, and whatever the app does to them."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest

from tests.admin.fakes import HOST, Answer, pages
from tests.certs import Authority

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def app(handler: Handler, host: str = HOST, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(guarded, host, 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def says(*answers: bytes, heard: list[str] | None = None, callers: list[str] | None = None) -> Handler:
    """One answer for each connection, the last one for all others."""
    left = list(answers)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if heard is not None:
            heard.append(head.decode())
        if callers is not None:
            callers.append(writer.get_extra_info("peername")[0])
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        await writer.drain()

    return handler


def answer(status: str, *headers: str, body: str = "") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def probe(path: str = "/app-health/web/readyz", /, **handler: Any) -> str:
    return json.dumps({path: handler})


async def asked(probers: str, path: str = "/app-health/web/readyz", **headers: str) -> Answer:
    async with pages(app_probers=probers) as site:
        return await site.metrics.get(path, **headers)


def run(story: Awaitable[Any]) -> Any:
    async def whole() -> Any:
        return await story

    return asyncio.run(whole())


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "404 Not Found", "418 Teapot", "500 No", "503 Later"])
def test_status_and_body_are_the_apps(status: str) -> None:
    async def story() -> None:
        callers: list[str] = []
        body = "" if status.startswith("204") else "as said"
        async with app(says(answer(status, body=body), callers=callers)) as port:
            found = await asked(probe(httpGet={"path": "/r", "port": port}, timeoutSeconds=9))
        assert (found.status, found.body) == (int(status[:3]), body)
        assert callers == ["127.0.0.6"]  # iptables lets only that past us

    run(story())


def test_headers_of_the_kubelet_go_on_and_the_probes_own_win() -> None:
    async def story() -> None:
        heard: list[str] = []
        own = [{"name": "Host", "value": "shop.example"}, {"name": "X-Own", "value": "1"}, {"name": "X-Own", "value": "2"}]
        async with app(says(answer("200 OK"), heard=heard)) as port:
            get = {"path": "r?full=1", "port": port, "scheme": "", "httpHeaders": own}
            found = await asked(
                probe(httpGet=get), user_agent="kube-probe/1.33", x_own="kubelet", accept="*/*", host="shop.example"
            )
            assert found.status == 200
            await asked(probe(httpGet={"port": port}))
            await asked(probe(httpGet={"port": port, "host": "other.example"}))
        lines = heard[0].split("\r\n")
        assert lines[0] == "GET /r?full=1 HTTP/1.1"
        assert {"user-agent: kube-probe/1.33", "accept: */*", "host: shop.example", "x-own: 1", "x-own: 2"} <= set(lines)
        assert "x-own: kubelet" not in lines
        assert [line for line in heard[1].split("\r\n") if line.startswith("host")] == [f"host: {HOST}:{port}"]
        assert f"host: other.example:{port}" in heard[2]

    run(story())


def test_https_with_a_certificate_that_nobody_signed(tmp_path: Path) -> None:
    async def story() -> None:
        pair = Authority().issue("spiffe://other/ns/x/sa/y")
        (tmp_path / "cert").write_bytes(pair.certificate)
        (tmp_path / "key").write_bytes(pair.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
        async with app(says(answer("202 Accepted", body="over TLS")), tls=context) as port:
            found = await asked(probe(httpGet={"path": "/", "port": port, "scheme": "HTTPS"}, timeoutSeconds=9))
            assert (found.status, found.body) == (202, "over TLS")

        async def plaintext(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(answer("200 OK"))
            await writer.drain()

        async with app(plaintext) as port:
            found = await asked(probe(httpGet={"path": "/", "port": port, "scheme": "HTTPS"}, timeoutSeconds=9))
            assert found.status == 500 and "could not be asked" in found.body

    run(story())


def test_redirects_are_followed_at_the_same_host_only() -> None:
    async def story() -> None:
        heard: list[str] = []
        there, away = answer("302 Found", "location: /next"), answer("307 Go", "location: http://other.example/x", body="gone")
        async with app(says(there, answer("200 OK", body="next"), heard=heard)) as port:
            found = await asked(probe(httpGet={"path": "/a", "port": port}, timeoutSeconds=9))
            assert (found.status, found.body) == (200, "next")
            assert [head.split()[1] for head in heard] == ["/a", "/next"]
        async with app(says(away)) as port:
            found = await asked(probe(httpGet={"port": port}, timeoutSeconds=9))
            assert (found.status, found.body, found.headers["location"]) == (307, "gone", "http://other.example/x")
        async with app(says(there)) as port:
            found = await asked(probe(httpGet={"port": port}, timeoutSeconds=9))
            assert (found.status, found.body) == (500, "the app could not be asked: more than 10 redirects\n")
        async with app(says(answer("302 Found", "location: http://[::1"))) as port:
            assert (await asked(probe(httpGet={"port": port}, timeoutSeconds=9))).status == 500

    run(story())


@pytest.mark.parametrize("said", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab"])
def test_an_app_that_talks_nonsense_has_failed(said: bytes) -> None:
    async def story() -> None:
        async with app(says(said)) as port:
            found = await asked(probe(httpGet={"port": port}, timeoutSeconds=9))
        assert found.status == 500 and found.body.startswith("the app could not be asked: ")

    run(story())


def test_a_slow_app_costs_its_timeout_and_no_hook_has_one() -> None:
    async def story() -> None:
        gone = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()  # until the other side has gone
            gone.set()

        async with app(silent) as port:
            found = await asked(probe(httpGet={"port": port}, timeoutSeconds=1))
            assert (found.status, found.body) == (500, "the app did not answer within 1 s\n")
            await gone.wait()

    run(story())


def test_hooks() -> None:
    async def story() -> None:
        heard: list[str] = []
        path = "/app-lifecycle/web/prestopz"
        async with app(says(answer("200 OK", body="bye"), heard=heard)) as port:
            found = await asked(probe(path, httpGet={"path": "/bye", "port": port}), path)
            assert (found.status, found.body, len(heard)) == (200, "bye", 1)

    run(story())


def test_long_bodies_are_cut() -> None:
    async def story() -> None:
        async with app(says(answer("200 OK", body="x" * 100_000))) as port:
            found = await asked(probe(httpGet={"port": port}, timeoutSeconds=9))
        assert (found.status, found.body) == (200, "x" * 10240)

    run(story())


def test_tcp() -> None:
    async def story() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        async with app(silent) as port:
            assert (await asked(probe(tcpSocket={"port": port, "host": "example.com"}, timeoutSeconds=9))).status == 200
        found = await asked(probe(tcpSocket={"port": port}, timeoutSeconds=9))
        assert found.status == 500 and "could not be asked" in found.body

    run(story())


def test_paths_that_are_no_probes() -> None:
    async def story() -> None:
        probers = probe(tcpSocket={"port": 9})
        for path in (
            "/app-health/web/livez",
            "/app-health/other/readyz",
            "/app-health/web/readyz/x",
            "/app-lifecycle/web/prestopz",
        ):
            assert (await asked(probers, path)).status == 404
        async with pages(app_probers=probers) as site:
            assert (await site.metrics.post("/app-health/web/readyz")).status == 405
            assert (await site.admin.get("/app-health/web/readyz")).status == 404
            assert (await site.health.get("/app-health/web/readyz")).status == 404

    run(story())


def health(status: int, code: str = "0", asked: list[str] | None = None, head: str = "200") -> Handler:
    """A server of grpc.health.v1."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        machine = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        machine.initiate_connection()
        body = b""
        while data := await reader.read(65536):
            for event in machine.receive_data(data):
                if isinstance(event, h2.events.RequestReceived) and asked is not None:
                    asked.append(dict(event.headers)[":path"])
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data
                elif isinstance(event, h2.events.StreamEnded):
                    if asked is not None:
                        asked.append(body[7:].decode())
                    machine.send_headers(event.stream_id, [(":status", head), ("content-type", "application/grpc")])
                    message = b"\x08" + bytes([status])
                    machine.send_data(event.stream_id, b"\x00" + len(message).to_bytes(4, "big") + message)
                    machine.send_headers(event.stream_id, [("grpc-status", code)], end_stream=True)
            writer.write(machine.data_to_send())
            await writer.drain()

    return handler


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (1, "0", ""),
        (2, "0", "the app's service is NOT_SERVING\n"),
        (3, "0", "the app's service is SERVICE_UNKNOWN\n"),
        (0, "0", "the app's service is UNKNOWN\n"),
        (1, "12", "the app does not implement grpc.health.v1.Health\n"),
        (1, "5", "the app's health check failed with grpc-status 5\n"),
    ],
)
def test_grpc(status: int, code: str, expected: str) -> None:
    async def story() -> None:
        heard: list[str] = []
        async with app(health(status, code, heard)) as port:
            found = await asked(probe(grpc={"port": port, "service": "shop.Cart"}, timeoutSeconds=9))
            assert (found.status, found.body) == (500 if expected else 200, expected)
            assert heard == ["/grpc.health.v1.Health/Check", "shop.Cart"]
            assert (await asked(probe(grpc={"port": port, "service": None}, timeoutSeconds=9))).status == found.status

    run(story())


def test_grpc_that_is_none() -> None:
    async def story() -> None:
        async with app(says(answer("200 OK"))) as port:
            found = await asked(probe(grpc={"port": port}, timeoutSeconds=9))
            assert found.status == 500
        async with app(health(1, head="503")) as port:
            found = await asked(probe(grpc={"port": port}, timeoutSeconds=9))
            assert (found.status, found.body) == (500, "the app answered 503, not as gRPC does\n")

    run(story())
