"""For tests with the real Prometheus: one of their own, on a loopback address of its own, ended by its process id."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from tests.e2e.demo_mesh import wait_until

__all__ = ["PROGRAM", "PrometheusProcess", "hurried", "promtool"]

PROGRAM = "prometheus"
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def hurried(config: str) -> str:
    """The same configuration, asking every second."""
    return re.sub(r"((?:scrape|evaluation|refresh)_interval:) \d+s", r"\1 1s", config)


def promtool(*words: str, given: str | None = None, cwd: Path | None = None) -> tuple[int, str]:
    done = subprocess.run(["promtool", *words], input=given, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


class PrometheusProcess:
    """``config`` is a file; its data lies beside it."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._address = f"127.{60 + os.getpid() % 30}.{os.getpid() // 30 % 250}.9"
        with socket.create_server((self._address, 0)) as probe:
            self.url = f"http://{self._address}:{probe.getsockname()[1]}"
        self._log = config.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = shutil.which(PROGRAM)
        assert program is not None
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program,
                    f"--config.file={self._config}",
                    f"--storage.tsdb.path={self._config.with_suffix('.data')}",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                ],
                stdout=log,
                stderr=log,
            )
        wait_until(self._ready, 60, "Prometheus is ready")

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(20)

    def logged(self) -> str:
        return self._log.read_text(errors="replace")

    def _ready(self) -> bool:
        assert self._process is not None and self._process.poll() is None, self.logged()
        try:
            with _OPENER.open(f"{self.url}/-/ready", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def get(self, path: str, **params: str) -> Any:
        """``data`` of the answer. A query that is refused fails the test with Prometheus' own words."""
        query = urllib.parse.urlencode(params)
        try:
            with _OPENER.open(f"{self.url}/api/v1/{path}?{query}", timeout=30) as answer:
                return json.loads(answer.read())["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {params}: {error.read().decode(errors='replace')}") from None

    def values(self, query: str) -> list[tuple[dict[str, str], float]]:
        """What an instant query finds, without what is not a number."""
        data = self.get("query", query=query)
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        rows = [(row["metric"], float(row["value"][1])) for row in data["result"]]
        return [(labels, value) for labels, value in rows if value == value]
