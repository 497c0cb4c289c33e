"""The build hook: a page that cannot be built leaves a line that says why, and an unchanged one is not built again."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.page.fake import DIST

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "setup.py", tmp_path)
    skip = shutil.ignore_patterns("dist", "node_modules", "__pycache__")
    shutil.copytree(ROOT / "control" / "page", tmp_path / "control" / "page", ignore=skip)
    return tmp_path


def build(copy: Path, npm: str) -> subprocess.CompletedProcess[str]:
    """With a Node and an npm that only do what they are told here."""
    programs = copy / "bin"
    programs.mkdir()
    for name, does in (("node", 'echo "v22.0.0"'), ("npm", npm)):
        (programs / name).write_text(f"#!/bin/sh\n{does}\n")
        (programs / name).chmod(0o755)
    environ = {**os.environ, "PATH": f"{programs}:/usr/bin:/bin"}
    return subprocess.run([sys.executable, "setup.py", "page"], cwd=copy, env=environ, capture_output=True, text=True, timeout=60)


def test_a_failed_build_is_one_line_that_control_can_show(copy: Path) -> None:
    done = build(copy, "echo 'npm warn old' >&2; echo 'npm error code ECONNREFUSED' >&2; exit 1")
    assert done.returncode == 1
    line = "the dashboard's page is missing (npm ci --omit=dev --ignore-scripts: code ECONNREFUSED); to try again: make page\n"
    assert done.stderr == line
    assert (copy / "control/page/dist/missing.txt").read_text() == line


def test_an_unchanged_page_is_not_built_again(copy: Path) -> None:
    names = runpy.run_path(str(copy / "setup.py"))
    dist = copy / "control/page/dist"
    dist.mkdir()
    (dist / ".made-of").write_text(names["fingerprint"]())
    assert build(copy, "exit 9").returncode == 0
    (copy / "control/page/src/format.ts").write_text("export const NONE = '-';\n")
    assert names["fingerprint"]() != (dist / ".made-of").read_text()


def test_the_page_needs_nothing_from_elsewhere_and_no_inline_code() -> None:
    html = (DIST / "index.html").read_text()
    assert "http" not in html.replace("http-equiv", "") and "style=" not in html and "<style" not in html
    assert html.count("<script") == html.count('<script type="module" src="app.js">') == 1
    licences = (DIST / "licences.txt").read_text()
    assert all(name in licences for name in ("preact", "uplot", "@dagrejs/dagre", "@dagrejs/graphlib"))
