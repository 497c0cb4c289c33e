"""Tokens and rules of a workload: who is selected, every field, and that what cannot be used denies."""

from __future__ import annotations

from typing import Any

import pytest
from world_objects import Obj, event, mesh_object, pod, service, slices

from control.translate import Translator, proxy_of, translate
from control.translate.peers import mtls_mode
from control.world import MeshSettings, World
from control.world.mesh import AuthzProvider
from meshproxy.model.listener import Listener
from meshproxy.model.security import Condition, ExtAuthz, JwtProvider, Operation, Policy, Rule, Security, Source

ROOT = "istio-system"
BOOK = {"app": "book", "tier": "web"}


def policy(kind: str, name: str, spec: Any, namespace: str = "default", created: str = "", **annotations: str) -> Obj:
    obj = mesh_object(kind, name, spec, namespace, created)
    obj["apiVersion"] = "security.istio.io/v1"
    if annotations:
        obj["metadata"]["annotations"] = {"istio.io/dry-run": annotations["dry_run"]}
    return obj


def peer(name: str, mode: str | None, namespace: str = "default", created: str = "", **spec: Any) -> Obj:
    return policy("PeerAuthentication", name, {**({"mtls": {"mode": mode}} if mode else {}), **spec}, namespace, created)


def authz(name: str, spec: Any, namespace: str = "default", created: str = "", **annotations: str) -> Obj:
    return policy("AuthorizationPolicy", name, spec, namespace, created, **annotations)


def request(name: str, *rules: Any, namespace: str = "default", created: str = "", **spec: Any) -> Obj:
    return policy("RequestAuthentication", name, {"jwtRules": list(rules), **spec}, namespace, created)


def of(*labels: str) -> Obj:
    return {"matchLabels": dict(pair.split("=") for pair in labels)}


def world(*objs: Obj, mesh: MeshSettings | None = None) -> World:
    base = [
        service("book", {"app": "book"}),
        pod("book", "10.0.0.1", BOOK),
        pod("other", "10.0.0.2", {"app": "other"}, namespace="shop"),
        pod("system", "10.0.0.3", {"app": "system"}, namespace=ROOT),
        pod("gw", "10.0.0.4", {"istio": "ingressgateway", "gateway.networking.k8s.io/gateway-name": "front"}, namespace=ROOT),
    ]
    return World.of([*base, *objs], mesh)


def security(found: World, pod: str = "book", namespace: str = "default") -> Security | None:
    proxy = proxy_of(found, namespace, pod)
    assert proxy is not None
    value = translate(found, proxy).get("security", "workload")
    assert value is None or isinstance(value, Security)
    return value


def names(found: World, pod: str = "book", namespace: str = "default") -> list[str]:
    value = security(found, pod, namespace)
    return [p.name for p in value.policies] if value is not None else []


# -- PeerAuthentication --------------------------------------------------------------------------------------------------

FIRST, SECOND = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


