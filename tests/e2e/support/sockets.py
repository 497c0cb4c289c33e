"""Both ends of a connection as the test's own hands: blocking sockets with a deadline, and just enough HTTP to read an answer."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
WAIT = 10.0  # seconds that anything may take

_hosts = itertools.count(1)


def own_address() -> str:
    """A loopback address that nothing else in this test run has."""
    number = next(_hosts)
    return f"127.61.{os.getpid() % 250 + 1}.{number % 250 + 1}"


def until(true: Callable[[], T], what: str = "it", seconds: float = WAIT) -> T:
    """Ask again and again until the answer is true."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, f"{what} did not become true within {seconds:g} s"
        time.sleep(0.005)
    return found


class Response(NamedTuple):
    """``headers``: lower case, the last of a name counts."""

    status: int
    headers: dict[str, str]
    body: bytes
    trailers: dict[str, str] = {}


class Peer:
    """One end of a TCP connection, with what was read and not yet asked for."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(WAIT)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def finish(self) -> None:
        """No more from this side (FIN)."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()

    def cut(self) -> None:
        """Close with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _more(self) -> bool:
        data = self.sock.recv(65536)
        self.buffer += data
        return bool(data)

    def until(self, mark: bytes) -> bytes:
        """Everything up to and with ``mark``."""
        while mark not in self.buffer:
            if not self._more():
                raise EOFError(f"closed after {self.buffer!r}, before {mark!r}")
        found, _, self.buffer = self.buffer.partition(mark)
        return found + mark

    def exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            if not self._more():
                raise EOFError(f"closed after {len(self.buffer)} of {size} bytes")
        found, self.buffer = self.buffer[:size], self.buffer[size:]
        return found

    def rest(self) -> bytes:
        """Everything to the end; the other side must end. A reset ends too."""
        with contextlib.suppress(ConnectionResetError):
            while self._more():
                pass
        found, self.buffer = self.buffer, b""
        return found

    def ended(self) -> bool:
        """The other side has closed, with nothing more to read."""
        return self.rest() == b""

    def silent(self, seconds: float = 0.1) -> bool:
        """Nothing comes. (A look at the wire: what would come has been on its way for long.)"""
        self.sock.settimeout(seconds)
        try:
            return not self.buffer and self.sock.recv(1, socket.MSG_PEEK) == b"never"
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(WAIT)

    # -- HTTP

    def head(self) -> tuple[str, dict[str, str]]:
        """Start line and headers."""
        lines = self.until(b"\r\n\r\n")[:-4].decode("latin-1").split("\r\n")
        return lines[0], _fields(lines[1:])

    def chunks(self) -> tuple[bytes, dict[str, str]]:
        """A chunked body and its trailers."""
        body = b""
        while size := int(self.until(b"\r\n").split(b";")[0], 16):
            body += self.exactly(size)
            assert self.exactly(2) == b"\r\n"
        trailers = []
        while line := self.until(b"\r\n")[:-2]:
            trailers.append(line.decode("latin-1"))
        return body, _fields(trailers)

    def request(self) -> tuple[str, dict[str, str], bytes]:
        """A whole request."""
        line, headers = self.head()
        if headers.get("transfer-encoding") == "chunked":
            return line, headers, self.chunks()[0]
        return line, headers, self.exactly(int(headers.get("content-length", "0")))

    def response(self, method: str = "GET") -> Response:
        """A whole response; 1xx are returned like any other."""
        line, headers = self.head()
        assert line.startswith("HTTP/1."), line
        status = int(line.split()[1])
        if status < 200 or status in (204, 304) or method == "HEAD" or (method == "CONNECT" and status < 300):
            return Response(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            body, trailers = self.chunks()
            return Response(status, headers, body, trailers)
        if "content-length" in headers:
            return Response(status, headers, self.exactly(int(headers["content-length"])))
        return Response(status, headers, self.rest())

    def ask(self, request: bytes, method: str = "GET") -> Response:
        self.send(request)
        return self.response(method)


def _fields(lines: list[str]) -> dict[str, str]:
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def connect(address: tuple[str, int], source: str = "", receive_buffer: int = 0) -> Peer:
    """A client's connection; ``source``: the address it comes from."""
    sock = socket.socket()
    try:
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            sock.bind((source, 0))
        sock.settimeout(WAIT)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return Peer(sock)


class Listening:
    """An upstream whose connections the test takes by hand."""

    def __init__(self, host: str = "", receive_buffer: int = 0, backlog: int = 128, port: int = 0) -> None:
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.bind((host or own_address(), port))
        self.sock.listen(backlog)
        self.sock.settimeout(WAIT)
        self.address: tuple[str, int] = self.sock.getsockname()
        self._taken: list[Peer] = []

    def accept(self) -> Peer:
        peer = Peer(self.sock.accept()[0])
        self._taken.append(peer)
        return peer

    def forget(self) -> None:
        """Close what was accepted; go on listening."""
        for peer in self._taken:
            peer.close()
        self._taken.clear()

    def close(self) -> None:
        self.forget()
        self.sock.close()

    def __enter__(self) -> Listening:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
