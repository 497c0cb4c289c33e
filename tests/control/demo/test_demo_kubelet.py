"""The launcher as kubelet, with real small processes and a fake API: restarts, probes, status, bounds, no child left."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from control.client.api import ApiError, Unreachable
from control.demo.kubelet import logs
from control.demo.kubelet.container import Container
from control.demo.kubelet.pod import KUBELET, Pod
from control.demo.kubelet.probe import check
from control.demo.kubelet.process import Child, start_time
from control.demo.plan import ContainerPlan, PodPlan, Probe
from control.tasks import cancel, spawn

SERVER = """
import os, socket, sys
listening = socket.create_server((os.environ["HOST"], 0))
print(listening.getsockname()[1], flush=True)
while True:
    listening.accept()[0].close()
"""


class Changes:
    """Lets a test wait until something is so, woken by changes and not by the clock."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def __call__(self, *said: object) -> None:
        self.event.set()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not true():
                self.event.clear()
                await self.event.wait()


class FakeApi:
    """Pods in a dict; ``away`` makes it unreachable."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.events: dict[str, dict[str, Any]] = {}
        self.away = False
        self.refused = 0
        self._changed = changed

    async def request(self, method: str, path: str, *, body: Any = None, content_type: str = "", **_: Any) -> Any:
        if self.away:
            self.refused += 1
            self._changed()
            raise Unreachable("away")
        name = path.removesuffix("/status").rsplit("/", 1)[1]
        if "/events" in path:
            if method == "PATCH" and name not in self.events:
                raise ApiError(404, "NotFound", "no")
            self.events[body["metadata"]["name"]] = body
        elif method == "POST":
            name = body["metadata"]["name"]
            self.pods[name] = body
        elif name not in self.pods:
            raise ApiError(404, "NotFound", "no")
        elif method == "PATCH":
            assert (path, content_type) == (f"/api/v1/namespaces/default/pods/{name}/status", "application/merge-patch+json")
            assert ("status" in body) == path.endswith("/status")
            self.pods[name].update({"status": body["status"]} if "status" in body else {})
        elif method == "DELETE":
            del self.pods[name]
        self._changed()
        return self.pods.get(name)


def sleeper(port: int = 9, first: float = 0.01, name: str = "app") -> ContainerPlan:
    argv = (sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)")
    return ContainerPlan(name=name, image="x", argv=argv, probe=Probe("127.0.0.1", port), first=first, backoff=0.01)


def test_a_killed_container_is_started_again_and_says_how_it_ended(tmp_path: Path) -> None:
    async def story() -> None:
        changes = Changes()
        notes: list[str] = []
        container = Container(sleeper(), tmp_path / "app.log", changes, notes.append)
        running = spawn(container.run(), "container")
        await changes.until(lambda: container.pid is not None)
        first = container.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await changes.until(lambda: container.pid not in (None, first))
        status = container.status()
        assert status["restartCount"] == 1
        assert status["lastState"]["terminated"] | {"startedAt": "", "finishedAt": ""} == {
            "exitCode": 137,
            "reason": "Error",
            "signal": 9,
            "message": "SIGKILL",
            "startedAt": "",
            "finishedAt": "",
        }
        assert notes == ["app ended (SIGKILL), it is started again"]
        await container.stop()
        await running
        assert container.pid is None

    asyncio.run(story())


def test_a_program_that_is_not_there_is_a_status_and_not_a_crash(tmp_path: Path) -> None:
    async def story() -> None:
        changes = Changes()
        argv = ("/no/such/program",)
        plan = ContainerPlan(name="app", image="x", argv=argv, probe=Probe("127.0.0.1", 9), first=0, backoff=60)
        container = Container(plan, tmp_path / "app.log", changes)
        running = spawn(container.run(), "container")
        await changes.until(lambda: "waiting" in container.status()["state"] and container.restarts > 0)
        assert container.said == "cannot run /no/such/program: No such file or directory"
        assert container.status()["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        await container.stop()
        await running

    asyncio.run(story())


@pytest.mark.parametrize(("code", "reason"), [(0, "Completed"), (3, "Error")])
def test_only_a_repeated_crash_is_a_crash_loop(tmp_path: Path, code: int, reason: str) -> None:
    async def story() -> None:
        changes = Changes()
        seen: list[tuple[str, int]] = []

        def note() -> None:
            status = container.status()
            state = status["state"]
            shown = next(iter(state.values())).get("reason", "Running")
            seen.append((shown, status["restartCount"]))
            changes()

        argv = (sys.executable, "-c", f"raise SystemExit({code})")
        plan = ContainerPlan(name="app", image="x", argv=argv, probe=Probe("127.0.0.1", 9), first=0, backoff=0.01)
        container = Container(plan, tmp_path / "app.log", note)
        running = spawn(container.run(), "container")
        await changes.until(lambda: container.restarts == 2 and seen[-1][0] == "CrashLoopBackOff")
        assert seen == [
            ("Running", 0),
            (reason, 0),
            ("Running", 1),
            ("CrashLoopBackOff", 1),
            ("Running", 2),
            ("CrashLoopBackOff", 2),
        ]
        assert container.status()["lastState"]["terminated"]["exitCode"] == code
        assert container.said == f"it ended (exit code {code}) and said nothing"
        await container.stop()
        await running

    asyncio.run(story())


def test_ready_follows_the_probe(tmp_path: Path) -> None:
    async def story() -> None:
        changes = Changes()
        hits = 0

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal hits
            hits += 1
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        container = Container(sleeper(port), tmp_path / "app.log", changes)
        running = spawn(container.run(), "container")
        await changes.until(lambda: container.ready)
        server.close()
        await server.wait_closed()
        await changes.until(lambda: not container.ready)
        assert container.pid is not None, "an unready container is not killed"
        assert hits >= 1
        await container.stop()
        await running

    asyncio.run(story())


@pytest.mark.parametrize(
    ("head", "ready"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.0 302 Found\r\n\r\n", True),
        (b"HTTP/1.1 503 No\r\n\r\n", False),
        (b"SSH-2.0-x\r\n", False),
        (b"HTTP/1.1 x\r\n\r\n", False),
        (b"", False),
    ],
)
def test_http_probe(head: bytes, ready: bool) -> None:
    async def story() -> bool:
        asked: list[bytes] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(head)
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            found = await check(Probe("127.0.0.1", server.sockets[0].getsockname()[1], "/healthz/ready"))
        assert asked[0].startswith(b"GET /healthz/ready HTTP/1.1\r\n")
        return found

    assert asyncio.run(story()) is ready


def run_pod(tmp_path: Path, act: Callable[[Pod, FakeApi, Changes], Awaitable[None]]) -> None:
    async def story() -> None:
        changes = Changes()
        api = FakeApi(changes)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        plan = PodPlan("web", "127.0.0.1", (sleeper(port, first=0.2), sleeper(port, name="app2")), labels={"a": "b"})
        pod = Pod(plan, tmp_path, lambda: api, "1.2", changed=changes)  # type: ignore[arg-type,return-value]
        running = spawn(pod.run(), "pod")
        try:
            await changes.until(lambda: pod.ready and "status" in api.pods.get("web", {}) and ready_of(api) == "True")
            await act(pod, api, changes)
        finally:
            pod.retire()
            await pod.stop()
            await cancel(running)
            server.close()
            await server.wait_closed()

    asyncio.run(story())


def ready_of(api: FakeApi) -> str:
    conditions = api.pods["web"]["status"]["conditions"]
    return str(next((one["status"] for one in conditions if one["type"] == "Ready"), "none"))


def test_the_pod_object_is_made_and_follows_a_kill(tmp_path: Path) -> None:
    async def act(pod: Pod, api: FakeApi, changes: Changes) -> None:
        made = api.pods["web"]
        assert made["metadata"]["labels"] == {"a": "b"}
        assert made["metadata"]["annotations"][KUBELET] == "1.2"
        assert made["status"]["podIP"] == "127.0.0.1"
        pid = pod.containers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await changes.until(lambda: ready_of(api) == "False")
        assert [one["ready"] for one in api.pods["web"]["status"]["containerStatuses"]] == [False, True]
        await changes.until(lambda: ready_of(api) == "True")
        assert api.pods["web"]["status"]["containerStatuses"][0]["restartCount"] == 1

    run_pod(tmp_path, act)


def test_a_pod_left_by_a_killed_launcher_is_replaced(tmp_path: Path) -> None:
    async def story() -> None:
        changes = Changes()
        api = FakeApi(changes)
        api.pods["web"] = {"metadata": {"name": "web", "uid": "old"}, "status": {"conditions": []}}
        pod = Pod(PodPlan("web", "127.0.0.1", (sleeper(),)), tmp_path, lambda: api, "1.2", changed=changes)  # type: ignore[arg-type,return-value]
        running = spawn(pod.run(), "pod")
        await changes.until(lambda: ready_of(api) == "False")
        assert "uid" not in api.pods["web"]["metadata"]
        pod.retire()
        await pod.stop()
        await cancel(running)

    asyncio.run(story())


def test_a_status_that_could_not_be_written_is_written_later(tmp_path: Path) -> None:
    async def act(pod: Pod, api: FakeApi, changes: Changes) -> None:
        api.away = True
        pid = pod.containers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await changes.until(lambda: api.refused > 0 and not pod.reported)
        api.away = False
        await changes.until(
            lambda: ready_of(api) == "True" and api.pods["web"]["status"]["containerStatuses"][0]["restartCount"] == 1
        )

    run_pod(tmp_path, act)


def test_a_deleted_pod_comes_back_with_new_processes(tmp_path: Path) -> None:
    async def act(pod: Pod, api: FakeApi, changes: Changes) -> None:
        before = {container.pid for container in pod.containers}
        del api.pods["web"]
        await changes.until(lambda: "web" in api.pods and ready_of(api) == "True")
        assert before.isdisjoint(container.pid for container in pod.containers)

    run_pod(tmp_path, act)


def test_events_tell_the_story_and_repetitions_count(tmp_path: Path) -> None:
    async def act(pod: Pod, api: FakeApi, changes: Changes) -> None:
        for crash in (1, 2, 3):
            pid = pod.containers[1].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await changes.until(lambda crash=crash: pod.containers[1].restarts == crash and ready_of(api) == "True")  # type: ignore[misc]
        await changes.until(lambda: api.events.get("web.app2.started", {}).get("count") == 4)
        told = {name: (event["type"], event["reason"], event["count"]) for name, event in api.events.items()}
        assert told == {
            "web.app.started": ("Normal", "Started", 1),
            "web.app2.started": ("Normal", "Started", 4),
            "web.app2.backoff": ("Warning", "BackOff", 2),
        }
        assert api.events["web.app.started"]["involvedObject"]["name"] == "web"
        del api.pods["web"]
        await changes.until(lambda: {"web.app.killing", "web.app2.killing"} <= api.events.keys())

    run_pod(tmp_path, act)


def test_no_grandchild_survives_its_group(tmp_path: Path) -> None:
    async def story() -> None:
        log = tmp_path / "log"
        script = "sleep 600 & echo $!; kill -9 $$"
        child = Child(("sh", "-c", script), {"PATH": os.environ["PATH"]}, log)
        assert await child.wait() == -signal.SIGKILL
        grandchild = int(log.read_text())
        await asyncio.to_thread(gone, grandchild)

    asyncio.run(story())


def test_children_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = f"""
import asyncio, pathlib
from control.demo.kubelet.process import Child
async def main():
    child = Child(("sleep", "600"), {{"PATH": "/bin:/usr/bin"}}, pathlib.Path({str(tmp_path / "log")!r}))
    print(child.pid, flush=True)
    await child.wait()
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    gone(child)


