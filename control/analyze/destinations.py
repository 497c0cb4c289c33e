"""Analysis, DestinationRules and the pods behind them. Codes IST0173, IST0174, MESH0005, MESH0007, MESH0008.

In: a scene. Out: findings. Pods count whether they are ready or not: a restart is no mistake of the configuration.
"""

from __future__ import annotations

from collections.abc import Iterator

from control.analyze.finding import Finding, Subject, found
from control.analyze.scene import Scene, Target
from control.analyze.walk import uses
from control.resources.destination_rule import DestinationRule
from control.resources.shape import nearest

__all__ = ["conflicts", "empty_subsets", "empty_targets", "unknown_hosts"]


def unknown_hosts(scene: Scene) -> Iterator[Finding]:
    for rule in scene.all("DestinationRule"):
        if scene.rules_of(rule):
            continue
        host = scene.expand(rule.spec.host, rule.metadata.namespace)
        near = scene.near(host)
        hint = f'; did you mean "{near}"?' if near else "; it changes nothing until there is such a service"
        message = f"The host {rule.spec.host} defined in the DestinationRule does not match any services in the mesh{hint}"
        yield found("IST0174", Subject.of(rule), "spec.host", message)


def empty_subsets(scene: Scene) -> Iterator[Finding]:
    for rule in scene.all("DestinationRule"):
        targets = [scene.target(service) for service in scene.rules_of(rule) if scene.judgeable(service)]
        if not targets:
            continue
        for index, subset in enumerate(rule.spec.subsets):
            if not any(target.selected(subset.labels) for target in targets):
                message = f"The Subset {subset.name} defined in the DestinationRule does not select any pods"
                hint = _labels_hint(targets, subset.labels)
                yield found("IST0173", Subject.of(rule), f"spec.subsets[{index}].labels", message + hint)


def _labels_hint(targets: list[Target], wanted: dict[str, str]) -> str:
    """What the pods do have: the values under the same key, or the nearest key."""
    pods = [labels for target in targets for labels in target.labels]
    if not pods:
        return ": the service has no pods"
    for key, value in sorted(wanted.items()):
        if any(labels.get(key) == value for labels in pods):
            continue
        values = sorted({labels[key] for labels in pods if key in labels})
        if values:
            return f": {key} is {', '.join(values[:4])} on the pods, not {value}"
        keys = sorted({name for labels in pods for name in labels})
        near = next((name for name in keys if name.rpartition("/")[2] == key.rpartition("/")[2]), nearest(key, keys))
        return f": no pod has a label {key}" + (f"; did you mean {near}?" if near else "")
    return ": no pod has all of its labels at once"


def empty_targets(scene: Scene) -> Iterator[Finding]:
    for vs in scene.all("VirtualService"):
        for use in uses(vs):
            if not use.share:
                continue
            to, namespace = use.destination, vs.metadata.namespace
            service = scene.service(scene.expand(to.host, namespace), namespace)
            if service is None or not scene.judgeable(service):
                continue
            target = scene.target(service)
            part = "all requests" if use.share == 100 else f"{use.share:g} % of requests"
            if not target.labels:
                message = f'{part} of this rule go to "{service.host}", which has no pods: 503. Start some, or mend its selector.'
                yield found("MESH0007", Subject.of(vs), use.path, message)
                continue
            rule = scene.rule_for(service, namespace)
            subset = rule.subsets.get(to.subset) if rule is not None else None
            if subset is not None and not target.selected(subset[0].labels):
                message = (
                    f'{part} of this rule go to subset "{to.subset}" of "{service.host}", which selects no pod: 503. '
                    f"Mend its labels in {subset[1]}."
                )
                yield found("MESH0005", Subject.of(vs), use.path, message)


def conflicts(scene: Scene) -> Iterator[Finding]:
    """Several rules of one namespace for one host are merged: the oldest policy counts, and the oldest of equal subsets."""
    for _, index in sorted(scene.config.destination_rules.items()):
        for host, rules in sorted(index.by_host.items()):
            for position, rule in enumerate(rules):
                elders = [one for one in rules[:position] if _meet(one, rule)]
                if elders:
                    yield from _against(elders, rule, host)


def _meet(one: DestinationRule, other: DestinationRule) -> bool:
    """Whether both are merged: a selector makes rules for different clients."""
    return not any(r.spec.workload_selector is not None or "~" in r.spec.export_to for r in (one, other))


def _against(elders: list[DestinationRule], rule: DestinationRule, host: str) -> Iterator[Finding]:
    subject = Subject.of(rule)
    elder = next((one for one in elders if one.spec.traffic_policy is not None), None)
    if rule.spec.traffic_policy is not None and elder is not None:
        other = f"{elder.metadata.namespace}/{elder.metadata.name}"
        message = f'ignored: DestinationRule {other} gives host "{host}" a policy already, and the oldest counts. Merge the two.'
        yield found("MESH0008", subject, "spec.trafficPolicy", message)
    for index, subset in enumerate(rule.spec.subsets):
        owner = next((one for one in elders if any(s.name == subset.name for s in one.spec.subsets)), None)
        if owner is not None:
            other = f"{owner.metadata.namespace}/{owner.metadata.name}"
            message = f'ignored: DestinationRule {other} has subset "{subset.name}" already, the oldest counts. Merge the two.'
            yield found("MESH0008", subject, f"spec.subsets[{index}]", message)
