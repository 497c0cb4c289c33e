"""JSON merge patch (RFC 7396) and JSON patch (RFC 6902).

Room: control/serve/kube; pure. In: a JSON document and a patch. Out: the patched document; inputs are never changed.
``PatchError`` says in one line what does not fit.
"""

from __future__ import annotations

import copy
from typing import Any

__all__ = ["PatchError", "json_patch", "merge_patch"]

_COPIES = 3 << 20  # what all "copy" operations of one patch may add: each can double the object, and 30 of them fill any memory


class PatchError(ValueError):
    """``malformed``: the patch itself is wrong (400), rather than not applicable to this object (422)."""

    def __init__(self, message: str, malformed: bool = False) -> None:
        super().__init__(message)
        self.malformed = malformed


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def json_patch(target: Any, operations: Any) -> Any:
    """RFC 6902: all of the operations, or PatchError."""
    if not isinstance(operations, list):
        raise PatchError("a JSON patch is a list of operations", malformed=True)
    if len(operations) > 10_000:  # as Kubernetes limits it
        raise PatchError("a JSON patch may hold 10000 operations at most", malformed=True)
    document = copy.deepcopy(target)
    left = _COPIES
    for index, operation in enumerate(operations):
        try:
            if isinstance(operation, dict) and operation.get("op") == "copy":
                left -= _size(_get(document, _pointer(operation.get("from"), "from")), left)
                if left < 0:
                    raise PatchError(f"the copies of one patch may add {_COPIES} bytes at most", malformed=True)
            document = _operate(document, operation)
        except PatchError as error:
            raise PatchError(f"operation {index}: {error}", error.malformed) from None
    return document


def _operate(document: Any, operation: Any) -> Any:
    if not isinstance(operation, dict):
        raise PatchError("an operation is an object with op and path", malformed=True)
    op, path = operation.get("op"), _pointer(operation.get("path"), "path")
    if op in ("add", "replace", "test") and "value" not in operation:
        raise PatchError(f'"{op}" needs a value', malformed=True)
    if op == "add":
        return _add(document, path, copy.deepcopy(operation["value"]))
    if op == "remove":
        return _remove(document, path)[0]
    if op == "replace":
        _get(document, path)
        return copy.deepcopy(operation["value"]) if not path else _put(document, path, operation["value"])
    if op == "test":
        if not _same(_get(document, path), operation["value"]):
            raise PatchError(f"testing path {operation['path']} value failed: test failed")
        return document
    if op in ("move", "copy"):
        source = _pointer(operation.get("from"), "from")
        if op == "copy":
            return _add(document, path, copy.deepcopy(_get(document, source)))
        if path[: len(source)] == source and path != source:
            raise PatchError("cannot move a value into itself", malformed=True)
        document, value = _remove(document, source)
        return _add(document, path, value)
    raise PatchError(f"unknown op {op!r}"[:80], malformed=True)


def _size(value: Any, enough: int) -> int:
    """About the bytes of ``value`` as JSON; stops counting beyond ``enough``."""
    stack, size = [value], 0
    while stack and size <= enough:
        item = stack.pop()
        size += 2
        if isinstance(item, dict):
            size += sum(map(len, item))
            stack += item.values()
        elif isinstance(item, list):
            stack += item
        elif isinstance(item, str):
            size += len(item)
    return size


def _pointer(text: Any, name: str) -> tuple[str, ...]:
    """RFC 6901."""
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise PatchError(f'"{name}" must be a JSON pointer such as /metadata/labels', malformed=True)
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:])


def _index(part: str, size: int) -> int:
    if not (part.isascii() and part.isdigit()) or (part != "0" and part.startswith("0")) or len(part) > 9:
        raise PatchError(f"{part!r} is not a list index"[:80])
    if int(part) >= size:
        raise PatchError(f"index {part} is beyond the list")
    return int(part)


def _get(document: Any, path: tuple[str, ...]) -> Any:
    for depth, part in enumerate(path):
        if isinstance(document, dict) and part in document:
            document = document[part]
        elif isinstance(document, list):
            document = document[_index(part, len(document))]
        else:
            raise PatchError(f"/{'/'.join(path[: depth + 1])} does not exist"[:200])
    return document


def _add(document: Any, path: tuple[str, ...], value: Any) -> Any:
    if not path:
        return value
    parent, last = _get(document, path[:-1]), path[-1]
    if isinstance(parent, dict):
        parent[last] = value
    elif isinstance(parent, list):
        parent.insert(len(parent) if last == "-" else _index(last, len(parent) + 1), value)
    else:
        raise PatchError(f"/{'/'.join(path[:-1])} is not an object or list"[:200])
    return document


def _put(document: Any, path: tuple[str, ...], value: Any) -> Any:
    parent, last = _get(document, path[:-1]), path[-1]
    parent[_index(last, len(parent)) if isinstance(parent, list) else last] = copy.deepcopy(value)
    return document


def _remove(document: Any, path: tuple[str, ...]) -> tuple[Any, Any]:
    value = _get(document, path)
    if not path:
        return None, value
    parent, last = _get(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        parent.pop(_index(last, len(parent)))
    else:
        del parent[last]
    return document, value


def _same(left: Any, right: Any) -> bool:
    """Equality of JSON values: true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)
