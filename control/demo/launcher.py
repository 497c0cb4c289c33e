"""The demo from start to end: check, start control, seed, start pods, wait, say ``mesh ready``, keep, stop.

In: options. Out: an exit code; every child ended. Loud. ``up`` is the whole story; ``detach`` and ``stop`` speak to another
launcher.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control.client.api import ApiError, Unreachable
from control.demo.kubelet.pod import Pod
from control.demo.netns import network
from control.demo.netns.front import front
from control.demo.netns.pods import NoNetwork, sweep
from control.demo.node import Node, NotReady
from control.demo.plan import (
    ADMIN,
    APP_PORT,
    CONTROL_METRICS,
    CONTROL_PORT,
    DEFAULT_PORT,
    HEALTH,
    METRICS,
    OUTBOUND,
    SERVICE_PORT,
    SYSTEM,
    Addresses,
    control_pod,
    demo_pods,
    gateway_pod,
    python,
    seeds,
)
from control.demo.present import Pipe, Reporter, Terminal, report
from control.demo.state import Busy, State
from control.files import FileProblem
from control.resources.kinds import KINDS
from control.tasks import cancel, spawn

__all__ = ["Options", "detach", "port_problem", "refusal", "run", "stop", "up"]


@dataclass(frozen=True)
class Options:
    """What the user asked for; ``port`` None means the default."""

    state: Path
    base: str
    port: int | None = None
    fresh: bool = False
    netns: bool = False

    @property
    def addresses(self) -> Addresses:
        """Raises ``BadPlan``."""
        return Addresses(self.base, DEFAULT_PORT if self.port is None else self.port, self.port is not None, self.netns)

    def argv(self) -> list[str]:
        given = ["--state", str(self.state), "--base", self.base]
        if self.port is not None:
            given += ["--port", str(self.port)]
        return [*given, *(["--fresh"] if self.fresh else []), *(["--netns"] if self.netns else [])]


def _claims(addresses: Addresses) -> Iterator[tuple[str, int, str]]:
    """(address, port, the option that moves it) of everything the demo listens on."""
    if addresses.netns:  # all else has an address that nobody else can have
        if addresses.user_traffic != addresses.gateway:
            yield addresses.user_traffic, addresses.port, "--port"
        return
    yield addresses.user_traffic, addresses.port, "--port"
    for port in (CONTROL_PORT, CONTROL_METRICS):
        yield addresses.control, port, "--base"
    for pod in (1, 2, 3):
        for port in (SERVICE_PORT, APP_PORT, ADMIN, OUTBOUND, METRICS, HEALTH):
            yield addresses.pod(pod), port, "--base"
    for port in (ADMIN, METRICS, HEALTH):
        yield addresses.gateway, port, "--base"


def port_problem(addresses: Addresses) -> str | None:
    """Why the demo cannot listen where it should; one line that names the port and the option."""
    for host, port, option in _claims(addresses):
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((host, port))
            except PermissionError:
                return f"port {port} on {host} needs privileges; choose another with {option}"
            except OSError as failure:
                return f"port {port} on {host} is in use ({failure.strerror}); choose another with {option}"
    return None


def refusal(options: Options) -> str:
    """Why the demo cannot start, seen before anything is made; one line, or ""."""
    state = State(options.state)
    impossible = network.problem() if options.netns else ""
    return impossible or state.problem() or state.busy() or port_problem(options.addresses) or ""


async def up(options: Options, reporter: Reporter, foreground: bool) -> int:
    """Run the demo until it is told to stop; 0 after that, 1 when it could not come up, 128 + signal when stopped before."""
    addresses, state = options.addresses, State(options.state)
    stopping = asyncio.Event()
    told: list[int] = []
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        told.append(number)
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup means: stay
            loop.add_signal_handler(number, stop, number)
    problem = refusal(options)
    try:
        if not problem:
            state.make()
            state.hold()
            state.record(addresses)  # at once: --stop finds a launcher that is still starting
            if options.fresh:
                state.begin_anew()
            state.copy_manifests(addresses)
    except (Busy, FileProblem) as failure:
        problem = str(failure)
    except OSError as failure:
        problem = f"--state {options.state}: {failure.strerror}"
    if problem:
        state.forget()
        reporter.failed(problem)
        return 1
    node = Node(state, addresses, reporter)
    starting = spawn(_start(node, addresses, state, reporter), "start")
    waiting = spawn(stopping.wait(), "stop")
    try:
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done() and (failed := starting.result()):
            reporter.failed(failed)
            return 1
        if stopping.is_set():
            return 128 + told[0]  # as a shell has it
        node.settled = True
        if options.netns:
            state.hand_over()
        reporter.ready(report(addresses, state, foreground, await _kept(node)))
        await waiting
        return 0
    finally:
        reporter.progress("stopping")
        await cancel(starting, waiting)
        await _end(node)
        state.forget()
        if foreground:
            reporter.note("mesh stopped")


async def _start(node: Node, addresses: Addresses, state: State, reporter: Reporter) -> str:
    """Bring everything up; "" or the line that says what did not."""
    try:
        if node.network is not None:
            node.network.make()
        control = node.start(control_pod(addresses, state.path))
        await node.connect()
        for collection, body in seeds(addresses):
            if not await node.ensure(collection, body) and body["kind"] == "Service":
                await _renew(node, f"{collection}/{body['metadata']['name']}", body)
        await node.tend_network()
        plans = (gateway_pod(addresses, node.sidecar), *demo_pods(addresses, node.sidecar))
        for plan in plans:
            await node.admit(plan)
        pods: list[Pod] = [node.start(plan) for plan in plans]
        await node.forget_strays()
        node.watch_strays()
        await node.ready([control, *pods])
        rating = tuple(addresses.pod(number) for number in (2, 3))
        await node.served((("default", "book-service", (addresses.pod(1),)), ("default", "rating", rating)))
        if node.network is not None and addresses.user_traffic != addresses.gateway:
            node.fronts = [await front(addresses.user_traffic, addresses.port, addresses.gateway)]
            with contextlib.suppress(OSError):  # of TLS; the port is somebody else's, and only who makes such a Gateway needs it
                node.fronts.append(await front(addresses.user_traffic, addresses.https_port, addresses.gateway))
    except (NotReady, NoNetwork, ApiError, Unreachable, FileProblem, OSError) as failure:
        return str(failure)
    return ""


async def _renew(node: Node, path: str, body: dict[str, Any]) -> None:
    """A Service of an earlier run, where options change it: --port the gateway's, --netns the port that the app is reached at."""
    if body["metadata"]["namespace"] == SYSTEM:
        await node.patch(path, {"spec": body["spec"]})
        return
    there = (await node.ask("GET", path))["spec"].get("ports") or []
    if [port.get("targetPort") for port in there] in ([SERVICE_PORT], [APP_PORT]):  # the user's own are left alone
        await node.patch(path, {"spec": {"ports": body["spec"]["ports"]}})


