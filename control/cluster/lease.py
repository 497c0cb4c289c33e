"""Which of control's replicas leads (room ``cluster``): one Lease, held by renewing it.

In: an ``ApiServer``, the Lease's name, who we are. Out: ``Election.run(lead)``: ``lead`` runs while we lead and is cancelled as
soon as we may not any more: when the Lease was not renewed for ``renew`` seconds, before others may take it (``duration``).
As in Kubernetes' own client, only the steady clock of this process counts, and how long it has seen the Lease unchanged: clocks
of other machines do not matter. A leader that stops gives the Lease back, so that nobody waits.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from control.cluster.names import LEASE
from control.store.kubernetes.client import ApiServer, Refused, Unreachable
from control.tasks import cancel, spawn

__all__ = ["LEASE", "Election"]

log = logging.getLogger("mesh.control.cluster")
Obj = dict[str, Any]


class Election:
    """``clock`` is steady. All times in seconds; ``renew`` has to be less than ``duration``, ``retry`` less than ``renew``."""

    def __init__(
        self,
        api: ApiServer,
        namespace: str,
        identity: str,
        *,
        name: str = LEASE,
        duration: float = 15.0,
        renew: float = 10.0,
        retry: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._api = api
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._name = name
        self._namespace = namespace
        self.identity = identity
        self._duration = duration
        self._renew = renew
        self._retry = retry
        self._clock = clock
        self._wall = wall
        self._sleep = sleep
        self._dice = dice
        self._seen: Obj | None = None  # the Lease's spec as last read, and since when it was so
        self._since = 0.0
        self._said = ""
        self.leading = False
        self.holder = ""

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """For ever. Raises what ``lead`` raised: it is to end only when it is told to."""
        try:
            while True:
                while not await self._try():
                    await self._sleep(self._retry * (1 + self._dice() * 0.2))
                log.info("this replica leads (%s)", self.identity)
                self.leading = True
                leading = spawn(_whole(lead), "leader")
                try:
                    await self._hold(leading)
                finally:
                    self.leading = False
                    await cancel(leading)
                if leading.done() and not leading.cancelled() and leading.exception() is not None:
                    raise RuntimeError("what the leader does has ended: see the log")
                log.warning("this replica leads no longer")
        finally:
            await self._release()

    async def _hold(self, leading: asyncio.Task[None]) -> None:
        renewed = self._clock()
        while not leading.done():
            await self._sleep(self._retry)
            left = renewed + self._renew - self._clock()
            if left <= 0:
                return
            try:
                async with asyncio.timeout(left):
                    if await self._try():
                        renewed = self._clock()
                    elif self.holder != self.identity and self._seen is not None:
                        return  # somebody else has it
            except TimeoutError:
                return

    async def _try(self) -> bool:
        """Take or renew the Lease; False: not now."""
        try:
            return await self._take()
        except (Refused, Unreachable) as problem:
            if str(problem) != self._said:
                log.warning("the Lease %s/%s: %s", self._namespace, self._name, problem)
                self._said = str(problem)
            return False

    async def _take(self) -> bool:
        try:
            lease = await self._api.get(f"{self._path}/{self._name}")
        except Refused as refused:
            if refused.code != 404:
                raise
            meta = {"name": self._name, "namespace": self._namespace}
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": self._spec({})}
            try:
                made = await self._api.send("POST", self._path, body)
            except Refused as late:
                if late.code == 409:
                    return False
                raise
            self._see(made["spec"])
            return True
        spec = lease.get("spec") or {}
        self._see(spec)
        held = bool(self.holder) and self.holder != self.identity
        if held and self._clock() < self._since + max(self._duration, float(spec.get("leaseDurationSeconds") or 0)):
            return False
        lease["spec"] = self._spec(spec)
        try:
            written = await self._api.send("PUT", f"{self._path}/{self._name}", lease)
        except Refused as refused:
            if refused.code == 409:  # somebody was quicker
                return False
            raise
        self._see(written["spec"])
        self._said = ""
        return True

    def _see(self, spec: Obj) -> None:
        if spec != self._seen:
            self._seen, self._since = spec, self._clock()
        self.holder = str(spec.get("holderIdentity") or "")

    def _spec(self, before: Obj) -> Obj:
        now = datetime.fromtimestamp(self._wall(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        ours = before.get("holderIdentity") == self.identity
        return {
            **before,
            "holderIdentity": self.identity,
            "leaseDurationSeconds": round(self._duration) or 1,
            "acquireTime": before.get("acquireTime") if ours and before.get("acquireTime") else now,
            "renewTime": now,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (0 if ours or not before else 1),
        }

    async def _release(self) -> None:
        """Best effort: without it others wait until it has run out."""
        if self.holder != self.identity:
            return
        with suppress(Refused, Unreachable, TimeoutError):
            async with asyncio.timeout(2):
                lease = await self._api.get(f"{self._path}/{self._name}")
                if (lease.get("spec") or {}).get("holderIdentity") == self.identity:
                    spec = {key: value for key, value in lease["spec"].items() if key != "holderIdentity"}
                    lease["spec"] = {**spec, "leaseDurationSeconds": 1}
                    await self._api.send("PUT", f"{self._path}/{self._name}", lease)
                    self.holder = ""


async def _whole(lead: Callable[[], Awaitable[None]]) -> None:
    await lead()
    raise RuntimeError("it ended by itself")
