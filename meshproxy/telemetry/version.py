"""Telemetry room: what runs here, for ``istio_build`` and ``/server_info``. A constant, because asking the package's metadata imports much."""

from __future__ import annotations

__all__ = ["VERSION"]

VERSION = "0.1.0"  # a test holds it to pyproject.toml
