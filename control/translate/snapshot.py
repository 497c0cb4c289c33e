"""Translate, results: what one proxy runs, as named, versioned, shared bytes, and the difference of two such states.

In: model structs. Out: ``Entry``, ``Layer``, ``Snapshot``, ``Change``. A snapshot is a few layers; proxies of equal scope
share the very same layer objects, so comparing by identity is enough to find what changed. The version of a snapshot is the
sum of its entries' digests (order does not matter, a changed entry costs O(1)); equal content has equal versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, NamedTuple, TypeVar
from weakref import ref

import msgspec

from meshproxy.model.base import Model, encode
from meshproxy.model.delivery import KINDS, ORDER, Kind, Resource

__all__ = [
    "DIGEST_MODULUS",
    "Change",
    "Entry",
    "Key",
    "Layer",
    "Problem",
    "Recent",
    "Snapshot",
    "diff",
    "entry",
    "make_layer",
]

Key = tuple[Kind, str]
K = TypeVar("K")
V = TypeVar("V")
DIGEST_MODULUS = 1 << 64


class Problem(NamedTuple):
    """Something in the resources that translation could not do as written. ``source`` names resource and field."""

    source: str
    message: str

    def __str__(self) -> str:
        return f"{self.source}: {self.message}"


class Entry:
    """One resource: ``body`` its canonical JSON, ``version`` the body's fingerprint, ``digest`` its share of a version."""

    __slots__ = ("body", "digest", "version")

    def __init__(self, kind: Kind, name: str, body: bytes) -> None:
        sha = hashlib.sha256(body).digest()
        self.body = body
        self.version = sha[:8].hex()  # the same as model.base.fingerprint(body)
        self.digest = int.from_bytes(hashlib.sha256(f"{kind}\0{name}\0".encode() + sha).digest()[:8], "big")

    def __repr__(self) -> str:
        return f"Entry({self.version}, {len(self.body)} bytes)"


def entry(kind: Kind, value: Model) -> Entry:
    """The entry of a model struct."""
    return Entry(kind, value.name, encode(value))  # type: ignore[attr-defined]


class Layer:
    """Some resources that belong together. ``slot`` says which part of a snapshot it is; its content never changes.

    What is computed about a layer (its resources in delivery order, differences to older layers) is kept on it and goes with it.
    """

    __slots__ = ("__weakref__", "_changes", "_resources", "digest", "entries", "problems", "slot")

    def __init__(self, slot: str, entries: Mapping[Key, Entry], digest: int, problems: tuple[Problem, ...] = ()) -> None:
        self.slot = slot
        self.entries = entries
        self.digest = digest
        self.problems = problems
        self._resources: tuple[tuple[Resource, ...], ...] | None = None
        self._changes: dict[tuple[int, ...], tuple[tuple[ref[Layer], ...], Change]] = {}

    def resources(self) -> tuple[tuple[Resource, ...], ...]:
        """All resources, one tuple per kind in the order of delivery."""
        if self._resources is None:
            self._resources = _by_kind(self.entries)
        return self._resources


def make_layer(slot: str, entries: Mapping[Key, Entry], problems: Iterable[Problem] = ()) -> Layer:
    return Layer(
        slot,
        entries,
        sum(e.digest for e in entries.values()) % DIGEST_MODULUS,
        tuple(sorted(set(problems))),
    )


class Resources(Mapping[Key, Entry]):
    """All layers as one mapping, kinds in the order of delivery, then by name."""

    __slots__ = ("_layers",)

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        self._layers = layers

    def __getitem__(self, key: Key) -> Entry:
        for layer in self._layers:
            found = layer.entries.get(key)
            if found is not None:
                return found
        raise KeyError(key)

    def __iter__(self) -> Iterator[Key]:
        return iter(sorted((key for layer in self._layers for key in layer.entries), key=_delivery))

    def __len__(self) -> int:
        return sum(len(layer.entries) for layer in self._layers)


class Snapshot:
    """What one proxy is to run. ``resources`` maps (kind, name) to entries; ``problems`` says what could not be done."""

    __slots__ = ("layers", "resources", "version")

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        self.layers = layers
        self.resources: Mapping[Key, Entry] = Resources(layers)
        self.version = f"{sum(layer.digest for layer in layers) % DIGEST_MODULUS:016x}"

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(sorted({problem for layer in self.layers for problem in layer.problems}))

    def get(self, kind: Kind, name: str) -> Model | None:
        """The decoded resource, for readers that are not on a hot path."""
        found = self.resources.get((kind, name))
        return msgspec.json.decode(found.body, type=KINDS[kind]) if found is not None else None


