"""Without a mesh: help has examples, errors are one line with the right exit code, start-up stays light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from control.cli.__main__ import build, main


def leaves(command: object, words: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], object]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        return [(words, command)]
    return [leaf for name, sub in inner.items() for leaf in leaves(sub, (*words, name))]


def test_every_verb_has_help_and_examples() -> None:
    for words, command in leaves(typer.main.get_command(build())):
        assert getattr(command, "help", None), words
        assert getattr(command, "hidden", False) or "Examples:" in (getattr(command, "epilog", None) or ""), words


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["nonsense"], 2, "No such command 'nonsense'"),
        (["get", "--nonsense", "x"], 2, "No such option: --nonsense"),
        (["apply"], 2, "must specify -f FILE"),
        (["apply", "-f", "x", "--dry-run=maybe"], 2, "--dry-run maybe: must be none, client or server"),
        (["apply", "-f", "x", "--server-side"], 1, "--server-side is not supported"),
        (["run", "--name", "A_b", "--port", "1", "--", "x"], 2, "--name A_b: must be lower case"),
        (["run", "--name", "a", "--port", "99999", "--", "x"], 2, "--port 99999: must be between 1 and 65535"),
        (["run", "--name", "a", "--port", "1", "-l", "x", "--", "x"], 2, "-l x: must be key=value"),
        (["demo", "--stop", "--detach"], 2, "--stop and --detach exclude each other"),
        (["proxy"], 2, "must specify -f FILE"),
        (["proxy", "-f", "/none.yml"], 1, 'the path "/none.yml" does not exist'),
        (["proxy", "-f", "x", "--port", "a"], 2, "--port a: must be PORT or GATEWAYPORT:PORT"),
        (["get", "pods"], 1, "no kubeconfig: "),
        (["logs", "-o", "yaml"], 2, "--output yaml: must be json or text"),
        (["logs", "--status", "9"], 2, "--status 9: not a status; write 503, 5xx or 400-499"),
        (["tap", "--path", "rate"], 2, "--path: must begin with / or *, not 'rate'"),
        (["tap", "--for", "2h"], 2, "--for 2h: must be more than 0 and at most 60m"),
        (["tap", "--header", "cookie=a"], 2, "--header: cookie: holds credentials, which are never told; write the name alone"),
        (["label"], 2, "Missing argument 'TYPE NAME KEY=VALUE...'"),
        (["proxy-config", "endpoint"], 2, "Missing argument 'POD'"),
        (["run"], 2, "Missing argument '-- COMMAND' (see `meshctl run --help`)"),
        (["run", "--", "x"], 2, "Missing option '--name'"),
        (["explain"], 2, "Missing argument '[METHOD] URL'"),
        (["test"], 2, "Missing argument 'CASES...'"),
    ],
)
def test_errors_are_one_line_and_say_what_to_do(
    argv: list[str], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(argv) == code
    told = capsys.readouterr().err
    assert said in told and told.startswith("error: ") and told.count("\n") == 1


def test_version_needs_no_verb_and_no_mesh(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("meshctl ")


def test_an_unreachable_mesh_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "k"
    config.write_text(
        "current-context: c\ncontexts: [{name: c, context: {cluster: k}}]\nclusters: [{name: k, cluster: {server: 'https://127.0.0.1:1'}}]"
    )
    monkeypatch.setenv("KUBECONFIG", str(config))
    assert main(["get", "pods"]) == 1
    told = capsys.readouterr().err
    assert "is the mesh running?" in told and told.count("\n") == 1


def test_start_up_imports_no_http_and_no_resources() -> None:
    script = (
        "import sys; from control.cli.__main__ import build; build();"
        "print([m for m in ('httpx', 'yaml', 'starlette', 'control.resources', 'asyncio', 'uvloop') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--base", "10.0.0.0"], "error: --base 10.0.0.0: must be 127.X.Y.0"),
        (["--port", "70000"], "error: --port 70000: must be between 1 and 65535"),
    ],
)
def test_the_demo_refuses_what_cannot_be(argv: list[str], said: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "control.cli", "demo", "--state", str(tmp_path / "s"), *argv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert done.stderr.startswith(said) and done.stderr.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_stop_without_a_mesh_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "control.cli", "demo", "--stop", "--state", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, f"no mesh runs in {tmp_path}\n")
