"""Room: policy. May this request pass? AuthorizationPolicies compiled once into closures (semantics B6; Istio, Envoy RBAC).

In: ``model.security.Policy``s and whom the mesh trusts. Out: ``Judge`` (DENY before ALLOW; AUDIT and dry runs only noted) and
``Custom`` (which CUSTOM rule asks an external authoriser), both over the request in flight. Compiling never raises and judging
never does: a policy that cannot be obeyed denies everything in its scope, by a detail of its own, and never allows more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from meshproxy.message.decision import Decision
from meshproxy.message.ports import InFlight
from meshproxy.policy.invalid import Invalid
from meshproxy.policy.rbac_bytes import rules_for_bytes
from meshproxy.policy.rbac_fields import Field, Test, condition_field, operation_fields, source_fields

if TYPE_CHECKING:
    from meshproxy.model.security import Policy, Rule, Trust

__all__ = ["CompiledPolicy", "CompiledRule", "Custom", "Judge", "admitter", "compile_policies", "denial", "policy_id"]


def policy_id(name: str, rule: int, suffix: str = "") -> str:
    """``ns[default]-policy[books]-rule[0]``, Istio's name of a rule."""
    namespace, _, own = name.rpartition("/")
    return f"ns[{namespace}]-policy[{own}]-" + (f"rule[{rule}]" if rule >= 0 else "unusable") + suffix


def denial(matched: str) -> str:
    """The 403's detail."""
    return f"rbac_access_denied_matched_policy[{matched}]".replace(" ", "_")


_UNKNOWN = "its provider is unknown here"
_BYTES = "no authoriser can be asked about bytes that are not HTTP"


class CompiledRule(NamedTuple):
    """``holds`` is all of it; the conditions one by one are for explain. No alternatives: any source, any operation."""

    number: int
    holds: Test
    sources: tuple[tuple[Field, ...], ...]
    operations: tuple[tuple[Field, ...], ...]
    when: tuple[Field, ...]
    matched: Decision


class CompiledPolicy(NamedTuple):
    """``unusable``: why it could not be compiled; it has no rules then, and denies."""

    name: str
    action: str
    dry_run: bool
    provider: str
    rules: tuple[CompiledRule, ...]
    unusable: str


def compile_policies(policies: Iterable[Policy], trust: Trust, for_bytes: bool = False) -> tuple[CompiledPolicy, ...]:
    """Every policy, in order of name, so that the order in which they came says nothing. for_bytes: as they are judged where
    there is no HTTP (``rbac_bytes``); what is unusable for HTTP is so there, too.
    """
    return tuple(_policy(policy, trust, for_bytes) for policy in sorted(policies, key=lambda policy: policy.name))


def _policy(policy: Policy, trust: Trust, for_bytes: bool) -> CompiledPolicy:
    why = policy.unusable
    rules: tuple[CompiledRule, ...] = ()
    if not why:
        try:
            rules = tuple(_rule(policy, index, rule, trust) for index, rule in enumerate(policy.rules))
            if for_bytes:
                rules = tuple(_rule(policy, index, rule, trust) for index, rule in rules_for_bytes(policy))
        except Invalid as error:
            why = str(error)
    return CompiledPolicy(policy.name, policy.action, policy.dry_run, policy.provider, rules, why)


def _rule(policy: Policy, index: int, rule: Rule, trust: Trust) -> CompiledRule:
    path = f"rules[{index}]"
    sources = tuple(source_fields(one, trust, f"{path}.sources[{at}]") for at, one in enumerate(rule.sources))
    operations = tuple(operation_fields(one, f"{path}.operations[{at}]") for at, one in enumerate(rule.operations))
    blind = policy.action != "ALLOW"
    when: tuple[Field, ...] = ()
    for at, condition in enumerate(rule.when):
        when += condition_field(condition, trust, blind, f"{path}.when[{at}]")
    parts = [_any([_all([field.holds for field in fields]) for fields in group]) for group in (operations, sources) if group]
    holds = _all([part for part in parts if part is not None] + [field.holds for field in when]) or _always
    return CompiledRule(index, holds, sources, operations, when, _matched(policy, index))


