"""Field checks for the core kinds, against the fields that Kubernetes itself knows.

Room: control/serve/kube; pure. In: an object of a core kind. Out: fields that Kubernetes does not have, and values of the wrong
type. The mesh reads only a few core fields, but a typo in one that it does not read is still the user's typo: with
fieldValidation=Strict (kubectl's default) it is refused, as by Kubernetes.
"""

from __future__ import annotations

import difflib
from typing import Any, NamedTuple

from control.serve.kube.merge_keys import types

__all__ = ["Findings", "examine"]

_WORDS = {"s": "a string", "i": "an integer", "b": "true or false", "n": "a number"}


class Findings(NamedTuple):
    """``unknown``: one line each. ``mistyped``: one line each; the object cannot be stored."""

    unknown: list[str]
    mistyped: list[str]


def examine(obj: dict[str, Any], kind: str) -> Findings:
    """``kind`` such as "Pod"; a kind that the table lacks gives no findings."""
    found = Findings([], [])
    if kind in types():
        _object(obj, kind, "", found)
    return found


def _object(value: dict[str, Any], owner: str, at: str, found: Findings) -> None:
    known = types()[owner]
    for key, inner in value.items():
        path = f"{at}.{key}" if at else key
        held = known.get(key)
        if held is None:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.7)
            hint = f', did you mean "{near[0]}"?' if near else ""
            found.unknown.append(f'unknown field "{path}"{hint}')
        elif inner is not None:
            _value(inner, held, path, found)


def _value(value: Any, held: str, at: str, found: Findings) -> None:
    if held == "*":
        return
    if held[0] == "[":
        if not isinstance(value, list):
            _wrong("a list", value, at, found)
            return
        for index, inner in enumerate(value):
            _value(inner, held[1:], f"{at}[{index}]", found)
    elif held[0] == "{":
        if not isinstance(value, dict):
            _wrong("an object", value, at, found)
            return
        for key, inner in value.items():
            _value(inner, held[1:], f"{at}.{key}", found)
    elif held in _WORDS:
        if not _fits(value, held):
            _wrong(_WORDS[held], value, at, found)
    elif not isinstance(value, dict):
        _wrong("an object", value, at, found)
    elif held in types():
        _object(value, held, at, found)


def _fits(value: Any, held: str) -> bool:
    if held == "s":
        return isinstance(value, str)
    if held == "b":
        return isinstance(value, bool)
    if held == "i":
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _wrong(wanted: str, value: Any, at: str, found: Findings) -> None:
    names = {
        str: "a string",
        bool: "true or false",
        int: "an integer",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    found.mistyped.append(f"{at} must be {wanted}, not {names.get(type(value), 'null')}")
