"""A worker process of ``--concurrency N``: a data path and an observer, told what to do over one socket. Loud.

In: ``python -m meshproxy.worker FD ARGV...``; JSON lines on the socket (see ``workers.py``). Out: traffic. SIGTERM drains;
the parent's end of the socket closing does too, so that a worker never outlives its parent.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

import msgspec

from meshproxy.agent.state import State, receive
from meshproxy.agent.tasks import spawn
from meshproxy.bootstrap import Bootstrap, read
from meshproxy.ending import Plan, plan_of
from meshproxy.model.base import encode
from meshproxy.model.delivery import Push
from meshproxy.model.tap import TapOrder
from meshproxy.tls.identity import Identity
from meshproxy.traffic import Local

__all__ = ["main"]

log = logging.getLogger("meshproxy.worker")


class _Message(msgspec.Struct):
    op: str
    id: int = 0
    what: str = ""
    push: Push | None = None
    identity: Identity | None = None
    tap: TapOrder | None = None
    plan: Plan | None = None


class _Worker:
    def __init__(self, bootstrap: Bootstrap) -> None:
        self.bootstrap = bootstrap
        self.local = Local(bootstrap)
        self.state = State()
        self.stopping = asyncio.Event()
        self.plan = plan_of(bootstrap)
        self.stale = False  # a change was refused: what builds on it cannot be taken

    async def run(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        for number in (signal.SIGHUP, signal.SIGUSR1):  # to open files again is the parent's affair
            signal.signal(number, signal.SIG_IGN)
        reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 26)
        hearing = spawn(self._hear(reader, writer), "parent")
        await self.stopping.wait()
        await self.local.drain(self.plan)
        hearing.cancel()
        await self._last_words(writer)
        await self.local.aclose()
        writer.close()

    async def _last_words(self, writer: asyncio.StreamWriter) -> None:
        """What was counted since the parent last asked, for it cannot ask any more."""
        if writer.is_closing():
            return
        with suppress(OSError):
            writer.write(encode({"op": "last", "deltas": {"edges": (await self.local.deltas()).edges}}) + b"\n")
            writer.transport.set_write_buffer_limits(0)  # so that it waits for all of it
            await writer.drain()

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._obey(reader, writer)
        except OSError:  # killed with words of ours unread
            pass
        finally:
            self.stopping.set()

    def _push(self, push: Push) -> dict[str, Any]:
        """Take a change, or everything."""
        told = {"op": "installed", "version": self.state.version, "problem": "", "stale": False}
        if self.stale and not push.full:
            return {**told, "stale": True}
        try:
            ack = receive(self.state, push, self.local.install)
        except Exception:
            log.exception("bug in taking a configuration")
            self.stale = True
            return {**told, "problem": "internal error; see the log"}
        self.stale = bool(ack.nacks)
        problem = f"{ack.nacks[0].kind} {ack.nacks[0].name}: {ack.nacks[0].error}" if ack.nacks else ""
        return {**told, "version": ack.version, "problem": problem}

    def _identify(self, identity: Identity) -> None:
        try:
            self.local.identify(identity)
        except Exception:  # the parent looked at it; the one at hand stays
            log.exception("bug in taking an identity")

    def _tap(self, order: TapOrder) -> None:
        try:
            self.local.tap(order)
        except Exception:  # the parent has judged it
            log.exception("bug in opening a tap")

    async def _obey(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = msgspec.json.Decoder(_Message)
        while line := await reader.readline():
            message = decoder.decode(line)
            answer: dict[str, Any]
            if message.op == "push" and message.push is not None:
                answer = self._push(message.push)
            elif message.op == "identify" and message.identity is not None:
                self._identify(message.identity)
                continue
            elif message.op == "tap" and message.tap is not None:
                self._tap(message.tap)
                continue
            elif message.op == "untap":
                self.local.untap(message.what)
                continue
            elif message.op == "reopen":
                self.local.reopen_logs()
                continue
            elif message.op == "end" and message.plan is not None:
                self.plan = message.plan
                self.local.hurry(message.plan)
                continue
            elif message.op == "drain":
                self.local.drain_soon()
                continue
            else:
                local = self.local
                asked = {
                    "families": local.families,
                    "deltas": local.deltas,
                    "clusters": local.clusters,
                    "listeners": local.listeners,
                    "callers": local.callers,
                    "tapped": local.tapped,
                    "failures": local.failures,
                }
                answer = {"op": "answer", "id": message.id, "result": await asked[message.what]()}
            writer.write(encode(answer) + b"\n")


def main() -> None:
    """Run as a child of ``meshproxy``."""
    import uvloop

    sock = socket.socket(fileno=int(sys.argv[1]))
    bootstrap = read(sys.argv[2:])
    gc.set_threshold(20_000, 50, 50)
    logging.basicConfig(level=bootstrap.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s[%(process)d]: %(message)s")

    async def run() -> None:
        await _Worker(bootstrap).run(sock)

    uvloop.run(run())


if __name__ == "__main__":
    main()
