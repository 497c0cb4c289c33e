"""One container: a process that is started, probed, and started again when it ends.

In: a ``ContainerPlan``. Out: its state as a Kubernetes containerStatus, and ``changed()`` after every change. Loud.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from control.demo.kubelet import logs
from control.demo.kubelet.events import now
from control.demo.kubelet.probe import check
from control.demo.kubelet.process import Child
from control.demo.plan import ContainerPlan

__all__ = ["Container"]

_LONGEST_BACKOFF = 30.0
_GOOD_RUN = 10.0  # seconds after which a run counts as good: its end is a first crash
_QUICK, _CALM = 0.05, 1.0  # seconds between probes until the container is ready, and after
_FAILURES = 2  # failed probes in a row that make a ready container unready
_LATE = 100  # failed probes after which one that was never ready is told of: five seconds or more


class Container:
    def __init__(
        self,
        plan: ContainerPlan,
        log: Path,
        changed: Callable[[], None],
        note: Callable[[str], None] = lambda line: None,
        environ: Mapping[str, str] | None = None,
        event: Callable[[str, str, str], None] = lambda type, reason, message: None,
    ) -> None:
        self.plan = plan
        self.log = log
        self.ready = False
        self.restarts = 0
        self.said = ""  # why it is down: the last line of its log, or how it ended
        self._changed = changed
        self._note = note
        self._event = event
        self._environ = dict(os.environ if environ is None else environ)
        self._child: Child | None = None
        self._state: dict[str, Any] = {"waiting": {"reason": "ContainerCreating"}}
        self._last: dict[str, Any] = {}
        self._retire = asyncio.Event()

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None and not self._child.ended else None

    async def run(self) -> None:
        """Run until cancelled or ``stop``; the first crash is mended at once, those after it with growing backoff."""
        crashes = 0  # in a row
        clock = asyncio.get_running_loop().time
        while not self._retire.is_set():
            began, since = clock(), now()
            code = await self._once(since)
            if self._retire.is_set():
                return
            crashes = 1 if clock() - began > _GOOD_RUN else crashes + 1
            ended = self._fell(code, since, again=crashes > 1)
            wait = self.plan.first if crashes == 1 else min(self.plan.backoff * 2 ** (crashes - 2), _LONGEST_BACKOFF)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._retire.wait(), wait)
            self._last = {"terminated": ended}
            self.restarts += 1

    async def stop(self, grace: float = 5.0) -> None:
        """End the process, for good."""
        self._retire.set()
        if self._child is not None:
            await self._child.stop(grace)
        self.ready = False

    async def _once(self, since: str) -> int:
        logs.fresh(self.log)
        if self.plan.user:
            os.chown(self.log, self.plan.user, -1)  # "/dev/stdout" is opened anew by who writes there
        try:
            self._child = child = Child(self.plan.argv, {**self._environ, **self.plan.env}, self.log)
        except OSError as failure:
            self.log.write_text(f"cannot run {self.plan.argv[0]}: {failure.strerror}\n")
            return 127
        self._state = {"running": {"startedAt": since}}
        self._event("Normal", "Started", f"Started container {self.plan.name}")
        self._changed()
        probing = asyncio.ensure_future(self._probe())
        try:
            return await child.wait()
        finally:
            probing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await probing

    async def _probe(self) -> None:
        failures = 0
        while True:
            if await check(self.plan.probe):
                failures = 0
                self._set_ready(True)
            else:
                failures += 1
                if failures == (_FAILURES if self.ready else _LATE):
                    probe = self.plan.probe
                    asked = (
                        f"GET http://{probe.host}:{probe.port}{probe.path}" if probe.path else f"dial {probe.host}:{probe.port}"
                    )
                    self._event("Warning", "Unhealthy", f"Readiness probe failed: {asked}")
                if failures >= _FAILURES:
                    self._set_ready(False)
            await asyncio.sleep(_CALM if self.ready else _QUICK if failures < 200 else 0.5)

    def _set_ready(self, ready: bool) -> None:
        if ready is not self.ready:
            self.ready = ready
            self.said = ""
            self._changed()

    def _fell(self, code: int, since: str, again: bool) -> dict[str, Any]:
        """As Kubernetes shows it: how it ended; while a repeated crash waits, CrashLoopBackOff."""
        terminated: dict[str, Any] = {
            "exitCode": 128 - code if code < 0 else code,
            "reason": "Completed" if code == 0 else "Error",
            "startedAt": since,
            "finishedAt": now(),
        }
        if code < 0:
            terminated["signal"] = -code
            terminated["message"] = signal.Signals(-code).name
        how = terminated.get("message") or f"exit code {code}"
        self.said = logs.tail(self.log) or f"it ended ({how}) and said nothing"
        if again:
            self._last = {"terminated": terminated}
            self._state = {"waiting": {"reason": "CrashLoopBackOff", "message": self.said}}
            self._event("Warning", "BackOff", f"Back-off restarting failed container {self.plan.name}: {self.said}"[:1000])
        else:
            self._state = {"terminated": terminated}
        self.ready = False
        self._note(f"{self.plan.name} ended ({how}), it is started again")
        self._changed()
        return terminated

    def status(self) -> dict[str, Any]:
        """A Kubernetes containerStatus."""
        pid = self.pid
        return {
            "name": self.plan.name,
            "image": self.plan.image,
            "imageID": "",
            "containerID": f"pid://{pid}" if pid else "",
            "ready": self.ready,
            "started": pid is not None,
            "restartCount": self.restarts,
            "state": self._state,
            "lastState": self._last,
        }
