"""Label and field selectors: text in a query to a yes or no for an object.

Room: control/serve/kube. In: ``labelSelector`` and ``fieldSelector`` values. Out: predicates over stored objects. The grammar is
that of k8s.io/apimachinery ``labels`` and ``fields``; a selector that does not parse is a 400 in one line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from control.serve.kube import status

__all__ = ["Selector", "fields", "labels"]

Obj = dict[str, Any]

_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_KEY = re.compile(rf"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/)?{_NAME}\Z")
_VALUE = re.compile(rf"(?:{_NAME})?\Z")
# For text without white space at its ends: a pattern that could give the same blanks to two of its parts would be quadratic.
_SET = re.compile(r"(\S+)\s+(in|notin)\s*\(([^()]*)\)\Z")
_COMPARE = re.compile(r"([^\s!=<>]+)\s*(==|!=|=|>|<)\s*([^\s!=<>]*)\Z")
_EXISTS = re.compile(r"(!?)\s*([^\s!=<>()]+)\Z")


@dataclass(frozen=True)
class Selector:
    """``matches(obj)``. ``empty``: everything matches. ``fixed``: its answer for an object can never change."""

    matches: Callable[[Obj], bool]
    empty: bool = False
    fixed: bool = False
    name: str | None = None  # metadata.name=… : only this object can match


_EVERYTHING = Selector(lambda obj: True, empty=True, fixed=True)


def _split(text: str) -> list[str]:
    """At the commas that are not inside parentheses."""
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        if char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    parts.append(text[start:])
    return parts


def labels(text: str) -> Selector:
    """A selector over ``metadata.labels``: ``a=b``, ``a!=b``, ``a in (b,c)``, ``a notin (b)``, ``a``, ``!a``, ``a>1``."""
    if not text.strip():
        return _EVERYTHING
    tests = [_label(part, text) for part in _split(text)]

    def matches(obj: Obj) -> bool:
        found = obj.get("metadata", {}).get("labels") or {}
        return all(test(found) for test in tests)

    return Selector(matches)


def _label(part: str, whole: str) -> Callable[[dict[str, str]], bool]:
    def key_of(key: str) -> str:
        if not _KEY.match(key) or len(key.rpartition("/")[2]) > 63:
            raise status.bad_request(f'unable to parse requirement: label key "{key}" in selector "{whole}" is not valid')
        return key

    def value_of(value: str) -> str:
        if not _VALUE.match(value) or len(value) > 63:
            raise status.bad_request(f'unable to parse requirement: label value "{value}" in selector "{whole}" is not valid')
        return value

    part = part.strip()
    if found := _SET.match(part):
        key, verb = key_of(found[1]), found[2]
        values = frozenset(value_of(value.strip()) for value in found[3].split(","))
        if verb == "in":
            return lambda had: key in had and had[key] in values
        return lambda had: key not in had or had[key] not in values
    if found := _COMPARE.match(part):
        key, sign = key_of(found[1]), found[2]
        if sign in "<>":
            return _numeric(key, sign, found[3], whole)
        value = value_of(found[3])
        if sign == "!=":
            return lambda had: had.get(key) != value
        return lambda had: had.get(key) == value
    if found := _EXISTS.match(part):
        key = key_of(found[2])
        if found[1]:
            return lambda had: key not in had
        return lambda had: key in had
    raise status.bad_request(f'unable to parse requirement "{part}" in selector "{whole}"')


def _numeric(key: str, sign: str, bound: str, whole: str) -> Callable[[dict[str, str]], bool]:
    if not re.fullmatch(r"-?[0-9]{1,18}", bound):
        raise status.bad_request(f'unable to parse requirement: "{bound}" in selector "{whole}" must be an integer')
    limit = int(bound)

    def test(had: dict[str, str]) -> bool:
        value = had.get(key)
        if value is None or not re.fullmatch(r"-?[0-9]{1,18}", value):
            return False
        return int(value) > limit if sign == ">" else int(value) < limit

    return test


# Kubernetes refuses any other field than these: clients must not come to rely on a scan of everything.
_COMMON = ("metadata.name", "metadata.namespace")
_EXTRA: dict[str, tuple[str, ...]] = {
    "Pod": ("spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "status.phase", "status.podIP"),
    "Service": ("spec.clusterIP", "spec.type"),
    "Secret": ("type",),
    "Namespace": ("status.phase",),
    "Event": (
        "involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
        "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath",
        "reason", "reportingComponent", "source", "type",
    ),
}  # fmt: skip


def fields(text: str, kind: str) -> Selector:
    """A selector over fields, for objects of ``kind``: ``metadata.name=x,status.phase!=Running``."""
    if not text.strip():
        return _EVERYTHING
    tests: list[tuple[tuple[str, ...], str, bool]] = []
    name: str | None = None
    fixed = True
    for part in text.split(","):
        if not part.strip():
            continue
        key, sign, value = _field(part, text)
        if key not in _COMMON and key not in _EXTRA.get(kind, ()):
            raise status.bad_request(f"field label not supported: {key}")
        fixed = fixed and key in _COMMON
        if key == "metadata.name" and sign != "!=":
            name = value
        tests.append((tuple(key.split(".")), value, sign != "!="))
    return Selector(lambda obj: all((_dig(obj, path) == value) is same for path, value, same in tests), False, fixed, name)


def _field(part: str, whole: str) -> tuple[str, str, str]:
    for sign in ("!=", "==", "="):
        key, found, value = part.partition(sign)
        if found:
            return key.strip(), sign, value.strip().replace("\\,", ",").replace("\\=", "=")
    raise status.bad_request(f"invalid field selector: '{whole}'; can't understand '{part}'")


def _dig(obj: Any, path: tuple[str, ...]) -> str:
    for key in path:
        if not isinstance(obj, dict):
            return ""
        obj = obj.get(key)
    return "" if obj is None else str(obj)
