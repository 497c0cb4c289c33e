"""The users' MeshConfig over the settings of the start; a bad one changes nothing."""

from __future__ import annotations

from world_objects import Obj, event, service

from control.world import MeshSettings, World
from control.world.mesh import AuthzProvider
from control.world.settings import mesh_settings, trust_domain_at_start
from meshproxy.model.route import Retry
from meshproxy.model.security import ExtAuthz


def config_map(text: str | None, namespace: str = "istio-system", name: str = "istio") -> Obj:
    data = {} if text is None else {"mesh": text}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data}


BASE = MeshSettings(trust_domain="here.example", outbound_policy="REGISTRY_ONLY")


def test_every_setting() -> None:
    made = mesh_settings(
        BASE,
        """
        trustDomain: there.example
        trustDomainAliases: [old.example, old.example, older.example]
        outboundTrafficPolicy: {mode: ALLOW_ANY}
        enableAutoMtls: false
        pathNormalization: {normalization: DECODE_AND_MERGE_SLASHES}
        defaultHttpRetryPolicy: {attempts: 5, retryOn: "5xx,429"}
        extensionProviders:
        - name: grpc
          envoyExtAuthzGrpc: {service: a, port: 1}
        - name: http
          envoyExtAuthzHttp:
            service: shop/Authz.shop.svc.cluster.local
            port: 9000
            timeout: 250ms
            pathPrefix: /check
            failOpen: true
            statusOnError: "503"
            includeHeadersInCheck: [Old]
            includeRequestHeadersInCheck: [X-A, "X-B-*"]
            includeAdditionalHeadersInCheck: {X-D: d, X-C: c}
            includeRequestBodyInCheck: {maxRequestBytes: 10, allowPartialMessage: true}
            headersToUpstreamOnAllow: [X-U]
            headersToDownstreamOnDeny: [X-Deny]
            headersToDownstreamOnAllow: [X-Allow]
        """,
    )
    assert made == MeshSettings(
        trust_domain="here.example",
        trust_domain_aliases=("old.example", "older.example"),
        outbound_policy="ALLOW_ANY",
        enable_auto_mtls=False,
        path_normalization="DECODE_AND_MERGE_SLASHES",
        default_retry=Retry(attempts=5, on=("5xx", "retriable-status-codes"), status_codes=(429,)),
        authorisers=(
            AuthzProvider(name="grpc", unusable="is envoyExtAuthzGrpc, which cannot be asked: use envoyExtAuthzHttp"),
            AuthzProvider(
                name="http",
                namespace="shop",
                host="authz.shop.svc.cluster.local",
                port=9000,
                ask=ExtAuthz(
                    name="http",
                    cluster="",
                    authority="authz.shop.svc.cluster.local",
                    timeout=0.25,
                    path_prefix="/check",
                    fail_open=True,
                    status_on_error=503,
                    include_request_headers=("x-a", "x-b-*"),
                    include_additional_headers=(("x-c", "c"), ("x-d", "d")),
                    include_body=10,
                    allow_partial_body=True,
                    headers_to_upstream_on_allow=("x-u",),
                    headers_to_downstream_on_deny=("x-deny",),
                    headers_to_downstream_on_allow=("x-allow",),
                ),
            ),
        ),
    )


def test_no_retries_and_the_default_normalization() -> None:
    made = mesh_settings(BASE, "defaultHttpRetryPolicy: {attempts: 0}\npathNormalization: {}")
    assert made.default_retry is None
    assert made.path_normalization == "BASE"
    assert mesh_settings(BASE, "") == BASE


def test_the_trust_domain_is_for_the_next_start() -> None:
    assert trust_domain_at_start("trustDomain: there.example") == "there.example"
    assert trust_domain_at_start("trustDomain: [") == ""
    assert trust_domain_at_start("enableAutoMtls: true") == ""
    world = World.of([config_map("trustDomain: there.example")], BASE)
    assert world.mesh.trust_domain == "here.example"


def test_a_change_reaches_the_world_and_a_bad_one_does_not() -> None:
    world = World.of([service("a")], BASE)
    assert world.mesh is BASE
    first = world.apply([event("ADDED", config_map("enableAutoMtls: false"))])
    assert (first.mesh.enable_auto_mtls, first.config.mesh) == (False, first.mesh)
    assert first.config.services is world.config.services
    assert first.config.routing is not world.config.routing
    for bad in ("enableAutoMtls: [", "enableAutoMtls: 'no'"):
        spoilt = first.apply([event("MODIFIED", config_map(bad))])
        assert spoilt.mesh is first.mesh
        assert spoilt.config is first.config
        assert [(p.kind, p.name) for p in spoilt.problems] == [("ConfigMap", "istio")]
        assert spoilt.problems[0].message.startswith("data.mesh")
    again = spoilt.apply([event("MODIFIED", config_map("enableAutoMtls: false # the same"))])
    assert again.problems == ()
    assert again.mesh is first.mesh
    for gone in (event("DELETED", config_map("")), event("MODIFIED", config_map(None))):
        assert again.apply([gone]).mesh == BASE


def test_a_bad_one_at_the_start_leaves_the_settings_of_the_start() -> None:
    world = World.of([config_map("[")], BASE)
    assert world.mesh == BASE
    assert len(world.problems) == 1


def test_only_the_root_namespaces_own_counts() -> None:
    text = "enableAutoMtls: false"
    world = World.of([config_map(text, "default"), config_map(text, name="other"), config_map(text, "mesh")], BASE)
    assert world.mesh is BASE
    rooted = MeshSettings(root_namespace="mesh")
    assert not World.of([config_map(text, "mesh")], rooted).mesh.enable_auto_mtls
