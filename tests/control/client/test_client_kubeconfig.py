"""Kubeconfig files as kubectl reads them; secrets stay out of reprs."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import yaml

from control.client.kubeconfig import BadKubeconfig, find, load


def write(path: Path, **user: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    config = {
        "current-context": "c",
        "clusters": [
            {"name": "k", "cluster": {"server": "https://h:1/", "certificate-authority-data": base64.b64encode(b"PEM").decode()}}
        ],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "n"}}],
    }
    path.write_text(yaml.safe_dump(config))
    return path


def test_a_plain_one(tmp_path: Path) -> None:
    target = load([write(tmp_path / "k", token="s3cret")])
    assert (target.server, target.namespace, target.token, target.ca) == ("https://h:1", "n", "s3cret", "PEM")
    assert "s3cret" not in repr(target)


def test_order_of_precedence(tmp_path: Path) -> None:
    flag, variable, here, home = (write(tmp_path / name) for name in ("flag", "var", "cwd/.mesh/kubeconfig", "home/.kube/config"))
    environ = {"KUBECONFIG": str(variable), "HOME": str(tmp_path / "home")}
    assert find(str(flag), environ, tmp_path / "cwd") == (flag,)
    assert find(None, environ, tmp_path / "cwd") == (variable,)
    del environ["KUBECONFIG"]
    assert find(None, environ, tmp_path / "cwd") == (here,)
    assert find(None, environ, tmp_path) == (home,)


def test_several_files_the_first_value_wins(tmp_path: Path) -> None:
    first, second = write(tmp_path / "1", token="one"), write(tmp_path / "2", token="two")
    paths = find(None, {"KUBECONFIG": f"{first}:{tmp_path / 'none'}:{second}"}, tmp_path)
    assert load(paths).token == "one"


def test_nothing_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BadKubeconfig, match="start a mesh here with `meshctl demo`"):
        find(None, {"HOME": str(tmp_path)}, tmp_path)
    with pytest.raises(BadKubeconfig, match="KUBECONFIG=/none: no such file"):
        find(None, {"KUBECONFIG": "/none"}, tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "not a kubeconfig"),
        ("a: [", "k: while parsing"),
        ("current-context: c", "context 'c' is not there"),
        ("current-context: c\ncontexts: [{name: c, context: {cluster: x}}]", "context 'c': 'x' is missing"),
    ],
)
def test_a_broken_one_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "k"
    path.write_text(text)
    with pytest.raises(BadKubeconfig) as told:
        load([path])
    assert said in str(told.value) and "\n" not in str(told.value)
