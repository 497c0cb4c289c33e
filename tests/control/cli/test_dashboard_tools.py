"""``meshctl dashboard TOOL``: found where it runs and really is that tool, opened; else configuration, on stdout alone."""

from __future__ import annotations

import json
import sys
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from control.cli import dashboard, found
from control.cli.__main__ import main
from control.resources.mesh_config import read_mesh_config
from control.resources.report import Report

VECTOR = {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [0, "4"]}]}}
EMPTY = {"status": "success", "data": {"resultType": "vector", "result": []}}
Pages = dict[str, Any]
PROMETHEUS: Pages = {"/api/v1/query?query=1": EMPTY, "/api/v1/query?query=count(mesh_uptime_seconds)": VECTOR}
GRAFANA: Pages = {"/api/health": {"database": "ok"}, "/api/dashboards/uid/mesh-overview": {"dashboard": {}}}
JAEGER: Pages = {"/jaeger/api/services": {"data": ["book"], "errors": None}}
KIALI: Pages = {"/kiali/": "<title>Kiali</title>"}


@contextmanager
def served(pages: Pages) -> Iterator[str]:
    """A server with these pages and no others; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages.get(self.path)
            body = (page if isinstance(page, str) else json.dumps(page)).encode()
            self.send_response(404 if page is None else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class FakeApi:
    """A mesh with a control pod, and a Service of ``service`` at ``at``."""

    def __init__(self) -> None:
        self.target = SimpleNamespace(server="https://127.9.0.20:15012")
        self.pods: list[Any] = [_pod("istio-system", "control", "127.3.0.20", "istiod")]
        self.service, self.at = "", ""

    def request(self, method: str, path: str, **_: Any) -> Any:
        host, _colon, port = self.at.removeprefix("http://").partition(":")
        if path == "/api/v1/pods":
            return {"items": self.pods}
        if path == "/api/v1/services":
            spec = {"clusterIP": "None", "ports": [{"port": 80, "name": "http"}]}
            item = {"metadata": {"namespace": "watch", "name": self.service}, "spec": spec}
            return {"items": [item] if self.service else []}
        assert path == "/api/v1/namespaces/watch/endpoints"
        subset = {"addresses": [{"ip": host}], "ports": [{"port": int(port)}]}
        return {"items": [{"metadata": {"namespace": "watch", "name": self.service}, "subsets": [subset]}]}


def _pod(namespace: str, name: str, address: str, app: str) -> dict[str, Any]:
    meta = {"namespace": namespace, "name": name, "labels": {"app": app}}
    return {"metadata": meta, "spec": {"containers": []}, "status": {"podIP": address}}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    """And on this machine nothing answers, whatever runs here."""
    fake = FakeApi()
    monkeypatch.setattr(dashboard, "connect", lambda *_: fake)
    monkeypatch.setattr(found, "TOOLS", {name: tool._replace(port=1) for name, tool in found.TOOLS.items()})
    monkeypatch.setattr("control.cli.dashboard_tools.TOOLS", found.TOOLS)
    return fake


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    urls: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: urls.append(url) or True)
    monkeypatch.setenv("DISPLAY", ":0")
    return urls


@pytest.mark.parametrize("tool", ["prometheus", "grafana", "jaeger", "kiali"])
def test_what_does_not_run_is_told_about_on_stderr_and_its_configuration_is_yaml(
    tool: str, api: FakeApi, opened: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dashboard", tool]) == 0
    said = capsys.readouterr()
    assert isinstance(yaml.safe_load(said.out), dict)
    assert "was found" in said.err and opened == []
    assert main(["dashboard", tool, "--print"]) == 0
    again = capsys.readouterr()
    assert again.out == said.out and again.err == ""


def test_prometheus_asks_control_whom_to_scrape(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", "prometheus", "--print"]) == 0
    sidecars, control = yaml.safe_load(capsys.readouterr().out)["scrape_configs"]
    assert sidecars["metrics_path"] == "/stats/prometheus"
    assert sidecars["http_sd_configs"][0]["url"] == "http://127.3.0.20:15014/targets"
    assert control["static_configs"] == [{"targets": ["127.3.0.20:15014"]}]
    api.pods = []  # a control that is no pod
    assert main(["dashboard", "prometheus", "--print"]) == 0
    assert "127.9.0.20:15014" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("tool", "pages", "path"),
    [
        ("prometheus", PROMETHEUS, ""),
        ("grafana", GRAFANA, "/d/mesh-overview"),
        ("jaeger", JAEGER, "/jaeger"),
        ("kiali", KIALI, "/kiali"),
    ],
)
def test_what_runs_in_the_mesh_is_opened(
    tool: str,
    pages: Pages,
    path: str,
    api: FakeApi,
    opened: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with served(pages) as url:
        api.service, api.at = tool, url
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        assert main(["dashboard", tool]) == 0
        assert capsys.readouterr() == (f"{url}{path}\n", "") and opened == [url + path]
        monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
        assert main(["dashboard", tool, "--no-open"]) == 0
        assert capsys.readouterr() == (f"{url}{path}\n", "")
        assert main(["dashboard", tool]) == 0  # into a file: the configuration, and where the tool is
        told = capsys.readouterr()
        assert url in told.out.splitlines()[0] and told.err == "" and isinstance(yaml.safe_load(told.out), dict)
        assert main(["dashboard", tool, "--url", url]) == 0
        assert capsys.readouterr().out == f"{url}{path}\n" and len(opened) == 2


@pytest.mark.parametrize("tool", ["prometheus", "grafana", "jaeger", "kiali"])
def test_something_else_at_the_place_is_not_the_tool(tool: str, api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    with served({"/": "<html>", "/api/v1/query?query=1": "<html>", "/api/services": [], "/api/health": {"status": "up"}}) as url:
        assert main(["dashboard", tool, "--url", url]) == 1
        assert f"no {found.TOOLS[tool].title} answers there" in capsys.readouterr().err
        api.service, api.at = tool, url
        assert main(["dashboard", tool]) == 0
        said = capsys.readouterr()
        assert f"kubectl port-forward -n watch service/{tool} 1" in said.err and isinstance(yaml.safe_load(said.out), dict)


def test_hints_where_the_tool_does_not_know_the_mesh(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    cases: list[tuple[str, Pages, str]] = [
        ("prometheus", {**PROMETHEUS, "/api/v1/query?query=count(mesh_uptime_seconds)": EMPTY}, "does not scrape this mesh"),
        ("grafana", {"/api/health": {"database": "ok"}}, "--export"),
        ("jaeger", {"/api/services": {"data": [], "errors": None}}, "no traces"),
    ]
    for tool, pages, words in cases:
        with served(pages) as url:
            assert main(["dashboard", tool, "--no-open", "--url", f"{url}/"]) == 0
        said = capsys.readouterr()
        assert said.out == f"{url}\n" and words in said.err


def test_jaegers_mesh_config_is_one_that_is_obeyed(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    main(["dashboard", "jaeger", "--print"])
    report = Report()
    _, providers = read_mesh_config(yaml.safe_load(capsys.readouterr().out)["data"]["mesh"], report)
    assert [provider.name for provider in providers] == ["jaeger"]
    assert (report.errors, report.warnings) == ([], [])


def test_grafana_is_given_the_prometheus_that_was_found(
    api: FakeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with served(PROMETHEUS) as url:
        api.service, api.at = "prometheus", url
        assert main(["dashboard", "grafana", "--export", "g"]) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert all(path.is_absolute() and path.is_file() for path in written) and len(written) == 7
    source = yaml.safe_load((tmp_path / "g/provisioning/datasources/mesh.yml").read_text())["datasources"][0]
    assert (source["url"], source["type"]) == (url, "prometheus") and "isDefault" not in source
    provider = yaml.safe_load((tmp_path / "g/provisioning/dashboards/mesh.yml").read_text())["providers"][0]
    boards = Path(provider["options"]["path"])
    assert sorted(json.loads(path.read_text())["uid"] for path in boards.iterdir()) == sorted(
        f"mesh-{name}" for name in ("overview", "service", "workload", "proxy", "control")
    )
    assert main(["dashboard", "grafana", "--export", "g"]) == 0  # again, as after an update


def test_somebodys_own_prometheus_yml_is_not_overwritten(
    api: FakeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "prometheus.yml"
    own.write_text("global: {}\n")
    assert main(["dashboard", "prometheus", "--export", str(tmp_path)]) == 1
    assert f"{own} is there already" in capsys.readouterr().err
    assert own.read_text() == "global: {}\n" and list(tmp_path.iterdir()) == [own]


def test_rules_and_the_clusters_configuration_need_no_mesh(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["dashboard", "prometheus", "--rules"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["groups"]
    assert main(["dashboard", "prometheus", "--kubernetes"]) == 0
    assert "kubernetes_sd_configs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("grafana", "--rules"), "--rules: only with prometheus"),
        (("jaeger", "--kubernetes"), "--kubernetes: only with prometheus"),
        (("kiali", "--export", "x"), "--export: only with"),
        (("prometheus", "--rules", "--kubernetes"), "--rules prints them alone"),
        (("prometheus", "--url", "http://127.0.0.1:1", "--print"), "does not go with --print"),
        (("prometheus", "--url", "127.0.0.1:9090"), "--url: must be a URL"),
    ],
)
def test_options_that_make_no_sense(options: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", *options]) == 2
    assert words in capsys.readouterr().err
