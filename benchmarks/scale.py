"""How control scales: many services and connected sidecars, one pod's readiness flips; when does every sidecar know?

    python -m benchmarks.scale [--services 1000 --endpoints 10 --proxies 1000 --rounds 7] [--out benchmarks/results/scale.json]

Method: a store is filled with Services and ready Pods, a real ``mesh-control serve`` starts on it (its endpoint controller writes
the EndpointSlices), simulated sidecars (``scale_proxies.py``, one other process) join over TLS on loopback and confirm every
push. Then, round by round, one pod's Ready condition is patched through the API. A time is from just before that PATCH to a
sidecar's receipt of the push; every sidecar sees every service, so all are concerned. All of it shares this machine's
cores: control, sidecars, driver.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from control.ca.tokens import Tokens
from control.resources.kinds import by_kind
from control.store.sqlite import SqliteStore

ROOT = Path(__file__).resolve().parent.parent
Obj = dict[str, Any]


def pod(namespace: str, app: str, number: int, address: str) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{app}-{number}",
            "namespace": namespace,
            "labels": {"app": app, "app.kubernetes.io/name": app, "app.kubernetes.io/version": "v1.0.0"},
        },
        "spec": {"serviceAccountName": app, "containers": [{"name": "app", "image": "local"}]},
        "status": {"phase": "Running", "podIP": address, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def service(namespace: str, app: str) -> Obj:
    ports = [{"name": "http", "port": 8080, "targetPort": 9080}]
    spec = {"selector": {"app": app}, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": app, "namespace": namespace}, "spec": spec}


async def fill(path: Path, arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """Write the objects; returns (namespace, name) of the pods that get a sidecar."""
    store = SqliteStore(path)
    await store.open()
    made: list[tuple[str, Obj]] = []
    for number in range(arguments.services):
        namespace, app = f"team-{number % arguments.namespaces}", f"app-{number}"
        made.append(("Service", service(namespace, app)))
        for each in range(arguments.endpoints):
            index = number * arguments.endpoints + each
            made.append(("Pod", pod(namespace, app, each, f"10.{index >> 16}.{index >> 8 & 255}.{index & 255}")))
    for start in range(0, len(made), 250):
        await asyncio.gather(*(store.create(by_kind("", kind), obj) for kind, obj in made[start : start + 250]))
    await store.close()
    pods = [obj["metadata"] for kind, obj in made if kind == "Pod"]
    step = max(1, len(pods) // arguments.proxies)
    return [(meta["namespace"], meta["name"]) for meta in pods[::step]][: arguments.proxies]


def memory(pid: int) -> dict[str, float]:
    """Resident and peak memory in MiB."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: round(int(lines[key].split()[0]) / 1024, 1) for name, key in (("rss", "VmRSS"), ("peak", "VmHWM"))}


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(arguments: argparse.Namespace, state: Path) -> Obj:
    started = time.monotonic()
    state.mkdir(mode=0o700)
    proxies = await fill(state / "mesh.db", arguments)
    report: Obj = {"fill_s": round(time.monotonic() - started, 2)}
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    ports = ["--port", "0", "--metrics-port", "0", "--log-level", "warning"]
    command = [sys.executable, "-m", "control", "serve", "--state", str(state), *ports]
    started = time.monotonic()
    control = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)
    crowd: subprocess.Popen[str] | None = None
    try:
        assert control.stdout is not None
        words = control.stdout.readline().split()
        url = words[2]
        report["start_s"] = round(time.monotonic() - started, 2)
        tokens = Tokens.open(state / "ca")
        headers = {"authorization": f"Bearer {tokens.admin_token}"}
        async with httpx.AsyncClient(base_url=url, verify=str(state / "ca" / "root.pem"), headers=headers, timeout=60) as client:
            await slices_written(client, arguments.services)
            report["slices_s"] = round(time.monotonic() - started, 2)
            report["memory_before_proxies_mib"] = memory(control.pid)
            lines = [f"{ns}/{name} {tokens.issue(ns, name, 'default', time.time()).token}\n" for ns, name in proxies]
            (state / "tokens.txt").write_text("".join(lines))
            started, busy = time.monotonic(), cpu(control.pid)
            worker = [sys.executable, "-m", "benchmarks.scale_proxies", url, str(state / "ca" / "root.pem")]
            pipes: Obj = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environ, "cwd": ROOT}
            crowd = subprocess.Popen([*worker, str(state / "tokens.txt")], **pipes)
            joined = await told(crowd)
            report["join_s"] = round(time.monotonic() - started, 2)
            report["join_cpu_s"] = round(cpu(control.pid) - busy, 2)
            report["full_push_mib"] = round(joined["bytes"] / joined["joined"] / (1 << 20), 2)
            report["memory_joined_mib"] = memory(control.pid)
            report["rounds"] = []
            for number in range(arguments.rounds):
                report["rounds"].append(await one_round(client, crowd, control.pid, number, arguments))
        report["memory_mib"] = memory(control.pid)
    finally:
        for process in (crowd, control):
            if process is not None:
                process.terminate()
                process.wait(30)
    return report


