"""Room: policy. Where a connection's bytes go: the TCP route that means its server name best, and its original address.

In: ``model.tcp.TcpRoute``s and a resolver from cluster names to live clusters. Out: ``TcpRoutes.choose`` -> the route, whose
``pick`` draws the weighted cluster. Raises ``Invalid`` with the field's path. Semantics: A1; Envoy's tcp_proxy weighted clusters
(a weight of 0 among several is no destination), and its filter chains, of which the closest server name is taken whatever
their order: exact, the longest suffix, ``*``, none. Of equals the first counts.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from itertools import accumulate

from meshproxy.message.ports import ClusterPort
from meshproxy.model.tcp import TcpRoute
from meshproxy.policy.invalid import Invalid
from meshproxy.policy.rbac_match import addresses
from meshproxy.policy.server_names import closeness

__all__ = ["CompiledTcpRoute", "TcpRoutes", "names"]

Resolve = Callable[[str], ClusterPort | None]


def names(hosts: Iterable[str], path: str) -> Callable[[str], bool]:
    """A test for a name, lower case: exact, ``*.suffix`` (of any depth) or ``*``, which stands for no name, too."""
    exact: set[str] = set()
    suffixes: list[str] = []
    anything = False
    for index, host in enumerate(map(str.lower, hosts)):
        if host == "*":
            anything = True
        elif host.startswith("*.") and "*" not in host[1:]:
            suffixes.append(host[1:])
        elif not host or "*" in host:
            raise Invalid(f"{path}[{index}]", f'bad name "{host}": use a host name, "*.suffix" or "*"')
        else:
            exact.add(host)
    if anything:
        return lambda name: True
    ends = tuple(suffixes)
    return lambda name: name in exact or name.endswith(ends)


class CompiledTcpRoute:
    """``choices``: (cluster name, live cluster or None, weight); ``single``: the only one. ``index`` within its chain."""

    __slots__ = ("_edges", "_inside", "_named", "_total", "choices", "hosts", "index", "model", "name", "single")

    def __init__(self, model: TcpRoute, resolve: Resolve, index: int, path: str) -> None:
        self.model = model
        self.index = index
        self.name = model.name
        self.hosts = tuple(map(str.lower, model.sni))
        weighted = model.clusters
        if not weighted:
            raise Invalid(path + ".clusters", "a route must forward to at least one cluster")
        if any(one.weight < 0 for one in weighted):
            raise Invalid(path + ".clusters", "a weight must not be negative")
        used = [one for one in weighted if len(weighted) == 1 or one.weight > 0]
        if not used:
            raise Invalid(path + ".clusters", "total destination weight = 0: give at least one cluster a weight")
        self.choices = tuple((one.cluster, resolve(one.cluster), one.weight) for one in used)
        self.single = self.choices[0] if len(used) == 1 else None
        self._total = sum(one.weight for one in used)
        self._edges = tuple(accumulate(one.weight for one in used))[:-1]
        self._named = names(model.sni, path + ".sni") if model.sni else None
        self._inside = addresses(model.addresses, path + ".addresses") if model.addresses else None

    def holds(self, sni: str, address: str) -> bool:
        """``sni``: "" for what is no TLS or names no server."""
        return (self._named is None or (sni != "" and self._named(sni))) and (self._inside is None or self._inside(address))

    def pick(self, draw: float) -> tuple[str, ClusterPort | None, int]:
        """The destination for a draw from [0, 1): by weight."""
        return self.choices[bisect_right(self._edges, draw * self._total)]


class TcpRoutes:
    """``by_name``: a server name may decide, so that the first bytes are looked at."""

    __slots__ = ("by_name", "routes")

    def __init__(self, models: Iterable[TcpRoute], resolve: Resolve, path: str) -> None:
        self.routes = tuple(CompiledTcpRoute(model, resolve, at, f"{path}.tcp[{at}]") for at, model in enumerate(models))
        self.by_name = any(route.model.sni for route in self.routes)

    def choose(self, sni: str, address: str) -> CompiledTcpRoute | None:
        """None: nobody wants it; the connection is closed."""
        best: CompiledTcpRoute | None = None
        close = -1
        for route in self.routes:
            if route.holds(sni, address):
                if not self.by_name:
                    return route
                found = closeness(route.hosts, sni) if route.hosts else 0
                if found > close:
                    best, close = route, found
        return best