@pytest.mark.parametrize(
    ("objs", "mode", "source"),
    [
        ([], "PERMISSIVE", ""),
        ([peer("m", "STRICT", ROOT)], "STRICT", f"{ROOT}/m"),
        ([peer("m", "STRICT", ROOT), peer("n", "DISABLE")], "DISABLE", "default/n"),
        ([peer("m", "STRICT", ROOT), peer("n", "UNSET")], "STRICT", f"{ROOT}/m"),
        ([peer("m", "STRICT", ROOT), peer("n", None)], "STRICT", f"{ROOT}/m"),
        ([peer("n", "STRICT"), peer("w", "PERMISSIVE", selector=of("app=book"))], "PERMISSIVE", "default/w"),
        ([peer("n", "STRICT"), peer("w", "UNSET", selector=of("app=book"))], "STRICT", "default/n"),
        ([peer("n", "STRICT"), peer("w", "DISABLE", selector=of("app=book", "tier=db"))], "STRICT", "default/n"),
        ([peer("w", "STRICT", ROOT, selector=of("app=book"))], "PERMISSIVE", ""),
        ([peer("n", "STRICT", "shop")], "PERMISSIVE", ""),
        ([peer("b", "STRICT", created=FIRST), peer("a", "DISABLE", created=SECOND)], "STRICT", "default/b"),
        ([peer("b", "STRICT", created=FIRST), peer("a", "DISABLE", created=FIRST)], "DISABLE", "default/a"),
        (
            [peer("w", "STRICT", selector=of("app=book"), portLevelMtls={"8080": {"mode": "DISABLE"}})],
            "DISABLE",
            "default/w portLevelMtls[8080]",
        ),
        (
            [peer("w", "STRICT", selector=of("app=book"), portLevelMtls={"8080": {"mode": "UNSET"}, "1": {"mode": "DISABLE"}})],
            "STRICT",
            "default/w",
        ),
        (
            [peer("m", "DISABLE", ROOT), peer("w", None, selector=of("app=book"), portLevelMtls={"8080": {"mode": "STRICT"}})],
            "STRICT",
            "default/w portLevelMtls[8080]",
        ),
    ],
)
def test_mutual_tls_of_a_port(objs: list[Obj], mode: str, source: str) -> None:
    expected = f"PeerAuthentication {source}" if source else ""
    for given in (objs, objs[::-1]):
        found = world(*given)
        assert found.problems == ()
        assert mtls_mode(found.config, "default", BOOK, 8080) == (mode, expected)
        proxy = proxy_of(found, "default", "book")
        assert proxy is not None
        listener = translate(found, proxy).get("listener", "inbound|8080")
        assert isinstance(listener, Listener)
        assert (listener.mtls, listener.mtls_source) == (mode, expected)


def test_in_the_root_namespace_a_selector_means_its_own_workloads() -> None:
    found = world(peer("m", "STRICT", ROOT), peer("w", "DISABLE", ROOT, selector=of("app=system")))
    assert mtls_mode(found.config, ROOT, {"app": "system"}, 80)[0] == "DISABLE"
    assert mtls_mode(found.config, "shop", {"app": "system"}, 80)[0] == "STRICT"


# -- AuthorizationPolicy -------------------------------------------------------------------------------------------------


def test_no_policy_no_resource() -> None:
    assert security(world()) is None
    assert security(world(authz("a", {}, "shop"), peer("m", "STRICT", ROOT))) is None


def test_whom_a_policy_selects() -> None:
    found = world(
        authz("all", {}),
        authz("root", {}, ROOT),
        authz("root-book", {"selector": of("app=book")}, ROOT),
        authz("both", {"selector": of("app=book", "tier=web")}),
        authz("half", {"selector": of("app=book", "tier=db")}),
        authz("elsewhere", {}, "shop"),
    )
    assert names(found) == ["default/all", "default/both", f"{ROOT}/root", f"{ROOT}/root-book"]
    assert names(found, "other", "shop") == ["shop/elsewhere", f"{ROOT}/root"]
    assert names(found, "system", ROOT) == [f"{ROOT}/root"]


def test_target_refs_are_for_gateways() -> None:
    ref = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "front"}
    found = world(
        authz("front", {"targetRef": ref}, ROOT),
        authz("other", {"targetRefs": [{**ref, "name": "back"}]}, ROOT),
        authz("elsewhere", {"targetRefs": [ref]}),
        authz("waypoint", {"targetRef": {"group": "", "kind": "Service", "name": "book"}}),
        request("r", {"issuer": "a", "jwks": JWKS}, namespace=ROOT, targetRefs=[ref]),
    )
    assert names(found, "gw", ROOT) == [f"{ROOT}/front"]
    assert security(found) is None
    assert security(found, "system", ROOT) is None
    gateway = security(found, "gw", ROOT)
    assert gateway is not None
    assert [p.issuer for p in gateway.jwt] == ["a"]


