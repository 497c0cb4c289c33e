"""The objects of a store at one version, and writes to them as values.

Room: control/store; no I/O, no clock. In: a request to create, update or delete. Out: a ``Change``, which a store first makes
durable and then applies. A ``Draft`` lets later writes of one batch see the earlier ones before any of them is durable.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import msgspec

from control.resources.kinds import Kind
from control.store.api import AlreadyExists, Conflict, NotFound, Obj, StoreError

__all__ = ["Change", "Draft", "Key", "Record", "Table", "thaw"]


class Key(NamedTuple):
    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        where = f" in namespace {self.namespace}" if self.namespace else ""
        return f'{self.kind.resource} "{self.name}"{where}'


class Record(NamedTuple):
    """A stored object: its bytes are JSON, never changed in place."""

    version: int
    body: bytes


class Change(NamedTuple):
    """One write. ``body`` is the object after it (DELETED: as it last was, stamped with the deletion's version)."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    key: Key
    version: int
    body: bytes


def thaw(body: bytes) -> Obj:
    """A fresh object, the caller's to change."""
    found: Obj = msgspec.json.decode(body)
    return found


class Table:
    """Objects by kind. ``version`` begins at 1: Kubernetes gives 0 a meaning of its own."""

    def __init__(self, version: int = 1) -> None:
        self.version = version
        self._kinds: dict[Kind, dict[tuple[str, str], Record]] = {}
        self._order: dict[Kind, list[tuple[str, str]]] = {}  # sorted keys, until one comes or goes

    def put(self, key: Key, record: Record) -> None:
        rows = self._kinds.setdefault(key.kind, {})
        if key[1:] not in rows:
            self._order.pop(key.kind, None)
        rows[key.namespace, key.name] = record

    def find(self, key: Key) -> Record | None:
        return self._kinds.get(key.kind, {}).get((key.namespace, key.name))

    def rows(self, kind: Kind, namespace: str | None) -> list[Record]:
        """By (namespace, name); ``namespace`` None or "": all."""
        rows = self._kinds.get(kind, {})
        order = self._order.get(kind)
        if order is None:
            order = self._order[kind] = sorted(rows)
        return [rows[key] for key in order if not namespace or key[0] == namespace]

    def keys(self, kind: Kind, namespace: str | None) -> list[tuple[str, str]]:
        """(namespace, name) of the same rows, in no order."""
        return [key for key in self._kinds.get(kind, {}) if not namespace or key[0] == namespace]

    def kinds(self) -> Iterable[Kind]:
        return [kind for kind, rows in self._kinds.items() if rows]

    def apply(self, change: Change) -> None:
        key = change.key
        if change.type == "DELETED":
            del self._kinds[key.kind][key.namespace, key.name]
            self._order.pop(key.kind, None)
        else:
            self.put(key, Record(change.version, change.body))
        self.version = change.version


class Draft:
    """Writes on top of a table that do not touch it; ``changes`` are in order."""

    def __init__(self, table: Table, now: float) -> None:
        self._table = table
        self._now = now
        self._staged: dict[Key, Record | None] = {}
        self.changes: list[Change] = []
        self.version = table.version

    def create(self, kind: Kind, obj: Obj, uid: str) -> Record:
        key, obj = _named(kind, obj)
        if self._find(key) is not None:
            raise AlreadyExists(f"{key} already exists")
        stamp = datetime.fromtimestamp(self._now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        obj["metadata"] |= {"uid": uid, "creationTimestamp": stamp, "generation": 1}
        return self._write("ADDED", key, obj)

    def update(self, kind: Kind, obj: Obj, expected: int | None) -> Record:
        key, obj = _named(kind, obj)
        old = self._existing(key)
        if expected is None:
            expected = _version_of(obj)
        _expect(key, old, expected)
        before = thaw(old.body)
        uid = obj["metadata"].get("uid")
        if uid and uid != before["metadata"]["uid"]:
            raise Conflict(f"{key}: it has been deleted and created anew (its uid is not {uid})")
        kept = before["metadata"]
        changed = {**before, "metadata": None, "status": None} != {**obj, "metadata": None, "status": None}
        obj["metadata"] |= {
            "uid": kept["uid"],
            "creationTimestamp": kept["creationTimestamp"],
            "generation": kept["generation"] + (1 if changed else 0),
            "resourceVersion": kept["resourceVersion"],
        }
        if obj == before:
            return old
        return self._write("MODIFIED", key, obj)

    def delete(self, kind: Kind, namespace: str | None, name: str, expected: int | None) -> Record:
        key = Key(kind, (namespace or "") if kind.namespaced else "", name)
        old = self._existing(key)
        _expect(key, old, expected)
        self._write("DELETED", key, thaw(old.body))
        self._staged[key] = None
        return old

    def _find(self, key: Key) -> Record | None:
        return self._staged[key] if key in self._staged else self._table.find(key)

    def _existing(self, key: Key) -> Record:
        found = self._find(key)
        if found is None:
            raise NotFound(f"{key} not found")
        return found

    def _write(self, type: Literal["ADDED", "MODIFIED", "DELETED"], key: Key, obj: Obj) -> Record:
        version = self.version + 1
        obj["metadata"]["resourceVersion"] = str(version)
        try:
            body = msgspec.json.encode(obj)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise StoreError(f"{key} cannot be stored: {error}") from None
        self.version = version
        record = Record(version, body)
        self._staged[key] = record
        self.changes.append(Change(type, key, version, body))
        return record


def _named(kind: Kind, obj: Obj) -> tuple[Key, Obj]:
    """The key, and a copy whose metadata may be changed."""
    meta: dict[str, Any] = dict(obj.get("metadata") or {})
    name = meta.get("name")
    if not isinstance(name, str) or not name:
        raise StoreError(f"{kind.resource}: metadata.name is required")
    namespace = ""
    if kind.namespaced:
        namespace = meta["namespace"] = str(meta.get("namespace") or "default")
    else:
        meta.pop("namespace", None)
    return Key(kind, namespace, name), {**obj, "metadata": meta}


def _version_of(obj: Obj) -> int | None:
    given = obj["metadata"].get("resourceVersion")
    if given in (None, ""):
        return None
    try:
        return int(given)
    except (TypeError, ValueError):
        raise Conflict(f"metadata.resourceVersion is not one of ours: {given!r}") from None


def _expect(key: Key, old: Record, expected: int | None) -> None:
    if expected is not None and expected != old.version:
        raise Conflict(f"{key}: the object has been modified; please apply your changes to the latest version and try again")
