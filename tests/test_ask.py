"""``meshproxy wait`` and ``meshproxy request``, as Kubernetes runs them in hooks."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from meshproxy import ask
from tests.e2e.support.sockets import own_address


class _Handler(BaseHTTPRequestHandler):
    """Answers with the next status of the server's list, and the last one for ever."""

    def _any(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        server.heard.append((self.command, self.path, body, self.headers["host"]))
        status = server.statuses.pop(0) if len(server.statuses) > 1 else server.statuses[0]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(f"status {status}".encode())

    do_GET = do_POST = _any

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    statuses: list[int]
    heard: list[tuple[str, str, bytes, str]]


@contextmanager
def server(*statuses: int, host: str = "") -> Iterator[_Server]:
    made = _Server((host or own_address(), 0), _Handler)
    made.statuses, made.heard = list(statuses), []
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield made
    finally:
        made.shutdown()
        thread.join()
        made.server_close()


def url(made: _Server) -> str:
    return f"http://{made.server_address[0]}:{made.server_address[1]}/healthz/ready"


def test_wait_until_it_is_ready() -> None:
    with server(503, 503, 200) as made:
        assert ask.main(["wait", "--periodMillis", "1", f"--url={url(made)}"]) == 0
        assert [one[:2] for one in made.heard] == [("GET", "/healthz/ready")] * 3


def test_wait_no_longer_than_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with server(503) as made:
        assert ask.main(["wait", "--timeoutSeconds=0", "--url", url(made)]) == 1
    assert capsys.readouterr().err == "meshproxy wait: not ready after 0 s: 503: status 503\n"
    assert ask.main(["wait", "--timeoutSeconds=0", "--url", url(made)]) == 1  # nobody is there
    assert capsys.readouterr().err == "meshproxy wait: not ready after 0 s: Connection refused\n"


def test_request(capsys: pytest.CaptureFixture[str]) -> None:
    with server(200, 200, 403, host="127.0.0.1") as made:
        port = f"--debug-port={made.server_address[1]}"
        assert ask.main(["request", port, "POST", "drain"]) == 0
        assert capsys.readouterr().out == "status 200\n"
        assert ask.main(["request", "get", "/logging?level=debug", port, "body"]) == 0
        assert made.heard == [("POST", "/drain", b"", "localhost"), ("GET", "/logging?level=debug", b"body", "localhost")]
        assert ask.main(["request", port, "POST", "quitquitquit"]) == 1
        assert capsys.readouterr().err == "meshproxy request: 403: status 403\n"
    assert ask.main(["request", port, "POST", "drain"]) == 1
    assert "Connection refused" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("request GET", "needs a method and a path"),
        ("request GET a b c", "needs a method and a path"),
        ("request PATCHY a", "method: must be"),
        ("request --debug-port x GET a", "--debug-port: must be a whole number, not 'x'"),
        ("request --debug-port 70000 GET a", "--debug-port: must be a port"),
        ("request GET a --debug-port", "--debug-port: needs a value"),
        ("request --port 1 GET a", "--port: no such flag; there are --debug-port"),
        ("wait now", "takes no arguments"),
        ("wait --url https://localhost/", "--url: must be like"),
        ("wait --url http://localhost:0/", "--url: must be like"),
        ("wait --periodMillis -1", "--periodMillis: must be a whole number"),
    ],
)
def test_bad_command_lines(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask.main(line.split()) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://localhost:15021/healthz/ready", ("localhost", 15021, "/healthz/ready")),
        ("http://[::1]:15021", ("::1", 15021, "/")),
        ("http://[::1]/x", ("::1", 80, "/x")),
        ("http://web", ("web", 80, "/")),
    ],
)
def test_urls(text: str, expected: tuple[str, int, str]) -> None:
    assert ask._place(text) == expected


def test_the_command_loads_next_to_nothing() -> None:
    """What a hook waits for is mostly its own start."""
    code = "import sys; sys.argv[1:] = ['wait', '--help']; from meshproxy.__main__ import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "print(sorted(name for name in sys.modules if name.split('.')[0] in ('asyncio', 'msgspec', 'uvloop', 'ssl', 'http')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: meshproxy wait") and done.stdout.endswith("\n[]\n")
