"""The CRDs: structural as API servers demand, open to what is written for Istio, closed to what is wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import control
from control.install.crds import definition, definitions, schema, storage_version
from control.resources.check import validate
from control.resources.kinds import KINDS, Kind, kind_of

Obj = dict[str, Any]
MESH = [kind for kind in KINDS if kind.is_mesh]
KEEP, EITHER = "x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string"
WORDS = {
    "type", "properties", "items", "additionalProperties", "required", "description", "enum", "format", "minimum", "maximum",
    "nullable", "anyOf", KEEP, EITHER,
}  # fmt: skip
FORMATS = {"date-time", "duration"}
VERSIONS = {f"{kind.group}/{version}" for kind in MESH for version in kind.versions}
LAST_APPLIED = 262_144  # bytes: kubectl apply keeps the object in an annotation, and annotations have a limit


def parts(at: Any, path: str = "") -> Iterator[tuple[str, Obj]]:
    yield path, at
    for name, one in at.get("properties", {}).items():
        yield from parts(one, f"{path}.{name}")
    if "items" in at:
        yield from parts(at["items"], f"{path}[]")
    if isinstance(at.get("additionalProperties"), dict):
        yield from parts(at["additionalProperties"], f"{path}{{}}")


@pytest.mark.parametrize("kind", MESH, ids=lambda kind: kind.kind)
def test_structural(kind: Kind) -> None:
    """https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions, "structural schema"."""
    root = schema(kind)
    assert root["type"] == "object" and root["properties"]["metadata"] == {"type": "object"}
    for path, at in parts(root):
        assert set(at) <= WORDS, path
        if at.get(EITHER):
            assert "type" not in at and at["anyOf"] == [{"type": "integer"}, {"type": "string"}], path
            continue
        assert at["type"] in ("object", "array", "string", "integer", "number", "boolean"), path
        assert "anyOf" not in at, path
        assert not ("properties" in at and "additionalProperties" in at), path
        assert at.get(KEEP, True) is True and "uniqueItems" not in at
        assert ("items" in at) == (at["type"] == "array"), path
        assert set(at.get("required", ())) <= set(at.get("properties", ())), path
        assert at.get("format", "duration") in FORMATS, path
        assert path.count(".") < 40


@pytest.mark.parametrize("kind", MESH, ids=lambda kind: kind.kind)
def test_versions_and_names(kind: Kind) -> None:
    made = definition(kind, {})
    spec = made["spec"]
    assert made["metadata"]["name"] == f"{spec['names']['plural']}.{spec['group']}"
    assert [version["name"] for version in spec["versions"]] == list(kind.versions)
    assert [version["name"] for version in spec["versions"] if version["storage"]] == [storage_version(kind)]
    for version in spec["versions"]:
        assert version["served"] and version["subresources"] == {"status": {}}
        columns = version["additionalPrinterColumns"]
        assert [column["name"] for column in columns] == [column.name for column in kind.columns if column.name != "Name"]
        assert all(column["jsonPath"].startswith(".") for column in columns)
    assert "istio-io" in spec["names"]["categories"] and spec["names"].get("shortNames", []) == list(kind.short_names)
    assert len(json.dumps(made)) < LAST_APPLIED


def test_storage_versions_are_istios() -> None:
    """An apiserver refuses a CRD without a version in which objects are stored."""
    assert {kind.kind: storage_version(kind) for kind in MESH} == {
        **dict.fromkeys(("VirtualService", "DestinationRule", "Gateway", "ServiceEntry", "Sidecar"), "v1beta1"),
        **dict.fromkeys(("WorkloadEntry", "WorkloadGroup", "ProxyConfig"), "v1beta1"),
        **dict.fromkeys(("PeerAuthentication", "RequestAuthentication", "AuthorizationPolicy"), "v1beta1"),
        "EnvoyFilter": "v1alpha3",
        "Telemetry": "v1alpha1",
        "WasmPlugin": "v1alpha1",
    }


def test_short_names_are_nobody_elses() -> None:
    names = [
        name
        for made in definitions({})
        for name in (*made["spec"]["names"].get("shortNames", ()), made["spec"]["names"]["plural"])
    ]
    assert len(set(names)) == len(names)


def test_what_kubectl_prints_is_what_our_own_api_prints() -> None:
    obj = {"spec": {"hosts": ["a", "b"], "host": "h", "mtls": {"mode": "STRICT"}, "action": "DENY", "address": "1.2.3.4"}}
    for kind in MESH:
        for column in kind.columns:
            if column.path:
                found: Any = obj
                for part in column.path:
                    found = found.get(part) if isinstance(found, dict) else None
                shown = "" if found is None else json.dumps(found, separators=(",", ":")) if isinstance(found, list) else found
                assert column.value(obj, 0.0) == shown


def strict(kind: Kind) -> Obj:
    """As the API server with ``fieldValidation=Strict``, which kubectl asks for: an unknown field is refused."""
    found = copy.deepcopy(schema(kind))
    for _, at in parts(found):
        if "properties" in at and not at.get(KEEP):
            at["additionalProperties"] = False
        if at.get(EITHER):
            at.pop(EITHER)
    found["properties"]["metadata"] = {"type": "object"}
    return found


def errors(obj: Obj) -> list[str]:
    return [one.json_path for one in jsonschema.Draft7Validator(strict(kind_of(obj))).iter_errors(json.loads(json.dumps(obj)))]


def corpus() -> Iterator[tuple[str, Obj]]:
    folders = [Path(control.__file__).parent / "demo" / "manifests", Path(__file__).parents[2]]
    for folder in folders:
        for path in sorted((*folder.rglob("*.yml"), *folder.rglob("*.yaml"))):
            try:
                found = list(yaml.safe_load_all(path.read_text()))
            except (yaml.YAMLError, UnicodeDecodeError):
                continue  # some are wrong on purpose
            for i, obj in enumerate(found):
                if isinstance(obj, dict) and obj.get("apiVersion") in VERSIONS and not validate(obj).errors:
                    yield f"{path.parent.name}/{path.name}:{i}", obj


GOOD = dict(corpus())


def test_there_is_a_corpus() -> None:
    assert len(GOOD) >= 8


@pytest.mark.parametrize("name", GOOD)
def test_what_control_takes_the_cluster_takes(name: str) -> None:
    assert errors(GOOD[name]) == []


ISTIO = """
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata: {name: reviews, namespace: bookinfo}
spec:
  hosts: [reviews]
  gateways: [mesh, bookinfo-gateway]
  http:
  - match: [{headers: {end-user: {exact: jason}}, uri: {prefix: /a}, ignoreUriCase: true, port: 9080}]
    fault: {delay: {percentage: {value: 0.1}, fixedDelay: 5s}, abort: {httpStatus: 500, percentage: {value: 50}}}
    route: [{destination: {host: reviews, subset: v2, port: {number: 9080}}, weight: 100, headers: {request: {set: {a: b}}}}]
    timeout: 0.5s
    retries: {attempts: 3, perTryTimeout: 2s, retryOn: "5xx,reset"}
    corsPolicy: {allowOrigins: [{regex: ".*"}], maxAge: 24h}
    mirror: {host: shadow}
    mirrorPercentage: {value: 10.5}
