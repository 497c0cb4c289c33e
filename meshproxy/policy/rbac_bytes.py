"""Room: policy. AuthorizationPolicies where there is no HTTP to look at (semantics B6.8; Istio: ``generateTCP``).

In: a ``Policy``. Out: its rules by number, as they are judged for plain bytes. An ALLOW rule that asks for anything of HTTP is
left out as a whole, so it allows less. Every other action loses just the conditions that nobody can judge here, so that it
denies (or notes) more; a rule with nothing else left matches everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from msgspec.structs import replace

from meshproxy.model.security import Operation, Policy, Rule, Source

__all__ = ["rules_for_bytes"]

T = TypeVar("T", Source, Operation)
_SOURCE = ("request_principals", "not_request_principals")
_OPERATION = ("hosts", "not_hosts", "methods", "not_methods", "paths", "not_paths")


def rules_for_bytes(policy: Policy) -> Iterator[tuple[int, Rule]]:
    """(number within the policy, rule)."""
    for number, rule in enumerate(policy.rules):
        bare = Rule(
            tuple(_without(source, _SOURCE) for source in rule.sources),
            tuple(_without(operation, _OPERATION) for operation in rule.operations),
            tuple(condition for condition in rule.when if not _of_http(condition.key)),
        )
        if policy.action != "ALLOW" or bare == rule:
            yield number, bare


def _without(model: T, fields: tuple[str, ...]) -> T:
    return replace(model, **{field: () for field in fields if getattr(model, field)})


def _of_http(key: str) -> bool:
    return key.startswith("request.")
