"""Validation as a user meets it: a spec, and the lines that come back."""

# ruff: noqa: E501  -- one case a line reads better than one broken up

from __future__ import annotations

from typing import Any

import pytest
import yaml

from control.resources.check import Invalid, decode, validate
from control.resources.kinds import KINDS

BY_KIND = {k.kind: k for k in KINDS}


def obj(kind: str, spec: str, **meta: Any) -> dict[str, Any]:
    return {
        "apiVersion": BY_KIND[kind].api_version,
        "kind": kind,
        "metadata": {"name": "x", "namespace": "default", **meta},
        "spec": yaml.safe_load(spec),
    }


def errors(kind: str, spec: str, **meta: Any) -> list[str]:
    return [str(p).removeprefix("spec.") for p in validate(obj(kind, spec, **meta)).errors]


def warnings(kind: str, spec: str) -> list[str]:
    return [str(p) for p in validate(obj(kind, spec)).warnings if "not honoured" not in str(p)]


ROUTE = "route: [{destination: {host: a}}]"

VALID = {
    "VirtualService": [
        f"{{hosts: [a], http: [{{{ROUTE}}}]}}",
        f"{{hosts: ['*'], gateways: [gw, ns/gw], http: [{{{ROUTE}}}]}}",
        f"{{hosts: [a.com, '*.b.com', 10.0.0.1], http: [{{{ROUTE}, timeout: 0s, retries: {{attempts: 0}}}}]}}",
        "{hosts: [a], http: [{redirect: {uri: /x, redirectCode: 308}}, {directResponse: {status: 503, body: {string: none}}}]}",
        f"{{hosts: [a], http: [{{match: [{{headers: {{u: {{}}, v: {{regex: '*'}}}}, queryParams: {{q: {{exact: ''}}}}}}], {ROUTE}}}]}}",
        f"{{hosts: [a], gateways: [g], http: [{{match: [{{headers: {{'@request.auth.claims[a][b]': {{exact: x}}}}}}], {ROUTE}}}]}}",
        f"{{hosts: [a], http: [{{{ROUTE}, retries: {{attempts: 3, retryOn: '5xx, 503,reset-before-request', perTryTimeout: 2s}}}}]}}",
        f"{{hosts: [a], http: [{{{ROUTE}, headers: {{request: {{set: {{Host: b, x: '100%% %REQ(:path)%'}}, remove: [y]}}}}}}]}}",
        f"{{hosts: [a], http: [{{{ROUTE}, mirror: {{host: b}}, mirrorPercentage: {{value: 0.5}}, corsPolicy: {{maxAge: 24h}}}}]}}",
        f"{{hosts: [a], http: [{{{ROUTE}, rewrite: {{uriRegexRewrite: {{match: '/(.*)', rewrite: '/v2/\\1'}}}}}}]}}",
        "{hosts: [a], http: [{route: [{destination: {host: a}, weight: 0}, {destination: {host: b}, weight: 1}]}]}",
        "{hosts: [a], http: [{route: [{destination: {host: a, port: {number: 80.0}}}]}]}",
        "{hosts: [a.com], tls: [{match: [{sniHosts: [a.com]}], route: [{destination: {host: a}}]}]}",
        f"{{http: [{{{ROUTE}}}]}}",
    ],
    "DestinationRule": [
        "{host: rating}",
        "{host: '*.local', trafficPolicy: {outlierDetection: {}}}",
        "{host: a, subsets: [{name: v1, labels: {app.kubernetes.io/version: v1.0.0}}]}",
        "{host: a, trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: u, ttl: 0s}, ringHash: {minimumRingSize: 512}}}}}",
        "{host: a, trafficPolicy: {portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]}}",
        "{host: a, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 65537}}}}}",
    ],
    "Gateway": [
        "{selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*', ns/a.com]}]}",
        "{servers: [{port: {number: 443, name: t, protocol: https}, hosts: [a.com], tls: {mode: SIMPLE, credentialName: c}}]}",
        "{servers: [{port: {number: 80, name: h, protocol: HTTP}, hosts: [a.com], tls: {httpsRedirect: true}}]}",
    ],
    "ServiceEntry": [
        "{hosts: [a.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}",
        "{hosts: [a.com], ports: [{number: 80, name: h}], resolution: STATIC, endpoints: [{address: 1.2.3.4, ports: {h: 8080}}]}",
        "{hosts: ['*.a.com'], ports: [{number: 443, name: tls, protocol: TLS}], location: MESH_EXTERNAL, exportTo: ['~']}",
    ],
    "Sidecar": [
        "{egress: [{hosts: ['./*', istio-system/*, '*/a.com', '~/*']}]}",
        "{workloadSelector: {labels: {a: b}}, outboundTrafficPolicy: {mode: REGISTRY_ONLY}}",
    ],
    "WorkloadEntry": ["{address: 1.2.3.4, labels: {a: b}, ports: {http: 80}}", "{address: vm.example.com}"],
    "WorkloadGroup": ["{template: {serviceAccount: a}, probe: {httpGet: {port: 80}}}"],
    "PeerAuthentication": [
        "{mtls: {mode: STRICT}}",
        "{selector: {matchLabels: {a: b}}, portLevelMtls: {'8080': {mode: DISABLE}}}",
        "{selector: {matchLabels: {a: b}}, portLevelMtls: {8080: {mode: DISABLE}}}",
    ],
    "RequestAuthentication": ['{jwtRules: [{issuer: a, jwks: \'{"keys":[{"kty":"RSA"}]}\', fromHeaders: [{name: x}]}]}'],
    "AuthorizationPolicy": [
        "{}",
        "{rules: [{}]}",
        "{action: DENY, rules: [{from: [{source: {principals: ['*'], ipBlocks: [10.0.0.0/8, 1.2.3.4]}}]}]}",
        "{rules: [{to: [{operation: {paths: ['/a/{*}/b/{**}', '/x*'], ports: ['80']}}], when: [{key: 'request.headers[x]', values: [a]}]}]}",
    ],
    "Telemetry": ["{tracing: [{randomSamplingPercentage: 10, customTags: {a: {literal: {value: b}}}}]}"],
    "ProxyConfig": ["{concurrency: 2, image: {imageType: distroless}}"],
    "EnvoyFilter": ["{configPatches: [{applyTo: HTTP_FILTER, patch: {anything: [goes]}}]}"],
    "WasmPlugin": ["{url: 'oci://x', match: []}"],
}


