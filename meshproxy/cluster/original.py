"""Cluster room: endpoints made on demand for PASSTHROUGH, which dials what the request asked for.

In: request heads. Out: endpoints, the same object for the same authority while it is in use. Their number is bounded: a client
that asks for ever new hosts cannot grow the process. A host name is left to the dialer to resolve.

Source of behaviour: semantics A1 (ALLOW_ANY); Envoy ``original_dst_cluster.cc``, which also drops unused hosts after a while.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from meshproxy.cluster.endpoint import Endpoint

if TYPE_CHECKING:
    from meshproxy.message.head import RequestHead

__all__ = ["LIMIT", "Originals", "is_address", "split_authority"]

LIMIT = 4096  # endpoints at a time; past it a new host gets 503 UH until another has been idle
IDLE = 60.0  # seconds


def split_authority(authority: bytes, default_port: int) -> tuple[str, int] | None:
    """("host", port) of an authority; the host without brackets, lower case. None when it names no host or a bad port."""
    try:
        text = authority.decode("ascii").lower()
    except UnicodeDecodeError:
        return None
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return None
        number = rest[1:]
    else:
        host, _, number = text.partition(":")
    if not host:
        return None
    if not number:
        return host, default_port
    if not number.isdecimal() or len(number) > 5 or not 0 < int(number) < 65536:
        return None
    return host, int(number)


def is_address(authority: bytes) -> bool:
    """Is the authority's host an IP address?"""
    found = split_authority(authority, 80)
    if found is None:
        return False
    try:
        ip_address(found[0])
    except ValueError:
        return False
    return True


class Originals:
    """The on-demand endpoints of one cluster, by (host, port)."""

    __slots__ = ("_dropped", "_found")

    def __init__(self) -> None:
        self._found: dict[tuple[str, int], Endpoint] = {}
        self._dropped: list[Endpoint] = []

    def find(self, request: RequestHead, now: float) -> Endpoint | None:
        """The endpoint for the request's authority; None when it names none, or too many others are in use."""
        key = split_authority(request.authority, 443 if request.scheme == b"https" else 80)
        return None if key is None else self.at(key, now)

    def at(self, key: tuple[str, int], now: float) -> Endpoint | None:
        """The endpoint of an address and port; None when too many others are in use."""
        endpoint = self._found.get(key)
        if endpoint is None:
            if len(self._found) >= LIMIT and not self._make_room():
                return None
            endpoint = self._found[key] = Endpoint(*key)
        endpoint.last_used = now
        return endpoint

    def _make_room(self) -> bool:
        idle = [endpoint for endpoint in self._found.values() if not endpoint.active]
        if not idle:
            return False
        idle.sort(key=lambda endpoint: endpoint.last_used)
        for endpoint in idle[: LIMIT // 8]:  # in batches, so that a flood of hosts does not sort once per request
            self._drop(endpoint)
        return True

    def _drop(self, endpoint: Endpoint) -> None:
        del self._found[endpoint.key]
        endpoint.live = False
        self._dropped.append(endpoint)

    def sweep(self, now: float) -> list[Endpoint]:
        """Endpoints out of use since ``IDLE`` seconds, or dropped to make room since the last sweep."""
        if self._found:
            for endpoint in [e for e in self._found.values() if not e.active and now - e.last_used >= IDLE]:
                self._drop(endpoint)
        dropped, self._dropped = self._dropped, []
        return dropped

    def all(self) -> tuple[Endpoint, ...]:
        return tuple(self._found.values())