async def _kept(node: Node) -> list[str]:
    """What the user applied in an earlier run and still counts: a store outlives the processes, as a cluster's does."""
    found = []
    for kind in KINDS:
        if kind.is_mesh:
            items = (await node.ask("GET", f"/apis/{kind.api_version}/{kind.plural}"))["items"]
            found += [f"{kind.singular}/{one['metadata']['name']}" for one in items if one["metadata"]["namespace"] != SYSTEM]
    return found


async def _end(node: Node) -> None:
    """Pods first, control last: it takes the deletions."""
    for server in node.fronts:
        server.close()
    control = [pod for pod in node.pods if pod.plan.name == "control"]
    await node.stop([pod for pod in node.pods if pod not in control])
    await node.stop()


def stop(state: Path) -> int:
    """``--stop``: end the launcher of this state directory and wait for it."""
    held = State(state)
    if problem := held.problem():
        Terminal().failed(problem)
        return 1
    try:
        print("mesh stopped" if held.stop() else f"no mesh runs in {held.path}")
    except PermissionError:
        Terminal().failed(f"the mesh of {held.path} is another user's; with sudo it can be stopped")
        return 1
    if not network.problem():
        sweep()
    return 0


def detach(options: Options) -> int:
    """``--detach``: start a launcher that outlives us; return when the mesh is ready or cannot be."""
    reporter, state = Terminal(), State(options.state)
    if problem := refusal(options):
        reporter.failed(problem)
        return 1
    try:
        state.make()
        log = (state.path / "launcher.log").open("ab")
    except OSError as failure:
        reporter.failed(f"--state {options.state}: {failure.strerror}")
        return 1
    reading, writing = os.pipe()
    with log:
        launcher = subprocess.Popen(
            [*python("control.demo", "up", "--notify-fd", str(writing)), *options.argv()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[writing],
            start_new_session=True,
        )
    os.close(writing)
    told = False
    try:
        with os.fdopen(reading) as lines:
            for line in lines:
                kind, text = json.loads(line)
                if kind == "ready":
                    reporter.ready(text)
                    return 0
                if kind == "failed":
                    reporter.failed(text)
                    told = True
                else:
                    reporter.progress(text)
    except KeyboardInterrupt:
        launcher.terminate()
        launcher.wait()
        reporter.failed("interrupted; nothing was left running")
        return 130
    asked = {0, *(128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))}
    if launcher.wait() in asked and not told:
        reporter.failed("stopped before it was ready")
    elif not told:
        reporter.failed(f"the launcher ended with {launcher.returncode}; its log: {state.path / 'launcher.log'}")
    return 1


def run(options: Options, notify_fd: int | None) -> int:
    """``up`` with the reporter that fits."""
    reporter: Reporter = Terminal() if notify_fd is None else Pipe(os.fdopen(notify_fd, "w"))
    return asyncio.run(up(options, reporter, notify_fd is None))
