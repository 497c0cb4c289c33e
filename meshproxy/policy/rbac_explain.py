"""Room: policy. Why policies decided as they did: every rule, and for one that did not match what the request had instead.

In: the compiled policies and a request in flight. Out: ``Told`` rows, by asking the very conditions that judge (``policy.rbac``).
No token is shown, only what policies ask of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from meshproxy.message.ports import InFlight
from meshproxy.policy.rbac import CompiledPolicy, CompiledRule
from meshproxy.policy.rbac_fields import Field

__all__ = ["Told", "explain_policies"]


class Told(NamedTuple):
    """One rule (-1: the policy has none, or cannot be obeyed). ``reason``: why it matched, or every field that did not."""

    policy: str
    action: str
    rule: int
    matched: bool
    dry_run: bool
    reason: str


def explain_policies(policies: Iterable[CompiledPolicy], exchange: InFlight) -> list[Told]:
    """Every rule of every policy, in the order in which actions are judged."""
    order = ("CUSTOM", "DENY", "ALLOW", "AUDIT")
    return [row for policy in sorted(policies, key=lambda one: order.index(one.action)) for row in _policy(policy, exchange)]


def _policy(policy: CompiledPolicy, exchange: InFlight) -> Iterator[Told]:
    def told(rule: int, matched: bool, reason: str) -> Told:
        return Told(policy.name, policy.action, rule, matched, policy.dry_run, reason)

    if policy.unusable:
        denies = "" if policy.dry_run else ", so everything is denied"
        yield told(-1, not policy.dry_run, f"it cannot be obeyed{denies}: {policy.unusable}")
    elif not policy.rules:
        denies = ": what no other ALLOW policy matches is denied" if policy.action == "ALLOW" else ""
        yield told(-1, False, f"it has no rules, so it matches nothing{denies}")
    for rule in policy.rules:
        matched = rule.holds(exchange)
        yield told(rule.number, matched, _why(rule, exchange) if matched else "; ".join(_misses(rule, exchange)))


def _why(rule: CompiledRule, exchange: InFlight) -> str:
    groups = [next(group for group in side if _holds(group, exchange)) for side in (rule.sources, rule.operations) if side]
    words = [field.words for group in (*groups, rule.when) for field in group]
    return " and ".join(words) or "it matches every request"


def _holds(group: tuple[Field, ...], exchange: InFlight) -> bool:
    return all(field.holds(exchange) for field in group)


def _misses(rule: CompiledRule, exchange: InFlight) -> Iterator[str]:
    for name, side in (("from", rule.sources), ("to", rule.operations)):
        if side and not any(_holds(group, exchange) for group in side):
            for index, group in enumerate(side):
                where = f"{name}[{index}] " if len(side) > 1 else ""
                yield from (where + miss for miss in _missing(group, exchange))
    yield from _missing(rule.when, exchange)


def _missing(group: tuple[Field, ...], exchange: InFlight) -> Iterator[str]:
    for field in group:
        if not field.holds(exchange):
            yield f"{field.words}: it is {field.actual(exchange)}"
