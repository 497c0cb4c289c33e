"""Telemetry room: where lines of the access log go. Loud. Never holds traffic up: they wait in a bounded buffer for a thread of
its own.

In: lines (``write``), from the loop's thread. Out: the file. When the buffer is full (the disk or the reader of stdout is slow),
lines are dropped and counted. The thread starts with the first line, so that a log made before a fork works after it.
"""

from __future__ import annotations

import logging
import os
import threading

__all__ = ["BUFFER", "LogFile"]

log = logging.getLogger("meshproxy.accesslog")

BUFFER = 4 << 20  # bytes
_BATCH_DELAY = 0.05  # seconds that the thread lets lines gather, so that a busy proxy makes few writes


class LogFile:
    """Writes to a path (appended to; /dev/stdout works). Constructing opens nothing. ``size``: bytes that wait."""

    def __init__(self, path: str, limit: int = BUFFER) -> None:
        """limit: bytes that may wait to be written."""
        self.path = path
        self._limit = limit
        self._lines: list[bytes] = []
        self._lock = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._reopen = False
        self.size = 0
        self.dropped = 0

    def write(self, line: bytes) -> None:
        """Take one line, with its end. Never blocks and never raises for what the disk does."""
        with self._lock:
            if self._closing or self.size + len(line) > self._limit:
                self.dropped += 1
                return
            self._lines.append(line)
            self.size += len(line)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
                self._thread.start()
            elif len(self._lines) == 1:
                self._lock.notify()

    def reopen(self) -> None:
        """After a log rotation: open the path again before the next line."""
        with self._lock:
            self._reopen = True

    def close(self, timeout: float = 2.0) -> None:
        """Write out what is left; wait at most ``timeout`` seconds for that."""
        with self._lock:
            self._closing = True
            self._lock.notify()
        if self._thread is not None and timeout:
            self._thread.join(timeout)

    def _run(self) -> None:
        descriptor = -1
        complained = False
        while True:
            with self._lock:
                while not self._lines and not self._closing:
                    self._lock.wait()
                if not self._closing:
                    self._lock.wait_for(lambda: self._closing or self.size > self._limit // 2, _BATCH_DELAY)
                lines, closing = self._lines, self._closing
                self._lines = []
                reopen, self._reopen = self._reopen, False
            try:
                if reopen and descriptor >= 0:
                    os.close(descriptor)
                    descriptor = -1
                if lines and descriptor < 0:
                    descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
                _write_all(descriptor, b"".join(lines))
                complained = False
            except OSError as error:
                with self._lock:
                    self.dropped += len(lines)
                if not complained:  # once per outage, not once per line
                    complained = True
                    log.error("access log %s: %s; lines are dropped", self.path, error.strerror)
            finally:
                with self._lock:
                    self.size = sum(map(len, self._lines))  # what was being written counts as buffered until now
            if closing and not self._lines:
                break
        if descriptor >= 0:
            os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
