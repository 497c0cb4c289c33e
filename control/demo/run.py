"""``meshctl run``: any local program, as a pod of a running mesh, for as long as this command stays.

In: a name, labels, ports, a command. Out: the program's output on the terminal, its exit only when we are told to stop. Loud.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from control.client.api import ApiError, Unreachable
from control.demo.kubelet import logs
from control.demo.kubelet.pod import KUBELET, Pod
from control.demo.netns import network
from control.demo.netns.pods import NoNetwork
from control.demo.node import Node, NotReady
from control.demo.plan import (
    ADMIN,
    APP_PORT,
    DEFAULT_BASE,
    HEALTH,
    INBOUND,
    METRICS,
    OUTBOUND,
    SIDECAR_PORTS,
    Addresses,
    BadPlan,
    ContainerPlan,
    PodPlan,
    Probe,
    app_environment,
    captured,
    injected,
    sidecar,
)
from control.demo.present import Reporter, Terminal
from control.demo.state import Running, State
from control.files import FileProblem
from control.tasks import cancel, spawn

__all__ = ["Program", "plan", "run"]

_PATIENCE = 60.0  # seconds that a program has to listen
FIRST, LAST = 30, 250  # the addresses BASE.30 to BASE.250 are for programs


@dataclass(frozen=True)
class Program:
    state: Path
    name: str
    port: int
    command: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str = "default"
    app_port: int = APP_PORT
    probe_path: str = ""
    service: bool = True
    netns: bool = False

    def __post_init__(self) -> None:
        """Raises ``BadPlan`` for ports that the sidecar has on the same address: its listener would answer in our place."""
        for given, option in ((self.port, "--port"), (self.app_port, "--app-port")):
            ports = (*SIDECAR_PORTS, INBOUND) if self.netns else SIDECAR_PORTS
            if given in ports:
                own = ", ".join(map(str, ports))
                raise BadPlan(f"{option} {given}: is the sidecar's own ({own}); choose another")
        if self.port == self.app_port and not self.netns:
            why = "the sidecar listens at --port and the program at --app-port, on one address: choose two ports"
            raise BadPlan(f"--port {self.port}, --app-port {self.app_port}: {why}")


def own_labels(program: Program) -> dict[str, str]:
    """Its labels as the user gave them: what a Service selects by."""
    return {"app.kubernetes.io/name": program.name, **program.labels}


def _caller() -> int:
    """Whose program it is, also under sudo."""
    sudo = os.environ.get("SUDO_UID", "")
    return int(sudo) if sudo.isdecimal() else os.geteuid()


def plan(program: Program, ip: str, node: Node) -> PodPlan:
    """The pod of a program: itself and a sidecar."""
    labels = injected(own_labels(program))
    container = ContainerPlan(
        name=program.name,
        image=program.command[0],
        argv=program.command,
        env=app_environment(ip, program.name, program.namespace, program.app_port),
        probe=Probe(ip, program.app_port, program.probe_path),
        ports=(program.port,),
        user=_caller() if program.netns else 0,
    )
    proxy = sidecar(node.sidecar, program.name, ip, namespace=program.namespace, labels=labels)
    made = PodPlan(
        program.name,
        ip,
        (container, proxy),
        namespace=program.namespace,
        labels=labels,
        annotations={"mesh.dev/inbound-ports": f"{program.port}:{program.app_port}"},
    )
    return captured(made) if program.netns else made


def _take_address(state: State, addresses: Addresses, ports: Sequence[int]) -> tuple[str, int]:
    """A free address and the lock that keeps it ours until this process ends. Raises ``NotReady``."""
    directory = state.path / "addresses"
    directory.mkdir(exist_ok=True, mode=0o700)
    for number in range(FIRST, LAST + 1):
        ip = addresses.pod(number)
        lock = os.open(directory / ip, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        if addresses.netns or all(_free(ip, port) for port in ports):
            return ip, lock
        os.close(lock)
    raise NotReady(f"no free address between {addresses.pod(FIRST)} and {addresses.pod(LAST)}")


def _free(ip: str, port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((ip, port))
        except PermissionError:
            raise NotReady(f"port {port} needs privileges; choose one above 1023") from None
        except OSError:
            return False
    return True


async def run(program: Program, reporter: Reporter | None = None) -> int:
    """Run the program in the mesh until a signal (0; 128 + signal before it was ready), or until the mesh ends (1)."""
    reporter = reporter or Terminal()
    state = State(program.state)
    if problem := state.problem():
        reporter.failed(problem)
        return 1
    if not state.kubeconfig.is_file():
        reporter.failed(f"no mesh in {state.path}; start one with `meshctl demo`, or name its directory with --state")
        return 1
    if program.netns and (problem := network.problem()):
        reporter.failed(problem.replace("--netns", "this mesh"))
        return 1
    if shutil.which(program.command[0]) is None:
        reporter.failed(f"{program.command[0]}: no such program")
        return 1
    mesh = state.running()
    addresses = mesh.addresses if mesh else Addresses(DEFAULT_BASE)
    stopping = asyncio.Event()
    told: list[int] = []

    def stop(number: int) -> None:
        told.append(number)
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    node = Node(state, addresses, reporter)
    tasks = [spawn(_serve(program, node, state, addresses, reporter), "run"), spawn(stopping.wait(), "stop")]
    if mesh:
        tasks.append(spawn(_mesh_gone(mesh), "mesh"))
    failure = ""
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            failure = tasks[0].result()
        elif mesh and tasks[2].done():
            failure = "the mesh has ended"
        if failure:
            return 1
        return 0 if node.settled else 128 + told[0]  # stopped before it was in the mesh: as a shell has it
    finally:
        await cancel(*tasks)
        for path, name in node.made:
            if node.api is not None and not (mesh and not mesh.alive):
                try:
                    await node.ask("DELETE", f"{path}/{name}", patience=1.0)
                except (ApiError, Unreachable):
                    reporter.note(f"{path.rsplit('/', 1)[1]} {name} was left behind")
        await node.stop()
        if failure:  # the last word: a program that keeps ending is noted until it is stopped
            reporter.failed(failure)


async def _mesh_gone(mesh: Running) -> None:
    while mesh.alive:
        await asyncio.sleep(0.5)


async def _serve(program: Program, node: Node, state: State, addresses: Addresses, reporter: Reporter) -> str:
    """Bring the pod up and follow its output; "" never comes, a line says what failed."""
    try:
        await node.connect(patience=5.0)
        if state.running() is None:  # a control of its own: there is no launcher that would look
            node.watch_strays()
        if await _pod_exists(node, program):
            return f"pod {program.namespace}/{program.name} is there already; choose another --name"
        ip, _lock = _take_address(state, addresses, (program.port, program.app_port, ADMIN, OUTBOUND, METRICS, HEALTH))
        pod_plan = plan(program, ip, node)
        await node.tend_network()
        await node.ensure("/api/v1/namespaces", _named("Namespace", program.namespace))
        if program.service:
            await _expose(node, program, own_labels(program))
        await node.admit(pod_plan)
        pod = node.start(pod_plan)
        waiting = spawn(_until_ready(node, pod), "ready")
        follow = spawn(_follow(logs.path_of(state.logs, program.namespace, program.name, program.name)), "output")
        try:
            done, _ = await asyncio.wait({waiting}, timeout=8.0)
            if not done and not pod.containers[0].ready:
                reporter.note(
                    f"{program.name} does not listen on {ip}:{program.app_port} yet: HOST and PORT in its environment"
                    " say where to; --app-port names another port"
                )
            if failure := await waiting:
                return str(failure)
            node.settled = True
            port = program.app_port if program.netns else program.port
            reporter.ready(f"{program.namespace}/{program.name} is in the mesh at {ip}:{port} (Ctrl-C ends it)")
            await follow
        finally:
            await cancel(waiting, follow)
    except (NotReady, NoNetwork, ApiError, Unreachable, BadPlan, FileProblem, OSError) as failure:
        return str(failure)
    return ""


async def _until_ready(node: Node, pod: Pod) -> str:
    """ "" once it is; a line says what is missing."""
    try:
        await node.ready([pod], _PATIENCE)
    except NotReady as failure:
        return str(failure)
    return ""


async def _pod_exists(node: Node, program: Program) -> bool:
    await node.forget_strays()
    try:
        await node.ask("GET", f"/api/v1/namespaces/{program.namespace}/pods/{program.name}")
    except ApiError as refused:
        if refused.code == 404:
            return False
        raise
    return True


async def _expose(node: Node, program: Program, labels: Mapping[str, str]) -> None:
    """A Service for the pod, unless one that is there already selects it."""
    path = f"/api/v1/namespaces/{program.namespace}/services"
    for service in (await node.ask("GET", path))["items"]:
        selector = service["spec"].get("selector") or {}
        if selector and all(labels.get(key) == value for key, value in selector.items()):
            return
    body = _named("Service", program.name, program.namespace)
    body["metadata"]["annotations"] = {KUBELET: node.me}  # whoever finds us dead takes it away
    target = program.app_port if program.netns else program.port
    port = {"name": "http", "port": program.port, "targetPort": target, "protocol": "TCP"}
    body["spec"] = {"selector": dict(labels), "ports": [port], "type": "ClusterIP"}
    if await node.ensure(path, body):
        node.made.append((path, program.name))


def _named(kind: str, name: str, namespace: str | None = None) -> dict[str, Any]:
    metadata = {"name": name} if namespace is None else {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata}


async def _follow(log: Path) -> None:
    """Copy the program's output to ours as it comes, across restarts and cuts."""
    at, inode = 0, 0
    while True:
        try:
            seen = log.stat()
            if seen.st_ino != inode or seen.st_size < at:
                at, inode = 0, seen.st_ino
            if seen.st_size > at:
                with log.open("rb") as source:
                    source.seek(at)
                    data = source.read(1 << 20)
                at += len(data)
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
        except FileNotFoundError:
            pass
        await asyncio.sleep(0.1)
