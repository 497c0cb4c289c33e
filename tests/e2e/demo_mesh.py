"""For tests with the demo mesh: start it, and be the user in a shell beside it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control.client.api import Api
from control.client.kubeconfig import load
from control.demo.plan import Addresses

__all__ = ["BIN", "Demo", "free_port", "wait_until"]

BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@dataclass
class Demo:
    """One demo mesh, and the user's shell beside it."""

    root: Path
    base: str
    port: int

    @property
    def state(self) -> Path:
        return self.root / ".mesh"

    @property
    def manifests(self) -> Path:
        return self.state / "manifests"

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}/book/1"

    def pod(self, number: int) -> str:
        return Addresses(self.base).pod(number)

    def shell(
        self, *words: str, cwd: Path | None = None, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        environ |= {"PATH": f"{BIN}:{environ['PATH']}", "KUBECONFIG": ".mesh/kubeconfig", "HOME": str(self.root)}
        done = subprocess.run(words, cwd=cwd or self.root, env=environ, capture_output=True, text=True, timeout=timeout)
        assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done

    def meshctl(self, *words: str, check: bool = True, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return self.shell("meshctl", *words, check=check, cwd=cwd)

    def demo(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.meshctl("demo", *words, "--base", self.base, "--port", str(self.port), check=check)

    def kubectl(self, *words: str, check: bool = True) -> str:
        """In the manifests directory, with the relative KUBECONFIG that the walkthrough exports."""
        done = self.shell("kubectl", *words, cwd=self.manifests, check=check)
        return done.stdout if check else done.stdout + done.stderr

    def curl(self, url: str, *options: str) -> tuple[int, str]:
        done = self.shell("curl", "-s", "-w", "\n%{http_code}", "--max-time", "10", url, *options)
        body, _, status = done.stdout.rpartition("\n")
        return int(status), body

    def book(self) -> tuple[int, int | None]:
        """(status, rating) of one request for the book."""
        status, body = self.curl(self.url)
        return status, json.loads(body)["rating"] if body else None

    def ratings(self, count: int) -> list[int | None]:
        return [self.book()[1] for _ in range(count)]

    def api(self) -> Api:
        return Api(load([self.state / "kubeconfig"]))

    def live(self, path: str, limit: float = 1.0) -> None:
        """Every sidecar has the object within ``limit`` seconds: the walkthrough's promise after apply."""
        api = self.api()
        group, _, plural, name = path.split("/")
        asked = time.monotonic()
        query = {"group": group, "plural": plural, "namespace": "default", "name": name}
        wait_until(lambda: not api.request("GET", "/mesh/v1/distribution", params=query)["pending"], limit, path)
        took = time.monotonic() - asked
        api.close()
        assert took < limit

    def hits(self) -> int:
        """How many ratings v2 was asked for: N of its last ``Request N``."""
        said = re.findall(r"^Request (\d+)$", self.kubectl("logs", "rating-service-v2", "-c", "rating-service"), re.M)
        return int(said[-1]) if said else 0

    def siege(self) -> tuple[int, float]:
        """(hits, availability) of the article's command line."""
        done = self.shell("siege", "-r", "10", "-c", "4", "-v", "-d", "1", self.url, timeout=120)
        text = done.stdout + done.stderr
        transactions = re.search(r'"?transactions"?:\s*(\d+)', text, re.I)
        availability = re.search(r'"?availability"?:\s*([\d.]+)', text, re.I)
        assert transactions and availability, text
        return int(transactions[1]), float(availability[1])

    def processes(self) -> list[str]:
        """Command lines of everything that runs for this mesh."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                environ = (entry / "environ").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if str(self.state) in line or f"INSTANCE_IP={self.base.rpartition('.')[0]}." in environ:
                found.append(line)
        return found


def wait_until(true: Callable[[], Any], limit: float, what: str) -> None:
    deadline = time.monotonic() + limit
    while not true():
        assert time.monotonic() < deadline, f"not within {limit:g} s: {what}"
        time.sleep(0.02)
