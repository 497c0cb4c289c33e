"""docs/kubernetes.md: its commands and paths are real."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from control.cli.__main__ import main
from control.install.operator import Spec
from control.install.overlay import read
from control.install.profiles import PROFILES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
WALK = (
    "meshctl install --set profile=demo | kubectl apply -f -",
    "kubectl label namespace default istio-injection=enabled",
    "kubectl apply -f service-book.yml",
    "meshctl kube-inject -f service-book.yml | kubectl apply -f -",
)


def commands() -> list[str]:
    shown = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    return [
        line.removeprefix("$ ") for block in shown for line in block.replace("\\\n", "").splitlines() if line.startswith("$ ")
    ]


@pytest.mark.parametrize("page", ["docs/kubernetes.md", "README.md"])
def test_the_walk(page: str) -> None:
    for line in WALK:
        assert f"$ {line}" in (ROOT / page).read_text()


def test_installs_that_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    tried = [line for line in commands() if line.startswith("meshctl install")]
    assert len(tried) == 2
    for line in tried:
        assert main(shlex.split(line.partition(" | ")[0])[1:]) == 0, capsys.readouterr().err
        capsys.readouterr()


def test_profiles_and_paths() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.partition("## Profiles")[2].partition("## Settings")[0], re.MULTILINE)
    assert tuple(rows) == PROFILES
    for path in (
        "values.global.networkPolicy.enabled=false",
        "values.base.enableCRDTemplates=false",
        "values.pilot.cni.enabled=true",
    ):
        assert read([], [path])[1] == []
    assert set(Spec.__struct_encode_fields__) == {
        "profile",
        "hub",
        "tag",
        "revision",
        "namespace",
        "meshConfig",
        "components",
        "values",
    }
