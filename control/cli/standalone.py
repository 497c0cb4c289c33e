"""``meshctl proxy -f FILES``: a local proxy from resource files alone, without control and without pods.

In: files. Out: a child ``meshproxy`` that runs what they translate to; translated again whenever a file changes. A bad edit
is one line and the last good configuration stays. The data path runs in the child, which never imports this program's
libraries.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from control.cli.errors import CliError
from control.cli.options import Files, More, also, examples

__all__ = ["register", "translated"]

POLL = 0.25  # seconds between looks at the files


@dataclass(frozen=True)
class Wanted:
    """``ports`` are (gateway port, port to listen on); (0, port) stands for the only gateway port there is."""

    files: tuple[str, ...]
    listen: str
    ports: tuple[tuple[int, int], ...]
    outbound: bool
    namespace: str


def register(app: typer.Typer) -> None:
    app.command(
        "proxy",
        epilog=examples(
            "meshctl proxy -f gateway.yml routes.yml --port 8080",
            "meshctl proxy -f mesh/ --port 80:8080 --port 8443:9443",
            "meshctl proxy -f virtual-service.yml            (no Gateway: an outbound proxy on :15001)",
        ),
    )(proxy)


def proxy(
    more: More = None,
    filename: Files = None,
    port: Annotated[
        list[str] | None, typer.Option("--port", help="Where to listen; GATEWAYPORT:PORT when the files have several.")
    ] = None,
    listen: Annotated[str, typer.Option("--listen", help="Address to listen on.")] = "127.0.0.1",
    outbound: Annotated[bool, typer.Option("--outbound", help="An outbound proxy on :15001 beside the Gateways.")] = False,
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Namespace of objects that name none.")] = "default",
    admin_port: Annotated[int, typer.Option("--admin-port", help="Admin pages; 0: any free port.")] = 15000,
    health_port: Annotated[int, typer.Option("--health-port", help="Health.")] = 15021,
    metrics_port: Annotated[int, typer.Option("--metrics-port", help="Metrics.")] = 15020,
    concurrency: Annotated[int, typer.Option("--concurrency", help="Worker processes.")] = 1,
    access_log: Annotated[str, typer.Option("--access-log", help="Write an access log here, such as /dev/stdout.")] = "",
    watch: Annotated[bool, typer.Option(help="Translate again when a file changes.")] = True,
) -> int:
    """Run a proxy from Gateway, VirtualService, DestinationRule and ServiceEntry files."""
    files = also(filename, more)
    if "-" in files:
        raise CliError("-f -: a proxy follows its files; stdin cannot be followed", code=2)
    wanted = Wanted(tuple(files), listen, _ports(port or ()), outbound, namespace)
    marks = _marks(wanted.files)
    document = translated(wanted)
    with tempfile.TemporaryDirectory(prefix="meshctl-proxy-") as directory:
        config = Path(directory) / "config.json"
        config.write_bytes(document)
        arguments = ["--config", str(config), "--pod", "standalone", "--ip", listen, "--admin-port", str(admin_port)]
        arguments += ["--health-port", str(health_port), "--metrics-port", str(metrics_port)]
        arguments += ["--role", "gateway", "--concurrency", str(concurrency), "--drain-seconds", "5"]
        arguments += ["--access-log", access_log] if access_log else []
        return _keep(arguments, config, wanted, marks, watch)


def _ports(given: Iterable[str]) -> tuple[tuple[int, int], ...]:
    found = []
    for text in given:
        gateway, colon, listen = text.rpartition(":")
        if not listen.isdigit() or (colon and not gateway.isdigit()):
            raise CliError(f"--port {text}: must be PORT or GATEWAYPORT:PORT, such as 80:8080", code=2)
        found.append((int(gateway or 0), int(listen)))
    return tuple(found)


def translated(wanted: Wanted) -> bytes:
    """The document for ``meshproxy --config``. Raises ``CliError`` with every problem, a line each; warnings go to stderr."""
    from control.cli.refs import documents
    from control.resources.check import validate
    from control.translate.standalone import config_file, files_proxy, files_world, translate_files

    problems: list[str] = []
    objects = []
    for document in documents(wanted.files):
        try:
            verdict = validate(document.object)
        except KeyError as unknown:
            problems.append(f"{document.source}: {unknown.args[0]}")
            continue
        name = _named(document.source, document.object)
        problems += [f"{name}: {problem}" for problem in verdict.errors]
        for problem in verdict.warnings:
            print(f"Warning: {name}: {problem}", file=sys.stderr)
        objects.append(document.object)
    if problems:
        raise CliError("\nerror: ".join(problems))
    world = files_world(objects, namespace=wanted.namespace)
    gateways = [one for one in objects if one["kind"] == "Gateway"]
    numbers = sorted({server["port"]["number"] for one in gateways for server in one["spec"]["servers"]})
    bound = {number: (number, wanted.listen, number) for number in numbers}
    for gateway, listen in wanted.ports:
        if not gateway and len(numbers) > 1:
            raise CliError(
                f"--port {listen}: the files have gateway ports {numbers}; say which one, such as {numbers[0]}:{listen}"
            )
        if gateway and gateway not in bound:
            raise CliError(f"--port {gateway}:{listen}: no Gateway server has port {gateway}; there are {numbers}")
        for number in [gateway] if gateway else numbers:
            bound[number] = (number, wanted.listen, listen)
    snapshot = translate_files(
        world,
        files_proxy(
            namespace=wanted.namespace,
            ip=wanted.listen,
            gateway=bool(gateways),
            outbound=wanted.outbound or not gateways,
            gateway_bind=bound.values(),
        ),
    )
    for trouble in (*world.problems, *snapshot.problems):
        print(f"Warning: {trouble}", file=sys.stderr)
    if not any(kind == "listener" for kind, _ in snapshot.resources):
        raise CliError(
            "nothing to listen on: the files hold no Gateway server of protocol HTTP and nothing for an outbound proxy"
        )
    return config_file(snapshot)


def _named(source: str, obj: dict[str, Any]) -> str:
    metadata = obj.get("metadata")
    words = (obj.get("kind"), metadata.get("name") if isinstance(metadata, dict) else None)
    return f"{source}: {' '.join(str(word) for word in words if word)}".removesuffix(": ")


def _marks(files: tuple[str, ...]) -> tuple[tuple[str, int, int], ...]:
    """What changes when a file does."""
    found = []
    for name in files:
        path = Path(name)
        for entry in sorted(path.iterdir()) if path.is_dir() else [path]:
            try:
                status = entry.stat()
            except OSError:
                continue
            found.append((str(entry), status.st_mtime_ns, status.st_size))
    return tuple(found)


def _keep(arguments: list[str], config: Path, wanted: Wanted, marks: object, watch: bool) -> int:
    """Run the child until it ends or we are told to; its exit code."""
    from control.children import die_with_parent

    def told(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, told)
    print(f"proxy of {', '.join(wanted.files)} (Ctrl-C ends it): {_where(config)}", file=sys.stderr)
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "meshproxy", *arguments], start_new_session=True, preexec_fn=die_with_parent()
    )
    try:
        while child.poll() is None:
            time.sleep(POLL)
            if watch and (now := _marks(wanted.files)) != marks:
                marks = now
                _again(config, wanted)
        return child.returncode if child.returncode >= 0 else 128 - child.returncode
    except KeyboardInterrupt:
        child.terminate()
        return child.wait()


def _where(config: Path) -> str:
    """What it listens on, for a person."""
    import json

    bodies = [one["body"] for one in json.loads(config.read_bytes())["resources"] if one["kind"] == "listener"]
    return ", ".join(f"{body['direction']} on {body.get('bind') or 'its address'}:{body['port']}" for body in bodies)


def _again(config: Path, wanted: Wanted) -> None:
    try:
        document = translated(wanted)
    except CliError as problem:
        print(f"{problem.line}\nthe last good configuration stays", file=sys.stderr)
        return
    if document == config.read_bytes():
        return
    beside = config.with_suffix(".new")
    beside.write_bytes(document)
    os.replace(beside, config)
    print("configuration changed", file=sys.stderr)
