"""What a relayed connection costs, in µs of CPU: a chunk each way through the path without sockets, and a whole connection.

"echo" is 100 bytes from the client to the endpoint and back; "chunk" 64 KiB one way; "connection" arrives, is matched, dialed (in
memory), says 100 bytes each way and ends on both sides, telemetry included. The figure is the best of several rounds.
Usage: python -m benchmarks.micro_relay
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from meshproxy.model.cluster import Workload
from meshproxy.telemetry.observe import Observer
from tests.flow.memnet import World
from tests.relay.test_relay import DB, world

ROUNDS = 7


def best(times: int, run: Callable[[], Any]) -> float:
    found = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(times):
            run()
        found = min(found, (time.process_time() - start) / times * 1e6)
    return found


def counted() -> World:
    made = world()
    observer = Observer(Workload(workload="book", namespace="default"))
    made.corridor.observer = observer
    for gate in made.gate.chains.values():
        gate.corridor.observer = observer
    return made


def main() -> None:
    made = counted()
    client = made.intercepted(DB)
    server = made.accept()
    small, large = b"x" * 100, b"x" * 65536

    def echo() -> None:
        client.deliver(small)
        server.deliver(server.take())
        client.take()

    def chunk() -> None:
        client.deliver(large)
        server.take()

    def connection() -> None:
        one = made.intercepted(DB)
        other = made.accept()
        one.deliver(small)
        other.deliver(other.take())
        one.take()
        one.deliver_eof()
        other.deliver_eof()
        other.lose()
        one.lose()

    print(f"echo: {best(20_000, echo):.2f} us")
    print(f"chunk: {best(20_000, chunk):.2f} us")
    print(f"connection: {best(3_000, connection):.1f} us")


if __name__ == "__main__":
    main()
