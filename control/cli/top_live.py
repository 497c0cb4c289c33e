"""``meshctl top`` on a terminal: the table renews itself until ``q`` or Ctrl-C.

In: where answers come from, how they are shown. Out: the terminal as it was before. While control does not answer the last table
stays, with a line that says so.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table as Grid
from rich.text import Text

from control.cli.top_table import Table
from control.client.api import ApiError, Unreachable

__all__ = ["drawn", "live"]

_QUIT = ("q", "Q", "\x03", "\x04")
_LEFT = frozenset(("FROM", "TO", "ROUTE", "SERVICE", "WORKLOAD", "POD", "MTLS", "STATUS", "FLAGS", "ANSWERED BY"))


def live(ask: Callable[[], dict[str, Any]], table: Table, pause: float) -> None:
    """Returns when the user has had enough. Raises what ``ask`` raises the first time."""
    answer, problem = ask(), ""
    with _keys(), Live(console=Console(), screen=True, auto_refresh=False) as screen:
        try:
            while True:
                screen.update(drawn(answer, table, problem, screen.console.height), refresh=True)
                if _pressed(pause):
                    return
                try:
                    answer, problem = ask(), ""
                except (ApiError, Unreachable) as failure:
                    problem = str(failure)
        except KeyboardInterrupt:
            return


def drawn(answer: dict[str, Any], table: Table, problem: str, height: int) -> Group:
    """One screen: as many rows as it has room for."""
    head = Text(f"meshctl top {table.kind} · {table.caption(answer)} · q ends", style="bold", no_wrap=True, overflow="ellipsis")
    parts: list[Any] = [head]
    if problem:
        parts.append(Text(f"no new numbers: {problem}", style="red", no_wrap=True, overflow="ellipsis"))
    parts.append(Text(""))
    if not answer["rows"]:
        return Group(*parts, Text(table.nothing(answer)))
    rows = table.rows(answer)
    room = max(1, height - len(parts) - 2)
    grid = Grid(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for name in table.header:
        grid.add_column(name, justify="left" if name in _LEFT else "right", no_wrap=True, overflow="ellipsis")
    for row, cells in zip(answer["rows"][:room], rows, strict=False):
        grid.add_row(*map(Text, cells), style=_style(row))
    parts.append(grid)
    if (more := len(answer["rows"]) - min(room, len(rows))) > 0:
        parts.append(Text(f"… and {more} more", style="dim"))
    return Group(*parts)


def _style(row: dict[str, Any]) -> str:
    """Colour says nothing that a column does not."""
    if row.get("errorShare", 0) >= 0.05 or row.get("status") in ("STALE", "AWAY", "ERROR"):
        return "red"
    return "yellow" if row.get("errors") else ""


@contextmanager
def _keys() -> Iterator[None]:
    """Keys come at once and unseen, and Ctrl-C still interrupts."""
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    try:
        tty.setcbreak(number)
        yield
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def _pressed(pause: float) -> bool:
    """Waits so long, or until a key that ends it; an end of input ends it too."""
    import time

    until = time.monotonic() + pause
    while (left := until - time.monotonic()) > 0:
        ready, _, _ = select.select([sys.stdin], [], [], left)
        if not ready:
            return False
        read = os.read(sys.stdin.fileno(), 64)
        if not read or any(key in _QUIT for key in read.decode("latin-1")):
            return True
    return False
