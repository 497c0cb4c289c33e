"""Cluster room: the live clusters by name, over all configuration snapshots.

In: the whole wanted set, once a snapshot was found good (``commit``). Out: what came, what left, and which endpoints' pools can
be drained. A refused configuration never gets here, so live clusters change only with a snapshot.

A cluster that leaves the configuration is *retired*: requests on older snapshots still use it, and if its name comes back soon,
so does the object with its connections. Its endpoints are given out for closing once nothing has used it for ``LINGER`` seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from meshproxy.cluster.cluster import Cluster

if TYPE_CHECKING:
    from meshproxy.cluster.endpoint import Endpoint
    from meshproxy.model.cluster import Cluster as Config
    from meshproxy.model.cluster import Endpoint as EndpointConfig

__all__ = ["LINGER", "Registry", "Swap", "make_cluster"]

LINGER = 10.0  # seconds that a retired cluster must have been out of use


class Swap(NamedTuple):
    """What a commit did: new clusters, clusters that left, and endpoints that left clusters which stay (drain their pools)."""

    added: list[Cluster]
    retired: list[Cluster]
    gone: list[Endpoint]


def make_cluster(config: Config, endpoints: Iterable[EndpointConfig] = (), workers: int = 1) -> Cluster:
    """A live cluster. Raises ValueError, one line, for what cannot be balanced."""
    return Cluster(config, endpoints, workers)


class Registry(Mapping[str, Cluster]):
    """Name -> live cluster, of the newest configuration. Read it like a mapping."""

    __slots__ = ("_clusters", "_retired", "_workers")

    def __init__(self, workers: int = 1) -> None:
        self._clusters: dict[str, Cluster] = {}
        self._retired: dict[str, tuple[Cluster, float | None]] = {}  # with the time since when it is out of use
        self._workers = workers

    def __getitem__(self, name: str) -> Cluster:
        return self._clusters[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._clusters)

    def __len__(self) -> int:
        return len(self._clusters)

    def commit(self, wanted: Iterable[tuple[Config, Iterable[EndpointConfig]]]) -> Swap:
        """Make the live clusters be exactly these. A cluster of a name that stays, or returns, is updated in place."""
        added: list[Cluster] = []
        gone: list[Endpoint] = []
        clusters: dict[str, Cluster] = {}
        for config, endpoints in wanted:
            cluster = self._clusters.get(config.name)
            if cluster is None and config.name in self._retired:
                cluster = self._retired.pop(config.name)[0]
            if cluster is None:
                cluster = Cluster(config, endpoints, self._workers)
                added.append(cluster)
            else:
                gone += cluster.update(config, endpoints)
            clusters[config.name] = cluster
        retired = [cluster for name, cluster in self._clusters.items() if name not in clusters]
        for cluster in retired:
            cluster.retired = True
            self._retired[cluster.name] = (cluster, None)
        self._clusters = clusters
        return Swap(added, retired, gone)

    def sweep(self, now: float) -> list[Endpoint]:
        """Sweep every cluster, retired ones too; returns endpoints whose pools can be closed."""
        gone: list[Endpoint] = []
        for cluster in self._clusters.values():
            gone += cluster.sweep(now)
        for name, (cluster, since) in list(self._retired.items()):
            gone += cluster.sweep(now)
            if not cluster.unused:
                self._retired[name] = (cluster, None)
            elif since is None:
                self._retired[name] = (cluster, now)
            elif now - since >= LINGER:
                del self._retired[name]
                gone += cluster.members()
        return gone

    def all(self) -> list[Cluster]:
        """Every cluster there is, retired ones last."""
        return [*self._clusters.values(), *(cluster for cluster, _ in self._retired.values())]
