"""The sidecars' side of the API (room ``serve``): the configuration stream, and the posts that answer it.

In: ASGI requests that the door has let in. Out: routes ``GET /mesh/v1/config`` (one ``delivery.FromControl`` per line for as long
as the sidecar stays), ``POST …/ack`` and ``POST …/answer``. Backpressure is the transport's: nothing is made before it can be
written. A stream ends when the sidecar goes, a newer one comes, its token expires, an answer is overdue, or control stops.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from control.serve.auth import proxy_of_request
from control.serve.hub import Hub
from control.serve.kube.status import ApiError, bad_request, method_not_allowed, too_large
from control.serve.session import Session
from control.tasks import cancel, spawn
from meshproxy.model.delivery import Ack, Answer, Nack

__all__ = ["StreamSettings", "read_body", "routes"]

log = logging.getLogger("mesh.control")
MAX_ACK = 4 << 20
MAX_ANSWER = 64 << 20
MAX_NACKS = 100
MAX_TEXT = 1000  # characters of one name or reason
T = TypeVar("T")


class StreamSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds. ``control`` is the name that control gives itself in its greeting."""

    control: str = "mesh-control"
    beat: float = 5.0
    write_patience: float = 30.0
    ack_patience: float = 60.0


def routes(hub: Hub, settings: StreamSettings, clock: Callable[[], float] = time.monotonic) -> list[Route]:
    """The routes for sidecars."""

    async def ack(request: Request) -> Response:
        proxy = proxy_of_request(request)
        message = _presentable(_decode(await read_body(request, MAX_ACK), Ack))
        session = hub.session(proxy.namespace, proxy.pod)
        if session is None:
            raise ApiError(409, "Conflict", f"sidecar {proxy.name} has no stream: open one before answering it")
        outcome = session.answered(message, clock())
        if outcome == "refused":
            first = session.plan.nacks[0]
            log.warning("%s refused its configuration: %s %s: %s", proxy.name, first.kind, first.name, first.error)
        return Response(status_code=204)

    async def answer(request: Request) -> Response:
        proxy = proxy_of_request(request)
        if not hub.answered(proxy, _decode(await read_body(request, MAX_ANSWER), Answer)):
            raise ApiError(410, "Gone", "nobody waits for this answer any more")
        return Response(status_code=204)

    return [
        Route("/mesh/v1/config", _Stream(hub, settings, clock), methods=["GET"]),
        Route("/mesh/v1/config/ack", ack, methods=["POST"]),
        Route("/mesh/v1/config/answer", answer, methods=["POST"]),
    ]


class _Stream:
    """The long response, as a plain ASGI application: it must see the disconnect while it writes nothing."""

    def __init__(self, hub: Hub, settings: StreamSettings, clock: Callable[[], float]) -> None:
        self._hub = hub
        self._settings = settings
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method != "GET":  # the router would let HEAD in
            raise method_not_allowed()
        proxy = proxy_of_request(request)
        session = self._hub.connect(proxy, request.query_params.get("have", "")[:64])
        watcher = spawn(_watch(receive, session), "stream-disconnect")
        try:
            headers = [(b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._write(session, send)
            if session.closing:
                log.info("stream of %s ended: %s", proxy.name, session.closing)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (TimeoutError, ClientDisconnect, OSError):
            log.info("stream of %s ended: it does not read", proxy.name)
        finally:
            self._hub.disconnect(session)
            await cancel(watcher)

    async def _write(self, session: Session, send: Send) -> None:
        settings, clock = self._settings, self._clock
        left = session.proxy.expires - time.time()
        expires = clock() + left
        await self._piece(send, session.hello(settings.control))
        beat = clock() + settings.beat
        while not session.closing:
            session.wake.clear()
            for piece in session.outgoing(clock()):
                await self._piece(send, piece)
                if session.closing:
                    return
            now = clock()
            if now >= beat:
                await self._piece(send, session.hello(settings.control))
                beat = now + settings.beat
            if now >= expires:
                session.close("its token has expired")
            elif session.plan.overdue(now, settings.ack_patience):
                session.close(f"it did not answer a push within {settings.ack_patience:g} s")
            if not session.wake.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, min(beat, expires) - now)):
                        await session.wake.wait()

    async def _piece(self, send: Send, piece: bytes) -> None:
        async with asyncio.timeout(self._settings.write_patience):
            await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _watch(receive: Receive, session: Session) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    session.close("the sidecar went away")


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body; raises the 413 Status when it is longer than ``limit`` bytes."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise too_large(limit)
        parts.append(part)
    return b"".join(parts)


def _presentable(ack: Ack) -> Ack:
    """What a sidecar says is kept, logged and shown on terminals: so much, each text one line without control bytes."""
    nacks = tuple(Nack(kind=nack.kind, name=_one_line(nack.name), error=_one_line(nack.error)) for nack in ack.nacks[:MAX_NACKS])
    return Ack(nonce=ack.nonce, version=_one_line(ack.version), nacks=nacks)


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text[:MAX_TEXT])


def _decode(body: bytes, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"the body is not {type_.__name__}: {error}") from error
