"""Room: policy. Which TLS server of a gateway a client means, by the server name of its ClientHello (Envoy: server_names).

In: ``model.security.ServerTls`` in the order of the configuration. Out: ``ServerNames.choose``: the exact name, else the longest
``*.suffix`` (of any depth), else ``*``. Of two servers with the same name the first has it.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshproxy.model.security import ServerTls

__all__ = ["ServerNames", "closeness"]

_EXACT = 1 << 16  # longer than any name


def closeness(hosts: Iterable[str], name: str) -> int:
    """How closely the best of ``hosts`` (lower case) means a name: exact, then the longest suffix, then ``*``; 0: none does."""
    best = 0
    for host in hosts:
        if host == name:
            return _EXACT
        if host == "*":
            best = max(best, 1)
        elif host.startswith("*.") and name.endswith(host[1:]):
            best = max(best, len(host))
    return best


class ServerNames:
    __slots__ = ("_any", "_exact", "_suffixes")

    def __init__(self, servers: Iterable[ServerTls]) -> None:
        self._exact: dict[str, ServerTls] = {}
        self._suffixes: dict[str, ServerTls] = {}
        self._any: ServerTls | None = None
        for server in servers:
            for host in map(str.lower, server.hosts):
                if host == "*":
                    self._any = self._any or server
                elif host.startswith("*."):
                    self._suffixes.setdefault(host[2:], server)
                else:
                    self._exact.setdefault(host, server)

    def choose(self, name: str) -> ServerTls | None:
        """``name``: lower case; "" when the client named none: then only ``*`` will do."""
        found = self._exact.get(name)
        rest = name
        while found is None and rest:
            _, dot, rest = rest.partition(".")
            if dot:
                found = self._suffixes.get(rest)
        return found or self._any
