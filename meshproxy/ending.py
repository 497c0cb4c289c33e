"""How a sidecar ends, as pure judgement: when its doors close after a stop, and when it may go. Quiet.

In: a ``Plan`` from the settings, and what is seen now: connections, requests in flight, whether the app still listens. Out: a
``Step``. In a pod SIGTERM reaches the app and us at once, unless we are a native sidecar, so an app that ends must find us: its
callers, who hear of the end last, and the services that it calls itself. Without a pod (``linger`` 0) doors close at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple, Protocol

__all__ = ["Plan", "Seen", "Step", "listening_ports", "plan_of", "step"]

_FOREVER = 1e9  # seconds; a number that JSON has
_LISTEN = "0A"  # net/tcp_states.h


class Step(Enum):
    OPEN = "everything stays open; callers are sent away after each request"
    CLOSE = "nobody new comes in; what is in flight goes on"
    EXIT = "nothing is left to wait for"


class Plan(NamedTuple):
    """``linger``: seconds that the doors stay open in any case. ``cap``: seconds after which nothing is waited for.
    ``watch``: after ``linger`` doors stay open until the app is gone. ``connections``: wait for the last connection, not only for
    the last request."""

    linger: float
    cap: float
    watch: bool
    connections: bool


class Seen(NamedTuple):
    """``app``: it listens somewhere, or holds a connection to us."""

    connections: int
    app: bool


class Told(Protocol):
    """What is read of the ``Bootstrap``."""

    @property
    def role(self) -> str: ...
    @property
    def drain_seconds(self) -> float: ...
    @property
    def termination_seconds(self) -> float: ...
    @property
    def exit_on_zero(self) -> bool: ...
    @property
    def minimum_drain(self) -> float: ...
    @property
    def native(self) -> bool: ...


def plan_of(told: Told, asked: bool = False) -> Plan:
    """``asked``: by ``/quitquitquit``: the app itself says that it is done."""
    if asked or told.native:
        return Plan(0.0, told.drain_seconds, False, False)
    if told.exit_on_zero:  # as Istio's: however long, for the kubelet ends it
        return Plan(told.minimum_drain, _FOREVER, False, True)
    linger = told.termination_seconds
    return Plan(linger, max(told.drain_seconds, linger), linger > 0 and told.role == "sidecar", False)


def step(plan: Plan, elapsed: float, seen: Seen) -> Step:
    """``elapsed``: seconds since the stop."""
    if elapsed >= plan.cap:
        return Step.EXIT
    if elapsed < plan.linger:
        return Step.OPEN
    if plan.connections:
        return Step.OPEN if seen.connections else Step.EXIT
    if plan.watch and seen.app:
        return Step.OPEN
    return Step.CLOSE if seen.connections else Step.EXIT


def listening_ports(tables: Iterable[str]) -> set[int]:
    """Of the texts of /proc/net/tcp and tcp6: every port that somebody in this network namespace listens on."""
    found = set()
    for table in tables:
        for line in table.splitlines()[1:]:
            parts = line.split(None, 4)
            if len(parts) > 3 and parts[3] == _LISTEN:
                found.add(int(parts[1].rpartition(":")[2], 16))
    return found
