"""The authority and what was revoked, between the cluster and this replica (room ``cluster``).

In: Secrets and a ConfigMap of the root namespace, as they are and as they change. Out: ``Keeping``: opens them (or waits until
the leader has made them), writes this replica's steps under optimistic concurrency, takes over what other replicas wrote. Writes
are asked for by the authority's own thread and done on the loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar

from control.ca.issuer import Issuer
from control.ca.material import Expired
from control.ca.service import CertificateAuthority
from control.cluster.authority import CA_SECRET, CACERTS, ClusterAuthority, begin, given, pack, unpack
from control.cluster.revocations import REVOCATIONS, ClusterLedger, Edit, Revoked, read, written
from control.cluster.secrets import Changed, Owned
from control.files import FileProblem
from control.resources.kinds import by_kind
from control.store.kubernetes.client import ApiServer, Refused, Unreachable
from control.store.kubernetes.reflector import Place, Reflector, Timing

__all__ = ["Keeping"]

log = logging.getLogger("mesh.control.cluster")
SECRET, CONFIG_MAP = by_kind("", "Secret"), by_kind("", "ConfigMap")
LOOK = 1.0  # seconds between looks for an authority that somebody else is to make
PATIENCE = 20.0  # seconds of the authority's thread for one write
TRIES = 8
T = TypeVar("T")
Obj = dict[str, Any]


class Keeping:
    """``scratch``: a private directory, in memory if possible: OpenSSL's loader wants files. ``rotate``: look at rotations."""

    def __init__(
        self, api: ApiServer, namespace: str, scratch: Path, wall: Callable[[], float] = time.time, timing: Timing | None = None
    ) -> None:
        self._api = api
        self._scratch = scratch
        self._wall = wall
        self._namespace = namespace
        self._secret = Owned(api, "Secret", namespace, CA_SECRET, "istio.io/ca-root")
        self._own = Owned(api, "Secret", namespace, CACERTS)
        self._revoked = Owned(api, "ConfigMap", namespace, REVOCATIONS)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._known = Revoked()
        self._news: dict[str, Obj] = {}
        self._arrived = asyncio.Event()
        self._refused: bytes = b""  # of a user's authority that cannot be used, told once
        self.rotate: Callable[[], None] = lambda: None
        self.leading: Callable[[], bool] = lambda: False
        self.watches = [
            Reflector(
                api, Place(kind=kind, namespace=namespace, fields=f"metadata.name={name}", whole=True), _Box(self, name), timing
            )
            for kind, name in ((SECRET, CA_SECRET), (SECRET, CACERTS), (CONFIG_MAP, REVOCATIONS))
        ]

    # -- opening ---------------------------------------------------------------------------------------------------------

    async def make(self) -> None:
        """The leader's: see to it that there is an authority. Raises ``FileProblem`` when the user's own cannot be used."""
        while True:
            try:
                data = await self._secret.read()
                own = await self._own.read()
                if data is not None and not self._replaceable(data, own):
                    return
                state, issuers = begin(self._wall(), given(own, self._wall(), self._scratch) if own is not None else None)
                await self._secret.write(pack(state, issuers))
                log.info("the mesh has an authority: Secret %s/%s", self._namespace, CA_SECRET)
                return
            except Changed:
                continue  # somebody was quicker
            except (Refused, Unreachable) as problem:
                log.warning("Secret %s/%s: %s; trying again", self._namespace, CA_SECRET, problem)
                await asyncio.sleep(LOOK)

    def _replaceable(self, data: dict[str, bytes], own: dict[str, bytes] | None) -> bool:
        """An authority that has expired cannot be rotated any more; the user's own takes its place."""
        if own is None:
            return False
        try:
            unpack(data, self._wall(), self._scratch)
        except Expired:
            return True
        except FileProblem:
            return False
        return False

    async def open(self, ledger_file: Path) -> tuple[ClusterAuthority, ClusterLedger]:
        """Waits until there is an authority. Raises ``FileProblem`` when it cannot be used."""
        self._loop = asyncio.get_running_loop()
        said = ""
        while True:
            try:
                data = await self._secret.read()
                if data is not None:
                    revoked = self._known = read(await self._revoked.read())
                    break
                problem = f"Secret {self._namespace}/{CA_SECRET} is not there yet: the leader makes it"
            except (Refused, Unreachable) as error:
                problem = str(error)
            if problem != said:
                said = problem
                log.warning("waiting for the mesh's authority: %s", problem)
            await asyncio.sleep(LOOK)
        state, issuers = unpack(data, self._wall(), self._scratch)
        ledger = ClusterLedger(ledger_file, self._edit)
        ledger.adopt(revoked)
        return ClusterAuthority(state, issuers, self._scratch, self._save), ledger

    # -- writing, from the authority's thread ----------------------------------------------------------------------------

    def _save(self, data: dict[str, bytes]) -> None:
        self._wait(self._write_secret(data))

    async def _write_secret(self, data: dict[str, bytes]) -> None:
        try:
            await self._secret.write(data)
        except Changed as changed:
            await self._secret.read()
            raise FileProblem(f"Secret {CA_SECRET}: another replica has changed it meanwhile: try again") from changed

    def _edit(self, edit: Edit) -> Revoked:
        return self._wait(self._write_revoked(edit))

    async def _write_revoked(self, edit: Edit) -> Revoked:
        for _ in range(TRIES):
            data = await self._revoked.read()
            # Where somebody removed the ConfigMap, what it said still holds, and is written again.
            now = edit(read(data) if data is not None else self._known)
            try:
                await self._revoked.write(written(now))
            except Changed:
                continue
            self._known = now
            return now
        raise FileProblem(f"ConfigMap {REVOCATIONS}: others change it all the time: try again")

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(PATIENCE)
        except TimeoutError as error:
            future.cancel()
            raise FileProblem("the cluster's API server did not confirm the change in time") from error
        except (Refused, Unreachable) as error:
            raise FileProblem(f"the change was not made: {error}") from error

    # -- following -------------------------------------------------------------------------------------------------------

    def arrived(self, name: str, obj: Obj) -> None:
        self._news[name] = obj
        self._arrived.set()

    async def follow(self, ca: CertificateAuthority, authority: ClusterAuthority, ledger: ClusterLedger) -> None:
        """Take over what is written elsewhere, for ever."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            news, self._news = self._news, {}
            for name, obj in news.items():
                try:
                    await self._take(name, obj, ca, authority, ledger)
                except FileProblem as problem:  # what holds goes on holding
                    log.error("%s", problem)

    async def _take(
        self, name: str, obj: Obj, ca: CertificateAuthority, authority: ClusterAuthority, ledger: ClusterLedger
    ) -> None:
        now = self._wall()
        if name == CA_SECRET:
            if _older(obj, self._secret.version):
                return
            state, issuers = unpack(self._secret.take(obj), now, self._scratch)
            if await ca.off_loop(lambda: authority.adopt(state, issuers)):
                log.info("the mesh's authority was changed by another replica")
                await ca.step(lambda same: None)
            self.rotate()
        elif name == REVOCATIONS:
            if _older(obj, self._revoked.version):
                return
            revoked = self._known = read(self._revoked.take(obj))
            if await ca.off_loop(lambda: ledger.adopt(revoked)):
                await ca.step(lambda same: None)
        else:
            await self.plug_in(ca, authority, self._own.take(obj))

    async def plug_in(self, ca: CertificateAuthority, authority: ClusterAuthority, data: dict[str, bytes] | None = None) -> None:
        """The leader's: rotate to the user's own authority, where it is another one."""
        if not self.leading() or authority.rotating is not None:
            return
        data = data if data is not None else await self._own.read()
        if data is None or data.get("ca-cert.pem") == self._refused:
            return
        own: Issuer
        try:
            own = given(data, self._wall(), self._scratch)
        except FileProblem:
            self._refused = data.get("ca-cert.pem", b"")
            raise
        if own.id in {issuer.id for issuer in authority.issuers}:
            return
        log.info("Secret %s holds another authority: rotating to it", CACERTS)
        await ca.step(lambda same: authority.begin_with(own, self._wall()))
        self.rotate()

    async def restore(self, authority: ClusterAuthority) -> None:
        """The leader's: the Secret is gone, though we hold what was in it. Others could not start without it."""
        if await self._secret.read() is None:
            log.error("Secret %s/%s was removed: writing it again", self._namespace, CA_SECRET)
            await self._secret.write(authority.packed())


class _Box:
    """A sink for one object. What is removed is no news: what holds goes on holding."""

    def __init__(self, keeping: Keeping, name: str) -> None:
        self._keeping = keeping
        self._name = name

    def put(self, obj: Obj) -> None:
        self._keeping.arrived(self._name, obj)

    def drop(self, obj: Obj) -> None:
        log.warning("%s was removed from the cluster; what it said still holds here", self._name)

    def replace(self, objs: Iterable[Obj]) -> int:
        for obj in objs:
            self.put(obj)
        return 0


def _older(obj: Obj, version: str) -> bool:
    """Than what we have read or written ourselves."""
    of = str(obj["metadata"].get("resourceVersion") or "")
    return of.isdigit() and version.isdigit() and int(of) < int(version)
