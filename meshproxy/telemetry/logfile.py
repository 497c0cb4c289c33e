"""Telemetry room: where lines of the access log go. Loud. Never holds traffic up: they wait in a bounded buffer for a thread of
its own.

In: lines (``write``), from the loop's thread and no other. Out: the file. When the buffer is full (the disk or the reader of
stdout is slow), lines are dropped and counted. The thread starts with the first line, so that a log made before a fork works
after it.

A line takes no lock (benchmarks/micro_telemetry.py "access log line, taken for the file"): the loop's thread appends to the list,
the other takes from its beginning, each counts in counters of its own, and what either does is one step under the interpreter's
lock. Only waking a thread that waits takes one.
"""

from __future__ import annotations

import logging
import os
import threading
from bisect import bisect_right
from itertools import accumulate

__all__ = ["BUFFER", "LogFile"]

log = logging.getLogger("meshproxy.accesslog")

BUFFER = 4 << 20  # bytes
_BATCH_DELAY = 0.05  # seconds that the thread lets lines gather, so that a busy proxy makes few writes


class LogFile:
    """Writes to a path (appended to; /dev/stdout works). Constructing opens nothing."""

    def __init__(self, path: str, limit: int = BUFFER) -> None:
        """limit: bytes that may wait to be written."""
        self.path = path
        self._limit = limit
        self._lines: list[bytes] = []
        self._lock = threading.Condition()
        self._thread: threading.Thread | None = None
        self._idle = False  # the thread waits to be woken
        self._closing = False
        self._reopen = False
        self._taken = self._done = 0  # bytes: taken by the loop's thread, written or lost by the other
        self._refused = self._lost = 0  # lines: by the loop's thread, by the other

    @property
    def size(self) -> int:
        """Bytes that wait; what is being written does until it is."""
        return self._taken - self._done

    @property
    def dropped(self) -> int:
        """Lines, ever."""
        return self._refused + self._lost

    @property
    def ended(self) -> bool:
        """Closed, and nothing is written any more."""
        return self._closing and (self._thread is None or not self._thread.is_alive())

    def write(self, line: bytes) -> None:
        """Take one line, with its end. Never blocks and never raises for what the disk does. Hot."""
        size = len(line)
        if self._closing or self._taken - self._done + size > self._limit:
            self._refused += 1
            return
        self._lines.append(line)
        self._taken += size
        if self._idle:
            self._wake()
        elif self._thread is None:
            self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
            self._thread.start()

    def reopen(self) -> None:
        """After a log rotation: open the path again before the next line."""
        self._reopen = True

    def close(self, timeout: float = 2.0) -> None:
        """Write out what is left; wait at most ``timeout`` seconds for that."""
        self._closing = True
        self._wake()
        if self._thread is not None and timeout:
            self._thread.join(timeout)

    def _wake(self) -> None:
        with self._lock:
            self._idle = False
            self._lock.notify()

    def _gather(self) -> list[bytes]:
        """Wait for lines, and a little longer for more. None come any more: nothing."""
        with self._lock:
            self._idle = True  # said before it looks: a line that comes in between sees it, and wakes
            while not self._lines and not self._closing:
                self._lock.wait()
                self._idle = True
            self._idle = False
            if not self._closing:
                self._lock.wait(_BATCH_DELAY)
        return self._lines[:]

    def _run(self) -> None:
        descriptor = -1
        complained = torn = False
        while lines := self._gather():
            data = b"".join(lines)
            left = memoryview(data)
            try:
                if self._reopen:
                    self._reopen = torn = False
                    if descriptor >= 0:
                        os.close(descriptor)
                        descriptor = -1
                if descriptor < 0:
                    descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
                if torn:  # what comes now must not look like the rest of a line that a full disk cut
                    torn = not os.write(descriptor, b"\n")
                while left:
                    left = left[os.write(descriptor, left) :]
                complained = False
            except OSError as error:
                written = len(data) - len(left)
                torn = torn if not written else data[written - 1 : written] != b"\n"
                self._lost += len(lines) - bisect_right(list(accumulate(map(len, lines))), written)
                if not complained:  # once per outage, not once per line
                    complained = True
                    log.error("access log %s: %s; lines are dropped", self.path, error.strerror)
            finally:
                del self._lines[: len(lines)]
                self._done += len(data)
        if descriptor >= 0:
            os.close(descriptor)
