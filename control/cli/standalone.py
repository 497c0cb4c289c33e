"""``meshctl proxy -f FILES``: a local proxy from resource files alone, without control and without pods.

In: files. Out: a child ``meshproxy`` that runs what they translate to; translated again whenever a file changes. A bad edit
is one line and the last good configuration stays. The data path runs in the child, which never imports this program's
libraries.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any

import typer

from control.cli.errors import CliError
from control.cli.options import Files, More, also, examples
from control.cli.standalone_child import Door, await_force, exit_code, free_ports, judge, start
from control.files import FileProblem, write_private

__all__ = ["register", "translated"]

POLL = 0.25  # seconds between looks at the files


@dataclass(frozen=True)
class Wanted:
    """``ports`` are (gateway port, port to listen on); (0, port) stands for the only gateway port there is."""

    files: tuple[str, ...]
    listen: str
    ports: tuple[tuple[int, int], ...]
    outbound: bool
    outbound_port: int
    namespace: str


def register(app: typer.Typer) -> None:
    app.command(
        "proxy",
        epilog=examples(
            "meshctl proxy -f gateway.yml routes.yml --port 8080",
            "meshctl proxy -f mesh/ --port 80:8080 --port 8443:9443",
            "meshctl proxy -f virtual-service.yml            (no Gateway: an outbound proxy on :15001)",
            "meshctl proxy -f virtual-service.yml --port 15101",
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
    outbound_port: Annotated[int, typer.Option("--outbound-port", help="Where the outbound proxy listens.")] = 15001,
    admin_port: Annotated[int, typer.Option("--admin-port", help="Admin pages; 0: any free port, told at the start.")] = 0,
    health_port: Annotated[int, typer.Option("--health-port", help="Health; 0: any free port.")] = 0,
    metrics_port: Annotated[int, typer.Option("--metrics-port", help="Metrics; 0: any free port.")] = 0,
    concurrency: Annotated[int, typer.Option("--concurrency", help="Worker processes.")] = 1,
    access_log: Annotated[str, typer.Option("--access-log", help="Write an access log here, such as /dev/stdout.")] = "",
    watch: Annotated[bool, typer.Option(help="Translate again when a file changes.")] = True,
) -> int:
    """Run a proxy from Gateway, VirtualService, DestinationRule and ServiceEntry files."""
    files = also(filename, more)
    if "-" in files:
        raise CliError("-f -: a proxy follows its files; stdin cannot be followed", code=2)
    try:
        ip_address(listen)
    except ValueError:
        raise CliError(f"--listen {listen}: must be an IP address", code=2) from None
    wanted = Wanted(tuple(files), listen, _ports(port or ()), outbound, outbound_port, namespace)
    marks = _marks(wanted.files)
    document = translated(wanted)
    with tempfile.TemporaryDirectory(prefix="meshctl-proxy-") as directory:
        config = Path(directory) / "config.json"
        _write(config, document)
        doors = _doors(document, listen)
        given = {"--admin-port": admin_port, "--health-port": health_port, "--metrics-port": metrics_port}
        judge([*doors, *(Door(listen, number, flag) for flag, number in given.items() if number)])
        chosen = iter(free_ports(listen, len(given)))
        sides = [Door(listen, number or next(chosen), flag) for flag, number in given.items()]
        arguments = ["--config", str(config), "--pod", "standalone", "--ip", listen]
        outbounds = [door for door in doors if door.flag == "--outbound-port"]
        for door in (*sides, *(outbounds or [Door(listen, 0, "--outbound-port")])):
            arguments += [door.flag, str(door.port)]
        arguments += ["--role", "gateway", "--concurrency", str(concurrency), "--drain-seconds", "5", "--log-level", "warning"]
        arguments += ["--access-log", access_log] if access_log else []
        return _keep(arguments, config, wanted, sides, marks if watch else None)


def _ports(given: Iterable[str]) -> tuple[tuple[int, int], ...]:
    found = []
    for text in given:
        gateway, colon, listen = text.rpartition(":")
        if not listen.isdigit() or (colon and not gateway.isdigit()):
            raise CliError(f"--port {text}: must be PORT or GATEWAYPORT:PORT, such as 80:8080", code=2)
        if not 0 < int(listen) < 65536:
            raise CliError(f"--port {text}: must be between 1 and 65535", code=2)
        found.append((int(gateway or 0), int(listen)))
    return tuple(found)


def translated(wanted: Wanted) -> bytes:
    """The document for ``meshproxy --config``. Raises ``CliError`` with every problem, a line each; warnings go to stderr."""
    from control.cli.refs import documents
    from control.resources.check import validate
    from control.translate.standalone import config_file, files_proxy, files_world, translate_files
    from control.world import MeshSettings

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
    outbound = wanted.ports[-1][1] if wanted.ports and not gateways else wanted.outbound_port
    world = files_world(objects, MeshSettings(outbound_port=outbound), namespace=wanted.namespace)
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
            "nothing to listen on: the files hold no Gateway server of protocol HTTP or HTTPS and nothing for an outbound proxy"
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


def _keep(arguments: list[str], config: Path, wanted: Wanted, sides: list[Door], marks: object) -> int:
    """Run the child until it ends or we are told to; its exit code. ``marks`` None: the files are not followed."""

    def told(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, told)
    child = start(arguments)
    try:
        ended = await_force(child, sides[0], str(config))
        if ended is not None:
            return ended
        words = {"--port": "gateway"}
        doors = [*_doors(config.read_bytes(), wanted.listen), *sides]
        where = ", ".join(f"{words.get(door.flag, door.flag[2:-5])} on {door}" for door in doors)
        print(f"proxy of {', '.join(wanted.files)} (Ctrl-C ends it): {where}", file=sys.stderr, flush=True)
        while child.poll() is None:
            time.sleep(POLL)
            if marks is not None and (now := _marks(wanted.files)) != marks:
                marks = now
                _again(config, wanted)
        return exit_code(child.returncode)
    except CliError:
        child.kill()
        child.wait()
        raise
    except KeyboardInterrupt:
        child.terminate()
        return exit_code(child.wait())


def _doors(document: bytes, own: str) -> list[Door]:
    """Every address of the configuration, with the flag that moves it."""
    import json

    bodies = [one["body"] for one in json.loads(document)["resources"] if one["kind"] == "listener"]
    flags = {"outbound": "--outbound-port"}
    return [Door(body.get("bind") or own, body["port"], flags.get(body["direction"], "--port")) for body in bodies]


def _write(config: Path, document: bytes) -> None:
    """For our eyes only: it may hold keys. Raises ``CliError``."""
    try:
        write_private(config, document)
    except FileProblem as problem:
        raise CliError(str(problem)) from None


def _again(config: Path, wanted: Wanted) -> None:
    try:
        document = translated(wanted)
    except CliError as problem:
        print(f"{problem.line}\nthe last good configuration stays", file=sys.stderr)
        return
    if document == config.read_bytes():
        return
    try:
        before = _doors(config.read_bytes(), wanted.listen)
        judge(door for door in _doors(document, wanted.listen) if door not in before)
        _write(config, document)
    except CliError as problem:
        print(f"{problem.line}\nthe last good configuration stays", file=sys.stderr)
        return
    print("configuration changed", file=sys.stderr)
