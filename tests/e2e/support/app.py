"""An ordinary HTTP app for tests: a thread with an event loop, keep-alive, and paths that say how to answer.

``/status/N``, ``/bytes/N``, ``/slow`` (answers when ``release`` is called), everything else: JSON of the request as it came.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from typing import Any

from tests.e2e.support.sockets import own_address

_BLOCK = b"x" * 65536


class App:
    """``seen``: requests begun. ``connections``: accepted so far. ``idle``: seconds after which a quiet connection is closed."""

    def __init__(self, name: str = "app", host: str = "", idle: float = 60.0, serve: int = 0) -> None:
        self.name = name
        self.seen = 0
        self.connections = 0
        self.served = 0
        self.fail = 0  # a status that every answer has, or 0
        self._idle = idle
        self._serve = serve  # requests per connection after which it is closed without a word; 0: never
        self._host = host or own_address()
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._stop = asyncio.Event()
        self._go = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=f"app {name}", daemon=True)
        self._thread.start()
        assert self._started.wait(10)

    def release(self) -> None:
        """Let ``/slow`` requests go."""
        self._loop.call_soon_threadsafe(self._go.set)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def __enter__(self) -> App:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._main())
        finally:
            self._loop.close()

    async def _main(self) -> None:
        server = await asyncio.start_server(self._connection, self._host, 0, backlog=1024)
        self.address: tuple[str, int] = server.sockets[0].getsockname()
        self._started.set()
        await self._stop.wait()
        server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        served = 0
        try:
            while not self._serve or served < self._serve:
                async with asyncio.timeout(self._idle):
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                self.seen += 1
                served += 1
                await self._answer(head, reader, writer)
                self.served += 1
        except (OSError, EOFError, ValueError, TimeoutError, asyncio.CancelledError):
            pass  # gone, or through a tunnel and no HTTP
        finally:
            with contextlib.suppress(Exception):
                writer.close()

    async def _answer(self, head: list[str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, target, _ = head[0].split(" ")
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in head[1:] if line)]
        fields = dict(headers)
        if fields.get("expect") == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        size, trailers = 0, ""
        if fields.get("transfer-encoding") == "chunked":
            while length := int(await reader.readline(), 16):
                await reader.readexactly(length + 2)
                size += length
            while line := (await reader.readline()).strip():
                trailers += line.decode()
        elif left := int(fields.get("content-length", "0")):
            while left:
                data = await reader.read(min(left, 262144))
                if not data:
                    raise EOFError
                size += len(data)
                left -= len(data)
        words = [*target.split("?")[0].split("/"), ""]
        if words[1] == "slow":
            await self._go.wait()
        if words[1] == "bytes":
            left = int(words[2])
            writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {left}\r\n\r\n".encode())
            while left and method != "HEAD":
                writer.write(_BLOCK[:left])
                left -= min(left, len(_BLOCK))
                await writer.drain()
            return
        status = int(words[2]) if words[1] == "status" else self.fail or 200
        told = {"app": self.name, "method": method, "target": target, "headers": headers, "size": size, "trailers": trailers}
        body = b"" if status in (204, 304) else json.dumps(told).encode()
        length = b"" if status in (204, 304) else b"content-length: %d\r\n" % len(body)
        out = b"HTTP/1.1 %d Thus\r\nx-app: %b\r\n%b\r\n" % (status, self.name.encode(), length)
        writer.write(out + (b"" if method == "HEAD" else body))
        await writer.drain()
