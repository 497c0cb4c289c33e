"""Namespaces of pods, joined by a switch in a namespace of its own; the host is one more device on it. Loud; needs root.

In: a ``Layout``. Out: namespaces made and removed; one line (``NoNetwork``) when that cannot be. Beside the namespaces the host
has one device, its address, and files in /etc/netns; a lock in /run says whose they are, and goes with its process.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from control.demo.netns.layout import SIDECAR, Layout

__all__ = ["ETC", "NoNetwork", "attach", "collision", "hold", "problem", "remove", "stale", "switch", "watched"]

ETC = Path("/etc/netns")
_SPACES = Path("/run/netns")
_LOCKS = Path("/run/mesh-netns")
_PROGRAMS = {"ip": "iproute2", "iptables-restore": "iptables", "setpriv": "util-linux"}


class NoNetwork(Exception):
    """A network cannot be made; one line."""


def problem() -> str:
    """Why there can be no namespaces here; one line, or ""."""
    if os.geteuid() != 0:
        return "--netns needs root: sudo, or the demo without it"
    for program, package in _PROGRAMS.items():
        if shutil.which(program) is None:
            return f"--netns needs the program {program}; install the package {package}"
    return ""


def _run(*words: str, text: str | None = None) -> str:
    try:
        done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    except OSError as failure:
        raise NoNetwork(f"{words[0]}: {failure.strerror}") from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"ended with {done.returncode}"
        raise NoNetwork(f"{' '.join(words[:4])}: {said}")
    return done.stdout


def collision(layout: Layout) -> str:
    """What on this host has these addresses already; one line, or ""."""
    for route in json.loads(_run("ip", "-json", "-4", "route", "show", "table", "all")):
        there = str(route.get("dst", ""))
        if there in ("", "default") or route.get("dev") == layout.id:
            continue
        with contextlib.suppress(ValueError):
            other = ipaddress.IPv4Network(there)
            if other.overlaps(layout.range):
                by = f" ({route['dev']})" if "dev" in route else ""
                return f"{layout.range} overlaps this host's route to {other}{by}; choose another --base, such as 192.168.77.0"
    return ""


def hold(layout: Layout) -> int:
    """The lock on this network's names: ours while the file descriptor is open anywhere. Raises ``NoNetwork``."""
    _LOCKS.mkdir(mode=0o755, exist_ok=True)
    lock = os.open(_LOCKS / layout.id, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise NoNetwork(f"another mesh has the network {layout.range}; choose another --base") from None
    try:
        same = os.stat(_LOCKS / layout.id).st_ino == os.fstat(lock).st_ino
    except FileNotFoundError:
        same = False
    if not same:  # whoever had it took the file away just now
        os.close(lock)
        return hold(layout)
    return lock


def stale() -> list[Layout]:
    """Networks that nobody holds: their demo was killed, and its janitor, too."""
    found = []
    for space in _spaces():
        if made := re.match(r"mesh(\d{1,3}-\d{1,3}-\d{1,3})\.", space):
            with contextlib.suppress(ValueError):
                layout = Layout(made[1].replace("-", ".") + ".0")
                if layout.range and layout not in found:
                    found.append(layout)
    return [layout for layout in found if _nobody_s(layout)]


def _nobody_s(layout: Layout) -> bool:
    try:
        os.close(hold(layout))
    except NoNetwork:
        return False
    return True


def _spaces() -> list[str]:
    there = {entry.name for folder in (_SPACES, ETC) if folder.is_dir() for entry in folder.iterdir()}
    return sorted(there)


def switch(layout: Layout) -> None:
    """The namespace with the bridge, and the host's device on it."""
    space = layout.switch_space
    _run("ip", "netns", "add", space)
    lines = [
        f"link add name {layout.id} type veth peer name host netns {space}",
        f"addr add {layout.host}/24 dev {layout.id}",
        f"link set {layout.id} up",
    ]
    _batch(lines)
    _batch(
        [
            "link add name br0 type bridge forward_delay 0",
            f"addr add {layout.switch}/24 dev br0",
            "link set host master br0",
            *(f"link set {device} up" for device in ("lo", "host", "br0")),
        ],
        space,
    )


def attach(layout: Layout, space: str, address: str, hosts: str, captured: bool) -> None:
    """A namespace for a pod, its device on the switch, its names; ``captured``: with the rules of interception."""
    folder = ETC / space
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    (folder / "hosts").write_text(hosts)
    # Nobody answers names here: what is not in the hosts file is unknown at once.
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    _run("ip", "netns", "add", space)
    device = f"p{address.rpartition('.')[2]}"
    _batch([f"link add name {device} netns {layout.switch_space} type veth peer name eth0 netns {space}"])
    _batch([f"link set {device} master br0", f"link set {device} up"], layout.switch_space)
    _batch(
        [
            "link set lo up",
            f"addr add {address}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {layout.switch}",
        ],
        space,
    )
    # As container runtimes have it: ports below 1024 need no rights.
    _run("ip", "netns", "exec", space, "sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start")
    if captured:
        arguments = ("-p", "15001", "-z", "15006", "-u", str(SIDECAR), "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*")
        init = (sys.executable, "-P", "-m", "meshproxy.capture", *arguments, "-d", "15090,15021,15020")
        _run("ip", "netns", "exec", space, *init)


def _batch(lines: Iterable[str], space: str = "") -> None:
    _run("ip", *(("-netns", space) if space else ()), "-batch", "-", text="".join(line + "\n" for line in lines))


def remove(layout: Layout, only: Sequence[str] = ()) -> None:
    """All of a network, or ``only`` these namespaces: processes, devices, files. What is gone already is no failure."""
    for space in only or [space for space in _spaces() if layout.owns(space)]:
        with contextlib.suppress(NoNetwork):
            for pid in _run("ip", "netns", "pids", space).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        with contextlib.suppress(NoNetwork):
            _run("ip", "netns", "del", space)
        shutil.rmtree(ETC / space, ignore_errors=True)
    if not only:
        with contextlib.suppress(NoNetwork):  # its peer's namespace took it along, when the kernel came to it
            _run("ip", "link", "del", layout.id)
        (_LOCKS / layout.id).unlink(missing_ok=True)
        for folder in (ETC, _LOCKS):
            with contextlib.suppress(OSError):
                folder.rmdir()


def watched(layout: Layout, lock: int | None, only: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """A janitor that removes when we close its input, by will or by dying. It keeps the lock until it has."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "control.demo.netns.janitor", layout.network, *only],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[] if lock is None else [lock],
        start_new_session=True,
    )
