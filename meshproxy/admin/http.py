"""Admin room: a small HTTP/1.1 server for people, probes and scrapers, on h11 and asyncio streams. Loud; cold.

In: routes, and which hosts are ours. Out: ``Site.open``/``aclose``. Sizes, times and the number of connections are bounded, so
that no caller can wear the sidecar down. What the routes may rely on: the method is one the route names, the Host is ours, and
a request that changes something did not come from a web page of another origin (DNS rebinding, cross-site forms).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import h11

from meshproxy.upstream.own import plain

__all__ = ["Request", "Response", "Route", "Site"]

log = logging.getLogger("meshproxy.admin")

MAX_HEAD = 16 * 1024  # bytes
MAX_BODY = 64 * 1024
MAX_CONNECTIONS = 64
IDLE = 60.0  # seconds a kept connection waits for its next request
HEAD_TIME = 10.0  # seconds for a request, from its first byte to its last
WRITE_TIME = 30.0  # seconds for a piece of the answer to be taken
HANDLER_TIME = 30.0
PASSED_ON = ("127.0.0.6", "::6")


_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Request:
    """``query``: of each parameter the last value. ``remote``: the caller's IP."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    remote: str


@dataclass(frozen=True, slots=True)
class Response:
    """``body``: bytes, or pieces that are sent one by one (chunked), with a turn of the loop in between."""

    status: int = 200
    body: bytes | Iterator[bytes] = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()
    after: Callable[[], object] | None = None  # called once the answer has been written

    @classmethod
    def text(cls, text: str, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Response:
        """One line, or more; the last one is ended."""
        return cls(status, (text if not text or text.endswith("\n") else text + "\n").encode(), headers=headers)


@dataclass(frozen=True, slots=True)
class Route:
    """``local``: only callers on this machine. ``changes``: POST only; else GET and HEAD. ``any_host``: probes come by whatever
    name they were given. ``patience``: seconds for the answer."""

    call: Callable[[Request], Awaitable[Response]]
    help: str = ""
    changes: bool = False
    local: bool = False
    methods: tuple[str, ...] = field(default=())  # overrides what ``changes`` implies
    any_host: bool = False
    patience: float = HANDLER_TIME

    @property
    def allowed(self) -> tuple[str, ...]:
        return self.methods or (("POST",) if self.changes else ("GET", "HEAD"))


class _Refuse(Exception):
    def __init__(self, status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(text)
        self.response = Response.text(text, status, (*headers, ("connection", "close")))


class Site:
    """Routes by path on one listening address, ``::``: on all of them, IPv4's too. ``hosts``: names and addresses that a Host
    header may have, besides ``localhost``; the address that a connection came in on is ours in any case.
    """

    def __init__(self, name: str, host: str, port: int, routes: Mapping[str, Route], hosts: Iterable[str] = ()) -> None:
        self.name = name
        self._host = host
        self._port = port
        self._routes = routes
        self._hosts = frozenset({"localhost", "127.0.0.1", "::1", *hosts})
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port that is listened on (chosen by the kernel when 0 was asked for); the wanted one while closed."""
        if self._server is None or not self._server.sockets:
            return self._port
        return int(self._server.sockets[0].getsockname()[1])

    async def open(self) -> None:
        """Listen. Raises ``OSError`` whose text names the address."""
        try:
            sock = _listening(self._host, self._port)
            self._server = await asyncio.start_server(self._accepted, sock=sock, limit=MAX_HEAD, backlog=128)
        except OSError as error:
            reason = os.strerror(error.errno).lower() if error.errno else str(error)
            raise OSError(error.errno, f"{self.name}: cannot listen on {self._host}:{self._port}: {reason}") from error

    async def aclose(self) -> None:
        """Stop listening and cut what is open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if len(self._tasks) <= MAX_CONNECTIONS:  # more: closed without a word, as a full backlog would be
                await self._serve(reader, writer)
        except (OSError, TimeoutError, h11.LocalProtocolError) as error:
            log.debug("%s: connection ended: %r", self.name, error)
        except asyncio.CancelledError:
            pass  # closing; nobody awaits this task but aclose
        except Exception:
            log.exception("bug in the admin pages")
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        machine = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        while True:
            head = await self._head(machine, reader)
            if head is None:
                return
            answered = Response.text("", 500)
            is_head = isinstance(head, h11.Request) and head.method == b"HEAD"
            try:
                if isinstance(head, _Refuse):
                    raise head
                if await self._body(machine, reader) > MAX_BODY:
                    raise _Refuse(413, f"a request body may have {MAX_BODY} bytes")
                answered = await self._answer(head, writer)
            except _Refuse as no:
                answered = no.response
            await self._write(machine, writer, answered, is_head)
            if answered.after is not None:
                answered.after()
            if machine.our_state is not h11.DONE or machine.their_state is not h11.DONE:
                return
            machine.start_next_cycle()

    async def _head(self, machine: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | _Refuse | None:
        """The next request's head; None when the caller is gone."""
        limit = IDLE
        while True:
            try:
                event = machine.next_event()
            except h11.RemoteProtocolError as error:
                return _Refuse(error.error_status_hint, f"not a good request: {error}")
            if isinstance(event, h11.Request):
                return event
            if event is not h11.NEED_DATA:
                return None
            async with asyncio.timeout(limit):
                data = await reader.read(4096)  # h11 minds its limit between reads: small ones keep to it closely
            limit = HEAD_TIME
            machine.receive_data(data)

    async def _body(self, machine: h11.Connection, reader: asyncio.StreamReader) -> int:
        """Read the request's body and throw it away: nothing here wants one. Its size, or more than is allowed."""
        size = 0
        async with asyncio.timeout(HEAD_TIME):
            while size <= MAX_BODY:
                try:
                    event = machine.next_event()
                except h11.RemoteProtocolError as error:
                    raise _Refuse(error.error_status_hint, f"not a good request: {error}") from None
                if isinstance(event, h11.Data):
                    size += len(event.data)
                elif event is h11.NEED_DATA:
                    if machine.they_are_waiting_for_100_continue:
                        raise _Refuse(417, "nothing here takes a body")
                    machine.receive_data(await reader.read(MAX_HEAD))
                else:
                    break
        return size

    async def _answer(self, head: h11.Request, writer: asyncio.StreamWriter) -> Response:
        """Check the request, then call its route."""
        try:
            parts = urlsplit(head.target.decode("latin-1"))
        except ValueError:
            raise _Refuse(400, "not a good request target") from None
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        remote = plain(str(writer.get_extra_info("peername")[0]))
        own = self._hosts | {plain(str(writer.get_extra_info("sockname")[0]))}
        route = self._routes.get(parts.path) or self._routes.get(parts.path.rstrip("/"))
        if (route is None or not route.any_host) and _bare_host(headers.get("host", "")) not in own:
            raise _Refuse(403, "the Host header names neither this proxy's address nor localhost")
        if route is None:
            raise _Refuse(404, f"no page {parts.path[:200]!r} here; there are: {' '.join(self._routes)}")
        method = head.method.decode("latin-1")
        if method not in route.allowed:
            hint = f": it changes something; curl -X POST ...{parts.path}" if route.changes else ""
            allow = ", ".join(route.allowed)
            raise _Refuse(405, f"{parts.path} takes {allow}{hint}", (("allow", allow),))
        if method == "POST" and _foreign(headers, own):
            raise _Refuse(403, "a web page of another origin may not change anything here")
        if route.local and not _is_local(remote, own):
            raise _Refuse(403, f"{parts.path} is only for callers on this machine")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        request = Request(method, parts.path, query, headers, remote)
        try:
            async with asyncio.timeout(route.patience):
                return await route.call(request)
        except TimeoutError:
            raise _Refuse(504, "no answer in time") from None
        except Exception:
            log.exception("bug in admin page %s", parts.path)
            raise _Refuse(500, "internal error; see the log") from None

    async def _write(self, machine: h11.Connection, writer: asyncio.StreamWriter, answer: Response, is_head: bool) -> None:
        body = answer.body
        headers = [
            ("content-type", answer.content_type),
            ("server", "meshproxy"),
            ("cache-control", "no-cache, max-age=0"),
            ("x-content-type-options", "nosniff"),
            *answer.headers,
            ("content-length", str(len(body))) if isinstance(body, bytes) else ("transfer-encoding", "chunked"),
        ]
        await _send(
            machine, writer, h11.Response(status_code=answer.status, headers=headers, reason=_REASONS.get(answer.status, b""))
        )
        if not is_head:
            if isinstance(body, bytes):
                await _send(machine, writer, h11.Data(data=body))
            else:
                for piece in body:
                    await _send(machine, writer, h11.Data(data=piece))
                    await asyncio.sleep(0)  # traffic first: a long answer gives way after every piece
        await _send(machine, writer, h11.EndOfMessage())


async def _send(machine: h11.Connection, writer: asyncio.StreamWriter, event: Any) -> None:
    data = machine.send(event)
    if data:
        writer.write(data)
        async with asyncio.timeout(WRITE_TIME):
            await writer.drain()


def _listening(host: str, port: int) -> socket.socket:
    """``::`` is every address, as it is for Go's programs; where there is no IPv6, every one of IPv4."""
    if host == "::":
        try:
            return socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=True)
        except (OSError, ValueError) as error:  # no IPv6, or none that takes IPv4 too
            if isinstance(error, OSError) and error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise
        host = "0.0.0.0"
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def _bare_host(host: str) -> str:
    """The host without port and brackets, lower case, an IP address in its shortest form."""
    if "@" in host or "/" in host:
        return ""  # no Host has these, and two readers of it could differ
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
    try:
        return str(ip_address(name))
    except ValueError:
        return name


def _foreign(headers: Mapping[str, str], own: frozenset[str]) -> bool:
    """Did a browser send this for a page that is not ours? Other programs say nothing of an origin."""
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return True
    origin = headers.get("origin")
    return origin is not None and _bare_host(origin.partition("://")[2]) not in own


def _is_local(remote: str, own: frozenset[str]) -> bool:
    """From where our inbound side calls the app somebody else speaks, who came in by it."""
    if remote in PASSED_ON:
        return False
    return ip_address(remote).is_loopback or remote in own
