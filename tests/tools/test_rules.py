"""The alert rules by Prometheus' own tools: they are valid, each fires when it must and is quiet before; and they ask for metrics
that there are."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from control.serve.metrics import Metrics
from control.tools.files import prometheus, rules
from docs.generate import telemetry
from tests.tools.prometheus_process import promtool

pytestmark = pytest.mark.system("promtool")
HERE = Path(__file__).parent
ALERTS = [rule for group in yaml.safe_load(rules())["groups"] for rule in group["rules"] if "alert" in rule]
_METRIC = re.compile(r"\b((?:mesh|istio|pilot|citadel_server|galley)_[a-z0-9_]+)\b(?!=|\")")
_OTHERS = {"mesh_trace_spans_total"}  # control's are made where spans are taken


def metrics() -> set[str]:
    """Names that sidecars and control have."""
    found = set(re.findall(r"^\| `(\w+)`", telemetry(), re.M)) | _OTHERS
    for family in Metrics().registry.collect():
        found.add(family.name + ("_total" if family.type == "counter" else ""))
    return found


def known() -> set[str]:
    """The same with the endings of histograms."""
    found = metrics()
    return found | {f"{name}_{end}" for name in found for end in ("bucket", "sum", "count")}


def named(expr: str) -> set[str]:
    """Names of metrics in an expression; labels and their values are left out."""
    bare = re.sub(r"\{[^}]*\}|\bby \([^)]*\)|\"[^\"]*\"", " ", expr)
    return set(_METRIC.findall(bare))


def test_promtool_takes_them(tmp_path: Path) -> None:
    (tmp_path / "mesh.rules.yml").write_text(rules())
    (tmp_path / "prometheus.yml").write_text(prometheus())
    code, said = promtool("check", "config", "--lint-fatal", "prometheus.yml", cwd=tmp_path)
    assert code == 0 and f"{len(ALERTS) + 3} rules found" in said, said


def test_each_fires_and_is_quiet_at_its_bound(tmp_path: Path) -> None:
    (tmp_path / "mesh.rules.yml").write_text(rules())
    shutil.copy(HERE / "mesh.rules.test.yml", tmp_path)
    code, said = promtool("test", "rules", "mesh.rules.test.yml", cwd=tmp_path)
    assert code == 0, said


def test_none_is_left_out_and_each_tells_what_to_do() -> None:
    cases = [
        case for test in yaml.safe_load((HERE / "mesh.rules.test.yml").read_text())["tests"] for case in test["alert_rule_test"]
    ]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == {rule["alert"] for rule in ALERTS}
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), rule
        assert rule["annotations"]["summary"] and rule["annotations"]["description"], rule


def test_they_ask_for_metrics_that_there_are() -> None:
    asked = set().union(*(named(rule["expr"]) for group in yaml.safe_load(rules())["groups"] for rule in group["rules"]))
    recorded = {rule["record"] for group in yaml.safe_load(rules())["groups"] for rule in group["rules"] if "record" in rule}
    assert len(asked) > 25
    assert {name for name in asked - known() if not any(name in one for one in recorded)} == set()
