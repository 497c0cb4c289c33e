"""Room 4 (filters): may this request pass? Asks the policies' judge (``policy.rbac``), after the token was verified.

In: a request whose peer, path and token are settled. Out: None, or 403 with Envoy's body and a detail that names the rule. Every
decision is left on the record, those of AUDIT policies and dry runs too, which change nothing.
"""

from __future__ import annotations

from meshproxy.filters.chain import Filter
from meshproxy.message.ports import InFlight
from meshproxy.message.reason import Reason
from meshproxy.message.verdict import Verdict
from meshproxy.policy.rbac import Judge
from meshproxy.policy.replies import local_reply

__all__ = ["authz_filter"]


def authz_filter(judge: Judge) -> Filter:
    """The filter for a workload's policies."""
    decide = judge.judge

    def authz(exchange: InFlight, now: float) -> Verdict:
        decision = decide(exchange)
        exchange.record.decisions += (decision,)
        return None if decision.allowed else local_reply(Reason.RBAC_DENIED, detail=decision.detail)

    def authz_noting(exchange: InFlight, now: float) -> Verdict:
        exchange.record.decisions += judge.noted(exchange)
        return authz(exchange, now)

    return authz_noting if judge.notes else authz
