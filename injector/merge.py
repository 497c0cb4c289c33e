"""A user's container laid over the template's: Kubernetes' strategic merge, as far as pods need it. Quiet.

In: two objects; neither is changed. Out: the second over the first. Lists of named elements merge by what names them, others
are replaced; a ``null`` says nothing. Of fields that exclude each other (a value and where it comes from, a probe's handlers)
the user's drives out the template's: both together would be refused by Kubernetes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

__all__ = ["covers", "merged"]

_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "imagePullSecrets": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "ports": ("containerPort", "protocol"),
    "hostAliases": ("ip",),
    "items": ("path",),
}
_DEFAULTS = {"protocol": "TCP"}
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
_EXCLUDING: Mapping[str, tuple[str, ...]] = {
    "readinessProbe": _HANDLERS,
    "livenessProbe": _HANDLERS,
    "startupProbe": _HANDLERS,
    "postStart": _HANDLERS,
    "preStop": _HANDLERS,
    "env[]": ("value", "valueFrom"),
    "valueFrom": ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"),
}


def merged(base: Any, over: Any, field: str = "") -> Any:
    """``field``: where the values stand, which says by what the elements of a list are told apart."""
    if over is None:
        return copy.deepcopy(base)
    if isinstance(base, dict) and isinstance(over, dict):
        result = copy.deepcopy(base)
        rivals = _EXCLUDING.get(field, ())
        if any(over.get(key) is not None for key in rivals):
            for key in rivals:
                if over.get(key) is None:
                    result.pop(key, None)
        for key, value in over.items():
            if value is not None:
                result[key] = merged(result.get(key), value, key)
        return result
    if isinstance(base, list) and isinstance(over, list) and field in _KEYS:
        return _lists(base, over, field)
    return copy.deepcopy(over)


def _lists(base: list[Any], over: list[Any], field: str) -> list[Any]:
    result = copy.deepcopy(base)
    places = {_key(item, field): index for index, item in enumerate(result)}
    for item in over:
        place = places.get(_key(item, field))
        if place is None:
            result.append(copy.deepcopy(item))
        else:
            result[place] = merged(result[place], item, f"{field}[]")
    return result


def _key(item: Any, field: str) -> tuple[str, ...]:
    if not isinstance(item, dict):
        return (repr(item),)
    return tuple(str(item.get(key, _DEFAULTS.get(key, ""))) for key in _KEYS[field])


def covers(there: Any, wanted: Any, field: str = "") -> bool:
    """Whether ``there`` is ``wanted`` with nothing but what Kubernetes adds by itself: defaults of fields, the token's mount.

    Environment is exact: nobody adds to it, so another variable is an older template's."""
    if isinstance(wanted, dict):
        if not isinstance(there, dict):
            return False
        return all(key in there and covers(there[key], value, key) for key, value in wanted.items() if value not in ({}, []))
    if isinstance(wanted, list):
        if not isinstance(there, list):
            return False
        if field not in _KEYS:
            return there == wanted
        if field == "env" and len(there) != len(wanted):
            return False
        found = {_key(item, field): item for item in there}
        return all(_key(item, field) in found and covers(found[_key(item, field)], item) for item in wanted)
    return type(there) is type(wanted) and there == wanted
