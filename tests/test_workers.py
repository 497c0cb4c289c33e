"""The words between parent and worker: pushes, what a refused change leads to, and questions that nobody answers."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshproxy import worker as child
from meshproxy.agent.state import Candidate, State, load
from meshproxy.model.base import decode, encode
from meshproxy.model.delivery import Nack, Push, Resource
from meshproxy.tls.identity import Identity
from meshproxy.workers import Fleet, Worker, push_of
from tests.certs import Authority, spiffe
from tests.e2e.support.config import Config


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(story())


def candidate(state: State, *names: str) -> Candidate:
    config = Config()
    for name in names:
        config.service(name, ("127.61.0.9", 80))
    document = msgspec.json.decode(config.bytes(), type=dict[str, list[Resource]])
    judged = load(state, document["resources"], "-".join(names))
    assert isinstance(judged, Candidate)
    return judged


def test_a_push_holds_everything_or_what_changed() -> None:
    state = State()
    first = candidate(state, "a", "b")
    state.commit(first)
    second = candidate(state, "b", "c")
    whole, change = push_of(second, True), push_of(second, False)
    assert whole.full
    assert {one.name for one in whole.set if one.kind == "cluster"} == {"outbound|80||b", "outbound|80||c"}
    assert not change.full
    assert {one.name for one in change.set if one.kind == "cluster"} == {"outbound|80||c"}
    assert ("cluster", "outbound|80||a") in change.removed
    kinds = [one.kind for one in whole.set]
    assert kinds == sorted(kinds, key=("cluster", "endpoints", "route", "listener").index), "clusters before routes"


def test_what_the_parent_sends_the_worker_takes() -> None:
    """Versions are made anew from the bytes that are sent."""
    state, other = State(), State()
    for names in (("a",), ("a", "b"), ("b",)):
        held = candidate(state, *names)
        push = push_of(held, not state.version)
        state.commit(held)
        judged = other.judge(decode(encode(push), Push))
        assert isinstance(judged, Candidate), judged
        other.commit(judged)
        assert other.resources == state.resources


class Refuses:
    """Stands for a worker's data path."""

    def __init__(self) -> None:
        self.nacks: list[Nack] = []
        self.crash = False
        self.snapshot = None
        self.taken: list[set[str]] = []

    def identify(self, identity: Identity) -> None:
        if self.crash:
            raise RuntimeError("boom")

    def install(self, candidate: Candidate) -> list[Nack]:
        if self.crash:
            raise RuntimeError("boom")
        if not self.nacks:
            self.taken.append(set(candidate.resources["cluster"]))
        return self.nacks


def worker() -> tuple[Any, Refuses]:
    made = child._Worker.__new__(child._Worker)
    local = Refuses()
    made.local, made.state, made.stale = local, State(), False  # type: ignore[assignment]
    made.stopping = asyncio.Event()
    return made, local


def test_a_change_on_top_of_a_refused_one_is_not_taken_until_everything_came() -> None:
    one, local = worker()
    state = State()
    first = candidate(state, "a")
    assert one._push(push_of(first, True)) == {"op": "installed", "version": "a", "problem": "", "stale": False}
    state.commit(first)
    second = candidate(state, "a", "b")
    local.nacks = [Nack(kind="listener", name="in", error="port: taken")]
    assert one._push(push_of(second, False))["problem"] == "listener in: port: taken"
    state.commit(second)
    local.nacks = []
    third = candidate(state, "a", "b", "c")
    assert one._push(push_of(third, False)) == {"op": "installed", "version": "a", "problem": "", "stale": True}
    assert local.taken == [{"outbound|80||a"}]
    assert one._push(push_of(third, True)) == {"op": "installed", "version": "a-b-c", "problem": "", "stale": False}
    assert local.taken[-1] == {"outbound|80||a", "outbound|80||b", "outbound|80||c"}


def test_a_crash_while_taking_a_configuration_is_told_and_survived(caplog: pytest.LogCaptureFixture) -> None:
    one, local = worker()
    local.crash = True
    push = push_of(candidate(State(), "a"), True)
    assert one._push(push)["problem"] == "internal error; see the log"
    local.crash = False
    assert one._push(push)["version"] == "a"
    assert "boom" in caplog.text