def test_every_field_of_a_rule() -> None:
    source = {name: [f"{name}-1", f"{name}-2"] for name in ("principals", "requestPrincipals", "namespaces", "trustDomains")}
    source |= {f"not{name[0].upper()}{name[1:]}": [f"not-{name}"] for name in source}
    source |= {"ipBlocks": ["10.0.0.0/8"], "notIpBlocks": ["10.1.0.1"], "remoteIpBlocks": ["::1"], "notRemoteIpBlocks": ["::2"]}
    operation = {"hosts": ["h"], "methods": ["GET"], "paths": ["/a/{*}"], "ports": ["80"]}
    operation |= {"notHosts": ["nh"], "notMethods": ["PUT"], "notPaths": ["/b*"], "notPorts": ["81"]}
    when = {"key": "request.headers[X-A]", "values": ["1"], "notValues": ["2"]}
    spec = {"action": "DENY", "rules": [{"from": [{"source": source}], "to": [{"operation": operation}], "when": [when]}]}
    found = security(world(authz("p", spec, dry_run="true")))
    assert found is not None
    assert found.policies == (
        Policy(
            name="default/p",
            action="DENY",
            dry_run=True,
            rules=(
                Rule(
                    sources=(
                        Source(
                            principals=("principals-1", "principals-2"),
                            not_principals=("not-principals",),
                            request_principals=("requestPrincipals-1", "requestPrincipals-2"),
                            not_request_principals=("not-requestPrincipals",),
                            namespaces=("namespaces-1", "namespaces-2"),
                            not_namespaces=("not-namespaces",),
                            trust_domains=("trustDomains-1", "trustDomains-2"),
                            not_trust_domains=("not-trustDomains",),
                            ip_blocks=("10.0.0.0/8",),
                            not_ip_blocks=("10.1.0.1",),
                            remote_ip_blocks=("::1",),
                            not_remote_ip_blocks=("::2",),
                        ),
                    ),
                    operations=(
                        Operation(
                            hosts=("h",),
                            not_hosts=("nh",),
                            ports=("80",),
                            not_ports=("81",),
                            methods=("GET",),
                            not_methods=("PUT",),
                            paths=("/a/{*}",),
                            not_paths=("/b*",),
                        ),
                    ),
                    when=(Condition(key="request.headers[X-A]", values=("1",), not_values=("2",)),),
                ),
            ),
        ),
    )


def test_a_bare_service_account_is_of_the_policys_namespace() -> None:
    rule = {
        "from": [{"source": {"serviceAccounts": ["a", "shop/b"]}}, {"source": {"notServiceAccounts": ["c"]}}],
        "when": [{"key": "source.serviceAccount", "values": ["d"], "notValues": ["shop/e"]}],
    }
    found = security(world(authz("p", {"rules": [rule]}, ROOT)))
    assert found is not None
    made = found.policies[0].rules[0]
    assert made.sources[0].service_accounts == (f"{ROOT}/a", "shop/b")
    assert made.sources[1].not_service_accounts == (f"{ROOT}/c",)
    assert (made.when[0].values, made.when[0].not_values) == ((f"{ROOT}/d",), ("shop/e",))


@pytest.mark.parametrize(
    ("spec", "rules"),
    [({}, ()), ({"rules": [{}]}, (Rule(),)), ({"rules": [{}, {"to": [{"operation": {"methods": ["GET"]}}]}]}, None)],
)
def test_empty_rules_stay_what_they_are(spec: Obj, rules: tuple[Rule, ...] | None) -> None:
    found = security(world(authz("p", spec)))
    assert found is not None
    made = found.policies[0].rules
    assert made == (rules if rules is not None else (Rule(), Rule(operations=(Operation(methods=("GET",)),))))


# -- CUSTOM --------------------------------------------------------------------------------------------------------------

