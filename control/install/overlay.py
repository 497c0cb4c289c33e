"""From files and ``--set`` to one ``operator.Spec`` (room ``install``).

In: texts. Out: ``read``: the spec and what to warn of, or ``BadOptions`` with a line for each fault, each with its path. The
profile stands first, then the files in their order, then each ``--set``. Paths are istioctl's:
``components.ingressGateways[0].enabled``, also ``[name:istio-ingressgateway]``; a dot in a name is written ``\\.``; a list is
``{a,b}``. What follows ``=`` takes the type of its field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from msgspec import inspect

from control.install.operator import Known, Spec, Values
from control.install.profiles import PROFILES, profile
from control.resources.shape import Problem, build, nearest
from control.yamltext import YamlProblem, documents

__all__ = ["BadOptions", "read"]

Tree = dict[str, Any]
Step = str | int | tuple[str, str]
NAMED = ("ingressGateways", "egressGateways")  # lists whose entries are known by their names
MOST = 64  # entries of a list that --set may make
_STEP = re.compile(r"\[(?:(?P<index>\d{1,4})|(?P<key>[^\[\]:]+):(?P<value>[^\[\]]*))\]|(?P<dot>\.)?(?P<name>(?:\\.|[^.\[\]\\])+)")


class BadOptions(ValueError):
    """Everything that is wrong, one line each."""

    def __init__(self, lines: Iterable[object]) -> None:
        self.lines = [str(line) for line in lines]
        super().__init__("\n".join(self.lines))


class _Raw(str):
    """What stood behind ``=``: its type is its field's."""


def read(files: Sequence[tuple[str, str]], sets: Sequence[str], revision: str = "") -> tuple[Spec, list[str]]:
    """``files``: name and text. Raises ``BadOptions``."""
    warnings: list[Problem] = []
    parts = [_clean(tree, warnings) for name, text in files for tree in _file(name, text)]
    settings = [_setting(text) for text in sets]
    chosen = next((str(value) for steps, value in reversed(settings) if steps == ["profile"]), None)
    chosen = chosen or next((str(part["profile"]) for part in reversed(parts) if part.get("profile")), "default")
    if chosen not in PROFILES:
        meant = nearest(chosen, PROFILES)
        raise BadOptions(
            [f"profile: must be one of {', '.join(PROFILES)}, not {chosen}" + (f'; did you mean "{meant}"?' if meant else "")]
        )
    tree = profile(chosen)
    for part in parts:
        tree = _merged(tree, part)
    for steps, value in settings:
        _put(tree, steps, value)
    if revision:
        tree["revision"] = revision
    fit = _Fit(strict=True)
    tree = fit.any(tree, inspect.type_info(Spec), "")
    shape = build(tree, Spec)
    faults = [*fit.errors, *shape.problems]
    if faults:
        raise BadOptions(dict.fromkeys(faults))
    assert isinstance(shape.value, Spec)
    return shape.value, [str(one) for one in dict.fromkeys((*warnings, *fit.warnings))]


def _file(name: str, text: str) -> Iterator[Tree]:
    """An IstioOperator, or its spec alone."""
    try:
        found = [one for one in documents(text, aliases=True) if one is not None]
    except YamlProblem as problem:
        raise BadOptions([f"{name}: cannot be read as YAML: {problem}"]) from None
    for one in found:
        if not isinstance(one, dict):
            raise BadOptions([f"{name}: must hold an IstioOperator, or the fields of its spec"])
        if "kind" in one or "apiVersion" in one:
            if one.get("kind") != "IstioOperator":
                raise BadOptions([f"{name}: kind: must be IstioOperator, not {one.get('kind')}"])
            if "spec" in one and not isinstance(one["spec"] or {}, dict):
                raise BadOptions([f"{name}: spec: must be an object"])
            spec = dict(one.get("spec") or {})
            metadata = one.get("metadata")
            namespace = metadata.get("namespace") if isinstance(metadata, dict) else None
            yield {**({"namespace": namespace} if namespace else {}), **spec}
        else:
            yield one


def _clean(tree: Tree, warnings: list[Problem]) -> Tree:
    """Without what a file says and we do not know: it may be written for Istio, and of another version."""
    fit = _Fit(strict=False)
    cleaned: Tree = fit.any(tree, inspect.type_info(Spec), "")
    warnings += fit.warnings
    return cleaned


def _setting(text: str) -> tuple[list[Step], Any]:
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise BadOptions([f"--set {text}: must be like profile=demo or values.global.hub=registry.example/mesh"])
    steps: list[Step] = []
    at = 0
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None or (found["name"] is not None and bool(found["dot"]) == (at == 0)):
            raise BadOptions([f'--set {path}: cannot be read as a path at "{path[at:]}"'])
        if found["index"] is not None:
            steps.append(int(found["index"]))
        elif found["key"] is not None:
            steps.append((found["key"], found["value"]))
        else:
            steps.append(re.sub(r"\\(.)", r"\1", found["name"]))
        at = found.end()
    if not isinstance(steps[0], str):
        raise BadOptions([f"--set {path}: must begin with a name"])
    return steps, _value(value)


def _value(text: str) -> Any:
    if text.startswith("{") and text.endswith("}") and ":" not in text:
        return [_Raw(part.strip()) for part in text[1:-1].split(",") if part.strip()]
    return _Raw(text)


