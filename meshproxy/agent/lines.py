"""Bytes in any chunks to whole lines, bounded (room ``agent``). Pure.

In: ``feed(data)``. Out: the lines that are complete, without their newline. Raises ``LineTooLong``. Work is linear in
the bytes fed: nothing is scanned twice, and a long line is joined once.
"""

from __future__ import annotations

__all__ = ["LineBuffer", "LineTooLong"]


class LineTooLong(Exception):
    """A line is longer than the limit; the peer is not one of ours, or is broken."""


class LineBuffer:
    def __init__(self, limit: int) -> None:
        self._limit = limit  # bytes
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def pending(self) -> int:
        """Bytes of the unfinished line."""
        return self._size

    def feed(self, data: bytes) -> list[bytes]:
        *complete, rest = data.split(b"\n")
        lines: list[bytes] = []
        for part in complete:
            self._add(part)
            lines.append(b"".join(self._parts) if len(self._parts) != 1 else self._parts[0])
            self._parts.clear()
            self._size = 0
        if rest:
            self._add(rest)
        return lines

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._limit:
            raise LineTooLong(f"a line of more than {self._limit} bytes")
        self._parts.append(part)
