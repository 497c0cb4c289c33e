"""Injection of what people write in files: a pod, or anything that makes pods. Quiet.

In: one object as in a manifest, the settings. Out: the object with the sidecar in its pod template, or why it has none. Kinds
that make no pods are left alone. The owner is the object itself: the pods that come from it are the webhook's to recognise
later.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import msgspec

from injector.annotations import BadPod
from injector.decide import decide
from injector.names import Obj, name_of
from injector.owners import Owner, owner_of
from injector.pod import inject
from injector.settings import Settings

__all__ = ["KINDS", "Injected", "into"]

_TEMPLATE = ("spec", "template")
KINDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "Pod"): (),
    ("", "ReplicationController"): _TEMPLATE,
    ("apps", "Deployment"): _TEMPLATE,
    ("apps", "StatefulSet"): _TEMPLATE,
    ("apps", "DaemonSet"): _TEMPLATE,
    ("apps", "ReplicaSet"): _TEMPLATE,
    ("extensions", "Deployment"): _TEMPLATE,
    ("extensions", "DaemonSet"): _TEMPLATE,
    ("extensions", "ReplicaSet"): _TEMPLATE,
    ("batch", "Job"): _TEMPLATE,
    ("batch", "CronJob"): ("spec", "jobTemplate", "spec", "template"),
    ("argoproj.io", "Rollout"): _TEMPLATE,
    ("apps.openshift.io", "DeploymentConfig"): _TEMPLATE,
}


@dataclass
class Injected:
    """``object`` is the one that came in when ``changed`` is not set. ``notes``: for the user to read."""

    object: Any
    changed: bool = False
    notes: list[str] = field(default_factory=list)


def into(value: Any, namespace: str, settings: Settings, path: str = "") -> Injected:
    """``namespace``: of objects that name none. Who injects by hand means it: a policy of ``disabled`` does not count. Raises
    ``BadPod`` with paths within the object."""
    if not isinstance(value, dict):
        return Injected(value)
    if value.get("kind") == "List" and isinstance(value.get("items"), list):
        return _list(value, namespace, settings, path)
    kind, api_version = value.get("kind"), value.get("apiVersion")
    if not isinstance(kind, str) or not isinstance(api_version, str):
        return Injected(value)
    steps = KINDS.get((api_version.rpartition("/")[0], kind))
    if steps is None:
        return Injected(value)
    made = copy.deepcopy(value)
    holder: Any = made
    template: Any = made
    at = path
    for step in steps:
        at = f"{at}{step}."
        holder, template = template, template.get(step)
        if not isinstance(template, dict):
            raise BadPod([f"{at.rstrip('.')}: must be an object: it is what the pods are made of"])
    _shaped(template, at)
    given = value.get("metadata")
    metadata: Obj = given if isinstance(given, dict) else {}
    space = (template.get("metadata") or {}).get("namespace") or metadata.get("namespace") or namespace
    who = f'{kind} "{metadata["namespace"] + "/" if metadata.get("namespace") else ""}{name_of(metadata)}"'
    decision = decide(template, space, msgspec.structs.replace(settings, policy="enabled"))
    notes = [f"{who}: {decision.warning}"] if decision.warning else []
    if not decision.inject:
        return Injected(value, notes=[*notes, f"===> Skipping injection because {decision.reason}: {who}"])
    owner = Owner(api_version, kind, str(metadata.get("name") or metadata.get("generateName") or "").rstrip("-."), space)
    done = inject(template, space, settings, owner=owner_of(value, space) if not steps else owner, path=at)
    if not steps:
        made = done
    else:
        holder[steps[-1]] = done
    return Injected(made, made != value, notes)


def _list(value: Obj, namespace: str, settings: Settings, path: str) -> Injected:
    inner = [into(item, namespace, settings, f"{path}items[{i}].") for i, item in enumerate(value["items"])]
    notes = [note for one in inner for note in one.notes]
    if not any(one.changed for one in inner):
        return Injected(value, notes=notes)
    return Injected({**value, "items": [one.object for one in inner]}, True, notes)


def _shaped(pod: Obj, path: str) -> None:
    """The webhook's pods have been read by Kubernetes; a file's have not."""
    metadata, spec = pod.get("metadata"), pod.get("spec")
    if metadata is not None and not isinstance(metadata, dict):
        raise BadPod([f"{path}metadata: must be an object"])
    if not isinstance(spec, dict):
        raise BadPod([f"{path}spec: must be an object with containers"])
    for name in ("labels", "annotations"):
        given = (metadata or {}).get(name)
        if given is not None and not isinstance(given, dict):
            raise BadPod([f"{path}metadata.{name}: must be an object of texts"])
        for key, text in (given or {}).items():
            if not isinstance(text, str):
                shown = str(text).lower() if isinstance(text, bool) else text
                raise BadPod([f'{path}metadata.{name}[{key}]: must be a text: put it in quotes, "{shown}"'])
    for name in ("containers", "initContainers", "volumes", "imagePullSecrets"):
        given = spec.get(name)
        if given is None:
            continue
        if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
            raise BadPod([f"{path}spec.{name}: must be a list of objects"])
        for i, one in enumerate(given):
            if not isinstance(one.get("name"), str):
                raise BadPod([f"{path}spec.{name}[{i}].name: is required"])
            for inner in ("env", "ports", "volumeMounts"):
                there = one.get(inner)
                if there is not None and (not isinstance(there, list) or not all(isinstance(each, dict) for each in there)):
                    raise BadPod([f"{path}spec.{name}[{i}].{inner}: must be a list of objects"])
