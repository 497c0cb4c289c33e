"""Analysis, resilience: retries, timeouts, faults and ejection that cannot do what they say. Codes MESH0001 to MESH0004.

In: a scene. Out: findings. Semantics B1.5 (who may be ejected), B2.3, B2.8 (retries stay in the subset), A2 (faults).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from control.analyze.finding import Finding, Subject, found
from control.analyze.scene import Scene
from control.analyze.walk import http_rules, uses
from control.resources.destination_rule import DestinationRule, OutlierDetection, PortTrafficPolicy, TrafficPolicy
from control.resources.values import parse_duration
from control.translate import traffic

__all__ = ["ejection", "faults", "retries", "timeouts"]


def timeouts(scene: Scene) -> Iterator[Finding]:
    for vs, index, rule in http_rules(scene):
        retries = rule.retries
        if retries is None or retries.attempts <= 0 or not retries.per_try_timeout or not rule.timeout:
            continue
        whole, one = parse_duration(rule.timeout), parse_duration(retries.per_try_timeout)
        if whole and one >= whole:
            message = (
                f"{retries.per_try_timeout} is not shorter than the rule's timeout of {rule.timeout}, which covers all tries: "
                f"after a slow try there is no time for another. Make it at most {whole / (retries.attempts + 1):.3g}s."
            )
            yield found("MESH0003", Subject.of(vs), f"spec.http[{index}].retries.perTryTimeout", message)


def faults(scene: Scene) -> Iterator[Finding]:
    for vs, index, rule in http_rules(scene):
        fault = rule.fault
        if fault is None:
            continue
        delay, abort = fault.delay, fault.abort
        shares = []
        if delay is not None:
            shares.append(("delay", delay.percentage.value if delay.percentage is not None else float(delay.percent)))
        if abort is not None:
            shares.append(("abort", abort.percentage.value if abort.percentage is not None else 0.0))
        for name, share in shares:
            if share <= 0:
                message = "never happens: its percentage is 0 or not given. Set percentage.value, such as 100."
                yield found("MESH0004", Subject.of(vs), f"spec.http[{index}].fault.{name}", message)


def retries(scene: Scene) -> Iterator[Finding]:
    """Only of retries that somebody asked for; the mesh's default is everywhere."""
    for vs in scene.all("VirtualService"):
        for use in uses(vs):
            index = _http_index(use.path)
            if index is None or not use.share:
                continue
            asked = vs.spec.http[index].retries
            if asked is None or asked.attempts <= 0:
                continue
            to, namespace = use.destination, vs.metadata.namespace
            service = scene.service(scene.expand(to.host, namespace), namespace)
            if service is None or not scene.judgeable(service):
                continue
            target = scene.target(service)
            rule = scene.rule_for(service, namespace)
            subset = rule.subsets.get(to.subset) if rule is not None else None
            pods = target.selected(subset[0].labels) if subset is not None else target.labels
            if len(pods) == 1:
                what = f'subset "{to.subset}" of "{service.host}"' if subset is not None else f'"{service.host}"'
                message = f"{what} has one endpoint only, and retries stay with their destination: they go where it failed"
                yield found("MESH0002", Subject.of(vs), f"spec.http[{index}].retries", message)


def _http_index(path: str) -> int | None:
    head, _, rest = path.partition("[")
    return int(rest.partition("]")[0]) if head == "spec.http" and ".route[" in rest else None


def ejection(scene: Scene) -> Iterator[Finding]:
    used = _used_subsets(scene)
    for rule in scene.all("DestinationRule"):
        for service in scene.rules_of(rule):
            if not scene.judgeable(service):
                continue
            target = scene.target(service)
            whole = list(_detections(rule.spec.traffic_policy, "spec.trafficPolicy"))
            everybody = (len(target.labels), f'"{service.host}"')
            said = [one for path, settings in whole for one in _judge(rule, path, settings, *everybody)]
            yield from said
            for index, subset in enumerate(rule.spec.subsets):
                own = list(_detections(subset.traffic_policy, f"spec.subsets[{index}].trafficPolicy"))
                # What holds for the whole service need not be said of its parts.
                inherited = whole if not own and not said and (service.host, subset.name) in used else []
                count = len(target.selected(subset.labels))
                for path, settings in [*own, *inherited]:
                    yield from _judge(rule, path, settings, count, f'subset "{subset.name}" of "{service.host}"')


def _detections(policy: TrafficPolicy | None, path: str) -> Iterator[tuple[str, OutlierDetection]]:
    if policy is None:
        return
    blocks: list[tuple[str, TrafficPolicy | PortTrafficPolicy]] = [(path, policy)]
    blocks += [(f"{path}.portLevelSettings[{index}]", one) for index, one in enumerate(policy.port_level_settings)]
    for at, block in blocks:
        if block.outlier_detection is not None:
            yield f"{at}.outlierDetection", block.outlier_detection


def _used_subsets(scene: Scene) -> frozenset[tuple[str, str]]:
    """(host, subset) that any VirtualService sends to: a subset that nobody uses ejects nobody."""
    return frozenset(
        (scene.expand(use.destination.host, vs.metadata.namespace), use.destination.subset)
        for vs in scene.all("VirtualService")
        for use in uses(vs)
        if use.destination.subset
    )


def _judge(rule: DestinationRule, path: str, settings: OutlierDetection, count: int, what: str) -> Iterator[Finding]:
    model = traffic.outlier(settings)
    assert model is not None
    if not count or model.max_ejection_percent * count >= 100:
        return
    default = "" if settings.max_ejection_percent > 0 else " (the default)"
    hosts = "the only endpoint" if count == 1 else f"the {count} endpoints"
    message = (
        f"{model.max_ejection_percent} %{default} of {hosts} of {what} is less than one: "
        f"nobody is ever ejected. Set it to at least {ceil(100 / count)}; 100 allows all to be ejected."
    )
    yield found("MESH0001", Subject.of(rule), f"{path}.maxEjectionPercent", message)
