"""The access log: lines, formats, and that a slow reader costs lines, never time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from meshproxy.message.record import ExchangeRecord
from meshproxy.policy.invalid import Invalid
from meshproxy.telemetry.accesslog import JSON_FIELDS, AccessLogs, formatter
from meshproxy.telemetry.logfile import LogFile


def record(path: bytes = b"/rate/1") -> ExchangeRecord:
    made = ExchangeRecord(SimpleNamespace(name="outbound", direction="outbound"), 1.0, 1_700_000_000.5)
    made.ended = 1.25
    made.method, made.path, made.authority, made.status = b"GET", path, b"rating:8080", 200
    made.request_headers = [(b"user-agent", b"curl\xff")]
    made.body_sent = 39
    made.cluster_name = "outbound|8080||rating"
    return made


def settings(path: Path | str, **more: str) -> Any:
    return SimpleNamespace(access_log=str(path), **{"access_log_encoding": "TEXT", "access_log_format": "", **more})


def test_off_without_a_path() -> None:
    log = AccessLogs(settings(""))
    assert not log.writers
    log.close()


def test_lines_reach_the_file(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLogs(settings(path, access_log_format="%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE%"))
    for number in range(500):
        log.writers["outbound"](record(b"/%d" % number))
    log.close()
    assert path.read_text().splitlines() == [f"GET /{number} 200" for number in range(500)]
    assert log.dropped == 0 and path.stat().st_mode & 0o027 == 0
    log.writers["inbound"](record())
    assert log.dropped == 1  # closed


def test_istios_default_line() -> None:
    line = formatter()(record())
    assert line.startswith(
        b'[2023-11-14T22:13:20.500Z] "GET /rate/1 HTTP/1.1" 200 - via_upstream - "-" 0 39 250 - "-" "curl\xff"'
    )
    assert line.endswith(b"\n") and line.count(b"\n") == 1


def test_json_has_istios_keys() -> None:
    line = json.loads(formatter("JSON")(record()))
    assert list(line) == list(JSON_FIELDS)
    assert (line["response_code"], line["bytes_sent"], line["duration"], line["upstream_host"]) == (200, 39, 250, None)
    assert (line["path"], line["user_agent"], line["upstream_cluster"]) == ("/rate/1", "curl\\xff", "outbound|8080||rating")


def test_a_bad_format_is_told_at_once() -> None:
    with pytest.raises(Invalid, match=r"^access_log_format: .*%RESPONSE_COD%.*did you mean %RESPONSE_CODE%"):
        AccessLogs(settings("/dev/null", access_log_format="%RESPONSE_COD%"))


def test_a_reader_that_does_not_read_costs_lines_not_time(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        log = LogFile(str(pipe), limit=100_000)
        for _ in range(400):  # 400 kB: the pipe takes 64, the buffer 100
            log.write(b"x" * 999 + b"\n")
        assert 200 <= log.dropped < 400
        log.close(timeout=0.01)
    finally:
        os.close(reader)
    log.close(timeout=10.0)  # the writer hears that its reader has gone, and ends before the next test listens to the log


def test_a_file_that_cannot_be_opened_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = LogFile(f"{tmp_path}/missing/access.log")
    log.write(b"line\n")
    log.close()
    assert log.dropped == 1
    assert [entry.getMessage() for entry in caplog.records] == [
        f"access log {tmp_path}/missing/access.log: No such file or directory; lines are dropped"
    ]


def test_rotation(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLogs(settings(path, access_log_format="%REQ(:PATH)%"))
    write = log.writers["gateway"]
    write(record(b"/1"))
    while not path.exists() or not path.read_bytes():  # the writer's thread is under way
        os.sched_yield()
    path.rename(tmp_path / "old")
    log.reopen()
    write(record(b"/2"))
    log.close()
    assert ((tmp_path / "old").read_text(), path.read_text()) == ("/1\n", "/2\n")
