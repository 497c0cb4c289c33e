"""One kind of object, listed and then watched for as long as control runs (room ``store/kubernetes``), loud.

In: an ``ApiServer``, where the kind is. Out: calls of a ``Sink``: everything there is (``replace``), then what changes. A watch
that ends is resumed from the last version that it told, bookmarks among them; where the server no longer has that history (410),
everything is read again. Nothing is ever forgotten because it cannot be read: what was known stays until the server says
otherwise. Lists come in pages; one that gets too old half-way is begun again, at last in one piece.

A kind that the cluster does not have (404: its CRD is not installed) counts as empty, is told of once and looked for again. One
that was there and is missing has to be missing three times: an API server that starts does not know its CRDs at first.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from control.resources.kinds import Kind
from control.store.api import Gone, Obj
from control.store.kubernetes.client import ApiServer, Refused, Unreachable
from control.store.kubernetes.slim import slim

__all__ = ["Place", "Reflector", "Sink", "Timing"]

log = logging.getLogger("mesh.control.kubernetes")
CHUNK = 100  # objects decoded before others have a turn
STALE_TRIES = 5  # failures in a row to resume a watch, after which everything is read again
MISSING_TRIES = 3


class Sink(Protocol):
    """Who is told. Objects are its own."""

    def put(self, obj: Obj) -> None: ...
    def drop(self, obj: Obj) -> None: ...
    def replace(self, objs: Iterable[Obj]) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds. ``watch``: a watch lasts between one and two of these; ``grace``: how much longer before it counts as dead."""

    watch: float = 240.0
    grace: float = 15.0
    page: float = 60.0
    first: float = 0.5  # the first pause after a failure
    longest: float = 30.0
    missing: float = 15.0  # until a kind that the cluster does not have is looked for again
    pause: float = 1.0  # between watches that told nothing


@dataclass(frozen=True, kw_only=True)
class Place:
    """``optional``: control can do without it, and does not wait for it. ``metadata``: nothing else of the objects is wanted.

    ``whole``: nothing of them is left out.
    """

    kind: Kind
    namespace: str = ""
    fields: str = ""
    optional: bool = False
    metadata: bool = False
    whole: bool = False
    limit: int = 500

    def path(self, version: str) -> str:
        root = f"/apis/{self.kind.group}/{version}" if self.kind.group else f"/api/{version}"
        return f"{root}/namespaces/{self.namespace}/{self.kind.plural}" if self.namespace else f"{root}/{self.kind.plural}"

    def accept(self, form: str) -> str:
        """``form``: PartialObjectMetadata or its List. A server that does not know them sends all."""
        json = "application/json"
        return f"{json};as={form};g=meta.k8s.io;v=v1,{json}" if self.metadata else json

    @property
    def name(self) -> str:
        where = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.kind.resource}{where}"


class _Listed(msgspec.Struct, frozen=True):
    metadata: dict[str, Any] = {}
    items: list[msgspec.Raw] | None = None


