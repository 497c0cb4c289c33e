"""Room 3, codec: what a codec may ask of the connection that carries it. Implemented by listener and upstream (loud)."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Wire"]


class Wire(Protocol):
    """One byte stream. No call raises, not even after the connection is gone; the codec calls pause/resume on edges only."""

    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...  # graceful: what was written is flushed first
    def abort(self) -> None: ...  # at once; what was written may be lost
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def write_eof(self) -> None: ...  # half-close after what was written
