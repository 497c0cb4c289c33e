"""Heads: what the codec makes and the exchange edits. Bytes throughout; names lower case; never decoded on the way.

A ``RequestHead`` leaves the server codec with the hop-by-hop headers already taken out (RFC 9110 section 7.6.1) and with
``host`` moved into ``authority``; a codec puts both back when it writes. ``content-length`` stays in ``headers``.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshproxy.message.token import Token

__all__ = [
    "CHUNKED",
    "UNTIL_CLOSE",
    "Headers",
    "RequestHead",
    "ResponseHead",
    "first",
    "joined",
    "remove",
    "replace",
    "spellings",
]

Headers = list[tuple[bytes, bytes]]

CHUNKED = -1  # ``length`` of a message with chunked framing
UNTIL_CLOSE = -2  # ``length`` of a response that ends with its connection


class RequestHead:
    """One request's head.

    method: token; target: path and query as they will be forwarded (origin form; ``*`` for OPTIONS *; ``host:port`` for
    CONNECT); authority: host[:port] as given (absolute form wins over Host); scheme: b"http"/b"https" when the request named it
    (absolute form), else b""; version: 10, 11 or 20; length: bytes, 0 for none, or ``CHUNKED``; upgrade: the Upgrade
    header's value when the request asks for it with Connection: upgrade, else b""; expect: True for Expect: 100-continue (kept in
    headers too); absolute: the request line was in absolute form; close: the client asked for Connection: close.
    token: the verified end-user token, set by the authn filter.
    te_trailers: the client sent TE: trailers. size: bytes of the head on the wire, set by the codec that read it.
    """

    __slots__ = (
        "absolute",
        "authority",
        "close",
        "expect",
        "headers",
        "length",
        "method",
        "scheme",
        "size",
        "target",
        "te_trailers",
        "token",
        "upgrade",
        "version",
    )

    def __init__(
        self,
        method: bytes,
        target: bytes,
        authority: bytes,
        headers: Headers,
        length: int = 0,
        version: int = 11,
        scheme: bytes = b"",
        absolute: bool = False,
        upgrade: bytes = b"",
        expect: bool = False,
        close: bool = False,
        te_trailers: bool = False,
    ) -> None:
        self.method = method
        self.target = target
        self.authority = authority
        self.headers = headers
        self.length = length
        self.version = version
        self.scheme = scheme
        self.absolute = absolute
        self.upgrade = upgrade
        self.expect = expect
        self.close = close
        self.te_trailers = te_trailers
        self.size = 0
        self.token: Token | None = None

    def copy(self) -> RequestHead:
        """A head of its own for a try, so that one try's edits do not leak into the next."""
        return RequestHead(
            self.method,
            self.target,
            self.authority,
            list(self.headers),
            self.length,
            self.version,
            self.scheme,
            self.absolute,
            self.upgrade,
            self.expect,
            self.close,
            self.te_trailers,
        )

    def __repr__(self) -> str:
        return f"RequestHead({self.method!r}, {self.target!r}, {self.authority!r}, length={self.length})"


class ResponseHead:
    """One response's head. ``length``: bytes, ``CHUNKED`` or ``UNTIL_CLOSE``; ``upgrade`` is set on a 101 only.

    A response without a body by its nature (HEAD, 204, 304) has ``length`` 0 and keeps its content-length header.
    ``close``: the peer said Connection: close (or HTTP/1.0 without keep-alive).
    """

    __slots__ = ("close", "headers", "length", "reason", "size", "status", "upgrade", "version")

    def __init__(
        self,
        status: int,
        headers: Headers,
        length: int = 0,
        reason: bytes = b"",
        version: int = 11,
        upgrade: bytes = b"",
        close: bool = False,
    ) -> None:
        self.status = status
        self.headers = headers
        self.length = length
        self.reason = reason
        self.version = version
        self.upgrade = upgrade
        self.close = close
        self.size = 0

    def __repr__(self) -> str:
        return f"ResponseHead({self.status}, length={self.length})"


def first(headers: Headers, name: bytes) -> bytes | None:
    """The first value of a header (name in lower case), or None."""
    for key, value in headers:
        if key == name:
            return value
    return None


def joined(headers: Headers, name: bytes) -> bytes | None:
    """All values of a header joined by a comma (RFC 9110 section 5.3), or None."""
    values = [value for key, value in headers if key == name]
    return b",".join(values) if values else None


def remove(headers: Headers, name: bytes) -> None:
    """Take every header of that name out, in place."""
    headers[:] = [pair for pair in headers if pair[0] != name]


def spellings(name: bytes) -> frozenset[bytes]:
    """A name, and those that an app takes for the same: CGI and WSGI write ``-`` as ``_`` (RFC 3875 section 4.1.18), so that
    ``x_user`` would stand beside, or for, the ``x-user`` that only a proxy may write. Made at config time.
    """
    parts = name.split(b"-")
    if len(parts) > 8:  # nobody's name; one dash at a time would be too many
        return frozenset((name, b"_".join(parts)))
    joints = product((b"-", b"_"), repeat=len(parts) - 1)
    return frozenset(parts[0] + b"".join(joint + part for joint, part in zip(row, parts[1:], strict=True)) for row in joints)


def replace(headers: Headers, name: bytes, value: bytes) -> None:
    """Set a header: the first one of that name keeps its place, the others go; appended if there was none."""
    for index, pair in enumerate(headers):
        if pair[0] == name:
            headers[index] = (name, value)
            if any(other[0] == name for other in headers[index + 1 :]):
                headers[index + 1 :] = [other for other in headers[index + 1 :] if other[0] != name]
            return
    headers.append((name, value))
