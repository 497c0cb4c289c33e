"""iptables as programs: which of them is in use here, what is there, taking it up. Loud.

In: rules as ``rules`` writes them. Out: the kernel's tables changed, both families or none. Assumes CAP_NET_ADMIN and
the programs of the package ``iptables``, in the namespace that this process is in.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from meshproxy.capture import rules
from meshproxy.capture.rules import Table

__all__ = ["Backend", "Cannot", "Tables", "apply", "detect"]

_NAMES = {4: "iptables", 6: "ip6tables"}
_WAIT = "30"  # seconds for the lock that older iptables share


class Cannot(Exception):
    """It cannot be done; one line."""


@dataclass(frozen=True)
class Backend:
    """One variant of the programs: ``kind`` "-nft", "-legacy", or "" where there is no choice."""

    family: int
    kind: str

    def program(self, verb: str) -> str:
        return f"{_NAMES[self.family]}{self.kind}-{verb}"

    def saved(self) -> str:
        return _run([self.program("save")])

    def restore(self, text: str) -> None:
        _run([self.program("restore"), "--noflush", "-w", _WAIT], text)


def _run(command: list[str], text: str = "") -> str:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except OSError as failure:
        raise Cannot(f"{command[0]}: {failure.strerror}") from None
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip() and not line.startswith("#")]
        why = "; ".join(said[:3]) or f"ended with {done.returncode}"
        rights = "Permission denied" in why or "Operation not permitted" in why
        raise Cannot(f"{command[0]}: {why}{'; it needs the capability NET_ADMIN' if rights else ''}")
    return done.stdout


def detect(family: int, like: str = "-nft") -> Backend:
    """The variant whose rules are in use here, else one that works, ``like`` this if it does. Raises ``Cannot``."""
    name = _NAMES[family]
    kinds = [kind for kind in ("-nft", "-legacy") if _there(name, kind)] or ([""] if _there(name, "") else [])
    if not kinds:
        raise Cannot(f"there is no {name}-restore here; install the package iptables")
    working: list[tuple[Backend, str]] = []
    failures: list[str] = []
    for kind in kinds:
        backend = Backend(family, kind)
        try:
            working.append((backend, backend.saved()))
        except Cannot as failure:
            failures.append(str(failure))
    if not working:
        raise Cannot(failures[0])
    working.sort(key=lambda one: one[0].kind != like)
    # Rules in both variants would be asked one after the other; ours belong where others are already.
    for backend, saved in working:
        if any(line.startswith("-A ") for line in saved.splitlines()):
            return backend
    return working[0][0]


def _there(name: str, kind: str) -> bool:
    return all(shutil.which(f"{name}{kind}-{verb}") for verb in ("save", "restore"))


Tables = Mapping[str, Table]


def apply(changes: list[tuple[Backend, Tables, Tables]], say: Callable[[str], None]) -> None:
    """(programs, what is there, what shall be) of each family. When one fails those before are put back. Raises ``Cannot``."""
    done: list[tuple[Backend, Tables, Tables]] = []
    for backend, there, tables in changes:
        text = rules.transition(there, tables)
        say(f"{backend.program('restore')} --noflush:\n{text}")
        try:
            backend.restore(text)
        except Cannot as failure:
            left = ""
            for one, before, after in reversed(done):
                try:
                    one.restore(rules.transition(rules.found(one.saved(), after), before))
                except Cannot as worse:
                    left = f"; and what was changed for IPv{one.family} could not be put back: {worse}"
            raise Cannot(f"{failure}{left or '; nothing was changed'}") from None
        done.append((backend, there, tables))
