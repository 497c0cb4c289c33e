"""Two sidecars joined by mutual TLS, with tokens and policies on: ours against Envoy's, interleaved in one run. JSON and a table.

Part of ``make bench``, or ``python -m benchmarks.mesh [--rounds 5] [--seconds 4]``. Both sidecars of a pair are bound to one
processor, load and backend to the others; what each uses is read from /proc, so that they do not blur. The handshake rows let
a connection between the two carry one request only: what a request costs more there is the cost of a connection with a full
handshake, on each side.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from math import ceil
from pathlib import Path
from typing import Any

from benchmarks.credentials import credentials
from benchmarks.mesh_peers import CLIENT_HOST, Pair, pairs
from benchmarks.peers import AUTHORITY, BACKENDS, backend
from benchmarks.procs import cpu_seconds, resident
from benchmarks.run import RESULTS, medians, needs, processors, running

Row = dict[str, Any]


class Running:
    """A pair that serves."""

    def __init__(self, pair: Pair, client: int, server: int, token: str) -> None:
        self.pair, self.client, self.server, self.token = pair, client, server, token

    def _measured(self, command: list[str]) -> tuple[str, float, float]:
        before = cpu_seconds(self.client), cpu_seconds(self.server)
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return out, cpu_seconds(self.client) - before[0], cpu_seconds(self.server) - before[1]

    def closed(self, connections: int, seconds: float, cpu: str) -> Row:
        headers = (f"Host: {AUTHORITY}", f"Authorization: Bearer {self.token}", "User-Agent: wrk", "Accept: */*")
        command = ["taskset", "-c", cpu, "wrk", "-t1", f"-c{connections}", f"-d{ceil(seconds)}s"]
        command += [part for header in headers for part in ("-H", header)]
        out, client, server = self._measured([*command, f"http://{CLIENT_HOST}:{self.pair.port}/1k"])
        if "Non-2xx" in out or "Socket errors" in out:
            raise SystemExit(f"benchmarks: {self.pair.name}: requests failed\n{out}")
        total = max(1, next(int(line.split()[0]) for line in out.splitlines() if "requests in" in line))
        rate = next(float(line.split()[-1]) for line in out.splitlines() if line.startswith("Requests/sec"))
        return {"rps": rate, "client_us": client / total * 1e6, "server_us": server / total * 1e6}

    def open(self, rate: float, seconds: float, cpu: str) -> Row:
        command = ["taskset", "-c", cpu, sys.executable, "-m", "benchmarks.openloop", CLIENT_HOST, str(self.pair.port), "/1k"]
        command += [AUTHORITY, "--rate", str(rate), "--connections", "32", "--seconds", str(seconds), "--token", self.token]
        out, client, server = self._measured(command)
        found: Row = json.loads(out)
        if found["failed"]:
            raise SystemExit(f"benchmarks: {self.pair.name}: {found['failed']} requests failed")
        total = max(1, found["requests"])
        return {**found, "client_us": client / total * 1e6, "server_us": server / total * 1e6}


def _start(stack: ExitStack, pair: Pair, token: str, cpu: str) -> Running:
    server = stack.enter_context(running(pair.server, None, cpu))
    # the client answers 200 only when the server behind it does
    client = stack.enter_context(running(pair.client, (CLIENT_HOST, pair.port), cpu, token=token))
    return Running(pair, client, server, token)


def ratios(rows: dict[str, list[Row]], mine: str = "meshproxy", other: str = "Envoy") -> dict[str, float]:
    """Medians of the round-by-round ratios that the project holds itself to."""

    def against(case: str, key: str) -> float:
        return statistics.median(a[case][key] / max(b[case][key], 1e-9) for a, b in zip(rows[mine], rows[other], strict=True))

    def handshake(row: Row, key: str) -> float:
        return max(1e-9, row["handshake"][key] - row["c32"][key])

    found = {}
    for side in ("client", "server"):
        found[f"{side} side: CPU per request / Envoy's (<= 0.85)"] = against("c32", f"{side}_us")
        found[f"{side} side: at the fixed rate / Envoy's"] = against("open", f"{side}_us")
    found["p99 at the same rate / Envoy's (<= 1.25)"] = against("open", "p99_ms")
    for side in ("client", "server"):
        both = zip(rows[mine], rows[other], strict=True)
        found[f"{side} side: a full handshake / Envoy's"] = statistics.median(
            handshake(a, f"{side}_us") / handshake(b, f"{side}_us") for a, b in both
        )
    return found


def table(rows: dict[str, list[Row]]) -> None:
    heads = (f"{'':<11}", f"{'client us/request':>20}", f"{'server us/request':>20}", f"{'requests/s':>12}", f"{'p99 ms':>9}")
    print("\n" + "".join(heads) + f"{'handshake us':>22}{'RSS MiB':>16}")
    for name, each in rows.items():
        m = medians(each)
        shakes = [statistics.median(r["handshake"][k] - r["c32"][k] for r in each) for k in ("client_us", "server_us")]
        print(
            f"{name:<11}{m['c32 client_us']:>20.1f}{m['c32 server_us']:>20.1f}{m['c32 rps']:>12.0f}{m['open p99_ms']:>9.2f}"
            f"{shakes[0]:>11.0f}{shakes[1]:>11.0f}{m['client_mib']:>8.1f}{m['server_mib']:>8.1f}"
        )
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rate", type=float, default=800, help="requests/s of the open loop")
    parser.add_argument("--only", action="append", help="peers to run (repeatable)")
    parser.add_argument("--out", type=Path, default=RESULTS / "mesh.json")
    args = parser.parse_args()
    needs("wrk", "nginx", "taskset")
    proxy_cpu, load_cpu = processors()
    rows: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory(prefix="meshbench") as folder, ExitStack() as stack:
        work = Path(folder)
        work.chmod(0o755)
        made = credentials(work)
        stack.enter_context(running(backend(work), BACKENDS[0], load_cpu))
        for number in range(args.rounds):
            for kept, shaken in zip(pairs(made), pairs(made, 1), strict=True):
                if args.only and kept.name not in args.only:
                    continue
                row: Row = {}
                with ExitStack() as serving:
                    pair = _start(serving, kept, made.token, proxy_cpu)
                    pair.closed(32, 1, load_cpu)  # warm up
                    row["c32"] = pair.closed(32, args.seconds, load_cpu)
                    row["open"] = pair.open(args.rate, args.seconds, load_cpu)
                    row["client_mib"], row["server_mib"] = resident(pair.client), resident(pair.server)
                with ExitStack() as serving:
                    pair = _start(serving, shaken, made.token, proxy_cpu)
                    row["handshake"] = pair.closed(8, args.seconds / 2, load_cpu)
                rows.setdefault(kept.name, []).append(row)
                print(
                    f"round {number + 1}/{args.rounds}  {kept.name:<10} client {row['c32']['client_us']:6.1f} us   server "
                    f"{row['c32']['server_us']:6.1f} us   {row['c32']['rps']:7.0f}/s   p99 {row['open']['p99_ms']:6.2f} ms   "
                    f"handshake {row['handshake']['client_us']:6.0f} / {row['handshake']['server_us']:6.0f} us",
                    flush=True,
                )
    table(rows)
    found = ratios(rows) if len(rows) == 2 else {}
    for name, value in found.items():
        print(f"{name:<52} {value:8.2f}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"rounds": rows, "ratios": found}, indent=1) + "\n")
    print(f"written: {args.out}")


if __name__ == "__main__":
    main()
