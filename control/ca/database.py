"""SQLite files that know what was revoked (room ``ca``): opened as ``ledger`` and ``token_book`` need them.

In: a path, the tables, a schema's number, how durable. Out: a connection, or ``FileProblem``: what was taken back must not come
back because its file is gone bad, so nothing is ever made anew in place of one that cannot be read. One thread at a time.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Literal

from control.files import FileProblem

__all__ = ["REMEMBERED", "open_database"]

# Seconds that a revocation outlives what it revoked, so that a clock that was ahead for a while brings nothing back.
REMEMBERED = 30 * 86400.0


def open_database(path: Path, tables: str, schema: int, synchronous: Literal["NORMAL", "FULL"]) -> sqlite3.Connection:
    """``tables``: SQL that makes what is missing. ``synchronous``: FULL waits for the disk at each write, NORMAL does not."""
    db = None
    try:
        if not path.exists():
            _make(path, tables, schema)
        elif not path.stat().st_size:  # to SQLite it would be a new one; ours are never empty
            raise FileProblem(
                f"{path}: is empty: restore it from a backup, for it knows what is revoked, or remove it to begin anew"
            )
        path.chmod(0o600)
        db = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"PRAGMA synchronous={synchronous}")
        found = db.execute("PRAGMA user_version").fetchone()[0]
        if found not in (0, schema):
            raise FileProblem(f"{path}: was written by a newer version (its schema is {found}, ours {schema}): use that one")
        db.executescript(tables)
        db.execute(f"PRAGMA user_version={schema}")
    except (OSError, sqlite3.Error, FileProblem) as error:
        if db is not None:
            db.close()
        if isinstance(error, FileProblem):
            raise
        if isinstance(error, OSError):
            raise FileProblem(f"{path}: cannot be used: {error.strerror}") from error
        raise FileProblem(f"{path}: cannot be used ({error}): restore it from a backup, for it knows what is revoked") from error
    return db


def _make(path: Path, tables: str, schema: int) -> None:
    """A new file, under its name only once it is whole: a kill leaves no empty one."""
    new = path.with_name(path.name + ".new")
    for remains in (new, new.with_name(new.name + "-journal")):
        remains.unlink(missing_ok=True)
    new.touch(mode=0o600)
    with closing(sqlite3.connect(new)) as db:
        db.executescript(tables)
        db.execute(f"PRAGMA user_version={schema}")
    new.replace(path)
