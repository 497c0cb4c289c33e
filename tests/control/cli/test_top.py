"""``meshctl top``: tables of the API's answers, what is said where there is nothing, wrong usage."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from control.cli.__main__ import main
from control.cli.top_live import drawn
from control.cli.top_table import Table


def route(**fields: Any) -> dict[str, Any]:
    row = {
        "from": "book.default", "to": "rating.default", "port": "8080", "subset": "", "route": "default",
        "source": "",
        "cluster": "outbound|8080||rating", "told": True, "requests": 6.0, "rps": 0.1, "errors": 0.0, "errorShare": 0.0,
        "success": 1.0, "retries": 0.0,
        "p50": 4.25, "p95": 25.0, "p99": 1500.0, "mtls": True, "flags": {}, "workloads": ["rating-v1.default"],
    }  # fmt: skip
    return {**row, **fields}


def answer(*rows: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"at": 0.0, "window": 60.0, "sidecars": 4, "reporting": 4, "rows": list(rows), **fields}


def lines(*rows: dict[str, Any], kind: str = "routes", wide: bool = False, sort: str = "rps", limit: int = 50) -> list[list[str]]:
    table = Table(kind, sort, wide, limit, False)
    told = answer(*rows)
    told["rows"] = table.sorted(told["rows"])
    return [[cell for cell in line.split("  ") if cell.strip()] for line in "\n".join(table.lines(told)).splitlines()]


def cells(*rows: dict[str, Any], **how: Any) -> list[list[str]]:
    return [[cell.strip() for cell in line] for line in lines(*rows, **how)]


def test_routes() -> None:
    assert cells(route())[1] == ["book.default", "rating.default:8080", "default", "0.10", "100%", "4.2ms", "1.50s", "0", "yes"]
    assert cells(route(retries=3.0))[1][7] == "50%"
    vs = "VirtualService default/rating http[1].match[0]"
    assert cells(route(source=vs, route="", subset="v2"))[1][2] == "default/rating http[1].match[0] → v2"
    assert cells(route(source=vs, route="primary"))[1][2] == "default/rating primary"
    assert cells(route(told=False, route="", port="", mtls=None))[1][1:3] == ["rating.default", "- (caller without a sidecar)"]
    assert cells(route(flags={"UH": 2.0, "URX": 1.0}), wide=True)[1][-3:] == ["25ms", "UH:2 URX:1", "rating-v1.default"]


def test_what_failed_is_never_rounded_away() -> None:
    assert cells(route(requests=1e6, errors=1.0, success=0.999999, errorShare=1e-6))[1][4] == "99.99%"
    assert cells(route(errors=3.0, success=0.5))[1][4] == "50%"


def test_names_cannot_steer_the_terminal() -> None:
    assert "\x1b" not in "".join(cells(route(to="evil\x1b[2J"))[1])


@pytest.mark.parametrize(("sort", "first"), [("rps", "busy"), ("success", "bad"), ("p99", "slow"), ("name", "bad")])
def test_sorting(sort: str, first: str) -> None:
    rows = [route(**{"from": "busy", "rps": 9.0, "p99": 1.0}), route(**{"from": "bad", "success": 0.1, "p99": 2.0})]
    rows.append(route(**{"from": "slow", "p99": 9e5, "success": 0.9}))
    assert cells(*rows, sort=sort)[1][0] == first


def test_more_rows_than_are_shown() -> None:
    assert lines(route(), route(), route(), limit=2)[-1] == ["… and 1 more (--limit)"]


def test_nothing_is_a_line_that_says_why() -> None:
    table = Table("routes", "rps", False, 50, False)
    (line,) = table.lines(answer())
    assert line.startswith("No requests in the last 60s; 4 sidecars are connected")
    (line,) = table.lines(answer(sidecars=0))
    assert line.startswith("No sidecar is connected")
    (line,) = Table("routes", "rps", False, 50, True).lines(answer(window=300.0))
    assert line.startswith("No such requests in the last 5m;")


def test_pods() -> None:
    row = {
        "name": "book-1", "namespace": "default", "workload": "book", "cpuShare": 0.0123, "memoryBytes": 61 << 20, "rps": 12.0,
        "connections": 3.0, "loopLagSeconds": 0.0004, "certificateSeconds": 86000.0, "age": 2.2, "status": "SYNCED",
    }  # fmt: skip
    assert cells(row, kind="pods", sort="name")[1] == ["book-1.default", "12m", "61Mi", "12.0", "3", "SYNCED"]
    assert cells(row, kind="pods", sort="cpu", wide=True)[1][6:] == ["book", "0.4ms", "23h53m", "2 s ago"]
    idle = {**row, "name": "idle", "cpuShare": None, "memoryBytes": None}
    assert [line[0] for line in cells(idle, row, kind="pods", sort="memory")[1:]] == ["book-1.default", "idle.default"]


@pytest.mark.parametrize("height", [5, 24])
def test_a_screen_has_room_for_what_it_shows(height: int) -> None:
    table = Table("routes", "rps", False, 50, False)
    console = Console(file=io.StringIO(), width=120, height=height)
    console.print(drawn(answer(*(route(errors=1.0) for _ in range(40))), table, "no answer", height))
    shown = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(shown) <= height + 1 and "no new numbers: no answer" in shown[1] and "more" in shown[-1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nodes"], "error: nodes: top shows routes, services, workloads, pods"),
        (["--sort", "x"], "error: --sort x: must be rps, success, p50, p95, p99, name for routes"),
        (["pods", "--from", "a"], "error: --from: is for calls; `top pods` is about sidecars"),
        (["--window", "2h"], "error: --window 2h: must be from 5s to 1h"),
        (["--once", "--watch"], "error: --once and --watch: give one of them"),
        (["--interval", "0.1"], "error: --interval 0.1: must be 0.5s at least"),
    ],
)
def test_wrong_usage_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", *words]) == 2
    assert capsys.readouterr().err.strip() == said