HOST = "authz.shop.svc.cluster.local"
MESH = MeshSettings(
    authorisers=(
        AuthzProvider(name="ext", host=HOST, port=9000, ask=ExtAuthz(name="ext", cluster="", fail_open=True)),
        AuthzProvider(name="elsewhere", namespace="x", host=HOST, port=9000, ask=ExtAuthz(name="elsewhere", cluster="")),
        AuthzProvider(name="port", host=HOST, port=1, ask=ExtAuthz(name="port", cluster="")),
        AuthzProvider(name="grpc", unusable="is of a kind that is not carried"),
    )
)
AUTHZ = [
    service("authz", ports=[{"name": "http", "port": 9000}], namespace="shop"),
    slices("authz", [("p", "10.0.9.9")], namespace="shop", port=9000),
]


def custom(provider: str, name: str = "c") -> Obj:
    return authz(name, {"action": "CUSTOM", "provider": {"name": provider}, "rules": [{}]})


@pytest.mark.parametrize("scoped", [False, True])
def test_an_authoriser_comes_with_its_cluster(scoped: bool) -> None:
    """Also for a sidecar whose app may not call it."""
    own = [mesh_object("Sidecar", "s", {"egress": [{"hosts": ["./*"]}]})] if scoped else []
    found = world(custom("ext"), *AUTHZ, *own, mesh=MESH)
    made = security(found)
    assert made is not None
    cluster = f"outbound|9000||{HOST}"
    assert made.policies == (Policy(name="default/c", action="CUSTOM", provider="ext", rules=(Rule(),)),)
    assert made.ext_authz == (ExtAuthz(name="ext", cluster=cluster, fail_open=True),)
    proxy = proxy_of(found, "default", "book")
    assert proxy is not None
    snapshot = translate(found, proxy)
    assert snapshot.get("cluster", cluster) is not None
    assert snapshot.get("endpoints", cluster) is not None


def test_a_gateway_gets_the_authorisers_cluster_too() -> None:
    policies = authz("c", {"action": "CUSTOM", "provider": {"name": "ext"}, "rules": [{}]}, ROOT)
    found = world(policies, *AUTHZ, mesh=MESH)
    proxy = proxy_of(found, ROOT, "gw")
    assert proxy is not None
    snapshot = translate(found, proxy)
    assert snapshot.get("security", "workload") is not None
    assert snapshot.get("cluster", f"outbound|9000||{HOST}") is not None
    assert snapshot.get("endpoints", f"outbound|9000||{HOST}") is not None


@pytest.mark.parametrize(
    ("provider", "objs", "why"),
    [
        ("none", AUTHZ, 'no extension provider "none"'),
        ("ext", [], f"there is no service {HOST}"),
        ("elsewhere", AUTHZ, f"there is no service {HOST}"),
        ("port", AUTHZ, f"service {HOST} has no HTTP port 1"),
        ("grpc", AUTHZ, "is of a kind that is not carried"),
    ],
)
def test_a_policy_whose_authoriser_cannot_be_asked_denies(provider: str, objs: list[Obj], why: str) -> None:
    found = world(custom(provider), *objs, mesh=MESH)
    made = security(found)
    assert made is not None
    assert why in made.policies[0].unusable
    assert made.ext_authz == ()
    proxy = proxy_of(found, "default", "book")
    assert proxy is not None
    assert any(why in str(problem) for problem in translate(found, proxy).problems)


# -- RequestAuthentication -----------------------------------------------------------------------------------------------

JWKS = '{"keys":[{"kty":"RSA","n":"x","e":"AQAB"}]}'


def test_every_field_of_a_jwt_rule() -> None:
    rule = {
        "issuer": "me",
        "audiences": ["a", "b"],
        "jwks": JWKS,
        "fromHeaders": [{"name": "X-Token", "prefix": "Tok "}, {"name": "x-other"}],
        "fromParams": ["Tok"],
        "fromCookies": ["Sess"],
        "outputPayloadToHeader": "X-Payload",
        "forwardOriginalToken": True,
        "outputClaimToHeaders": [{"header": "X-Role", "claim": "realm.Role"}],
        "timeout": "3s",
        "spaceDelimitedClaims": ["roles"],
    }
    found = security(world(request("r", rule, selector=of("app=book"))))
    assert found is not None
    assert found.policies == ()
    assert found.jwt == (
        JwtProvider(
            source="RequestAuthentication default/r jwtRules[0]",
            issuer="me",
            jwks=JWKS,
            audiences=("a", "b"),
            from_headers=(("x-token", "Tok "), ("x-other", "")),
            from_params=("Tok",),
            from_cookies=("Sess",),
            payload_header="x-payload",
            claim_headers=(("x-role", "realm.Role"),),
            forward=True,
            space_delimited=("roles",),
        ),
    )


