"""The app's own metrics beside ours: in its format, bounded, and never at the cost of ours."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from meshproxy.telemetry import appmetrics
from meshproxy.telemetry.appmetrics import AppMetrics, Page, together
from meshproxy.telemetry.family import Family, Row

OURS = [Family("ours_total", "counter", "Ours.", (), [Row((), 1)])]


class App:
    """Answers each connection with the same bytes, and keeps the heads that it got. Then it closes, or waits for its end."""

    def __init__(self, answer: bytes, holds: bool = False) -> None:
        self.answer = answer
        self.holds = holds
        self.heads: list[str] = []
        self.over = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(self.answer)
        if self.holds:
            await self.over.wait()
        writer.close()


def fetch(answer: bytes, accept: str = "", patience: float = 20.0, holds: bool = False) -> tuple[Page | None, AppMetrics, App]:
    async def story() -> tuple[Page | None, AppMetrics, App]:
        app = App(answer, holds)
        server = await asyncio.start_server(app.serve, "127.0.0.1", 0)
        metrics = AppMetrics("127.0.0.1", server.sockets[0].getsockname()[1], "/metrics?a=1")
        try:
            page = await metrics.fetch(accept, patience)
        finally:
            app.over.set()
            server.close()
            await server.wait_closed()
        return page, metrics, app

    return asyncio.run(story())


def answer(body: bytes, kind: str = "text/plain; version=0.0.4", status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def whole(page: Page) -> tuple[str, str]:
    kind, pieces = together(page, OURS)
    return kind, b"".join(pieces).decode()


def test_text_and_ours_are_one_page() -> None:
    page, metrics, app = fetch(answer(b"# TYPE app_total counter\napp_total 5"))
    assert page is not None and metrics.fetched == 1
    assert app.heads[0].startswith("GET /metrics?a=1 HTTP/1.1\r\n") and "openmetrics" not in app.heads[0]
    kind, text = whole(page)
    assert kind.startswith("text/plain")
    assert {family.name: family.samples[0].value for family in parse_text(text)} == {"app": 5, "ours": 1}


def test_openmetrics_has_one_end() -> None:
    body = b"# TYPE app counter\napp_total 5\n# EOF\n"
    accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
    page, _, app = fetch(answer(body, "application/openmetrics-text; version=1.0.0; charset=utf-8"), accept)
    assert page is not None and "openmetrics" in app.heads[0]
    kind, text = whole(page)
    assert kind.startswith("application/openmetrics-text") and text.count("# EOF") == 1
    assert {family.name for family in parse_openmetrics(text)} == {"app", "ours"}


def test_an_app_that_knows_text_only_decides_the_format() -> None:
    page, _, _ = fetch(answer(b"app 5\n"), "application/openmetrics-text;version=1.0.0")
    assert page is not None
    kind, text = whole(page)
    assert kind.startswith("text/plain") and "# EOF" not in text


def test_chunks_and_an_end_by_closing() -> None:
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\na 1\n\r\n4\r\nb 2\n\r\n0\r\n\r\n"
    closed = b"HTTP/1.0 200 OK\r\n\r\na 1\nb 2\n"
    for form in (chunked, closed):
        page, _, _ = fetch(form)
        assert page == Page(False, b"a 1\nb 2\n")


def test_a_large_page_goes_in_pieces() -> None:
    page = Page(False, b"a 1\n" * 50_000)
    _, pieces = together(page, OURS)
    found = list(pieces)
    assert max(map(len, found)) <= 64 * 1024 and b"".join(found).startswith(page.body)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (answer(b"no", status="404 Not Found"), "status"),
        (answer(b"", status="302 Found"), "status"),
        (answer(b"\xff\xfe"), "format"),
        (answer(b"x", "application/vnd.google.protobuf"), "format"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", "protocol"),
        (b"", "protocol"),
    ],
)
def test_what_cannot_be_had_is_counted(given: bytes, reason: str) -> None:
    page, metrics, _ = fetch(given)
    assert page is None and metrics.fetched == 0
    assert {name for name, count in metrics.failures.items() if count} == {reason}
    counted = {row.labels: row.value for row in metrics.families()[1].rows}
    assert counted[(reason,)] == 1


def test_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appmetrics, "LIMIT", 1000)
    page, metrics, _ = fetch(answer(b"x" * 1001))
    assert page is None and metrics.failures["size"] == 1


def test_an_app_that_says_nothing_costs_the_scraper_its_patience_only() -> None:
    page, metrics, _ = fetch(b"HTTP/1.1 200 OK\r\n", patience=0.01, holds=True)
    assert page is None and metrics.failures["timeout"] == 1


def test_an_app_that_is_down() -> None:
    async def story() -> AppMetrics:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        metrics = AppMetrics("127.0.0.1", port, "/")
        assert await metrics.fetch("") is None
        return metrics

    assert asyncio.run(story()).failures["connect"] == 1
