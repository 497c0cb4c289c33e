"""Files: ``-f a b`` means both, wherever files may stand; what cannot be read is named by its file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from control.cli.__main__ import main

Run = Callable[..., tuple[int, str, str]]
GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 8080, name: http, protocol: HTTP}
    hosts: ["*"]
"""
ROUTES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: site}
spec:
  hosts: ["*"]
  gateways: [edge]
  http:
  - directResponse: {status: 418}
"""
URL = "http://shop.example.com/"
CASES = "cases:\n- from: {gateway: edge}\n  request: {url: 'http://shop.example.com/'}\n  expect: {status: 418}\n"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "gateway.yaml").write_text(GATEWAY)
    (tmp_path / "routes.yaml").write_text(ROUTES)
    (tmp_path / "cases.yaml").write_text(CASES)
    (tmp_path / "more.yaml").write_text(CASES)

    def go(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        said = capsys.readouterr()
        return code, said.out, said.err

    return go


BOTH = ("-f", "gateway.yaml", "routes.yaml")


def test_validate_takes_the_files_after_f(run: Run) -> None:
    assert run("validate", *BOTH) == (0, '"gateway.yaml" is valid\n"routes.yaml" is valid\n', "")


def test_analyze_takes_the_files_after_f(run: Run) -> None:
    code, _, err = run("analyze", *BOTH)
    assert code in (0, 79) and "gateway.yaml" in err and "routes.yaml" in err


@pytest.mark.parametrize("words", [(URL, "--from", "gateway", *BOTH), (*BOTH, "GET", URL, "--from", "gateway")])
def test_explain_takes_the_files_after_f(run: Run, words: tuple[str, ...]) -> None:
    code, out, err = run("explain", *words)
    assert (code, err) == (0, "")
    assert "418" in out


def test_test_takes_the_files_after_f_and_several_files_of_cases(run: Run) -> None:
    code, out, err = run("test", "cases.yaml", *BOTH)
    assert (code, err) == (0, "") and out.endswith("\n1 passed\n")
    code, out, err = run("test", "cases.yaml", "more.yaml", *BOTH)
    assert (code, err) == (0, "") and out.endswith("\n2 passed\n")


def test_proxy_reads_the_files_after_f(run: Run, tmp_path: Path) -> None:
    (tmp_path / "routes.yaml").write_text(ROUTES.replace("directResponse", "directRespond"))
    code, _, err = run("proxy", *BOTH)
    assert code == 1 and err.startswith("error: routes.yaml: VirtualService site: spec.http[0].directRespond: unknown field")


def test_objects_are_applied_shown_awaited_and_deleted_from_the_files_after_f(
    run: Run, meshctl: Callable[..., Any], mesh: Any
) -> None:
    said = ["gateway.networking.istio.io/edge", "virtualservice.networking.istio.io/site"]
    assert meshctl("apply", *BOTH).out.splitlines() == [f"{name} created" for name in said]
    assert meshctl("get", *BOTH, "-o", "name").out.splitlines() == said
    assert meshctl("diff", *BOTH).code == 0
    assert len(meshctl("wait", "--for=create", *BOTH).out.splitlines()) == 2
    assert len(meshctl("delete", *BOTH).out.splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [\n", "error: error parsing bad.yml: line 2, column 1: while parsing a flow node, did not find"),
        ("a: b\n c: d\n", "error: error parsing bad.yml: line 2, column 3: mapping values are not allowed in this context"),
        ("hello: world\n", "error: bad.yml: apiVersion and kind must be given, as text"),
        ("hello: world\nmetadata: x\n", "error: bad.yml: apiVersion and kind must be given, as text"),
        ("hello\n", "error: bad.yml: holds a str where an object with apiVersion and kind should be"),
    ],
)
def test_a_file_that_is_none_is_named(run: Run, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "bad.yml").write_text(text)
    code, out, err = run("proxy", "-f", "bad.yml")
    assert (code, out, err.count("\n")) == (1, "", 1) and err.startswith(said)


def test_junk_is_not_valid_too(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.yml").write_text("hello: world\n")
    said = "Error [IST0106] (? ? bad.yml) apiVersion and kind must be given, as text\n"
    assert run("validate", "-f", "bad.yml") == (1, "", said)
