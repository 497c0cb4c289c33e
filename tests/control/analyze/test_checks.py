"""Every check: a world that it speaks about, and the same world mended, about which it is silent.

A table row is a code, what must be in the message, the objects that are wrong, and what replaces them when put right.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any, NamedTuple

import pytest
import yaml

from control.analyze import CHECKS, CODES, Finding, Scene, analyze
from control.analyze.scene import Facts
from tests.certs import DAY, Authority

Obj = dict[str, Any]

BASE = """
apiVersion: v1
kind: Service
metadata: {name: rating, namespace: default}
spec: {selector: {app: rating}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: rating-1, namespace: default, labels: {app: rating, version: v1}}
spec: {containers: [{name: app}, {name: istio-proxy}]}
---
apiVersion: v1
kind: Pod
metadata: {name: rating-2, namespace: default, labels: {app: rating, version: v2}}
spec: {containers: [{name: app}, {name: istio-proxy}]}
---
apiVersion: v1
kind: Pod
metadata: {name: edge, namespace: istio-system, labels: {istio: ingressgateway, app: edge}}
spec: {containers: [{name: istio-proxy}]}
"""


def load(text: str) -> list[Obj]:
    found = [doc for doc in yaml.safe_load_all(text) if doc]
    for doc in found:
        if isinstance(doc.get("metadata"), dict) and doc["kind"] != "Namespace":
            doc["metadata"].setdefault("namespace", "default")
        if doc["kind"] == "Pod":
            doc.setdefault("status", {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]})
    return found


def vs(http: str, name: str = "rating", hosts: str = "[rating]", more: str = "", created: str = "") -> str:
    stamp = f', creationTimestamp: "{created}"' if created else ""
    return f"""
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}{stamp}}}
spec:
  hosts: {hosts}
  {more}
  http: {http}
"""


def dr(spec: str, name: str = "rating", created: str = "") -> str:
    stamp = f', creationTimestamp: "{created}"' if created else ""
    return f"""
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}{stamp}}}
spec: {spec}
"""


def gw(
    name: str = "gw", hosts: str = "[shop.example.com]", port: int = 80, tls: str = "", selector: str = "{istio: ingressgateway}"
) -> str:
    return f"""
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: {name}}}
spec:
  selector: {selector}
  servers: [{{port: {{number: {port}, name: p, protocol: HTTP}}, hosts: {hosts}{tls}}}]
"""


def obj(kind: str, name: str, spec: str, version: str = "networking.istio.io/v1", namespace: str = "default") -> str:
    return f"""
---
apiVersion: {version}
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}}}
spec: {spec}
"""


def namespace(labels: str = "{}", name: str = "default") -> str:
    return f"\n---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {labels}}}}}\n"


def edge_service(port: int) -> str:
    spec = f"{{selector: {{app: edge}}, ports: [{{name: http, port: {port}}}]}}"
    return obj("Service", "edge", spec, version="v1", namespace="istio-system")


TO = "route: [{destination: {host: rating}}]"
V1 = "route: [{destination: {host: rating, subset: v1}}]"
SUBSETS = "{host: rating, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}"
SECURITY = "security.istio.io/v1"
JWT = "{jwtRules: [{issuer: x, jwksUri: 'http://x/'}]"
BARE = "\n---\n{apiVersion: v1, kind: Pod, metadata: {name: bare}, spec: {containers: [{name: app}]}}\n"
CLAIM = vs(
    "[{match: [{headers: {'@request.auth.claims.role': {exact: x}}}], " + TO + "}]",
    hosts="[shop.example.com]",
    more="gateways: [gw]",
)
MULTI = obj(
    "Service", "multi", "{selector: {app: rating}, ports: [{name: http-a, port: 80}, {name: http-b, port: 81}]}", version="v1"
)
OUTLIER = "{host: rating, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1, maxEjectionPercent: %d}}}"
SIDECAR = "{workloadSelector: {labels: {%s}}, egress: [{hosts: ['*/*']}]}"
DELEGATE = "[{delegate: {name: other}}]"


class Row(NamedTuple):
    code: str
    says: str
    bad: str
    good: str
    live: bool = False
    facts: Facts = Facts()  # of the wrong form; the mended one has none


TELEMETRY = "telemetry.istio.io/v1"
MESH = """
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - {name: als, envoyHttpAls: {service: x, port: 1}}
    - {name: mine, envoyFileAccessLog: {path: /a}}
