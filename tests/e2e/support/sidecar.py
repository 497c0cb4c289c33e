"""A real ``meshproxy`` process: started, watched, asked, ended; and its log must be clean at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.e2e.support.config import Config
from tests.e2e.support.sockets import Peer, connect, own_address, until

ROOT = Path(__file__).resolve().parents[3]
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Sidecar:
    """One standalone sidecar on an address of its own; the usual ports."""

    def __init__(
        self,
        config: Config | None,
        *options: str,
        ip: str = "",
        pod: str = "pod",
        files: int = 0,
        home: Path | None = None,
        drain: float = 5,
        own_group: bool = False,
        **ports: int,
    ) -> None:
        """``config`` None: it asks control, as ``options`` say. ``files``: how many descriptors it may have.

        ``ports``: where its pages are, if ``options`` put them elsewhere.
        """
        self._home = None if home else tempfile.TemporaryDirectory(prefix="sidecar")
        home = home or Path(self._home.name)  # type: ignore[union-attr]
        self.ip = ip or own_address()
        self.config = config or Config()
        self.path = home / "mesh.json"
        self.log_file = home / "sidecar.log"
        command = [sys.executable, "-m", "meshproxy", "--ip", self.ip, "--pod", pod, "--drain-seconds", str(drain), *options]
        if config is not None:
            command += ["--config", str(config.write(self.path))]
        limit = ["prlimit", f"--nofile={files}:{files}"] if files else []
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen([*limit, *command], stdout=log, stderr=log, env=environ, start_new_session=own_group)
        self.outbound = (self.ip, 15001)
        self.ports = {"admin": 15000, "metrics": 15020, "health": 15021, **ports}
        try:
            until(self._up, "the sidecar is ready", 30)
        except BaseException:
            self.kill()
            raise

    def _up(self) -> bool:
        assert self.process.poll() is None, self.log()
        try:
            return self.get("/ready")[0] == 200
        except OSError:
            return False

    def __enter__(self) -> Sidecar:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            code = self.stop()
            if kind is None:
                assert code == 0, self.log()
                self.check_log()
        finally:
            if self._home is not None:
                self._home.cleanup()

    # -- the process

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def check_log(self) -> None:
        """No crash was caught, none passed."""
        text = self.log()
        assert "bug in" not in text and "Traceback" not in text and "crashed" not in text, text

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 20) -> int:
        return self.process.wait(seconds)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                return self.wait()
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        return self.process.returncode

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def resident(self, pid: int = 0) -> int:
        """Bytes."""
        pages = Path(f"/proc/{pid or self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def children(self) -> list[int]:
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in listed.split()]

    # -- its pages

    def fetch(
        self, path: str, method: str = "GET", port: int = 0, headers: dict[str, str] | None = None
    ) -> tuple[int, str, dict[str, str]]:
        port = port or self.ports["admin"]
        request = urllib.request.Request(f"http://{self.ip}:{port}{path}", method=method, headers=headers or {})
        try:
            with _opener.open(request, timeout=10) as answer:
                return answer.status, answer.read().decode(), dict(answer.headers.items())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode(), dict(error.headers.items())

    def get(self, path: str, port: int = 0) -> tuple[int, str]:
        return self.fetch(path, port=port)[:2]

    def post(self, path: str, port: int = 0) -> tuple[int, str]:
        return self.fetch(path, "POST", port)[:2]

    def json(self, path: str) -> Any:
        return json.loads(self.get(path)[1])

    def cluster(self, name: str) -> Any:
        """``/clusters`` of one service."""
        found = [one for one in self.json("/clusters?format=json")["clusters"] if one["name"] in (name, f"outbound|80||{name}")]
        return found[0]

    def active(self, name: str) -> Any:
        """What a service has in use: connections, pending, requests, retries."""
        return self.cluster(name)["active"]

    def settled(self, name: str) -> None:
        """Nothing of the service is in flight any more."""
        until(lambda: not any(self.active(name)[kind] for kind in ("pending", "requests", "retries")), f"{name} settled")

    def metrics(self, name: str, port: int = 15020, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        total = 0.0
        for line in self.get("/stats/prometheus", port=port)[1].splitlines():
            if not line.startswith((name + "{", name + " ")):
                continue
            sample, _, value = line.rpartition(" ")
            if all(f'{key}="{wanted}"' in sample for key, wanted in labels.items()):
                total += float(value)
        return total

    # -- traffic

    def client(self, port: int = 15001, source: str = "", receive_buffer: int = 0) -> Peer:
        return connect((self.ip, port), source or self.ip, receive_buffer)

    def install(self, config: Config | None = None, seconds: float = 10) -> None:
        """Put a configuration in force: SIGHUP, and wait until it is."""
        before = self.json("/server_info")["config"]["updates"]
        self.offer(config)
        until(lambda: self.json("/server_info")["config"]["updates"] > before, "the configuration", seconds)

    def offer(self, config: Config | None = None) -> None:
        """Write it and tell the sidecar."""
        (config or self.config).write(self.path)
        self.signal(signal.SIGHUP)