@pytest.mark.parametrize(("kind", "spec"), [(k, s) for k, specs in VALID.items() for s in specs])
def test_valid(kind: str, spec: str) -> None:
    assert errors(kind, spec) == []
    decode(obj(kind, spec))


def http(rule: str) -> str:
    return f"{{hosts: [a], http: [{{{rule}}}]}}"


VIRTUAL_SERVICE = [
    ("{hosts: [a]}", ["one of http, tls, tcp is required"]),
    ("{hosts: [a], http: []}", ["one of http, tls, tcp is required"]),
    (http(""), ["http[0]: one of route, redirect, directResponse, delegate is required"]),
    (f"{{hosts: ['*'], http: [{{{ROUTE}}}]}}", ['hosts[0]: "*" needs gateways']),
    (f"{{hosts: [a, a], http: [{{{ROUTE}}}]}}", ['hosts[1]: "a" and "a" (spec.hosts[0]) overlap']),
    (f"{{hosts: ['*.a.com', b.a.com], http: [{{{ROUTE}}}]}}", ["overlap"]),
    (f"{{hosts: ['a b'], http: [{{{ROUTE}}}]}}", ["hosts[0]: must be a host name"]),
    (f"{{gateways: [g], http: [{{{ROUTE}}}]}}", ["hosts: is required, since gateways is given"]),
    (f"{{hosts: [a], gateways: [a/b/c], http: [{{{ROUTE}}}]}}", ['gateways[0]: must be "name" or "namespace/name"']),
    (f"{{hosts: [a], exportTo: ['*', b], http: [{{{ROUTE}}}]}}", ['exportTo: "*" must stand alone']),
    (f"{{hosts: [a], exportTo: ['.', default], http: [{{{ROUTE}}}]}}", ["exportTo[1]: namespace"]),
    (http("route: [{destination: {host: a}, wieght: 1}]"), ['http[0].route[0].wieght: unknown field; did you mean "weight"?']),
    (http("rout: []"), ['http[0].rout: unknown field; did you mean "route"?']),
    (http("route: [{destination: {}}]"), ["http[0].route[0].destination.host: is required"]),
    (http("route: [{weight: 1}]"), ["http[0].route[0].destination: is required"]),
    (http("route: [{destination: {host: '*'}}]"), ["must name one host"]),
    (http("route: [{destination: {host: a, subset: V_1}}]"), ["http[0].route[0].destination.subset: must be lower-case"]),
    (http("route: [{destination: {host: a, port: {number: 70000}}}]"), ["port.number: must be from 1 to 65535, not 70000"]),
    (http("route: [{destination: {host: a, port: 80}}]"), ["destination.port: must be an object, not an integer (80)"]),
    (http("route: [{destination: {host: a}, weight: '5'}]"), ['weight: must be an integer, not text ("5"); remove the quotes']),
    (http("route: [{destination: {host: a}, weight: -5}]"), ["http[0].route[0].weight: must not be negative"]),
    (http("route: [{destination: {host: a}}, {destination: {host: b}}]"), ["http[0].route: total destination weight = 0"]),
    (http(f"{ROUTE}, redirect: {{uri: /}}"), ["only one of route, redirect, directResponse, delegate may be given"]),
    (http("redirect: {}"), ["http[0].redirect: one of uri, prefixRewrite"]),
    (http("redirect: {uri: /, redirectCode: 200}"), ["redirectCode: must be one of 301, 302"]),
    (http("redirect: {uri: /, prefixRewrite: /}"), ["http[0].redirect: only one of uri, prefixRewrite"]),
    (http("redirect: {port: 80, derivePort: FROM_REQUEST_PORT}"), ["only one of port, derivePort"]),
    (http("redirect: {uri: /, scheme: ftp}"), ["scheme: must be http or https"]),
    (http("directResponse: {}"), ["http[0].directResponse.status: is required"]),
    (http("directResponse: {status: 99}"), ["status: must be from 100 to 599"]),
    (http("directResponse: {status: 200, body: {string: a, bytes: YQ==}}"), ["body: only one of string, bytes"]),
    (http("directResponse: {status: 200, body: {bytes: '!'}}"), ["body.bytes: must be base64"]),
    (http(f"{ROUTE}, match: [{{uri: {{exact: /a, prefix: /b}}}}]"), ["match[0].uri: only one of exact, prefix, regex"]),
    (http(f"{ROUTE}, match: [{{uri: {{}}}}]"), ["match[0].uri: one of exact, prefix, regex is required"]),
    (http(f"{ROUTE}, match: [{{uri: {{regex: '('}}}}]"), ["http[0].match[0].uri.regex: is not a valid RE2 regex"]),
    (http(f"{ROUTE}, match: [{{uri: {{regex: '*'}}}}]"), ['uri.regex: is not a valid RE2 regex: "*"; write ".*"']),
    (http(f"{ROUTE}, match: [{{uri: {{prefix: ''}}}}]"), ["uri.prefix: must not be empty"]),
    (http(f"{ROUTE}, match: [{{uri: null}}]"), ["match[0].uri: must be an object, not null"]),
    (http(f"{ROUTE}, match: [{{headers: {{'a b': {{}}}}}}]"), ['headers[a b]: "a b" is not a header name']),
    (http(f"{ROUTE}, match: [{{headers: {{'@request.auth.claims.a': {{}}}}}}]"), ["a JWT claim can be matched at gateways only"]),
    (http(f"{ROUTE}, match: [{{headers: {{'@request.auth.foo': {{}}}}}}]"), ['must be "@request.auth.claims.NAME"']),
    (http(f"{ROUTE}, match: [{{sourceLabels: {{'a b': c}}}}]"), ["sourceLabels: key"]),
    (http(f"{ROUTE}, match: [{{sourceNamespace: A}}]"), ["sourceNamespace: must be a namespace"]),
    (http(f"{ROUTE}, timeout: 5"), ['timeout: must be a duration such as "5s", not an integer (5)']),
    (http(f"{ROUTE}, timeout: 5 seconds"), ["http[0].timeout: must be a duration"]),
    (http(f"{ROUTE}, timeout: 10us"), ["timeout: must be at least 1ms"]),
    (
        http(f"{ROUTE}, retries: {{attempts: 2, retryOn: '5xx,gatway-error'}}"),
        ['"gatway-error" is neither', 'did you mean "gateway-error"?'],
    ),
    (http(f"{ROUTE}, retries: {{retryOn: 5xx}}"), ["retries.attempts: is 0, which turns retries off, although retryOn is given"]),
    (http(f"{ROUTE}, retries: {{attempts: -1}}"), ["retries.attempts: must not be negative"]),
    (http(f"{ROUTE}, retries: {{attempts: 2, perTryTimeout: 0s}}"), ["perTryTimeout: must be at least 1ms"]),
    (http(f"{ROUTE}, fault: {{}}"), ["fault: one of delay, abort is required"]),
    (http(f"{ROUTE}, fault: {{delay: {{percentage: {{value: 5}}}}}}"), ["fault.delay.fixedDelay: is required"]),
    (
        http(f"{ROUTE}, fault: {{delay: {{fixedDelay: 1s, percentage: {{value: 101}}}}}}"),
        ["value: must be from 0 to 100, not 101"],
    ),
    (
        http(f"{ROUTE}, fault: {{abort: {{percentage: {{value: 5}}}}}}"),
        ["fault.abort: one of httpStatus, grpcStatus is required"],
    ),
    (http(f"{ROUTE}, fault: {{abort: {{httpStatus: 700}}}}"), ["httpStatus: must be from 200 to 599, not 700"]),
    (http(f"{ROUTE}, fault: {{abort: {{grpcStatus: NOTFOUND}}}}"), ['did you mean "NOT_FOUND"?']),
    (http(f"{ROUTE}, fault: {{abort: {{httpStatus: 500, grpcStatus: OK}}}}"), ["only one of httpStatus, grpcStatus, http2Error"]),
    (http(f"{ROUTE}, rewrite: {{}}"), ["rewrite: one of uri, authority, uriRegexRewrite is required"]),
    (http(f"{ROUTE}, rewrite: {{uri: /, uriRegexRewrite: {{match: a, rewrite: b}}}}"), ["only one of uri, uriRegexRewrite"]),
    (
        http(f"{ROUTE}, rewrite: {{uriRegexRewrite: {{match: '[', rewrite: a}}}}"),
        ["uriRegexRewrite.match: is not a valid RE2 regex"],
    ),
    (
        http(f"{ROUTE}, rewrite: {{authority: b}}, headers: {{request: {{set: {{host: c}}}}}}"),
        ["rewrite.authority: the host is also set"],
    ),
    (http(f"{ROUTE}, headers: {{request: {{add: {{host: b}}}}}}"), ['"host" cannot be changed here']),
    (http(f"{ROUTE}, headers: {{response: {{remove: [':status']}}}}"), ['remove[0]: ":status" cannot be changed']),
    (http(f"{ROUTE}, headers: {{request: {{set: {{x: 50%}}}}}}"), ["set[x]: a percent sign must be doubled"]),
    (http(f'{ROUTE}, headers: {{request: {{set: {{x: "a\\nb"}}}}}}'), ["may not hold control characters"]),
    (http(f"{ROUTE}, headers: {{request: {{set: {{x: 1}}}}}}"), ["set[x]: must be text, not an integer (1); put it in quotes"]),
    (
        http(f"{ROUTE}, corsPolicy: {{allowMethods: [get]}}"),
        ['allowMethods[0]: "get" is not an HTTP method; did you mean "GET"?'],
    ),
    (http(f"{ROUTE}, corsPolicy: {{maxAge: 1.5s}}"), ["maxAge: must be whole seconds"]),
    (http(f"{ROUTE}, corsPolicy: {{allowOrigins: [{{}}]}}"), ["allowOrigins[0]: one of exact, prefix, regex is required"]),
    (http(f"{ROUTE}, corsPolicy: {{unmatchedPreflights: forward}}"), ['did you mean "FORWARD"?']),
    (http(f"{ROUTE}, mirror: {{host: a}}, mirrors: [{{destination: {{host: b}}}}]"), ["mirrors: does not go with mirror"]),
    (http(f"{ROUTE}, mirrorPercentage: {{value: 200}}, mirror: {{host: a}}"), ["mirrorPercentage.value: must be from 0 to 100"]),
    (http(f"{ROUTE}, delegate: {{name: b}}"), ["only one of route, redirect, directResponse, delegate"]),
    (http("delegate: {name: b}, match: [{uri: {regex: a}}]"), ["a regex cannot be used together with delegation"]),
    ("{http: [{delegate: {name: b}}]}", ["a delegate may not delegate again"]),
    ("{hosts: [a], tls: [{match: [{sniHosts: [b]}], route: [{destination: {host: a}}]}]}", ['sniHosts[0]: "b" is not one of']),
    ("{hosts: [a], tls: [{match: [{}]}]}", ["tls[0].match[0].sniHosts: is required", "tls[0].route: is required"]),
    (
        "{hosts: [a], tcp: [{match: [{destinationSubnets: [1.2.3.4.5]}]}]}",
        ["destinationSubnets[0]: must be an IP", "tcp[0].route: is required"],
    ),
    ("[]", ["spec: must be an object, not a list"]),
    ("null", ["spec: must be an object, not null"]),
    ("{hosts: a}", ["hosts: must be a list, not text"]),
]


