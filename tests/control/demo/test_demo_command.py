"""``python -m control.demo``, and how ``meshctl`` becomes it: refusals leave nothing behind, interruptions are quiet."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.demo.kubelet.process import start_time
from control.demo.launcher import Options, refusal
from control.demo.plan import BadPlan
from control.demo.present import Terminal
from control.demo.run import Program


def run(*words: str, cwd: Path, module: str = "control.demo") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-P", "-m", module, *words], cwd=cwd, capture_output=True, text=True, timeout=60)


@pytest.fixture
def base() -> str:
    return f"127.{40 + os.getpid() % 50}.77.0"


@pytest.fixture
def taken(base: str) -> Iterator[str]:
    """A base address with a stranger on the first pod's port."""
    with socket.create_server((base[:-1] + "1", 9080)):
        yield base


@pytest.mark.parametrize("verb", ["up", "detach"])
def test_a_refused_start_leaves_no_directory(tmp_path: Path, taken: str, verb: str) -> None:
    refused = run(verb, "--base", taken, "--state", "new", cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr == f"error: port 9080 on {taken[:-1]}1 is in use (Address already in use); choose another with --base\n"
    assert list(tmp_path.iterdir()) == []


def test_a_mesh_that_runs_is_told_before_its_ports_are(tmp_path: Path, taken: str) -> None:
    record = {"pid": os.getpid(), "start": start_time(os.getpid()), "base": taken, "port": 8080, "port_given": False}
    (tmp_path / "demo.json").write_text(json.dumps(record))
    assert f"already runs (pid {os.getpid()})" in refusal(Options(tmp_path, taken))


@pytest.mark.parametrize("option", [("--base", "foo"), ("--port", "99999"), ("--base", "10.0.0.0")])
@pytest.mark.parametrize("detach", [(), ("--detach",)])
def test_wrong_usage_exits_2(tmp_path: Path, option: tuple[str, str], detach: tuple[str, ...]) -> None:
    wrong = run("demo", *option, *detach, cwd=tmp_path, module="control.cli")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith(f"error: {option[0]} {option[1]}: ") and wrong.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_equal_ports_of_a_program_are_wrong_usage(tmp_path: Path) -> None:
    wrong = run("run", "--name", "a", "--port", "9080", "--", "true", cwd=tmp_path, module="control.cli")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: --port 9080, --app-port 9080: the sidecar listens") and wrong.stderr.count("\n") == 1


@pytest.mark.parametrize("port", [15000, 15001, 15020, 15021])
def test_a_program_cannot_have_the_sidecars_ports(tmp_path: Path, port: int) -> None:
    with pytest.raises(BadPlan, match=rf"^--port {port}: is the sidecar's own"):
        Program(tmp_path, "a", port, ("true",))
    with pytest.raises(BadPlan, match=rf"^--app-port {port}: is the sidecar's own"):
        Program(tmp_path, "a", 80, ("true",), app_port=port)


@pytest.mark.parametrize("given", ["file", "file/below"])
@pytest.mark.parametrize("verb", [("up",), ("detach",), ("stop",), ("run", "--name", "a", "--port", "80", "true")])
def test_a_state_that_is_a_file_is_named(tmp_path: Path, verb: tuple[str, ...], given: str) -> None:
    (tmp_path / "file").write_text("mine")
    refused = run(verb[0], "--state", given, *verb[1:], cwd=tmp_path)
    assert refused.returncode == 1
    what = "this" if given == "file" else tmp_path / "file"
    assert refused.stderr == f"error: --state {tmp_path / given}: {what} is a file; name a directory\n"
    assert (tmp_path / "file").read_text() == "mine"


def test_a_ctrl_c_held_back_during_imports_is_an_exit_code(tmp_path: Path, base: str) -> None:
    # As meshctl leaves it to the program that it becomes: blocked, and already there.
    code = (
        "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}); os.kill(os.getpid(), signal.SIGINT);"
        f"os.execv(sys.executable, [sys.executable, '-P', '-m', 'control.demo', 'up', '--base', {base!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    assert list(tmp_path.iterdir()) == []


def test_meshctl_holds_ctrl_c_back_for_the_program_that_it_becomes() -> None:
    code = (
        "import os, signal; from control.cli import mesh\n"
        "os.execv = lambda *words: print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))\n"
        "mesh._become('up')"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout == "True\n"


def test_a_ctrl_c_while_meshctl_imports_is_an_exit_code() -> None:
    code = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "import control.cli.__main__"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_before_mesh_ready_is_no_success(tmp_path: Path, base: str, number: signal.Signals) -> None:
    argv = [sys.executable, "-P", "-m", "control.demo", "up", "--base", base]
    with subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as starting:
        # Its record is the first thing that it writes, long before anything is ready.
        record = tmp_path / ".mesh" / "demo.json"
        while not record.exists():
            assert starting.poll() is None
            os.sched_yield()
        starting.send_signal(number)
        out, err = starting.communicate(timeout=60)
    assert (starting.returncode, out, err) == (128 + number, "", "mesh stopped\n")
    assert not record.exists()


def test_a_reader_that_has_gone_ends_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as out:
        Terminal(out=out).ready("mesh ready\nand more")
        Terminal(out=out).ready("again")
