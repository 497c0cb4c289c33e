"""Translate, results: what one proxy runs, as named, versioned, shared bytes, and the difference of two such states.

In: model structs. Out: ``Entry``, ``Layer``, ``Snapshot``, ``Change``. A snapshot is a few layers; proxies of equal scope
share the very same layer objects, so comparing by identity is enough to find what changed. The version of a snapshot is the
sum of its entries' digests (order does not matter, a changed entry costs O(1)); equal content has equal versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

import msgspec

from meshproxy.model.base import Model, encode
from meshproxy.model.delivery import KINDS, ORDER, Kind, Resource

__all__ = [
    "DIGEST_MODULUS",
    "Change",
    "Differ",
    "Entry",
    "Key",
    "Layer",
    "Problem",
    "Snapshot",
    "diff",
    "entry",
    "make_layer",
    "remember",
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
    """Some resources that belong together. ``slot`` says which part of a snapshot it is; never mutated once made."""

    __slots__ = ("digest", "entries", "problems", "slot")

    def __init__(self, slot: str, entries: Mapping[Key, Entry], digest: int, problems: tuple[Problem, ...] = ()) -> None:
        self.slot = slot
        self.entries = entries
        self.digest = digest
        self.problems = problems


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


class Differ:
    """Differences remembered by identity of layers: a thousand proxies that share layers share one ``Change``."""

    def __init__(self, limit: int = 256) -> None:
        self._limit = limit
        self._changes: dict[tuple[int, ...], tuple[tuple[Layer, ...], Change]] = {}
        self._parts: dict[tuple[int, int], tuple[Layer | None, Layer | None, dict[Key, Entry], frozenset[Key]]] = {}

    def diff(self, old: Snapshot | None, new: Snapshot) -> Change:
        if old is None:
            return self._everything(new.layers)
        if old is new:
            return _NOTHING
        before = {layer.slot: layer for layer in old.layers}
        pairs = [(before.pop(layer.slot, None), layer) for layer in new.layers]
        pairs = [(a, b) for a, b in pairs if a is not b]
        gone = tuple(before.values())
        if not pairs and not gone:
            return _NOTHING
        key = tuple(id(x) for a, b in pairs for x in (a, b)) + tuple(id(x) for x in gone)
        known = self._changes.get(key)
        if known is not None:
            return known[1]
        setting: dict[Key, Entry] = {}
        removed: set[Key] = {k for layer in gone for k in layer.entries}
        for a, b in pairs:
            new_entries, lost = self._part(a, b)
            setting.update(new_entries)
            removed |= lost
        # A resource may have moved between layers; then it is not gone.
        change = _change(setting, removed - setting.keys() - _held(new, removed), full=False)
        held = tuple(x for a, b in pairs for x in (a, b) if x is not None) + gone
        remember(self._changes, key, (held, change), self._limit)
        return change

    def _everything(self, layers: tuple[Layer, ...]) -> Change:
        key = (0, *(id(layer) for layer in layers))
        known = self._changes.get(key)
        if known is None:
            entries = {k: e for layer in layers for k, e in layer.entries.items()}
            known = (layers, _change(entries, set(), full=True))
            remember(self._changes, key, known, self._limit)
        return known[1]

    def _part(self, old: Layer | None, new: Layer) -> tuple[dict[Key, Entry], frozenset[Key]]:
        key = (id(old), id(new))
        known = self._parts.get(key)
        if known is None:
            before = old.entries if old is not None else {}
            setting = {}
            for name, value in new.entries.items():
                was = before.get(name)
                if was is not value and (was is None or was.version != value.version):
                    setting[name] = value
            lost = frozenset(name for name in before if name not in new.entries)
            known = (old, new, setting, lost)
            remember(self._parts, key, known, self._limit)
        return known[2], known[3]



_NOTHING = Change((), (), False)


def diff(old: Snapshot | None, new: Snapshot) -> Change:
    """What to send to a proxy that runs ``old``; everything (``full``) when it runs nothing known."""
    return Differ().diff(old, new)


def remember(table: dict[K, V], key: K, value: V, limit: int) -> V:
    """Keeps ``value``; when the table is full its older half goes. What is dropped is only computed again."""
    if len(table) >= limit:
        for old in list(table)[: limit // 2]:
            del table[old]
    table[key] = value
    return value


def _held(snapshot: Snapshot, names: Iterable[Key]) -> set[Key]:
    return {name for name in names if name in snapshot.resources}


def _delivery(key: Key) -> tuple[int, str]:
    return (ORDER.index(key[0]), key[1])


def _change(setting: Mapping[Key, Entry], removed: set[Key], *, full: bool) -> Change:
    return Change(
        tuple(
            Resource(kind=key[0], name=key[1], version=setting[key].version, body=msgspec.Raw(setting[key].body))
            for key in sorted(setting, key=_delivery)
        ),
        # Routes go before the clusters that they named.
        tuple(sorted(removed, key=lambda key: (-ORDER.index(key[0]), key[1]))),
        full,
    )