@pytest.mark.parametrize(("spec", "expected"), VIRTUAL_SERVICE)
def test_virtual_service(spec: str, expected: list[str]) -> None:
    _meets(errors("VirtualService", spec), expected)


def _meets(found: list[str], expected: list[str]) -> None:
    assert found, "it was accepted"
    for fragment in expected:
        assert any(fragment in line for line in found), found
    assert len(found) <= len(expected), found


OTHERS = [
    ("DestinationRule", "{}", ["host: is required"]),
    ("DestinationRule", "{host: 'a*'}", ['"*" may only stand at the beginning']),
    ("DestinationRule", "{host: a, trafficPolicy: {}}", ["trafficPolicy: is empty"]),
    ("DestinationRule", "{host: a, subsets: [{name: v1}, {name: v1}]}", ['subsets[1]: subset name "v1" is given twice']),
    ("DestinationRule", "{host: a, subsets: [{name: v.1}]}", ["subsets[0].name: must be lower-case"]),
    ("DestinationRule", "{host: a, subsets: [{labels: {a: b}}]}", ["subsets[0].name: is required"]),
    ("DestinationRule", "{host: a, subsets: [{name: v, labels: {a: 1}}]}", ["labels[a]: must be text, not an integer (1)"]),
    ("DestinationRule", "{host: a, trafficPolicy: {loadBalancer: {simple: ROUND_ROBBIN}}}", ['did you mean "ROUND_ROBIN"?']),
    (
        "DestinationRule",
        "{host: a, trafficPolicy: {loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}}",
        ["only one of"],
    ),
    ("DestinationRule", "{host: a, trafficPolicy: {loadBalancer: {consistentHash: {}}}}", ["one of httpHeaderName, httpCookie"]),
    (
        "DestinationRule",
        "{host: a, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: a, useSourceIp: true}}}}",
        ["consistentHash: only one of httpHeaderName, httpCookie"],
    ),
    ("DestinationRule", "{host: a, trafficPolicy: {connectionPool: {}}}", ["connectionPool: one of tcp, http is required"]),
    (
        "DestinationRule",
        "{host: a, trafficPolicy: {connectionPool: {tcp: {maxConnections: -1}}}}",
        ["maxConnections: must not be neg"],
    ),
    (
        "DestinationRule",
        "{host: a, trafficPolicy: {connectionPool: {tcp: {connectTimeout: abc}}}}",
        ["connectTimeout: must be a dur"],
    ),
    (
        "DestinationRule",
        "{host: a, trafficPolicy: {outlierDetection: {maxEjectionPercent: 101}}}",
        ["must be from 0 to 100, not 101"],
    ),
    (
        "DestinationRule",
        "{host: a, trafficPolicy: {outlierDetection: {interval: 1}}}",
        ['interval: must be a duration such as "1s"'],
    ),
    (
        "DestinationRule",
        "{host: a, trafficPolicy: {outlierDetection: {consecutive5xxError: 1}}}",
        ['consecutive5xxError: unknown field; did you mean "consecutive5xxErrors"?'],
    ),
    (
        "DestinationRule",
        "{host: a, trafficPolicy: {outlierDetection: {consecutiveLocalOriginFailures: 2}}}",
        ["needs splitExternal"],
    ),
    (
        "DestinationRule",
        "{host: a, trafficPolicy: {portLevelSettings: [{port: {number: 80}}]}}",
        ["portLevelSettings[0]: one of"],
    ),
    (
        "DestinationRule",
        "{host: a, trafficPolicy: {tls: {mode: MUTUAL}}}",
        ["clientCertificate: is required", "privateKey: is required"],
    ),
    (
        "DestinationRule",
        "{host: a, trafficPolicy: {tls: {mode: ISTIO_MUTUAL, privateKey: a}}}",
        ["must not be given with mode ISTIO"],
    ),
    (
        "DestinationRule",
        "{host: a, trafficPolicy: {loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 60}}]}}}}",
        ["the shares must add up to 100, not 60"],
    ),
    (
        "DestinationRule",
        "{host: a, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 100}}}}}",
        ["must be a prime number"],
    ),
    ("Gateway", "{}", ["servers: needs at least one server"]),
    ("Gateway", "{servers: [{port: {number: 80, name: a, protocol: HTTP}}]}", ["servers[0].hosts: is required"]),
    ("Gateway", "{servers: [{hosts: ['*']}]}", ["servers[0].port: is required"]),
    ("Gateway", "{servers: [{port: {number: 80, name: a, protocol: HTP}, hosts: ['*']}]}", ['did you mean "HTTP"?']),
    ("Gateway", "{servers: [{port: {number: 0, name: a, protocol: HTTP}, hosts: ['*']}]}", ["number: must be from 1 to 65535"]),
    ("Gateway", "{servers: [{port: {number: 1, protocol: HTTP}, hosts: ['*']}]}", ["port.name: must not be empty"]),
    (
        "Gateway",
        "{servers: [{port: {number: 1, name: a, protocol: HTTPS}, hosts: ['*']}]}",
        ["tls: is required with protocol HTTPS"],
    ),
    (
        "Gateway",
        "{servers: [{port: {number: 1, name: a, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE}}]}",
        ["serverCertificate: (or credentialName)", "privateKey: (or credentialName)"],
    ),
    ("Gateway", "{servers: [{port: {number: 1, name: a, protocol: HTTP}, hosts: [a/b/c]}]}", ["hosts[0]: must be a host name"]),
    (
        "Gateway",
        "{servers: [{port: {number: 1, name: a, protocol: HTTP}, hosts: ['*a.com']}]}",
        ['"*" must stand for whole parts'],
    ),
    (
        "Gateway",
        "{servers: [{port: {number: 1, name: a, protocol: HTTP}, hosts: ['*']}, {port: {number: 2, name: a, protocol: HTTP}, hosts: ['*']}]}",
        ['servers[1]: port name "a" is given twice'],
    ),
    ("ServiceEntry", "{hosts: []}", ["hosts: needs at least one host"]),
    ("ServiceEntry", "{ports: []}", ["hosts: is required"]),
    ("ServiceEntry", "{hosts: ['*'], ports: [{number: 80, name: a}]}", ["must name hosts"]),
    ("ServiceEntry", "{hosts: ['*.a.com'], ports: [{number: 80, name: a}], resolution: DNS}", ["a wildcard cannot be resolved"]),
    (
        "ServiceEntry",
        "{hosts: [a], ports: [{number: 80, name: a}], endpoints: [{address: 1.2.3.4}]}",
        ["does not go with resolution NONE"],
    ),
    (
        "ServiceEntry",
        "{hosts: [a], ports: [{number: 80, name: a}], resolution: STATIC, endpoints: [{address: b.com}]}",
        ["endpoints[0].address: must be an IP address with resolution STATIC"],
    ),
    (
        "ServiceEntry",
        "{hosts: [a], ports: [{number: 80, name: a}], resolution: DNS, endpoints: [{address: b.com, ports: {z: 1}}]}",
        ["endpoints[0].ports[z]: is not the name of one of spec.ports"],
    ),
    (
        "ServiceEntry",
        "{hosts: [a], ports: [{number: 80, name: a}, {number: 80, name: a}]}",
        ['ports[1]: port "80" is given twice', 'ports[1]: port name "a" is given twice'],
    ),
    ("ServiceEntry", "{hosts: [a], ports: [{number: 80}]}", ["ports[0].name: is required"]),
    (
        "ServiceEntry",
        "{hosts: [a, b], ports: [{number: 80, name: a, protocol: TCP}], resolution: DNS}",
        ["several hosts cannot be told"],
    ),
    ("ServiceEntry", "{hosts: [a], resolution: static}", ['did you mean "STATIC"?']),
    (
        "ServiceEntry",
        "{hosts: [a], endpoints: [], workloadSelector: {labels: {a: b}}}",
        ["only one of endpoints, workloadSelector"],
    ),
    ("Sidecar", "{}", ["one of egress, ingress"]),
    ("Sidecar", "{egress: [{}]}", ["egress[0].hosts: is required"]),
    ("Sidecar", "{egress: [{hosts: [rating]}]}", ['must be "namespace/host", not "rating"; did you mean "./rating"?']),
    ("Sidecar", "{egress: [{hosts: [./rating]}]}", ["must be a full name"]),
    ("Sidecar", "{egress: [{hosts: ['A/*']}]}", ['the part before / must be "*", "." or a namespace']),
    ("Sidecar", "{egress: [{hosts: ['*/*']}, {hosts: ['./*']}]}", ["egress[0]: a listener without port must be the last"]),
    ("Sidecar", "{outboundTrafficPolicy: {mode: ALLOW}}", ['did you mean "ALLOW_ANY"?']),
    ("Sidecar", "{ingress: [{port: {number: 80}, defaultEndpoint: '10.0.0.1:80'}]}", ["defaultEndpoint: must be 127.0.0.1:PORT"]),
    ("WorkloadEntry", "{}", ["address: is required"]),
    ("WorkloadGroup", "{probe: {}}", ["template: is required", "probe: one of httpGet"]),
    ("PeerAuthentication", "{mtls: {mode: strict}}", ['did you mean "STRICT"?']),
    ("PeerAuthentication", "{portLevelMtls: {'80': {mode: STRICT}}}", ["portLevelMtls: needs a selector"]),
    ("PeerAuthentication", "{portLevelMtls: {true: {mode: STRICT}}}", ["portLevelMtls[True]: a key must be text"]),
    ("PeerAuthentication", "{selector: {matchLabels: {a: b}}, portLevelMtls: {'0': {}}}", ["a port must be from 1 to 65535"]),
    ("RequestAuthentication", "{jwtRules: [{}]}", ["jwtRules[0].issuer: is required"]),
    ("RequestAuthentication", "{jwtRules: [{issuer: ''}]}", ["jwtRules[0].issuer: must not be empty"]),
    ("RequestAuthentication", "{jwtRules: [{issuer: a, jwksUri: 'ftp://x'}]}", ["jwksUri: must be an http"]),
    (
        "RequestAuthentication",
        "{jwtRules: [{issuer: a, outputPayloadToHeader: Host, fromHeaders: [{name: te}]}]}",
        ['fromHeaders[0].name: "te" belongs to the connection\'s', 'outputPayloadToHeader: "Host" belongs to'],
    ),
    (
        "RequestAuthentication",
        "{jwtRules: [{issuer: a, outputClaimToHeaders: [{header: X-Forwarded-Client-Cert, claim: sub}]}]}",
        ['outputClaimToHeaders[0].header: "X-Forwarded-Client-Cert" says which workload calls'],
    ),
    ("RequestAuthentication", "{jwtRules: [{issuer: a, jwks: '{}'}]}", ["jwks: must be a JSON Web Key Set"]),
    (
        "RequestAuthentication",
        '{jwtRules: [{issuer: a, jwks: \'{"keys":[{"kty":"RSA","d":"secret"}]}\'}]}',
        ["holds a private key"],
    ),
    (
        "RequestAuthentication",
        "{jwtRules: [{issuer: a, jwks: x, jwksUri: 'http://a'}]}",
        ["only one of jwksUri, jwks", "it is not JSON"],
    ),
    ("RequestAuthentication", "{targetRefs: [{kind: Pod, name: a}]}", ["targetRefs[0].kind: must be Service"]),
    ("AuthorizationPolicy", "{action: DENY}", ["rules: is required: DENY without rules never applies"]),
    ("AuthorizationPolicy", "{action: CUSTOM, rules: [{}]}", ["provider.name: is required"]),
    ("AuthorizationPolicy", "{provider: {name: a}}", ["provider: goes with action CUSTOM only"]),
    ("AuthorizationPolicy", "{rules: [{from: [{}]}]}", ["rules[0].from[0].source: is required"]),
    ("AuthorizationPolicy", "{rules: [{from: [], to: []}]}", ["rules[0].from: must not be empty", "rules[0].to: must not be"]),
    (
        "AuthorizationPolicy",
        "{rules: [{from: [{source: {serviceAccounts: [a], notNamespaces: [b]}}]}]}",
        ["source: serviceAccounts may not be given together"],
    ),
    (
        "AuthorizationPolicy",
        "{rules: [{from: [{source: {serviceAccounts: [a, b/c, a/b/c, 'd*', /e]}}]}]}",
        ["serviceAccounts[2]: must be an account's name", "serviceAccounts[3]: must be", "serviceAccounts[4]: must be"],
    ),
    (
        "AuthorizationPolicy",
        "{rules: [{when: [{key: source.serviceAccount, values: ['*']}]}]}",
        ["when[0].values[0]: must be an account's name"],
    ),
    (
        "AuthorizationPolicy",
        "{action: CUSTOM, provider: {name: a}, rules: [{from: [{source: {serviceAccounts: [a]}}]}]}",
        ["serviceAccounts: does not go with action CUSTOM"],
    ),
    (
        "AuthorizationPolicy",
        "{action: CUSTOM, provider: {name: a}, rules: [{when: [{key: source.serviceAccount, values: [a]}]}]}",
        ["key: source.serviceAccount does not go with action CUSTOM"],
    ),
    ("AuthorizationPolicy", "{rules: [{from: [{source: {}}]}]}", ["source: must not be empty"]),
    ("AuthorizationPolicy", "{rules: [{from: [{source: {principals: ['']}}]}]}", ["principals[0]: must not be empty"]),
    ("AuthorizationPolicy", "{rules: [{from: [{source: {principals: ['spiffe://a/b']}}]}]}", ["without spiffe://"]),
    ("AuthorizationPolicy", "{rules: [{from: [{source: {notIpBlocks: [10.0.0.0/40]}}]}]}", ["notIpBlocks[0]: must be an IP"]),
    ("AuthorizationPolicy", "{rules: [{to: [{operation: {ports: ['x']}}]}]}", ["ports[0]: must be a port"]),
    ("AuthorizationPolicy", "{rules: [{to: [{operation: {paths: ['/a*b']}}]}]}", ['"*" may only stand first or last']),
    ("AuthorizationPolicy", "{rules: [{to: [{operation: {paths: ['/{*}*']}}]}]}", ["may not be used together"]),
    ("AuthorizationPolicy", "{rules: [{to: [{operation: {paths: ['/{**}/{*}']}}]}]}", ["nothing in braces may follow"]),
    ("AuthorizationPolicy", "{rules: [{to: [{operation: {paths: ['/{a}']}}]}]}", ["only {*} and {**} may stand in braces"]),
    ("AuthorizationPolicy", "{rules: [{when: [{key: source.principle, values: [a]}]}]}", ['did you mean "source.principal"?']),
    ("AuthorizationPolicy", "{rules: [{when: [{key: 'request.auth.claims[a]'}]}]}", ["one of values, notValues is required"]),
    ("AuthorizationPolicy", "{rules: [{when: [{key: source.ip, values: [a]}]}]}", ["values[0]: must be an IP"]),
    ("AuthorizationPolicy", "{selector: {matchLabels: {a: 'b*'}}}", ["wildcards are not supported"]),
    ("AuthorizationPolicy", "{selector: {matchLabels: {a: b}}, targetRef: {kind: Service, name: a}}", ["only one of selector"]),
    ("Telemetry", "{tracing: [{customTags: {a: {}}}]}", ["customTags[a]: one of literal"]),
    ("Telemetry", "{metrics: [{overrides: [{tagOverrides: {a: {}}}]}]}", ["value: is required with operation UPSERT"]),
    ("Telemetry", "{tracing: [{randomSamplingPercentage: 101}]}", ["must be from 0 to 100"]),
    ("ProxyConfig", "{concurrency: -1}", ["concurrency: must not be negative"]),
    ("Service", "{ports: []}", ["ports: is required"]),
    ("Service", "{ports: [{port: 80}, {port: 81}]}", ["ports[0].name: is required", "ports[1].name: is required"]),
    ("Service", "{ports: [{port: 80, targetPort: 1.5}]}", ["targetPort: must be an integer or text, not a number"]),
    ("Service", "{ports: [{port: 80, targetPort: A_b}]}", ["targetPort: must be a port's number or name"]),
    ("Service", "{type: ExternalName}", ["externalName: is required"]),
    ("Pod", "{}", ["containers: is required"]),
    ("Pod", "{containers: [{name: a}, {name: a}]}", ['container name "a" is given twice']),
]