---
apiVersion: networking.istio.io/v1beta1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  trafficPolicy:
    loadBalancer: {consistentHash: {httpCookie: {name: user, ttl: 0s}}}
    connectionPool: {tcp: {maxConnections: 100, connectTimeout: 30ms}, http: {http1MaxPendingRequests: 1024}}
    outlierDetection: {consecutive5xxErrors: 7, interval: 5m, baseEjectionTime: 15m}
    portLevelSettings: [{port: {number: 80}, tls: {mode: ISTIO_MUTUAL}}]
  subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}]
---
apiVersion: security.istio.io/v1beta1
kind: AuthorizationPolicy
metadata: {name: allow}
spec:
  selector: {matchLabels: {app: web}}
  action: ALLOW
  rules:
  - from: [{source: {principals: ["cluster.local/ns/a/sa/b"], notNamespaces: [c]}}]
    to: [{operation: {methods: [GET], paths: ["/info*"]}}]
    when: [{key: "request.auth.claims[iss]", values: ["https://a.example"]}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}, portLevelMtls: {"8080": {mode: DISABLE}}, selector: {matchLabels: {a: b}}}
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: any}
spec:
  configPatches:
  - {applyTo: HTTP_FILTER, match: {context: SIDECAR_INBOUND}, patch: {operation: ADD, value: {name: x, deep: [1]}}}
---
apiVersion: telemetry.istio.io/v1alpha1
kind: Telemetry
metadata: {name: t}
spec: {tracing: [{randomSamplingPercentage: 1.5}], accessLogging: [{providers: [{name: envoy}]}]}
status: {conditions: [{type: Reconciled}], observedGeneration: "1"}
"""


def test_what_is_written_for_istio() -> None:
    for obj in yaml.safe_load_all(ISTIO):
        assert errors(obj) == [], obj["kind"]


BAD = [
    ("VirtualService", "spec.http[0].route[0].weight", "heavy"),
    ("VirtualService", "spec.http[0].retires", {"attempts": 1}),
    ("VirtualService", "spec.hosts", "reviews"),
    ("VirtualService", "spec.http[0].route[0].destination.port.number", 70000),
    ("VirtualService", "spec.http[0].route[0].destination.host", None),
    ("VirtualService", "spec.http[0].mirrorPercentage.value", 101),
    ("DestinationRule", "spec.trafficPolicy.loadBalancer.simple", "BEST"),
    ("DestinationRule", "spec.subsets[0].labels", ["v1"]),
    ("AuthorizationPolicy", "spec.action", "PERHAPS"),
    ("PeerAuthentication", "spec.mtls.mode", "strict"),
    ("Telemetry", "spec.tracing[0].randomSamplingPercentage", "1"),
]


@pytest.mark.parametrize("kind, path, value", BAD)
def test_what_is_wrong_is_refused(kind: str, path: str, value: Any) -> None:
    obj = next(one for one in yaml.safe_load_all(ISTIO) if one["kind"] == kind)
    steps = [int(step) if step.isdigit() else step for step in path.replace("[", ".").replace("]", "").split(".")]
    here: Any = obj
    for step in steps[:-1]:
        if isinstance(here, dict):
            here.setdefault(step, {})
        here = here[step]
    here[steps[-1]] = value
    assert errors(obj)
