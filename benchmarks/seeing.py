"""What metrics, traces and access logs cost a request, beside the sidecar without any and beside Envoy's own. JSON and a table.

Part of ``make bench``, or ``python -m benchmarks.seeing [--rounds 20] [--seconds 1] [--quick]``. All run at once, one of them
under load at a time, in another order each round; what is quoted are medians of ratios within a round. What each uses is read
from /proc: of the whole process, its threads that write logs and send spans included. A run counts only if the log has a line
for every request and the receiver got spans of about 1 % of them.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from operator import sub, truediv
from pathlib import Path
from typing import Any

from benchmarks.peers import BACKENDS, HOST, backend
from benchmarks.procs import resident
from benchmarks.run import RESULTS, closed_loop, machine, medians, needs, open_loop, processors, running, wrk
from benchmarks.seeing_peers import COLLECTOR, SAMPLING, Seen, seen_peers

Row = dict[str, Any]


def measure(chosen: list[Seen], rounds: int, seconds: float, rate: float, work: Path) -> dict[str, list[Row]]:
    """Rows by peer, one per round. Ends the run for a peer that did not do what it is measured for."""
    proxy_cpu, load_cpu = processors()
    rows: dict[str, list[Row]] = {one.peer.name: [] for one in chosen}
    requests = dict.fromkeys(rows, 0.0)
    sink = [sys.executable, "-m", "benchmarks.spansink", COLLECTOR[0], str(COLLECTOR[1])]
    order = list(chosen)
    shuffle = random.Random(1).shuffle
    with running(sink, COLLECTOR, load_cpu, "/"):
        with ExitStack() as stack:
            stack.enter_context(running(backend(work), BACKENDS[0], load_cpu))
            pids = {}
            for one in chosen:
                pids[one.peer.name] = stack.enter_context(running(one.peer.command, (HOST, one.peer.port), proxy_cpu))
            for one in (*chosen, *chosen):  # warm up: what sends spans is loaded with the first of them
                requests[one.peer.name] += wrk(one.peer, "/1k", 32, 1, load_cpu)[1]
            for number in range(rounds):
                shuffle(order)
                for one in order:
                    name, pid = one.peer.name, pids[one.peer.name]
                    row: Row = {
                        "c32": closed_loop(one.peer, pid, "/1k", 32, seconds, load_cpu),
                        "open": open_loop(one.peer, pid, rate, seconds, load_cpu, traced=True),
                        "rss_mib": resident(pid),
                    }
                    rows[name].append(row)
                    requests[name] += row["c32"]["requests"] + row["open"]["requests"]
                    print(
                        f"round {number + 1}/{rounds}  {name:<10} c32 {row['c32']['cpu_us']:6.1f} us "
                        f"{row['c32']['rps']:8.0f}/s   open {row['open']['cpu_us']:6.1f} us   "
                        f"p99 {row['open']['p99_ms']:6.2f} ms",
                        flush=True,
                    )
        with urllib.request.urlopen(f"http://{COLLECTOR[0]}:{COLLECTOR[1]}/", timeout=5) as answer:
            received = json.load(answer)  # they have ended, and with that sent and written what they held back
    for one in chosen:
        _check(one, requests[one.peer.name], received, slack=33 * (rounds + 2) + 2)
    return rows


def _check(one: Seen, requests: float, received: dict[str, int], slack: int) -> None:
    """``slack``: requests that nobody counted: of what wrk has under way at its end it does not tell."""
    if one.log is not None:
        with one.log.open("rb") as file:
            lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
        if not requests <= lines <= requests + slack:
            raise SystemExit(f"benchmarks: {one.peer.name} logged {lines} of {requests:.0f} requests")
    if one.spans is not None:
        found, expected = received.get(one.spans, 0), requests * SAMPLING / 100
        if abs(found - expected) > 6 * expected**0.5 + 10:
            raise SystemExit(f"benchmarks: {one.peer.name} sent {found} spans, not about {expected:.0f}")


# Ours over theirs, medians of the rounds; less one: what it adds.
_HELD_TO = (
    ("metrics and traces, more than nothing (<= 0.12)", "traces", "nothing", "c32", 1),
    ("metrics and traces, at the fixed rate", "traces", "nothing", "open", 1),
    ("the access log too, more than nothing (<= 0.25)", "log", "nothing", "c32", 1),
    ("the access log too, at the fixed rate", "log", "nothing", "open", 1),
    ("everything / Envoy with everything (<= 0.6)", "log", "Envoy log", "c32", 0),
    ("everything, at the fixed rate / Envoy's", "log", "Envoy log", "open", 0),
    ("Envoy's traces and log, more than its metrics", "Envoy log", "Envoy", "c32", 1),
)


def ratios(rows: dict[str, list[Row]]) -> dict[str, tuple[float, float]]:
    """What the project holds itself to: the median of what the rounds say, and what the least of all rounds say.

    On a quiet machine they agree. Where other work disturbs some rounds, the least are nearer to what the code costs.
    """

    def pair(mine: str, other: str, of: Callable[[float, float], float], case: str) -> tuple[float, float]:
        ours, theirs = ([max(row[case]["cpu_us"], 1e-9) for row in rows[name]] for name in (mine, other))
        return statistics.median(map(of, ours, theirs)), of(min(ours), min(theirs))

    found: dict[str, tuple[float, float]] = {}
    if "metrics" in rows and "nothing" in rows:
        found["metrics, us a request (<= 3)"] = pair("metrics", "nothing", sub, "c32")
    for name, mine, other, case, less in _HELD_TO:
        if mine in rows and other in rows:
            median, least = pair(mine, other, truediv, case)
            found[name] = median - less, least - less
    return found


def table(rows: dict[str, list[Row]]) -> None:
    print(f"\n{'':<11}{'CPU us/request':>16}{'requests/s':>12}{'fixed rate us':>15}{'p99 ms':>8}{'RSS MiB':>9}")
    for name, each in rows.items():
        m = medians(each)
        print(
            f"{name:<11}{m['c32 cpu_us']:>16.1f}{m['c32 rps']:>12.0f}{m['open cpu_us']:>15.1f}{m['open p99_ms']:>8.2f}"
            f"{m['rss_mib']:>9.1f}"
        )
    print()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--rate", type=float, default=1500, help="requests/s of the open loop")
    parser.add_argument("--only", action="append", help="peers to run (repeatable)")
    parser.add_argument("--quick", action="store_true", help="one short round: shows that it works, not what it costs")
    parser.add_argument("--out", type=Path, default=RESULTS / "seeing.json")
    args = parser.parse_args(arguments)
    needs("wrk", "nginx", "taskset")
    rounds, seconds, rate = (1, 1, 300) if args.quick else (args.rounds, args.seconds, args.rate)
    with tempfile.TemporaryDirectory(prefix="meshbench") as folder:
        work = Path(folder)
        work.chmod(0o755)
        chosen = [one for one in seen_peers(work) if not args.only or one.peer.name in args.only]
        rows = measure(chosen, rounds, seconds, rate, work)
    table(rows)
    found = ratios(rows)
    print(f"{'':<52}{'median':>9}{'least':>9}")
    for name, (median, least) in found.items():
        print(f"{name:<52}{median:>9.2f}{least:>9.2f}")
    if args.quick:
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"machine": machine(), "rounds": rows, "ratios": found}, indent=1) + "\n")
    print(f"written: {args.out}")


if __name__ == "__main__":
    main()