async def slices_written(client: httpx.AsyncClient, count: int) -> None:
    while True:
        found = await client.get("/apis/discovery.k8s.io/v1/endpointslices", params={"limit": 1})
        there = found.json()
        if len(there["items"]) + int(there["metadata"].get("remainingItemCount") or 0) >= count:
            return
        await asyncio.sleep(0.2)


async def told(crowd: subprocess.Popen[str]) -> Obj:
    assert crowd.stdout is not None
    line = await asyncio.to_thread(crowd.stdout.readline)
    said: Obj = json.loads(line)
    if "ended" in said:
        raise RuntimeError(f"a simulated sidecar ended: {said['ended']}")
    return said


async def arrivals(crowd: subprocess.Popen[str]) -> list[float]:
    assert crowd.stdin is not None
    crowd.stdin.write("tell\n")
    crowd.stdin.flush()
    found: list[float] = (await told(crowd))["arrivals"]
    return found


async def one_round(
    client: httpx.AsyncClient, crowd: subprocess.Popen[str], pid: int, number: int, arguments: argparse.Namespace
) -> Obj:
    """Flip one pod that has no sidecar of its own, if there is one."""
    app = (number * 37) % arguments.services
    path = f"/api/v1/namespaces/team-{app % arguments.namespaces}/pods/app-{app}-{arguments.endpoints - 1}/status"
    body = json.dumps({"status": {"conditions": [{"type": "Ready", "status": "False"}]}})
    await asyncio.sleep(1.5)  # idle, so that rounds do not share a batch
    await arrivals(crowd)
    busy, start = cpu(pid), time.monotonic()
    answer = await client.patch(path, content=body, headers={"content-type": "application/merge-patch+json"})
    answer.raise_for_status()
    returned = time.monotonic() - start
    version = answer.json()["metadata"]["resourceVersion"]
    times: list[float] = []
    while len(times) < arguments.proxies and time.monotonic() - start < 30:
        await asyncio.sleep(0.25)
        times += await arrivals(crowd)
    confirmed: Obj = {"pending": ["?"]}
    while confirmed["pending"] and time.monotonic() - start < 30:
        confirmed = (await client.get("/mesh/v1/distribution", params={"resourceVersion": version})).json()
    waits = sorted(when - start for when in times)
    return {
        "proxies": len(waits),
        "patch_s": round(returned, 4),
        "first_s": round(waits[0], 4),
        "median_s": round(statistics.median(waits), 4),
        "max_s": round(waits[-1], 4),
        "control_cpu_s": round(cpu(pid) - busy, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--namespaces", type=int, default=10)
    parser.add_argument("--proxies", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "scale.json")
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16384), hard))  # two connections per sidecar; children inherit it
    with tempfile.TemporaryDirectory(prefix="mesh-scale-") as directory:
        report = asyncio.run(measure(arguments, Path(directory, "state")))
    rounds = report["rounds"]
    report["parameters"] = {key: value for key, value in vars(arguments).items() if key != "out"}
    report["median_s"] = statistics.median(r["median_s"] for r in rounds)
    report["max_s"] = statistics.median(r["max_s"] for r in rounds)
    report["worst_s"] = max(r["max_s"] for r in rounds)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"{arguments.services} services x {arguments.endpoints} endpoints, {arguments.proxies} sidecars")
    print(f"  start {report['start_s']} s, all slices {report['slices_s']} s, all sidecars joined {report['join_s']} s", end="")
    print(f" ({report['full_push_mib']} MiB each, {report['join_cpu_s']} s CPU of control)")
    print(f"  {'round':>5} {'reached':>8} {'first':>8} {'median':>8} {'max':>8} {'cpu':>6}")
    for number, row in enumerate(rounds):
        figures = f"{row['first_s']:8.3f} {row['median_s']:8.3f} {row['max_s']:8.3f} {row['control_cpu_s']:6.2f}"
        print(f"  {number:5} {row['proxies']:8} {figures}")
    print(f"  one endpoint's change: a sidecar has it in {report['median_s']:.3f} s (median)", end="")
    print(f", all in {report['max_s']:.3f} s (worst round {report['worst_s']:.3f} s); target 1 s")
    print(f"  control: {report['memory_mib']['rss']} MiB resident, {report['memory_mib']['peak']} MiB at peak; target 1024 MiB")
    print(f"  written to {arguments.out}")


if __name__ == "__main__":
    main()