@pytest.mark.parametrize(("kind", "spec", "expected"), OTHERS)
def test_other_kinds(kind: str, spec: str, expected: list[str]) -> None:
    _meets(errors(kind, spec), expected)


def test_every_fault_is_reported_at_once() -> None:
    found = errors(
        "VirtualService",
        "{hosts: ['a b'], http: [{timeout: x, route: [{destination: {host: a}, wieght: 1}, {destination: {host: b}, weight: -1}]}]}",
    )
    assert [line.partition(":")[0] for line in found] == [
        "http[0].route[0].wieght",
        "http[0].timeout",
        "hosts[0]",
        "http[0].route[1].weight",
    ]


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"name": ""}, "metadata.name: is required"),
        ({"name": "Rating"}, "metadata.name: must be lower-case"),
        ({"name": "a" * 254}, "metadata.name"),
        ({"name": "a", "namespace": "a.b"}, "metadata.namespace"),
        ({"name": "a", "labels": {"a": "b c"}}, "metadata.labels[a]"),
        ({"name": "a", "labels": {"-": "b"}}, "metadata.labels"),
        ({"name": "a", "annotations": {"a b": "c"}}, "metadata.annotations"),
        ({"name": "a", "annotations": {"a": 1}}, "metadata.annotations[a]: must be text"),
        ({"name": "a", "annotations": {"a": "x" * 300_000}}, "256 KiB"),
        ({"name": "a", "lables": {}}, 'metadata.lables: unknown field; did you mean "labels"?'),
    ],
)
def test_metadata(meta: dict[str, Any], expected: str) -> None:
    found = [str(e) for e in validate({**obj("Telemetry", "{}"), "metadata": meta}).errors]
    assert len(found) == 1
    assert expected in found[0]


