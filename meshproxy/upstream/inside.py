"""Room 6, loud: asking the app in our own pod, for probes and metrics: streams, no pool. Cold.

In: the pod's address and a port. Out: streams to the app. It is dialed as others would, at the pod's own address, and from the
address by which iptables lets us past ourselves (``ISTIO_OUTPUT``'s first rule).
"""

from __future__ import annotations

import asyncio
import ssl
from errno import EADDRNOTAVAIL

__all__ = ["open_app"]


async def open_app(
    ip: str, port: int, tls: ssl.SSLContext | None = None, limit: int = 64 * 1024
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Raises ``OSError``. Where there is no such source address nothing is intercepted either."""
    name = "" if tls is not None else None  # no server's name is told: it would be an address
    source = "::6" if ":" in ip else "127.0.0.6"
    try:
        return await asyncio.open_connection(ip, port, ssl=tls, server_hostname=name, local_addr=(source, 0), limit=limit)
    except OSError as error:
        if not _unavailable(error):
            raise
    return await asyncio.open_connection(ip, port, ssl=tls, server_hostname=name, limit=limit)


def _unavailable(error: OSError) -> bool:
    """asyncio wraps it."""
    return error.errno == EADDRNOTAVAIL or "annot assign requested address" in str(error)
