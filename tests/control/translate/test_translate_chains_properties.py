"""Properties of chains over random worlds: every one is unambiguous and the proxy takes it, order and memory change nothing."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from obeyed import compiled
from world_objects import Obj, event, mesh_object, pod, service, slices, to

from control.translate import Snapshot, Translator, diff, proxy_of, translate
from control.world import World

REDIRECT = {"sidecar.istio.io/interceptionMode": "REDIRECT"}
NAMES, NUMBERS = ("a", "b", "c"), (80, 443, 5432)
names, numbers = st.sampled_from(NAMES), st.sampled_from(NUMBERS)
ages = st.sampled_from(["", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"])
hosts = st.sampled_from(["a", "b.default.svc.cluster.local", "x.example", "*.example", "y.x.example"])
addresses = st.lists(
    st.sampled_from(["10.96.0.1", "10.96.0.2", "10.96.0.0/30", "10.96.0.1/32", "0.0.0.0/0", "fd96::1", "fd96::0:1"]), max_size=3
)
port_lists = st.lists(
    st.tuples(numbers, st.sampled_from(["http", "tcp", "tls", "grpc", "https", "x", "mysql"])),
    min_size=1,
    max_size=3,
    unique_by=lambda pair: pair[0],
)
targets = st.lists(
    st.builds(
        lambda host, weight: to(host, weight=weight), st.sampled_from(["a", "c", "x.example", "nobody"]), st.integers(1, 3)
    ),
    min_size=1,
    max_size=2,
)
l4 = st.sampled_from(
    [
        {},
        {"port": 5432},
        {"destinationSubnets": ["10.96.0.0/24"]},
        {"sourceLabels": {"app": "a"}},
        {"gateways": ["default/gw", "mesh"]},
    ]
)


def tcp_rule(matches: list[Obj], route: list[Obj]) -> Obj:
    return {"match": matches, "route": route} if matches else {"route": route}


def named(pairs: list[tuple[int, str]], key: str) -> list[Obj]:
    if key == "port":
        return [{"port": number, "name": f"{name}-{number}"} for number, name in pairs]
    return [{"number": number, "name": f"{name}-{number}", "protocol": name.upper()} for number, name in pairs]


def routing(name: str, host: str, created: str, tcp: list[Obj], route: list[Obj], gateways: list[str]) -> Obj:
    sni = host if "." in host else "x.example"
    spec: Obj = {"hosts": [host], "gateways": gateways, "tcp": tcp}
    if "." in host:
        spec["tls"] = [{"match": [{"sniHosts": [sni]}], "route": route}]
    return mesh_object("VirtualService", name, spec, created=created)


def server(pair: tuple[int, str], mode: str, name: str) -> Obj:
    number, protocol = pair
    found: Obj = {"port": {"number": number, "name": name, "protocol": protocol}, "hosts": ["*.example"]}
    if protocol in ("TLS", "HTTPS"):
        found["tls"] = {"mode": mode, **({} if mode == "PASSTHROUGH" else {"credentialName": "web"})}
    return found


objects = st.one_of(
    st.builds(
        lambda name, pairs, ip, created: service(name, {"app": "a"}, named(pairs, "port"), cluster_ip=ip, created=created),
        names,
        port_lists,
        st.sampled_from(["", "None", "10.96.0.1", "10.96.0.2"]),
        ages,
    ),
    st.builds(
        lambda of, pair, ips: slices(of, [(f"p{i}", f"10.0.0.{i}") for i in ips], port=pair[0], name=f"{pair[1]}-{pair[0]}"),
        names,
        st.tuples(numbers, st.sampled_from(["http", "tcp", "grpc", "x"])),
        st.lists(st.integers(1, 3), unique=True),
    ),
    st.builds(
        lambda name, host, pairs, where, created: mesh_object(
            "ServiceEntry",
            name,
            {"hosts": [host], "ports": named(pairs, "number"), "addresses": where, "resolution": "NONE"},
            created=created,
        ),
        names,
        st.sampled_from(["x.example", "y.example", "*.example"]),
        port_lists,
        addresses,
        ages,
    ),
    st.builds(
        routing,
        names,
        hosts,
        ages,
        st.lists(st.builds(tcp_rule, st.lists(l4, max_size=2), targets), max_size=2),
        targets,
        st.sampled_from([["mesh"], ["mesh", "default/gw"]]),
    ),
    st.builds(
        lambda one, two: mesh_object("Gateway", "gw", {"selector": {"istio": "ingressgateway"}, "servers": [one, two]}),
        *(
            st.builds(
                server,
                st.tuples(numbers, st.sampled_from(["TCP", "TLS", "HTTPS", "HTTP"])),
                st.sampled_from(["PASSTHROUGH", "SIMPLE"]),
                st.just(name),
            )
            for name in ("one", "two")
        ),
    ),
    st.builds(
        lambda number, where: mesh_object(
            "Sidecar",
            "default",
            {"ingress": [{"port": {"number": number, "protocol": "TCP", "name": "i"}, "defaultEndpoint": where}]},
        ),
        numbers,
        st.sampled_from(["127.0.0.1:9", "0.0.0.0:9", "unix:///x"]),
    ),
    st.builds(
        lambda mode: mesh_object("Sidecar", "scope", {"outboundTrafficPolicy": {"mode": mode}}, "istio-system"),
        st.sampled_from(["REGISTRY_ONLY", "ALLOW_ANY"]),
    ),
)


def identity(obj: Obj) -> tuple[str, str, str]:
    return (obj["kind"], obj["metadata"]["namespace"], obj["metadata"]["name"])


worlds = st.lists(objects, max_size=10, unique_by=identity)
PROXIES = [("default", "taken"), ("default", "free"), ("istio-system", "gw")]
CLIENTS = [
    pod("taken", "10.9.0.1", {"app": "a"}, annotations=REDIRECT),
    pod("free", "10.9.0.2", {"app": "a"}),
    pod("gw", "10.9.0.9", {"istio": "ingressgateway"}, namespace="istio-system"),
]


def snapshots(world: World, translator: Translator | None = None) -> list[Snapshot]:
    found = []
    for name in PROXIES:
        proxy = proxy_of(world, *name)
        assert proxy is not None
        found.append(translator.translate(world, proxy) if translator is not None else translate(world, proxy))
    return found


def states(found: list[Snapshot]) -> list[tuple[str, dict[object, bytes], object]]:
    return [(one.version, {key: entry.body for key, entry in one.resources.items()}, one.problems) for one in found]


@settings(max_examples=120, deadline=None)
@given(worlds)
def test_every_chain_is_unambiguous_and_the_proxy_takes_it(objs: list[Obj]) -> None:
    for snapshot in snapshots(World.of([*CLIENTS, *objs])):
        for listener in compiled(snapshot).listeners.values():  # refuses two chains of one place, of one name
            for chain in listener.model.chains:
                assert chain.tcp or chain.protocol == "HTTP" or listener.direction == "gateway"


@settings(max_examples=60, deadline=None)
@given(worlds, st.randoms(use_true_random=False))
def test_the_order_of_objects_is_irrelevant(objs: list[Obj], dice: random.Random) -> None:
    shuffled = [*objs, *CLIENTS]
    dice.shuffle(shuffled)
    assert states(snapshots(World.of([*CLIENTS, *objs]))) == states(snapshots(World.of(shuffled)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["ADDED", "DELETED"]), objects), max_size=8))
def test_memory_and_history_change_nothing(history: list[tuple[str, Obj]]) -> None:
    """And the changes on the way, applied one after another, give what the intercepted sidecar is to run."""
    world, translator = World.of(CLIENTS), Translator()
    objs: dict[tuple[str, str, str], Obj] = {}
    last = snapshots(world, translator)[0]
    applied = {(r.kind, r.name): bytes(r.body) for r in diff(None, last).set}
    for type_, obj in history:
        if type_ == "ADDED":
            objs[identity(obj)] = obj
        else:
            objs.pop(identity(obj), None)
        world = world.apply([event(type_, obj)])
        now = snapshots(world, translator)[0]
        change = diff(last, now)
        applied |= {(r.kind, r.name): bytes(r.body) for r in change.set}
        for key in change.removed:
            del applied[key]
        last = now
    fresh = states(snapshots(World.of([*objs.values(), *CLIENTS])))
    assert states(snapshots(world, translator)) == fresh
    assert applied == fresh[0][1]