def test_fetched_keys_come_from_the_world() -> None:
    by_uri, by_issuer = {"issuer": "a", "jwksUri": "http://k/jwks"}, {"issuer": "https://idp"}
    before = world(request("r", by_uri, by_issuer, {"issuer": "c", "jwks": JWKS}))
    assert [p.jwks for p in (security(before) or Security()).jwt] == ["", "", JWKS]
    after = before.with_keys({"http://k/jwks": "K1", "issuer https://idp": "K2", "unasked": "K3"})
    assert [p.jwks for p in (security(after) or Security()).jwt] == ["K1", "K2", JWKS]
    assert after.with_keys(dict(after.config.keys)) is after


def test_all_rules_of_one_issuer_stay_oldest_first() -> None:
    found = security(
        world(
            request("b", {"issuer": "i", "jwks": JWKS, "audiences": ["1"]}, created=FIRST),
            request("a", {"issuer": "i", "jwks": JWKS, "audiences": ["2"]}, created=SECOND),
            request("c", {"issuer": "i", "jwks": JWKS, "audiences": ["0"]}, namespace=ROOT),
        )
    )
    assert found is not None
    assert [p.audiences for p in found.jwt] == [("0",), ("1",), ("2",)]


# -- what cannot be used -------------------------------------------------------------------------------------------------

DENIED = ["default/p"]


@pytest.mark.parametrize(
    ("spec", "others"),
    [
        ({"rulez": [{}], "selector": of("app=book")}, False),
        ({"action": "PERMIT"}, True),
        ({"action": "DENY", "rules": [{"from": [{"source": {"ipBlocks": ["x"]}}]}], "selector": of("app=book")}, False),
        ({"action": "ALLOW", "rules": 7, "selector": {"matchLabels": {"app": 7}}}, True),
        ({"action": "ALLOW", "rules": [{}], "selector": {"matchLabels": {"app": "*"}}}, True),
        ({"rulez": [{}], "selector": of("app=book"), "targetRef": {"kind": "Gateway", "name": "x"}}, True),
        ({"rulez": [{}], "targetRefs": "x"}, True),
        (7, True),
        (None, True),
        ([], True),
    ],
)
@pytest.mark.parametrize("dry_run", ["", "true"])
def test_a_policy_that_cannot_be_used_denies_whom_it_may_select(spec: Any, others: bool, dry_run: str) -> None:
    if spec is None:
        spec = {"rules": None, "x": 1}
    marks = {"dry_run": dry_run} if dry_run else {}
    found = world(authz("p", spec, **marks), pod("next", "10.0.0.7", {"app": "next"}))
    assert [(p.kind, p.name) for p in found.problems] == [("AuthorizationPolicy", "p")]
    made = security(found)
    assert made is not None
    assert [p.unusable for p in made.policies] == [found.problems[0].message]
    assert [p.dry_run for p in made.policies] == [bool(dry_run)]
    assert names(found, "next") == (DENIED if others else [])
    assert security(found, "other", "shop") is None


def test_in_the_root_namespace_an_unreadable_policy_denies_the_whole_mesh() -> None:
    found = world(authz("p", {"selector": 1}, ROOT))
    for name, namespace in (("book", "default"), ("other", "shop"), ("system", ROOT), ("gw", ROOT)):
        assert names(found, name, namespace) == [f"{ROOT}/p"]


