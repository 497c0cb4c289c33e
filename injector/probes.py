"""Kubelet's probes of the app, led to the agent. Quiet.

In: a pod's spec. Out: the spec with probes and lifecycle hooks rewritten to the agent's ``/app-health``, and the originals for
ISTIO_KUBE_APP_PROBERS; and the way back, for a pod that was injected before. The kubelet has no certificate, so its own requests
would be refused by strict mutual TLS; the agent asks the app from inside. An exec probe stays. Named ports become numbers: the
agent knows no names.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import msgspec

from injector.names import PROXY, Obj

__all__ = ["restore", "rewrite"]

Probers = dict[str, Obj]
_PROBES = {"readinessProbe": "readyz", "livenessProbe": "livez", "startupProbe": "startupz"}
_HOOKS = {"preStop": "prestopz", "postStart": "poststartz"}
_HANDLERS = ("httpGet", "tcpSocket", "grpc")


def _handlers(spec: Obj) -> Iterator[tuple[Obj, Obj, str, Obj]]:
    """Container, the object that holds the handler, the path for it, and what is to be remembered with it."""
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        if container.get("name") == PROXY:
            continue
        for field, word in _PROBES.items():
            if isinstance(probe := container.get(field), dict):
                kept = {"timeoutSeconds": probe["timeoutSeconds"]} if probe.get("timeoutSeconds") else {}
                yield container, probe, f"/app-health/{container['name']}/{word}", kept
        for field, word in _HOOKS.items():
            if isinstance(hook := (container.get("lifecycle") or {}).get(field), dict):
                yield container, hook, f"/app-lifecycle/{container['name']}/{word}", {}


def rewrite(spec: Obj, port: int) -> Probers:
    """Changes ``spec``. A port's name that the container has not stays with its probe as it is: it could never succeed."""
    found: Probers = {}
    for container, holder, path, kept in _handlers(spec):
        handler = next((name for name in _HANDLERS if isinstance(holder.get(name), dict)), None)
        if handler is None or (handler == "grpc" and path.startswith("/app-lifecycle/")):
            continue
        action = copy.deepcopy(holder[handler])
        number = _number(action.get("port"), container)
        if number is None:
            continue
        action["port"] = number
        found[path] = {handler: action, **kept}
        asked: Obj = {}
        if handler == "httpGet":  # its headers stay: the agent hands them on
            asked = {**action, "scheme": "HTTP"} if action.get("scheme") == "HTTPS" else action
            asked = {key: value for key, value in asked.items() if key != "host"}
        _replace(holder, handler, "httpGet", {**asked, "path": path, "port": port})
    return found


def _replace(holder: Obj, handler: str, by: str, action: Obj) -> None:
    """In place, so that no field moves."""
    items = [(by, action) if key == handler else (key, value) for key, value in holder.items()]
    holder.clear()
    holder.update(items)


def _number(port: object, container: Obj) -> int | None:
    if isinstance(port, bool) or not isinstance(port, int | str):
        return None
    if isinstance(port, int):
        return port
    if port.isascii() and port.isdecimal():
        return int(port)
    named = (one.get("containerPort") for one in container.get("ports") or () if one.get("name") == port)
    return next(named, None)


def restore(spec: Obj, probers: str) -> None:
    """Undo: ``spec`` is changed, ``probers`` is the variable's value. What cannot be read undoes nothing."""
    try:
        known = msgspec.json.decode(probers, type=dict[str, dict[str, object]])
    except msgspec.DecodeError:
        return
    for _, holder, path, _ in _handlers(spec):
        rewritten = holder.get("httpGet")
        if isinstance(rewritten, dict) and rewritten.get("path") == path and path in known:
            handler = next((name for name in _HANDLERS if name in known[path]), None)
            if handler is not None:
                _replace(holder, "httpGet", handler, copy.deepcopy(known[path][handler]))  # type: ignore[arg-type]
