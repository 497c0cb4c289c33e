"""What tracing adds to a request, in µs of CPU: the filter alone, by what the request brought and whether it is sampled.

Usage: python -m benchmarks.micro_tracing
"""

from __future__ import annotations

import random
import time
from typing import Any

from meshproxy.filters.tracing import tracing_filter
from meshproxy.message.head import Headers, RequestHead
from meshproxy.model.telemetry import Tracing
from meshproxy.policy.context import compile_tracing

USUAL: Headers = [
    (b"user-agent", b"wrk"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip"),
    (b"x-forwarded-proto", b"http"),
    (b"x-request-id", b"6f2b1c2e-8f0a-4c3d-9e51-3c7a5e0f9b11"),
]
PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"
ROUNDS = 50_000


class _Record:
    trace: Any = None


class _Exchange:
    """As much of an exchange as the filter looks at."""

    def __init__(self, headers: Headers) -> None:
        self.request = RequestHead(b"GET", b"/", b"rating:8080", headers)
        self.record = _Record()
        self.dice = random.random


def cost(tracing: Tracing, more: Headers) -> float:
    """µs a request, without what it takes to renew the headers."""
    run: Any = tracing_filter(compile_tracing(tracing, "tracing"))
    exchange: Any = _Exchange([])
    head = exchange.request
    given = [*USUAL, *more]

    def rounds(call: Any) -> float:
        began = time.process_time()
        for _ in range(ROUNDS):
            head.headers = given.copy()
            call(exchange, 0.0)
        return time.process_time() - began

    nothing = min(rounds(lambda exchange, now: None) for _ in range(5))
    return (min(rounds(run) for _ in range(5)) - nothing) / ROUNDS * 1e6


def main() -> None:
    rows = (
        ("a trace begins, not sampled", Tracing(sampling=0.0), []),
        ("not sampled by the caller", Tracing(sampling=1.0), [(b"traceparent", PARENT + b"00")]),
        ("a trace begins, sampled", Tracing(sampling=100.0), []),
        ("sampled by the caller", Tracing(sampling=1.0), [(b"traceparent", PARENT + b"01")]),
    )
    for name, tracing, more in rows:
        print(f"{name}: {cost(tracing, more):.2f} us a request")


if __name__ == "__main__":
    main()
