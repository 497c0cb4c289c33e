"""``meshctl dashboard``: a fresh URL each time, and a browser only where there is one."""

from __future__ import annotations

import webbrowser
from typing import Any

import pytest

from control.cli import dashboard
from control.cli.__main__ import main

URL = "http://127.0.0.1:15014/#code=once"


class FakeApi:
    """Answers as control does; notes what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def request(self, method: str, path: str, **_: Any) -> Any:
        self.asked.append((method, path))
        if path == dashboard.CODE_PATH:
            return {"code": "once", "url": URL, "expires": 60.0}
        raise AssertionError(path)


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


@pytest.mark.parametrize("option", ["--print", "--kubernetes", "--rules", "--url=http://127.0.0.1:1", "--export=x"])
def test_options_of_tools_are_not_the_pages(option: str, api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", option]) == 2
    assert "meshctl dashboard prometheus" in capsys.readouterr().err and api.asked == []


def test_another_tool_is_refused(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", "zipkin"]) == 2
    assert "zipkin: must be one of prometheus, grafana, jaeger, kiali" in capsys.readouterr().err
