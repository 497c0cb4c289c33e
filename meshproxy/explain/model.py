"""Explanations, what is told: a decision and every reason for it, as plain as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from meshproxy.policy.routes import Step

__all__ = ["Explanation"]


class Explanation(NamedTuple):
    """``decision``: forward, redirect, direct response, preflight, fault, denied, no route, no cluster, no healthy upstream,
    refused, or not let in (the connection, so that there is no answer at all).

    ``status``: the local answer's, or None where upstream answers (a fault or an empty destination that only some requests meet
    leaves it None). ``destinations``: what may be drawn, each with percent and endpoints. Where others come in ``mtls`` is what
    the door demands; ``tokens``: what becomes of them; ``authorization``: every rule of the workload's policies, with what
    matched or did not; ``asks``: external authorisers that would be asked, and are taken to allow; ``because``: the rule or
    token that decided.
    """

    listener: str
    version: str
    request: dict[str, Any]
    decision: str
    status: int | None
    route: dict[str, Any] | None = None
    destinations: Sequence[dict[str, Any]] = ()
    policy: Mapping[str, Any] = {}
    answer: dict[str, Any] | None = None
    steps: Sequence[Step] = ()
    caller: Mapping[str, Any] = {}
    mtls: Mapping[str, Any] = {}
    tokens: Sequence[Step] = ()
    authorization: Sequence[dict[str, Any]] = ()
    asks: Sequence[str] = ()
    because: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types; empty parts are left out."""
        found = {
            "listener": self.listener,
            "snapshot": self.version,
            "request": self.request,
            "caller": self.caller,
            "decision": self.decision,
            "because": self.because,
            "status": self.status,
            "mtls": self.mtls,
            "tokens": [step._asdict() for step in self.tokens],
            "authorization": list(self.authorization),
            "asks": list(self.asks),
            "route": self.route,
            "destinations": list(self.destinations),
            "policy": self.policy,
            "answer": self.answer,
            "steps": [step._asdict() for step in self.steps],
        }
        return {key: value for key, value in found.items() if value not in (None, [], {}, "")}
