"""Many simulated sidecars in one process, for ``scale.py``: real streams over TLS that confirm every push and note when it came.

In (argv): control's URL, the root certificate, a file with one ``namespace/pod token`` per line. Out (stdout): ``{"joined": n}``
once all have their full state; then, for every line on stdin, the arrival times since the last one (monotonic clock, which all
processes share). A simulated sidecar does not decode what it gets: a real one does that in its own process, on its own machine.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import sys
import time
from urllib.parse import urlsplit

import uvloop

HEAD = re.compile(rb'\{"type":"push","nonce":"([^"]*)","version":"([^"]*)","full":(true|false)')
JOINING = 40  # handshakes at a time


class Proxy:
    def __init__(self, host: str, port: int, context: ssl.SSLContext, name: str, token: str, arrivals: list[float]) -> None:
        self.host, self.port, self.context = host, port, context
        self.name, self.token = name, token
        self.arrivals = arrivals
        self.joined = asyncio.Event()
        self.bytes = 0
        self.poster: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        head = f"{method} {path} HTTP/1.1\r\nhost: {self.host}\r\nauthorization: Bearer {self.token}\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    async def run(self) -> None:
        reader, writer = await asyncio.open_connection(self.host, self.port, ssl=self.context, limit=1 << 18)
        writer.write(self.request("GET", f"/mesh/v1/config?pod={self.name}"))
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{self.name}: {head!r}")
        start = b""  # of the line under way; its rest is only counted
        while data := await reader.read(1 << 18):
            self.bytes += len(data)
            # Chunk framing (a size, CRLF) stands between the pieces of a line; it does not hide the start of a push.
            *whole, rest = data.split(b"}\n")
            for part in whole:
                await self.take((start + part)[:200])
                start = b""
            if len(start) < 200:
                start = (start + rest)[:200]

    async def take(self, start: bytes) -> None:
        found = HEAD.search(start)
        if found is None:
            return  # a greeting
        if found[3] == b"false":
            self.arrivals.append(time.monotonic())
        body = b'{"nonce":"%b","version":"%b"}' % (found[1], found[2])
        if self.poster is None:
            self.poster = await asyncio.open_connection(self.host, self.port, ssl=self.context)
        reader, writer = self.poster
        writer.write(self.request("POST", "/mesh/v1/config/ack", body))
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 204"):
            raise RuntimeError(f"{self.name}: {answer!r}")
        self.joined.set()


def ended(task: asyncio.Task[None]) -> None:
    """A stream that ends while we measure spoils the figures: say so."""
    if not task.cancelled():
        print(json.dumps({"ended": str(task.exception())}), flush=True)


async def main(url: str, ca_file: str, token_file: str) -> None:
    parts = urlsplit(url)
    context = ssl.create_default_context(cafile=ca_file)
    arrivals: list[float] = []
    with open(token_file, encoding="ascii") as file:
        pairs = [line.split() for line in file]
    assert parts.hostname and parts.port
    proxies = [Proxy(parts.hostname, parts.port, context, name, token, arrivals) for name, token in pairs]
    gate = asyncio.Semaphore(JOINING)
    loop = asyncio.get_running_loop()
    running = []

    async def join(proxy: Proxy) -> None:
        async with gate:
            task = loop.create_task(proxy.run(), name=proxy.name)
            task.add_done_callback(ended)
            running.append(task)
            await proxy.joined.wait()

    await asyncio.gather(*map(join, proxies))
    print(json.dumps({"joined": len(proxies), "bytes": sum(proxy.bytes for proxy in proxies)}), flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps({"arrivals": arrivals}), flush=True)
        arrivals.clear()
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(*sys.argv[1:]))
