"""Does an object have the shape of its struct? Every fault is found, each with its path; what is sound is built.

Room: control/resources. In: a JSON value and a struct type. Out: the struct, in which faulty parts hold their default, and the
faults. It is slower than ``msgspec.convert``, which stops at the first fault; it runs when a user hands in an object.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

from control.resources.meta import Lenient, ObjectMeta
from control.resources.values import check_base64, check_regex, parse_duration, quote

__all__ = ["Problem", "Shape", "build", "nearest"]


@dataclass(frozen=True, order=True)
class Problem:
    """One fault or remark; prints as one line."""

    path: str
    message: str

    def __str__(self) -> str:
        line = f"{self.path}: {self.message}" if self.path else self.message
        return line if line.isprintable() else "".join(c if c.isprintable() else "?" for c in line)


@dataclass
class Shape:
    """What was built, and what was wrong. ``lost`` holds the paths of what was given but could not be built."""

    value: Any = None
    problems: list[Problem] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


_WORDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "an integer", float: "a number"}


def _found(value: Any) -> str:
    if value is None:
        return "null"
    word = _WORDS.get(type(value), type(value).__name__)
    return f"{word} ({quote(value) if isinstance(value, str) else value})" if isinstance(value, (str, int, float)) else word


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, or None."""
    names = list(known)
    by_case = {n.lower(): n for n in names}
    if name.lower() in by_case:
        return by_case[name.lower()]
    close = difflib.get_close_matches(name.lower(), by_case, n=1, cutoff=0.6)
    return by_case[close[0]] if close else None


@cache
def _info(cls: type) -> inspect.StructType:
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    return info


@cache
def _zero(cls: type) -> Any:
    """A stand-in for a struct that could not be built."""
    return cls(**{f.name: _zero_of(f.type) for f in _info(cls).fields if f.required})


def _zero_of(kind: inspect.Type) -> Any:
    if isinstance(kind, inspect.Metadata):
        return _zero_of(kind.type)
    if isinstance(kind, inspect.StructType):
        return _zero(kind.cls)
    if isinstance(kind, inspect.StrType):
        return ""
    if isinstance(kind, inspect.IntType):
        return 0
    if isinstance(kind, inspect.FloatType):
        return 0.0
    if isinstance(kind, inspect.BoolType):
        return False
    if isinstance(kind, inspect.VarTupleType):
        return ()
    if isinstance(kind, inspect.DictType):
        return {}
    return None


class _Bad(Exception):
    """The value under a path is unusable; the problem is already noted."""


