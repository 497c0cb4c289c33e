"""``meshctl dashboard``: a fresh URL each time, a browser only where there is one, and configuration for other tools."""

from __future__ import annotations

import webbrowser
from typing import Any

import pytest
import yaml

from control.cli import dashboard
from control.cli.__main__ import main
from control.resources.mesh_config import read_mesh_config
from control.resources.report import Report

URL = "http://127.0.0.1:15014/#code=once"


class FakeApi:
    """Answers as control does; notes what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def request(self, method: str, path: str, **_: Any) -> Any:
        self.asked.append((method, path))
        if path == dashboard.CODE_PATH:
            return {"code": "once", "url": URL, "expires": 60.0}
        return {
            "items": [_pod("default", "web", "127.1.0.7"), _pod("istio-system", "control", "127.3.0.20", "discovery", "istiod")]
        }


def _pod(namespace: str, name: str, address: str, container: str = "istio-proxy", app: str = "web") -> dict[str, Any]:
    spec = {"containers": [{"name": container}]}
    return {
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": app}},
        "spec": spec,
        "status": {"podIP": address},
    }


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    fake = FakeApi()
    monkeypatch.setattr(dashboard, "connect", lambda *_: fake)
    return fake


def test_the_url_is_printed_and_no_browser_is_opened(
    api: FakeApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda url: pytest.fail("opened"))
    assert main(["dashboard", "--no-open"]) == 0
    assert capsys.readouterr() == (URL + "\n", "")
    assert api.asked == [("POST", dashboard.CODE_PATH)]


def test_a_browser_is_opened_where_there_is_one(
    api: FakeApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    monkeypatch.setenv("DISPLAY", ":0")
    assert main(["dashboard"]) == 0
    assert opened == [URL]
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert main(["dashboard"]) == 0
    assert opened == [URL]
    assert "no browser could be opened" in capsys.readouterr().err


def test_prometheus_is_told_every_sidecar_and_control(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", "prometheus"]) == 0
    sidecars, control = yaml.safe_load(capsys.readouterr().out)["scrape_configs"]
    assert sidecars["metrics_path"] == "/stats/prometheus"
    assert sidecars["static_configs"] == [{"targets": ["127.1.0.7:15020"], "labels": {"namespace": "default"}}]
    assert control["static_configs"] == [{"targets": ["127.3.0.20:15014"]}]
    assert dashboard.CODE_PATH not in [path for _, path in api.asked]


@pytest.mark.parametrize("tool", ["grafana", "jaeger", "kiali"])
def test_what_is_printed_for_a_tool_is_yaml(tool: str, api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", tool]) == 0
    assert isinstance(yaml.safe_load(capsys.readouterr().out), dict)


def test_jaegers_mesh_config_is_one_that_is_obeyed(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    main(["dashboard", "jaeger"])
    report = Report()
    _, providers = read_mesh_config(yaml.safe_load(capsys.readouterr().out)["data"]["mesh"], report)
    assert [provider.name for provider in providers] == ["jaeger"]
    assert (report.errors, report.warnings) == ([], [])


def test_another_tool_is_refused(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", "zipkin"]) == 2
    assert "zipkin: must be one of prometheus, grafana, jaeger, kiali" in capsys.readouterr().err
