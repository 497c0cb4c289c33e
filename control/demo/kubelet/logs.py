"""Container logs on disk, where the API's ``pods/log`` reads them, and their bounds.

In: the logs directory. Out: ``<logs>/<namespace>/<pod>/<container>.log``; the run before it as ``.previous.log``; what
outgrew the bound as ``.log.1``. Loud. Programs write to the file themselves, so a stalled launcher never blocks them.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

__all__ = ["LIMIT", "fresh", "path_of", "rotate", "tail"]

LIMIT = 8 * 1024 * 1024  # bytes of one container's log before it is cut


def path_of(logs: Path, namespace: str, pod: str, container: str) -> Path:
    return logs / namespace / pod / f"{container}.log"


def fresh(log: Path) -> None:
    """Make room for a new run: what is there becomes the previous run's log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size:
        log.replace(log.with_name(f"{log.stem}.previous.log"))
    log.touch(mode=0o600)


def rotate(log: Path, limit: int = LIMIT) -> bool:
    """Copy and cut a log over ``limit`` bytes. The writer appends, so it goes on at the new end; true when it was cut."""
    try:
        if log.stat().st_size <= limit:
            return False
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)
    except FileNotFoundError:
        return False
    return True


def tail(log: Path, lines: int = 1) -> str:
    """The last lines that say something, for an error message."""
    try:
        with log.open("rb") as source:
            source.seek(max(0, log.stat().st_size - 4096))
            text = source.read().decode(errors="replace")
    except OSError:
        return ""
    said = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(said[-lines:])
