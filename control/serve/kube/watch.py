"""Watches: the store's changes as a stream of JSON lines, filtered by selectors.

Room: control/serve/kube; loud. In: the store's event iterator. Out: ADDED, MODIFIED, DELETED, BOOKMARK and ERROR events, in the
words of a Kubernetes API server. An object that stops matching a selector is a DELETED for that watcher.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from control.resources.kinds import Kind
from control.serve.kube import status
from control.serve.kube.params import Params
from control.serve.kube.selectors import Selector
from control.serve.kube.stream import END, QUIET, Ticker
from control.serve.kube.table import Dress, encode, one, table
from control.store.api import Event, Gone, Store

__all__ = ["BOOKMARK_SECONDS", "Watch", "too_old"]

Obj = dict[str, Any]

BOOKMARK_SECONDS = 60.0
DEFAULT_SECONDS = 1800.0  # Kubernetes ends a watch without timeoutSeconds after 30 to 60 minutes
_Key = tuple[str, str]


def too_old(asked: int, current: int) -> status.ApiError:
    return status.expired(f"too old resource version: {asked} ({current})")


def key_of(obj: Obj) -> _Key:
    meta = obj.get("metadata", {})
    return (str(meta.get("namespace") or ""), str(meta.get("name") or ""))


@dataclass
class Watch:
    """One client's watch. ``clock`` gives wall time in seconds, ``loop_time`` the event loop's."""

    store: Store
    kind: Kind
    version: str
    namespace: str | None
    chosen: Callable[[Obj], bool]
    selectors: tuple[Selector, ...]
    asked: Params
    form: Dress
    clock: Callable[[], float]
    stopping: asyncio.Event
    bookmark_every: float = BOOKMARK_SECONDS

    async def lines(self) -> AsyncIterator[bytes]:
        """Ends at the timeout, on stop, or after an ERROR event."""
        try:
            async for line in self._lines():
                yield line
        except Gone as gone:
            yield self._error(status.expired(str(gone) or "too old resource version"))
        except Exception as error:  # the barrier: a stream has no status line left to say it with
            yield self._error(status.internal(error))

    async def _lines(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        ends = loop.time() + (self.asked.timeout or DEFAULT_SECONDS)
        listed, current = await self.store.list(self.kind, self.namespace)
        since = int(self.asked.version or 0)
        if since > current:  # a store that was begun anew: whoever remembers the old one must list again
            raise Gone(f"too old resource version: {since} ({current})")
        matching = {key_of(obj) for obj in listed if self.chosen(obj)}
        if since == 0 or self.asked.initial:
            since = current
            listed.reverse()
            while listed:  # let go of each as it is told: a client may take its time
                obj = listed.pop()
                if self.chosen(obj):
                    yield self._event("ADDED", obj)
                del obj
            if self.asked.initial and self.asked.bookmarks:
                yield self._bookmark(current, initial=True)
        del listed  # or every watch would keep a copy of everything for as long as it lasts
        view = _View(matching, current, all(selector.fixed for selector in self.selectors))
        sampled = since
        async with Ticker(self.store.watch(since, self.kind, self.namespace), self.stopping) as ticker:
            while True:
                left = ends - loop.time()
                if left <= 0:
                    break
                item = await ticker.next(min(left, self.bookmark_every))
                if item is END:
                    break
                if item is QUIET:
                    # What was the store's version one period ago has reached us by now, or never will: safe to resume from.
                    if self.asked.bookmarks and sampled > since:
                        since = sampled
                        yield self._bookmark(since)
                    sampled = (await self.store.list(self.kind, self.namespace))[1]
                    continue
                assert isinstance(item, Event)
                since = max(since, item.version)
                word = view.word(item, self.chosen(item.object))
                if word is not None:
                    yield self._event(word, item.object)
        if self.asked.bookmarks:
            yield self._bookmark(since)

    def _event(self, word: str, obj: Obj) -> bytes:
        shown = one(obj, self.kind, self.version, self.form, self.asked.include, self.clock())
        return encode({"type": word, "object": shown})

    def _bookmark(self, at: int, initial: bool = False) -> bytes:
        meta: Obj = {"resourceVersion": str(at)}
        if initial:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        blank: Obj = {"metadata": {**meta, "creationTimestamp": None}}
        if self.form.shape == "Table":
            shown = table([], self.kind, self.version, self.form, self.asked.include, 0, {"resourceVersion": str(at)})
        else:
            shown = one(blank, self.kind, self.version, self.form, self.asked.include, 0)
        return encode({"type": "BOOKMARK", "object": shown})

    def _error(self, error: status.ApiError) -> bytes:
        return encode({"type": "ERROR", "object": error.body})


class _View:
    """Which objects the watcher believes in. ``before``: matches at version ``at``; earlier than that nothing is known."""

    def __init__(self, before: set[_Key], at: int, fixed: bool) -> None:
        self._before = before
        self._at = at
        self._fixed = fixed
        self._seen: dict[_Key, bool] = {}

    def word(self, event: Event, matches: bool) -> str | None:
        """The event's type for this watcher, or None when it does not concern it."""
        if self._fixed:
            return event.type if matches else None
        key = key_of(event.object)
        unknown = True if event.version <= self._at else key in self._before
        had = self._seen.get(key, unknown)
        if event.type == "DELETED":
            self._seen[key] = False
            return "DELETED" if had else None
        self._seen[key] = matches
        if matches:
            return "MODIFIED" if had and event.type == "MODIFIED" else "ADDED"
        return "DELETED" if had and event.type == "MODIFIED" else None