def gone(pid: int) -> None:
    """Wait for the end of a process that may not be our child."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], 10)[0], f"{pid} still runs"
    finally:
        os.close(fd)


def test_start_time_names_a_process() -> None:
    assert start_time(os.getpid()) == start_time(os.getpid())
    assert start_time(2**22 + 1) is None


def test_a_zombie_has_ended() -> None:
    with subprocess.Popen(["sleep", "600"]) as child:
        assert start_time(child.pid) is not None
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert start_time(child.pid) is None


def test_logs_of_a_new_run_start_empty_and_the_old_ones_are_kept(tmp_path: Path) -> None:
    log = logs.path_of(tmp_path, "default", "web", "app")
    logs.fresh(log)
    log.write_text("one\n")
    logs.fresh(log)
    assert log.read_text() == ""
    assert log.with_name("app.previous.log").read_text() == "one\n"
    assert log.stat().st_mode & 0o077 == 0


def test_a_log_is_cut_at_its_bound_and_the_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    with log.open("ab", buffering=0) as out:
        out.write(b"x" * 100)
        assert logs.rotate(log, limit=99)
        out.write(b"after\n")
    assert log.read_bytes() == b"after\n"
    assert not logs.rotate(log, limit=99)
    assert not logs.rotate(tmp_path / "none.log")


def test_tail_is_the_last_thing_said(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text("one\ntwo: bad\n\n")
    assert logs.tail(log) == "two: bad"
    assert logs.tail(tmp_path / "none") == ""
