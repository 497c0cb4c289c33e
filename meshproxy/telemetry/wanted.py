"""Telemetry room: one configuration's ``Telemetry`` as far as metrics and logs go, judged whole before anything obeys it.

In: resources as decoded. Out: ``Wanted``, or ``policy.invalid.Invalid`` with the field's path. Opens nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

from meshproxy.model.base import Model
from meshproxy.model.telemetry import Telemetry
from meshproxy.telemetry.accesslog import AccessLogs, CompiledLog
from meshproxy.telemetry.overrides import Plan, plans

__all__ = ["Wanted", "wanted"]


class Wanted(NamedTuple):
    """``model`` None: nothing was said. ``logs`` None: the bootstrap's."""

    model: Telemetry | None
    plans: dict[str, Plan]
    logs: tuple[CompiledLog, ...] | None


def wanted(resources: Mapping[str, Mapping[str, Model]], before: Wanted | None = None) -> Wanted:
    """``before`` goes on where nothing changed."""
    model = cast("Telemetry | None", resources.get("telemetry", {}).get("workload"))
    if before is not None and before.model == model:
        return before
    if model is None:
        return Wanted(None, {}, None)
    return Wanted(model, plans(model.metrics), AccessLogs.compile(model.logs))
