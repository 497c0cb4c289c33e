"""JSON Patch (RFC 6902) between two JSON values. Quiet.

In: the object as it came and as it should be. Out: the operations from one to the other, as few as is cheap. Elements of lists
are told apart by what names them (a container's name, a mount's path), so that an added container is one ``add`` and not a new
list: other webhooks' words in between stay theirs.
"""

from __future__ import annotations

import copy
from difflib import SequenceMatcher
from typing import Any

import msgspec

__all__ = ["apply", "difference"]

Operation = dict[str, Any]
_NAMES = ("name", "mountPath", "containerPort", "ip", "path", "key", "uid")


def difference(old: Any, new: Any) -> list[Operation]:
    """The operations, in order, that make ``new`` of ``old``; none when they are equal."""
    found: list[Operation] = []
    _value("", old, new, found)
    return found


def apply(patch: list[Operation], target: Any) -> Any:
    """A copy of ``target`` after ``patch`` (add, remove, replace: those that ``difference`` writes)."""
    whole = [copy.deepcopy(target)]
    for operation in patch:
        parts = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        at: Any = whole
        last: Any = 0
        for part in parts:
            at = at[last]
            last = int(part) if isinstance(at, list) else part
        verb = operation["op"]
        if verb == "remove":
            del at[last]
        elif verb == "add" and isinstance(at, list) and parts:
            at.insert(last, copy.deepcopy(operation["value"]))
        else:
            at[last] = copy.deepcopy(operation["value"])
    return whole[0]


def _same(old: Any, new: Any) -> bool:
    """As JSON: true is not 1."""
    return old is new or msgspec.json.encode(old, order="sorted") == msgspec.json.encode(new, order="sorted")


def _value(path: str, old: Any, new: Any, found: list[Operation]) -> None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old:
            if key not in new:
                found.append({"op": "remove", "path": _at(path, key)})
        for key, value in new.items():
            if key in old:
                _value(_at(path, key), old[key], value, found)
            else:
                found.append({"op": "add", "path": _at(path, key), "value": value})
    elif isinstance(old, list) and isinstance(new, list):
        _list(path, old, new, found)
    elif not _same(old, new):
        found.append({"op": "replace", "path": path, "value": new})


def _list(path: str, old: list[Any], new: list[Any], found: list[Operation]) -> None:
    kept: dict[int, int] = {}  # index in new -> index in old, both rising
    matcher = SequenceMatcher(None, [_identity(item) for item in old], [_identity(item) for item in new], autojunk=False)
    for block in matcher.get_matching_blocks():
        kept.update((block.b + i, block.a + i) for i in range(block.size))
    stay = set(kept.values())
    found.extend({"op": "remove", "path": _at(path, str(i))} for i in reversed(range(len(old))) if i not in stay)
    for index, item in enumerate(new):  # what stands before ``index`` is as in ``new`` already
        if index in kept:
            _value(_at(path, str(index)), old[kept[index]], item, found)
        else:
            found.append({"op": "add", "path": _at(path, str(index)), "value": item})


def _identity(item: Any) -> bytes:
    if isinstance(item, dict):
        for name in _NAMES:
            if name in item:
                return b"%s=%s" % (name.encode(), msgspec.json.encode(item[name], order="sorted"))
    return msgspec.json.encode(item, order="sorted")


def _at(path: str, key: str) -> str:
    return f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
