"""YAML from outside, as plain values: bounded work, and the words Kubernetes would read.

In: text or bytes of one or more documents. Out: the documents; every fault is a ``YamlProblem``, one line. Dates and base-60
numbers stay text, as in Kubernetes' reader (YAML 1.1 would make times and huge integers of them). The depth is judged on the
parser's events, before anything recursive sees the text: the C composer has no guard of its own, and some 100,000 brackets
end the process. Aliases are the caller's choice: a few of them, or of merge keys (``<<``), can stand for gigabytes, so what they
stand for is counted as though it were written out.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

__all__ = ["DEPTH", "EXPANDED", "YamlProblem", "documents"]

DEPTH = 100  # levels, as for JSON bodies
EXPANDED = 1_000_000  # values of a document once its aliases are written out
_LINE = 300  # characters of a message

_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_LIBRARY_FAULTS = (ValueError, TypeError, OverflowError, AttributeError, LookupError)  # its constructors on odd scalars


class YamlProblem(ValueError):
    """The text cannot be read; one line."""


class _Loader(_SafeLoader):  # type: ignore[misc]
    """The safe loader without dates and base 60."""


def _resolvers(known: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    kept = [(tag, pattern) for tag, pattern in known if tag != _TIMESTAMP]
    return [
        (tag, re.compile(f"(?![^:]*:)(?:{pattern.pattern})", re.VERBOSE) if tag in (_INT, _FLOAT) else pattern)
        for tag, pattern in kept
    ]


def _number(loader: Any, node: Any) -> Any:
    if ":" in loader.construct_scalar(node):  # only with an explicit tag
        raise ValueError("base-60 numbers are not accepted")
    return loader.construct_yaml_int(node) if node.tag == _INT else loader.construct_yaml_float(node)


_Loader.yaml_implicit_resolvers = {first: _resolvers(known) for first, known in _SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_constructor(_INT, _number)
_Loader.add_constructor(_FLOAT, _number)


def documents(text: str | bytes, *, aliases: bool) -> list[Any]:
    """The documents of ``text``, empty ones as None. Raises ``YamlProblem``; ``aliases`` False refuses ``*name``."""
    try:
        _survey(text, aliases)
        return list(yaml.load_all(text, Loader=_Loader))
    except YamlProblem:
        raise
    except yaml.YAMLError as error:
        raise YamlProblem(_placed(error)) from None
    except _LIBRARY_FAULTS as error:
        raise YamlProblem(f"unreadable value: {_one_line(error)}") from None


def _survey(text: str | bytes, aliases: bool) -> None:
    total = 0  # values of this document so far, written out
    sizes: dict[str, int] = {}  # of what has an anchor, once it has ended
    begun: list[tuple[str | None, int]] = []  # the collections around this event: anchor, the total before
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.DocumentStartEvent):
            total = 0
            sizes.clear()
        elif isinstance(event, yaml.CollectionStartEvent):
            begun.append((event.anchor, total))
            total += 1
            if len(begun) > DEPTH:
                raise YamlProblem(f"nested deeper than {DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = begun.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.AliasEvent):
            if not aliases:
                raise YamlProblem("aliases (*name) are not accepted; write the value out")
            if any(anchor == event.anchor for anchor, _ in begun):
                raise YamlProblem("an alias stands for something that holds the alias itself")
            total += sizes.get(str(event.anchor), 1)  # one that is not known is the composer's to tell
            if total > EXPANDED:
                raise YamlProblem(f"aliases stand for more than {EXPANDED} values; write them out")


def _placed(error: yaml.YAMLError) -> str:
    """Where and what, without the reader's name for text that has none; the caller knows the file's."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return _one_line(error)
    words = ", ".join(str(part) for part in (getattr(error, "context", None), getattr(error, "problem", None)) if part)
    return " ".join(f"line {mark.line + 1}, column {mark.column + 1}: {words}".split())[:_LINE]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:_LINE]
