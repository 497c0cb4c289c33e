"""``mesh-control serve``: arguments and signals; the service itself is in ``app``.

In: argv. Out: exit code 0 after SIGTERM or SIGINT, 1 when it cannot serve (one line says why), 2 for bad arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop

from control.app import Control, Settings
from control.ca.service import DEFAULT_CERT_TTL, MAX_CERT_TTL, MIN_CERT_TTL
from control.files import FileProblem
from control.tasks import cancel, spawn
from control.traces.store import LIMIT, RETENTION

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """The console script."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(
        stream=sys.stderr, level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # its comings and goings are told in our own words
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of every request, with its URL
    if arguments.debounce < 0 or arguments.debounce_max < arguments.debounce:
        print("mesh-control: --debounce: must be at least 0 and at most --debounce-max", file=sys.stderr)
        return 2
    if not 0 <= arguments.trace_sampling <= 100:
        print("mesh-control: --trace-sampling: must be a percentage from 0 to 100", file=sys.stderr)
        return 2
    if arguments.prometheus and not arguments.prometheus.startswith(("http://", "https://")):
        print("mesh-control: --prometheus: must be a URL such as http://127.0.0.1:9090", file=sys.stderr)
        return 2
    if not (0 < arguments.trace_retention <= 31 * 86_400 and 1 <= arguments.trace_storage <= 1 << 20):
        print("mesh-control: --trace-retention must be at most 31 days, --trace-storage at least 1 MiB", file=sys.stderr)
        return 2
    if not MIN_CERT_TTL <= arguments.workload_cert_ttl <= MAX_CERT_TTL:
        most = f"{MAX_CERT_TTL:.0f} (90 days)"
        print(f"mesh-control: --workload-cert-ttl: must be between {MIN_CERT_TTL:.0f} and {most} seconds", file=sys.stderr)
        return 2
    settings = Settings(
        state=arguments.state,
        bind=arguments.bind,
        port=arguments.port,
        metrics_port=arguments.metrics_port,
        webhook_port=arguments.webhook_port,
        names=tuple(arguments.san),
        logs=arguments.logs,
        trust_domain=arguments.trust_domain,
        root_namespace=arguments.root_namespace,
        outbound_policy=arguments.outbound_policy,
        debounce=arguments.debounce,
        debounce_max=arguments.debounce_max,
        demo_jwks=arguments.demo_jwks,
        beat=arguments.beat,
        ca_dir=arguments.ca_dir,
        workload_cert_ttl=arguments.workload_cert_ttl,
        trace_sampling=arguments.trace_sampling,
        trace_retention=arguments.trace_retention,
        trace_limit=int(arguments.trace_storage * (1 << 20)),
        access_log=arguments.access_log,
        prometheus=arguments.prometheus,
    )
    if arguments.store != "kubernetes" and arguments.kubeconfig:
        print("mesh-control: --kubeconfig: is for --store kubernetes", file=sys.stderr)
        return 2
    if arguments.store != "kubernetes" and arguments.revision:
        print("mesh-control: --revision: is for --store kubernetes", file=sys.stderr)
        return 2
    if arguments.store == "kubernetes" and arguments.ca_dir:
        print("mesh-control: --ca-dir: in a cluster put the four files into the Secret cacerts instead", file=sys.stderr)
        return 2
    if not 1 <= arguments.lease <= 3600:
        print("mesh-control: --lease: must be between 1 and 3600 seconds", file=sys.stderr)
        return 2
    make: Callable[[], Control] = lambda: Control(settings)  # noqa: E731
    if arguments.store == "kubernetes":
        from control.incluster import Cluster, ClusterControl  # the client's models are large: only where they are needed

        cluster = Cluster(kubeconfig=arguments.kubeconfig, lease=arguments.lease, revision=arguments.revision)
        make = lambda: ClusterControl(settings, cluster)  # noqa: E731
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(make))


