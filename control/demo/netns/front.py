"""The cloud's load balancer: connections to an address of the host, carried to the gateway in its namespace. Loud.

In: where to listen, where to. Out: bytes both ways, each side's end passed on.
"""

from __future__ import annotations

import asyncio
import contextlib

__all__ = ["front"]


async def front(host: str, port: int, gateway: str) -> asyncio.Server:
    """Raises ``OSError`` when it cannot listen."""

    carried: set[asyncio.Task[None]] = set()  # the loop holds tasks weakly, and a client that has gone holds none

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        carried.add(task)
        try:
            await _carry(reader, writer, gateway, port)
        finally:
            carried.discard(task)

    return await asyncio.start_server(carry, host, port, backlog=1024)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gateway: str, port: int) -> None:
    with contextlib.suppress(OSError):
        try:
            far_reader, far_writer = await asyncio.open_connection(gateway, port)
        except OSError:
            writer.transport.abort()
            return
        ways = [asyncio.ensure_future(_pump(reader, far_writer)), asyncio.ensure_future(_pump(far_reader, writer))]
        try:
            await asyncio.gather(*ways)
        except OSError:
            writer.transport.abort()
        finally:
            for way in ways:
                way.cancel()  # one side has failed: the other has nobody to speak to
            far_writer.transport.abort() if writer.transport.is_closing() else far_writer.close()
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
