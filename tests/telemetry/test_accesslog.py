"""The access log: lines, formats, and that a slow reader costs lines, never time."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from meshproxy.message.record import ExchangeRecord
from meshproxy.message.secured import Secured
from meshproxy.model.telemetry import AccessLog, LogCondition, LogFilter
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


def test_a_line_that_comes_alone_is_written(tmp_path: Path) -> None:
    """However its coming falls together with the thread's going to sleep."""
    file = LogFile(str(tmp_path / "access.log"))
    for number in range(30):
        file.write(b"%d\n" % number)
        while file.size:
            time.sleep(0)  # lets the other thread run
    file.close()
    assert (tmp_path / "access.log").read_bytes().split() == [b"%d" % number for number in range(30)]
    assert file.dropped == 0


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


def test_a_line_that_a_full_disk_cuts_takes_no_other_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "access.log"
    room = 20
    wrote, write = threading.Event(), os.write

    def full(descriptor: int, data: memoryview) -> int:
        nonlocal room
        if not room:
            wrote.set()
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = write(descriptor, data[:room])
        room -= taken
        return taken

    monkeypatch.setattr("meshproxy.telemetry.logfile.os.write", full)
    log = LogFile(str(path))
    for number in range(3):
        log.write(b'{"line":%d}\n' % number)
    assert wrote.wait(10)
    while log.size:  # the writer's thread is under way
        os.sched_yield()
    monkeypatch.undo()
    log.write(b'{"line":3}\n')
    log.close(10)
    assert path.read_bytes().split(b"\n") == [b'{"line":0}', b'{"line":1', b'{"line":3}', b""]
    assert log.dropped == 2


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


def test_the_line_that_istio_documents() -> None:
    """Byte for byte the example of Istio's "Getting Envoy's access logs", made of what it tells."""
    made = ExchangeRecord(SimpleNamespace(name="inbound", direction="inbound"), 1.0, 1606339578.409)
    made.ended = 1.004
    made.method, made.path, made.authority, made.status = b"GET", b"/status/418", b"httpbin:8000", 418
    made.request_headers = [(b"user-agent", b"curl/7.73.0-DEV"), (b"x-request-id", b"84961386-6d84-929d-98bd-c5aee93b5c88")]
    made.response_headers = [(b"x-envoy-upstream-service-time", b"4")]
    made.body_sent = 135
    made.endpoint = SimpleNamespace(address="127.0.0.1", port=80)
    made.cluster_name, made.route_name = "inbound|8000||", "default"
    made.upstream_local = ("127.0.0.1", 41854)
    made.downstream_local, made.downstream_remote = ("10.44.1.27", 80), ("10.44.1.23", 37652)
    made.secured = Secured(None, "outbound_.8000_._.httpbin.foo.svc.cluster.local")
    assert formatter()(made) == (
        b'[2020-11-25T21:26:18.409Z] "GET /status/418 HTTP/1.1" 418 - via_upstream - "-" 0 135 4 4 "-" "curl/7.73.0-DEV" '
        b'"84961386-6d84-929d-98bd-c5aee93b5c88" "httpbin:8000" "127.0.0.1:80" inbound|8000|| 127.0.0.1:41854 10.44.1.27:80 '
        b"10.44.1.23:37652 outbound_.8000_._.httpbin.foo.svc.cluster.local default\n"
    )


def test_json_of_the_users_own() -> None:
    fields = (("code", "%RESPONSE_CODE%"), ("who", "%REQ(X-WHO)%"), ("text", "%REQ(:METHOD)% took %DURATION% ms"), ("on", "here"))
    assert json.loads(formatter("JSON", fields=fields)(record())) == {
        "code": 200,
        "who": None,
        "text": "GET took 250 ms",
        "on": "here",
    }


def test_what_is_empty_may_be_left_out() -> None:
    fields = (("code", "%RESPONSE_CODE%"), ("id", "%REQ(x-request-id)%"), ("both", "a%REQ(x-request-id)%b"))
    assert json.loads(formatter("JSON", fields=fields, omit_empty=True)(record())) == {"code": 200, "both": "ab"}
    assert json.loads(formatter("JSON", fields=fields)(record())) == {"code": 200, "id": None, "both": "a-b"}
    assert formatter(text="[%REQ(x-request-id)%] %RESPONSE_CODE%", omit_empty=True)(record()) == b"[] 200\n"
    assert b" - " not in formatter(omit_empty=True)(record())


def compiled(*logs: AccessLog) -> Any:
    return AccessLogs.compile(logs)


def test_several_logs_each_with_its_records(tmp_path: Path) -> None:
    errors = LogFilter(any_of=((LogCondition(field="status", op=">=", value="500"),),))
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    logs = AccessLogs(settings(tmp_path / "own"))
    logs.configure(
        compiled(
            AccessLog(path=one, format="c %RESPONSE_CODE%", mode="CLIENT"),
            AccessLog(path=one, format="e %RESPONSE_CODE%", filter=errors),
            AccessLog(path=two, encoding="JSON", json=(("s", "%RESPONSE_CODE%"),), mode="SERVER"),
        )
    )
    for direction, status in (("outbound", 200), ("gateway", 503), ("inbound", 200), ("inbound", 500)):
        made = record()
        made.status = status
        logs.writers[direction](made)
    logs.close()
    assert Path(one).read_text() == "c 200\nc 503\ne 503\ne 500\n"
    assert Path(two).read_text() == '{"s":200}\n{"s":500}\n'
    assert not (tmp_path / "own").exists()


def test_no_log_at_all_and_back_to_our_own(tmp_path: Path) -> None:
    logs = AccessLogs(settings(tmp_path / "own", access_log_format="%RESPONSE_CODE%"))
    logs.configure(())
    assert not logs.writers
    logs.configure(None)
    logs.writers["outbound"](record())
    logs.close()
    assert (tmp_path / "own").read_text() == "200\n"


def test_a_log_that_goes_is_written_out_and_its_drops_stay_counted(tmp_path: Path) -> None:
    path = tmp_path / "one"
    logs = AccessLogs(settings(""), limit=8)
    logs.configure(compiled(AccessLog(path=str(path), format="%RESPONSE_CODE% ok")))
    write = logs.writers["outbound"]
    write(record())
    for _ in range(3):
        write(record())
    (file,) = logs._files.values()
    logs.configure(())
    logs.close(10)
    dropped = file.dropped
    assert file.ended and not logs.buffered
    assert path.read_text() == "200 ok\n" * (4 - dropped) and logs.dropped == dropped


def test_what_a_log_loses_after_it_has_gone_is_counted(tmp_path: Path) -> None:
    logs = AccessLogs(settings(""))
    logs.configure(compiled(AccessLog(path=f"{tmp_path}/missing/log", format="x")))
    logs.writers["outbound"](record())
    logs.configure(())
    logs.close(10)
    assert logs.dropped == 1
    logs.configure(())  # and is forgotten otherwise
    assert logs.dropped == 1 and not logs._leaving


@pytest.mark.parametrize(
    ("log", "says"),
    [
        (AccessLog(path="log"), r"^logs\[0\]\.path: must be an absolute path"),
        (AccessLog(format="%NOPE%"), r"^logs\[0\]\.format: unknown or unsupported operator"),
        (AccessLog(encoding="JSON", json=(("a", "%NOPE%"),)), r"^logs\[0\]\.json\.a: unknown"),
        (AccessLog(filter=LogFilter(any_of=((LogCondition(field="x", op="=="),),))), r"^logs\[0\]\.filter\.any_of"),
    ],
)
def test_a_log_that_cannot_be_is_refused(log: AccessLog, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        compiled(log)
