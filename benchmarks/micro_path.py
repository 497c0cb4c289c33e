"""The whole data path without sockets: one keep-alive GET from ``data_received`` to the last ``write``, in µs of CPU.

What is left of a request's cost when system calls and the event loop are taken away. "mesh" rows: the same between sidecars, with
all that mutual TLS makes of a request's identity, but without the records themselves. The figure is the best of several rounds.
Usage: python -m benchmarks.micro_path [--profile]
"""

from __future__ import annotations

import cProfile
import pstats
import random
import sys
import tempfile
import time
from types import SimpleNamespace
from typing import Literal

from meshproxy.message.record import ExchangeRecord
from meshproxy.message.secured import Peer, Secured
from meshproxy.model.cluster import Cluster, ConnectionPool, Endpoint, Endpoints, Outlier, Service, Workload
from meshproxy.model.route import Forward, Retry, WeightedCluster
from meshproxy.model.telemetry import Telemetry, Tracing
from meshproxy.telemetry.accesslog import AccessLogs
from meshproxy.telemetry.observe import Observer
from meshproxy.telemetry.trace import Spans
from tests.flow.memnet import World, simple
from tests.flow.test_mesh import accept, client, inbound

REQUEST = b"GET /1k HTTP/1.1\r\nHost: rating:8080\r\nUser-Agent: wrk\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n\r\n"
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 22 Nov 2026 22:00:00 GMT\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 1024\r\nLast-Modified: Sun, 22 Nov 2026 21:00:00 GMT\r\nConnection: keep-alive\r\n"
    b'ETag: "65-400"\r\nAccept-Ranges: bytes\r\n\r\n' + b"x" * 1024
)


class Blind:
    """Counts nothing."""

    def finished(self, record: ExchangeRecord, now: float) -> None:
        """Nothing."""


def world(tracing: tuple[Tracing, ...] = ()) -> World:
    """Routing, weights, retries, outlier detection and limits on, as in ``benchmarks.run``."""
    service = Service(host="rating.default.svc.cluster.local", name="rating", namespace="default")
    pool = ConnectionPool(max_connections=1024, max_pending_requests=1024, max_requests=4096, max_retries=1024)
    resources = simple(
        action=Forward(
            clusters=(WeightedCluster(cluster="v1", weight=75), WeightedCluster(cluster="v2", weight=25)),
            retry=Retry(
                attempts=2, on=("connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes")
            ),
        )
    )
    resources["cluster"], resources["endpoints"] = {}, {}
    for name in ("v1", "v2"):
        resources["cluster"][name] = Cluster(name=name, service=service, pool=pool, outlier=Outlier(max_ejection_percent=100))
        one = Endpoint(address=f"127.1.0.{name[1]}", port=8080, workload=Workload(pod=name, namespace="default"))
        resources["endpoints"][name] = Endpoints(name=name, endpoints=(one,))
    resources["telemetry"] = {"workload": Telemetry(tracing=tracing)}
    made = World(resources)
    made.corridor.dice = random.random
    return made


def secured(account: str) -> Secured:
    peer = Peer(identity=f"spiffe://cluster.local/ns/default/sa/{account}", digest="ab" * 32)
    return Secured(peer, "sni", "istio-http/1.1", "TLSv1.3", "AES", True, "spiffe://cluster.local/ns/default/sa/bench")


class Path:
    """A client and both endpoints, connected. ``mesh``: in "outbound" the endpoints are sidecars, in "inbound" the client is.

    ``seen``: outbound, whether 1 % of traces is sampled (spans are described, and not sent), and requests are logged to a file.
    """

    def __init__(
        self,
        mesh: Literal["", "outbound", "inbound", "inbound-plain"] = "",
        seen: Literal["nothing", "metrics", "traces", "log"] = "metrics",
        log: str = "",
    ) -> None:
        tracing = (Tracing(),) if seen in ("traces", "log") else ()
        made = inbound() if mesh.startswith("inbound") else world(tracing)
        own = Workload(pod="bench", namespace="default")
        logs = AccessLogs(SimpleNamespace(access_log=log, access_log_encoding="TEXT", access_log_format="")) if log else None
        made.corridor.observer = Blind() if seen == "nothing" else Observer(own, logs)
        if tracing:
            sent = Spans(lambda: own, "node", lambda: "m", connect=lambda *_: lambda spans: True)
            made.corridor.spans = sent.finished
        self.client = client(made, secured("web") if mesh == "inbound" else None) if mesh.startswith("inbound") else made.client()
        self.wires = []
        for draw in (0.1, 0.9) if not mesh.startswith("inbound") else (0.5, 0.5):
            made.corridor.dice = lambda draw=draw: draw  # type: ignore[misc]
            self.client.deliver(REQUEST)
            if made.dials:
                self.wires.append(accept(made, secured("rating") if mesh == "outbound" else None))
            wire = self.wires[-1]
            wire.deliver(RESPONSE)
            wire.take()
        made.corridor.dice = random.random

    def requests(self, count: int) -> float:
        """CPU seconds for ``count`` requests."""
        client = self.client
        feed = client.protocol.data_received
        one, other = self.wires[0], self.wires[-1]
        began = time.process_time()
        for _ in range(count):
            feed(REQUEST)
            wire = one if one.sent else other
            wire.sent = b""
            wire.protocol.data_received(RESPONSE)
            client.sent = b""
        return time.process_time() - began


def main() -> None:
    path = Path()
    path.requests(2000)
    if "--profile" in sys.argv:
        with cProfile.Profile() as profile:
            path.requests(20000)
        pstats.Stats(profile).sort_stats("tottime").print_stats(35)
        return
    rows: tuple[tuple[str, Path], ...] = (
        ("whole path without sockets", path),
        ("mesh outbound", Path("outbound")),
        ("plaintext inbound", Path("inbound-plain")),
        ("mesh inbound", Path("inbound")),
    )
    for name, one in rows:
        best = min(one.requests(10000) for _ in range(7)) / 10000 * 1e6
        print(f"{name}: {best:.1f} us a request")
    with tempfile.TemporaryDirectory() as folder:
        seen = {
            "without any telemetry": Path("", "nothing"),
            "with metrics": Path("", "metrics"),
            "with metrics and 1 % traces": Path("", "traces"),
            "with metrics, 1 % traces and an access log": Path("", "log", f"{folder}/log"),
        }
        best_of = dict.fromkeys(seen, 1.0)
        for _ in range(15):  # in turns, so that the machine's moods meet all of them
            for name, one in seen.items():
                best_of[name] = min(best_of[name], one.requests(3000) / 3000)
        for name, best in best_of.items():
            print(f"{name}: {best * 1e6:.2f} us a request")


if __name__ == "__main__":
    main()
