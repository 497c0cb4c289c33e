"""A real API on a real socket, and the real kubectl pointed at it.

``mesh`` serves a MemoryStore; ``stored_mesh`` both stores. Each test has a server of its own, on a free loopback port.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator
from math import inf
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from control.identity import Person
from control.serve.kube import handlers, routes
from control.sources.defaults import ensure_defaults
from control.store.memory import MemoryStore
from control.store.sqlite import SqliteStore

Obj = dict[str, Any]
AnyStore = MemoryStore | SqliteStore


class Mesh:
    """A served store. ``kubectl(...)`` runs the real one; ``http`` speaks to the API directly; ``run`` calls the store."""

    def __init__(self, make: Callable[[], AnyStore], folder: Path) -> None:
        self._make = make
        self._folder = folder
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name="mesh")
        self.logs = folder / "logs"
        self.store: AnyStore
        self.port = 0
        self.http: httpx.Client

    def _serve(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            self._failed = error
            self._ready.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self.store = self._make()
        await self.store.open()
        await ensure_defaults(self.store, "istio-system")
        app = Starlette(routes=routes(self.store, logs_dir=self.logs, stopping=self._stopping), exception_handlers=handlers())

        async def attended(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("state", {})["caller"] = Person("mesh-admin", "admin", "bootstrap", inf)  # the door's part
            await app(scope, receive, send)

        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()  # who connects before the server accepts waits in the queue
            self.port = listener.getsockname()[1]
            config = uvicorn.Config(attended, log_level="warning", ws="none", lifespan="off", access_log=False)
            self._server = uvicorn.Server(config)
            self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
            self._ready.set()
            await self._server.serve(sockets=[listener])
        await self.store.close()

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(10)
        if self._failed is not None:
            raise self._failed
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10, trust_env=False)
        kubeconfig = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "mesh", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "admin", "user": {"token": "none"}}],
            "contexts": [{"name": "mesh", "context": {"cluster": "mesh", "user": "admin"}}],
            "current-context": "mesh",
        }
        self._kubeconfig = self._folder / "kubeconfig"
        self._kubeconfig.write_text(json.dumps(kubeconfig))

    def end_streams(self) -> None:
        """What the service does first when it stops."""
        self._loop.call_soon_threadsafe(self._stopping.set)

    def stop(self) -> None:
        self.end_streams()
        self._loop.call_soon_threadsafe(setattr, self._server, "should_exit", True)
        self._thread.join(10)
        self.http.close()
        assert not self._thread.is_alive()
        if self._failed is not None:
            raise self._failed

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def environment(self, **more: str) -> dict[str, str]:
        home = str(self._folder)
        return {
            **os.environ,
            "KUBECONFIG": str(self._kubeconfig),
            "KUBECACHEDIR": str(self._folder / "cache"),
            "HOME": home,
            "TMPDIR": home,
            **more,
        }

    def kubectl(self, *args: str, stdin: str = "", code: int = 0, program: str = "kubectl", **environment: str) -> str:
        """What it prints, standard output first, then standard error."""
        done = subprocess.run(
            [program, *args],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            env=self.environment(**environment),
        )
        said = done.stdout + done.stderr
        assert done.returncode == code, f"kubectl {' '.join(args)} -> {done.returncode}\n{said}"
        return said

    def popen(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["kubectl", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment(),
        )

    def json(self, *args: str) -> Any:
        return json.loads(self.kubectl(*args, "-o", "json"))


def _served(make: Callable[[], AnyStore], folder: Path) -> Iterator[Mesh]:
    mesh = Mesh(make, folder)
    mesh.start()
    try:
        yield mesh
    finally:
        mesh.stop()


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    yield from _served(MemoryStore, tmp_path)


@pytest.fixture
def short_memory(tmp_path: Path) -> Iterator[Mesh]:
    """A mesh that remembers two changes only."""
    yield from _served(lambda: MemoryStore(max_history=2), tmp_path)


@pytest.fixture(params=["memory", "sqlite"])
def stored_mesh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mesh]:
    if request.param == "memory":
        yield from _served(MemoryStore, tmp_path)
    else:
        yield from _served(lambda: SqliteStore(tmp_path / "mesh.db"), tmp_path)


@pytest.fixture
def manifests() -> Path:
    return Path(__file__).parents[4] / "control" / "demo" / "manifests"
