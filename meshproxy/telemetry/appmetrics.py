"""Telemetry room: the app's own metrics, fetched when we are scraped, so that one scrape per pod is enough. Loud; cold.

In: where the app shows them (``prometheus.io/...`` annotations, or ``--app-metrics``), what the scraper accepts and how long it
waits. Out: a ``Page``, or None: an app that is down, slow, too talkative or talks nonsense costs a counter, never the scrape.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import h11

from meshproxy.telemetry.exposition import OPENMETRICS, TEXT, exposition, wants_openmetrics
from meshproxy.telemetry.family import Family, Row
from meshproxy.upstream.inside import open_app

__all__ = ["AppMetrics", "Page", "together"]

LIMIT = 8 << 20  # bytes of a page
PATIENCE = 5.0  # seconds for all of it, or less where the scraper says that it waits less
_AT_ONCE = 2  # scrapers that we ask for; others wait for their turn
_PIECE = 64 * 1024
_HEAD = 32 * 1024
_EOF = b"# EOF"
REASONS = ("connect", "timeout", "status", "size", "format", "protocol")


class Page(NamedTuple):
    """``body`` ends its last line, and says nothing of the end."""

    openmetrics: bool
    body: bytes


class _Failed(Exception):
    """``args[0]``: one of ``REASONS``."""


class AppMetrics:
    """Fetches ``http://host:port/path``. ``inside``: the host is our own pod, whose other doors are ours."""

    def __init__(self, host: str, port: int, path: str, inside: bool = False) -> None:
        self._host, self._port, self._path = host, port, path
        self._open = open_app if inside else asyncio.open_connection
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self.fetched = 0
        self.failures = dict.fromkeys(REASONS, 0)

    async def fetch(self, accept: str, patience: float = PATIENCE) -> Page | None:
        """``accept``: the scraper's. None: not to be had, and counted."""
        try:
            async with asyncio.timeout(min(patience, PATIENCE)), self._turn:
                page = await self._get(wants_openmetrics(accept))
        except TimeoutError:
            self.failures["timeout"] += 1
        except OSError:
            self.failures["connect"] += 1
        except h11.RemoteProtocolError:
            self.failures["protocol"] += 1
        except _Failed as failed:
            self.failures[failed.args[0]] += 1
        else:
            self.fetched += 1
            return page
        return None

    async def _get(self, modern: bool) -> Page:
        reader, writer = await self._open(self._host, self._port, limit=_PIECE)
        try:
            machine = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD)
            host = f"[{self._host}]" if ":" in self._host else self._host
            headers = [
                ("host", f"{host}:{self._port}"),
                ("accept", f"{OPENMETRICS},{TEXT};q=0.5" if modern else TEXT),
                ("user-agent", "meshproxy"),
                ("connection", "close"),
            ]
            writer.write(machine.send(h11.Request(method="GET", target=self._path, headers=headers)) or b"")
            writer.write(machine.send(h11.EndOfMessage()) or b"")
            kind, body = await _answer(machine, reader)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        return _page(kind, body)

    def families(self) -> list[Family]:
        """How that went."""
        return [
            Family(
                "mesh_app_metrics_fetched_total",
                "counter",
                "Pages of the app's own metrics that were merged with ours.",
                (),
                [Row((), self.fetched)],
                stat="app_metrics.fetched",
            ),
            Family(
                "mesh_app_metrics_failures_total",
                "counter",
                "Scrapes without the app's own metrics, by why they were not to be had.",
                ("reason",),
                [Row((reason,), count) for reason, count in self.failures.items()],
                stat="app_metrics.failures.{}",
            ),
        ]


async def _answer(machine: h11.Connection, reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """(content type, body) of a 200."""
    pieces: list[bytes] = []
    size, kind = 0, ""
    while True:
        event = machine.next_event()
        if event is h11.NEED_DATA:
            machine.receive_data(await reader.read(_PIECE))
        elif isinstance(event, h11.Response):
            if event.status_code != 200:
                raise _Failed("status")
            kind = dict(event.headers).get(b"content-type", b"").decode("ascii", "replace").lower()
        elif isinstance(event, h11.Data):
            size += len(event.data)
            if size > LIMIT:
                raise _Failed("size")
            pieces.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            return kind, b"".join(pieces)
        elif not isinstance(event, h11.InformationalResponse):
            raise _Failed("protocol")


def _page(kind: str, body: bytes) -> Page:
    """What Prometheus could not read would cost it our own metrics too, so nothing but text passes."""
    kind = kind.partition(";")[0].strip()
    if kind not in ("application/openmetrics-text", "text/plain", ""):
        raise _Failed("format")
    try:
        body.decode()
    except UnicodeDecodeError:
        raise _Failed("format") from None
    modern = kind == "application/openmetrics-text"
    if modern:
        body = body.rstrip().removesuffix(_EOF)
    if body and not body.endswith(b"\n"):
        body += b"\n"
    return Page(modern, body)


def together(page: Page, families: list[Family]) -> tuple[str, Iterator[bytes]]:
    """(content type, body in pieces): the app's first, then ours, all in the format that the app has."""
    kind, ours = exposition(families, OPENMETRICS if page.openmetrics else TEXT)

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(page.body), _PIECE):
            yield page.body[start : start + _PIECE]
        yield from ours

    return kind, pieces()
