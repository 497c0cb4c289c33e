"""Properties of translation (design, section 7): order is irrelevant, memory changes nothing, neighbours do not matter."""

from __future__ import annotations

import base64
import random

from hypothesis import given, settings
from hypothesis import strategies as st
from world_objects import Event, Obj, destination_rule, event, mesh_object, pod, service, slices, to, virtual_service

from control.translate import Snapshot, Translator, diff, proxy_of, translate
from control.world import World
from tests.certs import Authority

NAMESPACES = ("default", "shop", "istio-system")
NAMES = ("a", "b", "c")
PROXIES = [(ns, "client") for ns in NAMESPACES] + [("istio-system", "gw")]

namespaces, names = st.sampled_from(NAMESPACES), st.sampled_from(NAMES)
ages = st.sampled_from(["", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"])
hosts = st.one_of(
    names,
    st.builds("{}.{}.svc.cluster.local".format, names, namespaces),
    st.sampled_from(["*.shop.svc.cluster.local", "x.example"]),
)
destinations = st.builds(to, hosts.filter(lambda h: "*" not in h), st.sampled_from(["", "v1", "v2"]), weight=st.integers(1, 9))
conditions = st.sampled_from(
    [
        {"uri": {"prefix": "/x"}},
        {"uri": {"exact": "/y"}, "headers": {"X-B": {"exact": "1"}, "x-a": {}}},
        {"sourceLabels": {"app": "client"}, "method": {"exact": "GET"}},
        {"sourceNamespace": "shop"},
        {"port": 8080},
        {"gateways": ["default/gw"], "uri": {"prefix": "/"}},
    ]
)
rules = st.fixed_dictionaries(
    {"route": st.lists(destinations, min_size=1, max_size=2)},
    optional={"match": st.lists(conditions, min_size=1, max_size=2)},
)
PLAIN = {"port": {"number": 8080}, "tls": {"mode": "DISABLE"}}
exports = st.sampled_from([None, ["*"], ["."], ["shop"]])
policies = st.sampled_from(
    [
        {"connectionPool": {"tcp": {"maxConnections": 3}}},
        {"outlierDetection": {}},
        {"loadBalancer": {"consistentHash": {"httpHeaderName": "x"}}},
        {"portLevelSettings": [{"port": {"number": 8080}, "loadBalancer": {"simple": "RANDOM"}}]},
        {"tls": {"mode": "ISTIO_MUTUAL"}},
        {"tls": {"mode": "MUTUAL", "credentialName": "web"}, "portLevelSettings": [PLAIN]},
    ]
)
SUBSETS = [{"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}]
SERVER = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
HTTPS = {
    "port": {"number": 443, "name": "https", "protocol": "HTTPS"},
    "hosts": ["*"],
    "tls": {"mode": "SIMPLE", "credentialName": "web"},
}

APP, PORT_OFF = {"matchLabels": {"app": "a"}}, {"portLevelMtls": {"8080": {"mode": "DISABLE"}}}

objects = st.one_of(
    st.builds(service, names, namespace=namespaces, created=ages),
    st.builds(
        lambda of, space, ips: slices(of, [(f"p{i}", f"10.0.0.{i}") for i in ips], namespace=space),
        names,
        namespaces,
        st.lists(st.integers(1, 4), unique=True),
    ),
    st.builds(
        lambda i, labels, space: pod(f"p{i}", f"10.0.0.{i}", {"app": "a", **labels}, namespace=space),
        st.integers(1, 4),
        st.sampled_from([{"version": "v1"}, {"version": "v2"}, {"version": "v1", "security.istio.io/tlsMode": "istio"}]),
        namespaces,
    ),
    st.builds(
        lambda space, data: {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "web", "namespace": space},
            "data": data,
        },
        namespaces,
        st.sampled_from([{}, {"ca.crt": base64.b64encode(Authority().pem).decode()}]),
    ),
    st.builds(
        lambda name, space, spec: {
            "apiVersion": "security.istio.io/v1",
            "kind": "PeerAuthentication",
            "metadata": {"name": name, "namespace": space},
            "spec": spec,
        },
        names,
        namespaces,
        st.sampled_from([{"mtls": {"mode": "DISABLE"}}, {"mtls": {"mode": "STRICT"}}, {"selector": APP, **PORT_OFF}]),
    ),
    st.builds(
        lambda name, host, http, space, created, export: virtual_service(
            name, [host], http, namespace=space, created=created, export_to=export, gateways=["mesh", "default/gw"]
        ),
        names,
        hosts,
        st.lists(rules, min_size=1, max_size=3),
        namespaces,
        ages,
        exports,
    ),
    st.builds(
        lambda name, host, policy, space, created: destination_rule(
            name, host, namespace=space, created=created, trafficPolicy=policy, subsets=SUBSETS
        ),
        names,
        hosts,
        policies,
        namespaces,
        ages,
    ),
    st.builds(
        lambda name, space, host: mesh_object(
            "ServiceEntry",
            name,
            {
                "hosts": [host],
                "ports": [{"number": 8080, "name": "http", "protocol": "HTTP"}],
                "resolution": "STATIC",
                "endpoints": [{"address": "192.0.2.1"}],
            },
            space,
        ),
        names,
        namespaces,
        st.sampled_from(["x.example", "y.example"]),
    ),
    st.builds(
        lambda space, egress: mesh_object("Sidecar", "default", {"egress": [{"hosts": egress}]}, space),
        namespaces,
        st.sampled_from([["./*"], ["*/*"], ["shop/*", "*/x.example"]]),
    ),
)


selectors = st.sampled_from([{}, {"selector": {"matchLabels": {"app": "client"}}}, {"selector": {"matchLabels": {"app": 1}}}])
security_specs = st.one_of(
    st.tuples(
        st.just("PeerAuthentication"),
        st.sampled_from([{}, {"mtls": {"mode": "STRICT"}}, {"mtls": {"mode": "DISABLE"}}, {"mtls": {"mode": "?"}}]),
    ),
    st.tuples(
        st.just("RequestAuthentication"),
        st.sampled_from([{}, {"jwtRules": [{"issuer": "a", "jwksUri": "http://k/"}, {"issuer": "b"}]}, {"jwtRules": [{}]}]),
    ),
    st.tuples(
        st.just("AuthorizationPolicy"),
        st.sampled_from(
            [
                {},
                {"rules": [{}]},
                {"action": "DENY", "rules": [{"to": [{"operation": {"paths": ["/x*"]}}]}]},
                {"action": "CUSTOM", "provider": {"name": "none"}, "rules": [{}]},
                {"action": "?"},
            ]
        ),
    ),
)


def policy(name: str, space: str, created: str, scope: Obj, kind_and_spec: tuple[str, Obj]) -> Obj:
    obj = mesh_object(kind_and_spec[0], name, {**scope, **kind_and_spec[1]}, space, created)
    return {**obj, "apiVersion": "security.istio.io/v1"}


objects |= st.builds(policy, names, namespaces, ages, selectors, security_specs)
mesh_configs = st.builds(
    lambda text: {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "istio", "namespace": "istio-system"},
        "data": {"mesh": text},
    },
    st.sampled_from(["", "outboundTrafficPolicy: {mode: REGISTRY_ONLY}", "pathNormalization: {normalization: NONE}"]),
)
objects |= mesh_configs


def identity(obj: Obj) -> tuple[str, str, str]:
    return (obj["kind"], obj["metadata"]["namespace"], obj["metadata"]["name"])


worlds = st.lists(objects, max_size=14, unique_by=identity)
CLIENTS = [
    *(pod("client", f"10.9.0.{n}", {"app": "client"}, namespace=ns) for n, ns in enumerate(NAMESPACES)),
    pod("gw", "10.9.0.9", {"istio": "ingressgateway"}, namespace="istio-system"),
    mesh_object("Gateway", "gw", {"selector": {"istio": "ingressgateway"}, "servers": [SERVER, HTTPS]}),
]


def state(snapshot: Snapshot) -> tuple[str, dict, tuple]:
    return snapshot.version, {key: found.body for key, found in snapshot.resources.items()}, snapshot.problems


def all_states(world: World, translator: Translator | None = None) -> list:
    found = []
    for name in PROXIES:
        proxy = proxy_of(world, *name)
        assert proxy is not None
        found.append(state(translator.translate(world, proxy) if translator is not None else translate(world, proxy)))
    return found


@settings(max_examples=60, deadline=None)
@given(worlds, st.randoms(use_true_random=False))
def test_the_order_of_objects_is_irrelevant(objs: list[Obj], dice: random.Random) -> None:
    shuffled = [*objs, *CLIENTS]
    dice.shuffle(shuffled)
    assert all_states(World.of([*CLIENTS, *objs])) == all_states(World.of(shuffled))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["ADDED", "DELETED"]), objects), max_size=10))
