"""A copy of what the API server knows, under versions of our own (room ``store/kubernetes``).

In: objects as reflectors see them. Out: everything of ``api.Store`` that reads. The server's versions order the objects of one
kind only, so the copy counts its own changes; what changes nothing that is kept is no change. A list that is read again tells
the difference to what was known, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from control.resources.kinds import Kind
from control.store.api import Obj
from control.store.base import BaseStore
from control.store.table import Change, Key, Record, thaw

__all__ = ["Mirror"]


class Mirror(BaseStore):
    """Objects given to it are its own from then on."""

    def put(self, kind: Kind, obj: Obj) -> None:
        """``obj`` is so now."""
        change = self._difference(kind, obj)
        if change is not None:
            self._apply([change])
        else:
            self._wake()  # whoever waits for the server's version of the object

    def drop(self, kind: Kind, obj: Obj) -> None:
        """``obj`` is there no longer; as it last was."""
        key = _key(kind, obj)
        if self._table.find(key) is not None:
            self._apply([Change("DELETED", key, self._table.version + 1, _encode(obj))])

    def replace(self, kind: Kind, objs: Iterable[Obj], namespace: str | None = None, name: str | None = None) -> int:
        """These are all there are, in ``namespace``, of this ``name``; returns how many changes that made."""
        changes = 0
        there = set()
        for obj in objs:
            key = _key(kind, obj)
            there.add(key)
            change = self._difference(kind, obj)
            if change is not None:
                self._apply([change])
                changes += 1
        for space, one in self._table.keys(kind, namespace):
            key = Key(kind, space, one)
            record = self._table.find(key)
            if record is not None and key not in there and (name is None or one == name):
                self._apply([Change("DELETED", key, self._table.version + 1, record.body)])
                changes += 1
        self._wake()
        return changes

    def record(self, kind: Kind, namespace: str | None, name: str) -> Record | None:
        return self._table.find(Key(kind, (namespace or "") if kind.namespaced else "", name))

    def _difference(self, kind: Kind, obj: Obj) -> Change | None:
        key, body = _key(kind, obj), _encode(obj)
        known = self._table.find(key)
        if known is None:
            return Change("ADDED", key, self._table.version + 1, body)
        if known.body == body:
            return None
        before = thaw(known.body)
        before["metadata"]["resourceVersion"] = obj["metadata"].get("resourceVersion")
        if before == obj:
            self._table.put(key, Record(known.version, body))
            return None
        return Change("MODIFIED", key, self._table.version + 1, body)


def _key(kind: Kind, obj: Obj) -> Key:
    meta = obj["metadata"]
    return Key(kind, str(meta.get("namespace") or "") if kind.namespaced else "", meta["name"])


def _encode(obj: Obj) -> bytes:
    return msgspec.json.encode(obj)
