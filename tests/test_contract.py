"""What control accepts at ``apply`` a proxy never refuses: one bad VirtualService must not stop everybody's configuration.

Each case is a VirtualService route that some field makes odd. Either validation refuses it, or its translation compiles.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "control" / "world"))

from world_objects import View, load, mesh_object, rating, virtual_service

from control.resources.check import validate
from meshproxy.apply import compile_snapshot
from meshproxy.explain import explain
from tests.test_apply import Maker

TO = [{"destination": {"host": "rating"}}]


def headers(**operations: Any) -> dict[str, Any]:
    return {"route": TO, "headers": {"request": operations, "response": operations}}


def matching(**match: Any) -> dict[str, Any]:
    return {"route": TO, "match": [match]}


ROUTES: list[dict[str, Any]] = [
    headers(set={"Content-Length": "1"}),
    headers(add={"Transfer-Encoding": "chunked"}),
    headers(remove=["Connection"]),
    headers(set={"x": "%NOPE%"}),
    headers(set={"x": "%REQ()%"}),
    headers(set={"x": "%REQ(:nope)%"}),
    headers(set={"x": "%REQ%"}),
    headers(set={"x": "%RESP(:path)%"}),
    headers(set={"x": "%PROTOCOL(a)%"}),
    headers(set={"x": "%DOWNSTREAM_REMOTE_ADDRESS% %REQ(a?b):10% 100%%"}),
    headers(set={"x": "%%%REQ(a)%%%"}),
    headers(set={"x": "%START_TIME(%Y)%"}),
    headers(set={"x y": "1"}),
    headers(set={"x": "a\tb"}),
    headers(set={"x": "ä"}),
    headers(set={"x": "a\nb"}),
    headers(set={"host": "a b"}),
    headers(set={"": "1"}),
    matching(uri={"regex": "("}),
    matching(uri={"regex": r"\pL{300}"}),
    matching(uri={"regex": "[a-z]{1000}"}),
    matching(uri={"regex": "a" * 1100}),
    matching(uri={"exact": ""}),
    matching(headers={"": {"exact": "a"}}),
    matching(headers={"x": {}}),
    matching(headers={"X-Y": {"regex": "*"}}),
    matching(queryParams={"": {"exact": "a"}}),
    matching(queryParams={"q": {}}),
    matching(authority={"regex": "["}),
    {"route": TO, "rewrite": {"uri": "/a b#ä\n"}},
    {"route": TO, "rewrite": {"authority": "a b"}},
    {"route": TO, "rewrite": {"uriRegexRewrite": {"match": "/a", "rewrite": r"\1"}}},
    {"route": TO, "rewrite": {"uriRegexRewrite": {"match": "/a", "rewrite": r"\x"}}},
    {"route": TO, "rewrite": {"uriRegexRewrite": {"match": "/a", "rewrite": "\\"}}},
    {"route": TO, "rewrite": {"uriRegexRewrite": {"match": "/(a)", "rewrite": r"/\1\\"}}},
    {"route": TO, "rewrite": {"uriRegexRewrite": {"match": "(", "rewrite": "/"}}},
    {"route": TO, "rewrite": {"uriRegexRewrite": {"match": r"\pL{300}", "rewrite": "/"}}},
    {"route": TO, "rewrite": {"uriRegexRewrite": {"match": "/a", "rewrite": "/b"}, "uri": "/c"}},
    {"redirect": {"uri": "/a b"}},
    {"redirect": {"redirectCode": 300, "uri": "/a"}},
    {"redirect": {"port": 70000}},
    {"redirect": {"port": 0, "uri": "/"}},
    {"redirect": {"port": 80, "derivePort": "FROM_REQUEST_PORT"}},
    {"redirect": {"uri": "/a", "prefixRewrite": "/b"}},
    {"directResponse": {"status": 99}},
    {"directResponse": {"status": 600}},
    {"directResponse": {"status": 204, "body": {"string": "x"}}},
    {"route": TO, "fault": {"abort": {"httpStatus": 600, "percentage": {"value": 1}}}},
    {"route": TO, "fault": {"abort": {"httpStatus": 500, "percentage": {"value": 101}}}},
    {"route": TO, "fault": {"abort": {"httpStatus": 500, "percentage": {"value": -1}}}},
    {"route": TO, "fault": {"abort": {"grpcStatus": "99", "percentage": {"value": 1}}}},
    {"route": TO, "fault": {"abort": {"grpcStatus": "UNAVAILABLE", "percentage": {"value": 1}}}},
    {"route": TO, "fault": {"delay": {"fixedDelay": "0s", "percentage": {"value": 1}}}},
    {"route": TO, "fault": {"delay": {"fixedDelay": "1ms", "percent": 101}}},
    {"route": TO, "retries": {"attempts": 1, "retryOn": "5xxx"}},
    {"route": TO, "retries": {"attempts": 1, "retryOn": "503,5xx,retriable-headers"}},
    {"route": TO, "retries": {"attempts": 1, "retryOn": ","}},
    {"route": TO, "timeout": "-1s"},
    {"route": TO, "timeout": "0s"},
    {"route": TO, "mirrors": [{"destination": {"host": "rating"}, "percentage": {"value": 101}}]},
    {"route": TO, "mirror": {"host": "nowhere"}, "mirrorPercentage": {"value": 200}},
    {"route": TO, "mirror": {"host": "nowhere"}},
    {"route": [{"destination": {"host": "rating", "subset": "none"}}]},
    {"route": [{"destination": {"host": "rating"}, "weight": 0}, {"destination": {"host": "nowhere"}, "weight": 0}]},
    {"route": [{"destination": {"host": "rating"}, "weight": -1}]},
    {"route": TO, "corsPolicy": {"allowOrigins": [{"regex": "("}]}},
    {"route": TO, "corsPolicy": {"allowOrigins": [{"regex": "*"}]}},
    {"route": TO, "corsPolicy": {"allowOrigins": [{"exact": "*"}], "allowMethods": ["GET"], "allowHeaders": ["a\nb"]}},
    {"route": TO, "corsPolicy": {"allowOrigins": [{}], "maxAge": "24h"}},
]


def both(objs: list[dict[str, Any]]) -> None:
    """Compile what every sidecar and gateway of these objects would get."""
    for who in (("default", "book-service"), ("default", "rating-service-v1"), ("default", "edge")):
        view = View(objs, who)
        kinds: dict[str, dict[str, Any]] = {}
        for kind, name in view.snapshot.resources:
            kinds.setdefault(kind, {})[name] = view.snapshot.get(kind, name)
        found = compile_snapshot(kinds, None, Maker())
        for listener in found.listeners:
            explain(found, listener, {"url": "http://rating:8080/a"}).as_dict()


def world(hosts: list[str], http: dict[str, Any]) -> list[dict[str, Any]]:
    edge = load(
        """
        apiVersion: v1
        kind: Pod
        metadata: {name: edge, namespace: default, labels: {istio: ingressgateway}}
        spec: {containers: [{name: proxy, image: proxy}]}
        status: {podIP: 127.1.0.10, conditions: [{type: Ready, status: "True"}]}
        """
    )
    server = {"port": {"number": 8080, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    gateway = mesh_object("Gateway", "edge", {"selector": {"istio": "ingressgateway"}, "servers": [server]})
    return [*rating(), *edge, gateway, virtual_service("odd", hosts, [http], gateways=["mesh", "edge"])]


@pytest.mark.parametrize("http", ROUTES, ids=[str(route)[:90] for route in ROUTES])
def test_what_control_accepts_compiles(http: dict[str, Any]) -> None:
    objs = world(["rating"], http)
    if validate(objs[-1]).errors:
        return
    both(objs)


def test_the_world_itself_compiles() -> None:
    both(world(["rating"], {"route": TO}))


@pytest.mark.parametrize(
    "hosts",
    [
        ["*.example.com"],
        ["10.0.0.1"],
        ["fd00::1"],
        ["rating", "other.example.com"],
        ["rating.default.svc.cluster.local"],
        ["a", "b.c"],
    ],
)
def test_hosts_of_every_form_compile(hosts: list[str]) -> None:
    objs = world(hosts, {"route": TO})
    assert not validate(objs[-1]).errors
    both(objs)


@pytest.mark.parametrize(
    ("hosts", "addresses"),
    [
        (["rating"], []),
        (["rating.default"], []),
        (["rating.default.svc.cluster.local"], []),
        (["*.default.svc.cluster.local"], []),
        (["a.example.com", "b.example.com"], ["240.0.0.1"]),
        (["v6.example.com"], ["fd00::1"]),
        (["net.example.com"], ["10.0.0.0/8"]),
    ],
)
def test_service_entries_beside_services_compile(hosts: list[str], addresses: list[str]) -> None:
    """Two sources of one name must be settled by control: a proxy refuses a domain that stands twice."""
    spec = {
        "hosts": hosts,
        "addresses": addresses,
        "ports": [{"number": 8080, "name": "http", "protocol": "HTTP"}, {"number": 80, "name": "http-2", "protocol": "HTTP"}],
        "location": "MESH_EXTERNAL",
        "resolution": "STATIC",
        "endpoints": [{"address": "127.2.0.1"}],
    }
    entry, twin = (mesh_object("ServiceEntry", name, spec) for name in ("one", "two"))
    objs = [entry, twin, *world(["rating"], {"route": TO})]
    if not validate(entry).errors:
        both(objs)
