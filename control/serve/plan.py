"""What to send to one proxy, and when (room ``serve``). Sans-io; after Envoy's delta xDS.

In: ``want`` (a new snapshot for this proxy) and ``answer`` (its Ack). Out: ``next`` (a push to send now, or None) and the state
that ``proxy-status`` shows. Assumes one instance per stream: a new stream starts with a new plan.

Rules, kept by property tests: 0 or 1 push is outstanding; the newest wanted snapshot is always delivered in the end; a refused
snapshot is not sent again until something changed; a delta is only ever sent on top of what the proxy confirmed to run. A proxy
whose state differs from what was thought (it refuses a delta as a whole, or confirms another version) gets one full push.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from meshproxy.model.delivery import ORDER, Ack, Nack

__all__ = ["Order", "Outcome", "Plan", "Status"]

Status = Literal["SYNCED", "STALE", "NOT SENT", "ERROR"]
Outcome = Literal["accepted", "refused", "unexpected"]


class HasVersion(Protocol):
    @property
    def version(self) -> str: ...


class HasKinds(Protocol):
    @property
    def kinds(self) -> Iterable[str]: ...


S = TypeVar("S", bound=HasVersion)
C = TypeVar("C", bound=HasKinds)


@dataclass(frozen=True, slots=True)
class Order(Generic[S, C]):
    """One push. ``full``: not a delta. ``since``: when the change behind it was noticed; ``at``: when it was ordered."""

    nonce: str
    target: S
    full: bool
    change: C
    since: float
    at: float


class Plan(Generic[S, C]):
    """``have`` is the version that the proxy says it runs; ``diff(None, new)`` must give a full change."""

    def __init__(self, diff: Callable[[S | None, S], C], have: str = "", stream: str = "0") -> None:
        self._diff = diff
        self._have = have
        self._stream = stream
        self._count = 0
        self._since = 0.0
        self._confirmed_world = 0
        self._refused = ""  # the version it refused last
        self.wanted: S | None = None
        self.wanted_world = 0
        self.running: S | None = None  # confirmed; None: unknown
        self.outstanding: Order[S, C] | None = None
        self.sent_kinds: dict[str, str] = {}
        self.acked_kinds: dict[str, str] = {}
        self.nacks: tuple[Nack, ...] = ()  # of the last refusal, until something is accepted

    def want(self, snapshot: S, world: int, since: float) -> None:
        """The snapshot for this proxy in the world of store version ``world``; ``since`` is when the change came in."""
        if self._have:
            if self._have == snapshot.version:
                self.running = snapshot
                self.sent_kinds = dict.fromkeys(ORDER, snapshot.version)
                self.acked_kinds = dict(self.sent_kinds)
            self._have = ""  # only the first comparison means anything: later the proxy is told, not asked
        if self.wanted is None or self.wanted.version != snapshot.version:
            self._since = since
        self.wanted, self.wanted_world = snapshot, world
        if self._settled():
            self._confirmed_world = world
            if self.outstanding is None:  # a refused change was taken back
                self._refused, self.nacks, self.sent_kinds = "", (), dict(self.acked_kinds)

    def _settled(self) -> bool:
        return self.wanted is not None and self.running is not None and self.running.version == self.wanted.version

    @property
    def world(self) -> int:
        """The newest store version whose consequences this proxy has confirmed."""
        return self._confirmed_world

    def next(self, now: float) -> Order[S, C] | None:
        """The push to send now. It is outstanding from here on, until ``answer``."""
        wanted = self.wanted
        if self.outstanding is not None or wanted is None or self._settled() or wanted.version == self._refused:
            return None
        self._count += 1
        full = self.running is None
        order = Order(f"{self._stream}-{self._count}", wanted, full, self._diff(self.running, wanted), self._since, now)
        self.outstanding = order
        for kind in ORDER if full else order.change.kinds:
            self.sent_kinds[kind] = wanted.version
        return order

    def answer(self, ack: Ack) -> tuple[Outcome, Order[S, C] | None]:
        """Take the proxy's answer; returns what it means and the order that it closes (None: it answers nothing we sent)."""
        order = self.outstanding
        if order is None or ack.nonce != order.nonce:
            return "unexpected", None
        self.outstanding = None
        target = order.target
        if not ack.nacks and ack.version == target.version:
            self.running = target
            self._refused, self.nacks = "", ()
            for kind in ORDER if order.full else order.change.kinds:
                self.acked_kinds[kind] = target.version
            if self._settled():
                self._confirmed_world = self.wanted_world
            return "accepted", order
        self.nacks = ack.nacks or (
            Nack(kind="push", name="", error=f"runs {ack.version or 'nothing'} after accepting {target.version}"),
        )
        lost_step = any(nack.kind == "push" for nack in self.nacks)
        if not order.full and (lost_step or self.running is None or ack.version != self.running.version):
            self.running = None  # not refused yet: a full push may still be fine
        else:
            self._refused = target.version
        return "refused", order

    def overdue(self, now: float, patience: float) -> bool:
        """True when a push has waited for its answer longer than ``patience`` seconds."""
        return self.outstanding is not None and now - self.outstanding.at > patience

    def status(self, kind: str | None = None) -> Status:
        """The state of one kind, or of the whole, in ``istioctl proxy-status`` words."""
        if kind is not None:
            if kind not in self.sent_kinds:
                return "NOT SENT"
            if any(nack.kind in (kind, "push") for nack in self.nacks):
                return "ERROR"
            return "SYNCED" if self.sent_kinds[kind] == self.acked_kinds.get(kind) else "STALE"
        if self.nacks:
            return "ERROR"
        if self._settled():
            return "SYNCED"
        return "STALE" if self.sent_kinds else "NOT SENT"