def test_an_unusable_audit_decides_nothing_but_is_reported() -> None:
    found = world(authz("p", {"action": "AUDIT", "x": 1}))
    proxy = proxy_of(found, "default", "book")
    assert proxy is not None
    snapshot = translate(found, proxy)
    assert snapshot.get("security", "workload") is None
    assert "AuthorizationPolicy default/p" in str(snapshot.problems)


@pytest.mark.parametrize(
    ("rules", "providers"),
    [
        ([{"issuer": "a", "jwks": JWKS, "x": 1}], [("", (), ())]),
        ("x", [("", (), ())]),
        ([], [("", (), ())]),
        (
            [{"issuer": "a", "jwks": JWKS, "fromHeaders": [{"name": "X-T"}], "fromParams": [""]}],
            [("a", (("x-t", ""),), ("",))],
        ),
        (
            [{"issuer": "a", "jwks": "not json", "fromCookies": ["c"]}, {"issuer": 7}],
            [("a", (), ()), ("", (), ())],
        ),
    ],
)
def test_a_request_authentication_that_cannot_be_used_refuses_its_tokens(rules: Any, providers: list[Any]) -> None:
    obj = policy("RequestAuthentication", "r", {"jwtRules": rules, **({"x": 1} if rules == [] else {})})
    found = world(obj)
    assert [p.name for p in found.problems] == ["r"]
    made = security(found)
    assert made is not None
    assert [(p.issuer, p.from_headers, p.from_params) for p in made.jwt] == providers
    assert {p.jwks for p in made.jwt} == {""}


@pytest.mark.parametrize(
    ("obj", "mine", "theirs"),
    [
        (peer("p", "STRIKT", selector=of("app=book")), "STRICT", "PERMISSIVE"),
        (peer("p", "DISABLE", portLevelMtls={"80": {"mode": "DISABLE"}}), "STRICT", "STRICT"),
        (peer("p", "DISABLE", ROOT, x=1), "STRICT", "STRICT"),
        (policy("PeerAuthentication", "p", 5), "STRICT", "STRICT"),
    ],
)
def test_a_peer_authentication_that_cannot_be_used_is_strict(obj: Obj, mine: str, theirs: str) -> None:
    found = world(obj)
    assert len(found.problems) == 1
    mode, source = mtls_mode(found.config, "default", BOOK, 8080)
    assert mode == mine
    assert found.problems[0].message in source
    assert mtls_mode(found.config, "default", {"app": "x"}, 8080)[0] == theirs


# -- what stays the same -------------------------------------------------------------------------------------------------


def test_a_policy_of_another_namespace_leaves_layers_alone() -> None:
    translator, before = Translator(), world(authz("p", {}))
    proxy = proxy_of(before, "default", "book")
    assert proxy is not None
    first = translator.translate(before, proxy)
    for obj in (authz("p", {}, "shop"), peer("p", "STRICT", "shop"), request("r", {"issuer": "a"}, namespace="shop")):
        after = before.apply([event("ADDED", obj)])
        assert after.config.routing is before.config.routing
        assert translator.translate(after, proxy) is first
        before = after
    assert translator.translate(before.with_keys({"issuer a": "K"}), proxy) is first


def test_a_policys_change_reaches_its_workloads_and_only_the_inbound_layer() -> None:
    translator, before = Translator(), world()
    proxy = proxy_of(before, "default", "book")
    assert proxy is not None
    first = translator.translate(before, proxy)
    seen = {first.version}
    for obj in (
        authz("p", {}),
        authz("p", {"rules": [{}]}),
        authz("p", {"rules": [{}]}, dry_run="true"),
        request("r", {"issuer": "a"}),
        peer("m", "STRICT", ROOT),
    ):
        before = before.apply([event("ADDED", obj)])
        now = translator.translate(before, proxy)
        assert now.layers[0] is first.layers[0]
        assert now.version not in seen
        seen.add(now.version)
    assert translator.translate(before.with_keys({"issuer a": "K"}), proxy).version not in seen
    for obj in (authz("p", {}), request("r"), peer("m", None, ROOT)):
        before = before.apply([event("DELETED", obj)])
    assert translator.translate(before, proxy).version == first.version
