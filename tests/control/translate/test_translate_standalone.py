"""Files straight into one proxy."""

from __future__ import annotations

import msgspec
from world_objects import load

from control.translate.standalone import config_file, files_proxy, files_world, translate_files
from meshproxy.model.delivery import KINDS, ORDER, Resource

FILES = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  selector: {istio: whatever}
  servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: ["*"]
  gateways: [gw]
  http:
  - match: [{uri: {prefix: /api}}]
    route: [{destination: {host: api.local, subset: v1}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d}
spec: {host: api.local, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: e}
spec:
  hosts: [api.local]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints:
  - {address: 127.0.0.1, ports: {http: 9001}, labels: {version: v1}}
  - {address: 127.0.0.1, ports: {http: 9002}, labels: {version: v2}}
"""


def decoded(document: bytes) -> dict[tuple[str, str], object]:
    class File(msgspec.Struct):
        resources: tuple[Resource, ...]

    found = msgspec.json.decode(document, type=File)
    kinds = [r.kind for r in found.resources]
    assert kinds == sorted(kinds, key=ORDER.index)
    return {(r.kind, r.name): msgspec.json.decode(r.body, type=KINDS[r.kind]) for r in found.resources}


def test_a_gateway_from_files():
    world = files_world(load(FILES))
    assert world.problems == ()
    snapshot = translate_files(world, files_proxy())
    assert snapshot.problems == ()
    state = decoded(config_file(snapshot))
    assert sorted(state) == [
        ("cluster", "outbound|80|v1|api.local"),
        ("endpoints", "outbound|80|v1|api.local"),
        ("listener", "gateway|8080"),
        ("route", "http.8080"),
    ]
    endpoints = state[("endpoints", "outbound|80|v1|api.local")]
    assert [(e.address, e.port) for e in endpoints.endpoints] == [("127.0.0.1", 9001)]  # type: ignore[attr-defined]


def test_with_an_outbound_listener_too():
    snapshot = translate_files(files_world(load(FILES)), files_proxy(outbound=True))
    names = [name for kind, name in snapshot.resources if kind == "listener"]
    assert names == ["gateway|8080", "outbound"]
    assert ("route", "80") in snapshot.resources
    assert len(snapshot.resources) == len(list(snapshot.resources))


def test_as_a_sidecar():
    snapshot = translate_files(files_world(load(FILES)), files_proxy(gateway=False))
    assert [name for kind, name in snapshot.resources if kind == "listener"] == ["outbound"]


def test_a_place_for_the_port():
    snapshot = translate_files(files_world(load(FILES)), files_proxy(gateway_bind=[(8080, "127.0.0.1", 18080)]))
    assert ("listener", "gateway|18080") in snapshot.resources


def test_bad_objects_are_named_and_do_not_stop_the_others():
    bad = load("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: bad}\nspec: {hots: [a]}")
    world = files_world([*load(FILES), *bad, {"kind": "Nonsense"}])
    assert [(p.kind, p.name) for p in world.problems] == [("Nonsense", ""), ("VirtualService", "bad")]
    assert ("listener", "gateway|8080") in translate_files(world, files_proxy()).resources


def test_namespace_of_files():
    world = files_world(load(FILES), namespace="shop")
    assert world.get("Gateway", "shop", "gw") is not None
