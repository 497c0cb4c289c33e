"""``--concurrency N``: the parent's side of N worker processes. Loud; cold.

In: candidates to install, our identity, questions. Out: the same in every worker, answers merged by the caller. A worker that
dies is started again with the identity, then with the last good configuration. The key travels on that socket only. The parent
carries no traffic, so health and admin answer while workers are busy.

What holds for the pod as a whole: listening sockets are shared with SO_REUSEPORT (the kernel spreads connections); every
limit of a cluster is divided by N and rounded up, so the pod may exceed a limit by at most N - 1; outlier detection, round-
robin cursors and retry budgets count per worker, so an endpoint may be ejected by one worker and not yet by another.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from meshproxy.agent.state import Candidate, Held
from meshproxy.agent.tasks import spawn
from meshproxy.apply import Refused, Snapshot, compile_snapshot
from meshproxy.cluster.cluster import Cluster
from meshproxy.ending import Plan
from meshproxy.model.base import encode, fingerprint
from meshproxy.model.delivery import ORDER, Kind, Nack, Push, Resource
from meshproxy.model.tap import TapOrder
from meshproxy.tls.identity import Identity

__all__ = ["Fleet", "Worker", "push_of"]

log = logging.getLogger("meshproxy.workers")
_ANSWER = 5.0  # seconds a worker may take over a question
_RESTART = 0.1  # seconds before it is started again; twice as long each time it ends within ``_SETTLED``
_SETTLED = 10.0
_SLOWEST = 5.0
_STUCK = 5.0  # seconds past its drain after which a worker is taken for dead


def push_of(candidate: Candidate, full: bool) -> Push:
    """A candidate as a push: everything, or what changed."""
    held = candidate.held
    wanted: list[tuple[Kind, str]] = [
        (kind, name) for kind in ORDER for name in held[kind] if full or (kind, name) in candidate.changed
    ]
    removed = () if full else tuple((kind, name) for kind, name in sorted(candidate.changed) if name not in held[kind])
    return Push(
        nonce="",
        version=candidate.version,
        full=full,
        set=tuple(_resource(kind, name, held[kind][name]) for kind, name in wanted),
        removed=removed,
    )


def _resource(kind: Kind, name: str, held: Held) -> Resource:
    body = encode(held.value)  # may differ from the bytes that came, and then so does its fingerprint
    return Resource(kind=kind, name=name, version=fingerprint(body), body=msgspec.Raw(body))


class Worker:
    """One child process and the socket to it. Messages are JSON lines: ``{"op": ..., "id": ...}``."""

    def __init__(self, number: int, argv: Sequence[str], lost_track: Callable[[Worker], None] = lambda worker: None) -> None:
        """``lost_track`` is called when it refused a change, and cannot take the next one for that."""
        self.number = number
        self._argv = argv
        self._lost_track = lost_track
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reader: asyncio.StreamReader | None = None
        self._questions: dict[int, asyncio.Future[Any]] = {}
        self._ids = itertools.count(1)
        self.installed = ""
        self.problem = ""
        self.last: list[Any] = []  # what it counted before it ended, and nobody had asked for

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        self.installed = self.problem = ""
        ours, theirs = socket.socketpair()  # not inheritable: a brother that held ``theirs`` would hide this worker's end
        command = [sys.executable, "-m", "meshproxy.worker", str(theirs.fileno()), *self._argv]
        self._process = await asyncio.create_subprocess_exec(*command, pass_fds=(theirs.fileno(),))
        theirs.close()
        self._reader, self._writer = await asyncio.open_connection(sock=ours, limit=1 << 26)

    async def run(self) -> int:
        """Hear the worker until it ends; its exit code."""
        assert self._reader is not None and self._writer is not None and self._process is not None
        while line := await _line(self._reader):
            message = msgspec.json.decode(line)
            if message["op"] == "installed":
                self.installed, self.problem = message["version"], message["problem"]
                if message["stale"]:
                    self._lost_track(self)
                elif self.problem:
                    log.error("worker %d: %s", self.number, self.problem)
            elif message["op"] == "last":
                self.last.append(message["deltas"])
            elif (waiting := self._questions.pop(message["id"], None)) is not None and not waiting.done():
                waiting.set_result(message["result"])
        for waiting in self._questions.values():
            if not waiting.done():
                waiting.set_result(None)
        self._questions.clear()
        self._writer.close()
        self._writer = None
        try:
            async with asyncio.timeout(_STUCK):
                return await self._process.wait()
        except TimeoutError:  # it lives, but has no ear for us
            self.kill()
            return await self._process.wait()

    def tell(self, op: str, **fields: Any) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(encode({"op": op, **fields}) + b"\n")

    async def ask(self, what: str) -> Any:
        """The answer, or None when the worker is not there or has none in time."""
        if self._writer is None:
            return None
        number = next(self._ids)
        waiting = self._questions[number] = asyncio.get_running_loop().create_future()
        self.tell("ask", id=number, what=what)
        try:
            async with asyncio.timeout(_ANSWER):
                return await waiting
        except TimeoutError:
            self._questions.pop(number, None)
            return None

    def stop(self) -> None:
        """End it: it drains on SIGTERM."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()


