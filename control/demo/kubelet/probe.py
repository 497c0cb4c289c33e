"""Readiness probes: a TCP connect or one GET, straight at the container, never through a route of the mesh.

In: a ``Probe`` and a time limit. Out: ready or not. Loud.
"""

from __future__ import annotations

import asyncio
import contextlib

from control.demo.kubelet.space import socket_in
from control.demo.plan import Probe

__all__ = ["check"]


async def check(probe: Probe, timeout: float = 1.0) -> bool:
    """True when the target answered in time (a GET: with a status below 400)."""
    try:
        async with asyncio.timeout(timeout):
            return await _ask(probe)
    except (OSError, TimeoutError, ValueError):
        return False


async def _ask(probe: Probe) -> bool:
    if probe.space:
        sock = socket_in(probe.space)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (probe.host, probe.port))
        except BaseException:
            sock.close()
            raise
        reader, writer = await asyncio.open_connection(sock=sock)
    else:
        reader, writer = await asyncio.open_connection(probe.host, probe.port)
    try:
        if not probe.path:
            return True
        head = f"GET {probe.path} HTTP/1.1\r\nhost: {probe.host}:{probe.port}\r\n"
        writer.write(f"{head}user-agent: kube-probe\r\nconnection: close\r\n\r\n".encode())
        words = (await reader.readline()).split()
        return len(words) > 1 and words[0].startswith(b"HTTP/1.") and 200 <= int(words[1]) < 400
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
