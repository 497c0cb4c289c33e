"""Analysis, selectors: resources that select no workload, and some that select the same. Codes IST0110, IST0111, IST0127.

In: a scene. Out: findings. Semantics A1 (Sidecar), A3 (scope of policies: the root namespace speaks for all), A4
(a Telemetry of the root namespace that selects is for pods of that namespace).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from control.analyze.finding import Finding, Subject, found
from control.analyze.scene import Scene
from control.resources.sidecar import Sidecar

__all__ = ["matching", "overlaps", "sidecars"]

T = TypeVar("T")
_SELECTING = ("PeerAuthentication", "RequestAuthentication", "AuthorizationPolicy", "Telemetry")


def matching(scene: Scene) -> Iterator[Finding]:
    if not scene.knows_workloads:
        return
    selected = [(one, _labels(one), "spec.selector") for kind in _SELECTING for one in scene.all(kind)]
    selected += [(one, _sidecar_labels(one), "spec.workloadSelector") for one in scene.all("Sidecar")]
    for one, labels, path in selected:
        namespace = one.metadata.namespace
        anywhere = namespace == scene.mesh.root_namespace and one.kind != "Telemetry"
        if not labels or scene.pods(labels, None if anywhere else namespace) or scene.usual_gateway(labels):
            continue
        shown = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
        message = f"No matching workloads for this resource with the following labels: {shown}. It protects and changes nothing."
        yield found("IST0127", Subject.of(one), path, message)


def _labels(one: Any) -> dict[str, str]:
    selector = getattr(one.spec, "selector", None)
    return selector.match_labels if selector is not None else {}


def _sidecar_labels(one: Sidecar) -> dict[str, str]:
    return one.spec.workload_selector.labels if one.spec.workload_selector is not None else {}


def sidecars(scene: Scene) -> Iterator[Finding]:
    for namespace, group in sorted(scene.config.sidecars.items()):  # each oldest first
        general = [one for one in group if not _sidecar_labels(one)]
        for one in general[1:]:
            message = (
                f"Sidecar {general[0].metadata.name} speaks for the whole of namespace {namespace} already, and the oldest "
                "counts: this one is ignored. Give it a workloadSelector, or merge the two."
            )
            yield found("IST0111", Subject.of(one), "spec.workloadSelector", message)
        selecting = [one for one in group if _sidecar_labels(one)]
        for one, other, pod in overlaps(scene, namespace, [(one, _sidecar_labels(one)) for one in selecting]):
            message = (
                f"Sidecar {other.metadata.name} selects the same workload pod {pod}, and the oldest counts there. "
                "Make the selectors disjoint."
            )
            yield found("IST0110", Subject.of(one), "spec.workloadSelector", message)


def overlaps(scene: Scene, namespace: str, group: Sequence[tuple[T, Mapping[str, str]]]) -> Iterator[tuple[T, T, str]]:
    """Of objects with what they select, oldest first: one, an older one that selects the same pod, and such a pod."""
    picked = [{pod.name for pod in scene.pods(labels, namespace)} for _, labels in group]
    for position, (one, _) in enumerate(group):
        for older in range(position):
            if shared := picked[position] & picked[older]:
                yield one, group[older][0], min(shared)
