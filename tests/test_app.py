"""The composed sidecar: its start, what it says of itself, and what it answers control's questions."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshproxy.app import Cannot, Sidecar
from meshproxy.bootstrap import Bootstrap
from meshproxy.model.delivery import Push, Query, Resource
from tests.e2e.support.config import Config

HOST = "127.61.0.60"
HERE = {"ip": HOST, "admin_bind": HOST, "outbound_port": 0, "admin_port": 0, "health_port": 0, "metrics_port": 0}


def bootstrap(**more: Any) -> Bootstrap:
    return Bootstrap(pod="book", **{**HERE, **more})


def config() -> Config:
    return Config().service("rating", ("127.61.0.61", 8080))


def push(made: Config, version: str = "v1", nonce: str = "n1", full: bool = True) -> Push:
    document = msgspec.json.decode(made.bytes(), type=dict[str, list[Resource]])
    return Push(nonce=nonce, version=version, full=full, set=tuple(document["resources"]))


def run(story: Callable[[Sidecar], Coroutine[Any, Any, None]], **settings: Any) -> None:
    """With a sidecar that is open, and has no source of configuration."""

    async def whole() -> None:
        sidecar = Sidecar(bootstrap(**settings))
        await sidecar.admin.open()
        await sidecar.traffic.start()
        try:
            await story(sidecar)
        finally:
            await sidecar.traffic.aclose()
            await sidecar.admin.aclose()

    asyncio.run(whole())


async def ask(sidecar: Sidecar, verb: str, **args: Any) -> Any:
    answer = await sidecar._answer(Query(id="q", verb=verb, args=args))
    assert answer.id == "q"
    return json.loads(bytes(answer.result)) if answer.ok else answer.error


def test_from_nothing_to_ready_to_draining() -> None:
    async def story(sidecar: Sidecar) -> None:
        assert sidecar.ready() == "no configuration yet"
        ack = sidecar._push(push(config()))
        assert (ack.nonce, ack.version, ack.nacks) == ("n1", "v1", ())
        assert sidecar.ready() == ""
        sidecar.drain()
        assert sidecar.ready() == "draining"

    run(story)


def test_a_refused_push_changes_nothing_and_is_counted() -> None:
    async def story(sidecar: Sidecar) -> None:
        sidecar._push(push(config()))
        bad = config().service("other", ("127.61.0.61", 0))
        ack = sidecar._push(push(bad, "v2", "n2"))
        assert (ack.nonce, ack.version) == ("n2", "v1")
        assert ack.nacks[0].error.startswith("endpoints[0].port: must be between 1 and 65535")
        change = sidecar._push(Push(nonce="n3", version="v3", removed=(("cluster", "nothing"),)))
        assert change.nacks[0].kind == "push"
        info = sidecar.info()
        assert info["config"] == {"version": "v1", "updates": 1, "rejected": 2}
        assert info["node"] == "book.default"

    run(story)


def test_questions_and_answers() -> None:
    async def story(sidecar: Sidecar) -> None:
        assert await ask(sidecar, "explain", method="GET", url="http://rating/") == "no configuration yet"
        sidecar._push(push(config()))
        dump = await ask(sidecar, "dump")
        assert {one["kind"] for one in dump["resources"]} == {"cluster", "endpoints", "route", "listener"}
        assert dump["state"]["outbound|80||rating"] == {"127.61.0.61:8080": {"ejected": False}}
        assert dump["bootstrap"]["node"] == "book.default"
        (cluster,) = await ask(sidecar, "clusters")
        assert cluster["name"] == "outbound|80||rating"
        (listener,) = await ask(sidecar, "listeners")
        assert listener["name"] == "outbound"
        assert (await ask(sidecar, "server_info"))["ip"] == HOST
        explained = await ask(sidecar, "explain", method="GET", url="http://rating/x")
        assert "outbound|80||rating" in json.dumps(explained)
        assert "verb: 'nothing' is not one of callers, clusters, dump" in await ask(sidecar, "nothing")

    run(story)


@pytest.mark.parametrize(
    "args",
    [{}, {"method": "GET"}, {"url": ""}, {"method": 3, "url": 4}, {"method": "GET", "url": "http://rating/", "listener": "x"}],
)
def test_a_question_that_makes_no_sense_is_answered_in_one_line(args: dict[str, Any]) -> None:
    async def story(sidecar: Sidecar) -> None:
        sidecar._push(push(config()))
        said = await ask(sidecar, "explain", **args)
        if isinstance(said, str):
            assert "\n" not in said

    run(story)


def test_metrics_of_every_room_are_one_page() -> None:
    async def story(sidecar: Sidecar) -> None:
        sidecar._push(push(config()))
        kind, pieces = await sidecar.metrics("")
        text = b"".join(pieces).decode()
        assert kind.startswith("text/plain")
        for name in ("istio_build", "mesh_uptime_seconds", "mesh_control_connected", "mesh_draining", "mesh_bugs_total"):
            assert f"\n{name}" in text
        rows = dict(await sidecar.stats())
        assert rows["server.draining"] == 0
        assert rows["control.update_rejected"] == 0

    run(story)


def test_the_log_level_changes() -> None:
    async def story(sidecar: Sidecar) -> None:
        root = logging.getLogger()
        before = root.level
        try:
            sidecar.set_log_level("debug")
            assert sidecar.log_level() == "debug"
        finally:
            root.setLevel(before)

    run(story)


def test_pages_that_cannot_be_opened_are_one_line() -> None:
    async def story(sidecar: Sidecar) -> None:
        other = Sidecar(bootstrap(admin_port=sidecar.admin.admin.port))
        with pytest.raises(Cannot, match=f"admin: cannot listen on {HOST}:"):
            await other.run()

    run(story)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ip", "192.0.2.1"], "cannot listen on 192.0.2.1:"),
        (["--ip", HOST, "--config", "/nowhere.json"], "no such file"),
        (["--nonsense", "1"], "no such flag"),
    ],
)
def test_a_start_that_fails_is_a_line_and_an_exit_code(tmp_path: Path, options: list[str], words: str) -> None:
    path = config().write(tmp_path / "mesh.json")
    command = [sys.executable, "-m", "meshproxy", "--pod", "p", *options]
    if "--config" not in options:
        command += ["--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=Path(__file__).parents[1])
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert all(line.startswith("meshproxy: ") for line in done.stderr.splitlines())
