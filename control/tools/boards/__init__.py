"""Grafana's dashboards as they are described here (tools). ``python -m docs.generate`` writes ``ALL`` into ``../grafana``."""

from __future__ import annotations

from control.tools.boards.control import CONTROL
from control.tools.boards.mesh import MESH
from control.tools.boards.proxy import PROXY
from control.tools.boards.service import SERVICE
from control.tools.boards.workload import WORKLOAD

__all__ = ["ALL"]

ALL = {"mesh": MESH, "service": SERVICE, "workload": WORKLOAD, "proxy": PROXY, "control": CONTROL}  # by name of the file
