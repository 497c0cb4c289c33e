"""Open-loop load: requests start on a fixed schedule whatever the answers do, and latency counts from the scheduled start.

So a stall is charged to every request that should have started in it (no coordinated omission). Prints one JSON line.
Usage: python -m benchmarks.openloop HOST PORT PATH AUTHORITY --rate 1000 --connections 32 --seconds 5
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import deque
from typing import Any

import uvloop


class Client(asyncio.Protocol):
    """One keep-alive connection, one request at a time; queued requests wait their turn with their clock running."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.transport: Any = None
        self.buffer = b""
        self.need = 0
        self.started = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.load.free.append(self)

    def send(self, due: float) -> None:
        self.started = due
        self.need = 0
        self.buffer = b""
        self.transport.write(self.load.request)

    def data_received(self, data: bytes) -> None:
        if self.need:
            self.need -= len(data)
        else:
            self.buffer += data
            head, found, rest = self.buffer.partition(b"\r\n\r\n")
            if not found:
                return
            lower = head.lower()
            at = lower.index(b"content-length:") + 15
            length = int(lower[at:].split(b"\r\n", 1)[0])
            if not head.startswith(b"HTTP/1.1 200"):
                self.load.failed += 1
            self.need = length - len(rest)
        if self.need <= 0:
            self.need = 0
            self.load.done(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.load.lost += 1


class Load:
    def __init__(self, request: bytes, rate: float, seconds: float) -> None:
        self.request = request
        self.rate = rate
        self.total = int(rate * seconds)
        self.free: deque[Client] = deque()
        self.queue: deque[float] = deque()
        self.latencies: list[float] = []
        self.failed = 0
        self.lost = 0
        self.loop = asyncio.get_running_loop()
        self.finished = asyncio.Event()

    def done(self, client: Client) -> None:
        self.latencies.append(self.loop.time() - client.started)
        if self.queue:
            client.send(self.queue.popleft())
        else:
            self.free.append(client)
        if len(self.latencies) >= self.total:
            self.finished.set()

    async def run(self) -> None:
        begin = self.loop.time() + 0.05
        issued = 0
        while issued < self.total:
            now = self.loop.time()
            while issued < self.total and begin + issued / self.rate <= now:
                due = begin + issued / self.rate
                issued += 1
                if self.free:
                    self.free.popleft().send(due)
                else:
                    self.queue.append(due)
            await asyncio.sleep(max(0.0, begin + issued / self.rate - self.loop.time()))
        async with asyncio.timeout(20):
            await self.finished.wait()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("authority")
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--token", default="", help="sent as a bearer token")
    parser.add_argument("--traced", action="store_true", help="do not say that no trace is wanted")
    args = parser.parse_args()
    request = (
        f"GET {args.path} HTTP/1.1\r\nHost: {args.authority}\r\nUser-Agent: openloop\r\nAccept: */*\r\n"
        "Accept-Encoding: gzip\r\n"
        + ("" if args.traced else "X-B3-Sampled: 0\r\n")
        + (f"Authorization: Bearer {args.token}\r\n" if args.token else "")
        + "\r\n"
    ).encode()
    load = Load(request, args.rate, args.seconds)
    loop = asyncio.get_running_loop()
    for _ in range(args.connections):
        await loop.create_connection(lambda: Client(load), args.host, args.port)
    await load.run()
    found = sorted(load.latencies)
    pick = lambda share: found[min(len(found) - 1, int(len(found) * share))] * 1e3  # noqa: E731
    print(
        json.dumps(
            {
                "requests": len(found),
                "failed": load.failed,
                "lost": load.lost,
                "p50_ms": round(pick(0.5), 3),
                "p90_ms": round(pick(0.9), 3),
                "p99_ms": round(pick(0.99), 3),
                "max_ms": round(found[-1] * 1e3, 3),
            }
        )
    )


if __name__ == "__main__":
    uvloop.run(main())
