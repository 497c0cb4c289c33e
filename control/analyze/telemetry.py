"""Analysis, telemetry: Telemetries that hide each other, and providers that are not there. Codes IST0101, IST0157, IST0159,
IST0160.

In: a scene. Out: findings. Semantics A4: of a scope the oldest counts; what names no provider takes that of the next wider
scope, at last the MeshConfig's.
"""

from __future__ import annotations

from collections.abc import Container, Iterator

from control.analyze.finding import Finding, Subject, found
from control.analyze.scene import Scene
from control.analyze.selectors import overlaps
from control.resources.telemetry import Telemetry
from control.world.reporting import Reporting

__all__ = ["conflicts", "providers"]


def conflicts(scene: Scene) -> Iterator[Finding]:
    for namespace, group in sorted(scene.config.telemetry.items()):
        for one in group.general[1:]:
            message = (
                f"Telemetry {group.general[0].metadata.name} speaks for the whole of namespace {namespace} already, and the "
                "oldest counts: this one is ignored. Give it a selector, or merge the two."
            )
            yield found("IST0160", Subject.of(one), "spec.selector", message)
        selecting = [(one, dict(pairs or ())) for one, pairs in group.selecting if one.spec.selector is not None]
        for one, other, pod in overlaps(scene, namespace, selecting):
            message = (
                f"Telemetry {other.metadata.name} selects the same workload pod {pod}, and the oldest counts there. "
                "Make the selectors disjoint."
            )
            yield found("IST0159", Subject.of(one), "spec.selector", message)


def providers(scene: Scene) -> Iterator[Finding]:
    """Files seldom hold the MeshConfig, so only those that do, and a mesh, are asked."""
    mesh = scene.mesh.reporting
    if not (scene.live or mesh != Reporting()):
        return
    tracing, logging = dict(mesh.traces), dict(mesh.logs)
    for one in scene.all("Telemetry"):
        spec = one.spec
        named: list[tuple[str, str, Container[str]]] = []
        for i, part in enumerate(spec.tracing):
            named += ((f"spec.tracing[{i}].providers[0].name", ref.name, tracing) for ref in part.providers[:1])
        for i, part in enumerate(spec.metrics):
            at = f"spec.metrics[{i}].providers"
            named += ((f"{at}[{j}].name", ref.name, mesh.metrics) for j, ref in enumerate(part.providers))
        for i, part in enumerate(spec.access_logging):
            at = f"spec.accessLogging[{i}].providers"
            named += ((f"{at}[{j}].name", ref.name, logging) for j, ref in enumerate(part.providers))
            if not (part.providers or part.disabled or mesh.default_logs or _named_wider(scene, one)):
                message = "There is no provider, nor do the MeshConfig's defaultProviders name one: nothing is logged. Name one."
                yield found("IST0157", Subject.of(one), at, message)
        for path, name, known in named:
            if name not in known:
                why = dict(mesh.unusable).get(name, "")
                missing = f'Referenced provider not found: "{name}"; add it to MeshConfig extensionProviders'
                told = f'"{name}" {why}' if why else missing
                yield found("IST0101", Subject.of(one), path, f"{told}. Nothing is sent to it.")


def _named_wider(scene: Scene, one: Telemetry) -> bool:
    """Whether this one, or one of a wider scope, names a provider for access logs."""
    spaces = (scene.mesh.root_namespace, one.metadata.namespace)
    wide = [scene.config.telemetry[space].wide for space in spaces if space in scene.config.telemetry]
    return any(part.providers for scope in (*wide, one) if scope is not None for part in scope.spec.access_logging)
