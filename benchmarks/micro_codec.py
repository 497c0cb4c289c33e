"""What the HTTP/1 codec costs per step, in microseconds of CPU, beside h11 doing the same.

python benchmarks/micro_codec.py [--json FILE]

The message is one proxied keep-alive GET inside a mesh: eight request headers of which two are new every time (x-request-id,
traceparent), seven response headers, 1 KiB of body. Steps: recognise the request, write it on, recognise the response, write
it on; then both machines as the proxy drives them (``feed`` to ``write``, without sockets). Each figure is the best of
several rounds, because everything that disturbs a round makes it slower.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import h11

from meshproxy.codec import h1_write
from meshproxy.codec.h1 import ClientCodec, ServerCodec
from meshproxy.codec.h1_head import recognise_request, recognise_response

VARIANTS = 64  # requests that differ in their ids
ROUNDS = 60
CALLS = 1024

BODY = b"x" * 1024
READ = b"x" * 65536
CHUNK = b"10000\r\n" + READ + b"\r\n"
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ndate: Sat, 01 Jan 2022 00:00:00 GMT\r\ncontent-type: application/json\r\n"
    b"content-length: 1024\r\ncache-control: no-cache\r\nvary: accept-encoding\r\nx-envoy-upstream-service-time: 3\r\n\r\n" + BODY
)


def request(i: int) -> bytes:
    return (
        b"GET /reviews/7 HTTP/1.1\r\nHost: reviews:9080\r\nUser-Agent: Mozilla/5.0 (pc-x86_64-linux-gnu) Siege/4.1.6\r\n"
        b"Accept: */*\r\nAccept-Encoding: gzip, deflate\r\nx-request-id: 3a7bd3e2-360a-4f4b-8c57-2d5bbaf2%04x\r\n"
        b"x-forwarded-proto: http\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80%04x-b7ad6b7169203331-01\r\n"
        b"Connection: keep-alive\r\n\r\n" % (i, i)
    )


REQUESTS = [request(i) for i in range(VARIANTS)]


class Wire:
    """Throws away; keeps the last write so that a test can look."""

    last = b""

    def write(self, data: bytes) -> None:
        self.last = data

    def close(self) -> None: ...
    def abort(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def write_eof(self) -> None: ...


class Relay:
    """The two machines joined, as short as an exchange can be."""

    def __init__(self) -> None:
        self.down, self.up = Wire(), Wire()
        self.client = ClientCodec(self.up)
        self.server = ServerCodec(self.down, lambda codec: self)  # type: ignore[arg-type,return-value]

    def on_request_head(self, head: Any, end: bool, now: float) -> None:
        self.client.start(self, head.method)  # type: ignore[arg-type]
        self.client.send_head(head, end)

    def on_response_head(self, head: Any, end: bool, now: float) -> None:
        self.server.send_head(head, end)

    def on_response_data(self, data: bytes, end: bool, now: float) -> None:
        self.server.send_data(data, end)

    def on_response_end(self, trailers: Any, now: float) -> None:
        self.server.send_trailers(trailers)


def micros(call: Callable[[int], object]) -> float:
    """Microseconds of CPU per call, the best of the rounds. The argument runs through the variants."""
    best = float("inf")
    order = [i % VARIANTS for i in range(CALLS)]
    for _ in range(ROUNDS):
        start = time.process_time()
        for i in order:
            call(i)
        best = min(best, time.process_time() - start)
    return best / CALLS * 1e6


def h11_request(i: int) -> None:
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(REQUESTS[i])
    parser.next_event()
    parser.next_event()


def h11_write_request(headers: list[tuple[bytes, bytes]]) -> Callable[[int], object]:
    def call(i: int) -> None:
        writer = h11.Connection(h11.CLIENT)
        writer.send(h11.Request(method=b"GET", target=b"/reviews/7", headers=headers))
        writer.send(h11.EndOfMessage())

    return call


def h11_response(i: int) -> None:
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method=b"GET", target=b"/", headers=[(b"host", b"a")]))
    parser.send(h11.EndOfMessage())
    parser.receive_data(RESPONSE)
    for _ in range(3):
        parser.next_event()


def h11_write_response(headers: list[tuple[bytes, bytes]]) -> Callable[[int], object]:
    def call(i: int) -> None:
        writer = h11.Connection(h11.SERVER)
        writer.receive_data(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        writer.next_event()
        writer.send(h11.Response(status_code=200, headers=headers, reason=b"OK"))
        writer.send(h11.Data(data=BODY))
        writer.send(h11.EndOfMessage())

    return call


def measure() -> dict[str, dict[str, float]]:
    """Step -> {"ours": us, "h11": us}."""
    empty = micros(lambda i: None)
    found = recognise_request(REQUESTS[0], 61440, 100)
    answer = recognise_response(RESPONSE, b"GET", 61440, 100)
    assert found is not None
    assert answer is not None
    head, response = found[0], answer[0]
    asked = [(b"host", head.authority), *head.headers]
    relay = Relay()

    def proxied(i: int) -> None:
        relay.server.feed(REQUESTS[i], 1.0)
        relay.client.feed(RESPONSE, 1.0)

    def chunked(i: int) -> None:
        relay.server.feed(REQUESTS[i], 1.0)
        relay.client.feed(coded, 1.0)

    def mebibyte(i: int) -> None:
        relay.server.feed(REQUESTS[i], 1.0)
        relay.client.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 1048576\r\n\r\n", 1.0)
        for _ in range(16):
            relay.client.feed(READ, 1.0)

    def mebibyte_coded(i: int) -> None:
        relay.server.feed(REQUESTS[i], 1.0)
        relay.client.feed(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", 1.0)
        for _ in range(16):
            relay.client.feed(CHUNK, 1.0)
        relay.client.feed(b"0\r\n\r\n", 1.0)

    coded = RESPONSE.replace(b"content-length: 1024", b"transfer-encoding: chunked")[: -len(BODY)]
    coded += b"400\r\n" + BODY + b"\r\n0\r\n\r\n"
    results = {
        "recognise request": (lambda i: recognise_request(REQUESTS[i], 61440, 100), h11_request),
        "write request": (lambda i: h1_write.request(head, False), h11_write_request(asked)),
        "recognise response": (lambda i: recognise_response(RESPONSE, b"GET", 61440, 100), h11_response),
        "write response": (
            lambda i: h1_write.fields(h1_write.status_line(200, b"OK"), response.headers, b"\r\n") + BODY,
            h11_write_response(response.headers),
        ),
        "one GET, both machines": (proxied, None),
        "one GET, chunked answer": (chunked, None),
        "1 MiB counted": (mebibyte, None),
        "1 MiB chunked": (mebibyte_coded, None),
    }
    table: dict[str, dict[str, float]] = {}
    for step, (ours, theirs) in results.items():
        table[step] = {"ours": round(micros(ours) - empty, 2)}
        if theirs is not None:
            table[step]["h11"] = round(micros(theirs) - empty, 1)
    assert relay.down.last.endswith(b"0\r\n\r\n")
    assert relay.up.last.startswith(b"GET /reviews/7 HTTP/1.1\r\nhost: reviews:9080\r\n")
    steps = [row for row in table.values() if "h11" in row]
    table["the four steps"] = {side: round(sum(row[side] for row in steps), 2) for side in ("ours", "h11")}
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU per step of the HTTP/1 codec, beside h11.")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    table = measure()
    print(f"{'step':<26}{'ours us':>10}{'h11 us':>10}")
    for step, row in table.items():
        print(f"{step:<26}{row['ours']:>10.2f}{row.get('h11', float('nan')):>10.1f}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(table, file, indent=1)


if __name__ == "__main__":
    main()