class _Told(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class Reflector:
    """``sleep`` and ``dice`` (0 to 1) are the world's, but for tests. ``synced`` is set once what is there is known."""

    def __init__(
        self,
        api: ApiServer,
        place: Place,
        sink: Sink,
        timing: Timing | None = None,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self.place = place
        self.synced = asyncio.Event()
        self.problem = ""  # why it is not followed now; "" when it is
        self.version = ""  # the server's, of what is known; "": everything has to be read
        self._api = api
        self._sink = sink
        self._timing = timing or Timing()
        self._sleep = sleep
        self._dice = dice
        self._served = 0  # which of the kind's versions the cluster has
        self._failures = 0
        self._missing = 0
        self._absence = False  # the cluster does not have it, and that was told
        self._odd: set[str] = set()  # objects that were no objects, told once

    async def run(self) -> None:
        """Follow for ever."""
        while True:
            pause = 0.0
            try:
                if not self.version:
                    await self._list()
                if not await self._watch():
                    pause = self._timing.pause
            except Gone as gone:
                log.info("%s: %s; reading everything again", self.place.name, gone)
                self.version = ""
                pause = self._fell()
            except Refused as refused:
                pause = self._refused(refused)
            except Unreachable as problem:
                pause = self._told(str(problem), once=True)
            if pause:
                await self._sleep(pause)

    # -- what went wrong -------------------------------------------------------------------------------------------------

    def _fell(self, least: float = 0.0) -> float:
        """Seconds until the next try: twice as long each time, spread so that not everybody comes at once."""
        self._failures += 1
        most = min(self._timing.longest, self._timing.first * 2.0 ** min(self._failures - 1, 16))
        if self._failures >= STALE_TRIES and self.version:
            self.version = ""  # whatever it is that the server does not like about it
        return max(least, most * (0.5 + self._dice() / 2))

    def _told(self, problem: str, least: float = 0.0, once: bool = False) -> float:
        """``once``: it happens to every connection some day, and is a warning only when it happens again at once."""
        if problem != self.problem:
            log.log(logging.INFO if once and not self._failures else logging.WARNING, "%s: %s", self.place.name, problem)
            self.problem = problem
        return self._fell(least)

    def _refused(self, refused: Refused) -> float:
        if refused.code == 404:
            return self._absent()
        if refused.code in (401, 403):
            words = "control may not read it" if refused.code == 403 else "control's own token is not accepted"
            pause = self._told(f"{words} ({refused})", self._timing.missing if self.place.optional else 0.0)
            if self.place.optional:
                self.synced.set()
            return pause
        return self._told(f"the API server answered {refused.code}: {refused}", refused.retry_after)

    def _absent(self) -> float:
        versions = self.place.kind.versions
        self._served += 1
        if self._served < len(versions):
            return 0.0  # an older form of it may be installed
        self._served = 0
        self._missing += 1
        self.version = ""
        pause = self._timing.missing * (0.5 + self._dice() / 2)
        if self._absence or (self.synced.is_set() and self._missing < MISSING_TRIES):
            return pause
        self._absence = True
        self.problem = "not installed in this cluster"
        (log.info if self.place.optional else log.warning)("%s: %s; looked for again", self.place.name, self.problem)
        self._sink.replace(())
        self.synced.set()
        return pause

    def _well(self) -> None:
        if self.problem:
            log.info("%s: followed again", self.place.name)
        self.problem = ""
        self._absence = False
        self._failures = self._missing = 0

    # -- list ------------------------------------------------------------------------------------------------------------

    @property
    def _path(self) -> str:
        return self.place.path(self.place.kind.versions[self._served])

    async def _list(self) -> None:
        for limit in (self.place.limit, self.place.limit, 0):
            try:
                objs, version = await self._pages(limit)
                break
            except Gone:
                if not limit:
                    raise
        self._sink.replace(objs)
        self.version = version
        self._well()
        self.synced.set()

    async def _pages(self, limit: int) -> tuple[list[Obj], str]:
        params = {"fieldSelector": self.place.fields} if self.place.fields else {}
        if limit:
            params["limit"] = str(limit)
        accept = self.place.accept("PartialObjectMetadataList")
        objs: list[Obj] = []
        while True:
            try:
                data = await self._api.read(self._path, params, accept=accept, patience=self._timing.page)
            except Refused as refused:
                if refused.code == 410:
                    raise Gone(str(refused)) from refused
                raise
            try:
                page = msgspec.json.decode(data, type=_Listed)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise Unreachable(f"what the API server sent is no list: {error}") from None
            for at, raw in enumerate(page.items or ()):
                if at % CHUNK == CHUNK - 1:
                    await asyncio.sleep(0)
                obj = self._object(raw)
                if obj is not None:
                    objs.append(obj)
            token = page.metadata.get("continue")
            if not token:
                return objs, str(page.metadata.get("resourceVersion") or "")
            params["continue"] = str(token)

    def _object(self, raw: msgspec.Raw) -> Obj | None:
        """None: it is none. One such object must not cost us the others."""
        try:
            obj = slim(self.place.kind, msgspec.json.decode(raw), whole=self.place.whole)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError, AttributeError) as error:
            self._say_odd(str(error))
            return None
        if obj is None:
            self._say_odd("an object without a name")
        return obj

    def _say_odd(self, what: str) -> None:
        if what not in self._odd and len(self._odd) < 100:
            self._odd.add(what)
            log.warning("%s: one is left out: %s", self.place.name, what)

    # -- watch -----------------------------------------------------------------------------------------------------------

    async def _watch(self) -> bool:
        """Until the server ends it; False when it told nothing. Raises ``Gone`` when its history does not reach back."""
        lasts = self._timing.watch * (1 + self._dice())
        params = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self.version,
            "timeoutSeconds": str(max(1, round(lasts))),
        }
        if self.place.fields:
            params["fieldSelector"] = self.place.fields
        told = False
        ends = max(1, round(lasts)) + self._timing.grace
        accept = self.place.accept("PartialObjectMetadata")
        try:
            async with self._api.lines(self._path, params, accept=accept, ends=ends) as lines:
                self._well()
                async for line in lines:
                    self._see(line)
                    told = True
        except Refused as refused:
            if refused.code == 410:
                raise Gone(str(refused)) from refused
            raise
        return told

    def _see(self, line: bytes) -> None:
        try:
            event = msgspec.json.decode(line, type=_Told)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unreachable(f"what the API server sent is no event: {error}") from None
        if event.type == "ERROR":
            self._failed(bytes(event.object))
        if event.type == "BOOKMARK":
            self._reached(msgspec.json.decode(event.object))
            return
        obj = self._object(event.object)
        if obj is None:
            return
        self._reached(obj)
        if event.type == "DELETED":
            self._sink.drop(obj)
        elif event.type in ("ADDED", "MODIFIED"):
            self._sink.put(obj)

    def _failed(self, body: bytes) -> None:
        refused = Refused.of(0, body)
        status = msgspec.json.decode(body)
        code = status.get("code") if isinstance(status, dict) else 0
        if code == 410 or refused.reason in ("Expired", "Gone"):
            raise Gone(str(refused))
        raise Refused(code if isinstance(code, int) else 500, refused.reason, str(refused))

    def _reached(self, obj: Any) -> None:
        meta = obj.get("metadata") if isinstance(obj, dict) else None
        version = meta.get("resourceVersion") if isinstance(meta, dict) else None
        if isinstance(version, str) and version:
            self.version = version
