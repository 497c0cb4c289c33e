"""Access log lines, read and chosen: what ``meshctl logs`` shows of them. Pure.

In: lines of a container's log, Istio's default text or JSON. Out: ``Entry``, whether a ``Wanted`` wants it. A line in another
form is an entry without ``fields``: of the app, of the proxy's own log, or in a format of the user's own.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from meshproxy.model.tap import flags, statuses
from meshproxy.policy.logline import parse
from meshproxy.policy.tap import pathed

__all__ = ["Entry", "Wanted", "entry"]

Fields = dict[str, Any]
_KNOWN = frozenset(("start_time", "response_code", "duration", "method", "path", "request_id", "response_flags"))


class Entry(NamedTuple):
    """``fields`` None: not an access log line. ``time``: Unix seconds of the request's head; 0: not known."""

    line: str
    fields: Fields | None
    time: float

    @property
    def written(self) -> float:
        """When the request was over."""
        took = self.fields.get("duration") if self.fields is not None else None
        return self.time + (took / 1000 if isinstance(took, int | float) else 0.0)


def entry(line: str) -> Entry:
    fields = _fields(line)
    return Entry(line, fields, _moment(fields.get("start_time")) if fields is not None else 0.0)


def _fields(line: str) -> Fields | None:
    if line.startswith("["):
        return parse(line)
    if not line.startswith("{"):
        return None
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    # an app logs JSON too: a request has at least two of the names that the proxy gives
    return found if isinstance(found, dict) and len(_KNOWN.intersection(found)) > 1 else None


def _moment(text: Any) -> float:
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        return 0.0


class Wanted:
    """Which entries are wanted. Raises ``ValueError``: (option, what is wrong)."""

    def __init__(
        self,
        *,
        status: str = "",
        flag: str = "",
        path: str = "",
        request_id: str = "",
        min_ms: float = 0.0,
        failed: bool = False,
    ) -> None:
        self._tests: list[Callable[[Fields], bool]] = []
        add = self._tests.append
        if status:
            ranges = _read("--status", statuses, status)
            add(lambda one: isinstance(code := one.get("response_code"), int) and any(a <= code <= b for a, b in ranges))
        if flag:
            named = frozenset(_read("--flags", flags, flag))
            add(lambda one: not named.isdisjoint(_flags(one)))
        if path:
            if path[0] not in "/*":
                raise ValueError("--path", f"{path}: must begin with / or *")
            matches = pathed(path)
            add(lambda one: matches(str(one.get("path") or "")))
        if request_id:
            add(lambda one: one.get("request_id") == request_id)
        if min_ms:
            add(lambda one: isinstance(took := one.get("duration"), int | float) and took >= min_ms)
        if failed:
            add(_failed)

    def __bool__(self) -> bool:
        """Whether there is any filter."""
        return bool(self._tests)

    def wants(self, fields: Fields) -> bool:
        return all(test(fields) for test in self._tests)


def _flags(fields: Fields) -> tuple[str, ...]:
    return tuple(str(fields.get("response_flags") or "").split(","))


def _failed(fields: Fields) -> bool:
    """A server's error, no answer at all, or a response flag that says what went wrong (an injected delay alone does not)."""
    code = fields.get("response_code")
    return (isinstance(code, int) and (code >= 500 or code == 0)) or not {"", "-", "DI"}.issuperset(_flags(fields))


def _read(option: str, read: Callable[[str], Any], text: str) -> Any:
    try:
        return read(text)
    except ValueError as bad:
        raise ValueError(option, str(bad)) from None
