"""``meshctl proxy -f``: files straight into one proxy, followed as they change; a bad edit changes nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue

import pytest

FILES = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ["*"]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: site}
spec:
  hosts: ["*"]
  gateways: [edge]
  http:
  - directResponse: {status: 200, body: {string: "first"}}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Proxy:
    def __init__(self, file: Path) -> None:
        self.file, self.port = file, free_port()
        argv = [sys.executable, "-m", "control.cli", "proxy", "-f", str(file), "--port", str(self.port), "--listen", "127.0.0.1"]
        self.process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
        self._lines: Queue[str] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line)

    def heard(self, words: str) -> str:
        """The next line of stderr that holds these words."""
        while True:
            try:
                line = self._lines.get(timeout=20)
            except Empty:
                pytest.fail(f"never said: {words}")
            if words in line:
                return line

    def get(self) -> tuple[int, str]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.port}/", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20)
        self._reader.join(10)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def until(self, wanted: tuple[int, str]) -> None:
        """Ask until the answer is this one; the child may still be starting or reading."""
        import time

        deadline = time.monotonic() + 10
        while True:
            try:
                if (got := self.get()) == wanted:
                    return
            except (urllib.error.URLError, ConnectionError) as failure:
                got = (0, str(failure))
            assert time.monotonic() < deadline, got
            time.sleep(0.02)

    def edit(self, text: str) -> None:
        beside = self.file.with_suffix(".new")
        beside.write_text(text)
        os.replace(beside, self.file)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    file = tmp_path / "site.yml"
    file.write_text(FILES)
    made = Proxy(file)
    yield made
    assert made.stop() == 0


def test_files_are_followed_and_a_bad_edit_changes_nothing(proxy: Proxy) -> None:
    assert f"gateway on 127.0.0.1:{proxy.port}" in proxy.heard("proxy of ")
    assert proxy.get() == (200, "first")  # what is said to run does run
    proxy.edit(FILES.replace("first", "second"))
    proxy.heard("configuration changed")
    proxy.until((200, "second"))
    proxy.edit(FILES.replace("directResponse", "directRespond"))
    assert 'spec.http[0].directRespond: unknown field; did you mean "directResponse"?' in proxy.heard("error: ")
    proxy.heard("the last good configuration stays")
    assert proxy.get() == (200, "second")
    proxy.edit(FILES.replace("200", "418"))
    proxy.until((418, "first"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FILES.replace("weight", "w").replace("hosts: [", "hostz: ["), "hostz"),
        ("a: [", "error parsing "),
        ("apiVersion: v1\nkind: Pot\nmetadata: {name: x}\n", 'no kind "Pot"'),
    ],
)
def test_files_that_cannot_be_start_nothing(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "bad.yml"
    file.write_text(text)
    argv = [sys.executable, "-m", "control.cli", "proxy", "-f", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert said in done.stderr and done.stderr.startswith("error: ")


def test_a_second_proxy_finds_ports_of_its_own(proxy: Proxy) -> None:
    first = proxy.heard("proxy of ")
    second = Proxy(proxy.file)
    try:
        line = second.heard("proxy of ")
        assert second.get() == (200, "first")
        sides = [part for said in (first, line) for part in said.split(", ")[1:]]
        assert [side.split(" on ")[0] for side in sides] == ["admin", "health", "metrics"] * 2
        assert len({side.strip() for side in sides}) == 6
    finally:
        assert second.stop() == 0


@pytest.mark.parametrize("flag", ["--port", "--admin-port", "--health-port", "--metrics-port", "--outbound-port"])
def test_a_taken_port_is_one_line_with_address_and_flag(tmp_path: Path, flag: str) -> None:
    file = tmp_path / "site.yml"
    file.write_text(FILES)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = {"--port": free_port(), "--outbound-port": free_port(), flag: taken.getsockname()[1]}
        argv = [sys.executable, "-m", "control.cli", "proxy", "-f", str(file), "--outbound"]
        argv += [str(word) for pair in ports.items() for word in pair]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            f"error: cannot listen on 127.0.0.1:{ports[flag]}: address already in use; choose another port with {flag}\n"
        )


def test_an_edit_that_wants_a_taken_port_changes_nothing(proxy: Proxy) -> None:
    proxy.heard("proxy of ")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = f"  - port: {{number: {port}, name: http-two, protocol: HTTP}}\n    hosts: ['*']\n---"
        proxy.edit(FILES.replace("---", server, 1))
        assert "--port" in proxy.heard("error: ")
        assert proxy.get() == (200, "first")


def test_an_outbound_proxy_stands_where_port_says(tmp_path: Path) -> None:
    file = tmp_path / "site.yml"
    file.write_text(FILES.partition("---")[2].replace("gateways: [edge]", "").replace('["*"]', "[shop.example.com]"))
    proxy = Proxy(file)
    try:
        assert f": outbound on 127.0.0.1:{proxy.port}, admin on " in proxy.heard("proxy of ")
    finally:
        assert proxy.stop() == 0
