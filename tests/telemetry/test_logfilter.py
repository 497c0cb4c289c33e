"""Which records an access log wants."""

from __future__ import annotations

from typing import Any

import pytest

from meshproxy.message.reason import Reason
from meshproxy.model.telemetry import LogCondition, LogFilter
from meshproxy.policy.invalid import Invalid
from meshproxy.telemetry.logfilter import compile_filter
from tests.telemetry.test_accesslog import record


def wants(*groups: list[tuple[str, Any, str]], **fields: Any) -> bool:
    made = record()
    for name, value in fields.items():
        setattr(made, name, value)
    conditions = tuple(tuple(LogCondition(field=field, op=op, value=value) for field, op, value in group) for group in groups)
    found = compile_filter(LogFilter(any_of=conditions))
    assert found is not None
    return found(made)


def test_none_wants_everything() -> None:
    assert compile_filter(None) is None


@pytest.mark.parametrize(
    ("op", "value", "expected"),
    [
        ("==", "404", True),
        ("!=", "404", False),
        ("<", "404", False),
        ("<=", "404", True),
        (">", "403", True),
        (">=", "500", False),
    ],
)
def test_status(op: str, value: str, expected: bool) -> None:
    assert wants([("status", op, value)], status=404) is expected


def test_duration_in_milliseconds() -> None:
    assert wants([("duration", ">=", "250")]) and not wants([("duration", ">", "250")])


def test_flags() -> None:
    flags = (Reason.UPSTREAM_TERMINATION, Reason.RETRY_EXHAUSTED)
    assert wants([("flags", "==", "UF, URX")], flags=flags)
    assert not wants([("flags", "==", "UF")], flags=flags)
    assert not wants([("flags", "!=", "UC")], flags=flags)
    assert wants([("flags", "present", "")], flags=flags) and not wants([("flags", "present", "")])
    assert wants([("flags", "absent", "")])


def test_texts() -> None:
    assert wants(
        [("method", "==", "GET"), ("path", "prefix", "/rate"), ("authority", "contains", "ating"), ("path", "suffix", "/1")]
    )
    assert wants([("protocol", "!=", "HTTP/2")])
    assert not wants([("path", "suffix", "/2")])
    assert wants([("path", "not-prefix", "/x"), ("path", "not-suffix", "/2"), ("authority", "not-contains", "book")])
    for op in ("not-prefix", "not-suffix", "not-contains"):
        assert not wants([("method", op, "GET")])


def test_headers() -> None:
    headers = [(b"x-a", b"1"), (b"empty", b"")]
    assert wants([("header:X-A", "==", "1"), ("header:empty", "present", "")], request_headers=headers)
    assert wants([("header:x-b", "absent", ""), ("header:x-b", "!=", "1")], request_headers=headers)
    assert not wants([("header:x-a", "absent", "")], request_headers=headers)


def test_any_of_all() -> None:
    groups = ([("status", ">=", "500")], [("method", "==", "GET"), ("duration", ">", "100")])
    assert wants(*groups) and wants(*groups, method=b"PUT", status=503)
    assert not wants(*groups, method=b"PUT")


@pytest.mark.parametrize(
    ("field", "op", "value", "says"),
    [
        ("nope", "==", "", r"^filter\.any_of\[0\]\[0\]\.field: 'nope' is not one of status"),
        ("header:", "==", "", r"\.field: "),
        ("status", "prefix", "4", r"\.op: 'prefix' does not go with status"),
        ("status", "==", "many", r"\.value: must be a number, not 'many'"),
        ("path", "<", "x", r"\.op: '<' does not go with path"),
        ("flags", "contains", "U", r"\.op: 'contains' does not go with flags"),
    ],
)
def test_what_cannot_be_judged(field: str, op: Any, value: str, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        compile_filter(LogFilter(any_of=((LogCondition(field=field, op=op, value=value),),)))
