"""The image, as far as it can be tried without a container: linted, its steps read, and run where they can be."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINES = re.sub(
    r"\\\n\s*", "", "\n".join(line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#"))
).splitlines()
STEPS = [(line.partition(" ")[0], line.partition(" ")[2]) for line in LINES if line]
FACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def stages() -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for step in STEPS:
        if step[0] == "FROM":
            found.append([])
        found[-1].append(step)
    return found


def of(stage: list[tuple[str, str]], word: str) -> list[str]:
    return [rest for step, rest in stage if step == word]


def test_hadolint() -> None:
    lint = Path(sysconfig.get_path("scripts")) / "hadolint"
    done = subprocess.run([lint, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_bases_are_pinned_and_of_no_private_registry() -> None:
    for stage in stages():
        image = of(stage, "FROM")[0].split()[0]
        assert re.fullmatch(r"[a-z]+:\d+(\.\d+)?-slim", image), image
    assert of(stages()[1], "FROM")[0].split()[0] == of(stages()[-1], "FROM")[0], "a venv must be used by the Python that made it"


def test_the_final_stage() -> None:
    final = stages()[-1]
    assert of(final, "USER") == ["1337:1337"] and of(final, "HEALTHCHECK") == ["NONE"] and not of(final, "EXPOSE")
    assert of(final, "COPY") == ["--from=build /opt/mesh /opt/mesh"]
    installed = re.search(r"--no-install-recommends ([\w\s]+)", of(final, "RUN")[0])
    assert installed is not None and installed[1].split() == ["iptables", "iproute2"]
    whole = " ".join(rest for _, rest in final)
    assert not re.search(r"\b(gcc|build-essential|make|clang|pip)\b", whole)
    assert of(final, "CMD") == ['["meshproxy"]'] and "meshproxy" in FACTS["scripts"]


def test_all_that_is_copied_is_there_and_is_sent() -> None:
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for stage in stages():
        for copied in of(stage, "COPY"):
            if copied.startswith("--from="):
                continue
            for source in copied.split()[:-1]:
                assert (ROOT / source).exists() and source.split("/")[0] in sent, source
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} & {"meshproxy", "control", "injector"}
    assert packages <= {word for copied in of(stages()[1], "COPY") for word in copied.split()}


def test_requirements_are_the_projects(tmp_path: Path) -> None:
    """The step that writes them is run as it is."""
    (command,) = [run for run in of(stages()[1], "RUN") if "tomllib" in run]
    step = command.partition(" && ")[0].replace("/tmp/requirements.txt", str(tmp_path / "requirements.txt"))
    step = step.replace("python ", f"{sys.executable} ", 1)
    subprocess.run(["sh", "-ec", step], cwd=ROOT, check=True, timeout=60)
    assert (tmp_path / "requirements.txt").read_text().splitlines() == FACTS["dependencies"]


@pytest.mark.slow
def test_the_wheel_is_built_and_has_every_command(tmp_path: Path) -> None:
    """The build stage's own steps, in a virtual environment of their own, from what is sent."""
    source = tmp_path / "src"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, source)
    skip = shutil.ignore_patterns("__pycache__", "node_modules", "dist")
    for name in ("meshproxy", "control", "injector"):
        shutil.copytree(ROOT / name, source / name, ignore=skip)
    (source / "control" / "page" / "dist").mkdir()
    (source / "control" / "page" / "dist" / "index.html").write_text("<!doctype html>")
    prepare, _, build = of(stages()[1], "RUN")
    build = build.partition(" && /opt/mesh/bin/pip uninstall")[0]
    environ = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    for step in (prepare, build):
        command = step.replace("/opt/mesh", str(tmp_path / "mesh")).replace("/wheels", str(tmp_path / "wheels"))
        command = command.replace("python -m venv", f"{sys.executable} -m venv", 1)
        done = subprocess.run(
            ["sh", "-ec", command], cwd=source, env=environ, capture_output=True, text=True, timeout=110, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    for name in FACTS["scripts"]:
        assert (tmp_path / "mesh" / "bin" / name).exists()
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"control/page/dist/index.html", "injector/server.py", "control/install/plan.py", "meshproxy/__main__.py"} <= names
