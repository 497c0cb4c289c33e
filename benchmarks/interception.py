"""What interception adds to a request's latency: direct, by forward proxy, intercepted; interleaved in one run. JSON and a table.

``python -m benchmarks.interception [--rounds 5] [--requests 2000]``; root. Two pods in network namespaces joined by a wire, with
mesh-init's rules and real sidecars; nginx is the app. One client, one request at a time: what is told is latency, not throughput.
"kept": on one connection; "fresh": each request on a connection of its own, from connect to the last byte.

    direct       past every sidecar: the rules leave the client's group and the app's port alone
    proxy        the client names the sidecar as its proxy; the app's side has none
    outbound     the same, but iptables sends the connection there: what interception itself costs
    both         intercepted on both sides, mutual TLS between the sidecars: what a call in a cluster costs
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.procs import cpu_seconds
from benchmarks.run import RESULTS
from meshproxy.model.cluster import Cluster, Endpoint, Endpoints, LoadBalancer, Service
from meshproxy.model.listener import Listener
from meshproxy.model.route import Forward, Route, RouteConfig, VirtualHost, WeightedCluster
from meshproxy.model.security import ClientTls
from meshproxy.model.tcp import Chain, TcpRoute
from tests.certs import spiffe
from tests.e2e.pods import ROOT, Pod, resources, two_pods

PLAIN_VIP, MESH_VIP = "10.96.0.8", "10.96.0.9"
OPEN, PORT = 15090, 8080  # the app's ports: one that inbound rules leave alone
AUTHORITY = "rating:8080"
CASES = {
    "direct": ("10.77.0.2", OPEN, True),
    "proxy": ("10.77.0.1", 15001, False),
    "outbound": (PLAIN_VIP, PORT, False),
    "both": (MESH_VIP, 8081, False),
}


def call(host: str, port: int, count: int, kept: bool) -> list[float]:
    """Seconds of each request."""
    request = f"GET /1k HTTP/1.1\r\nHost: {AUTHORITY}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n".encode()
    found = []
    sock: socket.socket | None = None
    for _ in range(count):
        start = time.perf_counter()
        if sock is None:
            sock = socket.create_connection((host, port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += sock.recv(65536)
        if not data.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"{host}:{port} answered {data[:60]!r}")
        head, _, body = data.partition(b"\r\n\r\n")
        left = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]) - len(body)
        while left:
            left -= len(sock.recv(65536))
        found.append(time.perf_counter() - start)
        if not kept:
            sock.close()
            sock = None
    if sock is not None:
        sock.close()
    return found


def table(name: str, cluster: str) -> RouteConfig:
    route = Route(action=Forward(clusters=(WeightedCluster(cluster=cluster),)))
    return RouteConfig(name=name, virtual_hosts=(VirtualHost(name="h", domains=("*",), routes=(route,)),))


def configure(caller: Pod, callee: Pod) -> None:
    plain, meshed, own = "outbound|8080||rating", "outbound|8081||rating", "inbound|8080||"
    service = Service(host="rating", name="rating", namespace="default")
    caller.start(
        *resources(
            Cluster(name=plain, service=service),
            Endpoints(name=plain, endpoints=(Endpoint(address="10.77.0.2", port=OPEN),)),
            Cluster(name=meshed, service=service, tls=ClientTls()),
            Endpoints(
                name=meshed, endpoints=(Endpoint(address="10.77.0.2", port=PORT, mtls=True),), identities=(spiffe("callee"),)
            ),
            table("8080", plain),
            table("8081", meshed),
            Listener(
                name="virtualOutbound",
                direction="outbound",
                port=15001,
                bind="::",
                route_ports=(8080,),
                chains=(
                    Chain(name="plain", port=8080, protocol="HTTP", route="8080"),
                    Chain(name="meshed", port=8081, protocol="HTTP", route="8081"),
                ),
            ),
        )
    )
    callee.start(
        *resources(
            Cluster(name=own, type="PASSTHROUGH", bind="127.0.0.6", lb=LoadBalancer(policy="PASSTHROUGH")),
            table(own, own),
            Listener(
                name="virtualInbound",
                direction="inbound",
                port=15006,
                bind="::",
                chains=(Chain(name="in", port=PORT, protocol="HTTP", route=own, tcp=(_to(own),), mtls="PERMISSIVE"),),
            ),
        )
    )


def _to(cluster: str) -> TcpRoute:
    return TcpRoute(clusters=(WeightedCluster(cluster=cluster),))


def nginx(work: Path, space: str) -> subprocess.Popen[bytes]:
    (work / "1k").write_bytes(b"x" * 1024)
    conf = work / "nginx.conf"
    conf.write_text(
        f"daemon off; master_process off; pid {work}/pid; error_log stderr crit; worker_processes 1;\n"
        "events { worker_connections 256; }\n"
        f"http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {work}; proxy_temp_path {work};\n"
        f"fastcgi_temp_path {work}; uwsgi_temp_path {work}; scgi_temp_path {work};\n"
        f"server {{ listen {OPEN}; listen {PORT}; root {work}; }} }}\n"
    )
    return subprocess.Popen(("ip", "netns", "exec", space, "nginx", "-c", str(conf), "-p", str(work)))


def measured(caller: Pod, case: str, count: int, kept: bool) -> dict[str, float]:
    host, port, aside = CASES[case]
    enter = ["ip", "netns", "exec", caller.space.name, *(["setpriv", "--regid=1337", "--clear-groups"] if aside else [])]
    command = [*enter, sys.executable, "-m", "benchmarks.interception", "--client", host, str(port), str(count), str(int(kept))]
    assert caller.process is not None
    before = cpu_seconds(caller.process.pid)
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"benchmarks: {case}: {done.stderr}")
    used = cpu_seconds(caller.process.pid) - before
    return {**json.loads(done.stdout), "sidecar_us": used / count * 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=RESULTS / "interception.json")
    parser.add_argument("--client", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        host, port, count, kept = args.client
        call(host, int(port), 20, kept == "1")
        times = sorted(call(host, int(port), int(count), kept == "1"))
        p50, p99 = (times[int(len(times) * part)] * 1e6 for part in (0.5, 0.99))
        print(json.dumps({"p50_us": p50, "p99_us": p99}))
        return
    if os.geteuid() != 0:
        raise SystemExit("benchmarks: interception needs root: it makes network namespaces")
    rows: dict[str, dict[str, list[dict[str, float]]]] = {case: {"kept": [], "fresh": []} for case in CASES}
    with ExitStack() as stack:
        work = Path(stack.enter_context(TemporaryDirectory(prefix="interception")))
        work.chmod(0o755)
        caller, callee = stack.enter_context(two_pods())
        app = nginx(work, callee.space.name)
        stack.callback(app.wait)
        stack.callback(app.terminate)
        configure(caller, callee)
        for number in range(args.rounds):
            for case, each in rows.items():
                for kind, found in each.items():
                    found.append(measured(caller, case, args.requests, kind == "kept"))
            print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
    told: dict[str, Any] = {}
    print(f"\n{'':<10}{'kept: p50 us':>14}{'p99 us':>10}{'added':>9}{'fresh: p50 us':>16}{'p99 us':>10}{'added':>9}")
    for case, each in rows.items():
        cells = ""
        for kind, found in each.items():
            median = {key: statistics.median(one[key] for one in found) for key in found[0]}
            added = statistics.median(
                one["p50_us"] - base["p50_us"] for one, base in zip(found, rows["direct"][kind], strict=True)
            )
            told.setdefault(case, {})[kind] = {**median, "added_us": added}
            cells += f"{median['p50_us']:>{14 if kind == 'kept' else 16}.0f}{median['p99_us']:>10.0f}{added:>9.0f}"
        print(f"{case:<10}{cells}")
    print()
    what = {"python": platform.python_version(), "rounds": args.rounds, "requests": args.requests, "cases": told}
    args.out.write_text(json.dumps(what, indent=1) + "\n")


if __name__ == "__main__":
    main()
