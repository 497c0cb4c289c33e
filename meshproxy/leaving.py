"""How a data path lets its connections go: callers sent away, doors shut, the end waited for. Loud by its clock and /proc.

In: the acceptors, and a ``Plan``. Out: doors that obey ``ending.step``; how many requests were cut. "Callers" are those whom the
pod serves; the app's own connections to outbound are no callers, and are cut last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path

from meshproxy.ending import Plan, Seen, Step, listening_ports, step
from meshproxy.listener.accept import Acceptor

__all__ = ["Leaving"]

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LOOK = 0.5  # seconds between looks at who listens in this pod
_IDLE = 3600.0  # downstream connections idle this long are closed (Envoy: connection idle timeout 1 h)
_HEAD = 60.0  # a request head may take this long


class Leaving:
    """``current``: the acceptors in force, by name. ``own_ports``: of pages, where nobody but we listen."""

    def __init__(self, loop: asyncio.AbstractEventLoop, current: Mapping[str, Acceptor], own_ports: Iterable[int] = ()) -> None:
        self._loop = loop
        self._current = current
        self._own_ports = frozenset(own_ports)
        self.old: list[Acceptor] = []  # out of the configuration, with connections that still end
        self.sent_away = self.shut_in = self.shut_all = False
        self._plan: Plan | None = None
        self._looked = -_LOOK
        self._listens = False

    # -- who is here

    def all(self) -> list[Acceptor]:
        return [*self._current.values(), *self.old]

    @property
    def active(self) -> int:
        """Requests and tunnels in flight."""
        return sum(acceptor.active for acceptor in self.all())

    @property
    def connections(self) -> int:
        return sum(acceptor.connections for acceptor in self.all())

    @property
    def buffered(self) -> int:
        """Bytes written to clients that the kernel has not taken yet."""
        return sum(acceptor.buffered for acceptor in self.all())

    def sweep(self, now: float) -> None:
        for acceptor in self.all():
            acceptor.sweep(now, _IDLE, _HEAD)
        self.old = [acceptor for acceptor in self.old if acceptor.connections]

    def leave(self, acceptor: Acceptor) -> None:
        """It is out of the configuration."""
        acceptor.drain()
        self.old.append(acceptor)

    # -- doors

    def dismissed(self, acceptor: Acceptor) -> bool:
        """A listener that comes when its door is shut already does not open; one that comes late enough sends away at once."""
        if self.shut_all or (self.shut_in and _comes_in(acceptor)):
            acceptor.drain()
            return True
        if self.sent_away and _comes_in(acceptor):
            acceptor.send_away()
        return False

    def send_away(self) -> None:
        """Callers are to go elsewhere: each answer to them says ``connection: close``. Who comes all the same is let in, and what
        the app asks goes on as ever.
        """
        self.sent_away = True
        for acceptor in self._callers():
            acceptor.send_away()

    def shut(self) -> None:
        """Nobody calls any more; the app may."""
        self.sent_away = self.shut_in = True
        for acceptor in self._callers():
            acceptor.drain()

    def shut_doors(self) -> None:
        """Stop accepting; what is in flight is answered, each with ``connection: close``."""
        self.shut_all = True
        for acceptor in self._current.values():
            acceptor.drain()

    def _callers(self) -> list[Acceptor]:
        return [acceptor for acceptor in self._current.values() if _comes_in(acceptor)]

    # -- the end

    def hurry(self, plan: Plan) -> None:
        """Another plan from now on, if the end has begun."""
        if self._plan is not None:
            self._plan = plan

    async def ended(self, plan: Plan) -> int:
        """Returns at the end. How many still have a request in flight."""
        began = self._loop.time()
        self._plan = plan
        self.send_away()
        while True:
            now = self._loop.time()
            seen = Seen(self.connections, self._plan.watch and (self._app_asks() or self._app_listens(now)))
            told = step(self._plan, now - began, seen)
            if told is Step.EXIT:
                break
            if told is Step.CLOSE:
                self.shut_doors()
            self.sweep(now)
            await asyncio.sleep(0.02)
        self.shut_doors()
        return await self.drained(self._plan.cap - (now - began))  # who was in the kernel's queue

    async def drained(self, seconds: float) -> int:
        """Wait until no connection is left, at most so long. How many still have a request in flight."""
        deadline = self._loop.time() + seconds
        while self.connections and (now := self._loop.time()) < deadline:
            self.sweep(now)
            await asyncio.sleep(0.02)
        return self.active

    def _app_asks(self) -> bool:
        return any(acceptor.connections for acceptor in self.all() if not _comes_in(acceptor))

    def _app_listens(self, now: float) -> bool:
        """All containers of a pod share its network: what others than we listen on is the app's."""
        if now - self._looked >= _LOOK:
            self._looked = now
            own = self._own_ports | {acceptor.port for acceptor in self.all()}
            try:
                found = listening_ports(path.read_text() for path in _TABLES if path.exists())
            except OSError:
                found = set()
            self._listens = bool(found - own)
        return self._listens


def _comes_in(acceptor: Acceptor) -> bool:
    """Others call here, not the app."""
    return bool(acceptor.slot.current.direction != "outbound")