def _matched(policy: Policy, index: int) -> Decision:
    """What a match of this rule decides."""
    action, name, dry = policy.action, policy.name, policy.dry_run
    if action == "DENY":
        reason = f"rule {index} of DENY policy {name} matched"
        return Decision(False, action, name, index, reason, detail=denial(policy_id(name, index)), dry_run=dry)
    reason = f"rule {index} of {action} policy {name} matched"
    return Decision(True, action, name, index, reason, result="allowed" if action == "ALLOW" else "matched", dry_run=dry)


def _always(exchange: InFlight) -> bool:
    return True


def _all(tests: Sequence[Test | None]) -> Test | None:
    """One test for all of them; None: there is nothing to test."""
    real = tuple(test for test in tests if test is not None)
    if not real:
        return None
    if len(real) == 1:
        return real[0]
    if len(real) == 2:
        one, two = real
        return lambda exchange: one(exchange) and two(exchange)

    def every(exchange: InFlight) -> bool:
        for test in real:  # noqa: SIM110  a generator inside all() costs more than the tests
            if not test(exchange):
                return False
        return True

    return every


def _any(tests: Sequence[Test | None]) -> Test | None:
    """One test for any of them; None: one of them holds always."""
    real = tuple(test for test in tests if test is not None)
    if len(real) != len(tests):
        return None
    if len(real) == 1:
        return real[0]

    def some(exchange: InFlight) -> bool:
        for test in real:  # noqa: SIM110  as above
            if test(exchange):
                return True
        return False

    return some


Pairs = tuple[tuple[Test, Decision], ...]


def _pairs(policies: Iterable[CompiledPolicy], action: str, dry_run: bool) -> Pairs:
    chosen = (policy for policy in policies if policy.action == action and policy.dry_run is dry_run and not policy.unusable)
    return tuple((rule.holds, rule.matched) for policy in chosen for rule in policy.rules)


_NOTHING = Decision(True, "ALLOW", "", -1, "no DENY policy matched, and there is no ALLOW policy")
_NO_ALLOW = Decision(False, "ALLOW", "", -1, "no ALLOW policy matched", detail=denial("none"))
_DRY_NO_ALLOW = Decision(False, "ALLOW", "", -1, "no ALLOW policy in dry run matched", detail=denial("none"), dry_run=True)
_DRY_NO_DENY = Decision(True, "DENY", "", -1, "no DENY policy in dry run matched", dry_run=True)


class Judge:
    """DENY and ALLOW, and what is only noted: AUDIT and dry runs. ``policies`` are all that it judges by."""

    __slots__ = ("_allow", "_audit", "_blocked", "_default", "_deny", "_dry_allow", "_dry_deny", "notes", "policies")

    def __init__(self, policies: Iterable[CompiledPolicy]) -> None:
        mine = self.policies = tuple(policy for policy in policies if policy.action != "CUSTOM")
        self._blocked = _blocked(mine)
        self._deny = _pairs(mine, "DENY", False)
        self._allow = _pairs(mine, "ALLOW", False)
        has_allow = any(policy.action == "ALLOW" and not policy.dry_run for policy in mine)
        self._default = _NO_ALLOW if has_allow else _NOTHING
        self._audit = _pairs(mine, "AUDIT", False)
        dry = {policy.action for policy in mine if policy.dry_run and not policy.unusable}
        self._dry_deny = _pairs(mine, "DENY", True) if "DENY" in dry else None
        self._dry_allow = _pairs(mine, "ALLOW", True) if "ALLOW" in dry else None
        self.notes = bool(self._audit or dry)

    def judge(self, exchange: InFlight) -> Decision:
        """The decision. (benchmarks/micro_policy.py "rbac")"""
        if self._blocked is not None:
            return self._blocked
        for holds, decision in self._deny:
            if holds(exchange):
                return decision
        for holds, decision in self._allow:
            if holds(exchange):
                return decision
        return self._default

    def noted(self, exchange: InFlight) -> tuple[Decision, ...]:
        """What AUDIT policies matched and what dry runs would have decided; asked only where ``notes``."""
        found = tuple(decision for holds, decision in self._audit if holds(exchange))
        if self._dry_deny is not None:
            found += (_first(self._dry_deny, exchange, _DRY_NO_DENY),)
        if self._dry_allow is not None:
            found += (_first(self._dry_allow, exchange, _DRY_NO_ALLOW),)
        return found


