"""How long from a sidecar's start to ready, and what it weighs, with many services in view and with a ``Sidecar`` scope.

    python -m benchmarks.startup [--services 1000 --endpoints 10 --starts 9] [--out benchmarks/results/startup.json]

Method: the store of ``scale.py`` and a real ``mesh-control serve`` on it; then real ``meshproxy`` processes, one after the other,
as in a pod: own token, certificate from control, configuration over its stream. A time is from the process's birth to the first
200 of ``/healthz/ready`` on its health port, asked every 2 ms; CPU seconds are the process's own until then, which another load
on the machine does not change. Memory is a second after that: resident (all that it maps) and proportional (what is shared with
others divided by them). Target: ready in 1.0 s; 80 MiB resident with 1,000 services, 50 MiB with a scope of ten.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.scale import fill, memory, slices_written
from control.ca.tokens import Tokens

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.91.0.1"
Obj = dict[str, Any]


def ready(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), 1) as sock:
            sock.sendall(f"GET /healthz/ready HTTP/1.0\r\nhost: {HOST}\r\n\r\n".encode())
            return sock.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def proportional(pid: int) -> float:
    """MiB; pages that n processes share count for a n-th."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0


def cpu(pid: int) -> float:
    """Seconds, to the nanosecond, of every thread."""
    nanoseconds = sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return nanoseconds / 1e9


def one_start(url: str, state: Path, namespace: str, pod: str, token: str) -> Obj:
    (state / "token").write_text(token)
    (state / "token").chmod(0o600)
    words = [sys.executable, "-m", "meshproxy", "--pod", pod, "--namespace", namespace, "--ip", HOST, "--control", url]
    words += ["--control-ca", str(state / "ca" / "root.pem"), "--token-file", str(state / "token"), "--log-level", "warning"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    began = time.monotonic()
    process = subprocess.Popen(words, env=environ)
    try:
        while not ready(15021):
            if process.poll() is not None:
                raise RuntimeError("the sidecar ended")
            if time.monotonic() - began > 60:
                raise RuntimeError("the sidecar is not ready after a minute")
            time.sleep(0.002)
        took, busy = time.monotonic() - began, cpu(process.pid)
        time.sleep(1)
        return {
            "ready_s": round(took, 3),
            "cpu_s": round(busy, 3),
            "rss_mib": memory(process.pid)["rss"],
            "pss_mib": proportional(process.pid),
        }
    finally:
        process.terminate()
        process.wait(30)


def summary(rows: list[Obj]) -> Obj:
    return {key: round(statistics.median(row[key] for row in rows), 3) for key in rows[0]} | {
        "worst_ready_s": max(row["ready_s"] for row in rows)
    }


async def measure(arguments: argparse.Namespace, state: Path) -> Obj:
    state.mkdir(mode=0o700)
    (namespace, pod), *_ = await fill(state / "mesh.db", arguments)
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    ports = ["--port", "0", "--metrics-port", "0", "--log-level", "warning"]
    command = [sys.executable, "-m", "control", "serve", "--state", str(state), *ports]
    control = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)
    try:
        assert control.stdout is not None
        url = control.stdout.readline().split()[2]
        tokens = Tokens.open(state / "ca")
        token = tokens.issue(namespace, pod, "default", time.time()).token
        headers = {"authorization": f"Bearer {tokens.admin_token}"}
        async with httpx.AsyncClient(base_url=url, verify=str(state / "ca" / "root.pem"), headers=headers, timeout=60) as client:
            await slices_written(client, arguments.services)
            if arguments.intercepted:
                change = {"metadata": {"annotations": {"sidecar.istio.io/interceptionMode": "REDIRECT"}}}
                path, kind = f"/api/v1/namespaces/{namespace}/pods/{pod}", {"content-type": "application/merge-patch+json"}
                (await client.patch(path, content=json.dumps(change), headers=kind)).raise_for_status()
            report: Obj = {}
            for what in ("all", "scope"):
                if what == "scope":
                    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
                    (await client.post("/api/v1/namespaces", json=made)).raise_for_status()
                    answer = await client.post(
                        f"/apis/networking.istio.io/v1/namespaces/{namespace}/sidecars", json=scope(namespace, arguments)
                    )
                    if answer.is_error:
                        raise RuntimeError(answer.text)
                rows = [one_start(url, state, namespace, pod, token) for _ in range(arguments.starts)]
                report[what] = {**summary(rows), "starts": rows}
        return report
    finally:
        control.terminate()
        control.wait(30)


def scope(namespace: str, arguments: argparse.Namespace) -> Obj:
    """Ten services of the namespace, as a team would write it."""
    hosts = [
        f"./app-{number}.{namespace}.svc.cluster.local" for number in range(0, 10 * arguments.namespaces, arguments.namespaces)
    ]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Sidecar",
        "metadata": {"name": "default", "namespace": namespace},
        "spec": {"egress": [{"hosts": hosts}]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--namespaces", type=int, default=10)
    parser.add_argument(
        "--intercepted", action="store_true", help="as in a cluster: listeners for what iptables sends; wants all ports"
    )
    parser.add_argument("--starts", type=int, default=9)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "startup.json")
    arguments = parser.parse_args()
    arguments.proxies = 1
    with tempfile.TemporaryDirectory(prefix="mesh-startup-") as directory:
        report = asyncio.run(measure(arguments, Path(directory, "state")))
    report["parameters"] = {key: value for key, value in vars(arguments).items() if key not in ("out", "proxies")}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"{arguments.services} services x {arguments.endpoints} endpoints, {arguments.starts} starts each")
    for what, name, target in (("all", "everything in view", 80), ("scope", "a Sidecar scope of ten", 50)):
        row = report[what]
        print(
            f"  {name:24} ready in {row['ready_s']:.2f} s (worst {row['worst_ready_s']:.2f}, {row['cpu_s']:.2f} s CPU); ", end=""
        )
        print(f"{row['rss_mib']:.1f} MiB resident, {row['pss_mib']:.1f} proportional; targets 1.0 s, {target} MiB")
    print(f"  written to {arguments.out}")


if __name__ == "__main__":
    main()