"""


def seen(spec: str, name: str = "t", created: str = "") -> str:
    made = obj("Telemetry", name, spec, TELEMETRY)
    return made.replace(f"name: {name},", f'name: {name}, creationTimestamp: "{created}",') if created else made


def policy(rules: str, name: str = "p", action: str = "ALLOW", more: str = "") -> str:
    return obj("AuthorizationPolicy", name, f"{{action: {action}, {more} rules: {rules}}}", SECURITY)


def peer(spec: str, name: str = "pa", namespace: str = "default", created: str = "2026-01-01T00:00:00Z") -> str:
    return obj("PeerAuthentication", name, spec, SECURITY, namespace).replace(
        f"namespace: {namespace}}}", f'namespace: {namespace}, creationTimestamp: "{created}"}}'
    )


CHOSEN = "workloadSelector: {matchLabels: {app: rating}}"
STRICT, DISABLE = "{mtls: {mode: STRICT}}", "{mtls: {mode: DISABLE}}"
MESHED = """
---
{apiVersion: v1, kind: Pod, metadata: {name: rating-3, labels: {app: rating, security.istio.io/tlsMode: istio}},
  spec: {containers: [{name: app}]}}
"""
PRINCIPAL = policy("[{from: [{source: {principals: [cluster.local/ns/default/sa/book]}}]}]")
CLAIMS = policy("[{when: [{key: 'request.auth.claims[role]', values: [x]}]}]")
REQUESTS = obj("RequestAuthentication", "ra", "{jwtRules: [{issuer: x, jwksUri: 'http://x/'}]}", SECURITY)
KEYS = {"location": "http://x/", "askedBy": ["RequestAuthentication default/ra jwtRules[0]"], "usable": False, "error": "404"}


def called(mtls: str, how: str, source: str = "") -> Facts:
    caller = {"how": how, "source": "10.9.9.9", "workload": "old", "namespace": "shop", "requests": 3, "seen": 1.0}
    listener = {"name": "inbound|8080", "port": 8080, "mtls": mtls, "source": source, "callers": [caller]}
    return Facts(callers=({"namespace": "default", "pod": "rating-1", "workload": "rating", "listeners": [listener]},))


BYTES = obj("Service", "db", "{selector: {app: rating}, ports: [{name: tcp, port: 5432}, {name: tls, port: 443}]}", version="v1")
PATHS = "[{to: [{operation: {paths: [/a], ports: ['%d']}}]}]"
NATS = "{selector: {app: rating}, ports: [{%s port: 4222}]}"
OUTSIDE = "{hosts: [%s.example], ports: [{number: 5432, name: p, protocol: TCP}], resolution: DNS%s}"

TABLE = [
    Row("MESH0024", "paths is of HTTP, but port 5432", policy(PATHS % 5432) + BYTES, policy(PATHS % 8080) + BYTES),
    Row(
        "MESH0024",
        "denies more there",
        policy("[{when: [{key: 'request.headers[a]', values: [b]}]}]", action="DENY") + BYTES,
        policy("[{from: [{source: {namespaces: [a]}}]}]", action="DENY") + BYTES,
    ),
    Row(
        "MESH0025",
        "port 4222 is usual for a server that speaks first",
        obj("Service", "q", NATS % "", version="v1"),
        obj("Service", "q", NATS % "name: tcp,", version="v1"),
    ),
    Row(
        "MESH0026",
        '"b.example" has no address on port 5432, and so has "a.example"',
        obj("ServiceEntry", "a", OUTSIDE % ("a", "")) + obj("ServiceEntry", "b", OUTSIDE % ("b", "")),
        obj("ServiceEntry", "a", OUTSIDE % ("a", "")) + obj("ServiceEntry", "b", OUTSIDE % ("b", ", addresses: [240.0.0.1]")),
    ),
    Row(
        "MESH0027",
        'tcp rules are for ports that are bytes, and "rating.default.svc.cluster.local" has none',
        obj("VirtualService", "t", "{hosts: [rating], tcp: [{" + TO + "}]}"),
        obj("VirtualService", "t", "{hosts: [db], tcp: [{" + TO + "}]}") + BYTES,
    ),
    Row("MESH0011", "switched off for default/rating-1", PRINCIPAL + peer(DISABLE), PRINCIPAL + peer(STRICT)),
    Row(
        "MESH0011",
        "it holds for every request there",
        PRINCIPAL.replace("principals", "notNamespaces") + peer(DISABLE),
        PRINCIPAL,
    ),
    Row("MESH0011", "shop/old calls in plaintext", PRINCIPAL, PRINCIPAL, live=True, facts=called("PERMISSIVE", "plaintext")),
    Row("MESH0012", "request.auth.claims[role]", CLAIMS, CLAIMS + REQUESTS),
    Row(
        "MESH0012",
        "spec.rules[0].from[0].source.notRequestPrincipals",
        policy("[{from: [{source: {notRequestPrincipals: ['*']}}]}]", action="DENY"),
        policy("[{from: [{source: {notRequestPrincipals: ['*']}}]}]", action="DENY") + REQUESTS,
    ),
    Row("MESH0013", "allows nothing", policy("[]"), policy("[{}]")),
    Row("MESH0014", "lets a request without a token pass", REQUESTS, REQUESTS + CLAIMS),
    Row(
        "MESH0015",
        "STRICT refuses shop/old, who called default/rating in plaintext",
        peer(STRICT) + MESHED,
        peer(STRICT),
        live=True,
        facts=called("STRICT", "refused", "PeerAuthentication default/pa"),
    ),
    Row("MESH0015", "such as default/bare", peer(STRICT) + BARE, peer("{mtls: {mode: PERMISSIVE}}") + BARE),
    Row(
        "IST0160",
        "Telemetry ta speaks for the whole of namespace default already",
        seen("{}", "ta") + seen("{}", "tb", "2026-02-01T00:00:00Z"),
        seen("{}", "ta") + seen("{selector: {matchLabels: {app: rating}}}", "tb", "2026-02-01T00:00:00Z"),
    ),
    Row(
        "IST0159",
        "Telemetry ta selects the same workload pod rating-1",
        seen("{selector: {matchLabels: {app: rating}}}", "ta")
        + seen("{selector: {matchLabels: {version: v1}}}", "tb", "2026-02-01T00:00:00Z"),
        seen("{selector: {matchLabels: {version: v2}}}", "ta")
        + seen("{selector: {matchLabels: {version: v1}}}", "tb", "2026-02-01T00:00:00Z"),
    ),
    Row(
        "IST0101",
        'spec.tracing[0].providers[0].name: Referenced provider not found: "otel"; add it to MeshConfig',
        seen("{tracing: [{providers: [{name: otel}]}]}"),
        seen("{tracing: [{randomSamplingPercentage: 5}]}"),
        live=True,
    ),
    Row(
        "IST0101",
        'spec.metrics[0].providers[1].name: Referenced provider not found: "datadog"',
        seen("{metrics: [{providers: [{name: prometheus}, {name: datadog}]}]}"),
        seen("{metrics: [{providers: [{name: prometheus}]}]}"),
        live=True,
    ),
    Row(
        "IST0101",
        '"als" is envoyHttpAls, to which nothing can be sent',
        MESH + seen("{accessLogging: [{providers: [{name: als}]}]}"),
        MESH + seen("{accessLogging: [{providers: [{name: mine}]}]}"),
    ),
    Row(
        "IST0157",
        "spec.accessLogging[0].providers: There is no provider",
        seen("{accessLogging: [{filter: {expression: 'response.code >= 400'}}]}"),
        seen("{accessLogging: [{providers: [{name: envoy}]}]}"),
        live=True,
    ),
    Row(
        "IST0127",
        "app=rating",
        obj("Telemetry", "t", "{selector: {matchLabels: {app: rating}}}", TELEMETRY, "istio-system"),
        seen("{selector: {matchLabels: {app: rating}}}"),
    ),
    Row("MESH0016", 'no extension provider "opa"', policy("[{}]", action="CUSTOM", more="provider: {name: opa},"), "", live=True),
    Row("MESH0017", "http://x/ could not be fetched", REQUESTS, REQUESTS, live=True, facts=Facts(keys=(KEYS,))),
    Row("MESH0018", '"other.org" is no trust domain', PRINCIPAL.replace("cluster.local", "other.org"), PRINCIPAL),
    Row("MESH0018", "spec.rules[0].when[0]", policy("[{when: [{key: source.principal, values: [a.b/ns/c/sa/d]}]}]"), PRINCIPAL),
    Row(
        "MESH0019",
        "default/pa speaks for the whole",
        peer(STRICT) + peer(DISABLE, "pb", created="2026-02-01T00:00:00Z"),
        peer(STRICT),
    ),
    Row(
        "MESH0019",
        "selects pod rating-1 too",
        peer("{selector: {matchLabels: {app: rating}}}")
        + peer("{selector: {matchLabels: {version: v1}}}", "pb", created="2026-02-01T00:00:00Z"),
        peer("{selector: {matchLabels: {version: v2}}}") + peer("{selector: {matchLabels: {version: v1}}}", "pb"),
    ),
    Row(
        "MESH0020",
        "no . or .. is left",
        policy("[{to: [{operation: {paths: [/a/../b]}}]}]"),
        policy("[{to: [{operation: {paths: [/b]}}]}]"),
    ),
    Row(
        "MESH0020",
        "begins with /",
        policy("[{to: [{operation: {notPaths: [b]}}]}]"),
        policy("[{to: [{operation: {notPaths: ['*b']}}]}]"),
    ),
    Row(
        "MESH0020",
        "without the query",
        policy("[{to: [{operation: {paths: ['/b?x=1']}}]}]"),
        policy("[{to: [{operation: {paths: [/b]}}]}]"),
    ),
    Row(
        "MESH0021",
        "does not match /admin itself",
        policy("[{to: [{operation: {paths: [/admin/*]}}]}]", action="DENY"),
        policy("[{to: [{operation: {paths: [/admin, /admin/*]}}]}]", action="DENY"),
    ),
    Row(
        "MESH0022",
        'rules[0].to[0].operation.methods[0]: "get" never matches: methods are compared as they are; write GET',
        policy("[{to: [{operation: {methods: [get]}}]}]"),
        policy("[{to: [{operation: {methods: [GET]}}]}]"),
    ),
    Row(
        "MESH0023",
        "trafficPolicy.tls.credentialName: only gateways get it",
        dr("{host: rating, trafficPolicy: {tls: {mode: SIMPLE, credentialName: ca}}}"),
        dr("{host: rating, trafficPolicy: {tls: {mode: SIMPLE, credentialName: ca}}, " + CHOSEN + "}"),
    ),
    Row(
        "IST0101",
        'subsets[0].trafficPolicy.tls.credentialName: Referenced credentialName not found: "ca"; make a Secret',
        dr("{host: rating, subsets: [{name: v, trafficPolicy: {tls: {mode: SIMPLE, credentialName: ca}}}], " + CHOSEN + "}"),
        dr("{host: rating, trafficPolicy: {tls: {mode: SIMPLE}}, " + CHOSEN + "}"),
        live=True,
    ),
    Row(
        "IST0113",
        "default/rating-3 port 8080 demands",
        dr("{host: rating, trafficPolicy: {tls: {mode: DISABLE}}}") + peer(STRICT) + MESHED,
        dr("{host: rating, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}").replace("mode: ISTIO_MUTUAL", "mode: DISABLE") + MESHED,
    ),
    Row(
        "IST0113",
        "no sidecar stands beside default/rating-1",
        dr("{host: rating, subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}]}"),
        dr("{host: rating, subsets: [{name: v1, labels: {version: v1}}]}"),
    ),
    Row(
        "IST0113",
        "portLevelSettings[0].tls.mode",
        dr("{host: rating, trafficPolicy: {portLevelSettings: [{port: {number: 8080}, tls: {mode: ISTIO_MUTUAL}}]}}"),
        dr("{host: rating, trafficPolicy: {portLevelSettings: [{port: {number: 81}, tls: {mode: ISTIO_MUTUAL}}]}}"),
    ),
    Row("IST0106", "spec.http[0].timeout", vs(f"[{{timeout: 5, {TO}}}]"), vs(f"[{{timeout: 5s, {TO}}}]")),
    Row("IST0106", 'did you mean "subset"', vs("[{route: [{destination: {host: rating, subsett: v1}}]}]"), vs(f"[{{{TO}}}]")),
    Row("IST0106", "no kind", obj("VirtualServise", "x", "{}"), ""),
    Row(
        "IST0133",
        "never matches",
        vs(f"[{{match: [{{uri: {{exact: rate}}}}], {TO}}}]"),
        vs(f"[{{match: [{{uri: {{exact: /rate}}}}], {TO}}}]"),
    ),
    Row(
        "IST0002",
        "mirrorPercentage.value",
        vs(f"[{{mirror: {{host: rating}}, mirrorPercent: 5, {TO}}}]"),
        vs(f"[{{mirror: {{host: rating}}, mirrorPercentage: {{value: 5}}, {TO}}}]"),
    ),
    Row(
        "MESH0006",
        "not honoured yet",
        dr("{host: rating, trafficPolicy: {loadBalancer: {simple: RANDOM, warmupDurationSecs: 5s}}}"),
        dr("{host: rating}"),
    ),
    Row("MESH0006", "meshctl run", obj("Deployment", "d", "{}", version="apps/v1"), "", live=True),
    Row("MESH0010", "2 times", dr("{host: rating}") + dr("{host: rating}"), dr("{host: rating}")),
    Row("IST0101", '"default/gateway"', vs(f"[{{{TO}}}]", more="gateways: [gateway]") + gw(hosts="[rating]"), vs(f"[{{{TO}}}]")),
    Row(
        "IST0101",
        "match[0].gateways[0]",
        vs(f"[{{match: [{{gateways: [other]}}], {TO}}}]"),
        vs(f"[{{match: [{{gateways: [mesh]}}], {TO}}}]"),
    ),
    Row("IST0101", 'did you mean "rating.', vs("[{route: [{destination: {host: ratings}}]}]"), vs(f"[{{{TO}}}]")),
    Row("IST0101", "mirrors[0]", vs(f"[{{mirrors: [{{destination: {{host: gone}}}}], {TO}}}]"), vs(f"[{{{TO}}}]")),
    Row(
        "IST0101",
        "not exported",
        vs(f"[{{{TO}}}]", hosts="[x.org]")
        .replace("name: rating}", "name: v, namespace: other}")
        .replace("host: rating", "host: hidden.default.svc.cluster.local")
        + obj(
            "ServiceEntry",
            "h",
            "{hosts: [hidden.default.svc.cluster.local], exportTo: ['.'], ports: [{number: 80, name: http}], resolution: DNS}",
        ),
        "",
    ),
    Row(
        "IST0101",
        'rating+v3"; there are v1, v2',
        vs(f"[{{{V1.replace('v1', 'v3')}}}]") + dr(SUBSETS),
        vs(f"[{{{V1}}}]") + dr(SUBSETS),
    ),
    Row("IST0101", "give a DestinationRule", vs(f"[{{{V1}}}]"), vs(f"[{{{V1}}}]") + dr(SUBSETS)),
    Row(
        "IST0101",
        "has no port 9090, only 8080",
        vs("[{route: [{destination: {host: rating, port: {number: 9090}}}]}]"),
        vs("[{route: [{destination: {host: rating, port: {number: 8080}}}]}]"),
    ),
    Row("IST0101", "delegate", vs(DELEGATE), vs(DELEGATE) + vs(f"[{{{TO}}}]", name="other", hosts="[]")),
    Row(
        "IST0101",
        "namespace istio-system",
        gw(tls=", tls: {mode: SIMPLE, credentialName: cert}").replace("HTTP", "HTTPS"),
        gw(tls=", tls: {mode: SIMPLE, credentialName: cert}").replace("HTTP", "HTTPS")
        + "\n---\n{apiVersion: v1, kind: Secret, metadata: {name: cert, namespace: istio-system}}\n",
        live=True,
    ),
    Row(
        "IST0161",
        "Secret istio-system/cert: holds neither a certificate (tls.crt and tls.key) nor a CA (ca.crt)",
        gw(tls=", tls: {mode: SIMPLE, credentialName: cert}").replace("HTTP", "HTTPS")
        + "\n---\n{apiVersion: v1, kind: Secret, metadata: {name: cert, namespace: istio-system}}\n",
        gw(tls=", tls: {mode: SIMPLE, credentialName: cert}").replace("HTTP", "HTTPS"),
    ),
    Row("IST0101", "istio=nobody", gw(selector="{istio: nobody}"), gw()),
    Row(
        "IST0112",
        "(80, 81)",
        vs("[{route: [{destination: {host: multi}}]}]") + MULTI,
        vs("[{route: [{destination: {host: multi, port: {number: 81}}}]}]") + MULTI,
    ),
    Row(
        "IST0109",
        "VirtualService default/older speaks for",
        vs(f"[{{{TO}}}]", created="2026-02-01T00:00:00Z") + vs(f"[{{{TO}}}]", name="older", created="2026-01-01T00:00:00Z"),
        vs(f"[{{{TO}}}]") + vs(f"[{{{TO}}}]", name="older", hosts="[shop.example.com]", more="gateways: [gw]") + gw(),
    ),
    Row(
        "IST0132",
        '"shop.org"',
        vs(f"[{{{TO}}}]", hosts="[shop.org]", more="gateways: [gw]") + gw(),
        vs(f"[{{{TO}}}]", hosts="[shop.example.com]", more="gateways: [gw]") + gw(hosts="['*.example.com']"),
    ),
    Row(
        "IST0132",
        "not found in Gateway",
        vs(f"[{{{TO}}}]", hosts="[shop.org]", more="gateways: [gw]") + gw(hosts="[other/shop.org]"),
        vs(f"[{{{TO}}}]", hosts="[shop.org]", more="gateways: [gw]") + gw(hosts="[./shop.org]"),
    ),
    Row("MESH0009", '"ratting"', vs(f"[{{{TO}}}]", hosts="[ratting]"), vs(f"[{{{TO}}}]", hosts="[rating, api.example.com]")),
    Row(
        "IST0130",
        "http[1] not used: http[0] takes",
        vs(f"[{{{TO}}}, {{match: [{{uri: {{prefix: /a}}}}], {TO}}}]"),
        vs(f"[{{match: [{{uri: {{prefix: /a}}}}], {TO}}}, {{{TO}}}]"),
    ),
    Row(
        "IST0131",
        "match is not used: http[0].match[0]",
        vs(f"[{{match: [{{uri: {{prefix: /a}}}}], {TO}}}, {{match: [{{uri: {{exact: /ab}}}}, {{uri: {{exact: /b}}}}], {TO}}}]"),
        vs(f"[{{match: [{{uri: {{prefix: /a}}}}], {TO}}}, {{match: [{{uri: {{exact: /b}}}}], {TO}}}]"),
    ),
    Row(
        "MESH0003",
        "at most 1s",
        vs(f"[{{timeout: 3s, retries: {{attempts: 2, perTryTimeout: 3s, retryOn: 5xx}}, {TO}}}]"),
        vs(f"[{{timeout: 3s, retries: {{attempts: 2, perTryTimeout: 1s, retryOn: 5xx}}, {TO}}}]"),
    ),
    Row(
        "MESH0004",
        "fault.abort",
        vs(f"[{{fault: {{abort: {{httpStatus: 503}}}}, {TO}}}]"),
        vs(f"[{{fault: {{abort: {{httpStatus: 503, percentage: {{value: 1}}}}}}, {TO}}}]"),
    ),
    Row(
        "MESH0004",
        "fault.delay",
        vs(f"[{{fault: {{delay: {{fixedDelay: 1s, percentage: {{value: 0}}}}}}, {TO}}}]"),
        vs(f"[{{fault: {{delay: {{fixedDelay: 1s, percent: 1}}}}, {TO}}}]"),
    ),
    Row(
        "MESH0002",
        "one endpoint only",
        vs(f"[{{retries: {{attempts: 2}}, {V1}}}]") + dr(SUBSETS),
        vs(f"[{{retries: {{attempts: 2}}, {TO}}}]"),
    ),
    Row(
        "MESH0005",
        'subset "v1"',
        vs(f"[{{{V1}}}]") + dr(SUBSETS.replace("{version: v1}", "{version: v9}")),
        vs(f"[{{{V1}}}]") + dr(SUBSETS),
    ),
    Row(
        "MESH0007",
        "has no pods",
        vs("[{route: [{destination: {host: idle}}]}]")
        + obj("Service", "idle", "{selector: {app: idle}, ports: [{name: http, port: 80}]}", version="v1"),
        vs(f"[{{{TO}}}]"),
    ),
    Row("IST0174", 'did you mean "rating.', dr("{host: ratin}"), dr("{host: rating}")),
    Row("IST0174", "until there is such a service", dr("{host: api.example.com}"), dr("{host: '*.default.svc.cluster.local'}")),
    Row("IST0173", "version is v1, v2 on the pods, not v9", dr(SUBSETS.replace("version: v1", "version: v9")), dr(SUBSETS)),
    Row(
        "IST0173",
        "did you mean version?",
        dr("{host: rating, subsets: [{name: a, labels: {versoin: v1}}]}"),
        dr("{host: rating, subsets: [{name: a, labels: {version: v1}}]}"),
    ),
    Row(
        "MESH0008",
        "spec.trafficPolicy",
        dr("{host: rating, trafficPolicy: {loadBalancer: {simple: RANDOM}}}", name="older", created="2026-01-01T00:00:00Z")
        + dr("{host: rating, trafficPolicy: {loadBalancer: {simple: RANDOM}}}", created="2026-01-02T00:00:00Z"),
        dr("{host: rating, trafficPolicy: {loadBalancer: {simple: RANDOM}}}", name="older") + dr(SUBSETS),
    ),
    Row("MESH0008", 'subset "v1"', dr(SUBSETS, name="older") + dr(SUBSETS), dr(SUBSETS)),
    Row("MESH0001", "at least 50", dr(OUTLIER % 49), dr(OUTLIER % 50)),
    Row("MESH0001", "(the default)", dr(OUTLIER.replace(", maxEjectionPercent: %d", "")), dr("{host: rating}")),
    Row(
        "MESH0001",
        'subset "v1"',
        dr(SUBSETS.replace("host: rating,", "host: rating, trafficPolicy: {outlierDetection: {maxEjectionPercent: 50}},"))
        + vs(f"[{{{V1}}}]"),
        dr(OUTLIER % 100) + vs(f"[{{{TO}}}]"),
    ),
    Row(
        "IST0145",
        "default/gw (workload selector istio=ingressgateway, port 80",
        gw() + gw(name="z"),
        gw() + gw(name="z", port=81),
    ),
    Row("IST0162", "port 81", gw(port=81) + edge_service(80), gw(port=81) + edge_service(81)),
    Row(
        "IST0149",
        "@request.auth.claims.role",
        CLAIM + gw(),
        CLAIM + gw() + obj("RequestAuthentication", "ra", JWT + "}", SECURITY, "istio-system"),
    ),
    Row(
        "IST0118",
        "port: 90",
        obj("Service", "s", "{selector: {app: rating}, ports: [{name: web, port: 90}]}", version="v1"),
        obj("Service", "s", "{selector: {app: rating}, ports: [{name: web, port: 90, appProtocol: http}]}", version="v1"),
    ),
    Row(
        "IST0111",
        "Sidecar a speaks for the whole",
        obj("Sidecar", "a", "{egress: [{hosts: ['*/*']}]}") + obj("Sidecar", "b", "{egress: [{hosts: ['./*']}]}"),
        obj("Sidecar", "a", "{egress: [{hosts: ['*/*']}]}"),
    ),
    Row(
        "IST0110",
        "Sidecar a selects the same workload pod rating-1",
        obj("Sidecar", "a", SIDECAR % "app: rating") + obj("Sidecar", "b", SIDECAR % "version: v1"),
        obj("Sidecar", "a", SIDECAR % "version: v2") + obj("Sidecar", "b", SIDECAR % "version: v1"),
    ),
    Row(
        "IST0127",
        "app=nobody",
        obj("AuthorizationPolicy", "p", "{selector: {matchLabels: {app: nobody}}}", SECURITY),
        obj("AuthorizationPolicy", "p", "{selector: {matchLabels: {app: rating}}}", SECURITY),
    ),
    Row(
        "IST0127",
        "spec.workloadSelector",
        obj("Sidecar", "a", SIDECAR % "app: nobody"),
        obj("Sidecar", "a", SIDECAR % "app: rating"),
    ),
    Row("IST0102", "kubectl label namespace default", namespace() + BARE, namespace("{istio-injection: disabled}") + BARE),
    Row(
        "IST0103",
        "pod bare is missing",
        namespace("{istio-injection: enabled}") + BARE,
        namespace("{istio-injection: enabled}") + BARE.replace("name: app", "name: istio-proxy"),
        live=True,
    ),
    Row(
        "IST0123",
        "both labels",
        namespace("{istio-injection: enabled, istio.io/rev: x}"),
        namespace("{istio-injection: enabled}"),
    ),
]


def judged(text: str, live: bool = False, facts: Facts = Facts()) -> list[Finding]:
    return list(analyze(Scene.of(load(BASE) + load(text), live=live, facts=facts)))


@pytest.mark.parametrize("row", TABLE, ids=[f"{number}-{row.code}" for number, row in enumerate(TABLE)])
def test_the_mistake_is_found_and_the_mended_form_is_not(row: Row) -> None:
    found = [one for one in judged(row.bad, row.live, row.facts) if one.code == row.code]
    lines = [one.line() for one in found]
    assert any(row.says in line for line in lines), lines or [one.line() for one in judged(row.bad, row.live, row.facts)]
    assert all("\n" not in line and one.subject.name for line, one in zip(lines, found, strict=True))
    assert [one.line() for one in judged(row.good, row.live) if one.code == row.code and row.says in one.line()] == []


def test_every_code_and_every_check_has_a_row() -> None:
    assert {row.code for row in TABLE} == set(CODES)
    given = {code for check in CHECKS for code in check.codes}
    assert given == set(CODES)


def test_the_base_is_sound() -> None:
    assert judged("") == []
    assert judged("", live=True) == []


def test_files_without_pods_are_not_blamed_for_it() -> None:
    text = BASE.split("---")[0] + dr(SUBSETS) + vs(f"[{{{V1}}}]") + gw() + dr(OUTLIER % 10, name="o")
    codes = {one.code for one in analyze(Scene.of(load(text)))}
    assert codes.isdisjoint({"IST0173", "MESH0001", "MESH0005", "MESH0007", "IST0101", "IST0127"})
    live = {one.code for one in analyze(Scene.of(load(text), live=True))}
    assert {"IST0173", "MESH0005", "MESH0007", "IST0101"} & live == {"IST0173", "MESH0007", "IST0101"}


def test_the_usual_gateways_need_not_be_in_the_files() -> None:
    text = BASE.replace("istio: ingressgateway", "istio: other") + gw()
    assert [one.line() for one in analyze(Scene.of(load(text)))] == []
    assert [one.code for one in analyze(Scene.of(load(text), live=True))] == ["IST0101"]


@pytest.mark.parametrize(("days", "level"), [(29.5, "Warning"), (31.0, ""), (-1.0, "Error")])
def test_a_gateways_certificate_that_soon_expires(days: float, level: str) -> None:
    pair = Authority().issue(dns=("shop.example.com",), ends=90 * DAY)
    data = {name: b64encode(value).decode() for name, value in (("tls.crt", pair.certificate), ("tls.key", pair.key))}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cert", "namespace": "istio-system"}, "data": data}
    text = gw(tls=", tls: {mode: SIMPLE, credentialName: cert}").replace("HTTP", "HTTPS")
    scene = Scene.of([*load(BASE), *load(text), secret], live=True, facts=Facts(wall=pair.expires - days * DAY))
    found = [one for one in analyze(scene) if one.code == "IST0161"]
    assert [one.level for one in found] == ([level] if level else [])
    assert not found or ("in 29 days" in found[0].message if days > 0 else "has expired" in found[0].message)
