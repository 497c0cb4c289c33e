"""``meshproxy wait`` and ``meshproxy request``: what Kubernetes runs in our container's hooks. Loud, and quick to start.

In: the command line, with pilot-agent's flags. Out: an exit code: 0 when the sidecar is ready, or took the request; 1 when not,
with one line; 2 for a bad command line. Nothing but a socket is needed for it, and nothing else is loaded.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["COMMANDS", "main"]

COMMANDS = ("wait", "request")
_MAX = 64 << 20  # bytes of an answer
_PATIENCE = 60.0  # seconds for a request
_METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD")
USAGE = """\
usage: meshproxy wait [--timeoutSeconds 60] [--requestTimeoutMillis 500] [--periodMillis 500]
                      [--url http://localhost:15021/healthz/ready]
       meshproxy request [--debug-port 15000] METHOD PATH [BODY]
"""


class _Bad(ValueError):
    """The command line; one line."""


class Place(NamedTuple):
    host: str
    port: int
    path: str


def main(argv: Sequence[str]) -> int:
    """``argv[0]``: one of ``COMMANDS``."""
    if "--help" in argv or "-h" in argv:
        sys.stdout.write(USAGE)
        return 0
    try:
        return (_wait if argv[0] == "wait" else _request)(argv[1:])
    except _Bad as bad:
        sys.stderr.write(f"meshproxy {argv[0]}: {bad}\n")
        return 2


def _wait(argv: Sequence[str]) -> int:
    flags = {"timeoutSeconds": "60", "requestTimeoutMillis": "500", "periodMillis": "500"}
    flags["url"] = "http://localhost:15021/healthz/ready"
    if rest := _read(argv, flags):
        raise _Bad(f"takes no arguments, not {rest[0]!r}")
    place = _place(flags["url"])
    patience, period, each = (
        _number(flags, "timeoutSeconds"),
        _number(flags, "periodMillis"),
        _number(flags, "requestTimeoutMillis"),
    )
    deadline = time.monotonic() + patience
    while True:
        try:
            status, body = _ask("GET", place, b"", max(0.001, each / 1000))
            if status == 200:
                return 0
            problem = f"{status}: {body.decode('utf-8', 'replace').strip()[:200]}"
        except OSError as error:
            problem = error.strerror or str(error) or type(error).__name__
        pause = period / 1000
        if time.monotonic() + pause >= deadline:
            sys.stderr.write(f"meshproxy wait: not ready after {patience} s: {problem}\n")
            return 1
        time.sleep(pause)


def _request(argv: Sequence[str]) -> int:
    flags = {"debug-port": "15000"}
    rest = _read(argv, flags)
    if not 2 <= len(rest) <= 3:
        raise _Bad("needs a method and a path, such as POST drain")
    method, path, body = rest[0].upper(), rest[1], rest[2] if len(rest) > 2 else ""
    if method not in _METHODS:
        raise _Bad(f"method: must be {', '.join(_METHODS[:-1])} or {_METHODS[-1]}, not {rest[0]!r}")
    if not path.isascii() or not path.isprintable() or " " in path:
        raise _Bad("path: must hold printable ASCII without blanks")
    port = _number(flags, "debug-port")
    if not 0 < port < 65536:
        raise _Bad(f"--debug-port: must be a port from 1 to 65535, not {port}")
    try:
        status, answer = _ask(method, Place("localhost", port, "/" + path.removeprefix("/")), body.encode(), _PATIENCE)
    except OSError as error:
        sys.stderr.write(f"meshproxy request: localhost:{port}: {error.strerror or error or type(error).__name__}\n")
        return 1
    text = answer.decode("utf-8", "replace")
    if status // 100 not in (2, 3):
        sys.stderr.write(f"meshproxy request: {status}: {text.strip()}\n")
        return 1
    sys.stdout.write(text if not text or text.endswith("\n") else text + "\n")
    return 0


def _read(argv: Sequence[str], flags: dict[str, str]) -> list[str]:
    """Puts what is given into ``flags``; the words that are no flags."""
    words: list[str] = []
    rest = list(reversed(argv))
    while rest:
        word = rest.pop()
        if not word.startswith("--"):
            words.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        if name not in flags:
            raise _Bad(f"--{name}: no such flag; there are --{' --'.join(flags)}")
        if not equals:
            if not rest:
                raise _Bad(f"--{name}: needs a value")
            value = rest.pop()
        flags[name] = value
    return words


def _number(flags: dict[str, str], name: str) -> int:
    if not flags[name].isdecimal() or len(flags[name]) > 9:
        raise _Bad(f"--{name}: must be a whole number, not {flags[name]!r}")
    return int(flags[name])


def _place(url: str) -> Place:
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    host, colon, port = authority.rpartition(":")
    if not colon or authority.endswith("]"):
        host, port = authority, "80"
    host = host.removeprefix("[").removesuffix("]")
    if scheme != "http" or not host or not port.isdecimal() or not 0 < int(port) < 65536 or not url.isascii() or " " in url:
        raise _Bad(f"--url: must be like http://localhost:15021/healthz/ready, not {url!r}")
    return Place(host, int(port), slash + path or "/")


def _ask(method: str, place: Place, body: bytes, patience: float) -> tuple[int, bytes]:
    """Status and body. HTTP/1.0: the answer ends where the connection does, or at its length."""
    deadline = time.monotonic() + patience
    head = f"{method} {place.path} HTTP/1.0\r\nhost: {place.host}\r\nuser-agent: meshproxy\r\ncontent-length: {len(body)}\r\n\r\n"
    data = b""
    with socket.create_connection((place.host, place.port), patience) as sock:
        sock.sendall(head.encode() + body)
        while len(data) < _MAX:
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            piece = sock.recv(65536)
            if not piece:
                break
            data += piece
    answered, _, rest = data.partition(b"\r\n\r\n")
    words = answered.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise OSError("no HTTP answer")
    return int(words[1]), rest
