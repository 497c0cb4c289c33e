"""One sidecar's stream, without its socket (room ``serve``). Sans-io but for one wake-up event.

In: snapshots wanted for it, its answers, questions for it. Out: ``outgoing(now)``, the pieces of lines to write next. The order
on the wire is: questions, then at most one push. ``stream`` writes them; ``hub`` knows all sessions.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Any

from control.identity import ProxyIdentity
from control.serve.encode import Encoded, Encoder, line, push_line
from control.serve.metrics import Metrics
from control.serve.plan import Outcome, Plan
from control.translate.snapshot import Problem, Snapshot
from meshproxy.model.delivery import ORDER, Ack, Hello, Query

__all__ = ["Session"]

MAX_QUESTIONS = 64
MAX_PROBLEMS = 100  # of a configuration that are shown with a sidecar


class Session:
    """``connected_at`` is wall time; all other times are of the steady clock. ``role`` is known once the pod is."""

    def __init__(
        self, proxy: ProxyIdentity, have: str, number: str, encoder: Encoder, metrics: Metrics, connected_at: float
    ) -> None:
        self.proxy = proxy
        self.plan: Plan[Snapshot, Encoded] = Plan(encoder.change, have, number)
        self.connected_at = connected_at
        self.role = ""
        self.has_pod = True  # False: there is nothing to configure it for
        self.problem = ""  # why there is no snapshot for it
        self.closing = ""  # why the stream must end; empty: it goes on
        self.wake = asyncio.Event()
        self._metrics = metrics
        self._questions: deque[Query] = deque()
        self._beat = 0

    def want(self, snapshot: Snapshot, world: int, since: float) -> None:
        """The snapshot for this proxy at store version ``world``; ``since``: steady time of the change."""
        self.plan.want(snapshot, world, since)
        self.problem = ""
        self.wake.set()

    def ask(self, query: Query) -> bool:
        """Queue a question. False: there are too many already."""
        if len(self._questions) >= MAX_QUESTIONS:
            return False
        self._questions.append(query)
        self.wake.set()
        return True

    def close(self, why: str) -> None:
        """End the stream; the first reason counts."""
        self.closing = self.closing or why
        self.wake.set()

    def answered(self, ack: Ack, now: float) -> Outcome:
        outcome, order = self.plan.answer(ack)
        if order is not None:
            if outcome == "accepted":
                self._metrics.convergence.observe(max(0.0, now - order.since))
            else:
                self._metrics.rejects.inc()
            self.wake.set()  # the next push may go
        return outcome

    def outgoing(self, now: float) -> Iterator[bytes]:
        """Pieces to write now, in order."""
        while self._questions:
            yield line(self._questions.popleft())
        order = self.plan.next(now)
        if order is not None:
            self._metrics.pushed(order.change.kinds, order.change.size)
            yield from push_line(order.nonce, order.target.version, order.change)

    def hello(self, control: str) -> bytes:
        """The first line, and the keep-alive; ``beat`` counts."""
        self._beat += 1
        return line(Hello(control=control, beat=self._beat - 1))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What could not be done as written in the configuration that is meant for it."""
        return self.plan.wanted.problems if self.plan.wanted is not None else ()

    def report(self) -> dict[str, Any]:
        """Its row in ``proxy-status``."""
        plan = self.plan
        nacks = [{"kind": nack.kind, "name": nack.name, "error": nack.error} for nack in plan.nacks]
        return {
            "name": self.proxy.pod,
            "namespace": self.proxy.namespace,
            "serviceAccount": self.proxy.service_account,
            "role": self.role,
            "status": plan.status(),
            "problem": self.problem,
            "problems": [str(problem) for problem in self.problems[:MAX_PROBLEMS]],
            "connectedSince": self.connected_at,
            "version": plan.running.version if plan.running is not None else "",
            "worldVersion": str(plan.world),
            "kinds": {
                kind: {
                    "status": plan.status(kind),
                    "sent": plan.sent_kinds.get(kind, ""),
                    "acked": plan.acked_kinds.get(kind, ""),
                }
                for kind in ORDER
            },
            "lastNack": nacks,
        }
