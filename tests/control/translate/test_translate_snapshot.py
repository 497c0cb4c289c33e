"""Snapshots and their differences: what is sent, in which order, and what proxies of equal scope share."""

from __future__ import annotations

import gc
import weakref

from world_objects import event, pod, service, slices, to, virtual_service

from control.translate import Translator, diff, proxy_of
from control.translate.snapshot import Entry, Recent, Snapshot, make_layer
from control.world import World
from meshproxy.model.base import fingerprint

OBJS = [
    service("a"),
    service("b"),
    slices("a", [("p", "10.0.0.1")]),
    pod("one", "10.0.0.8", {"x": "1"}),
    pod("two", "10.0.0.9", {"x": "2"}),
]
A = "outbound|8080||a.default.svc.cluster.local"


class Proxies:
    def __init__(self, *objs: dict) -> None:
        self.world, self.translator = World.of([*OBJS, *objs]), Translator()

    def __call__(self, name: str) -> Snapshot:
        proxy = proxy_of(self.world, "default", name)
        assert proxy is not None
        return self.translator.translate(self.world, proxy)

    def apply(self, type_: str, obj: dict) -> None:
        self.world = self.world.apply([event(type_, obj)])


def keys(change) -> list[tuple[str, str]]:
    return [(r.kind, r.name) for r in change.set]


def test_nothing_known_gives_everything_in_order():
    change = diff(None, Proxies()("one"))
    assert change.full
    kinds = [kind for kind, _ in keys(change)]
    assert kinds == sorted(kinds, key=["cluster", "endpoints", "route", "listener"].index)
    assert all(r.version == fingerprint(bytes(r.body)) for r in change.set)


def test_the_same_state_gives_nothing():
    see = Proxies()
    assert not diff(see("one"), see("one"))
    # Also when the objects are others but the content is the same.
    assert not diff(see("one"), Proxies()("one"))
    assert see("one") is see("one")


def test_an_endpoint_change_sends_that_services_endpoints_only_and_is_shared():
    see = Proxies()
    before = see("one"), see("two")
    see.apply("MODIFIED", slices("a", [("p", "10.0.0.1"), ("q", "10.0.0.2")]))
    changes = [diff(old, new) for old, new in zip(before, (see("one"), see("two")), strict=True)]
    assert keys(changes[0]) == [("endpoints", A)]
    assert not changes[0].full and changes[0].removed == ()
    assert changes[0] is changes[1]


def test_a_route_change_sends_that_port_only():
    see = Proxies()
    before = see("one")
    see.apply("ADDED", virtual_service("v", ["a"], [{"route": [to("b")]}]))
    assert keys(diff(before, see("one"))) == [("route", "8080")]


def test_a_change_that_concerns_some_proxies_leaves_the_others_alone():
    see = Proxies()
    before = see("one"), see("two")
    see.apply("ADDED", virtual_service("v", ["a"], [{"match": [{"sourceLabels": {"x": "1"}}], "route": [to("b")]}]))
    assert diff(before[0], see("one"))
    assert not diff(before[1], see("two"))
    assert see("two").version == before[1].version


def test_removed_resources_go_routes_before_clusters():
    see = Proxies(service("c", ports=[{"name": "http", "port": 7070}]))
    before = see("one")
    see.apply("DELETED", service("c"))
    change = diff(before, see("one"))
    assert change.removed == (
        ("route", "7070"),
        ("endpoints", "outbound|7070||c.default.svc.cluster.local"),
        ("cluster", "outbound|7070||c.default.svc.cluster.local"),
    )
    assert keys(change) == [("listener", "outbound")]


def test_a_change_and_its_undoing_cancel_out():
    see = Proxies()
    before = see("one")
    vs = virtual_service("v", ["a"], [{"route": [to("b")]}])
    see.apply("ADDED", vs)
    assert see("one").version != before.version
    see.apply("DELETED", vs)
    assert see("one").version == before.version
    assert not diff(before, see("one"))


def test_the_version_does_not_depend_on_layers():
    entries = {("cluster", n): Entry("cluster", n, n.encode()) for n in "abc"}
    one = Snapshot((make_layer("x", entries),))
    two = Snapshot(tuple(make_layer(k[1], {k: e}) for k, e in entries.items()))
    assert one.version == two.version
    assert list(one.resources) == list(two.resources)
    assert len(one.resources) == 3
    assert not diff(one, Snapshot((make_layer("x", entries),)))
    # All moved to other layers: nothing is gone.
    assert diff(one, two).removed == ()


def test_versions_tell_names_and_kinds_apart():
    bodies = {(k, n, b): Entry(k, n, b).digest for k in ("cluster", "route") for n in ("a", "b") for b in (b"1", b"2")}
    assert len(set(bodies.values())) == len(bodies)


def test_old_layers_are_not_held_by_differences():
    see = Proxies()
    old = see("one")
    gone = weakref.ref(old.layers[1])
    see.apply("MODIFIED", slices("a", [("q", "10.0.0.2")]))
    assert diff(old, see("one"))
    see("two")
    del old
    gc.collect()
    assert gone() is None


def test_recent_forgets_what_is_not_asked_for_between_turns():
    table: Recent[str, int] = Recent()
    table.put("a", 1)
    table.put("b", 2)
    table.turn()
    assert table.get("a") == 1
    table.turn()
    assert (table.get("a"), table.get("b")) == (1, None)
    assert len(table) == 1


def test_a_translator_forgets_proxies_that_are_gone():
    see = Proxies()
    see("two")
    for n in range(40):
        see.apply("MODIFIED", slices("a", [("p", f"10.0.1.{n}")]))
        see("one")
    assert len(see.translator._snapshots) == 1
