"""Printing: JSON, YAML, and kubectl's plain columns.

In: values and rows. Out: text on stdout. Assumes nothing of the API.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from control.cli.errors import CliError

__all__ = ["as_json", "as_yaml", "choose", "columns", "moment", "print_columns", "warn"]


def as_json(value: Any, sort: bool = True) -> str:
    """As kubectl prints: four spaces, keys in order of the alphabet."""
    import json

    return json.dumps(value, indent=4, sort_keys=sort, ensure_ascii=False)


def as_yaml(value: Any, sort: bool = True) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Long strings with lines in them read as blocks, as they were written."""

    def text(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
        tag = "tag:yaml.org,2002:str"
        resolved = dumper.resolve(yaml.ScalarNode, data, (True, False))  # type: ignore[no-untyped-call]
        mistaken = resolved != tag  # "true", "1", a time: kubectl quotes doubly
        return dumper.represent_scalar(tag, data, style="|" if "\n" in data else '"' if mistaken else None)

    Dumper.add_representer(str, text)
    dumped: str = yaml.dump(value, Dumper=Dumper, default_flow_style=False, sort_keys=sort, allow_unicode=True, width=1 << 20)
    return dumped.rstrip("\n")


def columns(rows: Sequence[Sequence[str]], gap: int = 3) -> str:
    """Left-aligned columns, three spaces apart and six wide at least, no trailing blanks: kubectl's look."""
    if not rows:
        return ""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return "\n".join(
        "".join(cell.ljust(max(width + gap, 6)) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def print_columns(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    print(columns([header, *rows]))


def choose(output: str, value: Any, table: Callable[[], None]) -> None:
    """Print ``value`` as ``-o`` asks; ``table`` prints the human form. Raises ``CliError`` for an unknown form."""
    if output == "json":
        print(as_json(value))
    elif output == "yaml":
        print(as_yaml(value))
    elif output in ("table", "", "short"):
        table()
    else:
        raise CliError(f"--output {output}: must be json, yaml or table", code=2)


def moment(wall: float) -> str:
    """A time of day (seconds since 1970) as Kubernetes writes it."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def warn(lines: Iterable[str]) -> None:
    for line in lines:
        print(f"Warning: {line}", file=sys.stderr)
