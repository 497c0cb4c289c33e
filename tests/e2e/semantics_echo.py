"""For tests of Istio semantics: an app that says what it was asked and does what it is told; all pods' apps are one thread."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import struct
import threading
from collections import defaultdict
from dataclasses import dataclass

__all__ = ["APP_PORT", "Echo", "Seen"]

APP_PORT = 9080


@dataclass
class Seen:
    """One request as an app got it. ``headers``: in order, names lower case."""

    pod: str
    method: str
    path: str
    host: str
    headers: list[tuple[str, str]]
    body: bytes
    connection: int


class Echo:
    """Apps of all pods in one thread. ``x-do`` tells an app what to do, as directives parted by blanks:

    ``status=503``; ``fail=2:503`` (the first two requests of this ``x-key``); ``on=POD:503``; ``delay=1`` seconds, ``slow=2:1``
    (the first two only); ``close`` and ``close=1`` (without an answer; the first one only); ``reset`` (with a RST); ``junk``
    (no HTTP); ``head=name:value`` adds a response header, ``first=name:value`` to the first
    answer. ``seen[key]`` lists the requests with that ``x-key``.
    """

    def __init__(self) -> None:
        self.seen: dict[str, list[Seen]] = defaultdict(list)
        self._loop = asyncio.new_event_loop()
        self._connections = itertools.count(1)
        self._servers: list[asyncio.Server] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="echo", daemon=True)
        self._thread.start()

    def serve(self, pod: str, ip: str, port: int = APP_PORT) -> int:
        """Answer there as ``pod``; the port, for a ``port`` of 0."""

        async def start() -> asyncio.Server:
            return await asyncio.start_server(lambda r, w: self._talk(pod, r, w), ip, port)

        made = asyncio.run_coroutine_threadsafe(start(), self._loop).result(10)
        self._servers.append(made)
        return int(made.sockets[0].getsockname()[1])

    def close(self) -> None:
        async def end() -> None:
            for server in self._servers:
                server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _talk(self, pod: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = next(self._connections)
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            while await self._answer(pod, number, reader, writer):
                pass
        with contextlib.suppress(Exception):
            writer.close()

    async def _answer(self, pod: str, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ")
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:] if line)]
        fields = dict(headers)
        body = await _body(fields, reader)
        seen = self.seen[fields.get("x-key", "")]
        seen.append(Seen(pod, method, path, fields.get("host", ""), headers, body, number))
        status, extra = 200, ""
        for word in fields.get("x-do", "").split():
            verb, _, value = word.partition("=")
            if verb == "status":
                status = int(value)
            elif verb in ("fail", "on"):
                which, _, code = value.partition(":")
                if pod == which if verb == "on" else len(seen) <= int(which):
                    status = int(code)
            elif verb == "delay":
                await asyncio.sleep(float(value))
            elif verb == "slow" and len(seen) <= int(value.partition(":")[0]):
                await asyncio.sleep(float(value.partition(":")[2]))
            elif verb == "close" and len(seen) <= int(value or 1 << 30):
                return False
            elif verb == "reset" and len(seen) <= int(value or 1 << 30):
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return False
            elif verb == "junk":
                writer.write(b"this is not HTTP\r\n\r\n")
                return False
            elif verb == "head" or (verb == "first" and len(seen) == 1):
                extra += value.replace(":", ": ", 1) + "\r\n"
        told = {"pod": pod, "method": method, "path": path, "host": fields.get("host", ""), "headers": headers}
        told |= {"body": body.decode("latin-1"), "connection": number}
        text = json.dumps(told).encode()
        if status in (204, 304) or method == "HEAD":
            text = b""
        length = "" if status in (204, 304) else f"content-length: {len(text)}\r\n"
        writer.write(f"HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\n{extra}{length}\r\n".encode() + text)
        await writer.drain()
        return fields.get("connection") != "close"


async def _body(fields: dict[str, str], reader: asyncio.StreamReader) -> bytes:
    if fields.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        while (await reader.readline()).strip():
            pass
        return body
    return await reader.readexactly(int(fields.get("content-length", "0")))