def _put(tree: Tree, steps: list[Step], value: Any) -> None:
    here: Any = tree
    said = ""
    for at, step in enumerate(steps):
        last = at + 1 == len(steps)
        fresh: Any = value if last else ({} if isinstance(steps[at + 1], str) else [])
        if isinstance(step, str):
            said += f".{step}" if said else step
            if not isinstance(here, dict):
                raise BadOptions([f"{said}: has nothing below: it is no object"])
            if last or not isinstance(here.get(step), (dict, list)):
                here[step] = fresh
            here = here[step]
            continue
        said += f"[{step if isinstance(step, int) else ':'.join(step)}]"
        if not isinstance(here, list):
            raise BadOptions([f"{said}: is no list"])
        index = _index(here, step, said)
        if last or not isinstance(here[index], (dict, list)):
            here[index] = fresh
        here = here[index]


def _index(here: list[Any], step: int | tuple[str, str], said: str) -> int:
    """Where the entry is; one that is not there is made at the end."""
    if isinstance(step, tuple):
        found = next((i for i, one in enumerate(here) if isinstance(one, dict) and str(one.get(step[0])) == step[1]), None)
        if found is not None:
            return found
        here.append({step[0]: _Raw(step[1])})
        return len(here) - 1
    if step > len(here) or step >= MOST:
        raise BadOptions(
            [f"{said}: there {'is 1 entry' if len(here) == 1 else f'are {len(here)} entries'}: the next is [{len(here)}]"]
        )
    if step == len(here):
        here.append(None)
    return step


def _merged(under: Any, over: Any, key: str = "") -> Any:
    """null takes away what stands under it."""
    if isinstance(under, dict) and isinstance(over, dict):
        merged = {name: _merged(under.get(name), value, name) for name, value in over.items() if value is not None}
        return {name: value for name, value in under.items() if name not in over} | merged
    if key in NAMED and isinstance(under, list) and isinstance(over, list):
        by_name = {one.get("name"): one for one in under if isinstance(one, dict)}
        for one in over:
            name = one.get("name") if isinstance(one, dict) else None
            by_name[name] = _merged(by_name.get(name), one)
        return list(by_name.values())
    if isinstance(over, dict):
        return {name: _merged(None, value, name) for name, value in over.items() if value is not None}
    return over


class _Fit:
    """Brings a tree into the form that ``build`` takes: types for what ``--set`` said, and only fields that mean something."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []

    def any(self, value: Any, kind: inspect.Type, path: str) -> Any:
        if isinstance(kind, inspect.Metadata):
            return self.any(value, kind.type, path)
        if isinstance(kind, inspect.UnionType):
            arms = [arm for arm in kind.types if not isinstance(arm, inspect.NoneType)]
            if len(arms) == 1:
                return self.any(value, arms[0], path)
            return int(value) if isinstance(value, _Raw) and value.isascii() and value.isdecimal() else _text(value)
        if isinstance(kind, inspect.StructType):
            return self._struct(value, kind, path) if isinstance(value, dict) else _scalar(value)
        if isinstance(kind, inspect.VarTupleType):
            given = value if isinstance(value, list) else _scalar(value)
            return (
                [self.any(one, kind.item_type, f"{path}[{i}]") for i, one in enumerate(given)]
                if isinstance(given, list)
                else given
            )
        if isinstance(kind, inspect.DictType):
            if not isinstance(value, dict):
                return _scalar(value)
            return {str(name): self.any(one, kind.value_type, f"{path}.{name}") for name, one in value.items()}
        if isinstance(kind, (inspect.StrType, inspect.LiteralType)):
            return _text(value)
        return _scalar(value)

    def _struct(self, value: Tree, kind: inspect.StructType, path: str) -> Tree:
        known = {f.encode_name: f for f in kind.fields}
        ignored: Sequence[str] = kind.cls.ignored if issubclass(kind.cls, Known) else ()
        found: Tree = {}
        for name, one in value.items():
            at = f"{path}.{name}" if path else str(name)
            if name in known:
                if one is not None:
                    found[name] = self.any(one, known[name].type, at)
            elif name in ignored:
                self.warnings.append(Problem(at, "is Istio's and means nothing here: ignored"))
            elif self.strict:
                self.errors.append(Problem(at, f"unknown field{_hint(str(name), known, kind.cls)}"))
            else:
                self.warnings.append(Problem(at, f"unknown field: ignored{_hint(str(name), known, kind.cls)}"))
        return found


def _hint(name: str, known: Iterable[str], cls: type) -> str:
    if cls is Spec and name in Values.__struct_encode_fields__:
        return f'; did you mean "values.{name}"?'
    meant = nearest(name, known)
    return f'; did you mean "{meant}"?' if meant else ""


def _text(value: Any) -> Any:
    """YAML makes numbers and truths of what is meant as text."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (str, int)) else value


def _scalar(value: Any) -> Any:
    """As YAML would read it."""
    if isinstance(value, dict):
        return {str(key): _scalar(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_scalar(one) for one in value]
    if not isinstance(value, _Raw):
        return value
    try:
        found = documents(str(value), aliases=False)
    except YamlProblem:
        return str(value)
    one = found[0] if len(found) == 1 else None
    return one if isinstance(one, (bool, int, float, dict, list)) else str(value)
