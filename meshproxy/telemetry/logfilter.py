"""Telemetry room: which records an access log wants, compiled to one closure per filter. Pure.

In: a ``LogFilter``. Out: record -> bool. Raises ``policy.invalid.Invalid`` with the field's path for what cannot be judged.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING

from meshproxy.model.telemetry import LogCondition, LogFilter
from meshproxy.policy import format as command
from meshproxy.policy.invalid import Invalid

if TYPE_CHECKING:
    from meshproxy.message.record import ExchangeRecord

__all__ = ["compile_filter"]

Wants = Callable[["ExchangeRecord"], bool]

_NUMBERS: dict[str, Callable[[ExchangeRecord], float]] = {
    "status": lambda record: record.status,
    "duration": lambda record: (record.ended - record.started) * 1000.0,
}
_TEXTS = {"method": "%REQ(:METHOD)%", "path": "%REQ(:PATH)%", "authority": "%REQ(:AUTHORITY)%", "protocol": "%PROTOCOL%"}
_ORDER = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_PARTS: dict[str, Callable[[bytes, bytes], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "prefix": bytes.startswith,
    "suffix": bytes.endswith,
    "contains": operator.contains,
    "not-prefix": lambda text, part: not text.startswith(part),
    "not-suffix": lambda text, part: not text.endswith(part),
    "not-contains": lambda text, part: part not in text,
}


def compile_filter(given: LogFilter | None, path: str = "filter") -> Wants | None:
    """None: everything is wanted."""
    if given is None:
        return None
    groups = tuple(
        tuple(_condition(one, f"{path}.any_of[{group}][{place}]") for place, one in enumerate(conditions))
        for group, conditions in enumerate(given.any_of)
    )
    if len(groups) == 1 and len(groups[0]) == 1:
        return groups[0][0]

    def wanted(record: ExchangeRecord) -> bool:
        return any(all(holds(record) for holds in group) for group in groups)

    return wanted


def _condition(given: LogCondition, path: str) -> Wants:
    if given.field in _NUMBERS:
        return _number(given, _NUMBERS[given.field], path)
    if given.field == "flags":
        return _flags(given, path)
    text = _TEXTS.get(given.field)
    if text is None:
        kind, colon, name = given.field.partition(":")
        if kind != "header" or not colon or not name:
            known = ", ".join((*_NUMBERS, "flags", *_TEXTS, "header:NAME"))
            raise Invalid(f"{path}.field", f"{given.field!r} is not one of {known}")
        text = f"%REQ({name})%"
    read = command.reader(text, f"{path}.field")
    if given.op in ("present", "absent"):
        there = given.op == "present"
        return lambda record: (read(record) is not None) is there
    compare = _PARTS.get(given.op)
    if compare is None:
        raise Invalid(f"{path}.op", f"{given.op!r} does not go with {given.field}: {', '.join(_PARTS)}, present, absent do")
    value = given.value.encode()
    return lambda record: compare(read(record) or b"", value)


def _number(given: LogCondition, read: Callable[[ExchangeRecord], float], path: str) -> Wants:
    compare = _ORDER.get(given.op)
    if compare is None:
        raise Invalid(f"{path}.op", f"{given.op!r} does not go with {given.field}: {', '.join(_ORDER)} do")
    try:
        value = float(given.value)
    except ValueError:
        raise Invalid(f"{path}.value", f"must be a number, not {given.value!r}") from None
    return lambda record: compare(read(record), value)


def _flags(given: LogCondition, path: str) -> Wants:
    """Whether any of the flags is set, whichever where none is named."""
    if given.op not in ("==", "!=", "present", "absent"):
        raise Invalid(f"{path}.op", f"{given.op!r} does not go with flags: ==, !=, present, absent do")
    wanted = frozenset(part.strip() for part in given.value.split(",")) - {""} if given.op in ("==", "!=") else frozenset()
    there = given.op in ("==", "present")
    return lambda record: any(reason.flag and (not wanted or reason.flag in wanted) for reason in record.flags) is there