def test_names_that_become_hosts_hold_no_dots() -> None:
    assert errors("Service", "{ports: [{port: 1}]}", name="a.b") != []
    assert errors("Gateway", VALID["Gateway"][0], name="a.b") != []
    assert errors("Service", "{ports: [{port: 1}]}", name="1a") != []
    assert errors("Telemetry", "{}", name="a.b") == []


def test_kubernetes_nulls_are_taken_where_kubernetes_writes_them() -> None:
    found = obj("Telemetry", "{}") | {"status": None}
    found["metadata"] |= {"creationTimestamp": None, "labels": None, "managedFields": [{"manager": "x"}]}
    assert validate(found).errors == ()
    decode(found)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ({}, "apiVersion and kind must be given"),
        ({"apiVersion": "v1", "kind": "Nope"}, 'no kind "Nope" in apiVersion "v1"'),
        ({"apiVersion": "networking.istio.io/v2", "kind": "Gateway"}, "it is served as networking.istio.io/v1, networking"),
        ({"apiVersion": 1, "kind": []}, "apiVersion and kind must be given"),
    ],
)
def test_unknown_kinds(head: dict[str, Any], expected: str) -> None:
    assert expected in str(validate({"metadata": {"name": "a"}, **head}).errors[0])
    with pytest.raises(Invalid, match=expected.partition('"')[0]):
        decode({"metadata": {"name": "a"}, **head})


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha3"])
def test_every_served_version_is_the_same(version: str) -> None:
    found = obj("VirtualService", VALID["VirtualService"][0]) | {"apiVersion": f"networking.istio.io/{version}"}
    assert validate(found).errors == ()


