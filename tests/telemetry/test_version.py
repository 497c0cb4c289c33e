"""One version, in two places."""

from __future__ import annotations

import tomllib
from pathlib import Path

from meshproxy.telemetry.version import VERSION


def test_the_constant_is_the_packages() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["version"] == VERSION
