"""Grafana's dashboards in few words (tools): panels in rows, laid out by themselves, as the JSON that Grafana imports.

In: ``Board`` with ``Row``s of ``Panel``s. Out: ``Board.json()``. One style for all of them: colours, tooltips and legends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Board", "Column", "Panel", "Query", "Row", "Variable"]

SCHEMA = 41  # Grafana 12
WIDTH = 24  # columns of Grafana's grid
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
Thresholds = Sequence[tuple[float, str]]  # from this value on, this colour


@dataclass(frozen=True)
class Query:
    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Column:
    """Of a table: one query, its heading and unit."""

    name: str
    expr: str
    unit: str = "short"


@dataclass(frozen=True)
class Panel:
    """``kind`` table: give ``columns``, and in ``keys`` the labels that name a row (label, heading). ``base``: the colour below
    all ``thresholds``. ``link``: where a click on a series or row leads."""

    title: str
    queries: Sequence[Query] = ()
    kind: Literal["timeseries", "stat", "table"] = "timeseries"
    unit: str = "short"
    help: str = ""
    width: int = 8
    height: int = 7
    stack: bool = False
    thresholds: Thresholds = ()
    base: str = "green"
    most: float | None = None
    columns: Sequence[Column] = ()
    keys: Sequence[tuple[str, str]] = ()
    link: str = ""

    def expressions(self) -> list[str]:
        return [*(query.expr for query in self.queries), *(column.expr for column in self.columns)]

    def json(self, number: int, x: int, y: int) -> dict[str, Any]:
        shape = {"timeseries": _series, "stat": _stat, "table": _table}[self.kind](self)
        found = {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.help,
            "datasource": _SOURCE,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            **shape,
        }
        if self.link:
            found["fieldConfig"]["defaults"]["links"] = [{"title": "Open", "url": self.link}]
        return found


@dataclass(frozen=True)
class Row:
    title: str
    panels: Sequence[Panel]
    folded: bool = False


@dataclass(frozen=True)
class Variable:
    """``query`` is Grafana's (label_values, query_result), or for a choice of fixed values these, parted by commas."""

    name: str
    label: str
    query: str
    fixed: bool = False
    many: bool = False
    regex: str = ""

    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"name": self.name, "label": self.label, "hide": 0, "skipUrlSync": False}
        if self.fixed:
            values = self.query.split(",")
            options = [{"text": value, "value": value, "selected": value == values[0]} for value in values]
            found |= {"type": "custom", "query": self.query, "options": options, "current": options[0], "multi": False}
            return {**found, "includeAll": False}
        found |= {
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": self.query, "refId": self.name},
            "definition": self.query,
        }
        found |= {"refresh": 2, "sort": 1, "regex": self.regex, "multi": self.many, "includeAll": self.many}
        if self.many:
            found |= {"allValue": ".*", "current": {"text": ["All"], "value": ["$__all"], "selected": True}}
        return found


