"""Whether a pod gets a sidecar. Quiet.

In: a pod, its namespace, the settings. Out: ``Decision``: yes or no and why, in words for people. Semantics F: what cannot
work (the host's own network, Windows) comes first, then namespaces that are left alone, then what the pod says of itself (its
label before its annotation), then the selectors, then the policy. Labels of namespaces are the webhook configuration's
business: a pod that is not meant never arrives.
"""

from __future__ import annotations

from typing import NamedTuple

from injector.names import INJECT, Obj
from injector.settings import Settings

__all__ = ["LEFT_ALONE", "Decision", "decide"]

LEFT_ALONE = ("kube-system", "kube-public", "kube-node-lease", "local-path-storage")


class Decision(NamedTuple):
    """``warning``: for the user to read, whatever was decided."""

    inject: bool
    reason: str
    warning: str = ""


def decide(pod: Obj, namespace: str, settings: Settings) -> Decision:
    spec, metadata = pod.get("spec") or {}, pod.get("metadata") or {}
    if spec.get("hostNetwork") is True:
        return Decision(False, "spec.hostNetwork is true: interception would change the host's own traffic")
    if _windows(spec):
        return Decision(False, "the pod runs on Windows: there is no sidecar for it")
    if namespace in LEFT_ALONE:
        return Decision(False, f"the namespace {namespace} is left alone")
    labels = metadata.get("labels") or {}
    where, wish = f"the annotation {INJECT}", (metadata.get("annotations") or {}).get(INJECT)
    if labels.get(INJECT) is not None:
        where, wish = f"the label {INJECT}", labels[INJECT]
    if wish in ("true", "false"):
        return Decision(wish == "true", f"{where} is {wish}")
    warning = f'{where}: "{wish}" is neither "true" nor "false" and counts as not set' if wish else ""
    if namespace == settings.root_namespace:
        return Decision(False, f"the namespace {namespace} is the mesh's own, and the pod does not ask for a sidecar", warning)
    for name, selectors, inject in (
        ("neverInjectSelector", settings.never_inject_selector, False),
        ("alwaysInjectSelector", settings.always_inject_selector, True),
    ):
        for i, selector in enumerate(selectors):
            if selector.matches(labels):
                return Decision(inject, f"{name}[{i}] picks the pod's labels", warning)
    return Decision(settings.policy == "enabled", f"the injector's policy is {settings.policy}", warning)


def _windows(spec: Obj) -> bool:
    return (spec.get("os") or {}).get("name") == "windows" or (spec.get("nodeSelector") or {}).get(
        "kubernetes.io/os"
    ) == "windows"
