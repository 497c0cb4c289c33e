"""What the disk adds: durability, one process at a time, modes, damage."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from control.resources.kinds import by_kind
from control.store.api import StoreError
from control.store.sqlite import SqliteStore

SERVICE = by_kind("", "Service")


def service(name: str, value: int = 0) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"value": value}}


def run(path: Path, story: Callable[[SqliteStore], Awaitable[object]]) -> None:
    async def whole() -> None:
        store = SqliteStore(path)
        await store.open()
        try:
            await asyncio.wait_for(story(store), 20)
        finally:
            await store.close()

    asyncio.run(whole())


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    async def before(s: SqliteStore) -> None:
        await s.create(SERVICE, service("a", 1))
        await s.create(SERVICE, service("b"))
        await s.delete(SERVICE, "default", "b")

    async def after(s: SqliteStore) -> None:
        found, version = await s.list(SERVICE)
        assert [(o["metadata"]["name"], o["spec"]["value"]) for o in found] == [("a", 1)]
        assert version == 4, "a deletion's version is not given out twice"

    run(tmp_path / "mesh.db", before)
    run(tmp_path / "mesh.db", after)


def test_files_are_for_the_owner_only(tmp_path: Path) -> None:
    async def story(s: SqliteStore) -> None:
        await s.create(SERVICE, service("a"))
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "state").iterdir()}
        assert modes == dict.fromkeys(["mesh.db", "mesh.db-wal", "mesh.db-shm", "mesh.db.lock"], 0o600)
        assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700

    old = os.umask(0o022)
    try:
        run(tmp_path / "state" / "mesh.db", story)
    finally:
        os.umask(old)


def test_a_second_process_is_told_who_has_it(tmp_path: Path) -> None:
    async def story(s: SqliteStore) -> None:
        second = SqliteStore(tmp_path / "mesh.db")
        with pytest.raises(StoreError, match=rf"in use by another process \(pid {os.getpid()}\)"):
            await second.open()
        await s.create(SERVICE, service("a"))  # the first goes on

    run(tmp_path / "mesh.db", story)
    run(tmp_path / "mesh.db", lambda s: s.list(SERVICE))


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to be looked at" * 100, b"\x00" * 4096])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mesh.db").write_bytes(content)

    async def story() -> None:
        with pytest.raises(StoreError, match=r"mesh\.db is not a mesh store or is damaged"):
            await SqliteStore(tmp_path / "mesh.db").open()

    asyncio.run(story())


def test_a_row_that_is_no_object_is_named(tmp_path: Path) -> None:
    run(tmp_path / "mesh.db", lambda s: s.list(SERVICE))
    for body in (b"\x00\xff", "[]", "{}", 7):
        with sqlite3.connect(tmp_path / "mesh.db") as db:
            db.execute("INSERT OR REPLACE INTO objects VALUES ('', 'Service', 'default', 'a', 2, ?)", (body,))
        db.close()

        async def story() -> None:
            with pytest.raises(StoreError, match="damaged: Service default/a is no object"):
                await SqliteStore(tmp_path / "mesh.db").open()

        asyncio.run(story())


def test_a_file_that_is_held_or_cannot_be_used_is_not_called_damaged(tmp_path: Path) -> None:
    """What is called damaged gets moved away, and a mesh with it."""

    def refused(path: Path, message: str) -> None:
        async def story() -> None:
            with pytest.raises(StoreError, match=message) as problem:
                await SqliteStore(path, patience=0.0).open()
            assert "move it away" not in str(problem.value)

        asyncio.run(story())

    holder = sqlite3.connect(tmp_path / "mesh.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    refused(tmp_path / "mesh.db", "held by another program")
    holder.close()
    (tmp_path / "folder.db").mkdir()
    refused(tmp_path / "folder.db", "cannot be used")


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mesh.db") as db:
        db.execute("PRAGMA user_version=99")
    db.close()

    async def story() -> None:
        with pytest.raises(StoreError, match="newer version"):
            await SqliteStore(tmp_path / "mesh.db").open()

    asyncio.run(story())


def test_a_place_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def story() -> None:
        with pytest.raises(StoreError, match="cannot be opened"):
            await SqliteStore(tmp_path / "file" / "mesh.db").open()

    asyncio.run(story())


def test_a_failed_commit_changes_nothing_and_the_next_succeeds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(s: SqliteStore) -> None:
        await s.create(SERVICE, service("a"))
        real = s._commit
        s._commit = lambda changes: (_ for _ in ()).throw(sqlite3.OperationalError("disk is full"))  # type: ignore[method-assign]
        outcomes = await asyncio.gather(*(s.create(SERVICE, service(n)) for n in "bcd"), return_exceptions=True)
        assert all(isinstance(o, StoreError) and "disk is full" in str(o) for o in outcomes)
        s._commit = real  # type: ignore[method-assign]
        made = await s.create(SERVICE, service("e"))
        assert made["metadata"]["resourceVersion"] == "3"
        assert [o["metadata"]["name"] for o in (await s.list(SERVICE))[0]] == ["a", "e"]

    run(tmp_path / "mesh.db", story)
    assert "disk is full" in caplog.text


def test_a_commit_that_failed_but_was_made_counts(tmp_path: Path) -> None:
    """SQLite may report an error after the commit; then the file decides."""

    async def story(s: SqliteStore) -> None:
        await s.create(SERVICE, service("a"))
        await s._off_loop(lambda: wrap(s))
        await s.create(SERVICE, service("b"))
        assert s.version == 3

    def wrap(s: SqliteStore) -> None:
        db = s._db

        class Lies:
            in_transaction = False

            def execute(self, sql: str, *values: Any) -> Any:
                assert db is not None
                done = db.execute(sql, *values)
                if sql == "COMMIT":
                    raise sqlite3.OperationalError("disk I/O error")
                return done

            def close(self) -> None:
                assert db is not None
                db.close()

        s._db = Lies()  # type: ignore[assignment]

    run(tmp_path / "mesh.db", story)
    run(tmp_path / "mesh.db", lambda s: s.get(SERVICE, "default", "b"))


def test_a_caller_that_goes_away_does_not_part_memory_and_disk(tmp_path: Path) -> None:
    async def story(s: SqliteStore) -> None:
        tasks = [asyncio.ensure_future(s.create(SERVICE, service(f"s{i}"))) for i in range(20)]
        await asyncio.sleep(0)  # the writes are queued
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert len((await s.list(SERVICE))[0]) == 20
        assert s.version == 21

    async def after(s: SqliteStore) -> None:
        assert len((await s.list(SERVICE))[0]) == 20

    run(tmp_path / "mesh.db", story)
    run(tmp_path / "mesh.db", after)


def test_writes_that_wait_share_a_commit(tmp_path: Path) -> None:
    async def story(s: SqliteStore) -> None:
        batches: list[int] = []
        real = s._commit

        def counted(changes: Any) -> None:
            batches.append(len(changes))
            real(changes)

        s._commit = counted  # type: ignore[method-assign]
        await asyncio.gather(*(s.create(SERVICE, service(f"s{i}")) for i in range(300)))
        assert sum(batches) == 300
        assert len(batches) <= 3

    run(tmp_path / "mesh.db", story)


WRITER = textwrap.dedent(
    """
    import asyncio, sys
    from control.resources.kinds import by_kind
    from control.store.sqlite import SqliteStore

    async def main():
        store = SqliteStore(sys.argv[1])
        await store.open()
        kind = by_kind("", "Service")

        async def write(name):
            obj = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"value": 0}}
            obj = await store.create(kind, obj)
            while True:
                obj["spec"] = {"value": obj["spec"]["value"] + 1, "padding": "x" * 2000}
                obj = await store.update(kind, obj)
                print(name, obj["metadata"]["resourceVersion"], obj["spec"]["value"], flush=True)

        await asyncio.gather(*(write(f"s{i}") for i in range(4)))

    asyncio.run(main())
    """
)


@pytest.mark.parametrize("lines", [1, 57, 400])
def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, lines: int) -> None:
    """Kill a writer after it has printed some acknowledgements; whatever it printed is there, at that version or a later one."""
    path = tmp_path / "mesh.db"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    told: dict[str, tuple[int, int]] = {}
    try:
        for _ in range(lines):
            _note(told, writer.stdout.readline())
    finally:
        os.kill(writer.pid, signal.SIGKILL)
    for line in writer.stdout:
        if line.endswith("\n"):
            _note(told, line)  # acknowledged before the signal arrived
    writer.stdout.close()
    assert writer.wait(20) == -signal.SIGKILL

    async def after(s: SqliteStore) -> None:
        for name, (version, value) in told.items():
            found = await s.get(SERVICE, "default", name)
            assert int(found["metadata"]["resourceVersion"]) >= version
            assert found["spec"]["value"] >= value
        assert s.version >= max(version for version, _ in told.values())
        check = await s._off_loop(lambda: s._db.execute("PRAGMA integrity_check").fetchone()[0])  # type: ignore[union-attr]
        assert check == "ok"
        await s.create(SERVICE, service("later"))

    run(path, after)


def _note(told: dict[str, tuple[int, int]], line: str) -> None:
    name, version, value = line.split()
    told[name] = (int(version), int(value))
