"""Translate, the whole: a world and a proxy in, what the proxy is to run out. Pure: the same two give the same bytes.

A snapshot has three layers: configuration (shared by all proxies of equal scope), endpoints (shared likewise; an endpoint's
change replaces one entry of it) and inbound (the pod's own); a proxy that uses Secrets has them in one more of its own, and what
it reports is in one more that it shares with workloads of which the same is asked.
``Translator`` remembers layers by the identity of the world objects that they were made from; a fresh one gives the same
snapshots, only slower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from control.resources.sidecar import Sidecar
from control.translate.cluster import Slot
from control.translate.credentials import Need, Objects, secret_layer, sources_of
from control.translate.gateway import gateway_entries
from control.translate.inbound import WORKLOAD, inbound_layer
from control.translate.memo import Labels, Memo
from control.translate.outbound import Plan, Unfinished, outbound_plan
from control.translate.plain import PlainPorts
from control.translate.proxy import ProxyId
from control.translate.scope import outbound_scope, relevant_labels, sidecar_for
from control.translate.security import SecurityMemo, WorkloadSecurity
from control.translate.snapshot import DIGEST_MODULUS, Entry, Key, Layer, Problem, Recent, Snapshot, make_layer
from control.translate.telemetry import TelemetryMemo
from control.world import World, WorldEndpoint
from control.world.config import Config, SelectorIndex
from control.world.services import EndpointsKey
from meshproxy.model.cluster import Locality

__all__ = ["Translator", "translate"]

_ScopeKey = tuple[str, Labels, str]
_Endpoints = tuple[WorldEndpoint, ...]
_InboundSources = tuple[SelectorIndex | None, WorkloadSecurity, Sidecar | None]
_NONE: _Endpoints = ()
_TURN = 16


def translate(world: World, proxy: ProxyId) -> Snapshot:
    """What ``proxy`` is to run in ``world``. For many proxies keep one ``Translator``."""
    return Translator().translate(world, proxy)


class _EndpointLayer:
    """The endpoints of a plan's slots, and what they were made from."""

    __slots__ = ("layer", "made_from", "plain", "slots", "world_endpoints")

    def __init__(
        self, slots: tuple[Slot, ...], world_endpoints: object, made_from: list[_Endpoints], layer: Layer, plain: object
    ) -> None:
        self.slots, self.world_endpoints, self.made_from, self.layer = slots, world_endpoints, made_from, layer
        self.plain = plain


