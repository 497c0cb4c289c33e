"""The users' MeshConfig: what is taken, what is said of the rest, what is refused."""

from __future__ import annotations

import pytest

from control.resources.check import validate

PROVIDER = "extensionProviders: [{name: a, envoyExtAuthzHttp: {service: authz.x.svc.cluster.local, port: 9000, %s}}]"


def judged(text: str, name: str = "istio", key: str = "mesh") -> tuple[list[str], list[str]]:
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {key: text}}
    verdict = validate(obj)
    return [str(e) for e in verdict.errors], [str(w) for w in verdict.warnings]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "outboundTrafficPolicy: {mode: REGISTRY_ONLY}\nenableAutoMtls: false\npathNormalization: {normalization: MERGE_SLASHES}",
        "trustDomain: ~\ntrustDomainAliases: [old.example]",
        "defaultHttpRetryPolicy: {attempts: 3, retryOn: 5xx, perTryTimeout: 1s}",
        PROVIDER % "includeRequestHeadersInCheck: [x-a, 'x-b-*', '*-c', '*'], timeout: 1s, failOpen: true, statusOnError: '503'",
        (PROVIDER % "timeout: 1s").replace("9000", '"9000"'),  # as Istio's own examples write it
        PROVIDER % "includeRequestBodyInCheck: {maxRequestBytes: 10, allowPartialMessage: true}, pathPrefix: /check",
    ],
)
def test_what_is_honoured_is_taken_without_a_word(text: str) -> None:
    assert judged(text) == ([], [])


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("connectTimeout: 1s", "data.mesh.connectTimeout: accepted but not honoured yet"),
        ("enableAutoMTLS: true", 'data.mesh.enableAutoMTLS: is no setting of a mesh: ignored; did you mean "enableAutoMtls"?'),
        ("trustDomain: x.example", "data.mesh.trustDomain: is read when control starts"),
        ("outboundTrafficPolicy: {egressProxy: {host: a}}", "data.mesh.outboundTrafficPolicy.egressProxy: accepted but"),
        (PROVIDER % "includeHeadersInCheck: [a]", "extensionProviders[0].envoyExtAuthzHttp.includeHeadersInCheck: is deprecated"),
        (PROVIDER % "clearRouteCache: true", "envoyExtAuthzHttp.clearRouteCache: accepted but not honoured yet"),
        ("extensionProviders: [{name: a, zipkin: {service: z, port: 1}}]", "extensionProviders[0].zipkin: accepted but"),
        ("extensionProviders: [{name: a, envoyExtAuthzGrpc: {}}]", "policies that name it deny every request"),
        ("extensionProviders: [{name: a, envoyExtAuthHttp: {}}]", 'did you mean "envoyExtAuthzHttp"?'),
    ],
)
def test_what_is_not_obeyed_is_said(text: str, warning: str) -> None:
    errors, warnings = judged(text)
    assert errors == []
    assert len(warnings) == 1
    assert warning in warnings[0]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a: [", "data.mesh: cannot be read as YAML: line 2, column"),
        ("a: &x 1\nb: *x", "data.mesh: cannot be read as YAML: aliases"),
        ("- a", "data.mesh: must be one YAML mapping"),
        ("a: 1\n---\nb: 2", "data.mesh: must be one YAML mapping"),
        ("enableAutoMtls: 'yes'", "data.mesh.enableAutoMtls: must be true or false"),
        ("outboundTrafficPolicy: {mode: ALLOW}", "data.mesh.outboundTrafficPolicy.mode:"),
        ("pathNormalization: {normalisation: BASE}", "data.mesh.pathNormalization.normalisation:"),
        ("trustDomain: 'a b'", "data.mesh.trustDomain: must be a host name"),
        ("trustDomainAliases: ['']", "data.mesh.trustDomainAliases[0]: must not be empty"),
        ("defaultHttpRetryPolicy: {attempts: 1, retryOn: never}", "data.mesh.defaultHttpRetryPolicy.retryOn:"),
        ("extensionProviders: [{envoyExtAuthzHttp: {}}]", "data.mesh.extensionProviders[0].name: is required"),
        ("extensionProviders: [{name: a}]", "data.mesh.extensionProviders[0]: must say in exactly one field"),
        ("extensionProviders: [{name: a, envoyExtAuthzHttp: 1}]", "envoyExtAuthzHttp: must be an object"),
        ((PROVIDER % "timeout: 1s").replace("9000", "'" + "9" * 5000 + "'"), "envoyExtAuthzHttp.port: must be an integer"),
        ((PROVIDER % "timeout: 1s").replace("9000", "'70000'"), "envoyExtAuthzHttp.port: must be from 1 to 65535"),
        ("extensionProviders: [{name: a, envoyExtAuthzHttp: {port: 1}}]", "envoyExtAuthzHttp.service: is required"),
        ("extensionProviders: [{name: a, zipkin: {}}, {name: a, sds: {}}]", "extensionProviders[1]: provider"),
        (PROVIDER % "failopen: true", "envoyExtAuthzHttp.failopen: unknown field"),
        (PROVIDER % "statusOnError: teapot", "envoyExtAuthzHttp.statusOnError: must be an HTTP status"),
        (PROVIDER % "pathPrefix: check", "envoyExtAuthzHttp.pathPrefix: must begin with"),
        (PROVIDER % 'pathPrefix: "/a\\r\\nx: y"', "envoyExtAuthzHttp.pathPrefix: must be a path of visible ASCII"),
        (PROVIDER % 'pathPrefix: "/a?b"', "envoyExtAuthzHttp.pathPrefix: must be a path of visible ASCII"),
        (
            PROVIDER % "includeAdditionalHeadersInCheck: {Content-Length: '5'}",
            'InCheck: "Content-Length" belongs to the connection\'s',
        ),
        (PROVIDER % "includeAdditionalHeadersInCheck: {host: x}", 'includeAdditionalHeadersInCheck: "host" belongs to'),
        (PROVIDER % "includeRequestBodyInCheck: {}", "includeRequestBodyInCheck.maxRequestBytes: is required"),
        (PROVIDER % "includeRequestHeadersInCheck: ['a*b']", 'includeRequestHeadersInCheck[0]: "*" may only stand'),
        (PROVIDER % 'includeAdditionalHeadersInCheck: {x-a: "a\\r\\nb"}', "InCheck[x-a]: holds a control character"),
        (PROVIDER.replace("authz.x.svc.cluster.local", "10.0.0.1") % "", "service: must be a service's host name"),
        (PROVIDER.replace("authz.x", "A_B/authz.x") % "", "service: the part before / must be a namespace"),
    ],
)
def test_what_is_refused(text: str, error: str) -> None:
    errors, _ = judged(text)
    assert len(errors) == 1, errors
    assert error in errors[0]


def test_other_config_maps_are_nobodys_settings() -> None:
    assert judged("[", name="other") == ([], [])
    assert judged("[", key="meshNetworks") == ([], [])
