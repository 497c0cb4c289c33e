"""``meshctl tap`` and ``logs`` beside a running demo: real sidecars, real requests, and every way a tap can end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from control.client.kubeconfig import load
from tests.e2e.demo_mesh import BIN, Demo, free_port, wait_until

pytestmark = [pytest.mark.timeout(240), pytest.mark.system("curl")]

SECRET = "s3cr3t-do-not-show"
FAULT = """apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: rating, namespace: default}
spec:
  hosts: [rating]
  http:
  - fault: {abort: {percentage: {value: 100}, httpStatus: 503}}
    route: [{destination: {host: rating}}]
"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    made = Demo(tmp_path_factory.mktemp("tap"), f"127.{100 + os.getpid() % 100}.203.0", free_port())
    try:
        made.demo("--detach")
        yield made
    finally:
        made.meshctl("demo", "--stop", check=False)


class Tap:
    """One ``meshctl tap`` that runs beside."""

    def __init__(self, demo: Demo, tmp: Path, *words: str, token: str = "") -> None:
        environ = {**os.environ, "KUBECONFIG": str(demo.state / "kubeconfig"), "HOME": str(tmp)}
        if token:
            made = tmp / "kubeconfig"
            made.write_text(re.sub(r"token: .*", f"token: {token}", (demo.state / "kubeconfig").read_text()))
            environ["KUBECONFIG"] = str(made)
        self.out = tmp / "out"
        command = [str(BIN / "meshctl"), "tap", *words]
        with self.out.open("w") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True, env=environ, cwd=tmp)
        assert self.process.stderr is not None
        self.first = self.process.stderr.readline().strip()

    @property
    def lines(self) -> list[str]:
        return self.out.read_text().splitlines()

    def heard(self, count: int) -> None:
        wait_until(lambda: len(self.lines) >= count, 20, f"{count} requests told")

    def interrupt(self) -> str:
        self.process.send_signal(signal.SIGINT)
        return self.end(0)

    def end(self, code: int) -> str:
        _, said = self.process.communicate(timeout=30)
        assert self.process.returncode == code, said
        return said.strip()


@pytest.fixture
def tapped(demo: Demo, tmp_path: Path) -> Iterator[Any]:
    made: list[Tap] = []

    def tap(*words: str, token: str = "") -> Tap:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Tap(demo, folder, *words, token=token))
        return made[-1]

    yield tap
    for one in made:
        one.process.kill()
        if one.process.stderr is not None and not one.process.stderr.closed:
            one.process.communicate()


def ask(demo: Demo, id_: str = "id", query: str = "") -> int:
    headers = {
        "authorization": f"Bearer {SECRET}",
        "cookie": f"a={SECRET}",
        "x-api-key": SECRET,
        "x-request-id": id_,
        "x-kind": "t",
    }
    return httpx.get(f"http://{demo.url}{query}", headers=headers, trust_env=False, timeout=20).status_code


def taps(demo: Demo, pod: int = 1) -> int:
    stats = httpx.get(f"http://{demo.pod(pod)}:15000/stats?filter=^server.taps$", trust_env=False).text
    return int(stats.partition("server.taps: ")[2])


def grant(demo: Demo, role: str) -> tuple[str, str]:
    with httpx.Client(verify=load([demo.state / "kubeconfig"]).ssl_context(), trust_env=False) as client:
        target = load([demo.state / "kubeconfig"])
        answer = client.post(
            f"{target.server}/mesh/v1/tokens",
            json={"name": "ann", "role": role},
            headers={"authorization": f"Bearer {target.token}"},
        )
        made = answer.json()
        return made["token"], made["id"]


def test_a_failing_request_with_its_reason(demo: Demo, tapped: Any, tmp_path: Path) -> None:
    rule = tmp_path / "fault.yml"
    rule.write_text(FAULT)
    demo.meshctl("apply", "-f", str(rule))
    demo.live("networking.istio.io/v1/virtualservices/rating")
    failing = tapped("book-service", "--to", "rating", "--flag", "FI", "--max", "1", "-o", "json")
    everything = tapped("book-service")
    try:
        assert failing.first == "tapping default/book-service; Ctrl-C ends it"
        wait_until(lambda: taps(demo) == 2, 10, "2 taps are open")
        ask(demo, "fail-1")
        assert failing.end(0).startswith("1 request, 0 left out: as many as were asked for")
        (line,) = failing.lines
        told = json.loads(line)
        assert (told["pod"], told["namespace"], told["direction"], told["status"]) == ("book-service", "default", "outbound", 503)
        assert (told["flags"], told["detail"], told["source"]) == (["FI"], "fault_filter_abort", "book-service.default")
        everything.heard(2)
        assert re.fullmatch(r"2 requests, 0 left out", everything.interrupt())
        (out,) = [line for line in everything.lines if " out " in line]
        assert "book-service → rating" in out and "GET rating:8080/rate/1 503 FI fault_filter_abort" in out, out
        (came,) = [line for line in everything.lines if " in " in line]
        assert "mTLS" in came and "id=fail-1" in came
    finally:
        demo.meshctl("delete", "-f", str(rule))
    wait_until(lambda: taps(demo) == 0, 10, "no tap is open any more")


