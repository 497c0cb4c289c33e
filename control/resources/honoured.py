"""What is accepted but not obeyed yet, as data: a stage that starts to honour a field deletes its line.

Room: control/resources. In: an object as the user wrote it. Out: one warning per such field, with its path. A pattern is a path
in which ``[]`` is every element of a list, ``{glob}`` every matching key of a map, and ``=A|B`` at the end one of these values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from control.resources.shape import Problem

__all__ = ["NOT_HONOURED", "not_honoured"]

NOT_YET = "accepted but not honoured yet"

_HTTP = "spec.http[]"
_POLICIES = ("spec.trafficPolicy", "spec.subsets[].trafficPolicy")
_POLICY_FIELDS = ("tunnel", "proxyProtocol", "retryBudget.budgetInterval")
_BLOCKS = (*_POLICIES, *(f"{policy}.portLevelSettings[]" for policy in _POLICIES))
_BLOCK_FIELDS = (
    "loadBalancer.consistentHash.maglev",
    "loadBalancer.warmup",
    "loadBalancer.warmupDurationSecs",
    "loadBalancer.localityLbSetting.distribute",
    "loadBalancer.zoneAwareLbSetting",
    "connectionPool.http.h2UpgradePolicy=UPGRADE",
    "connectionPool.http.maxConcurrentStreams",
    "connectionPool.http.http2KeepAlive",
    "connectionPool.http.useClientProtocol",
)

NOT_HONOURED: dict[str, tuple[str, ...]] = {
    "VirtualService": (
        "spec.tcp[].match[].sourceSubnet",
        f"{_HTTP}.delegate",
        f"{_HTTP}.match[].statPrefix",
        f"{_HTTP}.retries.retryRemoteLocalities",
    ),
    "DestinationRule": (
        *(f"{policy}.{field}" for policy in _POLICIES for field in _POLICY_FIELDS),
        *(f"{block}.{field}" for block in _BLOCKS for field in _BLOCK_FIELDS),
    ),
    "Gateway": (
        "spec.servers[].defaultEndpoint",
        "spec.servers[].port.protocol=GRPC|GRPC-WEB|HTTP2",
        "spec.servers[].tls.mode=AUTO_PASSTHROUGH",
        "spec.servers[].tls.insecureSkipVerify",
    ),
    "ServiceEntry": ("spec.endpoints[].network", "spec.resolution=DNS_ROUND_ROBIN|DYNAMIC_DNS"),
    "Sidecar": (
        "spec.ingress[].bind",
        "spec.ingress[].captureMode=NONE",
        "spec.ingress[].tls",
        "spec.outboundTrafficPolicy.egressProxy",
        "spec.egress[].bind",
        "spec.egress[].captureMode=NONE",
    ),
    "WorkloadEntry": ("spec.network",),
    "WorkloadGroup": ("spec",),
    "Telemetry": (
        "spec.metrics[].reportingInterval",
        "spec.metrics[].overrides[].match.customMetric",
    ),
    "ProxyConfig": ("spec",),
    "EnvoyFilter": ("spec",),
    "WasmPlugin": ("spec",),
}

# Kinds that are stored, and do something elsewhere but not here.
STORED_ONLY = {"Deployment": "stored only: nothing here starts its pods; use meshctl run, or a cluster"}

_STEP = re.compile(r"([A-Za-z0-9]+)(\[\])?(?:=(.*))?\Z")


def not_honoured(kind: str, obj: dict[str, Any]) -> list[Problem]:
    """Warnings in the order of the list above. The object need not be valid."""
    found = [Problem("", STORED_ONLY[kind])] if kind in STORED_ONLY else []
    for pattern in NOT_HONOURED.get(kind, ()):
        for path, value in _walk(obj, _steps(pattern), ""):
            which = f" ({value})" if "=" in pattern else ""
            found.append(Problem(path, NOT_YET + which))
    return found


def _steps(pattern: str) -> list[str]:
    return re.findall(r"\{[^}]*\}|[^.{}]+(?==)=.*|[^.{}]+", pattern)


def _walk(value: Any, steps: list[str], path: str) -> Iterator[tuple[str, Any]]:
    if not steps:
        if value not in (None, "", [], False) or path == "spec":  # an empty block may switch something on: ``maglev: {}``
            yield path, value
        return
    step, rest = steps[0], steps[1:]
    if not isinstance(value, dict):
        return
    if step.startswith("{"):
        for key, item in value.items():
            if isinstance(key, str) and fnmatchcase(key, step[1:-1]):
                yield f"{path}[{key}]", item
        return
    match = _STEP.match(step)
    if match is None or match[1] not in value:
        return
    inner, at = value[match[1]], f"{path}.{match[1]}" if path else match[1]
    if match[3] is not None:
        if isinstance(inner, str) and inner.upper() in match[3].split("|"):
            yield at, inner
    elif match[2] is None:
        yield from _walk(inner, rest, at)
    elif isinstance(inner, list):
        for i, item in enumerate(inner):
            yield from _walk(item, rest, f"{at}[{i}]")
