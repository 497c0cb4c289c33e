"""A server protocol that does not wait for ever for a request's head (room ``serve``).

In: uvicorn's own HTTP/1.1 protocol. Out: ``Patient``, for ``uvicorn.Config(http=…)``: a connection that has been accepted, or has
begun a request, and does not finish the request's head within ``head_patience`` seconds is dropped; and so is one that goes on
with a body when its answer (a refusal) is already there. uvicorn limits only the idle
time between requests; without this, anybody who can connect holds a file descriptor for ever, before any token is asked for.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["Patient"]


class Patient(H11Protocol):
    """``head_patience`` in seconds."""

    head_patience = 30.0
    _impatient: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begin()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._expected():
            self._begin()  # from the head's first byte: further bytes do not buy more time
        else:
            self._end()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._expected():  # the next head came half with this request, or the rest of this body is still to come
            self._begin()

    def _unsupported_upgrade_warning(self) -> None:
        """kubectl exec and port-forward ask for upgrades; they are answered in words, and no library would change that."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        super().connection_lost(exc)

    def _expected(self) -> bool:
        """Whether the rest of a head, or of a body that nobody wants, must come soon."""
        if self.conn.their_state is h11.IDLE:
            return self.cycle is None or bool(self.conn.trailing_data[0])
        return self.conn.their_state is h11.SEND_BODY and self.cycle is not None and self.cycle.response_complete

    def _begin(self) -> None:
        if self._impatient is None:
            self._impatient = self.loop.call_later(self.head_patience, self._drop)

    def _end(self) -> None:
        if self._impatient is not None:
            self._impatient.cancel()
            self._impatient = None

    def _drop(self) -> None:
        self.transport.abort()  # no farewell: TLS would wait for the peer's
