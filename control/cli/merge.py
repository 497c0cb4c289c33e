"""Three-way merge for ``apply``: what the user wrote before, writes now, and what is live. Pure.

In: last applied, modified, live. Out: a JSON merge patch (RFC 7386): set what the user wrote, remove what the user had
written and no longer writes, leave what others wrote. The annotation is kubectl's own, so both tools can take turns on one
object.
"""

from __future__ import annotations

import copy
import json
from typing import Any

__all__ = ["LAST_APPLIED", "last_applied", "three_way", "with_last_applied"]

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
Obj = dict[str, Any]


def with_last_applied(obj: Obj) -> Obj:
    """The object as it is sent: with the annotation that remembers it."""
    plain = copy.deepcopy(obj)
    annotations = plain.setdefault("metadata", {}).get("annotations") or {}
    annotations.pop(LAST_APPLIED, None)
    plain["metadata"]["annotations"] = annotations
    sent = copy.deepcopy(plain)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    sent["metadata"]["annotations"][LAST_APPLIED] = f"{text}\n"
    return sent


def last_applied(live: Obj) -> Obj | None:
    """What was applied before; None when the object was made some other way."""
    text = (live.get("metadata", {}).get("annotations") or {}).get(LAST_APPLIED)
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def three_way(original: Obj | None, modified: Obj, live: Obj) -> Obj:
    """The merge patch that brings ``live`` to what ``modified`` says; {} when nothing is to be done."""
    patch = _differences(modified, live)
    _merge(patch, _deletions(original or {}, modified, live))
    return patch


def _differences(modified: Obj, live: Obj) -> Obj:
    patch: Obj = {}
    for key, value in modified.items():
        if value is None and key not in live:
            continue
        there = live.get(key)
        if isinstance(value, dict) and isinstance(there, dict):
            inner = _differences(value, there)
            if inner:
                patch[key] = inner
        elif key not in live or value != there:
            patch[key] = value
    return patch


def _deletions(original: Obj, modified: Obj, live: Obj) -> Obj:
    patch: Obj = {}
    for key, value in original.items():
        if key not in live:
            continue
        if key not in modified:
            patch[key] = None
        elif isinstance(value, dict) and isinstance(modified[key], dict) and isinstance(live[key], dict):
            inner = _deletions(value, modified[key], live[key])
            if inner:
                patch[key] = inner
    return patch


def _merge(into: Obj, other: Obj) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into.setdefault(key, value)
