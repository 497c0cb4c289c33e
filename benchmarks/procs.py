"""What a process tree has used, from /proc: CPU seconds (user and system) and resident memory in MiB."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cpu_seconds", "resident", "tree"]

_TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """The process and its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*"):
        for child in (task / "children").read_text().split():
            found += tree(int(child))
    return found


def cpu_seconds(pid: int) -> float:
    """Of the whole tree: of its living threads to the nanosecond, where the kernel tells; else to a tick (10 ms)."""
    return sum(_scheduled(each) for each in tree(pid))


def _scheduled(pid: int) -> float:
    try:
        files = [task / "schedstat" for task in Path(f"/proc/{pid}/task").iterdir()]
        return sum(int(file.read_text().split()[0]) for file in files) / 1e9
    except OSError:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


def resident(pid: int) -> float:
    """MiB of the largest single process of the tree: the one that carries traffic."""
    sizes = [0.0]
    for each in tree(pid):
        for line in Path(f"/proc/{each}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                sizes.append(int(line.split()[1]) / 1024)
    return max(sizes)
