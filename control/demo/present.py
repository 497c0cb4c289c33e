"""What the launcher tells a person: progress, the table of addresses, the lines to paste.

In: pods and addresses. Out: text for a terminal, or JSON lines for the process that waits for a detached launcher. Loud,
but without threads: the launcher forks.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from typing import IO, Protocol

from control.demo.kubelet.pod import Pod
from control.demo.plan import (
    ADMIN,
    APP_PORT,
    CONTROL_METRICS,
    CONTROL_PORT,
    HEALTH,
    INBOUND,
    METRICS,
    OUTBOUND,
    SERVICE_PORT,
    Addresses,
)
from control.demo.state import State

__all__ = ["Pipe", "Reporter", "Terminal", "report", "summary"]


class Reporter(Protocol):
    def progress(self, line: str) -> None: ...
    def note(self, line: str) -> None: ...
    def ready(self, text: str) -> None: ...
    def failed(self, line: str) -> None: ...


class Terminal:
    """Progress is one line that rewrites itself, on a terminal only; everything else is plain lines."""

    def __init__(self, out: IO[str] | None = None, err: IO[str] | None = None) -> None:
        self._out, self._err = out or sys.stdout, err or sys.stderr
        self._live = self._err.isatty()
        self._shown = False

    def progress(self, line: str) -> None:
        if self._live:
            wide = shutil.get_terminal_size().columns - 1  # a line that wraps could not be rewritten
            self._err.write(f"\r\x1b[2K{line if len(line) <= wide else line[: wide - 1] + '…'}")
            self._err.flush()
            self._shown = True

    def _clear(self) -> None:
        if self._shown:
            self._err.write("\r\x1b[2K")
            self._err.flush()
            self._shown = False

    def note(self, line: str) -> None:
        self._clear()
        _say(line, self._err)

    def ready(self, text: str) -> None:
        self._clear()
        _say(text, self._out)

    def failed(self, line: str) -> None:
        self._clear()
        _say(f"error: {line}", self._err)


def _say(text: str, to: IO[str]) -> None:
    try:
        print(text, file=to, flush=True)
    except BrokenPipeError:  # its reader has gone (`| head -1`): no reason to end, nor for the interpreter to complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), to.fileno())


class Pipe:
    """To the process that waits: one JSON document per line; silent once that one has gone, notes go to the log."""

    def __init__(self, out: IO[str], log: IO[str] | None = None) -> None:
        self._out: IO[str] | None = out
        self._log = log or sys.stderr

    def _send(self, kind: str, text: str) -> None:
        if self._out is None:
            return
        try:
            print(json.dumps([kind, text]), file=self._out, flush=True)
        except OSError:
            self._out = None

    def progress(self, line: str) -> None:
        self._send("progress", line)

    def note(self, line: str) -> None:
        print(line, file=self._log, flush=True)

    def ready(self, text: str) -> None:
        self._send("ready", text)
        self._out = None

    def failed(self, line: str) -> None:
        self._send("failed", line)
        print(f"error: {line}", file=self._log, flush=True)


def summary(pods: Sequence[Pod]) -> str:
    return "starting: " + ", ".join(f"{pod.plan.name} {pod.summary()}" for pod in pods)


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    padded = [[*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]] for row in rows]
    return "\n".join("  ".join(row).rstrip() for row in padded)


def report(addresses: Addresses, state: State, foreground: bool, kept: Sequence[str] = ()) -> str:
    """``mesh ready``, the table, and what to paste into another shell."""
    if addresses.netns:
        ports = f"intercepts in :{INBOUND}, out :{OUTBOUND}; health :{HEALTH}, metrics :{METRICS}"
    else:
        ports = f"inbound :{SERVICE_PORT}, outbound proxy :{OUTBOUND}, admin :{ADMIN}, health :{HEALTH}, metrics :{METRICS}"
    rows = [("POD", "ADDRESS", "APP", "SIDECAR")]
    for number, pod in enumerate(("book-service", "rating-service-v1", "rating-service-v2"), 1):
        rows.append((pod, addresses.pod(number), f":{APP_PORT}", ports))
    traffic = f"user traffic on {addresses.user_traffic}:{addresses.port}, admin :{ADMIN}, health :{HEALTH}, metrics :{METRICS}"
    rows.append(("istio-ingressgateway", addresses.gateway, "", traffic))
    api = f":{CONTROL_PORT} HTTPS: API, configuration; :{CONTROL_METRICS} metrics"
    rows.append(("control", addresses.control, "", api))
    within = addresses.layout.space("default", "book-service") if addresses.netns else ""
    inside = f"In a pod, as its app, which knows of no proxy:  ip netns exec {within} curl -s rating:{SERVICE_PORT}/rate/1"
    scripts = sysconfig.get_path("scripts")
    option = "" if state.path.name == ".mesh" else f" --state {shlex.quote(str(state.path))}"
    return "\n".join(
        (
            "mesh ready",
            "",
            _table(rows),
            "",
            "Paste into another shell:",
            f"  export PATH={shlex.quote(scripts)}:$PATH",
            f"  export KUBECONFIG={shlex.quote(str(state.kubeconfig))}",
            f"  cd {shlex.quote(str(state.manifests))}",
            "",
            *([f"Kept from an earlier run: {', '.join(kept)}  (--fresh begins without)", ""] if kept else []),
            *([inside, ""] if within else []),
            f"Then:  kubectl get pods;  curl {addresses.user_traffic}:{addresses.port}/book/1",
            "Ctrl-C stops the mesh." if foreground else f"`meshctl demo --stop{option}` stops the mesh.",
        )
    )
