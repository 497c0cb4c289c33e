"""The embedded store: SQLite in WAL mode, one writer, everything also in memory.

Room: control/store, loud. Reads never touch the disk. A write is committed with synchronous=FULL (the WAL is fsynced) in a thread
of its own before it is applied, told and acknowledged, so a kill -9 or a power cut loses nothing acknowledged; writes that wait
together share one commit. A lock file keeps a second process out: it would not see this one's memory.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from control.resources.kinds import by_kind
from control.store.api import StoreError
from control.store.base import BaseStore, Write
from control.store.table import Change, Draft, Key, Record, Table
from control.tasks import spawn

__all__ = ["SqliteStore"]

log = logging.getLogger("mesh.control.store")

SCHEMA = 1
MAX_BATCH = 256

_CREATE = """
CREATE TABLE IF NOT EXISTS objects (
  grp TEXT NOT NULL, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
  version INTEGER NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (grp, kind, namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL);
INSERT OR IGNORE INTO state VALUES (1, 1);
"""


class SqliteStore(BaseStore):
    """``path`` is the database file; it and its companions (-wal, -shm, .lock) have mode 0600, since they hold Secrets.
    ``patience``: seconds to wait for another program (a backup, say) that has it locked."""

    def __init__(self, path: str | Path, *, patience: float = 5.0, **options: Any) -> None:
        super().__init__(**options)
        self._path = Path(path)
        self._patience = patience
        self._lock: int | None = None
        self._db: sqlite3.Connection | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._queue: list[tuple[Write, asyncio.Future[Record]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._closed = True

    async def open(self) -> None:
        """Raises StoreError when another process has it, or the file is not ours or damaged."""
        self._lock = _take_lock(self._path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        try:
            self._reset(await self._off_loop(self._load))
        except BaseException:
            await self._release()
            raise
        self._closed = False

    async def close(self) -> None:
        """Finishes the writes that wait, folds the WAL into the database and lets go of the file."""
        if self._closed:
            return
        self._close()
        if self._writer is not None:
            await asyncio.wait([self._writer])
        await self._release()

    async def _release(self) -> None:
        if self._thread is not None:
            await self._off_loop(self._disconnect)
            self._thread.shutdown()
            self._thread = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _off_loop(self, work: Callable[[], Any]) -> Any:
        assert self._thread is not None
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _write(self, write: Write) -> Record:
        self._check_open()
        answer: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        self._queue.append((write, answer))
        if self._writer is None or self._writer.done():
            self._writer = spawn(self._drain(), "store writer")
        return await answer

    async def _drain(self) -> None:
        """Not tied to any caller: one that is cancelled while its write is under way changes nothing about the write."""
        while self._queue:
            batch, self._queue = self._queue[:MAX_BATCH], self._queue[MAX_BATCH:]
            draft = Draft(self._table, self._clock())
            done: list[tuple[asyncio.Future[Record], Record | Exception]] = []
            for write, answer in batch:
                try:
                    done.append((answer, write(draft)))
                except Exception as error:  # told after the commit: who is refused must be able to read why
                    done.append((answer, error))
            try:
                if draft.changes:
                    await self._off_loop(lambda changes=draft.changes: self._commit(changes))  # type: ignore[misc]
            except Exception as error:
                failure = StoreError(f"{self._path} cannot be written, nothing was changed: {error}")
                log.error("%s", failure)
                for answer, _ in done:
                    _answer(answer, failure)
                continue
            self._apply(draft.changes)
            for answer, outcome in done:
                _answer(answer, outcome)

    # The rest runs in the store's thread.

    def _load(self) -> Table:
        self._path.touch(mode=0o600)
        self._path.chmod(0o600)  # SQLite gives its companions the same mode
        try:
            db = self._db = sqlite3.connect(self._path, timeout=self._patience, isolation_level=None)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            found = db.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, SCHEMA):
                raise StoreError(f"{self._path} was written by a newer version (its schema is {found}, ours {SCHEMA})")
            db.executescript(_CREATE)
            db.execute(f"PRAGMA user_version={SCHEMA}")
            table = Table(db.execute("SELECT version FROM state").fetchone()[0])
            rows = db.execute("SELECT grp, kind, namespace, name, version, body FROM objects").fetchall()
        except sqlite3.Error as error:
            raise StoreError(_unusable(self._path, error)) from None
        for group, name_of_kind, namespace, name, version, body in rows:
            try:
                kind = by_kind(group, name_of_kind)
            except KeyError:
                log.warning("%s: skipping %s %s/%s: no such kind here", self._path, name_of_kind, namespace, name)
                continue
            if not _is_object(body):
                what = f"{name_of_kind} {namespace}/{name} is no object"
                raise StoreError(f"{self._path} is damaged: {what}; move it away to begin anew")
            table.put(Key(kind, namespace, name), Record(version, body))
        return table

    def _commit(self, changes: list[Change]) -> None:
        db = self._db
        assert db is not None
        try:
            db.execute("BEGIN IMMEDIATE")
            for change in changes:
                key = (change.key.kind.group, change.key.kind.kind, change.key.namespace, change.key.name)
                if change.type == "DELETED":
                    db.execute("DELETE FROM objects WHERE grp=? AND kind=? AND namespace=? AND name=?", key)
                else:
                    db.execute("INSERT OR REPLACE INTO objects VALUES (?,?,?,?,?,?)", (*key, change.version, change.body))
            db.execute("UPDATE state SET version=?", (changes[-1].version,))
            db.execute("COMMIT")
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            # A commit that failed may still have been made: believe the file, not the error.
            if db.execute("SELECT version FROM state").fetchone()[0] != changes[-1].version:
                raise

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close()  # the last connection checkpoints the WAL
            self._db = None


_DAMAGED = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR}  # the last: tables that are not ours
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _unusable(path: Path, error: sqlite3.Error) -> str:
    """Only what is damaged may be moved away: a full disk or a file held by another program is no reason to lose a mesh."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _DAMAGED:
        return f"{path} is not a mesh store or is damaged ({error}); move it away to begin anew"
    if code in _BUSY:
        return f"{path} is held by another program ({error}); end that one"
    return f"{path} cannot be used ({error}); see to the space on its disk and to its permissions"


def _is_object(body: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(body, type=dict[str, msgspec.Raw])["metadata"], msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, KeyError):
        return False


def _answer(future: asyncio.Future[Record], outcome: Record | Exception) -> None:
    if future.done():
        return  # its caller was cancelled
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _take_lock(path: Path) -> int:
    """The kernel frees it when the process ends, however it ends. Raises StoreError when it is taken."""
    lock = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{path} cannot be opened: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise StoreError(f"{path} is in use by another process (pid {holder}); stop that one or choose another place") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(os.getpid()).encode(), 0)
    return fd
