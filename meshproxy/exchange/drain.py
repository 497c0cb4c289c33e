"""Takes the rest of a response that nobody wants (a retried 503's body), so that its connection can serve again. Quiet.

Bounded: past ``DRAIN_LIMIT`` bytes the connection is closed instead.
"""

from __future__ import annotations

from typing import Any

from meshproxy.message.head import Headers, ResponseHead
from meshproxy.message.reason import Reason

__all__ = ["DRAIN_LIMIT", "Drain"]

DRAIN_LIMIT = 64 * 1024


class Drain:
    """A ``ResponseSink`` that throws away."""

    __slots__ = ("connection", "left")

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.left = DRAIN_LIMIT

    def on_informational(self, status: int, headers: Headers, now: float) -> None:
        pass

    def on_response_head(self, head: ResponseHead, end: bool, now: float) -> None:
        if end:
            self._done()

    def on_response_data(self, data: bytes, end: bool, now: float) -> None:
        self.left -= len(data)
        if end:
            self._done()
        elif self.left < 0:
            self.connection.codec.abandon()
            self.connection.end(False)

    def on_response_end(self, trailers: Headers, now: float) -> None:
        self._done()

    def on_response_flush(self, now: float) -> None:
        pass

    def on_upstream_failed(self, reason: Reason, now: float) -> None:
        self.connection.end(False)

    def on_upstream_blocked(self, blocked: bool) -> None:
        pass

    def _done(self) -> None:
        self.connection.end(self.connection.codec.reusable)