class Change(NamedTuple):
    """From one snapshot to another: resources to set, in delivery order, and names to drop. Two equal states give none."""

    set: tuple[Resource, ...]
    removed: tuple[Key, ...]
    full: bool

    def __bool__(self) -> bool:
        return self.full or bool(self.set or self.removed)


_NOTHING = Change((), (), False)
_CHANGES_KEPT = 64  # per new layer: the number of older states that proxies still run


def diff(old: Snapshot | None, new: Snapshot) -> Change:
    """What to send to a proxy that runs ``old``; everything (``full``) when it runs nothing known.

    Snapshots that share layers share the very same ``Change``, so its encoding may be remembered by identity.
    """
    if old is None:
        return Change(_join([layer.resources() for layer in new.layers]), (), True)
    if old is new:
        return _NOTHING
    before = {layer.slot: layer for layer in old.layers}
    pairs = [(before.pop(layer.slot, _EMPTY), layer) for layer in new.layers]
    pairs = [(a, b) for a, b in pairs if a is not b] + [(layer, _EMPTY) for layer in before.values()]
    if not pairs:
        return _NOTHING
    # Kept on the newest layer, which is new in this round; older ones are only watched, so that they can go.
    keeper = pairs[0][1]
    layers = [layer for pair in pairs for layer in pair]
    key = tuple(map(id, layers))
    known = keeper._changes.get(key)
    if known is not None and all(seen() is layer for seen, layer in zip(known[0], layers, strict=True)):
        return known[1]
    change = _change(pairs, new)
    if keeper is not _EMPTY:
        if len(keeper._changes) >= _CHANGES_KEPT:
            keeper._changes.clear()
        keeper._changes[key] = (tuple(map(ref, layers)), change)
    return change


def _change(pairs: list[tuple[Layer, Layer]], new: Snapshot) -> Change:
    setting: list[tuple[tuple[Resource, ...], ...]] = []
    lost: set[Key] = set()
    for a, b in pairs:
        before = a.entries
        changed = {}
        for key, value in b.entries.items():
            was = before.get(key)
            if was is not value and (was is None or was.version != value.version):
                changed[key] = value
        setting.append(_by_kind(changed))
        # A resource may have moved between layers; then it is not gone.
        lost |= {key for key in before if key not in b.entries and key not in new.resources}
    # Routes go before the clusters that they named.
    removed = tuple(sorted(lost, key=lambda key: (-ORDER.index(key[0]), key[1])))
    resources = _join(setting)
    return Change(resources, removed, False) if resources or removed else _NOTHING


def _by_kind(entries: Mapping[Key, Entry]) -> tuple[tuple[Resource, ...], ...]:
    return tuple(
        tuple(
            Resource(kind=kind, name=name, version=found.version, body=msgspec.Raw(found.body))
            for name, found in sorted(((key[1], value) for key, value in entries.items() if key[0] == kind), key=_name)
        )
        for kind in ORDER
    )


def _name(item: tuple[str, Entry]) -> str:
    return item[0]


def _join(parts: list[tuple[tuple[Resource, ...], ...]]) -> tuple[Resource, ...]:
    return tuple(resource for of_kind in zip(*parts, strict=True) for part in of_kind for resource in part)


class Recent(Generic[K, V]):
    """A table that forgets what was not asked for between two turns. What is forgotten is only computed again."""

    __slots__ = ("_before", "_now")

    def __init__(self) -> None:
        self._now: dict[K, V] = {}
        self._before: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        found = self._now.get(key)
        if found is None and self._before:
            found = self._before.pop(key, None)
            if found is not None:
                self._now[key] = found
        return found

    def put(self, key: K, value: V) -> V:
        self._now[key] = value
        return value

    def turn(self) -> None:
        self._before, self._now = self._now, {}

    def __len__(self) -> int:
        return len(self._now) + len(self._before)


def _delivery(key: Key) -> tuple[int, str]:
    return (ORDER.index(key[0]), key[1])


_EMPTY = Layer("", {}, 0)
