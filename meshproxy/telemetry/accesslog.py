"""Telemetry room: access logs: which records go where, as which lines. Loud in what it opens; hot per record.

In: what the bootstrap or ``Telemetry`` wants; finished records, from the loop's thread. Out: lines, in Istio's default text, as
JSON or in the user's format, to ``LogFile``s, one per path however many logs write there.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from meshproxy.model.telemetry import AccessLog
from meshproxy.policy import format as command
from meshproxy.policy.invalid import Invalid
from meshproxy.policy.line import compile_line
from meshproxy.telemetry.logfile import BUFFER, LogFile
from meshproxy.telemetry.logfilter import compile_filter

if TYPE_CHECKING:
    from meshproxy.message.record import ExchangeRecord

__all__ = ["JSON_FIELDS", "AccessLogs", "CompiledLog", "formatter"]

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
_SIDES = {"inbound": "SERVER", "outbound": "CLIENT", "gateway": "CLIENT"}
Line = Callable[["ExchangeRecord"], bytes]
Write = Callable[["ExchangeRecord"], None]


def formatter(
    encoding: str = "TEXT",
    text: str = "",
    fields: Sequence[tuple[str, str]] = (),
    path: str = "format",
    omit_empty: bool = False,
) -> Line:
    """Record -> one line with its end. text: a format in Envoy's operators, "" for Istio's; fields: JSON's, () for Istio's.
    omit_empty: as in ``AccessLog``.

    Raises ``policy.invalid.Invalid``.
    """
    hostname, absent = socket.gethostname(), b"" if omit_empty else b"-"
    if encoding == "JSON":
        return _as_json(fields, path, hostname, omit_empty)
    text = text or command.ISTIO_DEFAULT
    return compile_line(text if text.endswith("\n") else text + "\n", path, absent, hostname)


def _as_json(given: Sequence[tuple[str, str]], path: str, hostname: str, omit_empty: bool) -> Line:
    """An operator that stands alone gives a number where it is one, and null where there is nothing, as Envoy's."""
    absent = b"" if omit_empty else b"-"
    fields: list[tuple[str, bool, Callable[[ExchangeRecord], bytes | None]]] = []
    for name, text in given or tuple(JSON_FIELDS.items()):
        where = f"{path}.{name}"
        alone = command.alone(text, where)
        if alone is None:
            fields.append((name, False, command.compile(text, where, absent, hostname)))
        else:
            fields.append((name, alone in command.NUMBERS, command.reader(text, where, hostname)))
    encode = msgspec.json.Encoder().encode

    def as_json(record: ExchangeRecord) -> bytes:
        line: dict[str, str | int | None] = {}
        for name, number, read in fields:
            value = read(record)
            if value is None:
                if not omit_empty:
                    line[name] = None
            elif number and value.isdigit():
                line[name] = int(value)
            else:
                line[name] = value.decode("utf-8", "backslashreplace")
        return encode(line) + b"\n"

    return as_json


class Settings(Protocol):
    """What it reads of the ``Bootstrap``."""

    @property
    def access_log(self) -> str: ...
    @property
    def access_log_encoding(self) -> str: ...
    @property
    def access_log_format(self) -> str: ...


class CompiledLog(NamedTuple):
    """``wants`` None: every record."""

    path: str
    sides: frozenset[str]
    line: Line
    wants: Callable[[ExchangeRecord], bool] | None


class AccessLogs:
    """``writers``: by direction of the listener, who takes its records; no entry: nobody. ``dropped``: lines, ever.

    Until ``configure`` says otherwise the bootstrap's own log is in force. Constructing opens nothing.
    """

    def __init__(self, settings: Settings, limit: int = BUFFER) -> None:
        """limit: bytes that may wait to be written, per file. Raises ``policy.invalid.Invalid`` for a bad format."""
        self._limit = limit
        self._files: dict[str, LogFile] = {}
        self._leaving: list[LogFile] = []  # of configurations that have gone: what waits is still written
        self._past = 0
        self._own: tuple[CompiledLog, ...] = ()
        if settings.access_log:
            own = AccessLog(path=settings.access_log, format=settings.access_log_format)
            line = formatter(settings.access_log_encoding, settings.access_log_format, path="access_log_format")
            self._own = (CompiledLog(own.path, _sides(own), line, None),)
        self.writers: dict[str, Write] = {}
        self.configure(None)

    @property
    def dropped(self) -> int:
        return self._past + sum(file.dropped for file in self._all())

    @property
    def buffered(self) -> int:
        """Bytes that wait to be written."""
        return sum(file.size for file in self._all())

    def _all(self) -> tuple[LogFile, ...]:
        return (*self._files.values(), *self._leaving)

    @staticmethod
    def compile(logs: Sequence[AccessLog] | None) -> tuple[CompiledLog, ...] | None:
        """Raises ``policy.invalid.Invalid``; opens nothing."""
        if logs is None:
            return None
        found: list[CompiledLog] = []
        for number, given in enumerate(logs):
            at = f"logs[{number}]"
            if not given.path.startswith("/"):
                raise Invalid(f"{at}.path", f"must be an absolute path such as /dev/stdout, not {given.path!r}")
            where = f"{at}.json" if given.encoding == "JSON" else f"{at}.format"
            line = formatter(given.encoding, given.format, given.json, where, given.omit_empty)
            found.append(CompiledLog(given.path, _sides(given), line, compile_filter(given.filter, f"{at}.filter")))
        return tuple(found)

    def configure(self, logs: tuple[CompiledLog, ...] | None) -> None:
        """These logs from now on; None: the bootstrap's. Files that stay keep what waits; one that goes is written out."""
        wanted = self._own if logs is None else logs
        paths = {one.path for one in wanted}
        for path in [path for path in self._files if path not in paths]:
            file = self._files.pop(path)
            file.close(timeout=0)  # its thread ends when it has written what waits
            self._leaving.append(file)
        self._past += sum(file.dropped for file in self._leaving if file.ended)
        self._leaving = [file for file in self._leaving if not file.ended]
        for path in paths - self._files.keys():
            self._files[path] = LogFile(path, self._limit)
        self.writers = {}
        for direction, side in _SIDES.items():
            writes = tuple(_writer(one, self._files[one.path].write) for one in wanted if side in one.sides)
            if writes:
                self.writers[direction] = writes[0] if len(writes) == 1 else _all(writes)

    def reopen(self) -> None:
        """After a log rotation."""
        for file in self._files.values():
            file.reopen()

    def close(self, timeout: float = 2.0) -> None:
        """Write out what is left; wait at most ``timeout`` seconds for that, per file."""
        for file in self._all():
            file.close(timeout)


def _sides(given: AccessLog) -> frozenset[str]:
    return frozenset(given.mode.split("_AND_"))


def _writer(given: CompiledLog, take: Callable[[bytes], None]) -> Write:
    line, wants = given.line, given.wants
    if wants is None:
        return lambda record: take(line(record))

    def write(record: ExchangeRecord) -> None:
        if wants(record):
            take(line(record))

    return write


def _all(writes: tuple[Write, ...]) -> Write:
    def write(record: ExchangeRecord) -> None:
        for one in writes:
            one(record)

    return write
