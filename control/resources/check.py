"""Is an object good? All that is wrong with it, each with its path, and what we take but do not obey.

Room: control/resources. In: an object as stored or as a user sent it. Out: its struct, or a verdict. Three steps: shape (names,
types, ranges, forms), rules (what fields must keep towards each other), and the list of fields that no stage honours yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from control.resources import (
    core,
    destination_rule,
    gateway,
    mesh_config,
    proxy_config,
    rules_core,
    rules_edge,
    rules_policy,
    rules_route,
    rules_security,
    rules_telemetry,
    security,
    service_entry,
    sidecar,
    telemetry,
    virtual_service,
    workload_entry,
    workload_group,
)
from control.resources.core import CoreResource
from control.resources.honoured import not_honoured
from control.resources.kinds import Kind, kind_of
from control.resources.meta import Resource
from control.resources.report import Report
from control.resources.shape import Problem, Shape, build

__all__ = ["Invalid", "Problem", "Verdict", "decode", "validate"]

_RULES: dict[type, Callable[[Report, Any], None]] = {
    virtual_service.VirtualService: rules_route.virtual_service,
    destination_rule.DestinationRule: rules_policy.destination_rule,
    gateway.Gateway: rules_edge.gateway,
    service_entry.ServiceEntry: rules_edge.service_entry,
    sidecar.Sidecar: rules_edge.sidecar,
    workload_entry.WorkloadEntry: rules_edge.workload_entry,
    workload_group.WorkloadGroup: rules_edge.workload_group,
    security.PeerAuthentication: rules_security.peer_authentication,
    security.RequestAuthentication: rules_security.request_authentication,
    security.AuthorizationPolicy: rules_security.authorization_policy,
    telemetry.Telemetry: rules_telemetry.telemetry,
    proxy_config.ProxyConfig: rules_security.proxy_config,
    core.Namespace: rules_core.namespace,
    core.Service: rules_core.service,
    core.Pod: rules_core.pod,
    core.Secret: rules_core.secret,
    core.ConfigMap: mesh_config.config_map,
}
_LABEL_NAMES = (core.Namespace, core.Service)  # their names become parts of host names


class Invalid(ValueError):
    """An object that cannot be decoded; the message is one line."""


@dataclass(frozen=True)
class Verdict:
    """``errors`` empty: the object may be stored. ``warnings`` are for the user to read."""

    errors: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.errors


def decode(obj: Mapping[str, Any]) -> Resource | CoreResource:
    """The struct of an object that has been validated before; fast. Raises Invalid with the first fault and its path.

    Only the shape is judged, not the rules."""
    try:
        kind = kind_of(obj)
    except KeyError as error:
        raise Invalid(str(error.args[0])) from None
    try:
        found: Any = msgspec.convert(obj, kind.struct)
    except msgspec.ValidationError as error:
        shape = build(obj, kind.struct)  # it takes what JSON made by hand or YAML may hold: 80.0, unquoted keys
        if shape.problems or shape.value is None:
            raise Invalid(str(shape.problems[0]) if shape.problems else str(error)) from None
        found = shape.value
    assert isinstance(found, (Resource, CoreResource))
    return found


def validate(obj: Any) -> Verdict:
    """Everything that is wrong with an object. Never raises for what a user wrote."""
    if not isinstance(obj, dict):
        return Verdict(errors=(Problem("", "must be an object"),))
    try:
        kind = kind_of(obj)
    except KeyError as error:
        return Verdict(errors=(Problem("", str(error.args[0])),))
    shape = build(obj, kind.struct)
    report = Report()
    if shape.value is not None:
        _rules(report, kind, shape.value)
    errors = [*shape.problems, *_new(shape, report.errors)]
    warnings = [*_new(shape, report.warnings), *not_honoured(kind.kind, obj)]
    return Verdict(tuple(dict.fromkeys(errors)), tuple(dict.fromkeys(warnings)))


def _rules(report: Report, kind: Kind, value: Any) -> None:
    rules_core.metadata(report, value.metadata, label=kind.struct in _LABEL_NAMES)
    rule = _RULES.get(kind.struct)
    if rule is not None:
        rule(report, value)


def _new(shape: Shape, found: list[Problem]) -> list[Problem]:
    """Without what only follows from a fault of shape: said of the same path, of something inside what could not be built, or
    of something missing where an unusable field stands."""
    faulty = {p.path for p in shape.problems}
    parents = {path.rpartition("[" if path.endswith("]") else ".")[0] for path in shape.lost}

    def follows(p: Problem) -> bool:
        missing = p.path in parents and "required" in p.message
        return missing or p.path in faulty or any(p.path.startswith((f"{lost}.", f"{lost}[")) for lost in shape.lost)

    return [p for p in found if not follows(p)]
