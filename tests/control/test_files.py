"""Private files: whole or not at all, closed to others, and every failure one line."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from control.files import FileProblem, read_private, write_private


def test_written_whole_and_closed(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_private(path, b"one")
    write_private(path, b"two")
    assert read_private(path) == b"two" and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["secret"]


def test_a_link_in_the_way_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_bytes(b"theirs")
    (tmp_path / "secret").symlink_to(target)
    write_private(tmp_path / "secret", b"ours")
    assert target.read_bytes() == b"theirs" and not (tmp_path / "secret").is_symlink()


@pytest.mark.parametrize("place", ["a-directory", "missing/secret", "a-file/secret"])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "a-directory").mkdir()
    (tmp_path / "a-file").write_bytes(b"")
    with pytest.raises(FileProblem, match="cannot be written") as refused:
        write_private(tmp_path / place, b"data")
    assert "\n" not in str(refused.value)
    assert sorted(os.listdir(tmp_path)) == ["a-directory", "a-file"]  # nothing half-made is left


def test_a_secret_of_another_user_is_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    write_private(path, b"data")
    path.touch()
    owner = path.stat().st_uid
    if owner == 0:
        try:
            os.chown(path, 12345, -1)
        except PermissionError:
            pytest.skip("needs the right to give a file away")
    else:
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(FileProblem, match="belongs to another user"):
        read_private(path)
