"""The rules in conftest.py: what is left out is said, and in CI it is a failure."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CASES = """
import pytest

@pytest.mark.system("no-such-program")
def test_needs_a_program(): raise AssertionError

def test_skips_itself(): pytest.skip("no luck")

def test_passes(): pass
"""


@pytest.mark.parametrize(("no_skip", "code"), [("", 0), ("1", 1)])
def test_left_out_tests_are_named_and_fail_ci(tmp_path: Path, no_skip: str, code: int) -> None:
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path / "conftest.py")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  system: x\n")
    (tmp_path / "test_cases.py").write_text(CASES)
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(
        argv, env={**os.environ, "MESH_NO_SKIP": no_skip}, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code, done.stdout
    assert "left out: 2" in done.stdout
    assert "test_cases.py::test_needs_a_program: needs no-such-program: run `make system-deps`" in done.stdout
    assert "test_cases.py::test_skips_itself: no luck" in done.stdout
    assert "1 passed" in done.stdout
