"""What was issued and what was taken back (room ``ca``): a SQLite file beside the store.

In: facts about certificates, the wall time. Out: ``Ledger``: rows for people, sets for ``Trust``, answers for the authority.
Every call may wait for the disk: not for an event loop. One thread at a time. Issued certificates are written without waiting for
the disk (a power cut ends the sidecars that hold them as well); revocations are durable before they are acknowledged. Rows go
when their certificate has expired, revoked serials 30 days later; a revoked identity stays until it is restored.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from control.ca.database import REMEMBERED, open_database

__all__ = ["Ledger", "Row"]

SCHEMA = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS issued (
  number INTEGER PRIMARY KEY AUTOINCREMENT, serial TEXT NOT NULL UNIQUE, identity TEXT NOT NULL, namespace TEXT NOT NULL,
  pod TEXT NOT NULL, root TEXT NOT NULL, key TEXT NOT NULL, issued REAL NOT NULL, expires REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS issued_expires ON issued (expires);
CREATE TABLE IF NOT EXISTS revoked_serials (
  serial TEXT PRIMARY KEY, identity TEXT NOT NULL, pod TEXT NOT NULL, key TEXT NOT NULL, at REAL NOT NULL, expires REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS revoked_identities (identity TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
"""
_COLUMNS = "serial, identity, namespace, pod, root, key, issued, expires"


class Row(NamedTuple):
    """One certificate. ``root`` as in ``Trust.issuer``; ``key`` is the SHA-256 of its public key; times are wall time."""

    serial: str
    identity: str
    namespace: str
    pod: str
    root: str
    key: str
    issued: float
    expires: float


class Ledger:
    def __init__(self, path: Path) -> None:
        """Raises ``FileProblem`` when the file cannot be used."""
        self._db = open_database(path, _TABLES, SCHEMA, "NORMAL")

    def close(self) -> None:
        self._db.close()

    # -- issuing ---------------------------------------------------------------------------------------------------------

    def record(self, row: Row) -> None:
        self._db.execute(f"INSERT INTO issued ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def prune(self, now: float) -> bool:
        """Forget what has expired, revocations later. True: what is revoked has changed."""
        self._db.execute("DELETE FROM issued WHERE expires < ?", (now,))
        return self._db.execute("DELETE FROM revoked_serials WHERE expires < ?", (now - REMEMBERED,)).rowcount > 0

    def refused(self, identity: str, key: str) -> str:
        """Why ``identity`` must not get a certificate for ``key``; "" when nothing speaks against it."""
        if self._db.execute("SELECT 1 FROM revoked_identities WHERE identity = ?", (identity,)).fetchone():
            return f"{identity} is revoked"
        if self._db.execute("SELECT 1 FROM revoked_serials WHERE key = ?", (key,)).fetchone():
            return "a certificate of this key was revoked: make a new key"
        return ""

    # -- reading ---------------------------------------------------------------------------------------------------------

    def rows(self, now: float) -> list[Row]:
        """All certificates that have not expired, newest first."""
        found = self._db.execute(f"SELECT {_COLUMNS} FROM issued WHERE expires >= ? ORDER BY number DESC", (now,))
        return [Row(*row) for row in found]

    def find(self, serial: str) -> Row | None:
        found = self._db.execute(f"SELECT {_COLUMNS} FROM issued WHERE serial = ?", (serial,)).fetchone()
        return Row(*found) if found else None

    def newest(self, now: float) -> dict[tuple[str, str], Row]:
        """Of every pod, the certificate that it got last, unless that has expired."""
        # by number: a clock that was set back must not make an old one the newest
        last = "SELECT max(number) FROM issued WHERE expires >= ? GROUP BY namespace, pod"
        found = self._db.execute(f"SELECT {_COLUMNS} FROM issued WHERE number IN ({last})", (now,))
        return {(row[2], row[3]): Row(*row) for row in found}

    # -- revoking --------------------------------------------------------------------------------------------------------

    def revoked_serials(self) -> dict[str, tuple[str, float]]:
        """Serial to identity and time."""
        return {row[0]: (row[1], row[2]) for row in self._db.execute("SELECT serial, identity, at FROM revoked_serials")}

    def revoked_identities(self) -> dict[str, float]:
        return dict(self._db.execute("SELECT identity, at FROM revoked_identities ORDER BY identity"))

    def revoke_serial(self, row: Row, now: float) -> None:
        values = (row.serial, row.identity, f"{row.namespace}/{row.pod}", row.key, now, row.expires)
        self._durably("INSERT OR IGNORE INTO revoked_serials VALUES (?, ?, ?, ?, ?, ?)", values)

    def revoke_identity(self, identity: str, now: float) -> None:
        self._durably("INSERT OR IGNORE INTO revoked_identities VALUES (?, ?)", (identity, now))

    def restore(self, identity: str) -> bool:
        """False: it was not revoked."""
        return self._durably("DELETE FROM revoked_identities WHERE identity = ?", (identity,))

    def _durably(self, statement: str, values: tuple[object, ...]) -> bool:
        self._db.execute("PRAGMA synchronous=FULL")
        try:
            return self._db.execute(statement, values).rowcount > 0
        finally:
            self._db.execute("PRAGMA synchronous=NORMAL")
