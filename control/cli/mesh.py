"""``meshctl demo`` and ``run``: words to options, then this process becomes the launcher (``python -m control.demo``).

In: options. Out: does not return on success: exec leaves the command line's libraries behind, and signals reach the
launcher itself.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from control.cli.errors import CliError
from control.cli.options import examples

__all__ = ["register"]

DEFAULT_STATE = Path(".mesh")
State = Annotated[Path, typer.Option("--state", help="Directory of the mesh: store, keys, kubeconfig, logs.")]


def register(app: typer.Typer) -> None:
    app.command(
        "demo",
        epilog=examples(
            "meshctl demo",
            "meshctl demo --detach",
            "meshctl demo --detach --base 127.2.0.0 --port 8081 --state .mesh2   (a second mesh beside the first)",
            "meshctl demo --stop",
        ),
    )(demo)
    app.command(
        "run",
        epilog=examples(
            "meshctl run --name hello --port 8080 -- ./hello        (listens on $HOST:$PORT)",
            "meshctl run --name web --port 8080 -- sh -c 'python3 -m http.server $PORT --bind $HOST'",
            "meshctl run --name caller --port 8080 -- sh -c 'curl http://rating:8080/rate/1; ./server'   (calls another pod)",
            "meshctl run --name rating-v3 -l app.kubernetes.io/name=rating-service --port 8080 -- ./rating",
        ),
        context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False},
    )(run)


def demo(
    port: Annotated[int | None, typer.Option("--port", help="Port of user traffic at the gateway (8080).")] = None,
    state: State = DEFAULT_STATE,
    base: Annotated[str, typer.Option("--base", help="127.X.Y.0: moves every address, pods and control.")] = "127.1.0.0",
    detach: Annotated[bool, typer.Option("--detach", help="Return once everything is ready.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="End the mesh of --state.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget the objects of earlier runs.")] = False,
    netns: Annotated[
        bool, typer.Option("--netns", help="Each pod in a network namespace, its connections intercepted (root).")
    ] = False,
) -> None:
    """Start the demo mesh: control, an ingress gateway and three workloads, each with its sidecar.

    User traffic is on 127.0.0.1:PORT and control on 127.0.0.1. With another --base control is at BASE.20, and user traffic at
    BASE.10:8080, or at 127.0.0.1:PORT when --port is given.

    With --netns the apps have no proxy setting at all: each pod has a network namespace of its own, where iptables sends its
    connections through the sidecar, as in a cluster. Addresses are 10.X.Y.N for 127.X.Y.N then; pods reach each other and the
    host, nothing further. It needs root, ip and iptables.
    """
    if stop:
        if detach:
            raise CliError("--stop and --detach exclude each other", code=2)
        _become("stop", "--state", str(state))
    arguments = ["--state", str(state), "--base", base]
    if port is not None:
        arguments += ["--port", str(port)]
    _become("detach" if detach else "up", *arguments, *(["--fresh"] if fresh else []), *(["--netns"] if netns else []))


def run(
    name: Annotated[str, typer.Option("--name", help="Name of the pod, and of its Service when it needs one.")],
    port: Annotated[int, typer.Option("--port", help="Port of the service: the sidecar's inbound listener.")],
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND", help="The program; it listens on $HOST:$PORT.")],
    label: Annotated[list[str] | None, typer.Option("-l", "--label", help="key=value; repeatable.")] = None,
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Namespace of the pod.")] = "default",
    app_port: Annotated[int, typer.Option("--app-port", help="Where the program listens: PORT in its environment.")] = 9080,
    probe_path: Annotated[str, typer.Option("--probe-path", help="GET this for readiness; else a TCP connect.")] = "",
    service: Annotated[bool, typer.Option(help="Make a Service named as the pod unless one selects it.")] = True,
    state: State = DEFAULT_STATE,
) -> None:
    """Run any local program as a pod of the mesh, with a sidecar of its own, until Ctrl-C.

    The pod gets an address of its own. In the program's environment HOST is that address and PORT is --app-port: the program
    must listen there. Everybody else reaches it through its sidecar, at --port.

    http_proxy names the sidecar as the proxy for what the program calls (HTTP_PROXY and https_proxy too). Most clients obey it
    (curl, Go, Python's; a JVM wants -Dhttp.proxyHost). Then another pod is called by the name and port of its Service:
    http://rating:8080/rate/1, or http://NAME.NAMESPACE:PORT. Only what goes through the proxy is routed, retried and counted.

    In a mesh of `demo --netns` there is no http_proxy: the program runs in a network namespace, where all that it calls goes
    through its sidecar. There it may listen on --port itself (--app-port the same), and it reaches the mesh and this host,
    nothing further.

    Also set: POD_NAME, POD_NAMESPACE, INSTANCE_IP (the same as HOST).
    """
    import re

    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name):
        raise CliError(f"--name {name}: must be lower case letters, digits and -, at most 63", code=2)
    for given, option in ((port, "--port"), (app_port, "--app-port")):
        if not 0 < given < 65536:
            raise CliError(f"{option} {given}: must be between 1 and 65535", code=2)
    for pair in label or ():
        if "=" not in pair:
            raise CliError(f"-l {pair}: must be key=value", code=2)
    arguments = ["--name", name, "--port", str(port), "--app-port", str(app_port), "--namespace", namespace]
    arguments += [f"--label={pair}" for pair in label or ()]
    arguments += [f"--probe-path={probe_path}", "--state", str(_mesh_of(state))]
    _become("run", *arguments, *([] if service else ["--no-service"]), "--", *command)


def _mesh_of(state: Path) -> Path:
    """The mesh to join: ``.mesh`` here, else the one whose kubeconfig the user has exported, wherever it is."""
    if state != DEFAULT_STATE or (state / "kubeconfig").is_file():
        return state
    for part in os.environ.get("KUBECONFIG", "").split(os.pathsep):
        if part and (Path(part).parent / "demo.json").is_file():
            return Path(part).parent
    return state


def _become(*arguments: str) -> None:
    sys.stdout.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # held until the launcher is ready for it: exec keeps the mask
    os.execv(sys.executable, [sys.executable, "-P", "-m", "control.demo", *arguments])
