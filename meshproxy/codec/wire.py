"""Room 3, codec: what a codec may ask of the connection that carries it. Implemented by listener and upstream (loud)."""

from __future__ import annotations

from typing import Protocol

__all__ = ["CountedReading", "Wire"]


class Wire(Protocol):
    """One byte stream. No call raises, not even after the connection is gone; the codec calls pause/resume on edges only."""

    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...  # graceful: what was written is flushed first
    def abort(self) -> None: ...  # at once; what was written may be lost
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def write_eof(self) -> None: ...  # half-close after what was written


class CountedReading:
    """Reading pauses when the first asks for it and goes on when the last has let go (Envoy: counted read-disable)."""

    __slots__ = ("_holds", "_transport")

    def __init__(self, transport: Wire) -> None:
        self._transport = transport
        self._holds = 0

    def pause_reading(self) -> None:
        self._holds += 1
        if self._holds == 1:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._holds:
            self._holds -= 1
            if self._holds == 0:
                self._transport.resume_reading()

    def free_reading(self) -> None:
        """Those who asked are gone: the connection serves somebody else next."""
        if self._holds:
            self._holds = 0
            self._transport.resume_reading()