class FakeWorker(Worker):
    """A worker whose process is the test."""

    def __init__(self, number: int, argv: list[str], lost_track: Any) -> None:
        super().__init__(number, argv, lost_track)
        self.told: list[tuple[str, dict[str, Any]]] = []

    def tell(self, op: str, **fields: Any) -> None:
        self.told.append((op, fields))


def fleet(monkeypatch: pytest.MonkeyPatch, **more: Any) -> tuple[Fleet, FakeWorker]:
    monkeypatch.setattr("meshproxy.workers.Worker", FakeWorker)
    made = Fleet(1, [], **more)
    (only,) = made.workers
    assert isinstance(only, FakeWorker)
    return made, only


def test_a_worker_that_lost_track_gets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    made, only = fleet(monkeypatch)
    state = State()
    for names in (("a",), ("a", "b")):
        held = candidate(state, *names)
        assert made.install(held) == []
        state.commit(held)
    assert [fields["push"].full for _, fields in only.told] == [True, False]
    only._lost_track(only)
    op, fields = only.told[-1]
    assert (op, fields["push"].full, fields["push"].version) == ("push", True, "a-b")


def test_an_identity_reaches_every_worker_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    made, only = fleet(monkeypatch)
    identity = Authority().identity(spiffe("book"))
    made.identify(identity)
    ((op, fields),) = only.told
    message = msgspec.json.decode(encode({"op": op, **fields}), type=child._Message)
    assert (message.op, message.identity) == ("identify", identity)
    assert "PRIVATE" not in repr(message)


def test_a_worker_that_starts_gets_the_identity_before_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        made, only = fleet(monkeypatch)
        made.identify(Authority().identity(spiffe("book")))
        made.install(candidate(State(), "a"))
        only.told.clear()

        async def start() -> None:
            pass

        async def run() -> int:
            made.draining = True
            return 0

        monkeypatch.setattr(only, "start", start)
        monkeypatch.setattr(only, "run", run)
        await made._keep(only)
        assert [op for op, _ in only.told] == ["identify", "push"]

    run(story)


def test_an_identity_that_a_worker_cannot_use_leaves_it_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    one, local = worker()
    local.crash = True
    one._identify(Authority().identity(spiffe("book")))
    assert "bug in taking an identity" in caplog.text
    assert "PRIVATE" not in caplog.text


def test_what_cannot_be_bound_is_refused_before_anybody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    nack = Nack(kind="listener", name="in", error="port: taken")
    made, only = fleet(monkeypatch, bindable=lambda candidate: nack)
    assert made.install(candidate(State(), "a")) == [nack]
    assert only.told == []
    assert made.snapshot is None


def test_ready_says_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made, only = fleet(monkeypatch)
    assert made.ready() == "no configuration yet"
    made.install(candidate(State(), "a"))
    assert made.ready() == "1 of 1 workers starting"
    only.installed = "a"
    assert made.ready() == ""


def test_a_question_to_nobody_has_no_answer_at_once() -> None:
    async def story() -> None:
        async with asyncio.timeout(1):
            assert await Worker(0, []).ask("families") is None

    run(story)


def test_a_worker_that_talks_nonsense_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A line that never ends: its limit is reached, and the process, which lives on, is killed."""
    script = tmp_path / "talker.py"
    script.write_text(
        "import os, socket, sys, time\n"
        "sock = socket.socket(fileno=int(sys.argv[1]))\n"
        "try:\n    sock.sendall(b'x' * (1 << 20))\nexcept OSError:\n    pass\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr("meshproxy.workers._STUCK", 0.05)
    spawn = asyncio.create_subprocess_exec

    async def start(*command: str, pass_fds: tuple[int, ...]) -> Any:
        return await spawn(sys.executable, str(script), str(pass_fds[0]), pass_fds=pass_fds)

    connect = asyncio.open_connection

    async def small(sock: socket.socket, limit: int) -> Any:
        return await connect(sock=sock, limit=1024)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    monkeypatch.setattr(asyncio, "open_connection", small)

    async def story() -> None:
        one = Worker(0, [])
        await one.start()
        async with asyncio.timeout(20):
            assert await one.run() == -9
        assert await one.ask("families") is None

    run(story)
