"""The state directory: one holder, private files, errors of one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from control.files import FileProblem, read_private, write_private
from control.statedir import StateDir


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    first, second = StateDir(tmp_path / "mesh"), StateDir(tmp_path / "mesh")
    first.lock()
    with pytest.raises(FileProblem, match=f"already runs on it \\(process {os.getpid()}\\)"):
        second.lock()
    first.release()
    second.lock()
    second.release()


def test_the_kubeconfig_is_private_and_whole(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "mesh")
    state.lock()
    for token in ("one", "two"):
        state.write_kubeconfig("https://127.0.0.1:15012", b"PEM", token)
        config = yaml.safe_load(state.kubeconfig.read_text())
        assert config["users"][0]["user"]["token"] == token
        assert state.kubeconfig.stat().st_mode & 0o777 == 0o600
    state.write_running("https://127.0.0.1:15012", "http://127.0.0.1:15014")
    assert sorted(path.name for path in state.path.iterdir()) == ["control.json", "control.lock", "kubeconfig"]
    state.release()
    assert not state.running.exists()


def test_a_state_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mesh").write_text("")
    with pytest.raises(FileProblem, match="cannot be used"):
        StateDir(tmp_path / "mesh").lock()


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    write_private(path, b"old")

    def fails(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(FileProblem, match="No space"):
        write_private(path, b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("secret", b"old")]


def test_reading_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    with pytest.raises(FileProblem, match="cannot be read: No such file"):
        read_private(path)
    write_private(path, b"")
    with pytest.raises(FileProblem, match="is empty"):
        read_private(path)
    write_private(path, b"x", 0o640)
    with pytest.raises(FileProblem, match="open to other users"):
        read_private(path)