def test_decode_says_where() -> None:
    with pytest.raises(Invalid, match=r'^spec\.http\[0\]\.rout: unknown field; did you mean "route"\?$'):
        decode(obj("VirtualService", http("rout: []")))


def test_a_secret_is_not_shown() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"key": "hunter2!"}}
    assert [str(e) for e in validate(secret).errors] == ["data[key]: must be base64"]
    good = decode(secret | {"data": {"key": "aHVudGVyMg=="}})
    assert "aHVudGVyMg" not in repr(good) + str(good)


WARNINGS = [
    (
        "VirtualService",
        http("route: [{destination: {host: a}}], match: [{uri: {prefix: a}}]"),
        "spec.http[0].match[0].uri: never matches",
    ),
    ("VirtualService", http("route: [{destination: {host: a}}], fault: {abort: {httpStatus: 500}}"), "abort: never happens"),
    (
        "VirtualService",
        http("route: [{destination: {host: a}, weight: 1}, {destination: {host: b}}]"),
        "route[1]: gets no traffic",
    ),
    ("DestinationRule", "{host: a, trafficPolicy: {outlierDetection: {consecutiveErrors: 1}}}", "is deprecated"),
    ("ServiceEntry", "{hosts: [a], ports: [{number: 1, name: a}], resolution: STATIC}", "endpoints: is empty"),
    ("Sidecar", "{egress: [{hosts: ['*/*', './*']}]}", "selects everything"),
    ("PeerAuthentication", "{selector: {}}", "selects every workload"),
]


@pytest.mark.parametrize(("kind", "spec", "expected"), WARNINGS)
def test_warnings(kind: str, spec: str, expected: str) -> None:
    assert errors(kind, spec) == []
    assert any(expected in w for w in warnings(kind, spec))


@pytest.mark.parametrize("kind", ["AuthorizationPolicy", "RequestAuthentication"])
def test_targets_of_waypoints_are_in_force_nowhere(kind: str) -> None:
    gateway = "{group: gateway.networking.k8s.io, kind: Gateway, name: a}"
    assert warnings(kind, f"{{targetRef: {gateway}}}") == []
    (told,) = warnings(kind, f"{{targetRefs: [{gateway}, {{kind: Service, name: a}}]}}")
    assert told.startswith("spec.targetRefs[1]: is in force nowhere: a Service is a target for waypoints only")
