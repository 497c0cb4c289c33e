"""The child of ``meshctl proxy``: its ports judged before it starts, and its life until its configuration is in force.

In: addresses and arguments. Out: a running ``meshproxy``, or a ``CliError`` that names the address and the flag. Loud. The
child's own words would name a temporary file, so whatever can be known before is found out here.
"""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from ipaddress import ip_address
from typing import Any, NamedTuple

from control.cli.errors import CliError

__all__ = ["Door", "await_force", "exit_code", "free_ports", "judge", "start"]

PATIENCE = 30.0  # seconds until a child that runs must have its first configuration in force
PAUSE = 0.02  # seconds between questions to it


class Door(NamedTuple):
    """An address that the child will listen on, and the flag that moves it."""

    host: str
    port: int
    flag: str

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def judge(doors: Iterable[Door]) -> None:
    """Bind every address and let go of it. Raises ``CliError`` for the first that is not to be had."""
    with ExitStack() as held:
        for door in doors:
            try:
                held.enter_context(_bound(door.host, door.port))
            except OverflowError:
                raise CliError(f"{door.flag} {door.port}: must be between 0 and 65535", code=2) from None
            except OSError as refused:
                raise CliError(f"cannot listen on {door}: {_why(refused, door)}") from None


def free_ports(host: str, count: int) -> list[int]:
    """So many different ports that nobody has now."""
    with ExitStack() as held:
        return [int(held.enter_context(_bound(host, 0)).getsockname()[1]) for _ in range(count)]


def _bound(host: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except BaseException:
        made.close()
        raise
    return made


def _why(refused: OSError, door: Door) -> str:
    reason = (refused.strerror or str(refused)).lower()
    if refused.errno == errno.EADDRNOTAVAIL:
        return f"{reason}; --listen takes an address of this machine"
    low = refused.errno in (errno.EACCES, errno.EPERM)
    return f"{reason}; choose another port{' above 1023' if low else ''} with {door.flag}"


def start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    from control.children import die_with_parent

    argv = [sys.executable, "-P", "-m", "meshproxy", *arguments]
    return subprocess.Popen(argv, start_new_session=True, preexec_fn=die_with_parent())


def await_force(child: subprocess.Popen[bytes], admin: Door, config: str) -> int | None:
    """None once the child obeys its configuration; its exit code if it ends before. Raises ``CliError`` with the child's reason,
    without the name of the file it came from."""
    deadline = time.monotonic() + PATIENCE
    while child.poll() is None:
        info = _info(admin)
        if info.get("state") == "LIVE":
            return None
        problem = str(info.get("control", {}).get("last_error") or "")
        if problem:
            raise CliError(problem.removeprefix(f"{config}: ").partition("; the last good")[0])
        if time.monotonic() > deadline:
            raise CliError(f"the proxy did not become ready within {PATIENCE:g} s")
        time.sleep(PAUSE)
    return exit_code(child.returncode)


def exit_code(returncode: int) -> int:
    """As a shell says it: a signal is 128 and its number."""
    return returncode if returncode >= 0 else 128 - returncode


def _info(admin: Door) -> dict[str, Any]:
    """The child's page about itself; {} while it does not answer."""
    import http.client
    import json

    address = ip_address(admin.host)
    host = ("::1" if address.version == 6 else "127.0.0.1") if address.is_unspecified else admin.host
    asking = http.client.HTTPConnection(host, admin.port, timeout=5)
    try:
        asking.request("GET", "/server_info")
        told = json.loads(asking.getresponse().read())
    except (OSError, ValueError, http.client.HTTPException):
        return {}
    finally:
        asking.close()
    return told if isinstance(told, dict) else {}
