"""Analysis, results: one thing that is wrong, where, and what to do about it.

In: an object, a path and a line. Out: ``Finding``; ``found`` makes one with the code's usual level.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from control.analyze.codes import CODES, LEVELS, Level

__all__ = ["Finding", "Subject", "found"]


class Subject(NamedTuple):
    """The object a finding is about. ``namespace`` is empty for what has none."""

    kind: str
    namespace: str
    name: str

    @classmethod
    def of(cls, value: Any) -> Subject:
        """Of a typed object."""
        return cls(value.kind, value.metadata.namespace, value.metadata.name)

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class Finding(msgspec.Struct, frozen=True):
    """``message`` is one line that says what to do; ``path`` names the field, empty for the object as a whole."""

    code: str
    level: Level
    kind: str
    namespace: str
    name: str
    path: str
    message: str

    @property
    def subject(self) -> Subject:
        return Subject(self.kind, self.namespace, self.name)

    @property
    def order(self) -> tuple[int, str, str, str, str, str, str]:
        """Worst first, then by object, so that the same world gives the same list."""
        return (LEVELS.index(self.level), self.namespace, self.kind, self.name, self.code, self.path, self.message)

    def line(self, reference: str = "") -> str:
        """As istioctl prints it. ``reference``: the file the object came from."""
        at = f" {reference}" if reference else ""
        path = f"{self.path}: " if self.path else ""
        return f"{self.level} [{self.code}] ({_printable(str(self.subject))}{at}) {path}{self.message}"


def found(code: str, subject: Subject, path: str, message: str, level: Level | None = None) -> Finding:
    level = level or CODES[code].level
    return Finding(code, level, subject.kind, subject.namespace, subject.name, path, _printable(message))


def _printable(text: str) -> str:
    """On one line, whatever a user wrote."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
