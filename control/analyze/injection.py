"""Analysis, injection: pods of the mesh that have no sidecar. Codes IST0102, IST0103, IST0123.

In: a scene. Out: findings. A pod that runs its sidecar without injection (as those of ``meshctl run`` do) is fine, so a
namespace is named only when it has pods without one. Semantics F (decision).
"""

from __future__ import annotations

from collections.abc import Iterator

from control.analyze.finding import Finding, Subject, found
from control.analyze.ports import SYSTEM_NAMESPACES
from control.analyze.scene import Scene
from control.resources.core import Namespace, Pod

__all__ = ["pods"]

PROXY = "istio-proxy"
INJECT = "sidecar.istio.io/inject"


def pods(scene: Scene) -> Iterator[Finding]:
    spaces: dict[str, Namespace] = {one.metadata.name: one for one in scene.all("Namespace")}
    bare: dict[str, list[Pod]] = {}
    for pod in scene.all("Pod"):
        space = pod.metadata.namespace
        if space not in SYSTEM_NAMESPACES and space != scene.mesh.root_namespace and _bare(pod):
            bare.setdefault(space, []).append(pod)
    for name, namespace in sorted(spaces.items()):
        labels = namespace.metadata.labels or {}
        subject = Subject("Namespace", "", name)
        if "istio-injection" in labels and "istio.io/rev" in labels:
            message = "has both labels istio-injection and istio.io/rev; keep one, the first decides"
            yield found("IST0123", subject, "metadata.labels", message)
        enabled = labels.get("istio-injection") == "enabled" or ("istio.io/rev" in labels and "istio-injection" not in labels)
        without = bare.get(name, [])
        if enabled:
            # Pods in files are templates: injection happens when they are created.
            for pod in without if scene.live else ():
                message = f"The pod {pod.metadata.name} is missing the Istio proxy. Recreate it, so that it is injected."
                yield found("IST0103", Subject.of(pod), "spec.containers", message)
        elif without and "istio-injection" not in labels:
            message = (
                "The namespace is not enabled for Istio injection. Run "
                f"'kubectl label namespace {name} istio-injection=enabled' to enable it, or "
                f"'kubectl label namespace {name} istio-injection=disabled' to explicitly mark it as not needing injection."
            )
            yield found("IST0102", subject, "metadata.labels", message)


def _bare(pod: Pod) -> bool:
    if any(container.name == PROXY for container in (*pod.spec.containers, *pod.spec.init_containers)):
        return False
    wish = (pod.metadata.labels or {}).get(INJECT) or (pod.metadata.annotations or {}).get(INJECT)
    return wish != "false" and not pod.spec.host_network
