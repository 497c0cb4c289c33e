"""Replacing the root without a failed request (room ``ca``): trust both, sign with the new one, trust the new one only.

In: ``begin``, and a view of the sidecars (``Fleet``). Out: the steps of ``Authority``, each as soon as nobody can be hurt by it,
and ``report``, which says what is being waited for. Where a rotation stands is on disk, so a control that was killed goes on.

First everybody who may still present or check a certificate has to trust both roots: the connected sidecars, and those that are
away while their Pod exists and their certificate lasts. Then the new root signs, and sidecars renew at once. The old root goes
when the newest certificate of everybody is under the new one, or the old one has ended; and a little later, for a certificate
that was handed out is not in use yet.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from control.ca.authority import Rotating
from control.ca.ledger import Row
from control.ca.service import CertificateAuthority
from control.files import FileProblem

__all__ = ["Busy", "Fleet", "Rotation"]

log = logging.getLogger("mesh.control.ca")
SETTLE = 2.0  # seconds from the last renewal until the old root goes
PATIENCE = 30.0  # seconds that connected sidecars have, each step, in a rotation by force
LOOK = 0.2
RETRY = 5.0


class Busy(Exception):
    """A rotation is under way already."""


class Fleet(Protocol):
    """Sidecars as control sees them now."""

    def distrusting(self) -> dict[str, str]:
        """Connected sidecars (namespace/pod) that have not confirmed the current trust, and why."""
        ...

    def connected(self, namespace: str, pod: str) -> bool: ...

    def exists(self, namespace: str, pod: str) -> bool:
        """Whether there is such a Pod."""
        ...


class Rotation:
    """``settle`` in seconds. ``hold(rotating, now)``: what else the next step has to wait for, "" for nothing."""

    def __init__(
        self,
        ca: CertificateAuthority,
        fleet: Fleet,
        wall: Callable[[], float] = time.time,
        settle: float = SETTLE,
        hold: Callable[[Rotating, float], str] = lambda rotating, now: "",
    ) -> None:
        self._ca = ca
        self._fleet = fleet
        self._wall = wall
        self._settle = settle
        self._hold = hold
        self._quiet = 0.0  # since when nothing is waited for any more
        self._wake = asyncio.Event()
        self._one = asyncio.Lock()
        self.waiting: tuple[str, ...] = ()

    async def begin(self, given: Path | None, force: bool) -> None:
        """Begin, or, with ``force``, hurry one that is under way. Raises ``Busy`` or ``FileProblem``."""
        async with self._one:
            under_way = self._ca.authority.rotating is not None
            if under_way and (given is not None or not force):
                raise Busy("a rotation is under way already: `meshctl ca rotate --status` says what it waits for")
            if under_way:
                await self._ca.step(lambda authority: authority.force())
            else:
                await self._ca.step(lambda authority: authority.begin(self._wall(), given, force))
                log.info("rotation of the root began: both roots are trusted from now on")
            self._quiet = 0.0
            self._wake.set()

    def look(self) -> None:
        """One may have been begun elsewhere."""
        self._wake.set()

    async def run(self) -> None:
        """Drive rotations for ever."""
        while True:
            pause = LOOK
            try:
                await self.step()
            except (FileProblem, sqlite3.Error) as error:  # a full disk: the step was not done, and can be later
                log.error("rotation of the root cannot go on: %s", error)
                self.waiting, pause = (str(error),), RETRY
            if self._ca.authority.rotating is None:
                await self._wake.wait()
                self._wake.clear()
            else:
                await asyncio.sleep(pause)

    async def step(self) -> None:
        """Look once, and take the next step if nothing speaks against it."""
        async with self._one:
            await self._step()

    async def _step(self) -> None:
        await self._ca.tell()  # of the last step, if that failed then
        rotating = self._ca.authority.rotating
        if rotating is None:
            self.waiting = ()
            return
        now = self._wall()
        newest = await self._ca.off_loop(lambda: self._ca.ledger.newest(now))
        late = rotating.force and now - max(rotating.started, rotating.switched) > PATIENCE
        if not rotating.switched:
            waiting = [] if late else [f"{name} {why}" for name, why in sorted(self._fleet.distrusting().items())]
            waiting += [] if rotating.force else [_away(row) for row in newest.values() if self._is_away(row)]
        else:
            root = self._ca.authority.root_id
            old = [row for row in newest.values() if row.root != root and not self._revoked(row)]
            waiting = [] if rotating.force else [_away(row) for row in old if self._is_away(row)]
            if not late:
                waiting += [f"{row.namespace}/{row.pod} has not renewed its certificate yet" for row in old if self._is_here(row)]
        if not late and (held := self._hold(rotating, now)):
            waiting.append(held)
        if waiting:
            self._quiet = 0.0
        elif not rotating.switched:
            await self._ca.step(lambda authority: authority.switch(now))
            log.info("rotation of the root: certificates are issued under the new root from now on")
        elif not self._quiet:
            self._quiet = now
            waiting = ["the last renewed certificates come into use"]
        elif now - self._quiet < self._settle:
            waiting = ["the last renewed certificates come into use"]
        else:
            self._quiet = 0.0
            await self._ca.step(lambda authority: authority.finish(now))
            log.info("rotation of the root is done: the old root is trusted no longer")
        self.waiting = tuple(waiting)

    def report(self) -> dict[str, Any]:
        """Where it stands, for people's programs."""
        rotating = self._ca.authority.rotating
        if rotating is None:
            return {"phase": "none", "rotated": self._ca.authority.rotated, "waiting": []}
        return {
            "phase": "replacing" if rotating.switched else "distributing",
            "started": rotating.started,
            "switched": rotating.switched,
            "rotated": self._ca.authority.rotated,
            "force": rotating.force,
            "waiting": list(self.waiting),
        }

    def _is_here(self, row: Row) -> bool:
        return self._fleet.connected(row.namespace, row.pod)

    def _is_away(self, row: Row) -> bool:
        """It is not connected, and still may speak with others."""
        return not self._is_here(row) and self._fleet.exists(row.namespace, row.pod) and not self._revoked(row)

    def _revoked(self, row: Row) -> bool:
        return row.identity in self._ca.revoked_identities or row.serial in self._ca.revoked_serials


def _away(row: Row) -> str:
    until = dt.datetime.fromtimestamp(row.expires, dt.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    return f"{row.namespace}/{row.pod} is not connected and has a certificate until {until} (--force: do not wait)"
