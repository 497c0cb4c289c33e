"""A small HTTP/1.1 client on h11 and asyncio streams (room ``agent``): one connection to control over verified TLS.

In: where control is. Out: ``Connection`` with ``request`` (a short answer, whole) and ``stream`` (a long answer, piece by piece);
``read_token``. Raises ``ControlProblem`` for everything that can go wrong, one line each; no token is in it. Cold path only.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import h11
import msgspec

__all__ = ["Connection", "ControlProblem", "Target", "read_token", "tls_context"]

log = logging.getLogger("meshproxy.agent")
MAX_ANSWER = 1 << 20  # bytes of a short answer
READ = 1 << 18


class ControlProblem(Exception):
    """Control cannot be reached, or does not say what it should."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Target:
    """``https://host:port`` of control, and the root that its certificate must be under."""

    host: str
    port: int
    ca_file: Path

    @classmethod
    def parse(cls, url: str, ca_file: Path) -> Target:
        """Raises ``ValueError`` for anything but an https URL without path."""
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.username:
            raise ValueError(f"control: must be like https://127.0.0.1:15012, not {url!r}")
        return cls(parts.hostname, parts.port or 15012, ca_file)

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Connection:
    """One connection; one request at a time. Use ``open`` to have one."""

    def __init__(self, target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._target = target
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)

    @classmethod
    async def open(cls, target: Target, timeout: float, roots: Sequence[str] = ()) -> Connection:
        """Connect and check the server's certificate; ``timeout`` in seconds for all of it.

        ``roots``: PEM certificates that it may be under as well as the file's: the mesh's, as control named them last.
        """
        try:
            context = tls_context(target.ca_file, roots)
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_connection(
                    target.host, target.port, ssl=context, server_hostname=target.host, limit=READ
                )
        except TimeoutError as error:
            raise ControlProblem(f"{target.authority}: no connection within {timeout:g} s") from error
        except ssl.SSLCertVerificationError as error:
            raise ControlProblem(
                f"{target.authority}: its certificate is not under {target.ca_file}: {error.verify_message}"
            ) from error
        except (OSError, ssl.SSLError) as error:
            missing = f"{target.ca_file}: " if isinstance(error, FileNotFoundError) else ""
            raise ControlProblem(f"{target.authority}: {missing}{error.strerror or error}") from error
        return cls(target, reader, writer)

    @property
    def idle(self) -> bool:
        """True when another request may be sent."""
        return self._http.our_state is h11.IDLE and not self._reader.at_eof() and not self._writer.is_closing()

    async def request(self, method: str, path: str, token: str, body: bytes = b"") -> bytes:
        """Send and take the whole answer. Raises ``ControlProblem`` for an answer that is not 2xx."""
        await self._send(method, path, token, body)
        head = await self._head()
        parts, size = [], 0
        async for part in self._body():
            size += len(part)
            if size > MAX_ANSWER:
                raise ControlProblem(f"{self._target.authority}: its answer is longer than {MAX_ANSWER} bytes")
            parts.append(part)
        answer = b"".join(parts)
        if not 200 <= head.status_code < 300:
            raise self._refusal(head.status_code, answer)
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        return answer

    async def stream(self, path: str, token: str) -> AsyncGenerator[bytes, None]:
        """``GET`` and yield the body's pieces as they come. Raises ``ControlProblem`` for an answer that is not 200."""
        await self._send("GET", path, token)
        head = await self._head()
        if head.status_code != 200:
            answer = b""
            async for part in self._body():
                answer = (answer + part)[:MAX_ANSWER]
            raise self._refusal(head.status_code, answer)
        async for part in self._body():
            yield part

    async def _send(self, method: str, path: str, token: str, body: bytes = b"") -> None:
        headers = [("host", self._target.authority), ("authorization", f"Bearer {token}"), ("accept", "application/json")]
        if method != "GET":
            headers += [("content-type", "application/json"), ("content-length", str(len(body)))]
        try:
            data = self._http.send(h11.Request(method=method, target=path, headers=headers)) or b""
            data += (self._http.send(h11.Data(data=body)) or b"") if body else b""
            data += self._http.send(h11.EndOfMessage()) or b""
            self._writer.write(data)
            await self._writer.drain()
        except h11.LocalProtocolError as error:
            raise ControlProblem(f"{self._target.authority}: the connection cannot be used again") from error
        except (OSError, ssl.SSLError) as error:
            raise self._lost(error) from error

    async def _next(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            try:
                event = self._http.next_event()
                if event is not h11.NEED_DATA:
                    return event  # type: ignore[return-value]
                self._http.receive_data(await self._reader.read(READ))
            except h11.RemoteProtocolError as error:
                raise ControlProblem(f"{self._target.authority}: the connection ended or is not HTTP: {error}") from error
            except (OSError, ssl.SSLError) as error:
                raise self._lost(error) from error

    async def _head(self) -> h11.Response:
        while True:
            event = await self._next()
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise ControlProblem(f"{self._target.authority}: the connection ended before an answer")

    async def _body(self) -> AsyncGenerator[bytes, None]:
        while True:
            event = await self._next()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            else:  # EndOfMessage or ConnectionClosed
                return

    def _refusal(self, status: int, answer: bytes) -> ControlProblem:
        try:
            message = str(msgspec.json.decode(answer)["message"])
        except (msgspec.DecodeError, KeyError, TypeError):
            message = "no reason given"
        return ControlProblem(f"{self._target.authority}: answered {status}: {' '.join(message.split())[:500]}", status)

    def _lost(self, error: BaseException) -> ControlProblem:
        return ControlProblem(f"{self._target.authority}: the connection was lost: {error or type(error).__name__}")

    async def close(self) -> None:
        """Close without waiting for the peer's farewell."""
        self._writer.transport.abort()


def tls_context(ca_file: Path, roots: Sequence[str]) -> ssl.SSLContext:
    """Made for each connection, so that a new file counts from then on."""
    context = ssl.create_default_context(cafile=str(ca_file))
    if roots:
        try:
            context.load_verify_locations(cadata="\n".join(roots))
        except (ssl.SSLError, ValueError) as error:  # the file still counts
            log.warning("the roots that control named cannot be used: %s", error)
    return context


def read_token(path: Path) -> str:
    """Our bearer token, read anew for every use, so that a new one counts from then on. Raises ``ControlProblem``."""
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise ControlProblem(f"{path}: {reason}") from error
    if not token or not token.isprintable() or " " in token:
        raise ControlProblem(f"{path}: holds no token")
    return token
