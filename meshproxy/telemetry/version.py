"""Telemetry room: what runs here, for ``istio_build`` and ``/server_info``; a constant, since package metadata costs imports."""

from __future__ import annotations

__all__ = ["VERSION"]

VERSION = "0.1.0"  # a test holds it to pyproject.toml
