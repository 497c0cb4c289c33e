"""Which lines of a log are requests, and which of them are wanted: as tables."""

from __future__ import annotations

import json
from typing import Any

import pytest

from control.cli.log_lines import Wanted, entry


def text(status: int = 200, flags: str = "-", path: str = "/rate/1", took: int = 10, id_: str = "id-1") -> str:
    return (
        f'[2026-11-23T03:57:47.625Z] "GET {path} HTTP/1.1" {status} {flags} via_upstream - "-" 0 39 {took} 9 "-" "curl/8" '
        f'"{id_}" "rating:8080" "127.1.0.1:9080" inbound|8080|| 127.0.0.1:40000 127.1.0.1:8080 127.1.0.9:56658 - default'
    )


def as_json(**fields: Any) -> str:
    return json.dumps({"start_time": "2026-11-23T03:57:47.625Z", "response_code": 200, "path": "/rate/1", **fields})


@pytest.mark.parametrize(
    ("given", "line", "expected"),
    [
        ({}, text(), True),
        ({"status": "5xx"}, text(503), True),
        ({"status": "5xx"}, text(404), False),
        ({"status": "404,500-599"}, text(404), True),
        ({"flag": "UF,UH"}, text(503, "UF,URX"), True),
        ({"flag": "UH"}, text(503, "UF,URX"), False),
        ({"path": "/rate"}, text(), True),
        ({"path": "/*/1"}, text(), True),
        ({"path": "/book"}, text(), False),
        ({"request_id": "id-1"}, text(), True),
        ({"request_id": "id"}, text(), False),
        ({"min_ms": 10.0}, text(), True),
        ({"min_ms": 11.0}, text(), False),
        ({"failed": True}, text(), False),
        ({"failed": True}, text(404), False),
        ({"failed": True}, text(404, "NR"), True),
        ({"failed": True}, text(500), True),
        ({"failed": True}, text(0, "DC"), True),
        ({"failed": True}, text(200, "DI"), False),
        ({"failed": True}, text(503, "DI,UF"), True),
        ({"status": "2xx", "failed": True}, text(), False),
        ({"status": "2xx"}, as_json(), True),
        ({"status": "5xx"}, as_json(response_code=503), True),
        ({"failed": True}, as_json(response_flags="UF"), True),
        ({"failed": True}, as_json(response_flags=None), False),
        ({"min_ms": 5.0}, as_json(duration=6), True),
        ({"min_ms": 5.0}, as_json(duration="6"), False),
        ({"path": "/rate"}, as_json(path=None), False),
        ({"status": "2xx"}, as_json(response_code="200"), False),
    ],
)
def test_wanted(given: dict[str, Any], line: str, expected: bool) -> None:
    found = entry(line)
    assert found.fields is not None
    wanted = Wanted(**given)
    assert bool(wanted) is bool(given) and wanted.wants(found.fields) is expected


@pytest.mark.parametrize(
    "line", ["", "Request 1", "{", "[]", "{}", '{"level": "info", "path": "/x"}', '["path"]', "[x] y", "{\udcff"]
)
def test_other_lines(line: str) -> None:
    assert entry(line).fields is None and entry(line).time == 0.0


def test_when_it_was() -> None:
    found = entry(text(took=1500))
    assert found.time == 1795406267.625 and found.written == found.time + 1.5
    assert entry(as_json(start_time="nonsense")).time == 0.0


@pytest.mark.parametrize(
    ("given", "option"), [({"status": "9"}, "--status"), ({"flag": "XX"}, "--flags"), ({"path": "rate"}, "--path")]
)
def test_what_is_not_understood_names_its_option(given: dict[str, Any], option: str) -> None:
    with pytest.raises(ValueError) as bad:
        Wanted(**given)
    assert bad.value.args[0] == option
