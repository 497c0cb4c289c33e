"""Compare the sidecar with Envoy, nginx, HAProxy and a raw relay, interleaved in one run; write JSON and a table.

``make bench`` or ``python -m benchmarks.run [--rounds 5] [--seconds 4] [--only NAME]``. What is quoted are ratios within one
run, medians over the rounds: the machine drifts, the ratios hold. The proxy is bound to one processor, load and backend to
the others.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import ceil
from pathlib import Path
from typing import Any

from benchmarks.peers import AUTHORITY, BACKENDS, HOST, Peer, backend, peers
from benchmarks.procs import cpu_seconds, resident

RESULTS = Path(__file__).parent / "results"


def needs(*programs: str) -> None:
    """Ends the run where one of these is missing."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        raise SystemExit(f"benchmarks: {', '.join(missing)} not found; run: make system-deps")


def processors() -> tuple[str, str]:
    """taskset's words for the processor of the proxies, and for the others, where load and backend run."""
    cpus = sorted(os.sched_getaffinity(0))
    return str(cpus[0]), ",".join(map(str, cpus[1:])) or str(cpus[0])


def machine() -> dict[str, Any]:
    """What a results file says of where it was made."""
    return {
        "python": platform.python_version(),
        "processors": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
    }


@contextmanager
def running(
    command: list[str],
    address: tuple[str, int] | None,
    cpu: str,
    path: str = "/1k",
    log: Any = subprocess.DEVNULL,
    token: str = "",
) -> Iterator[int]:
    """Start, wait until it answers (no address: nobody asks), end it by its pid."""
    process = subprocess.Popen(["taskset", "-c", cpu, *command], stdout=log, stderr=log)
    try:
        if address is not None:
            _await(process, address, path, token)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(process: subprocess.Popen[bytes], address: tuple[str, int], path: str, token: str) -> None:
    deadline = time.monotonic() + 20
    headers = {"Host": AUTHORITY, **({"Authorization": f"Bearer {token}"} if token else {})}
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"benchmarks: {process.args} ended with {process.returncode}")
        try:
            request = urllib.request.Request(f"http://{address[0]}:{address[1]}{path}", headers=headers)
            if urllib.request.urlopen(request, timeout=1).status == 200:
                return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"benchmarks: {process.args} did not answer on {address[0]}:{address[1]}")


def wrk(peer: Peer, path: str, connections: int, seconds: float, load_cpu: str) -> tuple[float, float]:
    """(requests/s, requests) of a closed loop."""
    command = ["taskset", "-c", load_cpu, "wrk", "-t1", f"-c{connections}", f"-d{ceil(seconds)}s"]
    command += ["-H", f"Host: {AUTHORITY}", "-H", "User-Agent: wrk", "-H", "Accept: */*", "-H", "Accept-Encoding: gzip"]
    out = subprocess.run([*command, f"http://{HOST}:{peer.port}{path}"], capture_output=True, text=True, check=True).stdout
    fields = {line.split(":")[0].strip(): line for line in out.splitlines()}
    if "Non-2xx or 3xx responses" in fields or "Socket errors" in fields:
        print(f"  {peer.name}: {out}", file=sys.stderr)
    total = next(int(line.split()[0]) for line in out.splitlines() if "requests in" in line)
    return float(fields["Requests/sec"].split()[-1]), float(total)


def closed_loop(peer: Peer, pid: int, path: str, connections: int, seconds: float, load_cpu: str) -> dict[str, float]:
    before = cpu_seconds(pid)
    rate, total = wrk(peer, path, connections, seconds, load_cpu)
    used = cpu_seconds(pid) - before
    return {"rps": rate, "requests": total, "cpu_us": used / max(total, 1) * 1e6}


def open_loop(peer: Peer, pid: int, rate: float, seconds: float, load_cpu: str, traced: bool = False) -> dict[str, float]:
    """``traced``: the proxy may sample what comes."""
    before = cpu_seconds(pid)
    command = ["taskset", "-c", load_cpu, sys.executable, "-m", "benchmarks.openloop", HOST, str(peer.port), "/1k", AUTHORITY]
    command += ["--rate", str(rate), "--connections", "32", "--seconds", str(seconds), *(["--traced"] if traced else [])]
    out = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found: dict[str, float] = json.loads(out)
    found["cpu_us"] = (cpu_seconds(pid) - before) / max(found["requests"], 1) * 1e6
    return found


def measure(
    chosen: list[Peer], rounds: int, seconds: float, rate: float, proxy_cpu: str, load_cpu: str
) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {peer.name: [] for peer in chosen}
    cases = [("1k/c1", "/1k", 1), ("1k/c32", "/1k", 32), ("1k/c256", "/1k", 256), ("1m/c32", "/1m", 32)]
    with ExitStack() as stack:
        pids = {}
        for peer in chosen:
            pids[peer.name] = stack.enter_context(running(peer.command, (HOST, peer.port), proxy_cpu))
            wrk(peer, "/1k", 32, 1, load_cpu)  # warm up
        for number in range(rounds):
            for peer in chosen:
                pid = pids[peer.name]
                row: dict[str, Any] = {}
                for name, path, connections in cases:
                    row[name] = closed_loop(peer, pid, path, connections, seconds if path == "/1k" else seconds / 2, load_cpu)
                row["open"] = open_loop(peer, pid, rate, seconds, load_cpu)
                row["rss_mib"] = resident(pid)
                rows[peer.name].append(row)
                print(f"round {number + 1}/{rounds}  {peer.name:<10} {_short(row)}", flush=True)
    return rows


