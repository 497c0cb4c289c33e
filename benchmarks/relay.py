"""The floor of what a Python proxy can cost: bytes from one socket to another on uvloop, no HTTP at all.

Usage: python -m benchmarks.relay HOST PORT UPSTREAM_HOST UPSTREAM_PORT
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop


class Far(asyncio.Protocol):
    def __init__(self, near: Near) -> None:
        self.near = near
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        for data in self.near.early:
            self.transport.write(data)
        self.near.early.clear()

    def data_received(self, data: bytes) -> None:
        self.near.transport.write(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.near.transport.close()

    def pause_writing(self) -> None:
        self.near.transport.pause_reading()

    def resume_writing(self) -> None:
        self.near.transport.resume_reading()


class Near(asyncio.Protocol):
    def __init__(self, loop: asyncio.AbstractEventLoop, upstream: tuple[str, int]) -> None:
        self.loop = loop
        self.upstream = upstream
        self.early: list[bytes] = []
        self.far = Far(self)
        self.transport: Any = None
        self.dialing: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.dialing = self.loop.create_task(self.loop.create_connection(lambda: self.far, *self.upstream))

    def data_received(self, data: bytes) -> None:
        if self.far.transport is None:
            self.early.append(data)
        else:
            self.far.transport.write(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.far.transport is not None:
            self.far.transport.close()

    def pause_writing(self) -> None:
        self.far.transport.pause_reading()

    def resume_writing(self) -> None:
        self.far.transport.resume_reading()


async def main(host: str, port: int, upstream: tuple[str, int]) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Near(loop, upstream), host, port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), (sys.argv[3], int(sys.argv[4]))))
