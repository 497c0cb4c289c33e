"""Which bearer tokens are out and which were taken back (room ``ca``): a SQLite file beside the certificates' ledger.

In: facts about tokens, never a token. Out: rows for people, and the ids that no longer open the door. What is taken back is
on disk before that is acknowledged; a row goes when its token has expired, of one taken back 30 days later. Calls wait for the
disk: not for an event loop, but for ``is_revoked``, which asks memory only. One thread at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from control.ca.database import REMEMBERED, open_database

__all__ = ["TokenBook", "TokenRow"]

SCHEMA = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS tokens (
  id TEXT PRIMARY KEY, holder TEXT NOT NULL, role TEXT NOT NULL, created REAL NOT NULL, expires REAL NOT NULL, revoked REAL
) WITHOUT ROWID;
"""


class TokenRow(NamedTuple):
    """``holder``: who it was made for, a person or program's name or ``namespace/pod``; ``role``: view, edit, admin or sidecar.
    Times are wall time, seconds since 1970; ``revoked`` None: it is good until it expires.
    """

    id: str
    holder: str
    role: str
    created: float
    expires: float
    revoked: float | None = None


class TokenBook:
    def __init__(self, path: Path) -> None:
        """Raises ``FileProblem`` when the file cannot be used."""
        self._db = open_database(path, _TABLES, SCHEMA, "FULL")
        self._revoked = self._read_revoked()

    def close(self) -> None:
        self._db.close()

    def add(self, row: TokenRow, now: float) -> None:
        """Note a new token; forget those that have expired by ``now``, later those that were taken back."""
        self._db.execute("DELETE FROM tokens WHERE expires < iif(revoked IS NULL, ?, ?)", (now, now - REMEMBERED))
        self._db.execute("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?)", row)
        self._revoked = self._read_revoked()  # or it would grow for ever

    def _read_revoked(self) -> frozenset[str]:
        return frozenset(row[0] for row in self._db.execute("SELECT id FROM tokens WHERE revoked IS NOT NULL"))

    def revoke(self, token: str, now: float) -> TokenRow | None:
        """Take a token back; None: there is none of that id."""
        self._db.execute("UPDATE tokens SET revoked = ? WHERE id = ? AND revoked IS NULL", (now, token))
        row = self._db.execute("SELECT * FROM tokens WHERE id = ?", (token,)).fetchone()
        if row is None:
            return None
        self._revoked = self._read_revoked()
        return TokenRow(*row)

    def is_revoked(self, token: str) -> bool:
        return token in self._revoked

    def rows(self, now: float) -> list[TokenRow]:
        """What has not expired, oldest first."""
        found = self._db.execute("SELECT * FROM tokens WHERE expires >= ? ORDER BY created, id", (now,))
        return [TokenRow(*row) for row in found]
