"""Translate, who asks: the facts about one proxy that its configuration depends on.

In: a world and a pod's name. Out: ``ProxyId``. May assume nothing about the pod's annotations: unreadable entries are skipped
and named in ``problems``.
"""

from __future__ import annotations

import ipaddress
from typing import Literal

import msgspec

from control.translate.snapshot import Problem
from control.world import PodInfo, World
from meshproxy.model.cluster import Locality, Workload

__all__ = ["ProxyId", "proxy_of", "proxy_of_pod"]


class ProxyId(msgspec.Struct, frozen=True, kw_only=True):
    """One proxy. ``inbound_ports`` maps listener ports to the app's ports; ``None`` means no annotation: same port.

    ``every_gateway`` serves all Gateways whatever they select, ``outbound`` adds the outbound listener to a gateway: both are
    for a standalone proxy. ``capture``: the address on which it takes connections that iptables sends there; "": it sends none.
    ``excluded_ports``: of those that come in, which are left alone.
    """

    namespace: str
    pod: str
    ip: str = ""
    role: Literal["sidecar", "gateway"] = "sidecar"
    labels: tuple[tuple[str, str], ...] = ()
    service_account: str = "default"
    locality: Locality | None = None
    workload: Workload | None = None
    inbound_ports: tuple[tuple[int, int], ...] | None = None
    container_ports: tuple[tuple[str, int], ...] = ()
    gateway_bind: tuple[tuple[int, str, int], ...] = ()
    capture: str = ""
    excluded_ports: frozenset[int] = frozenset()
    every_gateway: bool = False
    outbound: bool = False
    problems: tuple[Problem, ...] = ()


def proxy_of(world: World, namespace: str, pod: str) -> ProxyId | None:
    """The proxy beside this pod; ``None`` when the world has no such pod."""
    info = world.pods.get((namespace, pod))
    return proxy_of_pod(info) if info is not None else None


def proxy_of_pod(info: PodInfo) -> ProxyId:
    problems: list[Problem] = []
    inbound_text = info.annotation("mesh.dev/inbound-ports")
    return ProxyId(
        namespace=info.namespace,
        pod=info.name,
        ip=info.ip,
        role="gateway" if info.role == "gateway" else "sidecar",
        labels=info.labels,
        service_account=info.service_account,
        locality=info.locality,
        workload=info.workload,
        inbound_ports=_inbound_ports(info, inbound_text, problems) if inbound_text else None,
        container_ports=info.ports,
        capture=_capture(info),
        excluded_ports=info.excluded_ports if info.intercepted else frozenset(),
        gateway_bind=_gateway_bind(info, info.annotation("mesh.dev/gateway-bind"), problems),
        problems=tuple(problems),
    )


def _capture(info: PodInfo) -> str:
    """Whatever address they were meant for: one socket takes both families, where the pod has both."""
    if not info.intercepted or info.role == "gateway":
        return ""
    return "::" if info.dual else "0.0.0.0"


def _inbound_ports(info: PodInfo, text: str, problems: list[Problem]) -> tuple[tuple[int, int], ...]:
    """``8080:9080,8081`` -> ((8080, 9080), (8081, 8081))."""
    found: dict[int, int] = {}
    for part in (p.strip() for p in text.split(",")):
        if not part:
            continue
        listen, _, app = part.partition(":")
        if _is_port(listen) and _is_port(app or listen):
            found[int(listen)] = int(app or listen)
        else:
            problems.append(_problem(info, "mesh.dev/inbound-ports", part, "8080:9080"))
    return tuple(sorted(found.items()))


def _gateway_bind(info: PodInfo, text: str, problems: list[Problem]) -> tuple[tuple[int, str, int], ...]:
    """``80=127.0.0.1:8080,443=8443`` -> ((80, "127.0.0.1", 8080), (443, "", 8443))."""
    found: dict[int, tuple[str, int]] = {}
    for part in (p.strip() for p in text.split(",")):
        if not part:
            continue
        port, _, target = part.partition("=")
        address, _, bound = target.rpartition(":")
        if _is_port(port) and _is_port(bound) and _is_address(address):
            found[int(port)] = (address.strip("[]"), int(bound))
        else:
            problems.append(_problem(info, "mesh.dev/gateway-bind", part, "80=127.0.0.1:8080"))
    return tuple((port, *bind) for port, bind in sorted(found.items()))


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 65536


def _is_address(text: str) -> bool:
    if not text:
        return True
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


def _problem(info: PodInfo, annotation: str, part: str, example: str) -> Problem:
    return Problem(
        f"Pod {info.namespace}/{info.name} metadata.annotations[{annotation}]",
        f"entry {part!r} cannot be read; write it as {example}",
    )
