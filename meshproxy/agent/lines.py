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
        self._rest = bytearray()  # one buffer: a list of the pieces would cost a multiple of a line that comes byte by byte

    @property
    def pending(self) -> int:
        """Bytes of the unfinished line."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        *complete, rest = data.split(b"\n")
        lines: list[bytes] = []
        for part in complete:
            if self._rest:
                self._add(part)
                part = bytes(self._rest)
                self._rest = bytearray()
            elif len(part) > self._limit:
                raise self._too_long()
            lines.append(part)
        if rest:
            self._add(rest)
        return lines

    def _add(self, part: bytes) -> None:
        if len(self._rest) + len(part) > self._limit:
            raise self._too_long()
        self._rest += part

    def _too_long(self) -> LineTooLong:
        return LineTooLong(f"a line of more than {self._limit} bytes")
