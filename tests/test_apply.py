"""Snapshots: what is kept, what is refused, and that a refusal changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from meshproxy.apply import Refused, Snapshot, compile_snapshot
from meshproxy.cluster.cluster import Cluster as Live
from meshproxy.message.head import RequestHead
from meshproxy.model.base import Model
from meshproxy.model.cluster import Cluster, Endpoint, Endpoints, LoadBalancer, Workload
from meshproxy.model.listener import Listener
from meshproxy.model.match import RouteMatch
from meshproxy.model.route import Abort, Cors, Fault, HeaderOps, Route, RouteConfig
from meshproxy.model.security import JwtProvider, Operation, Policy, Rule, Security, Trust
from meshproxy.model.telemetry import Telemetry, Tracing
from tests.policy.fakes import config, exact, get, host, prefix, regex, rule, to


class Maker:
    """Live clusters, as the application makes them; ``updated`` names those that were told something new."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.updated: list[str] = []

    def __call__(self, model: Cluster, endpoints: tuple[Endpoint, ...], old: Any) -> Any:
        if old is None:
            self.made.append(model.name)
            return Live(model, endpoints)
        self.updated.append(model.name)
        old.update(model, endpoints)
        return old


def resources(*items: Model) -> dict[str, dict[str, Model]]:
    kinds = {Cluster: "cluster", Endpoints: "endpoints", RouteConfig: "route", Listener: "listener"}
    found: dict[str, dict[str, Model]] = {kind: {} for kind in kinds.values()}
    for item in items:
        found[kinds[type(item)]][item.name] = item  # type: ignore[index, attr-defined]
    return found


def at(name: str, *addresses: str) -> Endpoints:
    return Endpoints(
        name=name,
        endpoints=tuple(Endpoint(address=one, port=8080, workload=Workload(pod=f"{name}-{one}")) for one in addresses),
    )


OUT = Listener(name="outbound", direction="outbound", port=15001, route_ports=(8080,))
IN = Listener(name="inbound|8080", direction="inbound", port=8080, route="inbound|8080")
EDGE = Listener(name="gateway|80", direction="gateway", port=80, route="http.80")
BASE = (
    Cluster(name="a"),
    at("a", "10.0.0.1", "10.0.0.2"),
    Cluster(name="b"),
    config(host(rule("a"), domains=("rating",)), name="8080"),
    OUT,
)


def first() -> tuple[Snapshot, Maker]:
    maker = Maker()
    return compile_snapshot(resources(*BASE), None, maker, "1"), maker


def test_the_first_snapshot() -> None:
    snapshot, maker = first()
    assert (snapshot.version, sorted(maker.made), maker.updated) == ("1", ["PassthroughCluster", "a", "b"], [])
    listener = snapshot.listeners["outbound"]
    assert (listener.name, listener.direction, listener.table) == ("outbound", "outbound", None)
    assert listener.tables_by_port == {8080: snapshot.tables["8080"]}
    route = listener.choose(get())
    assert route is not None and route.single is not None and route.single.cluster is snapshot.clusters["a"]
    other = listener.choose(get(authority="elsewhere"))
    assert other is not None and other.single is not None
    assert (other.name, other.single.cluster) == ("allow_any", snapshot.clusters["PassthroughCluster"])


def test_registry_only_blocks() -> None:
    closed = Listener(name="outbound", direction="outbound", port=15001, default_policy="REGISTRY_ONLY")
    snapshot = compile_snapshot(resources(closed), None, Maker())
    route = snapshot.listeners["outbound"].choose(get())
    assert route is not None and route.name == "block_all"
    assert not snapshot.clusters


def test_nothing_at_all_is_a_snapshot() -> None:
    assert not compile_snapshot({}, None, Maker()).listeners


def names(chain: tuple[Any, ...]) -> list[str]:
    return [one.__name__ for one in chain]


def test_chains_have_only_what_is_needed_in_order() -> None:
    plain = compile_snapshot(resources(*BASE), None, Maker()).listeners["outbound"]
    assert names(plain.chain) == ["identity", "route"] and plain.response_hooks == ()
    busy = rule(
        "a",
        cors=Cors(allow_origins=(exact("x"),)),
        fault=Fault(abort=Abort(percent=1, status=500)),
        response_headers=HeaderOps(set=(("x", "1"),)),
    )
    for listener, name in ((OUT, "8080"), (IN, "inbound|8080"), (EDGE, "http.80")):
        found = compile_snapshot(resources(config(host(busy), name=name), listener), None, Maker()).listeners[listener.name]
        assert names(found.chain) == ["identity", "cors", "fault_delay", "fault_abort", "route"]
        assert names(found.response_hooks) == ["route_response", "cors_response"]  # the reverse of the filters


def guarded(**fields: Any) -> dict[str, dict[str, Model]]:
    return {**resources(*BASE, IN, inbound()), "security": {"workload": Security(**fields)}}


def inbound() -> RouteConfig:
    return config(host(rule("a"), domains=("*",)), name="inbound|8080")


