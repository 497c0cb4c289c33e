"""Room: traces. Where spans are kept: one SQLite file, bounded by age and by size, written in batches by a thread of its own.

In: decoded spans, from any thread (``add`` never waits). Out: ``search`` and ``trace``, which read the disk: not for an event
loop. Traces are there to be looked at, not to be relied on: a file that cannot be read is made anew, a queue that is full refuses
spans (``add`` says so and the sender tries again), a power cut may cost the last second.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from control.files import FileProblem
from control.traces.span import Event, Operation, Query, Span, TraceSummary

__all__ = ["LIMIT", "RETENTION", "TraceStore"]

log = logging.getLogger("mesh.control.traces")
T = TypeVar("T")

RETENTION = 3600.0  # seconds
LIMIT = 256 << 20  # bytes
WAITING = 50_000  # spans that may wait to be written
_BATCH = 2000  # spans of one transaction
_PRUNE = 10.0  # seconds between looks at age and size
_SCHEMA = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS spans (
  number INTEGER PRIMARY KEY, trace TEXT NOT NULL, span TEXT NOT NULL, parent TEXT NOT NULL, service TEXT NOT NULL,
  name TEXT NOT NULL, operation TEXT NOT NULL, kind TEXT NOT NULL, start REAL NOT NULL, duration REAL NOT NULL,
  error INTEGER NOT NULL, code INTEGER NOT NULL, tags TEXT NOT NULL, events TEXT NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS spans_id ON spans (trace, span, kind);
CREATE INDEX IF NOT EXISTS spans_start ON spans (start);
CREATE INDEX IF NOT EXISTS spans_service ON spans (service, start);
CREATE INDEX IF NOT EXISTS spans_name ON spans (name, start);
CREATE INDEX IF NOT EXISTS spans_operation ON spans (operation, start);
CREATE INDEX IF NOT EXISTS spans_duration ON spans (duration);
CREATE INDEX IF NOT EXISTS spans_error ON spans (error, start);
CREATE INDEX IF NOT EXISTS spans_code ON spans (code, start);
CREATE TABLE IF NOT EXISTS tags (
  key TEXT NOT NULL, value TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (key, value, number)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tags_number ON tags (number);
"""
_COLUMNS = "trace, span, parent, service, name, operation, kind, start, duration, error, code, tags, events"
_SUMMED = "span, parent, service, operation, start, duration, error, code, tags"
# Every span of a workload says the same, or nobody looks for it: found by reading the tags themselves.
_NOT_INDEXED = frozenset(
    (
        *(
            "http.url",
            "peer.address",
            "component",
            "node_id",
            "user_agent",
            "http.protocol",
            "downstream_cluster",
            "request_size",
            "response_size",
        ),
        *("istio.mesh_id", "istio.namespace", "istio.canonical_service", "istio.canonical_revision", "mesh.reporter"),
        *("http.status_code", "http.method", "error", "upstream_cluster.name", "grpc.authority", "grpc.content_type"),
    )
)
_LONGEST_INDEXED = 256


