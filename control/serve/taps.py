"""Taps (room ``serve``): people watch the requests of sidecars as they end.

In: ``POST /mesh/v1/taps`` of a person (``TapRequest``), ``POST /mesh/v1/config/tap`` of sidecars (``model.tap.TapBatch``). Out:
one JSON document per line to the person, for as long as he stays: ``opened``, then ``event`` (with ``pod``), ``left`` (how many
were left out, by why), ``ended`` (a pod, and why), ``beat``, at last ``done``. A sidecar's batch is answered 410 once nobody
watches: that ends its tap. Nothing waits for a slow reader: what he does not take is counted, and after a while he is let go.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, Gauge
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from control.identity import Person, ProxyIdentity
from control.serve.auth import caller_of, proxy_of_request
from control.serve.hub import Hub, NotAnswered
from control.serve.kube.status import ApiError, bad_request, method_not_allowed
from control.serve.session import Session
from control.serve.stream import read_body
from control.tasks import cancel, spawn
from meshproxy.model.tap import MOST_SECONDS, TapBatch, TapFilter, TapOrder

__all__ = ["TapRequest", "Taps"]

log = logging.getLogger("mesh.control")
MOST_WATCHES = 32
MOST_PODS = 500
MAX_REQUEST = 1 << 16
MAX_BATCH = 64 << 20
ASK_TIMEOUT = 5.0
SILENT = 10.0  # seconds without a word after which a sidecar's tap is taken for ended
BEAT = 5.0
PATIENCE = 30.0  # seconds that a reader may take over one piece
WAITING = 4000  # events that wait for a reader
WAITING_BYTES = 8 << 20
PIECE = 64 << 10
ALL_TOLD = "as many as were asked for"  # the sidecar's words too
TIME_OVER = "its time is over"


class TapRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``pods``: NAMESPACE/NAME each. ``seconds``, ``most``, ``rate``: as in ``TapOrder``. ``headers``: values too; admins."""

    pods: tuple[str, ...]
    filter: TapFilter = TapFilter()
    seconds: float = 600.0
    most: int = 0
    rate: int = 200
    headers: bool = False


class _Watched:
    """One sidecar of one watch. ``ended``: why nothing more comes from there."""

    __slots__ = ("ended", "heard", "pod", "session", "watch")

    def __init__(self, watch: _Watch, pod: str, session: Session, now: float) -> None:
        self.watch = watch
        self.pod = pod
        self.session = session
        self.heard = now
        self.ended = ""


class _Watch:
    """What waits for one reader. ``done``: why it is over."""

    def __init__(self, most: int) -> None:
        self.watched: dict[str, _Watched] = {}  # by the id of the order
        self.wake = asyncio.Event()
        self.done = ""
        self.left = {"rate": 0, "sidecar": 0, "reader": 0}
        self._most = most
        self._told = 0
        self._lines: deque[bytes] = deque()
        self._size = 0

    def take(self, one: _Watched, batch: TapBatch) -> None:
        """A sidecar's news."""
        for event in batch.events:
            if self.done:
                return
            if len(self._lines) >= WAITING or self._size >= WAITING_BYTES:
                self.left["reader"] += 1
                continue
            self._line(pod=one.pod, event=event)
            self._told += 1
            if self._told == self._most:
                self.end(ALL_TOLD)
        self.left["rate"] += batch.over
        self.left["sidecar"] += batch.slow
        if batch.ended:
            self.over(one, batch.ended)
        self.wake.set()

    def over(self, one: _Watched, why: str) -> None:
        """Nothing more comes from this sidecar."""
        if one.ended or self.done:
            return
        one.ended = why
        if why not in (TIME_OVER, ALL_TOLD):
            self._line(ended=one.pod, why=why)
        if all(each.ended for each in self.watched.values()):
            reasons = {each.ended for each in self.watched.values()}
            self.end(reasons.pop() if len(reasons) == 1 else "no sidecar is left to watch")
        self.wake.set()

    def end(self, why: str) -> None:
        self.done = self.done or why
        self.wake.set()

    def say(self, **what: Any) -> None:
        self._line(**what)

    def _line(self, **what: Any) -> None:
        line = msgspec.json.encode(what) + b"\n"
        self._lines.append(line)
        self._size += len(line)

    def piece(self) -> bytes:
        """What may be written next; empty: nothing waits."""
        parts, size = [], 0
        while self._lines and size < PIECE:
            line = self._lines.popleft()
            size += len(line)
            parts.append(line)
        self._size -= size
        return b"".join(parts)


