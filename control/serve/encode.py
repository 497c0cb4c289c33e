"""Pushes to lines (room ``serve``): bytes that many proxies get are made once.

In: snapshots of ``control.translate``. Out: ``Encoder.change(old, new)`` -> ``Encoded`` (which kinds, and the shared bytes), and
``push_line`` / ``line``, the pieces of one line of the stream. Only nonce and version differ from proxy to proxy; they stand in
front, and the rest is shared by identity of the change (deltas) or of the snapshot's layers (full pushes). Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from weakref import WeakKeyDictionary

import msgspec

from control.translate import Change, Entry, Layer, Snapshot, diff
from control.translate.snapshot import Key
from meshproxy.model.base import encode
from meshproxy.model.delivery import ORDER, Hello, Kind, Query

__all__ = ["Encoded", "Encoder", "line", "push_line"]

PIECE = 1 << 16  # bytes handed to the transport at once, so that a slow reader costs no more than that
CHANGES = 64  # encoded changes kept; proxies that are to get one get it within moments of each other


class Encoded(NamedTuple):
    """``set`` holds parts of a JSON array's inside, each non-empty; ``removed`` a whole JSON array."""

    kinds: frozenset[Kind]
    full: bool
    set: tuple[bytes, ...]
    removed: bytes

    @property
    def size(self) -> int:
        """Bytes that all proxies share."""
        return sum(map(len, self.set)) + len(self.removed)


class Encoder:
    def __init__(self) -> None:
        self._changes: dict[int, tuple[Change, Encoded]] = {}  # the change is held so that its id stays its own
        self._layers: WeakKeyDictionary[Layer, dict[Kind, bytes]] = WeakKeyDictionary()

    def change(self, old: Snapshot | None, new: Snapshot) -> Encoded:
        """What to send to a proxy that runs ``old`` (None: unknown, so everything)."""
        if old is None:
            layers = [self._layer(layer) for layer in new.layers]
            parts = tuple(parts[kind] for kind in ORDER for parts in layers if kind in parts)
            return Encoded(frozenset(ORDER), True, parts, b"[]")
        change = diff(old, new)
        known = self._changes.get(id(change))
        if known is None:
            inside = encode(change.set)[1:-1]
            kinds = frozenset(resource.kind for resource in change.set) | {kind for kind, _ in change.removed}
            encoded = Encoded(kinds, False, (inside,) if inside else (), encode(change.removed))
            if len(self._changes) >= CHANGES:
                self._changes.clear()
            known = self._changes[id(change)] = (change, encoded)
        return known[1]

    def _layer(self, layer: Layer) -> dict[Kind, bytes]:
        known = self._layers.get(layer)
        if known is None:
            by_kind: dict[Kind, list[bytes]] = {}
            for key in sorted(layer.entries):
                by_kind.setdefault(key[0], []).append(_resource(key, layer.entries[key]))
            known = self._layers[layer] = {kind: b",".join(items) for kind, items in by_kind.items()}
        return known


def _resource(key: Key, entry: Entry) -> bytes:
    """One ``delivery.Resource``; its body is canonical JSON already and goes in as it is."""
    kind, name = key
    return b'{"body":%b,"kind":"%b","name":%b,"version":"%b"}' % (
        entry.body,
        kind.encode(),
        msgspec.json.encode(name),
        entry.version.encode(),
    )


def push_line(nonce: str, version: str, change: Encoded) -> Iterator[bytes]:
    """One ``delivery.Push`` and its newline, in pieces of at most ``PIECE`` bytes."""
    head = b'{"type":"push","nonce":%b,"version":%b,"full":%b,"removed":%b,"set":[' % (
        msgspec.json.encode(nonce),
        msgspec.json.encode(version),
        b"true" if change.full else b"false",
        change.removed,
    )
    if change.size + len(head) < PIECE:
        yield b"".join((head, b",".join(change.set), b"]}\n"))
        return
    for start in range(0, len(head), PIECE):
        yield head[start : start + PIECE]
    for number, part in enumerate(change.set):
        if number:
            yield b","
        view = memoryview(part)
        for start in range(0, len(part), PIECE):
            yield bytes(view[start : start + PIECE])
    yield b"]}\n"


def line(message: Hello | Query) -> bytes:
    return encode(message) + b"\n"
