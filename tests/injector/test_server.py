"""The real process: HTTPS with a real certificate, pods of every owner, files that change under it, a stop that loses nothing."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from injector.app import BODY_LIMIT
from injector.patch import apply
from tests.certs import Authority, Pair
from tests.injector.pods import OWNERS, SETTINGS, admitted, owned, pod, review

NAME = "istio-sidecar-injector.istio-system.svc"


class Process:
    def __init__(self, folder: Path, *more: str) -> None:
        self.folder = folder
        self.authority = Authority()
        self.pair = self.certify()
        self.settings = folder / "values"
        self.settings.write_text("tag: test\n")
        (folder / "mesh").write_text("defaultConfig: {}\n")
        command = [
            *(sys.executable, "-m", "injector", "--bind", "127.0.0.1", "--port", "0", "--metrics-port", "0", "--look", "0.05"),
            *("--settings", str(self.settings), "--mesh-config", str(folder / "mesh")),
            *("--tls-cert", str(folder / "tls.crt"), "--tls-key", str(folder / "tls.key"), *more),
        ]
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.child.stdout is not None
        words = self.child.stdout.readline().split()
        assert words[:3] == ["mesh-injector", "ready", "port"], self.log.read_text()
        self.port, self.metrics = int(words[3]), f"http://127.0.0.1:{words[5]}"
        self.url = f"https://127.0.0.1:{self.port}"
        self.context = ssl.create_default_context(cadata=self.authority.root.decode())
        self.client = httpx.Client(verify=self.context, base_url=self.url, timeout=30, trust_env=False)

    def certify(self) -> Pair:
        pair = self.authority.issue(dns=(NAME,), ip=("127.0.0.1",))
        for name, data in (("tls.key", pair.key), ("tls.crt", pair.certificate)):
            (self.folder / f"{name}.new").write_bytes(data)
        for name in ("tls.key", "tls.crt"):
            (self.folder / f"{name}.new").replace(self.folder / name)
        return pair

    def serial(self) -> str:
        """Of the certificate that a new connection is shown."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as plain:  # noqa: SIM117
            with self.context.wrap_socket(plain, server_hostname=NAME) as tls:
                shown = tls.getpeercert()
                assert shown is not None
                return str(shown["serialNumber"]).lower().lstrip("0")

    def metric(self, name: str) -> float:
        lines = httpx.get(f"{self.metrics}/metrics", trust_env=False).text.splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))

    def stop(self) -> int:
        self.child.send_signal(signal.SIGTERM)
        return self.child.wait(timeout=60)

    def end(self) -> None:
        self.client.close()
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        assert self.child.stdout is not None
        self.child.stdout.close()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    made = Process(tmp_path)
    try:
        yield made
    finally:
        made.end()


def until(asked: object) -> None:
    """The process looks at its files on its own; we ask until it has."""
    assert callable(asked)
    while not asked():
        os.sched_yield()


def test_every_owner_over_https(process: Process) -> None:
    for kind in OWNERS:
        made = owned(kind)
        answer = process.client.post("/inject", json=review(made, uid=kind))
        assert answer.status_code == 200
        response = answer.json()["response"]
        assert (response["uid"], response["allowed"]) == (kind, True)
        assert apply(json.loads(base64.b64decode(response["patch"])), made) == admitted(made, SETTINGS)[0]
    again = process.client.post("/inject", json=review(admitted(owned("job"))[0]))
    assert "patch" not in again.json()["response"]
    elsewhere = process.client.post("/inject/cluster/east", json=review(pod())).json()["response"]["patch"]
    assert b'"name":"ISTIO_META_CLUSTER_ID","value":"east"' in base64.b64decode(elsewhere)


