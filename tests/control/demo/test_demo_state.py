"""The state directory: one launcher, no stranger signalled, the user's files left alone."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from importlib.resources import files
from pathlib import Path

import pytest

from control.demo.kubelet.process import start_time
from control.demo.plan import Addresses, control_pod
from control.demo.state import Busy, State
from control.files import FileProblem

HOME = Addresses("127.1.0.0")


def made(path: Path) -> State:
    state = State(path / ".mesh")
    state.make()
    return state


def test_a_second_launcher_is_told_who_runs(tmp_path: Path) -> None:
    first, second = made(tmp_path), made(tmp_path)
    first.hold()
    first.record(HOME)
    with pytest.raises(Busy, match=rf"already runs \(pid {os.getpid()}\)"):
        second.hold()


def test_a_stranger_with_the_recorded_pid_is_not_signalled(tmp_path: Path) -> None:
    state = made(tmp_path)
    record = {"pid": os.getpid(), "start": "1", "base": "127.1.0.0", "port": 8080, "port_given": False}
    (state.path / "demo.json").write_text(json.dumps(record))
    assert state.running() is None
    assert state.stop() is False  # and this process lives


@pytest.mark.parametrize(
    "record",
    [
        {"pid": -1, "start": None},  # a signal to -1 would reach every process of the user
        {"pid": 0, "start": None},
        {"pid": 1, "start": start_time(1)},
        {"pid": 2**22 + 1, "start": None},  # no such process, no such start: not the same "nothing"
        {"pid": 2**22 + 1, "start": ""},
        {"pid": "self", "start": start_time(os.getpid())},
        {"pid": True, "start": ""},
        {"pid": 2**70, "start": ""},
        [],
        "x",
    ],
    ids=[  # not the values: this process's own start is among them, which differs from process to process
        "everybody",
        "own-group",
        "init",
        "nobody-without-start",
        "nobody-with-empty-start",
        "pid-as-text",
        "pid-as-bool",
        "pid-too-large",
        "list",
        "text",
    ],
)
def test_a_record_that_is_no_record_stops_nobody(tmp_path: Path, record: object) -> None:
    state = made(tmp_path)
    whole = {**record, "base": "127.1.0.0", "port": 8080} if isinstance(record, dict) else record
    (state.path / "demo.json").write_text(json.dumps(whole))
    assert state.running() is None
    assert state.stop() is False


def test_strange_things_in_the_place_of_the_record_stop_nobody(tmp_path: Path) -> None:
    state = made(tmp_path)
    state.hold()
    record = state.path / "demo.json"
    record.mkdir()
    assert state.stop() is False
    with pytest.raises(FileProblem, match="cannot be written"):
        state.record(HOME)
    state.forget()
    record.rmdir()
    os.mkfifo(record)
    assert state.stop() is False


def test_only_the_holder_forgets(tmp_path: Path) -> None:
    first, second = made(tmp_path), made(tmp_path)
    first.hold()
    first.record(HOME)
    with pytest.raises(Busy):
        second.hold()
    second.forget()
    assert first.running() is not None
    first.forget()
    assert first.running() is None


def test_stop_ends_the_launcher_and_waits_for_it(tmp_path: Path) -> None:
    state = made(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)"], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        record = {"pid": other.pid, "start": start_time(other.pid), "base": "127.1.0.0", "port": 8080, "port_given": False}
        (state.path / "demo.json").write_text(json.dumps(record))
        assert state.running() is not None
        # It is our child here, and would stay a zombie with its start time: somebody has to reap it meanwhile.
        reaping = threading.Thread(target=other.wait)
        reaping.start()
        assert state.stop() is True
        reaping.join()
        assert other.returncode == -15


def test_manifests_and_tokens_lie_side_by_side(tmp_path: Path) -> None:
    state = made(tmp_path)
    state.copy_manifests(HOME)
    names = {entry.name for entry in state.manifests.iterdir()}
    assert {"destination-rule-v1-v2.yml", "virtual-service-retry.yml", "valid-role-customer.jwt"} <= names


def test_kubectl_may_apply_the_whole_directory(tmp_path: Path) -> None:
    """It takes every .json, .yaml and .yml for objects."""
    state = made(tmp_path)
    state.manifests.mkdir()
    keys = (files("control.demo") / "jwt" / "jwks.json").read_bytes()
    (state.manifests / "jwks.json").write_bytes(keys)  # of an earlier version
    (state.path / "manifests.json").write_text(json.dumps({"jwks.json": hashlib.sha256(keys).hexdigest()}))
    state.copy_manifests(HOME)
    assert not [entry.name for entry in state.manifests.iterdir() if entry.suffix == ".json"]
    assert f"{state.path}/jwks.json" in control_pod(HOME, state.path).containers[0].argv
    assert b"keys" in state.jwks.read_bytes()


def test_a_relative_kubeconfig_still_works_in_the_manifests_directory(tmp_path: Path) -> None:
    state = made(tmp_path)
    state.kubeconfig.write_text("x")
    state.copy_manifests(HOME)
    assert (state.manifests / ".mesh" / "kubeconfig").read_text() == "x"


def test_another_base_moves_the_addresses_in_the_manifests(tmp_path: Path) -> None:
    state = made(tmp_path)
    state.copy_manifests(Addresses("127.7.0.0"))
    assert "http://127.7.0.20:15014/demo/jwks.json" in (state.manifests / "request-authentication-jwt.yml").read_text()
    state.copy_manifests(HOME)
    assert "http://127.0.0.1:15014/demo/jwks.json" in (state.manifests / "request-authentication-jwt.yml").read_text()


def test_a_manifest_that_the_user_changed_is_kept(tmp_path: Path) -> None:
    state = made(tmp_path)
    state.copy_manifests(HOME)
    mine = state.manifests / "virtual-service-v1.yml"
    mine.write_text("mine")
    state.copy_manifests(HOME)
    assert mine.read_text() == "mine"


def test_fresh_forgets_objects_and_keeps_keys(tmp_path: Path) -> None:
    state = made(tmp_path)
    (state.path / "mesh.db").write_text("x")
    (state.path / "ca").mkdir()
    state.ca.write_text("ca")
    state.begin_anew()
    assert not (state.path / "mesh.db").exists()
    assert state.ca.exists()
