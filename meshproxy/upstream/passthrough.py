"""Room 6, quiet: endpoints for what no configuration names (Istio: PassthroughCluster). In: an authority. Out: a live endpoint.

The endpoint's name is resolved when it is dialed. Bounded: the endpoint unused for longest goes first, its idle connections with it.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshproxy.cluster.endpoint import Endpoint
from meshproxy.message.head import RequestHead
from meshproxy.model import cluster as model

__all__ = ["Passthrough", "split_authority"]

_MOST = 1024


def split_authority(authority: bytes, default: int) -> tuple[str, int] | None:
    """``host[:port]`` or ``[v6][:port]``; None when it is neither."""
    host, colon, port = authority.rpartition(b":")
    if not colon or authority.endswith(b"]"):
        host, port = authority, b""
    if host.startswith(b"["):
        host = host[1:-1]
    elif b":" in host:
        return None
    if port and not (port.isdigit() and 0 < int(port) < 65536):
        return None
    try:
        name = host.decode("ascii").lower()
    except UnicodeDecodeError:
        return None
    return (name, int(port or default)) if name else None


class Passthrough:
    """Endpoints by authority, least recently used first."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._known: dict[bytes, Endpoint] = {}

    def endpoint(self, request: RequestHead) -> Endpoint | None:
        """The live endpoint of the request's authority, or None when that names none."""
        authority = request.authority
        found = self._known.pop(authority, None)
        if found is None:
            parsed = split_authority(authority, 443 if request.scheme == b"https" else 80)
            if parsed is None:
                return None
            found = Endpoint(model.Endpoint(address=parsed[0], port=parsed[1]))
            if len(self._known) >= self._most:
                oldest = self._known.pop(next(iter(self._known)))
                if oldest.pool is not None:
                    oldest.pool.retire()
        self._known[authority] = found
        return found

    def endpoints(self) -> Iterable[Endpoint]:
        return self._known.values()