class TraceStore:
    """Constructing opens nothing. ``clock``: Unix seconds. ``written``: called on the writer's thread after each batch."""

    def __init__(
        self,
        path: Path,
        *,
        retention: float = RETENTION,
        limit: int = LIMIT,
        waiting: int = WAITING,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._retention = retention
        self._limit = limit
        self._most = waiting
        self._clock = clock
        self._pending: list[Span] = []
        self._writing = 0
        self._lock = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._broken: sqlite3.Error | None = None  # why the file must be made anew
        self._age = 0  # of the file; odd while it is being made anew
        self.stored = self.refused = self.lost = 0

    def open(self) -> None:
        """Raises ``FileProblem``."""
        try:
            self._made().close()
        except sqlite3.DatabaseError as error:
            try:
                self._anew(error).close()
            except sqlite3.Error as again:
                raise FileProblem(f"{self._path}: cannot be used: {again}") from again
        self._thread = threading.Thread(target=self._run, name="trace-store", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what waits, and end."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _anew(self, error: sqlite3.Error) -> sqlite3.Connection:
        """An empty file in the place of one that cannot be read. Raises ``FileProblem``, ``sqlite3.Error``."""
        self._age += 1
        try:
            for suffix in ("", "-wal", "-shm"):
                with suppress(OSError):
                    Path(f"{self._path}{suffix}").unlink()
            db = self._made()
        finally:
            self._age += 1
        log.warning("%s: it could not be used (%s) and was made anew, its traces are lost", self._path, error)
        return db

    def _made(self) -> sqlite3.Connection:
        try:
            self._path.touch(mode=0o600)
            self._path.chmod(0o600)
        except OSError as error:
            raise FileProblem(f"{self._path}: cannot be used: {error.strerror}") from error
        db = self._connected()
        try:
            db.execute("PRAGMA journal_mode=WAL")
            if db.execute("PRAGMA user_version").fetchone()[0] not in (0, _SCHEMA):
                raise sqlite3.DatabaseError("it was written by another version")
            db.executescript(_TABLES)
            db.execute(f"PRAGMA user_version={_SCHEMA}")
        except BaseException:
            db.close()
            raise
        return db

    def _connected(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=5.0, isolation_level=None)
        db.execute("PRAGMA synchronous=OFF")
        db.execute("PRAGMA journal_size_limit=16777216")
        return db

    # -- writing ---------------------------------------------------------------------------------------------------------

    def add(self, spans: Sequence[Span]) -> bool:
        """False: too many wait already, none was taken."""
        with self._lock:
            if self._closing or len(self._pending) + self._writing + len(spans) > self._most:
                self.refused += len(spans)
                return False
            self._pending += spans
            self._lock.notify_all()
        return True

    def flush(self) -> None:
        """Wait until what was added is written."""
        with self._lock:
            self._lock.wait_for(lambda: not self._pending and not self._writing)

    def _run(self) -> None:
        db = self._connected()
        broken: sqlite3.Error | None = None
        complained = False
        pruned = 0.0
        while True:
            with self._lock:
                self._lock.wait_for(lambda: bool(self._pending) or self._closing or self._broken is not None, _PRUNE)
                batch = self._pending[:_BATCH]
                del self._pending[:_BATCH]
                self._writing = len(batch)
                closing_now = self._closing
                broken, self._broken = self._broken or broken, None
            try:
                if broken is not None:
                    db.close()
                    db = self._anew(broken)
                    broken = None
                if batch:
                    self._write(db, batch)
                if time.monotonic() - pruned >= _PRUNE:
                    pruned = time.monotonic()
                    self.prune(db)
                complained = False
            except (sqlite3.Error, FileProblem) as error:
                self.lost += len(batch)
                if not complained:  # once per outage, not once per batch
                    complained = True
                    log.error("%s: spans are lost until it works again: %s", self._path, error)
                if broken is None and isinstance(error, sqlite3.Error):
                    self._suspect(error)
            with self._lock:
                self._writing = 0
                self._lock.notify_all()
                if closing_now and not self._pending:
                    break
        db.close()

    def _suspect(self, error: sqlite3.Error) -> None:
        """Have the file made anew if that is what the error asks for; a full disk, say, needs no new file."""
        # Damaged, no database: the class itself; what may pass is an OperationalError. No table: somebody took the file away.
        if type(error) is sqlite3.DatabaseError or "no such table" in str(error):
            with self._lock:
                self._broken = error
                self._lock.notify_all()

    def _write(self, db: sqlite3.Connection, batch: Sequence[Span]) -> None:
        encode = msgspec.json.encode
        with _transaction(db):
            for span in batch:
                code = span.tags.get("http.status_code", "")
                row = (
                    *(span.trace_id, span.span_id, span.parent_id, span.service, span.service.partition(".")[0], span.operation),
                    *(span.kind, span.start, span.duration, span.status == "error"),
                    *(int(code) if code.isascii() and code.isdigit() and len(code) == 3 else 0,),
                    *(encode(span.tags).decode(), encode(span.events).decode()),
                )
                cursor = db.execute(f"INSERT OR IGNORE INTO spans ({_COLUMNS}) VALUES ({','.join('?' * len(row))})", row)
                if cursor.rowcount:  # else it was sent twice
                    self.stored += 1
                    number = cursor.lastrowid
                    rows = [
                        (key, value, number)
                        for key, value in span.tags.items()
                        if key not in _NOT_INDEXED and len(value) <= _LONGEST_INDEXED
                    ]
                    db.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?, ?)", rows)

    def prune(self, db: sqlite3.Connection) -> None:
        """Forget what is too old, or of a clock that is far ahead (nothing would ever be newer), and the oldest of what is too
        much."""
        if not self._path.exists():
            raise sqlite3.DatabaseError("it was taken away")
        now = self._clock()
        self._forget(db, "start < ?", now - self._retention)
        self._forget(db, "start > ?", now + self._retention)
        while self._size(db) > self._limit:
            count, least = db.execute("SELECT count(*), min(number) FROM spans").fetchone()
            if not count:
                return
            self._forget(db, "number <= ?", least + max(1, count // 10))

    def _forget(self, db: sqlite3.Connection, condition: str, value: float) -> None:
        with _transaction(db):
            db.execute(f"DELETE FROM tags WHERE number IN (SELECT number FROM spans WHERE {condition})", (value,))
            db.execute(f"DELETE FROM spans WHERE {condition}", (value,))

    @staticmethod
    def _size(db: sqlite3.Connection) -> int:
        """Bytes in use; pages that are free will be used again."""
        pages, free, size = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size"))
        return int((pages - free) * size)

    # -- reading ---------------------------------------------------------------------------------------------------------

    def _read(self, look: Callable[[sqlite3.Connection], T], nothing: T) -> T:
        """What ``look`` finds. Where the file cannot be read there is ``nothing`` to see, and it is made anew."""
        age = self._age
        try:
            with closing(self._connected()) as db:
                return look(db)
        except sqlite3.Error as error:
            if age == self._age and not age % 2:  # else it is another file by now
                log.warning("%s: cannot be read: %s", self._path, error)
                self._suspect(error)
            return nothing

    def trace(self, trace_id: str) -> list[Span]:
        """Its spans in order of their beginnings; [] when it is not known. ``trace_id``: the whole id, or its beginning (≥ 8)."""
        wanted = trace_id.lower()
        if not (8 <= len(wanted) <= 32 and set(wanted) <= set("0123456789abcdef")):
            return []

        def look(db: sqlite3.Connection) -> list[Span]:
            first = db.execute(
                "SELECT trace FROM spans WHERE trace >= ? AND trace < ? LIMIT 1", (wanted, wanted + "g")
            ).fetchone()
            if first is None:
                return []
            found = db.execute(f"SELECT {_COLUMNS} FROM spans WHERE trace = ? ORDER BY start, number", first)
            return [_span(row) for row in found]

        return self._read(look, [])

    def search(self, query: Query) -> list[TraceSummary]:
        """Traces with a span that is what ``query`` says, the newest first."""
        conditions, values = _conditions(query, self._clock() - self._retention)
        limit = max(1, min(query.limit, 1000))

        def look(db: sqlite3.Connection) -> list[TraceSummary]:
            # The newest spans first, until there are enough traces: one sorting over all spans would read them all.
            chosen: dict[str, None] = {}
            for (trace,) in db.execute(f"SELECT trace FROM spans WHERE {' AND '.join(conditions)} ORDER BY start DESC", values):
                chosen[trace] = None
                if len(chosen) >= limit:
                    break
            summaries = []
            for trace in chosen:
                rows = db.execute(f"SELECT {_SUMMED} FROM spans WHERE trace = ? ORDER BY start, number", (trace,)).fetchall()
                if rows:
                    summaries.append(_summary(trace, rows))
            return summaries

        found: list[TraceSummary] = self._read(look, [])
        return sorted(found, key=lambda one: -one.start)

    def services(self) -> list[str]:
        """Every service that has spans."""
        return self._texts("SELECT DISTINCT service FROM spans ORDER BY service")

    def operations(self, service: str) -> list[str]:
        wanted = "SELECT DISTINCT operation FROM spans WHERE service = ? OR name = ? ORDER BY operation LIMIT 1000"
        return self._texts(wanted, service, service)

    def _texts(self, wanted: str, *values: str) -> list[str]:
        return self._read(lambda db: [row[0] for row in db.execute(wanted, values)], [])


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # some errors have ended it already
            db.execute("ROLLBACK")
        raise


def _conditions(query: Query, oldest: float) -> tuple[list[str], list[Any]]:
    conditions, values = ["start >= ?"], [max(oldest, query.begin or 0.0)]  # type: list[str], list[Any]

    def ask(condition: str, *given: Any) -> None:
        conditions.append(condition)
        values.extend(given)

    if query.service:
        ask("service = ?" if "." in query.service else "name = ?", query.service)
    if query.operation:
        ask("(operation = ? OR instr(operation, ?))", query.operation, query.operation)
    if query.min_duration is not None:
        ask("duration >= ?", query.min_duration)
    if query.max_duration is not None:
        ask("duration <= ?", query.max_duration)
    if query.end is not None:
        ask("start <= ?", query.end)
    status = query.status.lower()
    if status in ("error", "ok"):
        ask("error = ?", status == "error")
    elif status:
        first = int(status[0]) * 100 if status.endswith("xx") else int(status)
        ask("code BETWEEN ? AND ?", first, first + 99 if status.endswith("xx") else first)
    for key, value in query.tags:
        if key in _NOT_INDEXED or len(value) > _LONGEST_INDEXED:
            ask("EXISTS (SELECT 1 FROM json_each(spans.tags) WHERE json_each.key = ? AND json_each.value = ?)", key, value)
        else:
            ask("number IN (SELECT number FROM tags WHERE key = ? AND value = ?)", key, value)
    return conditions, values


def _summary(trace: str, rows: Sequence[Any]) -> TraceSummary:
    ids = {row[0] for row in rows}
    root = next((row for row in rows if row[1] not in ids), rows[0])
    start = min(row[4] for row in rows)
    tags = msgspec.json.decode(root[8], type=dict[str, str])
    return TraceSummary(
        trace_id=trace,
        start=start,
        duration=max(row[4] + row[5] for row in rows) - start,
        root=Operation(root[2], root[3]),
        services=tuple(dict.fromkeys(row[2] for row in rows)),
        spans=len(rows),
        errors=sum(row[6] for row in rows),
        method=tags.get("http.method", ""),
        url=tags.get("http.url", ""),
        code=root[7],
    )


def _span(row: Any) -> Span:
    return Span(
        trace_id=row[0],
        span_id=row[1],
        parent_id=row[2],
        service=row[3],
        operation=row[5],
        kind=row[6],
        start=row[7],
        duration=row[8],
        status="error" if row[9] else "ok",
        tags=msgspec.json.decode(row[11], type=dict[str, str]),
        events=msgspec.json.decode(row[12], type=tuple[Event, ...]),
    )
