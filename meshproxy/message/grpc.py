"""Vocabulary of a request in flight: what is counted about a gRPC call: its messages each way, and its status. Pure.

In: body bytes as they pass, the trailers. Out: counts and the status, for the record. Nothing is parsed but the five bytes before
each message (gRPC over HTTP/2, "Length-Prefixed-Message"); whatever peers send, feeding never fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshproxy.message.head import first

if TYPE_CHECKING:
    from meshproxy.message.head import Headers

__all__ = ["HTTP_TO_GRPC", "GrpcTally", "is_grpc"]

# Envoy's Grpc::Utility::httpToGrpcStatus; whatever else there is says UNKNOWN (2).
HTTP_TO_GRPC = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
_GRPC = b"application/grpc"


def is_grpc(headers: Headers) -> bool:
    """By the content type, as Envoy: ``application/grpc`` or ``application/grpc+...``."""
    asked = first(headers, b"content-type")
    return asked is not None and asked.startswith(_GRPC) and asked[len(_GRPC) : len(_GRPC) + 1] in (b"", b"+")


class GrpcTally:
    """``asked``, ``told``: messages of the caller and of who answered, each counted once its prefix is there."""

    __slots__ = ("_asking", "_telling", "_trailers", "asked", "told")

    def __init__(self) -> None:
        self.asked = 0
        self.told = 0
        self._asking: tuple[bytes, int] = (b"", 0)  # of the prefix so far, and what is left of the message
        self._telling: tuple[bytes, int] = (b"", 0)
        self._trailers: bytes | None = None

    def request(self, data: bytes) -> None:
        count, self._asking = _frames(data, *self._asking)
        self.asked += count

    def response(self, data: bytes) -> None:
        count, self._telling = _frames(data, *self._telling)
        self.told += count

    def ended(self, trailers: Headers) -> None:
        self._trailers = first(trailers, b"grpc-status")

    def status(self, http: int, headers: Headers) -> int | None:
        """From trailers, from a head that stands for them, else from HTTP's status; None: there was no response at all."""
        told = self._trailers if self._trailers is not None else first(headers, b"grpc-status")
        if told is not None:
            return int(told) if told.isdigit() and len(told) <= 2 else 2
        return HTTP_TO_GRPC.get(http, 2) if http else None


def _frames(data: bytes, prefix: bytes, left: int) -> tuple[int, tuple[bytes, int]]:
    """How many prefixes end in ``data``, and where it leaves off."""
    count, at, size = 0, 0, len(data)
    while at < size:
        if left:
            step = min(left, size - at)
            left -= step
            at += step
            continue
        taken = data[at : at + 5 - len(prefix)]
        at += len(taken)
        prefix += taken
        if len(prefix) == 5:
            count += 1
            left = int.from_bytes(prefix[1:], "big")
            prefix = b""
    return count, (prefix, left)