async def _serve(make: Callable[[], Control]) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    control = make()
    stopped = spawn(stop.wait(), "stop-early")
    starting = asyncio.ensure_future(control.start())  # what it raises is for the user, not a crash
    try:
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():  # a cluster may have to be waited for
            return 0
        await starting
        # The world and the shared bytes live long and have no cycles worth looking for: without this, every full collection
        # walks a million objects and holds up every sidecar.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        print(f"mesh-control ready {control.server} metrics {control.metrics_url} state {control.settings.state}", flush=True)
        await control.run(stop)
    except (FileProblem, RuntimeError) as problem:
        print(f"mesh-control: {problem}", file=sys.stderr)
        return 1
    finally:
        await cancel(starting, stopped)
        await control.stop()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mesh-control", description="The control service of the mesh.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="run the control service",
        epilog="example: mesh-control serve --state .mesh --bind 127.0.0.1",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    serve.add_argument("--state", type=Path, required=True, metavar="DIR", help="where everything is kept (made if needed)")
    serve.add_argument("--bind", default="127.0.0.1", metavar="ADDRESS", help="address to listen on")
    serve.add_argument("--port", type=int, default=15012, help="HTTPS: API and configuration (0: any)")
    serve.add_argument("--metrics-port", type=int, default=15014, help="HTTP: metrics and health (0: any)")
    serve.add_argument(
        "--webhook-port", type=int, metavar="PORT", help="HTTPS: /validate, for a cluster's API server, such as 15017 (0: any)"
    )
    serve.add_argument("--san", action="append", default=[], metavar="NAME", help="another name for the server certificate")
    serve.add_argument("--logs", type=Path, metavar="DIR", help="pod logs: DIR/NAMESPACE/POD/CONTAINER.log")
    serve.add_argument("--trust-domain", default="cluster.local", help="trust domain of workload identities")
    serve.add_argument("--root-namespace", default="istio-system", help="namespace of mesh-wide defaults")
    serve.add_argument(
        "--outbound-policy", choices=("ALLOW_ANY", "REGISTRY_ONLY"), default="ALLOW_ANY", help="for unknown destinations"
    )
    serve.add_argument("--debounce", type=float, default=0.1, metavar="S", help="push after S quiet seconds in a burst")
    serve.add_argument("--debounce-max", type=float, default=0.5, metavar="S", help="push at the latest S seconds into a burst")
    serve.add_argument("--demo-jwks", type=Path, metavar="FILE", help="serve FILE as /demo/jwks.json on the metrics port")
    serve.add_argument("--beat", type=float, default=5.0, metavar="S", help="keep-alive of configuration streams, in seconds")
    serve.add_argument(
        "--ca-dir", type=Path, metavar="DIR", help="begin under an authority of your own (Istio's four files: ca-cert.pem, ...)"
    )
    serve.add_argument(
        "--workload-cert-ttl",
        type=float,
        default=DEFAULT_CERT_TTL,
        metavar="S",
        help="life of sidecars' certificates",
    )
    serve.add_argument(
        "--trace-sampling", type=float, default=1.0, metavar="PERCENT", help="traces kept, unless the MeshConfig says otherwise"
    )
    serve.add_argument(
        "--trace-retention", type=float, default=RETENTION, metavar="SECONDS", help="how long traces are kept (an hour)"
    )
    serve.add_argument(
        "--trace-storage", type=float, default=LIMIT / (1 << 20), metavar="MIB", help="how much of them is kept (256)"
    )
    serve.add_argument(
        "--access-log", default="", metavar="PATH", help="sidecars' access log, such as /dev/stdout, unless the MeshConfig says"
    )
    serve.add_argument(
        "--prometheus", default="", metavar="URL", help="the dashboard reads from this Prometheus, not from control's own history"
    )
    serve.add_argument(
        "--store", choices=("sqlite", "kubernetes"), default="sqlite", help="where resources are: in DIR, or in a cluster"
    )
    serve.add_argument(
        "--kubeconfig", type=Path, metavar="FILE", help="the cluster of --store kubernetes (default: the one that this runs in)"
    )
    serve.add_argument(
        "--lease", type=float, default=15.0, metavar="S", help="in a cluster: after S seconds another replica leads"
    )
    serve.add_argument(
        "--revision",
        default="",
        metavar="NAME",
        help="in a cluster: work beside others, on ConfigMap istio-NAME, webhooks ...-NAME",
    )
    serve.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"), help="what to log")
    return parser


if __name__ == "__main__":
    sys.exit(main())