class Taps:
    """``clock``: the steady clock."""

    def __init__(self, hub: Hub, registry: CollectorRegistry, clock: Callable[[], float] = time.monotonic) -> None:
        self._hub = hub
        self._clock = clock
        self._watches: set[_Watch] = set()
        self._orders: dict[str, _Watched] = {}
        self._closed = False
        gauge = Gauge("mesh_taps", "People who watch requests with `meshctl tap`.", registry=registry)
        gauge.set_function(lambda: len(self._watches))
        hub.parted = self._parted

    def routes(self) -> list[Route]:
        return [
            Route("/mesh/v1/taps", _Watching(self), methods=["POST"]),
            Route("/mesh/v1/config/tap", self._batch, methods=["POST"]),
        ]

    def close(self) -> None:
        """Control stops: tell everybody."""
        self._closed = True
        for watch in self._watches:
            watch.end("control is stopping")

    async def _batch(self, request: Request) -> Response:
        proxy = proxy_of_request(request)
        try:
            batch = msgspec.json.decode(await read_body(request, MAX_BATCH), type=TapBatch)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise bad_request(f"the body is not TapBatch: {error}") from error
        one = self._orders.get(batch.id)
        if one is None or one.pod != proxy.name or one.ended or one.watch.done:
            raise ApiError(410, "Gone", "nobody watches here any more")
        one.heard = self._clock()
        one.watch.take(one, batch)
        return Response(status_code=204)

    def _parted(self, session: Session) -> None:
        """A sidecar's stream is over, and with it what was asked over it."""
        for one in list(self._orders.values()):
            if one.session is session:
                one.watch.over(one, "its connection to control ended")

    def silent(self, watch: _Watch) -> None:
        """End what has not been heard of for long."""
        for one in watch.watched.values():
            if not one.ended and self._clock() - one.heard > SILENT:
                watch.over(one, f"nothing was heard of it for {SILENT:g} s")

    async def open(self, caller: Person, asked: TapRequest) -> _Watch:
        """Ask all the pods. Raises ``ApiError`` when none can be watched."""
        if asked.headers and caller.role != "admin":
            message = f"forbidden: only admin may see values of headers: {caller.name}'s token has the role {caller.role}"
            raise ApiError(403, "Forbidden", message)
        if not 0 < asked.seconds <= MOST_SECONDS:
            raise bad_request(f"seconds: must be more than 0 and at most {MOST_SECONDS:g}, not {asked.seconds:g}")
        pods = list(dict.fromkeys(asked.pods))
        if not pods or len(pods) > MOST_PODS:
            raise bad_request(f"pods: must be 1 to {MOST_PODS}, not {len(pods)}")
        if bad := [pod for pod in pods if pod.count("/") != 1 or not all(pod.split("/"))]:
            raise bad_request(f"pods: must be NAMESPACE/NAME, not {bad[0][:60]!r}")
        if self._closed:
            raise ApiError(503, "ServiceUnavailable", "control is stopping")
        if len(self._watches) >= MOST_WATCHES:
            raise ApiError(429, "TooManyRequests", f"{MOST_WATCHES} taps are open already: end one of them first")
        watch = _Watch(asked.most)
        self._watches.add(watch)
        try:
            answers = await asyncio.gather(*(self._ask(watch, pod, asked) for pod in pods))
        except BaseException:
            self.end(watch)
            raise
        refused = {pod: no for pod, no in zip(pods, answers, strict=True) if no is not None}
        if len(refused) == len(pods):
            self.end(watch)
            raise next(iter(refused.values()))
        with_values = " with the values of headers" if asked.headers else ""
        opened = [pod for pod in pods if pod not in refused]
        log.info("%s (%s) taps %s%s", caller.name, caller.role, ", ".join(opened[:10]), with_values)
        watch.say(opened=opened)
        for pod, no in refused.items():
            watch.say(ended=pod, why=str(no))
        return watch

    async def _ask(self, watch: _Watch, pod: str, asked: TapRequest) -> ApiError | None:
        """Open one sidecar's tap; why it is not, or None."""
        namespace, _, name = pod.partition("/")
        session = self._hub.session(namespace, name)
        if session is None:
            return ApiError(404, "NotFound", f"sidecar {pod} is not connected: `meshctl proxy-status` lists those that are")
        id_ = secrets.token_hex(8)
        order = TapOrder(
            id=id_, filter=asked.filter, seconds=asked.seconds, most=asked.most, rate=asked.rate, values=asked.headers
        )
        one = self._orders[id_] = watch.watched[id_] = _Watched(
            watch, pod, session, self._clock()
        )  # it may tell before it answers
        try:
            answer = await self._hub.ask(namespace, name, "tap", msgspec.to_builtins(order), ASK_TIMEOUT)
        except NotAnswered as error:
            why = ApiError(504 if error.connected else 404, "Timeout" if error.connected else "NotFound", str(error))
        else:
            if answer.ok:
                return None
            why = ApiError(422, "Invalid", f"sidecar {pod}: {answer.error}")
        one.ended = str(why)
        del self._orders[id_], watch.watched[id_]
        return why

    def end(self, watch: _Watch) -> None:
        """Nobody reads any more: sidecars are told, and those that do not hear it find out by their next batch."""
        watch.end("the reader went away")
        self._watches.discard(watch)
        for id_, one in watch.watched.items():
            self._orders.pop(id_, None)
            if not one.ended:
                spawn(self._untap(one.session.proxy, id_), "untap")

    async def _untap(self, proxy: ProxyIdentity, id_: str) -> None:
        with suppress(NotAnswered):
            await self._hub.ask(proxy.namespace, proxy.pod, "untap", {"id": id_}, ASK_TIMEOUT)