def test_what_is_refused_and_counted(process: Process) -> None:
    post = process.client.post
    assert post("/inject", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    empty = post("/inject", content=b"", headers={"content-type": "application/json"})
    assert (empty.status_code, empty.text) == (400, "the body is empty: send an AdmissionReview as JSON\n")
    large = post("/inject", content=b" " * (BODY_LIMIT + 1), headers={"content-type": "application/json"})
    assert large.status_code == 413
    streamed = post("/inject", content=iter([b" " * BODY_LIMIT, b" "]), headers={"content-type": "application/json"})
    assert streamed.status_code == 413
    assert process.client.get("/inject").status_code == 405
    assert post("/other").status_code == 404
    bad = post("/inject", json=review(pod(annotations={"sidecar.istio.io/proxyCPU": "x"}))).json()["response"]
    assert (bad["allowed"], bad["status"]["code"]) == (False, 422)
    post("/inject", json=review(pod(hostNetwork=True)))
    post("/inject", json=review(pod()))
    found = {name: process.metric(f"sidecar_injection_{name}_total") for name in ("requests", "success", "failure", "skip")}
    assert found == {"requests": 7, "success": 1, "failure": 5, "skip": 1}
    assert process.metric("sidecar_injection_time_seconds_count") == 7
    for path in ("/readyz", "/healthz"):
        assert process.client.get(path).text == "ok\n"
        assert httpx.get(process.metrics + path, trust_env=False).text == "ok\n"


def test_a_pod_writes_no_lines_of_its_own_into_the_log(process: Process) -> None:
    forged = {"metadata": {"name": "p\n2026-01-01 INFO mesh.injector: forged\x1b[31m"}, "spec": {"containers": [{"name": "c"}]}}
    assert process.client.post("/inject", json=review(forged)).status_code == 200
    bad = pod(annotations={"sidecar.istio.io/proxyImage": "a\nforged\u2028"})
    assert process.client.post("/inject", json=review(bad)).json()["response"]["allowed"] is False
    told = process.log.read_text()
    assert "forged" in told
    assert all("mesh.injector: " in line and line.isprintable() for line in told.splitlines())


def test_the_certificate_changes_and_connections_stay(process: Process) -> None:
    with httpx.Client(verify=process.context, base_url=process.url, timeout=30, trust_env=False) as held:
        assert held.get("/readyz").status_code == 200
        stream = held._transport._pool.connections[0]  # type: ignore[attr-defined]
        assert process.serial() == process.pair.serial.lstrip("0")
        (process.folder / "tls.key").write_text("no key")
        until(lambda: process.metric("mesh_injector_settings_good") == 0)
        assert process.serial() == process.pair.serial.lstrip("0")
        new = process.certify()
        until(lambda: process.serial() == new.serial.lstrip("0"))
        assert held.get("/readyz").status_code == 200
        assert held._transport._pool.connections == [stream]  # type: ignore[attr-defined]
        assert process.metric("mesh_injector_certificate_expiry_timestamp") == new.expires
    assert "no key" not in process.log.read_text()


def test_settings_change_and_wrong_ones_do_not(process: Process) -> None:
    def patched() -> bytes:
        return base64.b64decode(process.client.post("/inject", json=review(pod())).json()["response"]["patch"])

    assert b"pymesh/mesh:test" in patched()
    process.settings.write_text("tag: new\n")
    until(lambda: b"pymesh/mesh:new" in patched())
    process.settings.write_text("tga: newer\n")
    until(lambda: process.metric("mesh_injector_settings_good") == 0)
    assert b"pymesh/mesh:new" in patched()
    assert "settings: values.tga: is no setting, did you mean tag?" in process.log.read_text()
    process.settings.write_text("tag: newest\n")
    until(lambda: process.metric("mesh_injector_settings_good") == 1)
    assert b"pymesh/mesh:newest" in patched()


def test_a_stop_lets_an_answer_finish(process: Process) -> None:
    body = json.dumps(review(pod())).encode()
    head = f"POST /inject HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", process.port), timeout=30) as plain:  # noqa: SIM117
        with process.context.wrap_socket(plain, server_hostname=NAME) as tls:
            tls.sendall(head.encode() + body[:10])
            until(lambda: process.metric("sidecar_injection_requests_total") == 1)
            process.child.send_signal(signal.SIGTERM)
            tls.sendall(body[10:])
            assert tls.recv(12) == b"HTTP/1.1 200"
    assert process.child.wait(timeout=60) == 0


def test_a_rollout_refuses_no_pod(tmp_path: Path) -> None:
    """Until every node knows that this pod has gone, the API server goes on asking it."""
    process = Process(tmp_path, "--drain", "3600")
    try:
        process.child.send_signal(signal.SIGTERM)
        until(lambda: process.client.get("/readyz").status_code == 503)
        assert process.client.get("/readyz").text == "stopping\n"
        with httpx.Client(verify=process.context, base_url=process.url, timeout=30, trust_env=False) as other:
            assert "patch" in other.post("/inject", json=review(pod())).json()["response"]
        process.child.send_signal(signal.SIGTERM)  # who asks twice does not wait
        assert process.child.wait(timeout=60) == 0
    finally:
        process.end()


@pytest.mark.parametrize("drain", ["-1", "nan", "inf", "x"])
def test_a_wait_that_is_none(drain: str) -> None:
    done = subprocess.run([sys.executable, "-m", "injector", f"--drain={drain}"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "argument --drain: must be seconds, 0 or more, not " in done.stderr


@pytest.mark.parametrize(
    ("values", "certificate", "line"),
    [
        ("policy: maybe", True, "mesh-injector: settings: values.policy: invalid enum value 'maybe'\n"),
        ("", False, "mesh-injector: the certificate cannot be used: "),
    ],
)
def test_what_it_cannot_start_with(tmp_path: Path, values: str, certificate: bool, line: str) -> None:
    (tmp_path / "values").write_text(values)
    if certificate:
        pair = Authority().issue(dns=(NAME,))
        (tmp_path / "tls.crt").write_bytes(pair.certificate)
        (tmp_path / "tls.key").write_bytes(pair.key)
    command = [sys.executable, "-m", "injector", "--bind", "127.0.0.1", "--port", "0", "--metrics-port", "0", "--mesh-config="]
    command += [f"--settings={tmp_path / 'values'}", f"--tls-cert={tmp_path / 'tls.crt'}", f"--tls-key={tmp_path / 'tls.key'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
