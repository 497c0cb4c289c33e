"""A real mesh-control on a port of its own, for the tests of this folder; empty namespaces per test."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from control.cli.__main__ import main
from control.client.api import Api
from control.client.kubeconfig import load


@dataclass
class Outcome:
    code: int
    out: str
    err: str


class Mesh:
    """What a test needs of the mesh: meshctl in this process, kubectl as a process, the API."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.kubeconfig = state / "kubeconfig"
        self.api = Api(load([self.kubeconfig]))
        self.namespace = "default"

    def kubectl(self, *words: str, text: str | None = None) -> Outcome:
        environ = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.state)}
        done = subprocess.run(
            ["kubectl", "-n", self.namespace, *words], env=environ, input=text, capture_output=True, text=True, timeout=60
        )
        return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    state = tmp_path_factory.mktemp("mesh")
    argv = [sys.executable, "-m", "control", "serve", "--state", str(state), "--logs", str(state / "logs")]
    argv += ["--bind", "127.0.0.1", "--port", "0", "--metrics-port", "0", "--log-level", "warning"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("mesh-control ready")
        yield state
        process.terminate()
        process.communicate(timeout=20)


_numbers = itertools.count()


@pytest.fixture
def mesh(control: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mesh]:
    made = Mesh(control)
    made.namespace = f"test-{next(_numbers)}"
    made.api.request(
        "POST", "/api/v1/namespaces", body={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": made.namespace}}
    )
    monkeypatch.setenv("KUBECONFIG", str(made.kubeconfig))
    yield made
    made.api.close()


@pytest.fixture
def meshctl(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> Iterator[object]:
    def run(*words: str) -> Outcome:
        capsys.readouterr()
        code = main([*words, "-n", mesh.namespace] if words[0] not in ("version", "--help") else list(words))
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err)

    yield run