def test_no_credential_shows_and_headers_are_for_admins(demo: Demo, tapped: Any) -> None:
    plain, full = tapped("-A", "-o", "json"), tapped("-A", "-o", "wide", "--headers")
    assert ask(demo, "secret-1", f"?token={SECRET}&page=7") == 200
    plain.heard(4)
    wait_until(lambda: sum("id=secret-1" in line for line in full.lines) == 4, 20, "all told")
    plain.interrupt()
    full.interrupt()
    said = plain.out.read_text() + full.out.read_text()
    assert SECRET not in said and "page=7" in said and "token=[redacted]" in said
    assert "> x-kind: t" in full.out.read_text() and "> authorization: [redacted]" in full.out.read_text()
    assert '["x-kind","[redacted]"]' in plain.out.read_text()

    for role, words, why in (
        ("view", ("book-service",), "only edit and admin may watch requests"),
        ("edit", ("book-service", "--headers"), "only admin may see values of headers"),
    ):
        refused = tapped(*words, token=grant(demo, role)[0])
        assert why in refused.first and refused.end(1) == ""


def test_a_revoked_token_ends_it(demo: Demo, tapped: Any) -> None:
    token, id_ = grant(demo, "edit")
    watching = tapped("book-service", token=token)
    wait_until(lambda: taps(demo) == 1, 10, "one tap is open")
    demo.meshctl("token", "revoke", id_)
    said = watching.end(1)
    assert said == "error: control ended the tap: your token is no longer good; 0 requests, 0 left out"
    wait_until(lambda: taps(demo) == 0, 10, "the sidecar's tap ended")


def test_a_reader_that_is_killed_or_does_not_read_loses_only_itself(demo: Demo, tapped: Any) -> None:
    stopped, killed, good = tapped("book-service"), tapped("book-service"), tapped("book-service")
    wait_until(lambda: taps(demo) == 3, 10, "3 taps are open")
    stopped.process.send_signal(signal.SIGSTOP)
    killed.process.kill()
    wait_until(lambda: taps(demo) == 2, 10, "the killed one's tap ended")
    for number in range(5):
        assert ask(demo, f"slow-{number}") == 200
    good.heard(10)
    assert good.interrupt() == "10 requests, 0 left out"
    stopped.process.send_signal(signal.SIGCONT)
    stopped.heard(10)
    stopped.interrupt()


def test_logs_find_a_request_in_all_sidecars(demo: Demo) -> None:
    assert ask(demo, "log-1") == 200

    def found(*words: str) -> list[str]:
        return demo.meshctl("logs", "-A", "--request-id", "log-1", *words).stdout.splitlines()

    wait_until(lambda: len(found()) == 4, 20, "four sidecars' lines")
    lines = found()
    assert all(re.match(r"\[pod/[a-z0-9-]+/istio-proxy\] \[20", line) for line in lines)
    times = [re.findall(r"\[(20[^\]]+)\]", line)[0] for line in lines]
    assert times == sorted(times)
    rows = [json.loads(line) for line in found("-o", "json", "--status", "2xx")]
    assert {row["response_code"] for row in rows} == {200} and len({row["pod"] for row in rows}) == 3
    assert demo.meshctl("logs", "book-service", "--request-id", "log-1", "--status", "4xx,5xx").stdout == ""
    done = demo.meshctl("logs", "book-service", "-c", "istio-proxy", "--tail", "1")
    assert len(done.stdout.splitlines()) == 1


def test_a_sidecar_or_control_that_goes_away_ends_it_with_one_line(demo: Demo, tapped: Any) -> None:
    """The last of this file: the mesh is not whole afterwards."""
    watching = tapped("rating-service-v2")
    name = b"--pod\0rating-service-v2\0--namespace\0default"
    (pid,) = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and (line := _line(entry)) and name in line and str(demo.state).encode() in line
    ]
    os.kill(pid, signal.SIGKILL)
    said = watching.end(1)
    ended = "error: the tap of default/rating-service-v2 ended: its connection to control ended; 0 requests, 0 left out"
    assert said == ended

    watching = tapped("book-service")
    (pid,) = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and b"control\0serve\0--state\0" + str(demo.state).encode() in _line(entry)
    ]
    os.kill(pid, signal.SIGKILL)
    said = watching.end(1)
    assert said.startswith("error: control went away, and with it the tap (") and said.endswith("; 0 requests, 0 left out")
    assert len(said.splitlines()) == 1
    wait_until(lambda: taps(demo) == 0, 20, "the sidecar's tap ended with its stream")


def _line(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""
