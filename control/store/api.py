"""The contract of a store of resources.

Room: control/store. In and out: plain JSON objects in Kubernetes shape. One rising version (``resourceVersion``) for the whole
store: every write takes the next one, so versions order all writes. A write that has returned is durable.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal, NamedTuple, Protocol

from control.resources.kinds import Kind

__all__ = ["AlreadyExists", "Conflict", "Event", "Gone", "NotFound", "Obj", "Store", "StoreError"]

Obj = dict[str, Any]


class StoreError(Exception):
    """A refusal by the store; the message is one line for the user."""


class Conflict(StoreError):
    """The object has changed since the caller read it."""


class NotFound(StoreError):
    """No such object."""


class AlreadyExists(StoreError):
    """An object of that kind, namespace and name is there."""


class Gone(StoreError):
    """The history since the asked version is no longer kept; list again."""


class Event(NamedTuple):
    """One change. ``object`` is the object after it (DELETED: as it last was, with the deletion's resourceVersion)."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    kind: Kind
    object: Obj
    version: int


_ObjList = list[Obj]  # inside the class, list is the method
_Everything = list[tuple[Kind, Obj]]


class Store(Protocol):
    """Objects are the caller's to change: they are copies."""

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Obj:
        """Raises NotFound. ``namespace`` None or "" for kinds that have none."""
        ...

    async def list(self, kind: Kind, namespace: str | None = None) -> tuple[_ObjList, int]:
        """The objects, by (namespace, name), and the store's version at that moment. ``namespace`` None: all."""
        ...

    async def snapshot(self) -> tuple[_Everything, int]:
        """Everything, at one moment."""
        ...

    async def create(self, kind: Kind, obj: Obj) -> Obj:
        """Fills uid, resourceVersion, creationTimestamp, generation 1. Raises AlreadyExists."""
        ...

    async def update(self, kind: Kind, obj: Obj, expected: int | None = None) -> Obj:
        """Replaces the object. Raises NotFound, and Conflict when ``expected`` (or, without it, a non-empty
        metadata.resourceVersion) is not the stored version. ``generation`` rises when anything but metadata and status
        changed. An update that changes nothing returns the stored object, takes no version and sends no event."""
        ...

    async def delete(self, kind: Kind, namespace: str | None, name: str, expected: int | None = None) -> Obj:
        """Returns the object as it was. Raises NotFound, Conflict."""
        ...

    async def version_of(self, kind: Kind, namespace: str | None, name: str, given: int | None = None) -> int:
        """The version of this store at which the object came to be as it is now. ``given``: what its author was told, which is
        as good where versions are the store's own. Raises NotFound."""
        ...

    def watch(self, since: int, kind: Kind | None = None, namespace: str | None = None) -> AsyncIterator[Event]:
        """Every change after version ``since``, in order, each once, for ever. Raises Gone when that history is compacted, also
        for a watcher that falls behind the kept history. Close it with ``aclose()``."""
        ...
