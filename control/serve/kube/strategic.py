"""Strategic merge patch: Kubernetes' own patch format for the core kinds, which kubectl sends for them.

Room: control/serve/kube; pure. In: an object, a patch, the kind. Out: the patched object; inputs are never changed.

Like a merge patch, but lists of named elements merge by their key (containers by name, ports by number) instead of being
replaced, and directives steer it:
  ``$patch: delete | replace | merge``    in an object or list element
  ``$retainKeys: [..]``                   keep only these keys of an object (a union, such as a volume's source)
  ``$deleteFromPrimitiveList/FIELD: [..]``  take these scalars out of a merged list
  ``$setElementOrder/FIELD: [..]``        the order of a merged list; elements that the patch does not know keep their place
The algorithm follows k8s.io/apimachinery ``util/strategicpatch/patch.go``, step by step, so that equal patches give equal lists.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from control.serve.kube.merge_keys import Strategy, field_type, strategy
from control.serve.kube.patch import PatchError

__all__ = ["strategic_merge"]

Obj = dict[str, Any]

_PATCH = "$patch"
_RETAIN = "$retainKeys"
_DELETE = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"


def strategic_merge(target: Obj, patch: Any, kind: str) -> Obj:
    """``patch`` applied to ``target``, an object of core kind ``kind`` ("Pod", "Service", …). Raises PatchError."""
    if not isinstance(patch, dict):
        raise PatchError("a strategic merge patch is an object", malformed=True)
    return _map(copy.deepcopy(target), copy.deepcopy(patch), kind)


def _map(target: Obj, patch: Obj, owner: str) -> Obj:
    """Both arguments are ours to change."""
    if _PATCH in patch:
        directive = patch.pop(_PATCH)
        if directive == "replace":
            whole: Obj = _bare(patch)
            return whole
        if directive == "delete":
            return {}
        if directive != "merge":
            raise PatchError(f"unknown $patch directive {directive!r}"[:100], malformed=True)
    _retain(target, patch)
    _order_lists(target, patch, owner)
    for key, value in patch.items():
        deleting = key.startswith(_DELETE)
        if deleting:
            key = key[len(_DELETE) :]
            if not isinstance(value, list):
                raise PatchError(f"{_DELETE}{key} must be a list", malformed=True)
        if value is None:
            target.pop(key, None)
        elif key not in target or type(target[key]) is not type(value):
            if not deleting:
                target[key] = _bare(value)
        elif isinstance(value, dict):
            target[key] = _map(target[key], value, _inner(owner, key))
        elif isinstance(value, list):
            target[key] = _list(target[key], value, owner, key, deleting)
        else:
            target[key] = value
    return target


def _inner(owner: str, key: str) -> str:
    """The type of what a field (or an element of it) holds."""
    held = field_type(owner, key)
    return held.lstrip("[{")


def _retain(target: Obj, patch: Obj) -> None:
    if _RETAIN not in patch:
        return
    keys = patch.pop(_RETAIN)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise PatchError(f"{_RETAIN} must be a list of field names", malformed=True)
    unlisted = [key for key, value in patch.items() if value is not None and not _directive(key) and key not in keys]
    if unlisted:
        raise PatchError(f"{_RETAIN} does not name the field {unlisted[0]!r} that the patch sets", malformed=True)
    for key in [key for key in target if key not in keys]:
        del target[key]


def _order_lists(target: Obj, patch: Obj, owner: str) -> None:
    """Handle the lists for which the patch gives an order; they are then done with."""
    for name in [key for key in patch if key.startswith(_ORDER)]:
        order, field = patch.pop(name), name[len(_ORDER) :]
        if not isinstance(order, list):
            raise PatchError(f"{name} must be a list", malformed=True)
        plan = strategy(owner, field)
        had, given = target.get(field), patch.get(field)
        if had is not None and not isinstance(had, list):
            continue
        if given is not None and not isinstance(given, list):
            raise PatchError(f"{field} must be a list", malformed=True)
        if field in patch and given is None:
            continue  # null: the list goes away
        if had is None and given is None:
            continue
        if given is None:
            merged = list(had or [])
        elif had is None:
            merged = _bare(given)
        else:
            merged = _list(list(had), given, owner, field, False)
        patch.pop(field, None)
        target[field] = _arrange(merged, order, had or [], plan)


def _list(target: list[Any], patch: list[Any], owner: str, field: str, deleting: bool) -> list[Any]:
    plan = strategy(owner, field)
    if deleting:
        unwanted = _Index(patch, "")
        return [value for value in target if unwanted.find(value) is None]
    if not plan.merge:
        bare = _bare(patch)
        assert isinstance(bare, list)
        return bare
    original = list(target)
    if not plan.key:
        both = [*target, *patch]
        first = _Index(both, "")
        merged = [value for at, value in enumerate(both) if first.find(value) == at]
        return _arrange(merged, patch, original, plan)
    target, patch, replaced = _directives(target, patch, plan.key, field)
    if replaced:
        return [_bare(element) for element in patch]
    known = _Index(target, plan.key)
    for element in patch:
        at = known.find(element)
        if at is None:
            target.append(_bare(element))
            known.add(element, len(target) - 1)
        else:
            target[at] = _map(target[at], element, _inner(owner, field))
    return _arrange(target, patch, original, plan)


def _directives(target: list[Any], patch: list[Any], key: str, field: str) -> tuple[list[Any], list[Any], bool]:
    """Take out the elements that are deleted; say whether the whole list is replaced by what is left of the patch."""
    rest: list[Any] = []
    gone: list[Any] = []
    replaced = False
    for element in patch:
        if not isinstance(element, dict):
            raise PatchError(f"elements of {field} must be objects", malformed=True)
        directive = element.get(_PATCH)
        if directive == "replace":
            replaced = True
            continue
        if key not in element:
            raise PatchError(f"an element of {field} lacks its merge key {key!r}", malformed=True)
        if directive == "delete":
            gone.append(element)
            continue
        if directive not in (None, "merge"):
            raise PatchError(f"unknown $patch directive {directive!r}"[:100], malformed=True)
        rest.append(element)
    deleted = _Index(gone, key)
    return [had for had in target if deleted.find(had) is None], rest, replaced


class _Index:
    """Where elements are, by merge key, or by the whole value when ``key`` is "". The first of equals counts. Lists of an object
    may be megabytes long, so nothing here compares each with each."""

    def __init__(self, elements: list[Any], key: str) -> None:
        self._key = key
        self._at: dict[Any, int] = {}
        for at, element in enumerate(elements):
            self.add(element, at)

    def add(self, element: Any, at: int) -> None:
        named, token = self._token(element)
        if named:
            self._at.setdefault(token, at)

    def find(self, wanted: Any) -> int | None:
        named, token = self._token(wanted)
        return self._at.get(token) if named else None

    def _token(self, element: Any) -> tuple[bool, Any]:
        """Whether it has a key at all, and the key as something that hashes."""
        if self._key:
            if not isinstance(element, dict) or self._key not in element:
                return False, None
            element = element[self._key]
        if isinstance(element, (dict, list)):
            element = (json.dumps(element, sort_keys=True),)  # no JSON value is a tuple
        return True, element


def _arrange(merged: list[Any], order: list[Any], live: list[Any], plan: Strategy) -> list[Any]:
    """Elements named by ``order`` follow it; the others are woven in where the live list had them (mergeSortedSlice)."""
    if not plan.merge:
        return merged
    key = plan.key
    ordered, lived = _Index(order, key), _Index(live, key)
    known = [element for element in merged if ordered.find(element) is not None]
    server = [element for element in merged if ordered.find(element) is None]
    known.sort(key=lambda element: ordered.find(element) or 0)
    last = len(live)

    def place(element: Any) -> int:
        found = lived.find(element)
        return last if found is None else found

    server.sort(key=place)
    woven: list[Any] = []
    i = j = 0
    while i < len(server) or j < len(known):
        if i == len(server):
            woven += known[j:]
            break
        if j == len(known):
            woven += server[i:]
            break
        left, right = lived.find(server[i]), lived.find(known[j])
        if left is not None and right is not None and left < right:
            woven.append(server[i])
            i += 1
        else:
            woven.append(known[j])
            j += 1
    return woven


def _bare(value: Any) -> Any:
    """A patch value taken over whole: its directives, nulls and deletions have nothing to act on."""
    if isinstance(value, dict):
        if value.get(_PATCH) == "delete":
            return {}
        return {key: _bare(inner) for key, inner in value.items() if not _directive(key) and inner is not None}
    if isinstance(value, list):
        return [_bare(item) for item in value if not (isinstance(item, dict) and item.get(_PATCH) in ("delete", "replace"))]
    return value


def _directive(key: str) -> bool:
    return key in (_PATCH, _RETAIN) or key.startswith((_DELETE, _ORDER))
