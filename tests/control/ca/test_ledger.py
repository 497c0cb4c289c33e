"""What was issued is known until it expires, and what was revoked stays so, whatever happens to the process."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from control.ca.database import REMEMBERED
from control.ca.ledger import Ledger, Row
from control.files import FileProblem

NOW = 1_800_000_000.0


def row(serial: str, pod: str = "a", issued: float = NOW, expires: float = NOW + 100, key: str = "k") -> Row:
    return Row(serial, f"spiffe://td/ns/default/sa/{pod}", "default", pod, "root", key, issued, expires)


def test_rows_newest_first_and_gone_when_expired(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "c.db")
    assert (tmp_path / "c.db").stat().st_mode & 0o777 == 0o600
    for one in (row("1"), row("2", "b", expires=NOW + 5), row("3", issued=NOW - 50)):  # the clock was set back
        ledger.record(one)
    assert [one.serial for one in ledger.rows(NOW)] == ["3", "2", "1"]
    assert {pod: one.serial for (_, pod), one in ledger.newest(NOW).items()} == {"a": "3", "b": "2"}
    assert ledger.newest(NOW + 6).keys() == {("default", "a")}
    assert ledger.find("2") == row("2", "b", expires=NOW + 5)
    assert not ledger.prune(NOW + 6)
    assert ledger.find("2") is None
    ledger.close()


def test_revocations_outlive_the_process_and_end_with_the_certificate(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "c.db")
    ledger.record(row("1", key="stolen"))
    ledger.revoke_serial(row("1", key="stolen"), NOW)
    ledger.revoke_serial(row("1", key="stolen"), NOW + 1)  # again: nothing new
    ledger.revoke_identity("spiffe://td/ns/default/sa/b", NOW)
    del ledger  # not closed, as when killed
    ledger = Ledger(tmp_path / "c.db")
    assert ledger.revoked_serials() == {"1": ("spiffe://td/ns/default/sa/a", NOW)}
    assert ledger.revoked_identities() == {"spiffe://td/ns/default/sa/b": NOW}
    assert "new key" in ledger.refused("spiffe://td/ns/default/sa/a", "stolen")
    assert ledger.refused("spiffe://td/ns/default/sa/a", "other") == ""
    assert "is revoked" in ledger.refused("spiffe://td/ns/default/sa/b", "other")
    assert ledger.restore("spiffe://td/ns/default/sa/b")
    assert not ledger.restore("spiffe://td/ns/default/sa/b")
    assert not ledger.prune(NOW + 100 + REMEMBERED)  # a clock that is ahead brings nothing back
    assert list(ledger.revoked_serials()) == ["1"]
    assert ledger.prune(NOW + 101 + REMEMBERED)
    assert (ledger.revoked_serials(), ledger.revoked_identities()) == ({}, {})
    ledger.close()


def test_a_file_that_is_not_ours_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "c.db").write_bytes(b"nothing of the kind " * 100)
    with pytest.raises(FileProblem, match="restore it from a backup"):
        Ledger(tmp_path / "c.db")
    newer = sqlite3.connect(tmp_path / "n.db")
    newer.execute("PRAGMA user_version=9")
    newer.close()
    with pytest.raises(FileProblem, match="newer version"):
        Ledger(tmp_path / "n.db")


def test_a_file_that_became_empty_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    """As after a power cut, or when somebody truncates it: everything revoked would be good again."""
    ledger = Ledger(tmp_path / "c.db")
    ledger.revoke_identity("spiffe://td/ns/default/sa/b", NOW)
    ledger.close()
    (tmp_path / "c.db").write_bytes(b"")
    with pytest.raises(FileProblem, match=r"c\.db: is empty: restore it from a backup, for it knows what is revoked"):
        Ledger(tmp_path / "c.db")


def test_a_kill_while_it_is_made_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "c.db.new").write_bytes(b"")
    (tmp_path / "c.db.new-journal").write_bytes(b"half")
    Ledger(tmp_path / "c.db").close()
    assert (tmp_path / "c.db").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "c.db.new").exists()
