"""The mesh's roots in every namespace (room ``cluster``), where sidecars read whom to believe; the leader's work.

In: the namespaces, the authority. Out: a ConfigMap ``istio-ca-root-cert`` with ``root-cert.pem`` in each, made, put right, and
made again when somebody removes it. A namespace that is on its way out gets none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import Any

from control.cluster.names import ROOTS
from control.cluster.secrets import Changed, Owned
from control.resources.kinds import by_kind
from control.store.api import Gone, Store
from control.store.kubernetes.client import ApiServer, Refused, Unreachable
from control.store.kubernetes.reflector import Place, Reflector, Timing
from control.tasks import cancel, spawn

__all__ = ["KEY", "ROOTS", "Roots"]

log = logging.getLogger("mesh.control.cluster")
KEY = "root-cert.pem"
NAMESPACE, CONFIG_MAP = by_kind("", "Namespace"), by_kind("", "ConfigMap")
TOGETHER = 8
RETRY = 10.0
Obj = dict[str, Any]


class Roots:
    """``roots()``: PEM of whom to believe now."""

    def __init__(self, api: ApiServer, store: Store, roots: Callable[[], bytes], timing: Timing | None = None) -> None:
        self._api = api
        self._store = store
        self._roots = roots
        self._there: dict[str, bytes] = {}  # namespace -> what its ConfigMap says
        self._wake = asyncio.Event()
        place = Place(kind=CONFIG_MAP, fields=f"metadata.name={ROOTS}", optional=True)
        self.watch = Reflector(api, place, self, timing)  # for the leader to run

    def look(self) -> None:
        """Something may have changed."""
        self._wake.set()

    def put(self, obj: Obj) -> None:
        said = (obj.get("data") or {}).get(KEY)
        self._there[obj["metadata"]["namespace"]] = str(said).encode()
        self._wake.set()

    def drop(self, obj: Obj) -> None:
        self._there.pop(obj["metadata"]["namespace"], None)
        self._wake.set()

    def replace(self, objs: Iterable[Obj]) -> int:
        self._there.clear()
        for obj in objs:
            self.put(obj)
        self._wake.set()
        return 0

    async def run(self) -> None:
        """For as long as we lead."""
        namespaces = spawn(self._namespaces(), "roots-namespaces")
        try:
            await self.watch.synced.wait()
            while True:
                self._wake.clear()
                failed = await self.settle()
                try:
                    async with asyncio.timeout(RETRY if failed else None):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            await cancel(namespaces)

    async def settle(self) -> bool:
        """Put right what is not; True: some could not be."""
        roots = self._roots()
        found, _ = await self._store.list(NAMESPACE)
        names = [obj["metadata"]["name"] for obj in found if not obj["metadata"].get("deletionTimestamp")]
        wrong = [name for name in names if self._there.get(name) != roots]
        failed = False
        for at in range(0, len(wrong), TOGETHER):
            done = await asyncio.gather(*(self._write(name, roots) for name in wrong[at : at + TOGETHER]))
            failed = failed or not all(done)
        return failed

    async def _write(self, namespace: str, roots: bytes) -> bool:
        owned = Owned(self._api, "ConfigMap", namespace, ROOTS)
        try:
            await owned.read()
            await owned.write({KEY: roots})
        except (Changed, Unreachable) as problem:
            log.info("%s", problem)
            return False
        except Refused as refused:
            ending = refused.code in (403, 404) and ("terminat" in str(refused) or "not found" in str(refused))
            if not ending:
                log.warning("ConfigMap %s/%s: %s", namespace, ROOTS, refused)
            return ending
        self._there[namespace] = roots
        return True

    async def _namespaces(self) -> None:
        while True:
            _, version = await self._store.list(NAMESPACE)
            self._wake.set()
            try:
                async with aclosing(self._store.watch(version, NAMESPACE)) as events:  # type: ignore[type-var]
                    async for event in events:
                        if event.type == "DELETED":
                            self._there.pop(event.object["metadata"]["name"], None)
                        self._wake.set()
                return  # the store was closed
            except Gone:
                continue
