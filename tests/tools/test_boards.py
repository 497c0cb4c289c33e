"""The dashboards: whole, in one style, and about metrics that there are."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from control.tools.boards import ALL
from control.tools.boards.panels import WIDTH
from control.tools.files import dashboards
from tests.tools.test_rules import known, metrics, named

UIDS = {
    "mesh": "mesh-overview",
    "service": "mesh-service",
    "workload": "mesh-workload",
    "proxy": "mesh-proxy",
    "control": "mesh-control",
}


def shown(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def test_what_ships_is_what_is_described() -> None:
    shipped = {name.removesuffix(".json"): json.loads(text) for name, text in dashboards().items()}
    assert shipped == {name: board.json() for name, board in ALL.items()}  # else: python -m docs.generate
    assert {name: board["uid"] for name, board in shipped.items()} == UIDS  # stable: links and bookmarks hold on to them


@pytest.mark.parametrize("name", ALL)
def test_it_is_whole(name: str) -> None:
    board = ALL[name].json()
    assert board["schemaVersion"] >= 39 and board["tags"] == ["mesh"] and "id" not in board
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)
    variables = {variable["name"] for variable in board["templating"]["list"]} | {"__rate_interval", "__range"}
    taken: set[tuple[int, int]] = set()
    for panel in shown(board):
        assert panel["datasource"]["uid"] == "${datasource}" and panel["targets"] and panel["title"]
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken and place["x"] + place["w"] <= WIDTH, panel["title"]
        taken |= cells
        for target in panel["targets"]:
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= variables, target["expr"]
    for title in {panel["title"] for panel in shown(board)}:
        assert len(title) < 60


@pytest.mark.parametrize("name", ALL)
def test_it_asks_for_metrics_that_there_are(name: str) -> None:
    asked = set().union(*(named(expr) for panel in ALL[name].panels() for expr in panel.expressions()))
    assert asked and asked <= known()


def test_no_metric_is_forgotten() -> None:
    """Those that no panel needs are named here."""
    elsewhere = {"istio_build", "istio_request_messages_total", "istio_response_messages_total"}  # the latter: gRPC's streams
    asked = set().union(*(named(expr) for board in ALL.values() for panel in board.panels() for expr in panel.expressions()))
    assert {name for name in metrics() - elsewhere if not any(one.startswith(name) for one in asked)} == set()