class _Watching:
    """The long answer, as a plain ASGI application: it must see the disconnect while it writes nothing."""

    def __init__(self, taps: Taps) -> None:
        self._taps = taps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method != "POST":
            raise method_not_allowed()
        caller = caller_of(scope)
        assert isinstance(caller, Person)  # the door keeps others out
        try:
            asked = msgspec.json.decode(await read_body(request, MAX_REQUEST), type=TapRequest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise bad_request(f"the body is not a tap: {error}") from error
        watch = await self._taps.open(caller, asked)
        watcher = spawn(_gone(receive, watch), "tap-disconnect")
        try:
            headers = [(b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._write(watch, send, asked.seconds)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (TimeoutError, ClientDisconnect, OSError):
            log.info("a tap of %s ended: it is not read", caller.name)
        finally:
            self._taps.end(watch)
            await cancel(watcher)

    async def _write(self, watch: _Watch, send: Send, seconds: float) -> None:
        clock = time.monotonic
        now = clock()
        deadline, beat, said = now + seconds + 2 * BEAT, now + BEAT, dict(watch.left)
        while True:
            watch.wake.clear()
            done = watch.done
            while piece := watch.piece():
                await _sent(send, piece)
            if watch.left != said:
                said = dict(watch.left)
                await _sent(send, msgspec.json.encode({"left": said}) + b"\n")
            if done:
                await _sent(send, msgspec.json.encode({"done": done, "left": watch.left}) + b"\n")
                return
            now = clock()
            if now >= deadline:
                watch.end(TIME_OVER)
            if now >= beat:
                beat = now + BEAT
                await _sent(send, b'{"beat":true}\n')
                self._taps.silent(watch)
            if not watch.wake.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, beat - now)):
                        await watch.wake.wait()


async def _sent(send: Send, piece: bytes) -> None:
    async with asyncio.timeout(PATIENCE):
        await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _gone(receive: Receive, watch: _Watch) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    watch.end("the reader went away")
