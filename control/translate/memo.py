"""Translate, memory: what was computed once and may be used again, because it was computed from the very same objects.

In: identities of world objects. Out: the same results as a fresh computation; forgetting any of them changes nothing but time.
Every table keeps the objects that it compares by identity, so that an id is never reused under it, and forgets
what a few worlds in a row did not ask for.
"""

from __future__ import annotations

from collections.abc import Mapping

from control.resources.destination_rule import DestinationRule
from control.translate.cluster import ServiceClusters, Slot, service_clusters, slot_endpoints
from control.translate.destination import MergedRule, lookup, merge
from control.translate.plain import Judges
from control.translate.snapshot import Entry, Recent, entry
from control.world.config import Config
from control.world.endpoints import WorldEndpoint
from control.world.hosts import most_specific
from control.world.mesh import MeshSettings
from control.world.services import MeshService
from meshproxy.model.base import encode
from meshproxy.model.cluster import Locality
from meshproxy.model.route import Route, VirtualHost

__all__ = ["Destinations", "Memo"]

Labels = tuple[tuple[str, str], ...]
_Clusters = tuple[MeshSettings, MeshService, MergedRule | None, ServiceClusters]  # the first three keep their ids
_SlotKey = tuple[str, Labels, Locality | None, Labels]


class Memo:
    """The tables that all scopes share."""

    def __init__(self) -> None:
        self._rules: Recent[tuple[int, ...], MergedRule] = Recent()
        self._clusters: Recent[tuple[int, int, int, str], _Clusters] = Recent()
        self._slots: Recent[_SlotKey, tuple[tuple[WorldEndpoint, ...], Slot, Entry, Judges | None]] = Recent()
        self._hosts: Recent[tuple[int, int, tuple[str, ...]], tuple[MeshService, Route, bytes]] = Recent()

    def turn(self) -> None:
        """Forgets what was not used since the last turn."""
        for table in (self._rules, self._clusters, self._slots, self._hosts):
            table.turn()

    def merged(self, rules: tuple[DestinationRule, ...]) -> MergedRule | None:
        if not rules:
            return None
        key = tuple(id(rule) for rule in rules)
        known = self._rules.get(key)
        if known is None:
            known = self._rules.put(key, merge(rules))
        return known

    def clusters(self, mesh: MeshSettings, service: MeshService, rule: MergedRule | None, secrets: str) -> ServiceClusters:
        """``secrets``: as for ``service_clusters``; "" also where the rule names none, so that all namespaces share these."""
        key = (id(mesh), id(service), id(rule), secrets)
        known = self._clusters.get(key)
        if known is None:
            made = service_clusters(mesh, service, rule, secrets)
            known = self._clusters.put(key, (mesh, service, rule, made))
        return known[3]

    def endpoints(
        self,
        slot: Slot,
        endpoints: tuple[WorldEndpoint, ...],
        place: Locality | None,
        labels: Labels,
        judges: Judges | None = None,
    ) -> Entry:
        """The entry of one cluster's endpoints; ``place`` and ``labels`` only count where failover does."""
        if not slot.failover:
            place, labels = None, ()
        key = (slot.name, slot.labels, place, labels)
        known = self._slots.get(key)
        if known is None or known[0] is not endpoints or known[1] != slot or known[3] != judges:
            made = entry("endpoints", slot_endpoints(slot, endpoints, place, dict(labels), judges))
            if known is not None and known[2].version == made.version:
                made = known[2]
            known = self._slots.put(key, (endpoints, slot, made, judges))
        return known[2]

    def plain_host(self, service: MeshService, port: int, domains: tuple[str, ...], route: Route) -> bytes:
        """The bytes of the virtual host of a service that no VirtualService speaks about: most of a big mesh."""
        key = (id(service), port, domains)
        known = self._hosts.get(key)
        if known is None or known[1] != route:
            made = encode(VirtualHost(name=f"{service.host}:{port}", domains=domains, routes=(route,)))
            known = self._hosts.put(key, (service, route, made))
        return known[2]


class Destinations:
    """Answers about destinations for one client, and the list of what its routes used (``route.Targets``).

    ``gateway``: the client may have the Secrets of its namespace that any rule names.
    """

    def __init__(
        self,
        memo: Memo,
        config: Config,
        namespace: str,
        labels: Mapping[str, str],
        services: Mapping[str, MeshService],
        gateway: bool = False,
    ) -> None:
        self.gateway = gateway
        self.memo, self.config, self.namespace, self.labels, self.services = memo, config, namespace, labels, services
        self.names: dict[str, MeshService] = {}  # cluster -> service, for every cluster that a route names
        self._wildcards = [host for host in services if host.startswith("*")]
        self._known: dict[int, tuple[MergedRule | None, ServiceClusters]] = {}
        self._hashed: set[str] = set()

    def find(self, host: str) -> MeshService | None:
        """The service a full name stands for: exact, else the most specific wildcard."""
        found = self.services.get(host)
        if found is None and self._wildcards:
            pattern = most_specific(self._wildcards, host)
            found = self.services[pattern] if pattern is not None else None
        if found is not None:
            self.clusters(found)
        return found

    def clusters(self, service: MeshService) -> ServiceClusters:
        return self._of(service)[1]

    def hashed(self, cluster: str) -> bool:
        return cluster in self._hashed

    def has_subset(self, service: MeshService, subset: str) -> bool:
        rule = self._of(service)[0]
        return rule is not None and subset in rule.subsets

    def used(self, service: MeshService | None, cluster: str) -> None:
        if service is not None:
            self.names[cluster] = service

    def _of(self, service: MeshService) -> tuple[MergedRule | None, ServiceClusters]:
        known = self._known.get(id(service))
        if known is None:
            rule = self.memo.merged(lookup(self.config, service, self.namespace, self.labels))
            known = (rule, self.memo.clusters(self.config.mesh, service, rule, self._secrets(rule)))
            self._known[id(service)] = known
            self._hashed |= known[1].hashed
        return known

    def _secrets(self, rule: MergedRule | None) -> str:
        """The namespace where the rule's credentials are looked up: a sidecar gets those that its own namespace chose for it."""
        if rule is None or not rule.credentials:
            return ""
        return self.namespace if self.gateway or rule.chosen else ""
