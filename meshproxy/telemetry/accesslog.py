"""Telemetry room: the access log. Loud. Never holds traffic up: lines go to a bounded buffer that a thread of its own writes out.

In: finished records (``write``), from the loop's thread. Out: lines, in Istio's default text, as JSON or in the user's format.
When the buffer is full (the disk or the reader of stdout is slow), lines are dropped and counted. The thread starts with the
first line, so that a log made before a fork works after it.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from meshproxy.policy import format as log_format

if TYPE_CHECKING:
    from meshproxy.message.record import ExchangeRecord

__all__ = ["JSON_FIELDS", "AccessLog", "formatter"]

log = logging.getLogger("meshproxy.accesslog")

BUFFER = 4 << 20  # bytes
_BATCH_DELAY = 0.05  # seconds that the thread lets lines gather, so that a busy proxy makes few writes

# Istio's JSON access log: its keys and what fills them.
JSON_FIELDS = {
    "start_time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "response_code": "%RESPONSE_CODE%",
    "response_flags": "%RESPONSE_FLAGS%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
    "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration": "%DURATION%",
    "upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
    "user_agent": "%REQ(USER-AGENT)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "authority": "%REQ(:AUTHORITY)%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%",
    "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
    "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "requested_server_name": "%REQUESTED_SERVER_NAME%",
    "route_name": "%ROUTE_NAME%",
}
_NUMBERS = frozenset({"response_code", "bytes_received", "bytes_sent", "duration", "upstream_service_time"})


def formatter(encoding: str = "TEXT", text: str = "") -> Callable[[ExchangeRecord], bytes]:
    """Record -> one line with its end. text: a format in Envoy's operators, "" for Istio's. Raises ``policy.invalid.Invalid``."""
    hostname = socket.gethostname()
    if encoding == "JSON":
        fields = [
            (name, name in _NUMBERS, log_format.compile(operator, name, b"", hostname)) for name, operator in JSON_FIELDS.items()
        ]
        encode = msgspec.json.Encoder().encode

        def as_json(record: ExchangeRecord) -> bytes:
            line: dict[str, str | int | None] = {}
            for name, number, read in fields:
                value = read(record)
                if number and value.isdigit():
                    line[name] = int(value)
                else:
                    line[name] = value.decode("utf-8", "backslashreplace") or None
            return encode(line) + b"\n"

        return as_json
    compiled = log_format.compile(text or log_format.ISTIO_DEFAULT, "access_log_format", b"-", hostname)
    if (text or log_format.ISTIO_DEFAULT).endswith("\n"):
        return compiled
    return lambda record: compiled(record) + b"\n"


class Settings(Protocol):
    """What it reads of the ``Bootstrap``."""

    @property
    def access_log(self) -> str: ...
    @property
    def access_log_encoding(self) -> str: ...
    @property
    def access_log_format(self) -> str: ...


class AccessLog:
    """Writes to the path ``access_log`` (appended to; /dev/stdout works); off when that is "". Constructing opens nothing."""

    def __init__(self, settings: Settings, limit: int = BUFFER) -> None:
        """limit: bytes that may wait to be written. Raises ``policy.invalid.Invalid`` for a bad format."""
        self._path = settings.access_log
        self.enabled = bool(self._path)
        self._line = formatter(settings.access_log_encoding, settings.access_log_format)
        self._limit = limit
        self._lines: list[bytes] = []
        self._size = 0
        self._lock = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._reopen = False
        self.dropped = 0

    def write(self, record: ExchangeRecord) -> None:
        """Take one record. Never blocks and never raises for what the disk does."""
        line = self._line(record)
        with self._lock:
            if self._closing or self._size + len(line) > self._limit:
                self.dropped += 1
                return
            self._lines.append(line)
            self._size += len(line)
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
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        descriptor = -1
        complained = False
        while True:
            with self._lock:
                while not self._lines and not self._closing:
                    self._lock.wait()
                if not self._closing:
                    self._lock.wait_for(lambda: self._closing or self._size > self._limit // 2, _BATCH_DELAY)
                lines, closing = self._lines, self._closing
                self._lines = []
                reopen, self._reopen = self._reopen, False
            try:
                if reopen and descriptor >= 0:
                    os.close(descriptor)
                    descriptor = -1
                if lines and descriptor < 0:
                    descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
                _write_all(descriptor, b"".join(lines))
                complained = False
            except OSError as error:
                with self._lock:
                    self.dropped += len(lines)
                if not complained:  # once per outage, not once per line
                    complained = True
                    log.error("access log %s: %s; lines are dropped", self._path, error.strerror)
            finally:
                with self._lock:
                    self._size = sum(map(len, self._lines))  # what was being written counts as buffered until now
            if closing and not self._lines:
                break
        if descriptor >= 0:
            os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
