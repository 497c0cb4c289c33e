"""Cluster room: which part of a request is its key for consistent hashing, and the cookie that gives it one.

In: a ``model.HashPolicy`` and a request head. Out: a 64-bit key or None, and the value of a ``set-cookie`` header when the client
has to be given one. Source of behaviour: semantics A1; Envoy ``hash_policy.cc``, ``Utility::makeSetCookieValue``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshproxy.message.head import joined
from meshproxy.policy.ring import hash_key

if TYPE_CHECKING:
    from meshproxy.message.head import Headers, RequestHead
    from meshproxy.message.ports import Dice
    from meshproxy.model.cluster import HashPolicy

__all__ = ["Hasher"]


class Hasher:
    """A compiled hash policy."""

    __slots__ = ("_attributes", "_cookie", "_header", "_query", "_source", "_ttl")

    def __init__(self, config: HashPolicy) -> None:
        self._header = config.header.lower().encode() if config.header else None
        self._cookie = config.cookie.encode() if config.cookie else None
        self._query = config.query.encode() if config.query else None
        self._source = config.source_ip
        self._ttl = config.cookie_ttl
        parts = []
        if config.cookie_ttl:
            parts.append(f"; Max-Age={int(config.cookie_ttl)}")  # 0: a session cookie, without Max-Age
        if config.cookie_path:
            parts.append(f"; Path={config.cookie_path}")
        parts += [f"; {name}={value}" if value else f"; {name}" for name, value in config.cookie_attributes]
        parts.append("; HttpOnly")
        self._attributes = "".join(parts).encode()

    def key(self, request: RequestHead, source: str, dice: Dice) -> tuple[int | None, bytes | None]:
        """The request's key, None when it has none (then any host will do), and the ``set-cookie`` value to answer with.

        source: the direct peer's IP address. dice: drawn from only when a cookie has to be made.
        """
        if self._header is not None:
            value = joined(request.headers, self._header)
        elif self._query is not None:
            value = _parameter(request.target, self._query)
        elif self._cookie is not None:
            value = _cookie(request.headers, self._cookie)
            if value is None and self._ttl is not None:
                value = b"%016x" % (int(dice() * 2**32) << 32 | int(dice() * 2**32))
                return hash_key(value), self._cookie + b'="' + value + b'"' + self._attributes
        else:
            value = source.encode() if self._source and source else None
        return (None if value is None else hash_key(value)), None


def _cookie(headers: Headers, name: bytes) -> bytes | None:
    for key, value in headers:
        if key == b"cookie":
            for part in value.split(b";"):
                label, equals, content = part.strip().partition(b"=")
                if equals and label == name:
                    return content.strip(b'"')
    return None


def _parameter(target: bytes, name: bytes) -> bytes | None:
    query = target.partition(b"?")[2].partition(b"#")[0]
    for part in query.split(b"&"):
        label, _, content = part.partition(b"=")
        if label == name:
            return content
    return None
