"""The cloud's load balancer: connections to an address of the host, carried to the gateway in its namespace. Loud.

In: where to listen, where to. Out: bytes both ways, each side's end passed on.
"""

from __future__ import annotations

import asyncio
import contextlib

__all__ = ["front"]


async def front(host: str, port: int, gateway: str) -> asyncio.Server:
    """Raises ``OSError`` when it cannot listen."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            try:
                far_reader, far_writer = await asyncio.open_connection(gateway, port)
            except OSError:
                writer.transport.abort()
                return
            try:
                await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
            except OSError:
                writer.transport.abort()
            finally:
                far_writer.transport.abort() if writer.transport.is_closing() else far_writer.close()
                writer.close()

    return await asyncio.start_server(carry, host, port, backlog=1024)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
