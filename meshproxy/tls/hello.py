"""Room 2, TLS, quiet: what a client asks for, read from its first bytes before anything is decided (RFC 8446 section 4.1.2).

In: bytes as they come. Out: a ``ClientHello``, or a ``Look``: more bytes are needed, this is not TLS, or it is no ClientHello
that can be understood. Assumes nothing of the peer: every length is checked, and little more than ``_MOST`` bytes are ever
kept. It consumes nothing; the same bytes go to OpenSSL, which has the last word on them.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

__all__ = ["ClientHello", "HelloReader", "Look"]

_MOST = 16 * 1024  # of a ClientHello, and of the records around it (Envoy's TLS inspector: the same)
_RECORD = 5  # type, version, length
_HANDSHAKE, _CLIENT_HELLO = 0x16, 1
_SERVER_NAME, _ALPN, _SUPPORTED_VERSIONS = 0, 16, 43


class Look(Enum):
    MORE = "more bytes are needed"
    NOT_TLS = "the first byte is not TLS's"
    MALFORMED = "no ClientHello"


class ClientHello(NamedTuple):
    """sni: lower case, "" when there is none. versions: as offered, newest way (0x0304 is TLS 1.3)."""

    sni: str
    alpn: tuple[str, ...]
    versions: tuple[int, ...]


class _Short(Exception):
    """A length points past its end."""


class HelloReader:
    """One connection's first bytes. ``data``: all that came. Records are taken apart as they become whole, so that a ClientHello
    in a thousand pieces costs no more than in one.
    """

    __slots__ = ("_at", "_hello", "data")

    def __init__(self) -> None:
        self.data = bytearray()
        self._at = 0  # where the next record begins
        self._hello = bytearray()

    def feed(self, data: bytes) -> ClientHello | Look:
        """The verdict over all bytes so far."""
        held = self.data
        held += data
        if not held:
            return Look.MORE
        if held[0] != _HANDSHAKE:
            return Look.NOT_TLS
        hello = self._hello
        while len(held) - self._at >= _RECORD:
            at = self._at
            size = held[at + 3] << 8 | held[at + 4]
            if held[at] != _HANDSHAKE or held[at + 1] != 3 or not 0 < size <= 16384:
                return Look.MALFORMED
            if len(held) - at - _RECORD < size:
                break
            hello += held[at + _RECORD : at + _RECORD + size]
            self._at = at + _RECORD + size
            if hello[0] != _CLIENT_HELLO:
                return Look.MALFORMED
            if len(hello) >= 4:
                length = int.from_bytes(hello[1:4], "big")
                if length > _MOST:
                    return Look.MALFORMED
                if len(hello) >= 4 + length:
                    try:
                        return _read(bytes(hello[4 : 4 + length]))
                    except _Short:
                        return Look.MALFORMED
        # A wrong record is refused at its head; its length is judged as soon as it is there.
        if len(held) >= 2 and held[1] != 3:
            return Look.MALFORMED
        return Look.MALFORMED if len(held) > _MOST + _MOST // 8 else Look.MORE


def _read(body: bytes) -> ClientHello:
    """The fields of a whole ClientHello, without its handshake header. Raises ``_Short``."""
    if len(body) < 34:
        raise _Short
    legacy = body[0] << 8 | body[1]
    _, at = _vector(body, 34, 1)  # session id
    _, at = _vector(body, at, 2)  # cipher suites
    _, at = _vector(body, at, 1)  # compression
    sni, alpn, versions = "", (), (legacy,)  # type: str, tuple[str, ...], tuple[int, ...]
    if at == len(body):  # extensions may be left out before TLS 1.3
        return ClientHello(sni, alpn, versions)
    extensions, end = _vector(body, at, 2)
    if end != len(body):
        raise _Short
    seen: set[int] = set()
    at = 0
    while at < len(extensions):
        kind = _number(extensions, at, 2)
        value, at = _vector(extensions, at + 2, 2)
        if kind in seen:  # RFC 8446 section 4.2: not twice
            raise _Short
        seen.add(kind)
        if kind == _SERVER_NAME:
            sni = _server_name(value)
        elif kind == _ALPN:
            alpn = _protocols(value)
        elif kind == _SUPPORTED_VERSIONS:
            listed, end = _vector(value, 0, 1)
            if end != len(value) or len(listed) % 2 or not listed:
                raise _Short
            versions = tuple(listed[i] << 8 | listed[i + 1] for i in range(0, len(listed), 2))
    return ClientHello(sni, alpn, versions)


def _server_name(value: bytes) -> str:
    """The only host name (RFC 6066 section 3)."""
    listed, end = _vector(value, 0, 2)
    if end != len(value) or not listed:
        raise _Short
    name, end = _vector(listed, 1, 2)
    if listed[0] != 0 or end != len(listed) or not name:
        raise _Short
    if any(byte <= 0x20 or byte >= 0x7F for byte in name):  # a name of a log line and of a header, too
        raise _Short
    return name.decode("ascii").lower()


def _protocols(value: bytes) -> tuple[str, ...]:
    """RFC 7301 section 3.1."""
    listed, end = _vector(value, 0, 2)
    if end != len(value) or not listed:
        raise _Short
    found: list[str] = []
    at = 0
    while at < len(listed):
        name, at = _vector(listed, at, 1)
        if not name:
            raise _Short
        found.append(name.decode("latin-1"))
    return tuple(found)


def _number(data: bytes, at: int, width: int) -> int:
    if at + width > len(data):
        raise _Short
    return int.from_bytes(data[at : at + width], "big")


def _vector(data: bytes, at: int, width: int) -> tuple[bytes, int]:
    """A vector whose length is written in ``width`` bytes, and where it ends."""
    start = at + width
    end = start + _number(data, at, width)
    if end > len(data):
        raise _Short
    return data[start:end], end