class _Builder:
    def __init__(self, covered: bool = False) -> None:
        self.shape = Shape()
        self.covered = covered

    def found(self, value: Any) -> str:
        """What stands there, in words; only its type where it may be a secret."""
        return _WORDS.get(type(value), "something else") if self.covered and value is not None else _found(value)

    def bad(self, path: str, message: str) -> _Bad:
        self.shape.problems.append(Problem(path, message))
        return _Bad()

    def struct(self, value: Any, cls: type, path: str) -> Any:
        if not isinstance(value, dict):
            raise self.bad(path, f"must be an object, not {self.found(value)}")
        info = _info(cls)
        known = {f.encode_name: f for f in info.fields}
        if info.forbid_unknown_fields:
            for name in value:
                if name not in known:
                    self._unknown(name, known, path)
        built: dict[str, Any] = {}
        for name, f in known.items():
            at = f"{path}.{name}" if path else name
            if name not in value:
                if f.required:
                    self.bad(at, "is required")
                    self.shape.lost.append(at)
                    built[f.name] = _zero_of(f.type)
                continue
            try:
                built[f.name] = self.any(value[name], f.type, at, null=issubclass(cls, (Lenient, ObjectMeta)))
            except _Bad:
                self.shape.lost.append(at)
                if f.required:
                    built[f.name] = _zero_of(f.type)
        for group in getattr(cls, "exclusive", ()):
            self._group(value, group, path, needed=False)
        for group in getattr(cls, "exactly_one", ()):
            self._group(value, group, path, needed=True)
        return cls(**built)

    def _unknown(self, name: str, known: Iterable[str], path: str) -> None:
        at = f"{path}.{name}" if path else str(name)
        meant = nearest(str(name), known)
        self.bad(at, "unknown field" + (f'; did you mean "{meant}"?' if meant else ""))
        self.shape.lost.append(at)

    def _group(self, value: dict[str, Any], group: tuple[str, ...], path: str, needed: bool) -> None:
        given = [name for name in group if name in value]
        if len(given) > 1:
            self.bad(path, f"only one of {', '.join(group)} may be given, not {' and '.join(given)}")
        elif needed and not given:
            self.bad(path, f"one of {', '.join(group)} is required")

    def any(self, value: Any, kind: inspect.Type, path: str, null: bool = False) -> Any:
        """The value as the type wants it, or _Bad when nothing usable is left. ``null``: null counts as not given."""
        if isinstance(kind, inspect.Metadata):
            if (kind.extra or {}).get("form") == "duration" and type(value) in (int, float):
                raise self.bad(path, f'must be a duration such as "{value}s", not {self.found(value)}')
            found = self.any(value, kind.type, path, null)
            self._form(found, kind.extra or {}, path)
            return found
        if isinstance(kind, inspect.UnionType):
            return self._union(value, kind, path, null)
        if isinstance(kind, inspect.StructType):
            return self.struct(value, kind.cls, path)
        if isinstance(kind, inspect.VarTupleType):
            return self._list(value, kind, path)
        if isinstance(kind, inspect.DictType):
            return self._map(value, kind, path)
        if isinstance(kind, inspect.LiteralType):
            return self._enum(value, kind, path)
        if isinstance(kind, (inspect.IntType, inspect.FloatType)):
            return self._number(value, kind, path)
        if isinstance(kind, inspect.StrType):
            if not isinstance(value, str):
                hint = "; put it in quotes" if isinstance(value, (bool, int, float)) else ""
                raise self.bad(path, f"must be text, not {self.found(value)}{hint}")
            return value
        if isinstance(kind, inspect.BoolType):
            if not isinstance(value, bool):
                raise self.bad(path, f"must be true or false, not {self.found(value)}")
            return value
        return value  # Any

    def _union(self, value: Any, kind: inspect.UnionType, path: str, null: bool) -> Any:
        arms = [t for t in kind.types if not isinstance(t, inspect.NoneType)]
        if value is None and (null or any(isinstance(t, inspect.AnyType) for t in arms)):
            return None
        if value is None and path == "status":
            return None
        if len(arms) == 1:
            return self.any(value, arms[0], path, null)
        for arm in arms:  # int | str: the arm of the value's own type
            probe = _Builder(self.covered)
            try:
                return probe.any(value, arm, path, null)
            except _Bad:
                continue
        raise self.bad(path, f"must be an integer or text, not {self.found(value)}")

    def _list(self, value: Any, kind: inspect.VarTupleType, path: str) -> Any:
        if not isinstance(value, list):
            raise self.bad(path, f"must be a list, not {self.found(value)}")
        items = []
        for i, item in enumerate(value):
            try:
                items.append(self.any(item, kind.item_type, f"{path}[{i}]"))
            except _Bad:
                self.shape.lost.append(f"{path}[{i}]")
                items.append(_zero_of(kind.item_type))  # keeps the places of the others
        return tuple(items)

    def _map(self, value: Any, kind: inspect.DictType, path: str) -> Any:
        if not isinstance(value, dict):
            raise self.bad(path, f"must be an object, not {self.found(value)}")
        built = {}
        for key, item in value.items():
            if type(key) is int:
                key = str(key)  # YAML's unquoted 8080:, which is text once it is JSON
            if not isinstance(key, str):
                self.bad(f"{path}[{key}]", "a key must be text; put it in quotes")
                continue
            try:
                built[key] = self.any(item, kind.value_type, f"{path}[{key}]")
            except _Bad:
                self.shape.lost.append(f"{path}[{key}]")
        return built

    def _enum(self, value: Any, kind: inspect.LiteralType, path: str) -> Any:
        if value in kind.values and isinstance(value, str):
            return value
        shown = [str(v) for v in kind.values if v]
        meant = nearest(value, shown) if isinstance(value, str) else None
        raise self.bad(
            path, f"must be one of {', '.join(shown)}, not {self.found(value)}" + (f'; did you mean "{meant}"?' if meant else "")
        )

    def _number(self, value: Any, kind: inspect.IntType | inspect.FloatType, path: str) -> Any:
        whole = isinstance(kind, inspect.IntType)
        if whole and isinstance(value, float) and value.is_integer():
            value = int(value)  # 80.0, as generators write it
        fits = isinstance(value, int) if whole else isinstance(value, (int, float))
        if not fits or isinstance(value, bool):
            hint = "; remove the quotes" if isinstance(value, str) and value.lstrip("-").replace(".", "", 1).isdigit() else ""
            raise self.bad(path, f"must be {'an integer' if whole else 'a number'}, not {self.found(value)}{hint}")
        low, high = kind.ge, kind.le
        if (low is not None and not value >= low) or (high is not None and not value <= high):  # NaN fails both ways
            self.bad(path, _range(low, high) + f", not {value}")
        return value if whole else float(value)

    def _form(self, value: Any, extra: dict[str, Any], path: str) -> None:
        form = extra.get("form")
        if form is None or not isinstance(value, str):
            return
        try:
            if form == "duration":
                seconds = parse_duration(value)
                if seconds < 0.001 and not (seconds == 0 and extra.get("zero")):
                    raise ValueError(f"must be at least 1ms, not {quote(value)}")
            elif form == "regex" and value != "*":  # "*" is Istio's "present" in header matches; the rules refuse it elsewhere
                check_regex(value)
            elif form == "base64":
                check_base64(value)
        except ValueError as error:
            self.bad(path, str(error))  # of the right type, so it is kept


def _range(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"must be from {low} to {high}"
    return f"must be at least {low}" if low is not None else f"must be at most {high}"


def build(value: Any, cls: type[msgspec.Struct]) -> Shape:
    """Builds as much of ``cls`` as the value gives. Never raises for what a user wrote.

    A class that has ``covered`` set holds secrets: no message shows a value.
    """
    builder = _Builder(getattr(cls, "covered", False))
    try:
        builder.shape.value = builder.struct(value, cls, "")
    except _Bad:
        builder.shape.value = None
    return builder.shape
