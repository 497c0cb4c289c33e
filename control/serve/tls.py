"""The server side of TLS on :15012 (room ``serve``): one context whose certificate is renewed while it serves.

In: something that issues certificates. Out: ``ServerTls.context`` and ``run``, which renews at two thirds of the certificate's
life. New connections get the new certificate; open ones go on.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

__all__ = ["ServerTls"]

log = logging.getLogger("mesh.control")
RETRY_AFTER = 60.0


class Certificate(Protocol):
    @property
    def certificate(self) -> bytes: ...
    @property
    def key(self) -> bytes: ...
    @property
    def expires(self) -> float: ...


class ServerTls:
    """``issue(now)`` gives a certificate and key, in PEM."""

    def __init__(self, issue: Callable[[float], Certificate], wall: Callable[[], float] = time.time) -> None:
        self._issue = issue
        self._wall = wall
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self.expires = 0.0

    def renew(self) -> None:
        """Issue and load a certificate now."""
        made = self._issue(self._wall())
        # The ssl module loads from files only; the directory is 0700 and gone at once.
        with tempfile.TemporaryDirectory(prefix="mesh-") as directory:
            path = Path(directory, "server.pem")
            path.touch(mode=0o600)
            path.write_bytes(made.key + made.certificate)
            self.context.load_cert_chain(path)
        self.expires = made.expires

    async def run(self) -> None:
        """Renew for ever."""
        while True:
            await asyncio.sleep(max(RETRY_AFTER, (self.expires - self._wall()) * 2 / 3))
            try:
                self.renew()
                log.info("the server certificate was renewed")
            except Exception:  # keep serving on the old one and try again
                log.exception("the server certificate could not be renewed")
