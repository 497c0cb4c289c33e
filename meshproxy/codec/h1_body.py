"""Room 3, codec: the chunked coding, as a counter. Body bytes in, body bytes out; nothing of a body is kept between reads.

A read that lies within one chunk goes through as the same bytes object. Sizes are read strictly (RFC 9112 section 7.1): hex
digits and nothing else, CRLF and nothing else; extensions are checked, bounded and dropped; trailers go by the guard's rules.
Content-Length needs no object: the machines count it down themselves.
"""

from __future__ import annotations

import re

from meshproxy.codec.h1_guard import read_trailers
from meshproxy.codec.h1_rules import WRONG_BYTES, Fault, H1Limits, may_trail
from meshproxy.message.head import Headers
from meshproxy.message.reason import Reason

__all__ = ["ChunkedReader"]

_SIZE, _DATA, _AFTER, _TRAILER = range(4)

_PLAIN_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})\r\n")
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_SIZE_BEGUN = re.compile(rb"[0-9A-Fa-f]{1,16}(?:;[\t\x20-\x7e\x80-\xff]*)?\r?")
_MAX = 1 << 63

_BAD_SIZE: Fault = (Reason.BAD_REQUEST, "http1.invalid_chunk_size")


class ChunkedReader:
    """One chunked body. ``read`` until ``done`` or ``fault``; then ``rest`` is what follows it on the wire.

    trailers: without the fields that may not be trailers. fault: the body is malformed; what ``read`` returned last still counts.
    """

    __slots__ = ("_extensions", "_left", "_limits", "_part", "_state", "_tail", "done", "fault", "rest", "trailers")

    def __init__(self, limits: H1Limits) -> None:
        self._limits = limits
        self._state = _SIZE
        self._left = 0
        self._part = b""  # of a size line, or the CR after a chunk; bounded by limits.chunk_line
        self._tail: bytearray | None = None  # of the trailers; bounded by limits.head
        self._extensions = 0
        self.done = False
        self.fault: Fault | None = None
        self.rest = b""
        self.trailers: Headers = []

    def read(self, data: bytes) -> bytes:
        """Take one read; give the body bytes in it, possibly none."""
        size = len(data)
        left = self._left
        if self._state == _DATA and size < left:  # the usual case for a large chunk: not even a copy
            self._left = left - size
            return data
        if self._part:
            data = self._part + data
            self._part = b""
            size = len(data)
        pieces = []
        position = 0
        state = self._state
        while position < size:
            if state == _SIZE:
                match = _PLAIN_SIZE.match(data, position)
                if match is not None:
                    left = int(match[1], 16)
                    position = match.end()
                else:
                    end = self._strange_size(data, position)
                    if end == 0:
                        break
                    left = self._left
                    position = end
                if left >= _MAX:
                    self.fault = _BAD_SIZE
                    break
                state = _DATA if left else _TRAILER
            elif state == _DATA:
                take = min(left, size - position)
                pieces.append(data[position : position + take])
                position += take
                left -= take
                if left:
                    break
                state = _AFTER
            elif state == _AFTER:
                two = data[position : position + 2]
                if two == b"\r\n":
                    position += 2
                    state = _SIZE
                elif two == b"\r":
                    self._part = two
                    break
                else:
                    self.fault = Reason.BAD_REQUEST, "http1.invalid_chunk_end"
                    break
            else:
                self._trailers(data, position)
                break
        self._state = state
        self._left = left
        if len(pieces) == 1:
            return pieces[0]
        return b"".join(pieces)

    def _strange_size(self, data: bytes, position: int) -> int:
        """A size line with extensions, cut short, or wrong. Sets ``_left``; gives where the line ends, 0 for stop."""
        limit = self._limits.chunk_line
        match = _SIZE_LINE.match(data, position, position + limit)
        if match is not None:
            self._left = int(match[1], 16)
            self._extensions += len(match[2] or b"")
            if self._extensions <= self._limits.chunk_extensions:
                return match.end()
            self.fault = Reason.BAD_REQUEST, "http1.chunk_extensions_too_large"
            return 0
        if len(data) - position < limit and _SIZE_BEGUN.fullmatch(data, position) is not None:
            self._part = data[position:]
        else:
            self.fault = _BAD_SIZE
        return 0

    def _trailers(self, data: bytes, position: int) -> None:
        tail = self._tail
        if tail is None:
            if data[position : position + 2] == b"\r\n":  # the usual case: none
                self.done = True
                self.rest = data[position + 2 :]
                return
            tail = self._tail = bytearray()
        looked = max(0, len(tail) - 3)
        tail += data[position:]
        if tail[:2] == b"\r\n":
            self.done = True
            self.rest = bytes(tail[2:])
            return
        end = tail.find(b"\r\n\r\n", looked)
        if end < 0:
            if WRONG_BYTES.search(tail, looked):
                self.fault = Reason.BAD_REQUEST, "http1.invalid_characters"
            elif len(tail) > self._limits.head:
                self.fault = Reason.HEADERS_TOO_LARGE, "request_headers_too_large"
            return
        fields = read_trailers(bytes(tail[: end + 4]), self._limits)
        if isinstance(fields, tuple):
            self.fault = fields
            return
        self.trailers = [pair for pair in fields if may_trail(pair[0])]
        self.rest = bytes(tail[end + 4 :])
        self.done = True