class Translator:
    """Translates for many proxies and many worlds in a row. What no proxy asked for during ``_TURN`` worlds is forgotten.

    ``wall``: the time of day in Unix seconds, by which certificates of Secrets have expired; without it none has.
    """

    def __init__(self, wall: Callable[[], float] = lambda: 0.0) -> None:
        self._wall = wall
        self._memo = Memo()
        self._world: World | None = None
        self._worlds = self._configs = 0
        self._plain = PlainPorts({}, "")
        self._plans: Recent[_ScopeKey, tuple[Config, Plan]] = Recent()
        self._gateways: Recent[ProxyId, tuple[Config, Plan]] = Recent()
        self._endpoints: Recent[tuple[int, Locality | None, Labels], _EndpointLayer] = Recent()
        self._listeners: Recent[int, tuple[Unfinished, tuple[_Endpoints, ...], Layer]] = Recent()
        self._security = SecurityMemo()
        self._telemetry = TelemetryMemo()
        self._inbound: Recent[tuple[str, str], tuple[ProxyId, _InboundSources, Layer]] = Recent()
        self._secrets: Recent[tuple[str, str], tuple[tuple[Need, ...], Objects, float, Layer]] = Recent()
        self._snapshots: Recent[tuple[str, str], Snapshot] = Recent()

    def translate(self, world: World, proxy: ProxyId) -> Snapshot:
        if world is not self._world:
            self._begin(world)
        config = world.config
        labels = relevant_labels(config, proxy.labels)
        place = proxy.locality if config.uses_locality else None
        if proxy.role == "gateway":
            plan = self._gateway_plan(config, proxy, labels)
            layers: tuple[Layer, ...] = (plan.layer, self._endpoint_layer(world, plan, place, labels))
        else:
            plan = self._outbound_plan(config, proxy.namespace, labels, proxy.capture)
            layers = (plan.layer, self._endpoint_layer(world, plan, place, labels), self._inbound_layer(config, proxy))
            if plan.listener is not None:
                layers += (self._listener_layer(world, plan.listener),)
        if plan.needs:
            layers += (self._secret_layer(world, plan.needs, proxy),)
        reports = self._telemetry.of(config, proxy)
        if reports.entries or reports.problems:
            layers += (reports,)
        name = (proxy.namespace, proxy.pod)
        known = self._snapshots.get(name)
        if known is not None and len(known.layers) == len(layers) and all(map(_same, known.layers, layers)):
            return known
        return self._snapshots.put(name, Snapshot(layers))

    def _begin(self, world: World) -> None:
        if self._world is None or world.config is not self._world.config:
            self._configs += 1
            if self._configs % _TURN == 0:
                self._memo.turn()
                self._security.turn()
                self._telemetry.turn()
        if self._world is None or world.config.security is not self._world.config.security:
            self._plain = PlainPorts(world.config.security, world.mesh.root_namespace)
        self._world = world
        self._worlds += 1
        if self._worlds % _TURN == 0:
            for table in (
                self._plans,
                self._gateways,
                self._endpoints,
                self._listeners,
                self._inbound,
                self._secrets,
                self._snapshots,
            ):
                table.turn()

    def _outbound_plan(self, config: Config, namespace: str, labels: Labels, capture: str = "") -> Plan:
        key = (namespace, labels, capture)
        known = self._plans.get(key)
        if known is not None and known[0].routing is config.routing:  # policies are another layer's
            return known[1]
        plan = outbound_plan(outbound_scope(config, namespace, dict(labels)), self._memo, capture)
        if known is not None:
            plan = _keep_equal(known[1], plan)
        return self._plans.put(key, (config, plan))[1]

    def _gateway_plan(self, config: Config, proxy: ProxyId, labels: Labels) -> Plan:
        known = self._gateways.get(proxy)
        if known is not None and known[0] is config:
            return known[1]
        security = self._security.of(config, proxy)
        problems: list[Problem] = [*proxy.problems, *security.problems]
        gated = gateway_entries(config, proxy, self._memo, problems, security.clusters)
        entries, slots, needs = gated.entries, gated.slots, gated.needs
        if security.entry is not None:
            entries[WORKLOAD] = security.entry
        if proxy.outbound:
            also = self._outbound_plan(config, proxy.namespace, labels)
            have = {slot.name for slot in slots}
            entries = {**also.layer.entries, **entries}
            slots += tuple(slot for slot in also.slots if slot.name not in have)
            problems += also.layer.problems
            needs = tuple(dict.fromkeys((*needs, *also.needs)))
        plan = Plan(make_layer("outbound", entries, problems), slots, needs)
        if known is not None:
            plan = _keep_equal(known[1], plan)
        return self._gateways.put(proxy, (config, plan))[1]

    def _endpoint_layer(self, world: World, plan: Plan, place: Locality | None, labels: Labels) -> Layer:
        key = (id(plan.slots), place, labels)
        known = self._endpoints.get(key)
        plain = self._plain
        if known is not None and known.world_endpoints is world.endpoints and known.plain is plain.marker:
            return known.layer
        table, memo = world.endpoints, self._memo
        if known is None:
            made_from = [table.get(slot.service, _NONE) for slot in plan.slots]
            entries: dict[Key, Entry] = {
                ("endpoints", slot.name): memo.endpoints(slot, found, place, labels, plain.judges(slot.service[1]))
                for slot, found in zip(plan.slots, made_from, strict=True)
            }
            layer = make_layer("endpoints", entries)
        else:
            made_from, layer = self._follow(known, table, place, labels)
        return self._endpoints.put(key, _EndpointLayer(plan.slots, table, made_from, layer, plain.marker)).layer

    def _follow(
        self, known: _EndpointLayer, table: Mapping[EndpointsKey, _Endpoints], place: Locality | None, labels: Labels
    ) -> tuple[list[_Endpoints], Layer]:
        """The layer after a change of endpoints or of plain ports: the old one with what has changed replaced."""
        plain = self._plain
        same = known.plain is plain.marker
        made_from = known.made_from
        entries: dict[Key, Entry] | None = None
        digest = known.layer.digest
        get, before = table.get, known.made_from
        for index, slot in enumerate(known.slots):
            found = get(slot.service, _NONE)
            if same and found is before[index]:
                continue
            if made_from is before:
                made_from = list(before)
            made_from[index] = found
            key: Key = ("endpoints", slot.name)
            old = known.layer.entries[key]
            new = self._memo.endpoints(slot, found, place, labels, plain.judges(slot.service[1]))
            if new.version != old.version:
                if entries is None:
                    entries = dict(known.layer.entries)
                entries[key] = new
                digest += new.digest - old.digest
        return made_from, known.layer if entries is None else Layer("endpoints", entries, digest % DIGEST_MODULUS)

    def _listener_layer(self, world: World, unfinished: Unfinished) -> Layer:
        """The outbound listener where it depends on endpoints."""
        found = tuple(world.endpoints.get(service, _NONE) for service in unfinished.services)
        known = self._listeners.get(id(unfinished))
        if known is not None and all(map(_same, known[1], found)):
            return known[2]
        layer = make_layer("listener", {("listener", "outbound"): unfinished.finished(world.endpoints)})
        if known is not None and _equal(known[2], layer):
            layer = known[2]
        return self._listeners.put(id(unfinished), (unfinished, found, layer))[2]

    def _inbound_layer(self, config: Config, proxy: ProxyId) -> Layer:
        name = (proxy.namespace, proxy.pod)
        selectors, security = config.selectors.get(proxy.namespace), self._security.of(config, proxy)
        sidecar = sidecar_for(config, proxy.namespace, dict(proxy.labels)) if config.sidecars else None
        made_from = (selectors, security, sidecar)
        known = self._inbound.get(name)
        if known is not None and all(map(_same, known[1], made_from)) and known[0] == proxy:
            return known[2]
        layer = inbound_layer(selectors, security, proxy, sidecar)
        if known is not None and _equal(known[2], layer):
            layer = known[2]
        return self._inbound.put(name, (proxy, made_from, layer))[2]

    def _secret_layer(self, world: World, needs: tuple[Need, ...], proxy: ProxyId) -> Layer:
        """The proxy's own: what is secret stands in no layer that another proxy has."""
        name = (proxy.namespace, proxy.pod)
        objects, wall = sources_of(world, needs), self._wall()
        known = self._secrets.get(name)
        if known is not None and known[0] == needs and all(map(_same, known[1], objects)) and (not known[2] or wall < known[2]):
            return known[3]
        layer, until = secret_layer(needs, objects, wall)
        if known is not None and _equal(known[3], layer):
            layer = known[3]
        return self._secrets.put(name, (needs, objects, until, layer))[3]


def _same(one: object, other: object) -> bool:
    return one is other


def _equal(one: Layer, other: Layer) -> bool:
    return one.digest == other.digest and one.entries.keys() == other.entries.keys() and one.problems == other.problems


def _keep_equal(old: Plan, new: Plan) -> Plan:
    """The old objects where nothing changed, so that whoever compares by identity sees no change."""
    layer = old.layer if _equal(old.layer, new.layer) else new.layer
    listener = old.listener if old.listener == new.listener else new.listener
    if old.slots == new.slots:
        if layer is old.layer and listener is old.listener and old.needs == new.needs:
            return old
        return Plan(layer, old.slots, new.needs, listener)
    return Plan(layer, new.slots, new.needs, listener)
