"""The configuration from files: what is read, what is noticed, what is said of files that cannot be obeyed."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from meshproxy.agent.state import Candidate, State
from meshproxy.model.delivery import Nack
from meshproxy.standalone import FileSource
from tests.e2e.support.config import Config


class Taker:
    """What the data path would be: takes, or refuses."""

    def __init__(self) -> None:
        self.taken: list[Candidate] = []
        self.nacks: list[Nack] = []

    def __call__(self, candidate: Candidate) -> list[Nack]:
        if not self.nacks:
            self.taken.append(candidate)
        return self.nacks


@pytest.fixture
def taker() -> Taker:
    return Taker()


def config(number: int = 1) -> Config:
    return Config().service(f"app{number}", ("127.61.0.9", 80))


def names(taker: Taker) -> set[str]:
    return set(taker.taken[-1].resources["cluster"])


def test_a_file(tmp_path: Path, taker: Taker) -> None:
    state = State()
    source = FileSource(config().write(tmp_path / "mesh.json"), state, taker)
    source.load()
    assert source.problem == ""
    assert names(taker) == {"outbound|80||app1"}
    assert state.version == taker.taken[0].version != ""


def test_a_directory_of_files_is_one_configuration(tmp_path: Path, taker: Taker) -> None:
    first = Config().service("a", ("127.61.0.9", 80))
    second = Config().service("b", ("127.61.0.9", 80), table="81")
    (tmp_path / "1.json").write_bytes(first.bytes())
    (tmp_path / "notes.txt").write_text("not ours")
    source = FileSource(tmp_path, State(), taker)
    source.load()
    assert names(taker) == {"outbound|80||a"}
    # The outbound listener stands in both files: a resource has one place.
    (tmp_path / "2.json").write_bytes(second.bytes())
    source.load()
    assert "listener outbound: is given twice" in source.problem


def test_what_does_not_change_is_the_same_object(tmp_path: Path, taker: Taker) -> None:
    path = config().write(tmp_path / "mesh.json")
    source = FileSource(path, State(), taker)
    source.load()
    config().service("more", ("127.61.0.9", 81)).write(path)
    source.load()
    before, after = taker.taken
    assert after.resources["cluster"]["outbound|80||app1"] is before.resources["cluster"]["outbound|80||app1"]
    assert after.changed >= {("cluster", "outbound|80||more")}


def test_a_refusal_keeps_the_last_good_one(tmp_path: Path, taker: Taker, caplog: pytest.LogCaptureFixture) -> None:
    path = config(1).write(tmp_path / "mesh.json")
    state = State()
    source = FileSource(path, state, taker)
    source.load()
    good = state.version
    config(2).write(path)
    taker.nacks = [Nack(kind="listener", name="in", error="port: taken - at `$.port`")]
    with caplog.at_level(logging.ERROR):
        source.load()
        source.load()
    assert source.problem == f"{path}: listener in: port: taken - at `$.port`; the last good configuration stays"
    assert [record.message for record in caplog.records] == [source.problem], "it is said once"
    assert state.version == good
    taker.nacks = []
    source.load()
    assert source.problem == ""
    assert state.version != good


def test_a_crash_of_ours_does_not_end_the_watch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def crash(candidate: Candidate) -> list[Nack]:
        raise RuntimeError("boom")

    source = FileSource(config().write(tmp_path / "mesh.json"), State(), crash)
    with caplog.at_level(logging.ERROR):
        source.load()
    assert "internal error; the last good configuration stays" in source.problem
    assert "boom" in caplog.text


def test_deep_nesting_is_refused_like_any_bad_file(tmp_path: Path, taker: Taker) -> None:
    path = tmp_path / "mesh.json"
    path.write_bytes(b'{"resources": [{"kind": "cluster", "name": "c", "version": "v", "body": ' + b"[" * 200_000)
    source = FileSource(path, State(), taker)
    source.load()
    assert source.problem.endswith("the last good configuration stays")
    assert not taker.taken


def test_a_rewrite_within_the_clock_s_grain_is_noticed(tmp_path: Path, taker: Taker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshproxy.standalone._POLL", 0.001)
    path = tmp_path / "mesh.json"
    whole = config(2).bytes()
    path.write_bytes(whole[: len(whole) // 2])
    stamp = path.stat()

    async def story() -> None:
        source = FileSource(path, State(), taker)
        watch = asyncio.get_running_loop().create_task(source.run())
        async with asyncio.timeout(10):
            while not source.problem:
                await asyncio.sleep(0.001)
            with path.open("r+b") as file:  # the same file, finished within the same tick of the file system's clock
                file.write(whole)
            os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
            while not taker.taken:
                await asyncio.sleep(0.001)
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)

    asyncio.run(story())
    assert names(taker) == {"outbound|80||app2"}


def test_reading_the_same_again_installs_nothing(tmp_path: Path, taker: Taker) -> None:
    source = FileSource(config().write(tmp_path / "mesh.json"), State(), taker)
    source.load()
    source.load()
    assert len(taker.taken) == 1


def test_no_file_at_all(tmp_path: Path, taker: Taker) -> None:
    source = FileSource(tmp_path / "none.json", State(), taker)
    source.load()
    assert source.problem == f"{tmp_path}/none.json: No such file or directory; the last good configuration stays"