def _first(pairs: Pairs, exchange: InFlight, default: Decision) -> Decision:
    for holds, decision in pairs:
        if holds(exchange):
            return decision
    return default


def _blocked(policies: Iterable[CompiledPolicy]) -> Decision | None:
    """The denial of the first unusable policy in force, or None. A dry run changes nothing, not even when it is broken."""
    for policy in policies:
        if policy.unusable and not policy.dry_run:
            reason = f"{policy.action} policy {policy.name} cannot be obeyed, so everything is denied: {policy.unusable}"
            return Decision(False, policy.action, policy.name, -1, reason, detail=denial(policy_id(policy.name, -1)))
    return None


class Custom:
    """The CUSTOM policies of one provider. ``known`` False: there is no such provider, and what matches is denied. ``why``
    says so.
    """

    __slots__ = ("_blocked", "_dry", "_rules", "notes", "policies", "provider")

    def __init__(self, provider: str, policies: Iterable[CompiledPolicy], known: bool, why: str = _UNKNOWN) -> None:
        self.provider = provider
        mine = self.policies = tuple(policy for policy in policies if policy.action == "CUSTOM" and policy.provider == provider)
        self._blocked = _blocked(mine)
        rules = _pairs(mine, "CUSTOM", False)
        self._rules = rules if known else tuple((holds, _bad(decision, why)) for holds, decision in rules)
        self._dry = _pairs(mine, "CUSTOM", True)
        self.notes = bool(self._dry)

    def ask(self, exchange: InFlight) -> Decision | None:
        """The first rule that matched (``allowed``: its provider is to be asked), or a denial, or None: nobody is asked."""
        if self._blocked is not None:
            return self._blocked
        for holds, decision in self._rules:
            if holds(exchange):
                return decision
        return None

    def noted(self, exchange: InFlight) -> tuple[Decision, ...]:
        """The dry runs that would have asked. Nobody is."""
        return tuple(decision for holds, decision in self._dry if holds(exchange))


def admitter(policies: Sequence[CompiledPolicy]) -> Callable[[InFlight], tuple[Decision, ...]]:
    """All that policies for bytes say of a connection; one that is not ``allowed`` and no dry run ends it. Nobody can be asked
    about bytes over HTTP, so what a CUSTOM rule matches is denied (Istio: an envoyExtAuthzHttp provider at a TCP port).
    """
    judge = Judge(policies)
    customs = [
        Custom(name, policies, False, _BYTES) for name in sorted({one.provider for one in policies if one.action == "CUSTOM"})
    ]

    def admit(relay: InFlight) -> tuple[Decision, ...]:
        found = judge.noted(relay) if judge.notes else ()
        for custom in customs:
            found += custom.noted(relay)
            denied = custom.ask(relay)
            if denied is not None:
                return (*found, denied)
        return (*found, judge.judge(relay)) if judge.policies else found

    return admit


def _bad(decision: Decision, why: str) -> Decision:
    matched = policy_id(decision.policy, decision.rule, "-deny-due-to-bad-CUSTOM-action")
    reason = f"{decision.reason}, but {why}"
    return Decision(False, "CUSTOM", decision.policy, decision.rule, reason, detail=denial(matched))
