"""``mesh-injector``: arguments and signals; the service itself is in ``server``.

In: argv. Out: exit code 0 after SIGTERM or SIGINT, 1 when it cannot serve (one line says why), 2 for bad arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from injector.server import LOOK, Cannot, Options, Server

__all__ = ["main"]

CERTIFICATES = Path("/etc/istio/certs")
SETTINGS = Path("/etc/istio/inject/values")
MESH = Path("/etc/istio/config/mesh")


def main(argv: Sequence[str] | None = None) -> int:
    """The console script."""
    given = _parser().parse_args(argv)
    logging.basicConfig(
        stream=sys.stderr, level=given.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    options = Options(
        certificate=given.tls_cert,
        key=given.tls_key,
        settings=given.settings,
        mesh=given.mesh_config,
        bind=given.bind,
        port=given.port,
        metrics_port=given.metrics_port,
        look=given.look,
        drain=given.drain,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(options))


async def _serve(options: Options) -> int:
    stop, now = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def told() -> None:
        (now if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told)
    server = Server(options)
    try:
        await server.start()
        print(f"mesh-injector ready port {server.port} metrics {server.metrics_port}", flush=True)
        await server.run(stop, now)
    except Cannot as problem:
        print(f"mesh-injector: {problem}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mesh-injector",
        description="The webhook that puts the sidecar into pods.",
        epilog="example: mesh-injector --settings values.yml --tls-cert tls.crt --tls-key tls.key --port 0",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--settings", type=_optional, default=SETTINGS, metavar="FILE", help="the settings (empty: defaults)")
    parser.add_argument("--mesh-config", type=_optional, default=MESH, metavar="FILE", help="the MeshConfig (empty: none)")
    parser.add_argument("--tls-cert", type=Path, default=CERTIFICATES / "tls.crt", metavar="FILE", help="certificate, PEM")
    parser.add_argument("--tls-key", type=Path, default=CERTIFICATES / "tls.key", metavar="FILE", help="its key, PEM")
    parser.add_argument("--bind", default="::", metavar="ADDRESS", help="address to listen on (::, all of them)")
    parser.add_argument("--port", type=int, default=15017, help="HTTPS: /inject, /readyz, /healthz (0: any)")
    parser.add_argument("--metrics-port", type=int, default=15014, help="HTTP: /metrics, /readyz, /healthz (0: any)")
    parser.add_argument("--look", type=float, default=LOOK, metavar="S", help="look at the files every S seconds")
    parser.add_argument(
        "--drain", type=_seconds, default=0.0, metavar="S", help="answer S seconds more after SIGTERM, while not ready"
    )
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"), help="what to log")
    return parser


def _optional(text: str) -> Path | None:
    return Path(text) if text else None


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 <= found < math.inf:
        raise argparse.ArgumentTypeError(f"must be seconds, 0 or more, not {text!r}")
    return found


if __name__ == "__main__":
    sys.exit(main())
