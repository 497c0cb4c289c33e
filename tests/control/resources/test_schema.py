"""The served schemas say what validation does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from control.resources.kinds import KINDS, by_kind
from control.resources.schema import KEEP, definition_name, openapi


def test_names() -> None:
    assert definition_name(by_kind("", "Pod")) == "io.k8s.api.core.v1.Pod"
    assert definition_name(by_kind("discovery.k8s.io", "EndpointSlice")) == "io.k8s.api.discovery.v1.EndpointSlice"
    assert definition_name(by_kind("networking.istio.io", "Gateway"), "v1beta1") == "io.istio.networking.v1beta1.Gateway"


def test_a_virtual_service() -> None:
    schema = openapi(by_kind("networking.istio.io", "VirtualService"))
    assert schema["x-kubernetes-group-version-kind"][0] == {
        "group": "networking.istio.io",
        "version": "v1",
        "kind": "VirtualService",
    }
    http = schema["properties"]["spec"]["properties"]["http"]["items"]["properties"]
    assert http["timeout"]["type"] == "string"
    assert http["timeout"]["format"] == "duration"
    to = http["route"]["items"]
    assert to["required"] == ["destination"]
    assert to["properties"]["destination"]["required"] == ["host"]
    port = to["properties"]["destination"]["properties"]["port"]["properties"]["number"]
    assert (port["type"], port["minimum"], port["maximum"]) == ("integer", 1, 65535)
    assert http["match"]["items"]["properties"]["headers"]["additionalProperties"]["properties"].keys() == {
        "exact",
        "prefix",
        "regex",
    }
    assert "``" not in str(schema)


def test_enums_and_open_parts() -> None:
    rule = openapi(by_kind("networking.istio.io", "DestinationRule"))
    assert rule["required"] == ["spec"]
    policy = rule["properties"]["spec"]["properties"]["trafficPolicy"]["properties"]
    assert "ROUND_ROBIN" in policy["loadBalancer"]["properties"]["simple"]["enum"]
    assert openapi(by_kind("networking.istio.io", "EnvoyFilter"))["properties"]["spec"][KEEP] is True
    pod = openapi(by_kind("", "Pod"))
    assert pod[KEEP] is True
    assert pod["properties"]["spec"][KEEP] is True
    target = openapi(by_kind("", "Service"))["properties"]["spec"]["properties"]["ports"]["items"]["properties"]["targetPort"]
    assert target["x-kubernetes-int-or-string"] is True


def test_a_schema_is_the_callers_own() -> None:
    kind = by_kind("", "Pod")
    openapi(kind)["properties"].clear()
    assert openapi(kind)["properties"]


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    yield schema
    for child in [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]:
        if isinstance(child, dict):
            yield from nodes(child)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_every_schema_is_structural(kind: Any) -> None:
    """As Kubernetes demands of a CRD: every node has a type, or says that it is open, or takes an integer or text."""
    schema = openapi(kind)
    assert schema["properties"].keys() >= {"apiVersion", "kind", "metadata"}
    assert schema["description"]
    for node in nodes(schema):
        assert (
            node.get("type") in ("object", "array", "string", "integer", "number", "boolean") or KEEP in node or "anyOf" in node
        )
        assert node.get("type") != "array" or "items" in node
