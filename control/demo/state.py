"""The state directory: one launcher at a time, who it is, and the user's copies of manifests and tokens.

In: the directory (``--state``). Out: a held lock, ``demo.json`` (who runs, where), ``manifests/``. Loud. A pid is believed
only together with the kernel's start time, so that a stranger with a recycled pid is never signalled.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import select
import signal
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

import msgspec

from control.demo.kubelet.process import start_time
from control.demo.plan import CONTROL_METRICS, DEFAULT_BASE, Addresses
from control.files import write_private

__all__ = ["Busy", "Running", "State"]


class Busy(Exception):
    """A launcher already runs on this state directory."""


@dataclass(frozen=True)
class Running:
    """Who runs the mesh of a state directory."""

    pid: int
    start: str
    base: str
    port: int
    port_given: bool = False
    netns: bool = False

    @property
    def alive(self) -> bool:
        return bool(self.start) and start_time(self.pid) == self.start

    @property
    def addresses(self) -> Addresses:
        return Addresses(self.base, self.port, self.port_given, self.netns)


class State:
    def __init__(self, path: Path) -> None:
        """Touches nothing yet."""
        self.path = path.absolute()
        self.kubeconfig = self.path / "kubeconfig"
        self.logs = self.path / "logs"
        self.manifests = self.path / "manifests"
        self.jwks = self.path / "jwks.json"
        self.tokens = self.path / "tokens"
        self.ca = self.path / "ca" / "root.pem"
        self._record = self.path / "demo.json"
        self._lock: int | None = None

    def problem(self) -> str:
        """Why there can be no state directory here; one line, or ""."""
        try:
            there = next(path for path in (self.path, *self.path.parents) if path.exists())
        except OSError as failure:
            return f"--state {self.path}: {failure.strerror}"
        if there.is_dir():
            return ""
        return f"--state {self.path}: {'this' if there == self.path else there} is a file; name a directory"

    def make(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        for directory in (self.logs, self.tokens):
            directory.mkdir(exist_ok=True, mode=0o700)

    def hold(self) -> None:
        """Become the one launcher; the kernel lets go when this process ends. Raises ``Busy``."""
        lock = os.open(self.path / "demo.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise Busy(self.busy() or self._busy("")) from None
        self._lock = lock

    def busy(self) -> str:
        """Who runs this mesh already; one line, or ""."""
        running = self.running()
        return self._busy(f" (pid {running.pid})") if running else ""

    def _busy(self, who: str) -> str:
        return f"the mesh of {self.path} already runs{who}; `meshctl demo --stop` ends it"

    def record(self, addresses: Addresses) -> None:
        began = start_time(os.getpid()) or ""
        who = Running(os.getpid(), began, addresses.base, addresses.port, addresses.port_given, addresses.netns)
        write_private(self._record, json.dumps(asdict(who)).encode())

    def forget(self) -> None:
        """Take our record away; another launcher's stays."""
        if self._lock is not None:
            with suppress(OSError):
                self._record.unlink(missing_ok=True)

    def running(self) -> Running | None:
        """Who runs this mesh now, if anybody."""
        if not self._record.is_file():  # reading a pipe would wait for ever
            return None
        try:
            running = msgspec.json.decode(self._record.read_bytes(), type=Running)  # strict: a pid of "self" or -1 is no pid
        except (OSError, ValueError):
            return None
        return running if running.pid > 1 and running.alive else None

    def stop(self, patience: float = 20.0) -> bool:
        """End the launcher and wait until it is gone; false when none runs. SIGKILL after ``patience`` seconds.

        Raises ``PermissionError`` for another user's.
        """
        running = self.running()
        if running is None:
            return False
        try:
            process = os.pidfd_open(running.pid)
        except ProcessLookupError:
            return True
        try:
            if not running.alive:  # looked at again: the handle and the record are one process, whatever its pid becomes later
                return True
            ended = select.poll()
            ended.register(process, select.POLLIN)
            for number in (signal.SIGTERM, signal.SIGKILL):  # its children die with it (PR_SET_PDEATHSIG)
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(process, number)
                if ended.poll(patience * 1000):
                    break
        finally:
            os.close(process)
        return True

    def hand_over(self) -> None:
        """Under sudo: what kubectl and its user need is the user's, as it is in a demo without root."""
        user, group = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
        if os.geteuid() == 0 and user.isdecimal() and group.isdecimal():
            for path in (self.path, self.kubeconfig, self._record, self.jwks, self.manifests, *self.manifests.iterdir()):
                with suppress(OSError):
                    os.chown(path, int(user), int(group), follow_symlinks=False)

    def begin_anew(self) -> None:
        """Forget every object of earlier runs (``--fresh``); certificates and tokens stay."""
        for name in ("mesh.db", "mesh.db-wal", "mesh.db-shm"):
            (self.path / name).unlink(missing_ok=True)

    def copy_manifests(self, addresses: Addresses) -> None:
        """Put manifests and tokens side by side, the key set above them: ``kubectl apply -f .`` takes every .json for objects.

        A file that the user changed stays as it is.
        """
        self.manifests.mkdir(exist_ok=True)
        noted = self.path / "manifests.json"
        try:
            shipped: dict[str, str] = json.loads(noted.read_text())
        except (OSError, ValueError):
            shipped = {}
        package = files("control.demo")
        for source in sorted((*(package / "manifests").iterdir(), *(package / "jwt").iterdir()), key=lambda entry: entry.name):
            if source.name.startswith((".", "__")):
                continue
            content = source.read_bytes()
            if addresses.base != DEFAULT_BASE or addresses.netns:
                at, home = f"{addresses.control}:{CONTROL_METRICS}", f"127.0.0.1:{CONTROL_METRICS}"
                content = content.replace(home.encode(), at.encode())
            keys = source.name == self.jwks.name
            noted_as = f"../{source.name}" if keys else source.name
            copy = self.jwks if keys else self.manifests / source.name
            if copy.exists() and _sum(copy.read_bytes()) != shipped.get(noted_as, ""):
                continue
            copy.write_bytes(content)
            shipped[noted_as] = _sum(content)
        stray = self.manifests / self.jwks.name  # where it was once
        if stray.is_file() and _sum(stray.read_bytes()) == shipped.get(stray.name):
            stray.unlink()
        write_private(noted, json.dumps(shipped).encode())
        # A relative KUBECONFIG=.mesh/kubeconfig goes on working after `cd .mesh/manifests`.
        link = self.manifests / ".mesh"
        if not link.is_symlink():
            link.symlink_to("..")


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