async def _line(reader: asyncio.StreamReader) -> bytes:
    """The next one; nothing at the end, however it came (a killed process resets a socket that it had not read empty)."""
    try:
        return await reader.readline()
    except (OSError, ValueError):
        return b""


class Fleet:
    """N workers under one configuration. ``snapshot`` is the parent's own compilation: for checks and explanations.

    bindable: why a listener of the candidate cannot be bound, or None; asked before the workers are told.
    """

    def __init__(
        self, count: int, argv: Sequence[str], bindable: Callable[[Candidate], Nack | None] = lambda candidate: None
    ) -> None:
        self.workers = [Worker(number, argv, self._resend) for number in range(count)]
        self._bindable = bindable
        self.snapshot: Snapshot | None = None
        self.draining = self._sent_away = False
        self.restarts = 0
        self._held: Candidate | None = None
        self._identity: Identity | None = None
        self.taps: dict[str, TapOrder] = {}
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._keepers = [spawn(self._keep(worker), f"worker {worker.number}") for worker in self.workers]

    async def _keep(self, worker: Worker) -> None:
        pause = _RESTART
        while not self.draining:
            started = time.monotonic()
            try:
                await worker.start()
            except OSError as error:  # no process, memory or descriptor to be had
                how = f"cannot start: {error.strerror}"
            else:
                if self.draining:  # we were told to stop while it started
                    worker.stop()
                if self._identity is not None:  # before the configuration, which makes it accept
                    worker.tell("identify", identity=self._identity)
                self._resend(worker)
                for order in self.taps.values():
                    worker.tell("tap", tap=order)
                if self._sent_away:
                    worker.tell("drain")
                how = f"ended with {await worker.run()}"
            if not self.draining:
                pause = _RESTART if time.monotonic() - started > _SETTLED else min(2 * pause, _SLOWEST)
                self.restarts += 1
                log.error("worker %d %s; it starts again", worker.number, how)
                await asyncio.sleep(pause)

    def _resend(self, worker: Worker) -> None:
        if self._held is not None:
            worker.tell("push", push=push_of(self._held, True))

    def identify(self, identity: Identity) -> None:
        """Our certificate from now on, in every worker."""
        self._identity = identity
        for worker in self.workers:
            worker.tell("identify", identity=identity)

    def tap(self, order: TapOrder) -> None:
        """In every worker, also in one that starts again."""
        self.taps[order.id] = order
        for worker in self.workers:
            worker.tell("tap", tap=order)

    def untap(self, id_: str) -> None:
        if self.taps.pop(id_, None) is not None:
            for worker in self.workers:
                worker.tell("untap", what=id_)

    def install(self, candidate: Candidate) -> list[Nack]:
        """Check the candidate here, then send it to all. What a worker cannot bind all the same is logged, not refused."""
        if (nack := self._bindable(candidate)) is not None:
            return [nack]
        try:
            snapshot = compile_snapshot(candidate.resources, self.snapshot, _paper, version=candidate.version)
        except Refused as no:
            return [Nack(kind=no.kind, name=no.name, error=no.message)]
        push = push_of(candidate, self._held is None)
        self.snapshot, self._held = snapshot, candidate
        for worker in self.workers:
            worker.tell("push", push=push)
        return []

    def ready(self) -> str:
        """ "" when every worker runs a configuration; else why not."""
        if self.snapshot is None:
            return "no configuration yet"
        waiting = [worker for worker in self.workers if not worker.installed]
        return waiting[0].problem or f"{len(waiting)} of {len(self.workers)} workers starting" if waiting else ""

    async def ask(self, what: str) -> list[Any]:
        """Every worker's answer; one that does not answer is left out."""
        found = await asyncio.gather(*(worker.ask(what) for worker in self.workers))
        return [answer for answer in found if answer is not None]

    async def deltas(self) -> list[Any]:
        """What every worker counted since this was last asked; also those that have ended since."""
        found = await self.ask("deltas")
        for worker in self.workers:
            found += worker.last
            worker.last = []
        return found

    def send_away(self) -> None:
        """One that starts again later is told, too."""
        self._sent_away = True
        for worker in self.workers:
            worker.tell("drain")

    async def drain(self, plan: Plan) -> None:
        """Let every worker end by plan; returns when all have ended. Each bounds its own end; one that hangs is killed."""
        self.draining = True
        for worker in self.workers:
            worker.tell("end", plan=plan)
            worker.stop()
        if self._keepers:
            await asyncio.wait(self._keepers, timeout=plan.cap + _STUCK)

    def hurry(self, plan: Plan) -> None:
        for worker in self.workers:
            worker.tell("end", plan=plan)

    async def aclose(self) -> None:
        self.draining = True
        for worker in self.workers:
            worker.kill()
        await asyncio.gather(*self._keepers, return_exceptions=True)


def _paper(config: Any, endpoints: Any, old: Cluster | None) -> Cluster:
    """A cluster that carries nothing, so that the parent can compile and explain."""
    if old is None:
        return Cluster(config, endpoints)
    old.update(config, endpoints)
    return old
