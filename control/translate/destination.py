"""Translate, DestinationRules: which rule speaks for a service to a client, and what policy that gives per port and subset.

In: the rule indexes, a service, a client. Out: ``MergedRule`` and ``Policy``. Semantics A1 ("lookup", "Several DRs merge",
"Subset policy overrides per block, portLevelSettings replaces wholesale").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from control.resources.destination_rule import (
    ClientTLSSettings,
    ConnectionPoolSettings,
    DestinationRule,
    LoadBalancerSettings,
    OutlierDetection,
    PortTrafficPolicy,
    RetryBudget,
    Subset,
    TrafficPolicy,
)
from control.world.config import Config
from control.world.services import MeshService, exported

__all__ = ["MergedRule", "Policy", "lookup", "merge", "policy_for"]


@dataclass(frozen=True, slots=True)
class Policy:
    """The blocks in force for one port of one (subset of a) service."""

    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None
    retry_budget: RetryBudget | None = None


@dataclass(frozen=True, slots=True, eq=False)
class MergedRule:
    """One or more DestinationRules of the same host and namespace, merged. ``subsets``: name -> (subset, whose).

    ``credentials``: a ``tls`` block names a Secret. ``chosen``: by workloadSelector, among rules of the client's own namespace.
    """

    rules: tuple[DestinationRule, ...]
    policy: TrafficPolicy | None
    policy_source: str
    subsets: Mapping[str, tuple[Subset, str]]
    credentials: bool = False
    chosen: bool = False

    @property
    def source(self) -> str:
        return self.policy_source or _source(self.rules[0])


def lookup(
    config: Config, service: MeshService, client_namespace: str, client_labels: Mapping[str, str]
) -> tuple[DestinationRule, ...]:
    """The rules for ``service`` as this client sees it: client namespace, then the service's, then the root namespace.

    In the root namespace itself the client step is left out, so that a mesh-wide default there does not beat the service
    owner's rule for gateways (Istio does the same).
    """
    root = config.mesh.root_namespace
    for step, namespace in enumerate((client_namespace, service.namespace, root)):
        if step == 0 and namespace == root:
            continue
        index = config.destination_rules.get(namespace)
        if index is None:
            continue
        rules = [
            rule
            for rule in index.lookup(service.host)
            if exported(rule.spec.export_to, namespace, client_namespace) or (step == 0 and not _nowhere(rule))
        ]
        selected = [r for r in rules if r.spec.workload_selector is not None and r.spec.workload_selector.match_labels]
        if selected:
            # A selector speaks about clients of the rule's own namespace, and then beats a rule without one.
            chosen = [r for r in selected if namespace == client_namespace and _selected(r, client_labels)]
            rules = chosen or [r for r in rules if r not in selected]
        if rules:
            return tuple(rules)
    return ()


def merge(rules: tuple[DestinationRule, ...]) -> MergedRule:
    """The oldest policy wins; subsets of distinct names are collected, the oldest of equal names wins."""
    policy, policy_source = None, ""
    subsets: dict[str, tuple[Subset, str]] = {}
    for rule in rules:
        if policy is None and rule.spec.traffic_policy is not None:
            policy, policy_source = rule.spec.traffic_policy, _source(rule)
        for subset in rule.spec.subsets:
            subsets.setdefault(subset.name, (subset, _source(rule)))
    credentials = any(_names_secret(p) for p in (policy, *(subset.traffic_policy for subset, _ in subsets.values())))
    selector = rules[0].spec.workload_selector
    chosen = selector is not None and bool(selector.match_labels)
    return MergedRule(rules, policy, policy_source, dict(sorted(subsets.items())), credentials, chosen)


def _names_secret(policy: TrafficPolicy | None) -> bool:
    if policy is None:
        return False
    blocks: list[TrafficPolicy | PortTrafficPolicy] = [policy, *policy.port_level_settings]
    return any(block.tls is not None and block.tls.credential_name for block in blocks)


def policy_for(rule: MergedRule | None, port: int, subset: Subset | None = None) -> Policy:
    """The policy for a port, for the whole service or for one of its subsets."""
    base = _at_port(Policy(), rule.policy, port) if rule is not None else Policy()
    return _at_port(base, subset.traffic_policy, port) if subset is not None else base


def _at_port(inherited: Policy, policy: TrafficPolicy | None, port: int) -> Policy:
    if policy is None:
        return inherited
    for setting in policy.port_level_settings:
        if setting.port is not None and setting.port.number == port:
            # Wholesale: a block that is left out here falls to the defaults, not to the destination's.
            return Policy(
                setting.load_balancer,
                setting.connection_pool,
                setting.outlier_detection,
                setting.tls,
                policy.retry_budget or inherited.retry_budget,
            )
    return Policy(
        policy.load_balancer or inherited.load_balancer,
        policy.connection_pool or inherited.connection_pool,
        policy.outlier_detection or inherited.outlier_detection,
        policy.tls or inherited.tls,
        policy.retry_budget or inherited.retry_budget,
    )


def _nowhere(rule: DestinationRule) -> bool:
    return "~" in rule.spec.export_to


def _selected(rule: DestinationRule, labels: Mapping[str, str]) -> bool:
    selector = rule.spec.workload_selector
    return selector is not None and all(labels.get(k) == v for k, v in selector.match_labels.items())


def _source(rule: DestinationRule) -> str:
    return f"DestinationRule {rule.metadata.namespace}/{rule.metadata.name}"