def test_memory_and_history_change_nothing(history: list[tuple[str, Obj]]) -> None:
    """A world that went through many events, translated by one translator, is the world of the final objects.

    And the changes on the way, applied one after another, give its resources.
    """
    world, translator = World.of(CLIENTS), Translator()
    objs: dict = {}
    proxy_name = PROXIES[0]
    proxy = proxy_of(world, *proxy_name)
    assert proxy is not None
    last = translator.translate(world, proxy)
    applied = {(r.kind, r.name): bytes(r.body) for r in diff(None, last).set}
    for type_, obj in history:
        if type_ == "ADDED":
            objs[identity(obj)] = obj
        else:
            objs.pop(identity(obj), None)
        world = world.apply([event(type_, obj)])
        all_states(world, translator)
        now = translator.translate(world, proxy)
        change = diff(last, now)
        applied |= {(r.kind, r.name): bytes(r.body) for r in change.set}
        for key in change.removed:
            del applied[key]
        last = now
    fresh = all_states(World.of([*objs.values(), *CLIENTS]))
    assert all_states(world, translator) == fresh
    assert applied == fresh[0][1]


@settings(max_examples=40, deadline=None)
@given(worlds, objects)
def test_another_namespace_does_not_matter_to_a_scoped_client(objs: list[Obj], foreign: Obj) -> None:
    """With Sidecar ``./*`` a change in a namespace that nothing of the client's refers to leaves its version alone."""
    mine = mesh_object("Sidecar", "own", {"egress": [{"hosts": ["./*"]}]})
    # Must be the only Sidecar of the namespace.
    kept = [o for o in objs if not (o["kind"] == "Sidecar" and o["metadata"]["namespace"] == "default")]
    foreign["metadata"]["namespace"] = "else"
    if foreign["kind"] == "ServiceEntry":  # routes may refer to the other hosts
        foreign["spec"]["hosts"] = ["else.example"]
    before = World.of([*CLIENTS, *kept, mine])
    after = before.apply([Event("MODIFIED", event("MODIFIED", foreign).kind, foreign)])
    versions = []
    for world in (before, after):
        proxy = proxy_of(world, "default", "client")
        assert proxy is not None
        versions.append(translate(world, proxy).version)
    assert versions[0] == versions[1]


@settings(max_examples=40, deadline=None)
@given(worlds, names, namespaces)
def test_an_endpoint_change_touches_only_that_services_endpoints(objs: list[Obj], name: str, namespace: str) -> None:
    translator = Translator()
    before = World.of([*CLIENTS, *objs])
    after = before.apply([event("MODIFIED", slices(name, [("new", "10.7.7.7")], namespace=namespace))])
    for who in PROXIES:
        one, two = proxy_of(before, *who), proxy_of(after, *who)
        assert one is not None and two is not None
        change = diff(translator.translate(before, one), translator.translate(after, two))
        assert change.removed == ()
        assert all(r.kind == "endpoints" and r.name.endswith(f"|{name}.{namespace}.svc.cluster.local") for r in change.set)
