"""What is taken but not obeyed yet is said, with its path."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from control.resources.check import validate
from control.resources.honoured import NOT_HONOURED, not_honoured
from control.resources.kinds import KINDS

BY_KIND = {k.kind: k for k in KINDS}


def told(kind: str, spec: str) -> list[str]:
    obj: dict[str, Any] = {"spec": yaml.safe_load(spec)}
    return [p.path for p in not_honoured(kind, obj)]


@pytest.mark.parametrize(
    ("kind", "spec", "paths"),
    [
        ("VirtualService", "{hosts: [a], http: [{route: []}]}", []),
        ("VirtualService", "{tcp: [{}], tls: [{}], http: [{}, {delegate: {name: a}}]}", ["spec.http[1].delegate"]),
        (
            "VirtualService",
            "{http: [{match: [{headers: {a: {}, '@request.auth.claims.x': {}}, statPrefix: a}]}]}",
            ["spec.http[0].match[0].statPrefix"],
        ),
        ("DestinationRule", "{trafficPolicy: {outlierDetection: {}, loadBalancer: {simple: RANDOM}}}", []),
        ("DestinationRule", "{trafficPolicy: {tls: {mode: DISABLE}}}", []),
        ("DestinationRule", "{trafficPolicy: {tls: {mode: SIMPLE}}}", []),
        (
            "DestinationRule",
            "{trafficPolicy: {loadBalancer: {consistentHash: {maglev: {}}}}}",
            ["spec.trafficPolicy.loadBalancer.consistentHash.maglev"],
        ),
        (
            "DestinationRule",
            "{subsets: [{}, {trafficPolicy: {portLevelSettings: [{connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}]}}]}",
            ["spec.subsets[1].trafficPolicy.portLevelSettings[0].connectionPool.http.h2UpgradePolicy"],
        ),
        ("DestinationRule", "{trafficPolicy: {connectionPool: {http: {useClientProtocol: false}}}}", []),
        ("Gateway", "{servers: [{port: {protocol: HTTP}}]}", []),
        ("Gateway", "{servers: [{port: {protocol: https}, tls: {mode: SIMPLE}}]}", []),
        ("Gateway", "{servers: [{port: {protocol: HTTPS}, tls: {mode: AUTO_PASSTHROUGH}}]}", ["spec.servers[0].tls.mode"]),
        ("Gateway", "{servers: [{port: {protocol: tls}, tls: {mode: SIMPLE}}, {port: {protocol: TCP}}]}", []),
        ("Gateway", "{servers: [{port: {protocol: HTTP}, tls: {httpsRedirect: true}}]}", []),
        ("ServiceEntry", "{resolution: DNS}", []),
        ("ServiceEntry", "{resolution: DYNAMIC_DNS}", ["spec.resolution"]),
        ("Sidecar", "{egress: [{hosts: ['./*']}], ingress: [{captureMode: NONE}]}", ["spec.ingress[0].captureMode"]),
        ("AuthorizationPolicy", "{}", []),
        ("EnvoyFilter", "{x: 1}", ["spec"]),
        ("Pod", "{}", []),
    ],
)
def test_paths(kind: str, spec: str, paths: list[str]) -> None:
    assert told(kind, spec) == paths


def test_the_line_a_user_reads() -> None:
    obj = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": {}}
    assert [str(w) for w in validate(obj).warnings] == [
        "stored only: nothing here starts its pods; use meshctl run, or a cluster"
    ]
    policy = {"apiVersion": "networking.istio.io/v1beta1", "kind": "ProxyConfig", "metadata": {"name": "a"}, "spec": {}}
    assert [str(w) for w in validate(policy).warnings] == ["spec: accepted but not honoured yet"]


def test_every_pattern_names_fields_that_exist() -> None:
    """A line about a field that is not there would never warn."""
    import msgspec

    def exists(cls: Any, steps: list[str]) -> bool:
        for step in steps:
            name = step.partition("=")[0].removesuffix("[]")
            if name.startswith("{"):
                return True
            fields = {f.encode_name: f.type for f in msgspec.structs.fields(cls)}
            if name not in fields:
                return False
            cls = _struct(fields[name])
            if cls is None:
                return step == steps[-1] or steps[-1].startswith("{")
        return True

    for kind, patterns in NOT_HONOURED.items():
        for pattern in patterns:
            assert exists(BY_KIND[kind].struct, pattern.split(".")), (kind, pattern)


def _struct(hint: Any) -> Any:
    import typing

    import msgspec

    for part in (hint, *typing.get_args(hint)):
        if isinstance(part, type) and issubclass(part, msgspec.Struct):
            return part
    return None
