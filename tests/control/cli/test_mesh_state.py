"""Which mesh ``meshctl run`` joins when no --state says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from control.cli.mesh import _mesh_of


def test_the_mesh_here_then_the_exported_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    elsewhere.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    assert _mesh_of(Path(".mesh")) == Path(".mesh")
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'none'}:{elsewhere / 'kubeconfig'}")
    assert _mesh_of(Path(".mesh")) == Path(".mesh")  # a kubeconfig, but no mesh beside it
    (elsewhere / "demo.json").write_text("{}")
    assert _mesh_of(Path(".mesh")) == elsewhere
    assert _mesh_of(Path("given")) == Path("given")
    (here / ".mesh").mkdir()
    (here / ".mesh" / "kubeconfig").write_text("")
    assert _mesh_of(Path(".mesh")) == Path(".mesh")