def test_policies_stand_in_the_walk_in_istio_s_order_on_inbound_only() -> None:
    custom = Policy(name="default/c", action="CUSTOM", rules=(Rule(),), provider="opa")
    jwt = (JwtProvider(source="here", issuer="me"),)
    made = compile_snapshot(guarded(policies=(Policy(name="default/a"), custom), jwt=jwt), None, Maker())
    assert names(made.listeners[IN.name].chain) == ["identity", "veil", "ext_authz", "authn", "authz", "route"]
    assert names(made.listeners[OUT.name].chain) == ["identity", "route"]
    assert names(compile_snapshot(guarded(), None, Maker()).listeners[IN.name].chain) == ["identity", "route"]
    asked_only = compile_snapshot(guarded(policies=(custom,)), None, Maker())
    assert names(asked_only.listeners[IN.name].chain) == ["identity", "ext_authz", "route"]


def test_traces_stand_before_whoever_may_answer_and_behind_what_hides_tokens() -> None:
    custom = Policy(name="default/c", action="CUSTOM", rules=(Rule(),), provider="opa")
    told: dict[str, dict[str, Model]] = {
        **guarded(policies=(custom,), jwt=(JwtProvider(source="here", issuer="me"),)),
        "telemetry": {"workload": Telemetry(tracing=(Tracing(),))},
    }
    made = compile_snapshot(told, None, Maker())
    walk = ["identity", "veil", "trace", "ext_authz", "authn", "trace_route", "route"]
    assert names(made.listeners[IN.name].chain) == walk
    assert names(made.listeners[OUT.name].chain) == ["identity", "trace_route", "route"]  # identity does it on the way


def test_policies_are_compiled_again_only_when_they_or_the_trust_domain_change() -> None:
    one, other = Policy(name="default/a"), Policy(name="default/b")
    first = compile_snapshot(guarded(policies=(one,)), None, Maker())
    same = compile_snapshot(guarded(policies=(one,)), first, Maker())
    assert same.guard.policies is first.guard.policies
    more = compile_snapshot(guarded(policies=(one, other)), same, Maker())
    assert [policy.name for policy in more.guard.policies] == ["default/a", "default/b"]
    told: dict[str, dict[str, Model]] = {**guarded(policies=(one, other)), "trust": {"mesh": Trust(aliases=("old",))}}
    assert compile_snapshot(told, more, Maker()).guard.policies is not more.guard.policies
    assert compile_snapshot(resources(*BASE), more, Maker()).guard.policies == ()


def test_an_unusable_policy_is_no_reason_to_refuse_the_rest() -> None:
    bad = Policy(name="default/bad", rules=(Rule(operations=(Operation(ports=("http",)),)),))
    made = compile_snapshot(guarded(policies=(bad,)), None, Maker())
    assert names(made.listeners[IN.name].chain) == ["identity", "authz", "route"]


def test_an_unchanged_push_keeps_every_object() -> None:
    before, maker = first()
    after = compile_snapshot(resources(*BASE), before, maker, "2")
    assert after.version == "2"
    assert all(after.clusters[name] is before.clusters[name] for name in before.clusters)
    assert after.tables["8080"] is before.tables["8080"]
    assert maker.updated == []


def test_an_endpoint_change_updates_one_cluster_in_place() -> None:
    before, maker = first()
    live = before.clusters["a"]
    kept = live.endpoints[0]
    after = compile_snapshot(resources(*BASE, at("a", "10.0.0.1", "10.0.0.3")), before, maker)
    assert maker.updated == ["a"]
    assert after.clusters["a"] is live and after.tables["8080"] is before.tables["8080"]
    assert live.endpoints[0] is kept and [one.address for one in live.endpoints] == ["10.0.0.1", "10.0.0.3"]


def test_a_policy_change_updates_the_cluster() -> None:
    before, maker = first()
    after = compile_snapshot(resources(*BASE, Cluster(name="b", lb=LoadBalancer(policy="RANDOM"))), before, maker)
    assert maker.updated == ["b"]
    assert after.clusters["b"].config.lb.policy == "RANDOM"


def test_a_cluster_that_appears_or_goes_is_seen_by_tables_that_name_it() -> None:
    maker = Maker()
    routes = config(host(rule("late"), domains=("x",)), host(rule("a"), domains=("y",)))
    before = compile_snapshot(resources(Cluster(name="a"), routes, OUT), None, maker)
    missing = before.listeners["outbound"].choose(get(authority="x:8080"))
    kept = before.listeners["outbound"].choose(get(authority="y:8080"))
    assert missing is not None and missing.single is not None and missing.single.cluster is None  # 503 NC, not a refusal
    after = compile_snapshot(resources(Cluster(name="a"), Cluster(name="late"), routes, OUT), before, maker)
    there = after.listeners["outbound"].choose(get(authority="x:8080"))
    assert there is not None and there.single is not None and there.single.cluster is after.clusters["late"]
    assert after.listeners["outbound"].choose(get(authority="y:8080")) is kept  # its table's other host was not compiled again
    gone = compile_snapshot(resources(Cluster(name="a"), routes, OUT), after, maker)
    again = gone.listeners["outbound"].choose(get(authority="x:8080"))
    assert again is not None and again.single is not None and again.single.cluster is None
    assert there.single.cluster is after.clusters["late"]  # requests in flight end on what they began with


