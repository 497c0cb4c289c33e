"""Keeps the stream to control open (room ``agent``, loud): pushes in, acks and answers out.

In: an ``AgentConfig`` and two callbacks. ``apply(push) -> Ack`` judges a push and runs it (``state.receive`` makes one);
``answer(query) -> Answer`` answers a question. Out: ``Agent.run()``, which ends only by ``stop()`` or cancellation, and
``Agent.status`` for the admin pages. Assumes one loop; callbacks are called on it and do not block.

Whatever happens to control, nothing here raises into the proxy: the last good configuration goes on, and the agent comes back
with jittered exponential backoff (0.1 s to 5 s, at most 0.5 s in the first ten seconds). A stream on which nothing came for
``dead_after`` seconds is dead. The token file is read anew for every connection, so that a rotated token is picked up.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import msgspec

from meshproxy.agent.backoff import Backoff
from meshproxy.agent.http import Connection, ControlProblem, Target, read_token
from meshproxy.agent.lines import LineBuffer, LineTooLong
from meshproxy.agent.tasks import spawn
from meshproxy.model.base import encode
from meshproxy.model.delivery import Ack, Answer, FromControl, Hello, Nack, Push, Query

__all__ = ["Agent", "AgentConfig", "AgentStatus"]

log = logging.getLogger("meshproxy.agent")
_decoder = msgspec.json.Decoder(FromControl)
MAX_QUERIES = 16  # answered at the same time
REPORT_TIME = 4.0  # seconds that a report may take; acks wait for it no longer
MAX_WAITING = 256  # that wait for their turn; what is asked beyond them is not answered


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """Where control is and who we are. Times in seconds, ``max_line`` in bytes."""

    control: str
    ca_file: Path
    token_file: Path
    namespace: str
    pod: str
    connect_timeout: float = 10.0
    dead_after: float = 20.0
    healthy_after: float = 10.0  # a stream that lived this long resets the backoff
    backoff_first: float = 0.1
    backoff_most: float = 5.0
    max_line: int = 64 << 20


@dataclass(slots=True)
class AgentStatus:
    """What the admin pages show. ``since`` is loop time."""

    connected: bool = False
    since: float = 0.0
    control: str = ""  # as control calls itself
    connects: int = 0
    failures: int = 0
    pushes: int = 0
    rejected: int = 0
    last_error: str = ""


class Agent:
    def __init__(
        self,
        config: AgentConfig,
        apply: Callable[[Push], Ack],
        answer: Callable[[Query], Answer | Awaitable[Answer]],
        have: Callable[[], str] = lambda: "",
        draw: Callable[[], float] = random.random,
        roots: Callable[[], Sequence[str]] = lambda: (),
    ) -> None:
        """``have()`` is the snapshot version that the proxy runs; ``draw()`` is uniform in [0, 1); ``roots()`` are the mesh's,
        under which control's certificate may stand too. Raises ``ValueError``.
        """
        self._config = config
        self._target = Target.parse(config.control, config.ca_file)
        self._apply = apply
        self._answer = answer
        self._have = have
        self._roots = roots
        self._backoff = Backoff(draw, config.backoff_first, config.backoff_most)
        self._poster: Connection | None = None
        self._posting = asyncio.Lock()
        self._queries = asyncio.Semaphore(MAX_QUERIES)
        self._replies: set[asyncio.Task[None]] = set()  # of this stream: nobody waits for answers to an earlier one
        self._stopping = asyncio.Event()
        self.status = AgentStatus()

    def stop(self) -> None:
        """Let ``run`` end soon."""
        self._stopping.set()

    async def run(self) -> None:
        """Hold a stream to control until ``stop``."""
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            stream = spawn(self._stream(), "agent-stream")
            stopping = spawn(self._stopping.wait(), "agent-stop")
            try:
                await asyncio.wait({stream, stopping}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                ending = (stream, stopping, *self._replies)
                for task in ending:
                    task.cancel()
                await asyncio.gather(*ending, return_exceptions=True)
                await self._drop_poster()
            lived = loop.time() - self.status.since if self.status.connected else 0.0
            self.status.connected = False
            if self._stopping.is_set():
                return
            if lived >= self._config.healthy_after:
                self._backoff.reset()
            delay = self._backoff.next()
            log.warning("control: %s; next try in %.2f s", self.status.last_error, delay)
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()

    async def _stream(self) -> None:
        """One stream from first to last line; what ended it is in ``status.last_error``."""
        connection: Connection | None = None
        try:
            token = read_token(self._config.token_file)
            connection = await Connection.open(self._target, self._config.connect_timeout, self._roots())
            await self._lines(connection, token)
            self.status.last_error = f"{self._target.authority}: control ended the stream"
        except ControlProblem as problem:
            self.status.failures += 1
            self.status.last_error = str(problem)
        except Exception as error:
            self.status.failures += 1
            self.status.last_error = f"the agent failed: {type(error).__name__}"
            log.exception("the agent failed; it starts again")
        finally:
            if connection is not None:
                await connection.close()

    async def _lines(self, connection: Connection, token: str) -> None:
        config = self._config
        query = urlencode({"have": self._have(), "pod": f"{config.namespace}/{config.pod}"})
        buffer = LineBuffer(config.max_line)
        async with aclosing(connection.stream(f"/mesh/v1/config?{query}", token)) as pieces:
            while True:
                try:
                    async with asyncio.timeout(config.dead_after):
                        piece = await anext(pieces, None)
                except TimeoutError:
                    raise ControlProblem(f"{self._target.authority}: silent for {config.dead_after:g} s") from None
                if piece is None:
                    return
                try:
                    lines = buffer.feed(piece)
                except LineTooLong as error:
                    raise ControlProblem(f"{self._target.authority}: sent {error}") from error
                for line in lines:
                    if line:
                        await self._take(line, token)

    async def _take(self, line: bytes, token: str) -> None:
        try:
            message = _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            # Nothing says which nonce this was, so it cannot be refused: a new stream brings the state again.
            raise ControlProblem(f"{self._target.authority}: sent a line that this proxy does not understand: {error}") from error
        if not self.status.connected:
            self.status.connected = True
            self.status.connects += 1
            self.status.since = asyncio.get_running_loop().time()
            self.status.last_error = ""
        if isinstance(message, Push):
            ack = self._applied(message)
            self.status.pushes += 1
            self.status.rejected += bool(ack.nacks)
            for nack in ack.nacks[:5]:
                log.warning("configuration refused: %s %s: %s", nack.kind, nack.name, nack.error)
            await self._post("/mesh/v1/config/ack", token, encode(ack))
        elif isinstance(message, Query):
            if len(self._replies) < MAX_WAITING:
                reply = spawn(self._reply(message, token), f"agent-query-{message.verb[:40]}")
                self._replies.add(reply)
                reply.add_done_callback(self._replies.discard)
        elif isinstance(message, Hello):
            self.status.control = message.control

    def _applied(self, push: Push) -> Ack:
        try:
            return self._apply(push)
        except Exception as error:  # a bug in compiling a push: refuse it, keep what runs, keep the stream
            log.exception("push %s failed", push.nonce)
            nack = Nack(kind="push", name="", error=f"failed in the proxy: {type(error).__name__}")
            return Ack(nonce=push.nonce, version=self._have(), nacks=(nack,))

    async def _reply(self, query: Query, token: str) -> None:
        async with self._queries:
            try:
                result = self._answer(query)
                answer = await result if inspect.isawaitable(result) else result
            except Exception as error:  # a bug in an answer must not cost the stream
                log.exception("query %s failed", query.verb)
                answer = Answer(id=query.id, ok=False, error=f"{query.verb}: failed in the proxy: {type(error).__name__}")
            try:
                await self._post("/mesh/v1/config/answer", token, encode(answer))
            except ControlProblem as problem:
                log.warning("query %s: the answer was not delivered: %s", query.verb, problem)

    async def report(self, body: bytes) -> bool:
        """Send one report (``model.delivery.Report``) to control; False: it did not arrive, and need not be sent again."""
        return await self._told("/mesh/v1/config/report", body) == 204

    async def tapped(self, body: bytes) -> int:
        """Send what a tap was told (``model.tap.TapBatch``); the status of control's answer, 0 for none."""
        return await self._told("/mesh/v1/config/tap", body)

    async def _told(self, path: str, body: bytes) -> int:
        if not self.status.connected:
            return 0
        try:
            async with asyncio.timeout(REPORT_TIME):
                await self._post(path, read_token(self._config.token_file), body)
        except TimeoutError:
            return 0
        except ControlProblem as problem:
            log.debug("%s was not delivered: %s", path, problem)
            return problem.status
        return 204

    async def _post(self, path: str, token: str, body: bytes) -> None:
        """POST on the second connection, opened when needed. A connection that control closed while idle is tried anew once."""
        async with self._posting:
            for last in (False, True):
                reused = self._poster is not None and self._poster.idle
                try:
                    async with asyncio.timeout(self._config.connect_timeout * 2):
                        if not reused:
                            await self._drop_poster()
                            self._poster = await Connection.open(self._target, self._config.connect_timeout, self._roots())
                        assert self._poster is not None
                        await self._poster.request("POST", path, token, body)
                        return
                except TimeoutError:
                    await self._drop_poster()
                    raise ControlProblem(f"{self._target.authority}: did not take an answer in time") from None
                except ControlProblem as problem:
                    await self._drop_poster()
                    if last or not reused or problem.status:
                        raise
                except BaseException:  # cancelled half-way: the connection is not at a message boundary
                    await self._drop_poster()
                    raise

    async def _drop_poster(self) -> None:
        poster, self._poster = self._poster, None
        if poster is not None:
            await poster.close()