def _short(row: dict[str, Any]) -> str:
    return (
        f"c32 {row['1k/c32']['cpu_us']:6.1f} us {row['1k/c32']['rps']:8.0f}/s   1m {row['1m/c32']['cpu_us']:7.1f} us   "
        f"p99 {row['open']['p99_ms']:6.2f} ms   {row['rss_mib']:5.1f} MiB"
    )


def medians(rows: list[dict[str, Any]]) -> dict[str, float]:
    flat: dict[str, list[float]] = {}
    for row in rows:
        for case, value in row.items():
            for key, number in value.items() if isinstance(value, dict) else [("", value)]:
                flat.setdefault(f"{case} {key}".strip(), []).append(number)
    return {key: statistics.median(values) for key, values in flat.items()}


def ratios(rows: dict[str, list[dict[str, Any]]], mine: str = "meshproxy") -> dict[str, float]:
    """Medians of the round-by-round ratios that the project holds itself to."""

    def against(other: str, case: str, key: str) -> float:
        pairs = zip(rows[mine], rows[other], strict=True)
        return statistics.median(a[case][key] / max(b[case][key], 1e-9) for a, b in pairs)

    found: dict[str, float] = {}
    if mine in rows and "Envoy" in rows:
        found["CPU per request / Envoy's (<= 0.6)"] = against("Envoy", "1k/c32", "cpu_us")
        found["CPU per request at the fixed rate / Envoy's"] = against("Envoy", "open", "cpu_us")
        found["p99 at the same rate / Envoy's (<= 1.25)"] = against("Envoy", "open", "p99_ms")
        found["CPU per 1 MiB body / Envoy's (<= 1.3)"] = against("Envoy", "1m/c32", "cpu_us")
    if mine in rows and "raw relay" in rows:
        found["CPU per request / the raw relay's (<= 2.2)"] = against("raw relay", "1k/c32", "cpu_us")
    if mine in rows:
        found["resident MiB (<= 45)"] = statistics.median(row["rss_mib"] for row in rows[mine])
    return found


def siege(peer: Peer) -> dict[str, Any]:
    """siege's own figures for the article's four clients, without the second of thinking time and for longer than ten rounds."""
    command = ["siege", "-b", "-r", "500", "-c", "4", "-j", "-q", "-H", f"Host: {AUTHORITY}", f"http://{HOST}:{peer.port}/1k"]
    out = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    try:
        return json.loads(out[out.index("{") :])
    except ValueError:
        return {"error": out.strip()[:200]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rate", type=float, default=1500, help="requests/s of the open loop")
    parser.add_argument("--only", action="append", help="peers to run (repeatable)")
    parser.add_argument("--out", type=Path, default=RESULTS / "latest.json")
    args = parser.parse_args()
    needs("wrk", "nginx", "haproxy", "siege", "taskset")
    proxy_cpu, load_cpu = processors()
    with tempfile.TemporaryDirectory(prefix="meshbench") as folder, ExitStack() as stack:
        work = Path(folder)
        work.chmod(0o755)
        stack.enter_context(running(backend(work), BACKENDS[0], load_cpu))
        chosen = [peer for peer in peers(work) if not args.only or peer.name in args.only]
        rows = measure(chosen, args.rounds, args.seconds, args.rate, proxy_cpu, load_cpu)
        sieges = {}
        for peer in chosen:
            with running(peer.command, (HOST, peer.port), proxy_cpu):
                sieges[peer.name] = siege(peer)
    table(rows, sieges)
    found = ratios(rows)
    for name, value in found.items():
        print(f"{name:<46} {value:8.2f}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"machine": machine(), "rounds": rows, "ratios": found, "siege": sieges}, indent=1) + "\n")
    print(f"written: {args.out}")


def table(rows: dict[str, list[dict[str, Any]]], sieges: dict[str, Any]) -> None:
    print()
    print(
        f"{'':<11}{'CPU us/request':^26}{'requests/s':^26}{'1 MiB':>9}{'open loop':^26}{'RSS':>7}{'siege':>8}\n"
        f"{'':<11}{'c1':>8}{'c32':>9}{'c256':>9}{'c1':>8}{'c32':>9}{'c256':>9}"
        f"{'CPU us':>9}{'p50 ms':>9}{'p99 ms':>9}{'CPU us':>8}"
        f"{'MiB':>7}{'trans/s':>8}"
    )
    for name, each in rows.items():
        m = medians(each)
        siege_rate = sieges.get(name, {}).get("transaction_rate", 0)
        print(
            f"{name:<11}{m['1k/c1 cpu_us']:8.1f}{m['1k/c32 cpu_us']:9.1f}{m['1k/c256 cpu_us']:9.1f}"
            f"{m['1k/c1 rps']:8.0f}{m['1k/c32 rps']:9.0f}{m['1k/c256 rps']:9.0f}{m['1m/c32 cpu_us']:9.1f}"
            f"{m['open p50_ms']:9.2f}{m['open p99_ms']:9.2f}{m['open cpu_us']:8.1f}{m['rss_mib']:7.1f}{siege_rate:8}"
        )
    print()


if __name__ == "__main__":
    main()
