"""Pod logs: the files that the launcher writes, as ``kubectl logs`` reads them.

Room: control/serve/kube; loud (reads files, in threads). In: ``<logs dir>/<namespace>/<pod>/<container>.log``; the run before the
last restart is ``<container>.previous.log`` (or ``<container>.log.1``). Lines are plain, or in the kubelet's form
``TIME stdout F text``: only that form knows times, so ``--timestamps`` and ``--since`` need it and say so otherwise.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from starlette.requests import Request

from control.serve.kube import status
from control.serve.kube.params import flag, number

__all__ = ["LogOptions", "find", "options", "read", "refuse_untimed"]

_BLOCK = 65536
_POLL_SECONDS = 0.2
_SAFE = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?\Z")
_CRI = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)) (?:stdout|stderr) [FP] ")


@dataclass(frozen=True)
class LogOptions:
    """``since`` in Unix seconds. None: not asked."""

    container: str
    follow: bool
    previous: bool
    timestamps: bool
    tail: int | None
    limit: int | None
    since: float | None


def options(request: Request, now: float) -> LogOptions:
    """The query of ``GET …/pods/NAME/log``; ``now`` is wall time in seconds."""
    seconds, moment = number(request, "sinceSeconds"), request.query_params.get("sinceTime", "")
    since = None if seconds is None else now - seconds
    if moment:
        try:
            since = datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()
        except ValueError:
            raise status.bad_request("query parameter sinceTime must be a time such as 2024-05-01T10:00:00Z") from None
    tail = request.query_params.get("tailLines", "")
    return LogOptions(
        container=request.query_params.get("container", ""),
        follow=flag(request, "follow"),
        previous=flag(request, "previous"),
        timestamps=flag(request, "timestamps"),
        tail=None if tail in ("", "-1") else number(request, "tailLines"),
        limit=number(request, "limitBytes"),
        since=since,
    )


def find(root: Path | None, namespace: str, pod: str, containers: list[str], asked: LogOptions) -> Path | None:
    """The file to read, or None when the container has written nothing yet. ``containers``: those of the pod, in order."""
    container = asked.container
    if not container:
        if len(containers) != 1:
            names = " ".join(containers)
            raise status.bad_request(f"a container name must be specified for pod {pod}, choose one of: [{names}]")
        container = containers[0]
    if container not in containers:
        raise status.bad_request(f"container {container} is not valid for pod {pod}")
    if root is None:
        raise status.bad_request("this control service keeps no logs: start it with --logs DIR")
    if not all(_SAFE.match(part) for part in (namespace, pod, container)):
        raise status.bad_request("a log is named by namespace, pod and container, each a plain name")
    folder = root / namespace / pod
    if asked.previous:
        for name in (f"{container}.previous.log", f"{container}.log.1"):
            if (folder / name).is_file():
                return folder / name
        raise status.bad_request(f'previous terminated container "{container}" in pod "{pod}" not found')
    path = folder / f"{container}.log"
    return path if path.is_file() or asked.follow else None


def _tail_start(file: BinaryIO, lines: int) -> int:
    """Where the last ``lines`` lines begin, reading from the end."""
    end = file.seek(0, os.SEEK_END)
    if lines == 0 or end == 0:
        return end
    file.seek(end - 1)
    wanted = lines + (file.read(1) == b"\n")
    at = end
    while at > 0:
        size = min(_BLOCK, at)
        at -= size
        file.seek(at)
        block = file.read(size)
        count = block.count(b"\n")
        if count < wanted:
            wanted -= count
            continue
        cut = len(block)
        for _ in range(wanted):
            cut = block.rindex(b"\n", 0, cut)
        return at + cut + 1
    return 0


class _Shape:
    """Takes the kubelet's prefix off (or keeps its time); passes plain text as it is. The first bytes decide which it is."""

    def __init__(self, asked: LogOptions) -> None:
        self._asked = asked
        self._cri: bool | None = None
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        if self._cri is None:
            self._cri = _CRI.match(data) is not None
        if not self._cri:
            return data
        *lines, self._rest = (self._rest + data).split(b"\n")
        return b"".join(self._line(line) for line in lines)

    def end(self) -> bytes:
        rest, self._rest = self._rest, b""
        return self._line(rest)[:-1] if rest else b""

    def _line(self, line: bytes) -> bytes:
        found = _CRI.match(line)
        if found is None:
            return line + b"\n"
        if self._asked.since is not None and _moment(found[1]) < self._asked.since:
            return b""
        text = line[found.end() :] + b"\n"
        return found[1] + b" " + text if self._asked.timestamps else text


def _moment(text: bytes) -> float:
    try:
        # more than microseconds is not understood by fromisoformat; a fraction more or less does not matter here
        plain = re.sub(r"\.(\d{1,6})\d*", r".\1", text.decode())
        return datetime.fromisoformat(plain.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return float("inf")


def _open(path: Path, tail: int | None) -> tuple[BinaryIO | None, bytes]:
    """The file at the place to read from, and its first bytes."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None, b""
    first = file.read(64)
    file.seek(0 if tail is None else _tail_start(file, tail))
    return file, first


def refuse_untimed(path: Path, asked: LogOptions) -> None:
    """Refuse to tell times that were not recorded, while there is still a status line to say it with. Reads a few bytes."""
    if not asked.timestamps and asked.since is None:
        return
    file, first = _open(path, None)
    if file is not None:
        file.close()
    if first and not _CRI.match(first):
        flags = "--timestamps" if asked.timestamps else "--since"
        raise status.bad_request(f"this pod's log lines carry no time: ask without {flags}")


async def read(path: Path, asked: LogOptions, stopping: asyncio.Event) -> AsyncIterator[bytes]:
    """The log's bytes. With ``follow`` also what is appended, until the service stops; a file that is rotated or cut short is
    begun anew."""
    file, _ = await asyncio.to_thread(_open, path, asked.tail)
    shape = _Shape(asked)
    left = asked.limit
    try:
        while True:
            data = b"" if file is None else await asyncio.to_thread(file.read, _BLOCK)
            if data:
                shown = shape.feed(data)
                if left is not None:
                    shown, left = shown[:left], left - len(shown[:left])
                if shown:
                    yield shown
                if left == 0:
                    return
                continue
            if not asked.follow or stopping.is_set():
                break
            fresh = await asyncio.to_thread(_replaced, path, file)
            if fresh is not None:
                if file is not None:
                    file.close()
                file = fresh
                continue
            await _pause(stopping)
        if rest := shape.end():
            yield rest if left is None else rest[:left]
    finally:
        if file is not None:
            file.close()


def _replaced(path: Path, file: BinaryIO | None) -> BinaryIO | None:
    """A newly opened file when ``path`` is no longer the one being read, or was cut short."""
    try:
        now = path.stat()
    except FileNotFoundError:
        return None
    if file is not None:
        had = os.fstat(file.fileno())
        if (had.st_ino, had.st_dev) == (now.st_ino, now.st_dev) and now.st_size >= file.tell():
            return None
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


async def _pause(stopping: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(_POLL_SECONDS):
            await stopping.wait()
    except TimeoutError:
        return