def refusal(*items: Model, previous: Snapshot | None = None, maker: Maker | None = None) -> Refused:
    with pytest.raises(Refused) as caught:
        compile_snapshot(resources(*items), previous, maker or Maker())
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("items", "kind", "name", "says"),
    [
        ((OUT,), "listener", "outbound", 'route_ports[0]: there is no route configuration "8080"'),
        ((IN,), "listener", "inbound|8080", 'route: there is no route configuration "inbound|8080"'),
        (
            (config(name="x"), Listener(name="l", direction="inbound", port=70000, route="x")),
            "listener",
            "l",
            "port: must be between 0 and 65535, not 70000",
        ),
        (
            (
                config(name="x"),
                Listener(name="l", direction="inbound", port=80, route="x"),
                Listener(name="m", direction="gateway", port=80, route="x"),
            ),
            "listener",
            "m",
            "port: 80 is taken by listener l",
        ),
        (
            (config(host(rule("a", RouteMatch(path=regex("(")))), name="9"),),
            "route",
            "9",
            "virtual_hosts[0].routes[0].match.path.value: bad regex '(': missing ): ( (RE2 syntax)",
        ),
        (
            (config(host(rule("a"), domains=("x", "x"), name="v"), name="9"),),
            "route",
            "9",
            'virtual_hosts[0].domains[1]: duplicate domain "x": virtual host "v" has it already',
        ),
        (
            (config(host(Route(action=to("a"), response_headers=HeaderOps(add=(("x", "%Y%"),)))), name="9"),),
            "route",
            "9",
            "virtual_hosts[0].routes[0].response_headers.add[0]: unknown or unsupported operator %Y%; "
            "a literal percent sign is written %%",
        ),
        (
            (Cluster(name="a"), Endpoints(name="a", endpoints=(Endpoint(address="1.1.1.1", port=0),))),
            "endpoints",
            "a",
            "endpoints[0].port: must be between 1 and 65535, not 0",
        ),
        (
            (Cluster(name="a"), Endpoints(name="a", endpoints=(Endpoint(address="", port=1),))),
            "endpoints",
            "a",
            "endpoints[0].address: must not be empty",
        ),
    ],
)
def test_refusals(items: tuple[Model, ...], kind: str, name: str, says: str) -> None:
    found = refusal(*items)
    assert (found.kind, found.name, found.message) == (kind, name, says)


def test_a_refusal_changes_nothing() -> None:
    before, maker = first()
    live = before.clusters["a"]
    bad = config(host(rule("a", RouteMatch(path=regex("(")))), name="8080")
    refusal(*BASE, at("a", "10.9.9.9"), bad, previous=before, maker=maker)
    assert maker.updated == []
    assert [one.address for one in live.endpoints] == ["10.0.0.1", "10.0.0.2"]
    assert before.listeners["outbound"].choose(get()) is not None


def test_a_cluster_that_cannot_be_made_is_refused() -> None:
    def maker(model: Cluster, endpoints: tuple[Endpoint, ...], old: Any) -> Any:
        raise ValueError("lb.policy: no")

    with pytest.raises(Refused) as caught:
        compile_snapshot(resources(Cluster(name="a")), None, maker)
    assert (caught.value.kind, caught.value.name, caught.value.message) == ("cluster", "a", "lb.policy: no")


def test_peers_by_address() -> None:
    inbound = (config(host(rule("a")), name="inbound|8080"), IN)
    maker = Maker()
    snapshot = compile_snapshot(resources(*BASE, *inbound), None, maker)
    peer = snapshot.listeners["inbound|8080"].peer
    found = peer("10.0.0.2")
    assert found is not None and found.pod == "a-10.0.0.2"
    assert peer("10.0.0.77") is None
    assert snapshot.listeners["outbound"].peer("10.0.0.2") is None  # there the peer is the pod itself
    after = compile_snapshot(resources(*BASE, *inbound, at("a", "10.0.0.5")), snapshot, maker)
    moved = after.listeners["inbound|8080"].peer
    assert moved("10.0.0.2") is None and moved("10.0.0.5") is not None
    assert peer("10.0.0.2") is found


def test_a_request_keeps_its_route_while_the_configuration_moves_on() -> None:
    before, maker = first()
    request: RequestHead = get("/x")
    route = before.listeners["outbound"].choose(request)
    changed = config(host(rule("b", RouteMatch(path=prefix("/x"))), domains=("rating",)), name="8080")
    after = compile_snapshot(resources(*BASE, changed), before, maker)
    new = after.listeners["outbound"].choose(request)
    assert route is not None and new is not None
    assert (route.name, new.name) == ("a", "b")
    assert before.listeners["outbound"].choose(request) is route
