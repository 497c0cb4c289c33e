"""The state directory of one control service: who holds it, where things are, and the kubeconfig that is left in it.

In: ``--state``. Out: ``StateDir`` with paths, ``lock``, ``write_kubeconfig``, ``write_running``; ``kubeconfig_text``. All its
errors are ``FileProblem``, one line each. The admin token goes into the kubeconfig (0600) and nowhere else.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
from pathlib import Path
from typing import Any

import yaml

from control.files import FileProblem, write_private

__all__ = ["StateDir", "kubeconfig_text"]


class StateDir:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = path / "mesh.db"
        self.ledger = path / "certificates.db"
        self.traces = path / "traces.db"
        self.key_sets = path / "key-sets.json"
        self.ca = path / "ca"
        self.root_pem = self.ca / "root.pem"
        self.kubeconfig = path / "kubeconfig"
        self.running = path / "control.json"
        self._lock: int | None = None

    def lock(self) -> None:
        """Make the directory if needed (0700) and hold it until the process ends. Raises ``FileProblem`` if another has it."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self.path / "control.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise FileProblem(f"--state {self.path}: cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
            os.close(handle)
            who = f"process {holder}" if holder.isdigit() else "another process"
            raise FileProblem(
                f"--state {self.path}: mesh-control already runs on it ({who}): stop that one, or give another directory"
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        self._lock = handle

    def release(self) -> None:
        """Let another process have the directory; ``control.json`` goes, the rest stays."""
        if self._lock is not None:
            self.running.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def write_kubeconfig(self, server: str, root_pem: bytes, token: str) -> None:
        """``server``: https URL; ``root_pem``: one root or, during a rotation, two.

        Replaces the file atomically; it is 0600 from its first byte.
        """
        write_private(self.kubeconfig, kubeconfig_text(server, root_pem, "mesh-admin", token).encode())

    def write_running(self, server: str, metrics: str) -> None:
        """``control.json``: where this process really listens, for those who asked for port 0."""
        facts = {"pid": os.getpid(), "server": server, "metrics": metrics, "kubeconfig": str(self.kubeconfig.absolute())}
        write_private(self.running, json.dumps(facts).encode() + b"\n")


def kubeconfig_text(server: str, root_pem: bytes, user: str, token: str) -> str:
    """Without ``root_pem`` the server is checked by the system's roots."""
    authority = {"certificate-authority-data": base64.b64encode(root_pem).decode()} if root_pem else {}
    config: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "mesh", "cluster": {"server": server, **authority}}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "mesh", "context": {"cluster": "mesh", "user": user, "namespace": "default"}}],
        "current-context": "mesh",
    }
    text: str = yaml.safe_dump(config, sort_keys=False)
    return text
