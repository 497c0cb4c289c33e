"""YAML that others wrote, as plain values, with bounded work. Quiet.

In: text. Out: one value, or ``YamlProblem``. No aliases (a few of them can stand for gigabytes), no dates (they stay text, as in
Kubernetes' reader), and no deeper than ``DEPTH``, judged on the parser's events before anything recursive sees the text.
"""

from __future__ import annotations

from typing import Any

import yaml

__all__ = ["DEPTH", "YamlProblem", "read"]

DEPTH = 60
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlProblem(ValueError):
    """The text cannot be read; one line."""


class _Loader(_Base):  # type: ignore[misc]
    """The safe loader without dates."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:timestamp"]
    for first, known in _Base.yaml_implicit_resolvers.items()
}


def read(text: str) -> Any:
    """The only document of ``text``; None when it is empty. Raises ``YamlProblem``."""
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH:
                raise YamlProblem(f"nested deeper than {DEPTH} levels")
            if isinstance(event, yaml.AliasEvent):
                raise YamlProblem("aliases (*name) are not accepted; write the value out")
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise YamlProblem(" ".join(f"{where}{getattr(error, 'problem', None) or error}".split())[:300]) from None
    except YamlProblem:
        raise
    except (ValueError, TypeError, OverflowError, AttributeError, LookupError, RecursionError) as error:
        raise YamlProblem(" ".join(f"unreadable value: {error}".split())[:300]) from None
