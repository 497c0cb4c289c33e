"""Analysis, walking: the places in VirtualServices that several families look at, each with its path.

In: a scene or a VirtualService. Out: small tuples. Nothing is judged here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from control.analyze.scene import Scene
from control.resources.virtual_service import Destination, HTTPRoute, VirtualService
from control.translate.inbound import target_port
from control.world import PodInfo
from control.world.config import gateway_name

__all__ = ["Use", "gateway_names", "http_rules", "inbound_ports", "uses"]


def inbound_ports(scene: Scene, pod: PodInfo) -> tuple[int, ...]:
    """The pod's ports that services lead to."""
    index = scene.config.selectors.get(pod.namespace)
    services = index.matching(pod.labels) if index is not None else ()
    targets = {target_port(port, pod.ports) for service in services for port in service.ports}
    return tuple(sorted(port for port in targets if port is not None))


class Use(NamedTuple):
    """A destination that traffic is sent to. ``share``: its part of the rule's traffic in percent; mirrors have 0."""

    path: str
    destination: Destination
    share: float


def http_rules(scene: Scene) -> Iterator[tuple[VirtualService, int, HTTPRoute]]:
    for vs in scene.all("VirtualService"):
        for index, rule in enumerate(vs.spec.http):
            yield vs, index, rule


def uses(vs: VirtualService) -> Iterator[Use]:
    """Every destination of a VirtualService, mirrors and TCP included; those of weight 0 among several are left out."""
    for index, rule in enumerate(vs.spec.http):
        at = f"spec.http[{index}]"
        total = sum(route.weight for route in rule.route) if len(rule.route) > 1 else 0
        for number, route in enumerate(rule.route):
            share = 100.0 * route.weight / total if total else 100.0
            if share > 0:
                yield Use(f"{at}.route[{number}].destination", route.destination, share)
        if rule.mirror is not None:
            yield Use(f"{at}.mirror", rule.mirror, 0.0)
        for number, mirror in enumerate(rule.mirrors):
            yield Use(f"{at}.mirrors[{number}].destination", mirror.destination, 0.0)
    plain = [(f"spec.tls[{index}]", rule.route) for index, rule in enumerate(vs.spec.tls)]
    plain += [(f"spec.tcp[{index}]", rule.route) for index, rule in enumerate(vs.spec.tcp)]
    for at, routes in plain:
        for number, target in enumerate(routes):
            yield Use(f"{at}.route[{number}].destination", target.destination, 0.0)


def gateway_names(vs: VirtualService) -> Iterator[tuple[str, str]]:
    """(path, full name) of every gateway that a VirtualService names, ``mesh`` left out."""
    namespace = vs.metadata.namespace
    for index, name in enumerate(vs.spec.gateways):
        if name != "mesh":
            yield f"spec.gateways[{index}]", gateway_name(name, namespace)
    for number, rule in enumerate(vs.spec.http):
        for at, match in enumerate(rule.match):
            for index, name in enumerate(match.gateways):
                if name != "mesh":
                    yield f"spec.http[{number}].match[{at}].gateways[{index}]", gateway_name(name, namespace)
