"""Room 3, codec: is this HTTP/1? Said of a connection's first bytes, before anybody has decided what to do with it. Pure.

In: all bytes so far. Out: ``Guess``. HTTP is a request line and nothing else: a method (any token, so extension methods too), a
space, a target without blanks or controls, a space and ``HTTP/1.`` with a digit (RFC 9112 section 3). HTTP/2's preface is bytes:
nobody here reads it yet.
"""

from __future__ import annotations

import re
from enum import Enum

__all__ = ["Guess", "guess", "preface"]

_MOST = 4096  # bytes of a line that has no end; what looks like a request line until then is one (the codec has its limits)
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}"
_TARGET = rb"[\x21-\x7e\x80-\xff]+"
_LINE = re.compile(_TOKEN + b" " + _TARGET + rb" HTTP/1\.[0-9]\r?\Z")
# The same, cut off anywhere.
_VERSION = rb"(?:H(?:T(?:T(?:P(?:/(?:1(?:\.(?:[0-9]\r?)?)?)?)?)?)?)?)?"
_START = re.compile(_TOKEN + b"(?: (?:" + _TARGET + b"(?: " + _VERSION + rb")?)?)?\Z")


_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 section 3.4


class Guess(Enum):
    MORE = "so far it could be HTTP"
    HTTP = "a request line"
    BYTES = "something else"


def guess(data: bytes | bytearray) -> Guess:
    """The verdict over all bytes so far."""
    if not data:
        return Guess.MORE
    end = data.find(b"\n")
    if end >= 0:
        return Guess.HTTP if _LINE.match(data[:end]) else Guess.BYTES
    if not _START.match(data):
        return Guess.BYTES
    return Guess.HTTP if len(data) > _MOST else Guess.MORE


def preface(data: bytes | bytearray) -> Guess:
    """Where it is HTTP in any case: BYTES for HTTP/2, which nobody here reads yet."""
    size = min(len(data), len(_PREFACE))
    if data[:size] != _PREFACE[:size]:
        return Guess.HTTP
    return Guess.BYTES if size == len(_PREFACE) else Guess.MORE
