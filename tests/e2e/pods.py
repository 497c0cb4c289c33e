"""Two pods without Kubernetes: network namespaces joined by a wire, iptables that send everything through real sidecars.

Needs root. Names are this process's own, and nothing of them is left when the test is over. The rules are ``mesh-init``'s. Apps
are the test's own sockets, which know of no proxy.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from meshproxy.model.base import Model, encode, fingerprint
from tests.certs import Authority, spiffe
from tests.e2e.support.sockets import WAIT, Peer, until

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
SIDECAR = 1337
# The sidecar's own user. The test's Python may be where only root can look, so one capability is left to it: to read everything.
_READS = "+dac_read_search"
_AS_SIDECAR = (
    *("setpriv", f"--reuid={SIDECAR}", f"--regid={SIDECAR}", "--clear-groups", "--bounding-set=-all,+dac_read_search"),
    *(f"--inh-caps={_READS}", f"--ambient-caps={_READS}"),
)
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("ip", "iptables", "ip6tables", "setpriv"))),
    reason="needs root, ip, iptables and setpriv",
)


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


class Space:
    """A network namespace."""

    def __init__(self, name: str) -> None:
        self.name = name
        run("ip", "netns", "add", name)
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *words: str) -> str:
        return run("ip", "netns", "exec", self.name, *words)

    def within(self, call: Callable[[], T]) -> T:
        """In a thread of its own: what it opens belongs to this namespace."""
        found: list[T] = []
        failed: list[BaseException] = []

        def enter() -> None:
            try:
                with open(f"/var/run/netns/{self.name}") as file:
                    if _libc.setns(file.fileno(), _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                found.append(call())
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return found[0]

    def connect(self, address: str, port: int) -> Peer:
        """An app that calls."""

        def dial() -> Peer:
            sock = socket.socket(_family(address))
            sock.settimeout(WAIT)
            try:
                sock.connect((address, port))
            except BaseException:
                sock.close()
                raise
            return Peer(sock)

        return self.within(dial)

    def listen(self, address: str, port: int) -> App:
        return self.within(lambda: App(address, port))

    def sniff(self, device: str) -> Wiretap:
        return self.within(lambda: Wiretap(device))

    def delete(self) -> None:
        subprocess.run(("ip", "netns", "del", self.name), capture_output=True, check=False)


class App:
    """One that listens; the test takes its connections by hand."""

    def __init__(self, address: str, port: int) -> None:
        self.sock = socket.socket(_family(address))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind((address, port))
        self.sock.listen(16)
        self.sock.settimeout(WAIT)
        self.source = ""  # of the last connection

    def accept(self) -> Peer:
        sock, address = self.sock.accept()
        self.source = address[0]
        return Peer(sock)

    def __enter__(self) -> App:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


class Wiretap:
    """All that passes a device."""

    def __init__(self, device: str) -> None:
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
        self.sock.bind((device, 0))
        self.sock.setblocking(False)

    def seen(self) -> bytes:
        parts = []
        with contextlib.suppress(BlockingIOError):
            while True:
                parts.append(self.sock.recv(65536))
        return b"".join(parts)

    def close(self) -> None:
        self.sock.close()


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def intercept(space: Space) -> None:
    """What the init container does, by its own program."""
    ports = ("-p", "15001", "-z", "15006", "-u", str(SIDECAR), "-g", str(SIDECAR))
    scope = ("-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*", "-d", "15090,15021,15020")
    space.run("env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "meshproxy.capture", *ports, *scope)


class Pod:
    """A namespace with a sidecar, whose configuration is ``resources``."""

    def __init__(self, space: Space, name: str, ip: str, device: str, home: Path, authority: Authority) -> None:
        self.space = space
        self.name = name
        self.ip = ip
        self.device = device
        self._home = home
        pair = authority.issue(spiffe(name))
        for file, content in (("cert", pair.certificate), ("key", pair.key), ("roots", authority.pem)):
            (home / f"{name}.{file}").write_bytes(content)
        self.process: subprocess.Popen[bytes] | None = None
        self.log_file = home / f"{name}.log"
        self.access_file = home / f"{name}.access"
        self.access_file.touch()
        os.chown(self.access_file, SIDECAR, SIDECAR)

    def start(self, *resources: tuple[str, Model]) -> None:
        config = self._home / f"{self.name}.json"
        documents = []
        for kind, value in resources:
            body = encode(value)
            name = value.name  # type: ignore[attr-defined]
            documents.append({"kind": kind, "name": name, "version": fingerprint(body), "body": msgspec.Raw(body)})
        config.write_bytes(encode({"resources": documents}))
        files = [f"--identity-{file}={self._home / f'{self.name}.{file}'}" for file in ("cert", "key", "roots")]
        command = [
            *("ip", "netns", "exec", self.space.name, *_AS_SIDECAR),
            *(sys.executable, "-m", "meshproxy", "--ip", self.ip, "--pod", self.name, "--workload-name", self.name),
            *("--namespace", "default", "--drain-seconds", "0.2", "--access-log", str(self.access_file)),
            *("--config", str(config), *files),
        ]
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environ)
        until(self._up, f"the sidecar of {self.name} is ready", 30)

    def _up(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.log()
        try:
            return self.page("/ready").startswith("HTTP/1.1 200")
        except OSError:
            return False

    def page(self, path: str, port: int = 15000) -> str:
        with self.space.connect(self.ip, port) as peer:
            peer.send(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
            return peer.rest().decode()

    def metric(self, name: str, **labels: str) -> float:
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = self.page("/stats/prometheus", 15020).splitlines()
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.startswith(f"{name}{{") and all(one in line for one in wanted)
        )

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def access(self) -> str:
        return self.access_file.read_text(errors="replace")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextlib.contextmanager
def two_pods() -> Iterator[tuple[Pod, Pod]]:
    """10.77.0.1 and 10.77.0.2, fd77::1 and fd77::2; every other address leads over the wire, too."""
    mark = f"{os.getpid()}x{next(_numbers)}"
    spaces: list[Space] = []
    pods: list[Pod] = []
    with tempfile.TemporaryDirectory(prefix="pods") as folder:
        home = Path(folder)
        os.chmod(home, 0o755)
        authority = Authority()
        try:
            for side in "ab":
                spaces.append(Space(f"mt{mark}{side}"))
            devices = [f"v{mark}{side}"[-15:] for side in "ab"]
            run(
                "ip",
                "link",
                "add",
                devices[0],
                "netns",
                spaces[0].name,
                "type",
                "veth",
                "peer",
                devices[1],
                "netns",
                spaces[1].name,
            )
            for number, (space, device, other) in enumerate(zip(spaces, devices, (2, 1), strict=True), 1):
                space.run("ip", "addr", "add", f"10.77.0.{number}/24", "dev", device)
                space.run("ip", "-6", "addr", "add", f"fd77::{number}/64", "dev", device, "nodad")
                space.run("ip", "link", "set", device, "up")
                space.run("ip", "route", "add", "default", "via", f"10.77.0.{other}")
                space.run("ip", "-6", "route", "add", "default", "via", f"fd77::{other}")
                intercept(space)
                pods.append(Pod(space, "caller" if number == 1 else "callee", f"10.77.0.{number}", device, home, authority))
            yield pods[0], pods[1]
            for pod in pods:
                assert "bug in" not in pod.log() and "Traceback" not in pod.log(), pod.log()
        finally:
            for pod in pods:
                pod.stop()
            for space in spaces:
                space.delete()


def resources(*models: Any) -> tuple[tuple[str, Model], ...]:
    return tuple((type(model).__name__.lower().replace("routeconfig", "route"), model) for model in models)
