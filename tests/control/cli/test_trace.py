"""``meshctl trace``: the tree, whatever its spans say."""

from __future__ import annotations

from typing import Any

import pytest

from control.cli.__main__ import main
from control.cli.trace import tree


def span(number: str, parent: str, service: str, start: float, **more: Any) -> dict[str, Any]:
    return {
        "traceId": "ab" * 16,
        "spanId": number,
        "parentId": parent,
        "service": service,
        "operation": f"{service}:80/*",
        "kind": "server",
        "start": start,
        "duration": 0.5,
        "status": "ok",
        "tags": {"http.status_code": "200"},
        "events": [],
        **more,
    }


def test_who_called_whom() -> None:
    retry = {"name": "retry", "time": 10.2, "tags": {"attempt": "1", "reason": "503"}}
    spans = [
        span("1", "", "gateway", 10.0, duration=1.5),
        span("2", "1", "book", 10.1, events=[retry]),
        span("4", "1", "shop", 10.3),
        span("3", "2", "rating", 10.25, tags={"http.status_code": "503", "response_flags": "UF"}, status="error"),
    ]
    text = "\n".join(tree(spans))
    first, _, *lines = text.split("\n")
    assert first.startswith("Trace " + "ab" * 16 + ": 4 spans of 4 services in 1.50 s, began ")
    assert [" ".join(line.split()) for line in lines] == [
        "SERVICE OPERATION KIND STATUS AFTER TOOK",
        "gateway gateway:80/* server 200 0.0 ms 1.50 s",
        "├─ book book:80/* server 200 100.0 ms 500.0 ms",
        "│ │ · retry attempt=1 reason=503 200.0 ms",
        "│ └─ rating rating:80/* server 503 UF 250.0 ms 500.0 ms",
        "└─ shop shop:80/* server 200 300.0 ms 500.0 ms",
    ]


def test_what_senders_made_up_is_shown_once_and_steers_no_terminal() -> None:
    spans = [span("1", "2", "a\x1b[2J", 10.0), span("2", "1", "b", 10.1), span("3", "3", "c", 10.2), span("4", "gone", "d", 10.3)]
    text = "\n".join(tree(spans))
    assert "\x1b" not in text and "a?[2J" in text
    assert len(text.split("\n")) == 2 + 1 + 4


@pytest.mark.parametrize("argv", [["trace", "abc", "--service", "x"], ["trace", "--limit", "0"]])
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert capsys.readouterr().err
