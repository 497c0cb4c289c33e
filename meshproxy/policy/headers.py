"""Room: policy. Header operations compiled: remove, then set (overwrite), then add (append), in place on a header list.

In: ``model.route.HeaderOps`` of one or two levels. Out: ``HeaderEdits`` with ``request(head, record)`` and
``response(headers, record)``, or None when there is nothing to do. Assumes names are lower case. Levels run in the
order given.
"""

from __future__ import annotations

from meshproxy.message.head import Headers, RequestHead, remove, replace
from meshproxy.message.record import ExchangeRecord
from meshproxy.model.route import HeaderOps
from meshproxy.model.texts import FRAMING_HEADERS
from meshproxy.policy import format as formats
from meshproxy.policy.invalid import Invalid

__all__ = ["HOST", "HeaderEdits", "check_name", "check_value", "compile_ops"]

_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
HOST = ("host", ":authority")


def check_name(name: str, path: str) -> bytes:
    """A header name fit for an operation. Raises ``Invalid``."""
    if not name or not set(name) <= _TOKEN:
        raise Invalid(path, f"{name!r} is not a header name (lower-case token)")
    if name in FRAMING_HEADERS:
        raise Invalid(path, f"{name!r} belongs to the connection's framing and cannot be changed by an operation")
    return name.encode()


def check_value(value: str, path: str) -> bytes:
    """A header value without line breaks or NUL. Raises ``Invalid``."""
    if any(char in value for char in "\r\n\0"):
        raise Invalid(path, "a header value must not contain a line break or NUL")
    return value.encode()


class _Value:
    """A literal (``text``) or formatted (``make``) header value."""

    __slots__ = ("make", "text")

    def __init__(self, value: str, path: str) -> None:
        self.text: bytes | None = check_value(value, path)
        self.make = formats.compile(value, path, empty=b"")
        if "%" in value:
            # "100%%" is literal too, but the formatter undoes the doubling; its cost does not matter.
            self.text = None


class _Edit:
    """Operations ready to run. ``authority``: values to set the Host to, the last wins."""

    __slots__ = ("_adds", "_removes", "_sets", "authority")

    def __init__(self, ops: HeaderOps, path: str, response: bool) -> None:
        self.authority: _Value | None = None
        self._removes = frozenset(_name(name, f"{path}.remove[{index}]") for index, name in enumerate(ops.remove))
        sets: list[tuple[bytes, _Value]] = []
        for index, (name, value) in enumerate(ops.set):
            if name in HOST and not response:
                self.authority = _Value(value, f"{path}.set[{index}]")
            else:
                sets.append((_name(name, f"{path}.set[{index}]"), _Value(value, f"{path}.set[{index}]")))
        self._sets = tuple(sets)
        self._adds = tuple(
            (_name(name, f"{path}.add[{index}]"), _Value(value, f"{path}.add[{index}]"))
            for index, (name, value) in enumerate(ops.add)
        )

    def edit(self, headers: Headers, record: ExchangeRecord) -> None:
        """Run the operations on ``headers`` in place. A formatted value that comes out empty is left out, as in Envoy."""
        if self._removes:
            removes = self._removes
            headers[:] = [pair for pair in headers if pair[0] not in removes]
        for name, value in self._sets:
            text = value.text
            if text is None:
                text = value.make(record)
                if not text:
                    remove(headers, name)
                    continue
            replace(headers, name, text)
        for name, value in self._adds:
            text = value.text
            if text is None:
                text = value.make(record)
                if not text:
                    continue
            headers.append((name, text))


def _name(name: str, path: str) -> bytes:
    if name in HOST or name.startswith(":"):
        raise Invalid(path, f"{name!r} cannot be added or removed; only the request's host can be set")
    return check_name(name, path)


class HeaderEdits:
    """One or two levels of edits, in order."""

    __slots__ = ("_edits",)

    def __init__(self, edits: tuple[_Edit, ...]) -> None:
        self._edits = edits

    def request(self, head: RequestHead, record: ExchangeRecord) -> None:
        """Edit a request; a ``host`` that is set becomes its authority."""
        for edit in self._edits:
            edit.edit(head.headers, record)
            authority = edit.authority
            if authority is not None:
                text = authority.text if authority.text is not None else authority.make(record)
                if text:
                    head.authority = text
                    record.authority = text

    def response(self, headers: Headers, record: ExchangeRecord) -> None:
        """Edit a response's headers."""
        for edit in self._edits:
            edit.edit(headers, record)


def compile_ops(levels: tuple[tuple[HeaderOps | None, str], ...], response: bool = False) -> HeaderEdits | None:
    """Compile (operations, path) per level, in the order in which they run; None when no level has any. Raises ``Invalid``."""
    edits = tuple(_Edit(ops, path, response) for ops, path in levels if ops is not None and (ops.set or ops.add or ops.remove))
    return HeaderEdits(edits) if edits else None
