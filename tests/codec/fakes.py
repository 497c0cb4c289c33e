"""Recording ends for the codec: a wire, a request sink that answers, a response sink; and ways to cut bytes into reads."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from meshproxy.codec.h1 import ClientCodec, H1Limits, ServerCodec
from meshproxy.message.head import Headers, RequestHead, ResponseHead
from meshproxy.message.reason import Reason

Answer = Callable[["Request"], None]

OK = [(b"content-length", b"2")]


class WireLog:
    """Bytes written, and the other calls in order. Writing after the end is a mistake of the codec's."""

    def __init__(self) -> None:
        self.out = b""
        self.writes = 0
        self.calls: list[str] = []

    def write(self, data: bytes) -> None:
        assert not {"close", "abort", "write_eof"} & set(self.calls), f"write after {self.calls}"
        assert isinstance(data, bytes)
        assert data, "an empty write"
        self.out += data
        self.writes += 1

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def write_eof(self) -> None:
        self.calls.append("write_eof")

    def take(self) -> bytes:
        out, self.out = self.out, b""
        return out


def ok(request: Request) -> None:
    """Answer when the request is complete."""
    if request.ended:
        request.respond()
    elif request.error is not None:
        request.respond(request.error.status)


def never(request: Request) -> None:
    """Answer by hand."""


def at_once(request: Request) -> None:
    """Answer as soon as the head is there."""
    if request.trace[-1][0] == "head":
        request.respond(403)


class Request:
    """A request sink that records and asks ``answer`` after every call."""

    def __init__(self, codec: ServerCodec, answer: Answer = ok) -> None:
        self.codec = codec
        self.answer = answer
        self.trace: list[tuple[Any, ...]] = []
        self.head: RequestHead | None = None
        self.body = b""
        self.ended = False
        self.error: Reason | None = None
        self.gone = False

    def on_request_head(self, head: RequestHead, end: bool, now: float) -> None:
        assert self.head is None
        self.head = head
        self.trace.append(("head", show(head)))
        self._after(end)

    def on_request_data(self, data: bytes, end: bool, now: float) -> None:
        assert not self.ended or self.codec._mode != 0
        assert isinstance(data, bytes)
        self.body += data
        if self.trace[-1][0] == "data":
            self.trace[-1] = ("data", self.trace[-1][1] + data)
        else:
            self.trace.append(("data", data))
        self._after(end)

    def on_request_end(self, trailers: Headers, now: float) -> None:
        self._after(True, trailers)

    def on_request_error(self, reason: Reason, now: float) -> None:
        assert self.error is None
        self.error = reason
        self.trace.append(("error", reason))
        self.answer(self)

    def on_downstream_closed(self, now: float) -> None:
        assert not self.gone
        self.gone = True
        self.trace.append(("gone",))

    def _after(self, end: bool, trailers: Headers | None = None) -> None:
        if end:
            self.ended = True
            self.trace.append(("end", trailers or []))
        self.answer(self)

    def respond(self, status: int = 200, body: bytes = b"ok") -> None:
        head = ResponseHead(status, [(b"content-length", b"%d" % len(body))], len(body))
        self.codec.send_head(head, False)
        self.codec.send_data(body, True)


class Server:
    """A server codec with its recording ends."""

    def __init__(self, answer: Answer = ok, limits: H1Limits | None = None, **options: Any) -> None:
        self.wire = WireLog()
        self.requests: list[Request] = []
        self.refused: list[tuple[Reason, str]] = []
        self.answer = answer
        self.codec = ServerCodec(
            self.wire,
            self._open,
            limits=limits or H1Limits(),
            on_refused=lambda reason, detail, now: self.refused.append((reason, detail)),
            **options,
        )

    def _open(self, codec: ServerCodec) -> Request:
        request = Request(codec, self.answer)
        self.requests.append(request)
        return request

    @property
    def last(self) -> Request:
        return self.requests[-1]

    def feed(self, *reads: bytes) -> Server:
        for read in reads:
            self.codec.feed(read, 1.0)
        return self

    def outcome(self) -> tuple[Any, ...]:
        """Everything seen from outside, with data merged."""
        return [r.trace for r in self.requests], [reason for reason, _ in self.refused], self.wire.out, self.wire.calls


class Response:
    """A response sink that records."""

    def __init__(self) -> None:
        self.informational: list[tuple[int, Headers]] = []
        self.head: ResponseHead | None = None
        self.body = b""
        self.objects: list[bytes] = []
        self.trailers: Headers = []
        self.ended = False
        self.failed: Reason | None = None
        self.on_head: Callable[[ResponseHead], None] = lambda head: None

    def on_informational(self, status: int, headers: Headers, now: float) -> None:
        assert self.head is None
        self.informational.append((status, headers))

    def on_response_head(self, head: ResponseHead, end: bool, now: float) -> None:
        assert self.head is None
        assert self.failed is None
        self.head = head
        self.ended = end
        self.on_head(head)

    def on_response_data(self, data: bytes, end: bool, now: float) -> None:
        assert self.head is not None
        assert not self.ended
        assert self.failed is None
        assert isinstance(data, bytes)
        self.body += data
        self.objects.append(data)
        self.ended = end

    def on_response_end(self, trailers: Headers, now: float) -> None:
        assert not self.ended
        self.trailers = trailers
        self.ended = True

    def on_response_flush(self, now: float) -> None: ...

    def on_upstream_failed(self, reason: Reason, now: float) -> None:
        assert self.failed is None
        assert not self.ended
        self.failed = reason

    def outcome(self) -> tuple[Any, ...]:
        head = None if self.head is None else show(self.head)
        return self.informational, head, self.body, self.trailers, self.ended, self.failed


class Client:
    """A client codec with its recording ends, its request sent."""

    def __init__(self, request: RequestHead | None = None, end: bool = True, limits: H1Limits | None = None) -> None:
        self.wire = WireLog()
        self.codec = ClientCodec(self.wire, limits=limits or H1Limits())
        self.response = Response()
        self.again(request or get(), end)

    def again(self, request: RequestHead, end: bool = True) -> Response:
        self.response = Response()
        self.codec.start(self.response, request.method)
        self.codec.send_head(request, end)
        return self.response

    def feed(self, *reads: bytes) -> Client:
        for read in reads:
            self.codec.feed(read, 1.0)
        return self

    def outcome(self) -> tuple[Any, ...]:
        return self.response.outcome(), self.codec.reusable, list(self.wire.calls)


def get(path: bytes = b"/", method: bytes = b"GET") -> RequestHead:
    return RequestHead(method, path, b"reviews:9080", [(b"accept", b"*/*")])


def show(head: RequestHead | ResponseHead) -> dict[str, Any]:
    """Every field of a head, comparable; ``size`` and ``token`` are others' to set."""
    return {name: getattr(head, name) for name in head.__slots__ if name not in ("size", "token")}


def cuts(data: bytes, seed: int = 0) -> Iterator[list[bytes]]:
    """The ways to hand over the same bytes: whole, one by one, and in random pieces."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    dice = random.Random(seed)
    for _ in range(3):
        pieces, at = [], 0
        while at < len(data):
            step = dice.choice((1, 2, 3, 7, 20, 100))
            pieces.append(data[at : at + step])
            at += step
        yield pieces