@dataclass(frozen=True)
class Board:
    uid: str
    title: str
    help: str
    rows: Sequence[Row]
    variables: Sequence[Variable] = field(default=())

    def panels(self) -> list[Panel]:
        return [panel for row in self.rows for panel in row.panels]

    def json(self) -> dict[str, Any]:
        source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0}
        source |= {"refresh": 1, "regex": "", "multi": False, "includeAll": False, "skipUrlSync": False}
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.help,
            "tags": ["mesh"],
            "schemaVersion": SCHEMA,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,  # one crosshair over all panels
            "fiscalYearStartMonth": 0,
            "refresh": "15s",
            "time": {"from": "now-1h", "to": "now"},
            "timepicker": {},
            "timezone": "browser",
            "weekStart": "",
            "annotations": {"list": [_annotations()]},
            "links": [_others()],
            "templating": {"list": [source, *(variable.json() for variable in self.variables)]},
            "panels": self._laid_out(),
        }

    def _laid_out(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        number, y = 1, 0
        for row in self.rows:
            head: dict[str, Any] = {"id": number, "type": "row", "title": row.title, "collapsed": row.folded, "panels": []}
            head["gridPos"] = {"h": 1, "w": WIDTH, "x": 0, "y": y}
            found.append(head)
            inside: list[dict[str, Any]] = head["panels"] if row.folded else found
            number, y, x, tallest = number + 1, y + 1, 0, 0
            for panel in row.panels:
                if x + panel.width > WIDTH:
                    x, y, tallest = 0, y + tallest, 0
                inside.append(panel.json(number, x, y))
                number, x, tallest = number + 1, x + panel.width, max(tallest, panel.height)
            y += tallest
        return found


def _annotations() -> dict[str, Any]:
    """Marks where a sidecar took a new configuration: the first thing to look at beside a spike."""
    return {
        "name": "New configuration",
        "datasource": _SOURCE,
        "enable": False,
        "hide": False,
        "iconColor": "purple",
        "expr": "sum(changes(mesh_config_updates_total[1m])) > 0",
        "titleFormat": "Sidecars took a new configuration",
        "step": "1m",
    }


def _others() -> dict[str, Any]:
    found: dict[str, Any] = {"title": "Mesh", "type": "dashboards", "tags": ["mesh"], "asDropdown": True, "icon": "external link"}
    return {**found, "includeVars": True, "keepTime": True, "targetBlank": False, "tooltip": "", "url": ""}


def _steps(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": panel.base, "value": None}]
    steps += [{"color": colour, "value": value} for value, colour in panel.thresholds]
    return {"mode": "absolute", "steps": steps}


def _targets(panel: Panel, instant: bool) -> list[dict[str, Any]]:
    return [
        {
            "refId": chr(ord("A") + index),
            "datasource": _SOURCE,
            "editorMode": "code",
            "expr": query.expr,
            "legendFormat": query.legend or "__auto",
            "instant": instant,
            "range": not instant,
        }
        for index, query in enumerate(panel.queries)
    ]


def _series(panel: Panel) -> dict[str, Any]:
    custom: dict[str, Any] = {"drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 1, "showPoints": "never"}
    custom |= {"fillOpacity": 30 if panel.stack else 8, "spanNulls": False}
    custom |= {"stacking": {"mode": "normal" if panel.stack else "none", "group": "A"}}
    custom |= {"thresholdsStyle": {"mode": "dashed" if panel.thresholds else "off"}}
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0, "custom": custom, "color": {"mode": "palette-classic"}}
    if panel.thresholds:
        defaults["thresholds"] = _steps(panel)
    if panel.most is not None:
        defaults["max"] = panel.most
    return {
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": _targets(panel, instant=False),
    }


def _stat(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "thresholds": _steps(panel), "color": {"mode": "thresholds"}}
    if panel.most is not None:
        defaults["max"] = panel.most
    return {
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "colorMode": "value",
            "graphMode": "area",
            "justifyMode": "auto",
            "orientation": "auto",
            "textMode": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
        "targets": _targets(panel, instant=False),
    }


def _table(panel: Panel) -> dict[str, Any]:
    letters = [chr(ord("A") + index) for index in range(len(panel.columns))]
    columns = list(zip(letters, panel.columns, strict=True))
    names: Mapping[str, str] = {**dict(panel.keys), **{f"Value #{letter}": column.name for letter, column in columns}}
    return {
        "fieldConfig": {
            "defaults": {"custom": {"align": "auto", "filterable": True}},
            "overrides": [
                {"matcher": {"id": "byName", "options": column.name}, "properties": [{"id": "unit", "value": column.unit}]}
                for _, column in columns
            ],
        },
        "options": {"showHeader": True, "cellHeight": "sm", "sortBy": [{"displayName": panel.columns[0].name, "desc": True}]},
        "targets": [
            {
                "refId": letter,
                "datasource": _SOURCE,
                "editorMode": "code",
                "expr": column.expr,
                "format": "table",
                "instant": True,
                "range": False,
            }
            for letter, column in columns
        ],
        "transformations": [
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": {"Time": True},
                    "indexByName": {name: index for index, name in enumerate(names)},
                    "renameByName": dict(names),
                },
            },
        ],
    }
