"""Microseconds of the cluster room's hot functions: ``python benchmarks/micro_cluster.py``. Best of five rounds, one process.

The loop's own cost is taken off. Budgets: pick by plain round robin 1.5 µs, a successful report 0.5 µs.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from meshproxy.cluster.cluster import Cluster
from meshproxy.message.head import RequestHead
from meshproxy.model import cluster as model

N = 50_000


def measure(call: Callable[[], object]) -> float:
    """µs per call."""

    def once(what: Callable[[], object]) -> float:
        began = time.perf_counter()
        for _ in range(N):
            what()
        return (time.perf_counter() - began) / N * 1e6

    return min(once(call) for _ in range(5)) - min(once(lambda: None) for _ in range(5))


def cluster(policy: str, hosts: int = 3, weights: bool = False, **more: object) -> Cluster:
    config = model.Cluster(name="c", lb=model.LoadBalancer(policy=policy, **more), outlier=model.Outlier())  # type: ignore[arg-type]
    return Cluster(config, [model.Endpoint(address=f"10.0.0.{i}", port=80, weight=1 + i * weights) for i in range(hosts)])


def main() -> None:
    request = RequestHead(b"GET", b"/", b"a", [(b"user", b"joe"), (b"accept", b"*/*")])
    dice = random.random
    plain = cluster("ROUND_ROBIN")
    endpoint = plain.endpoints[0]
    by_header = {"hash": model.HashPolicy(header="user")}
    weighted, chosen, ring = cluster("ROUND_ROBIN", weights=True), cluster("LEAST_REQUEST"), cluster("RING_HASH", **by_header)
    rows: list[tuple[str, Callable[[], object]]] = [
        ("pick, round robin of 3", lambda: plain.pick(request, "10.1.1.1", (), 1.0, dice)),
        ("pick, round robin of 3, one tried", lambda: plain.pick(request, "10.1.1.1", (endpoint,), 1.0, dice)),
        ("pick, weighted round robin of 3", lambda: weighted.pick(request, "10.1.1.1", (), 1.0, dice)),
        ("pick, least request of 3", lambda: chosen.pick(request, "10.1.1.1", (), 1.0, dice)),
        ("pick, ring hash by header", lambda: ring.pick(request, "10.1.1.1", (), 1.0, dice)),
        ("report, success, outlier detection on", lambda: plain.report(endpoint, 200, False, 1.0)),
    ]
    for name, call in rows:
        print(f"{name:40} {measure(call):6.2f} µs")


if __name__ == "__main__":
    main()
