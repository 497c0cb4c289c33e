"""The request body as far as it has come, kept while a try may still need it: for a connection not yet leased, a retry, a mirror.

Bounded: past the limit the replay is spent; what was kept still goes to the try under way, but no further try can have it
(Envoy gives up the retry; linkerd's bounded replay).
"""

from __future__ import annotations

from meshproxy.message.head import Headers

__all__ = ["Replay"]


class Replay:
    """``chunks`` in order; ``ended`` with ``trailers`` once the request is complete; ``spent`` when it grew over ``limit``
    bytes.
    """

    __slots__ = ("chunks", "ended", "limit", "size", "spent", "trailers")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.chunks: list[bytes] = []
        self.size = 0
        self.ended = False
        self.trailers: Headers = []
        self.spent = False

    def add(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self.limit:
            self.spent = True
        self.chunks.append(data)

    def end(self, trailers: Headers) -> None:
        self.ended = True
        self.trailers = trailers

    def forget(self) -> None:
        """Drop the bytes: they went out, and the replay is spent."""
        self.chunks.clear()
