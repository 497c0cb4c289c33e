"""VirtualService.http, black box: matching, order, weights, subsets and actions, through a sidecar (semantics A1, B4, B9).

One table: each row is a service of its own with a VirtualService, and requests with what must come of them. All rows' resources
are applied at once, with the real kubectl.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.semantics_support import Answer, Mesh, Obj, destination_rule, service, virtual_service

pytestmark = [pytest.mark.system("kubectl"), pytest.mark.timeout(120)]

V1, V2 = "{destination: {host: echo, subset: v1}}", "{destination: {host: echo, subset: v2}}"
TO_V1, TO_V2 = f"route: [{V1}]", f"route: [{V2}]"


@dataclass
class Case:
    """``asks``: (path, options of ``Proxy.ask``, what is expected: a pod, a status, or a dict of checks)."""

    name: str
    rules: str
    asks: list[tuple[str, dict[str, Any], Any]]
    spec: dict[str, Any] | None = None


def matched(name: str, match: str, *asks: tuple[str, dict[str, Any], str]) -> Case:
    """Requests that match go to v1, others to v2."""
    return Case(name, f"[{{match: {match}, {TO_V1}}}, {{{TO_V2}}}]", list(asks))


def acting(name: str, action: str, *asks: tuple[str, dict[str, Any], Any]) -> Case:
    return Case(name, f"[{action}]", list(asks))


def h(**headers: str) -> dict[str, Any]:
    return {"headers": [(name.replace("_", "-"), value) for name, value in headers.items()]}


MATCHES = [
    matched("uri-exact", "[{uri: {exact: /a}}]", ("/a", {}, "v1"), ("/a?q=1", {}, "v1"), ("/a/", {}, "v2"), ("/A", {}, "v2")),
    matched(
        "uri-prefix",
        "[{uri: {prefix: /api}}]",
        ("/api", {}, "v1"),
        ("/apix/y", {}, "v1"),
        ("/x/api", {}, "v2"),
        ("/API", {}, "v2"),
    ),
    matched(
        "uri-regex",
        "[{uri: {regex: '/a/[0-9]+'}}]",
        ("/a/12", {}, "v1"),
        ("/a/12?x=/b", {}, "v1"),
        ("/a/12/b", {}, "v2"),
        ("/z/a/12", {}, "v2"),
    ),
    matched("uri-any-case", "[{uri: {exact: /Ab}, ignoreUriCase: true}]", ("/aB", {}, "v1"), ("/ab/", {}, "v2")),
    matched("uri-prefix-any-case", "[{uri: {prefix: /Ab}, ignoreUriCase: true}]", ("/aBC", {}, "v1"), ("/a", {}, "v2")),
    matched("uri-regex-case", "[{uri: {regex: '(?i)/x'}}]", ("/X", {}, "v1"), ("/y", {}, "v2")),
    matched(
        "header-exact", "[{headers: {x-user: {exact: jason}}}]", ("/", h(x_user="jason"), "v1"), ("/", h(x_user="Jason"), "v2")
    ),
    matched("header-name-case", "[{headers: {X-User: {exact: jason}}}]", ("/", h(x_USER="jason"), "v1"), ("/", {}, "v2")),
    matched("header-prefix", "[{headers: {x-user: {prefix: ja}}}]", ("/", h(x_user="jason"), "v1"), ("/", h(x_user="aja"), "v2")),
    matched(
        "header-regex",
        "[{headers: {cookie: {regex: '^(.*?;)?(user=jason)(;.*)?$'}}}]",
        ("/", h(cookie="a=b;user=jason"), "v1"),
        ("/", h(cookie="user=jasonx"), "v2"),
        ("/", {}, "v2"),
    ),
    matched(
        "header-present", "[{headers: {x-user: {}}}]", ("/", h(x_user=""), "v1"), ("/", h(x_user="x"), "v1"), ("/", {}, "v2")
    ),
    matched("header-star", "[{headers: {x-user: {regex: '*'}}}]", ("/", h(x_user="x"), "v1"), ("/", {}, "v2")),
    matched(
        "header-two-lines",
        "[{headers: {x-user: {exact: 'a,b'}}}]",
        ("/", {"headers": [("x-user", "a"), ("x-user", "b")]}, "v1"),
        ("/", h(x_user="a"), "v2"),
    ),
    matched(
        "headers-and",
        "[{headers: {x-a: {exact: '1'}, x-b: {exact: '2'}}}]",
        ("/", h(x_a="1", x_b="2"), "v1"),
        ("/", h(x_a="1"), "v2"),
    ),
    matched(
        "matches-or",
        "[{headers: {x-a: {exact: '1'}}}, {uri: {prefix: /b}}]",
        ("/", h(x_a="1"), "v1"),
        ("/b", {}, "v1"),
        ("/", {}, "v2"),
    ),
    matched(
        "without-exact",
        "[{withoutHeaders: {x-user: {exact: jason}}}]",
        ("/", h(x_user="jason"), "v2"),
        ("/", h(x_user="other"), "v1"),
        ("/", {}, "v1"),
    ),
    matched("without-present", "[{withoutHeaders: {x-user: {}}}]", ("/", h(x_user="jason"), "v2"), ("/", {}, "v1")),
    matched(
        "without-regex",
        "[{withoutHeaders: {x-user: {regex: 'j.*'}}}]",
        ("/", h(x_user="jason"), "v2"),
        ("/", h(x_user="bob"), "v1"),
        ("/", {}, "v1"),
    ),
    matched(
        "query-exact",
        "[{queryParams: {q: {exact: '1'}}}]",
        ("/?q=1", {}, "v1"),
        ("/?a=b&q=1", {}, "v1"),
        ("/?q=12", {}, "v2"),
        ("/", {}, "v2"),
        ("/?Q=1", {}, "v2"),
    ),
    matched("query-regex", "[{queryParams: {q: {regex: '[0-9]+'}}}]", ("/?q=77", {}, "v1"), ("/?q=7a", {}, "v2")),
    matched("query-prefix", "[{queryParams: {q: {prefix: ab}}}]", ("/?q=abc", {}, "v1"), ("/?q=cab", {}, "v2")),
    matched("query-present", "[{queryParams: {q: {}}}]", ("/?q", {}, "v1"), ("/?q=", {}, "v1"), ("/?r", {}, "v2")),
    matched("query-empty", "[{queryParams: {q: {exact: ''}}}]", ("/?q=", {}, "v1"), ("/?q=1", {}, "v2")),
    matched("method", "[{method: {exact: POST}}]", ("/", {"method": "POST", "body": b"x"}, "v1"), ("/", {}, "v2")),
    matched(
        "method-regex", "[{method: {regex: 'PUT|PATCH'}}]", ("/", {"method": "PATCH"}, "v1"), ("/", {"method": "DELETE"}, "v2")
    ),
    matched("scheme", "[{scheme: {exact: http}}]", ("/", {}, "v1")),
    matched(
        "scheme-https",
        "[{scheme: {exact: https}}]",
        ("/", {}, "v2"),
        ("/", {"origin": True, **h(x_forwarded_proto="https")}, "v1"),
    ),
    matched(
        "authority",
        "[{authority: {exact: 'authority.default:80'}}]",
        ("/", {"host": "authority.default:80"}, "v1"),
        ("/", {}, "v2"),
    ),
    matched(
        "authority-prefix",
        "[{authority: {prefix: 'authority-prefix.d'}}]",
        ("/", {"host": "authority-prefix.default"}, "v1"),
        ("/", {}, "v2"),
    ),
    matched("port-80", "[{port: 80}]", ("/", {}, "v1")),
    matched("port-other", "[{port: 81}]", ("/", {}, "v2")),
    matched("labels", "[{sourceLabels: {app: client}}]", ("/", {}, "v1"), ("/", {"by": "stranger"}, "v2")),
    matched("labels-two", "[{sourceLabels: {app: client, tier: gold}}]", ("/", {}, "v1"), ("/", {"by": "stranger"}, "v2")),
    matched("labels-none", "[{sourceLabels: {app: nobody}}]", ("/", {}, "v2")),
    matched("namespace", "[{sourceNamespace: default}]", ("/", {}, "v1"), ("/", {"by": "stranger"}, "v2")),
    matched("gateways-mesh", "[{gateways: [mesh]}]", ("/", {}, "v1")),
    matched("gateways-other", "[{gateways: [some-gateway]}]", ("/", {}, "v2")),
    matched("gateways-labels", "[{gateways: [mesh], sourceLabels: {app: nobody}}]", ("/", {}, "v1")),
    matched(
        "everything",
        "[{uri: {prefix: /x}, method: {exact: GET}, headers: {x-a: {exact: '1'}}, queryParams: {q: {exact: '2'}}}]",
        ("/x?q=2", h(x_a="1"), "v1"),
        ("/x?q=3", h(x_a="1"), "v2"),
        ("/y?q=2", h(x_a="1"), "v2"),
    ),
    matched(
        "normalised",
        "[{uri: {exact: /admin}}]",
        ("/app/../admin", {}, "v1"),
        ("/%61dmin", {}, "v1"),
        ("/app\\..\\admin", {}, "v1"),
    ),
    Case(
        "first-wins",
        f"[{{match: [{{uri: {{prefix: /a}}}}], {TO_V1}}}, {{match: [{{uri: {{prefix: /a/b}}}}], {TO_V2}}}]",
        [("/a/b", {}, "v1")],
    ),
    Case("no-match", f"[{{match: [{{uri: {{prefix: /a}}}}], {TO_V1}}}]", [("/a", {}, "v1"), ("/b", {}, 404)]),
    Case("catch-all-first", f"[{{{TO_V2}}}, {{match: [{{uri: {{prefix: /a}}}}], {TO_V1}}}]", [("/a", {}, "v2")]),
    Case(
        "catch-all-prefix",
        f"[{{match: [{{uri: {{prefix: /}}}}], {TO_V2}}}, {{match: [{{uri: {{prefix: /a}}}}], {TO_V1}}}]",
        [("/a", {}, "v2")],
    ),
    # Every rule is for somebody else: the VirtualService says nothing to this client, and the service stays callable.
    Case("not-for-me", f"[{{match: [{{sourceLabels: {{app: nobody}}}}], {TO_V2}}}]", [("/", {}, 200)]),
]

LOOK = "do: head=x-app:yes"
ACTIONS = [
    acting(
        "redirect-all",
        "{redirect: {uri: /new, authority: other.example, port: 8443, scheme: https, redirectCode: 308}}",
        ("/old?a=b", {}, {"status": 308, "location": "https://other.example:8443/new?a=b", "body": ""}),
    ),
    acting("redirect-uri", "{redirect: {uri: /new}}", ("/old", {}, {"status": 301, "location": "http://redirect-uri/new"})),
    acting(
        "redirect-authority",
        "{redirect: {authority: new.example}}",
        ("/old?x=1", {}, {"status": 301, "location": "http://new.example/old?x=1"}),
    ),
    acting(
        "redirect-scheme",
        "{redirect: {scheme: https}}",
        ("/o", {}, {"status": 301, "location": "https://redirect-scheme/o"}),
        ("/o", {"host": "redirect-scheme:80"}, {"location": "https://redirect-scheme/o"}),
    ),
    acting("redirect-port", "{redirect: {port: 8080}}", ("/o", {}, {"location": "http://redirect-port:8080/o"})),
    acting(
        "redirect-default",
        "{redirect: {uri: /n, derivePort: FROM_PROTOCOL_DEFAULT}}",
        ("/o", {}, {"location": "http://redirect-default/n"}),
    ),
    acting(
        "redirect-derived",
        "{redirect: {scheme: https, derivePort: FROM_REQUEST_PORT}}",
        ("/o", {}, {"location": "https://redirect-derived:80/o"}),
    ),
    Case(
        "redirect-prefix",
        "[{match: [{uri: {prefix: /old}}], redirect: {prefixRewrite: /new}}]",
        [("/old/a?q=1", {}, {"status": 301, "location": "http://redirect-prefix/new/a?q=1"})],
    ),
    *(
        acting(f"redirect-{code}", f"{{redirect: {{uri: /n, redirectCode: {code}}}}}", ("/", {}, {"status": code}))
        for code in (301, 302, 303, 307)
    ),
    acting(
        "direct", "{directResponse: {status: 418, body: {string: 'a teapot'}}}", ("/", {}, {"status": 418, "body": "a teapot"})
    ),
    acting(
        "direct-bytes", "{directResponse: {status: 200, body: {bytes: aGVsbG8=}}}", ("/", {}, {"status": 200, "body": "hello"})
    ),
    acting("direct-empty", "{directResponse: {status: 503}}", ("/", {}, {"status": 503, "body": ""})),
    acting(
        "direct-headers",
        "{directResponse: {status: 200, body: {string: '{}'}}, headers: {response: {set: {content-type: application/json}}}}",
        ("/", {}, {"status": 200, "content-type": "application/json"}),
    ),
    Case(
        "rewrite-prefix",
        f"[{{match: [{{uri: {{prefix: /old}}}}], rewrite: {{uri: /new}}, {TO_V1}}}]",
        [
            ("/old/a?q=/old", {}, {"path": "/new/a?q=/old", ">x-envoy-original-path": ["/old/a?q=/old"]}),
            ("/old", {}, {"path": "/new"}),
        ],
    ),
    Case(
        "rewrite-slash",
        f"[{{match: [{{uri: {{prefix: /old/}}}}], rewrite: {{uri: /}}, {TO_V1}}}]",
        [("/old/a", {}, {"path": "/a"})],
    ),
    Case(
        "rewrite-prefix-case",
        f"[{{match: [{{uri: {{prefix: /old}}, ignoreUriCase: true}}], rewrite: {{uri: /n}}, {TO_V1}}}]",
        [("/OLD/a", {}, {"path": "/n/a"})],
    ),
    Case(
        "rewrite-exact",
        f"[{{match: [{{uri: {{exact: /old}}}}], rewrite: {{uri: /new}}, {TO_V1}}}]",
        [("/old?q=1", {}, {"path": "/new?q=1"})],
    ),
    Case(
        "rewrite-regex",
        f"[{{match: [{{uri: {{regex: '/o[a-z]+/.*'}}}}], rewrite: {{uri: /new}}, {TO_V1}}}]",
        [("/old/a/b?q=1", {}, {"path": "/new?q=1", ">x-envoy-original-path": ["/old/a/b?q=1"]})],
    ),
    acting("rewrite-anything", f"{{rewrite: {{uri: /new/}}, {TO_V1}}}", ("/a", {}, {"path": "/new/a"})),
    acting(
        "rewrite-pattern",
        f"{{rewrite: {{uriRegexRewrite: {{match: '^/v([0-9]+)/(.*)$', rewrite: '/\\2/of/\\1'}}}}, {TO_V1}}}",
        ("/v7/book?x=1", {}, {"path": "/book/of/7?x=1", ">x-envoy-original-path": ["/v7/book?x=1"]}),
        ("/other", {}, {"path": "/other", ">x-envoy-original-path": []}),
    ),
    acting(
        "rewrite-pattern-all",
        f"{{rewrite: {{uriRegexRewrite: {{match: 'o', rewrite: '0'}}}}, {TO_V1}}}",
        ("/foo?o", {}, {"path": "/f00?o"}),
    ),
    acting(
        "rewrite-authority",
        f"{{rewrite: {{authority: inner.example}}, {TO_V1}}}",
        ("/", {}, {"host": "inner.example", "path": "/"}),
    ),
    acting("rewrite-both", f"{{rewrite: {{uri: /x/, authority: a.b}}, {TO_V1}}}", ("/y", {}, {"host": "a.b", "path": "/x/y"})),
    acting(
        "headers-request",
        f"{{headers: {{request: {{set: {{x-set: new}}, add: {{x-add: more}}, remove: [x-gone]}}}}, {TO_V1}}}",
        ("/", h(x_set="old", x_add="first", x_gone="x"), {">x-set": ["new"], ">x-add": ["first", "more"], ">x-gone": []}),
    ),
    acting(
        "headers-response",
        f"{{headers: {{response: {{set: {{x-set: new}}, add: {{x-add: more}}, remove: [x-gone]}}}}, {TO_V1}}}",
        (
            "/",
            {"do": "head=x-set:old head=x-add:first head=x-gone:x"},
            {"<x-set": ["new"], "<x-add": ["first", "more"], "<x-gone": []},
        ),
    ),
    acting(
        "headers-host",
        f"{{headers: {{request: {{set: {{Host: inner.example}}}}}}, {TO_V1}}}",
        ("/", {}, {"host": "inner.example"}),
    ),
    acting(
        "headers-authority",
        f"{{headers: {{request: {{set: {{':authority': inner.example}}}}}}, {TO_V1}}}",
        ("/", {}, {"host": "inner.example"}),
    ),
    acting(
        "headers-format",
        f"{{headers: {{request: {{set: {{x-path: '%REQ(:path)%', x-was: '%REQ(x-user)%', x-pct: '100%%', x-up: '%PROTOCOL%'}}}},"
        f" response: {{set: {{x-code: '%RESPONSE_CODE%'}}}}}}, {TO_V1}}}",
        (
            "/p?q",
            h(x_user="jo"),
            {">x-path": ["/p?q"], ">x-was": ["jo"], ">x-pct": ["100%"], ">x-up": ["HTTP/1.1"], "<x-code": ["200"]},
        ),
    ),
    acting(
        "headers-destination",
        "{headers: {request: {set: {x-route: r}}}, route: [{destination: {host: echo, subset: v1},"
        " headers: {request: {set: {x-dest: d}, remove: [x-gone]}, response: {add: {x-from: v1}}}}]}",
        ("/", h(x_gone="1"), {">x-route": ["r"], ">x-dest": ["d"], ">x-gone": [], "<x-from": ["v1"]}),
    ),
    # One destination: its operations come after the route's. Several: before. So Istio writes it, and Envoy runs it.
    acting(
        "headers-single-last",
        "{headers: {request: {set: {x-who: route}}, response: {set: {x-who: route}}},"
        " route: [{destination: {host: echo, subset: v1},"
        " headers: {request: {set: {x-who: destination}}, response: {set: {x-who: destination}}}}]}",
        ("/", {}, {">x-who": ["destination"], "<x-who": ["destination"]}),
    ),
    acting(
        "headers-weighted",
        "{headers: {request: {set: {x-who: route}}}, route: [{destination: {host: echo, subset: v1}, weight: 50,"
        " headers: {request: {set: {x-who: destination, x-dest: d}}}}, {destination: {host: echo, subset: v1}, weight: 50,"
        " headers: {request: {set: {x-dest: d}}}}]}",
        ("/", {}, {">x-who": ["route"], ">x-dest": ["d"]}),
    ),
    acting("weight-zero-single", "{route: [{destination: {host: echo, subset: v1}, weight: 0}]}", *[("/", {}, "v1")] * 3),
    acting(
        "weight-zero-dropped",
        "{route: [{destination: {host: echo, subset: v1}, weight: 0}, {destination: {host: echo, subset: v2}, weight: 1}]}",
        *[("/", {}, "v2")] * 8,
    ),
    acting(
        "weight-absent-dropped",
        "{route: [{destination: {host: echo, subset: v1}}, {destination: {host: echo, subset: v2}, weight: 100}]}",
        *[("/", {}, "v2")] * 8,
    ),
    acting("subset-unknown", "{route: [{destination: {host: echo, subset: v9}}]}", ("/", {}, {"status": 503, "body": ""})),
    acting(
        "subset-empty",
        "{route: [{destination: {host: echo, subset: nobody}}]}",
        ("/", {}, {"status": 503, "body": "no healthy upstream"}),
    ),
    acting("host-unknown", "{route: [{destination: {host: nowhere}}]}", ("/", {}, {"status": 503, "body": ""})),
    acting("port-unknown", "{route: [{destination: {host: echo, port: {number: 99}}}]}", ("/", {}, {"status": 503, "body": ""})),
    acting("other-service", "{route: [{destination: {host: echo2.other.svc.cluster.local}}]}", ("/", {}, "far")),
    acting("other-namespace-dot", "{route: [{destination: {host: echo2.other}}]}", ("/", {}, {"status": 503, "body": ""})),
    acting(
        "cors",
        f"{{corsPolicy: {{allowOrigins: [{{exact: 'https://a.example'}}, {{regex: 'https://b[0-9]\\.example'}}, {{prefix: 'http://p'}}],"
        f" allowMethods: [GET, POST], allowHeaders: [x-a, x-b], exposeHeaders: [x-e], maxAge: 24h,"
        f" allowCredentials: true}}, {TO_V1}}}",
        (
            "/",
            {"method": "OPTIONS", **h(origin="https://a.example", access_control_request_method="POST")},
            {
                "status": 200,
                "body": "",
                "access-control-allow-origin": "https://a.example",
                "access-control-allow-methods": "GET,POST",
                "access-control-allow-headers": "x-a,x-b",
                "access-control-max-age": "86400",
                "access-control-allow-credentials": "true",
            },
        ),
        (
            "/",
            h(origin="https://b7.example"),
            {
                "status": 200,
                "access-control-allow-origin": "https://b7.example",
                "access-control-expose-headers": "x-e",
                "access-control-allow-credentials": "true",
                "access-control-allow-methods": None,
            },
        ),
        ("/", h(origin="http://port"), {"access-control-allow-origin": "http://port"}),
        (
            "/",
            {"method": "OPTIONS", **h(origin="https://evil", access_control_request_method="POST")},
            {"status": 200, "pod": "v1", "access-control-allow-origin": None},
        ),
        ("/", h(origin="https://evil"), {"status": 200, "access-control-allow-origin": None}),
        (
            "/",
            {"method": "OPTIONS", **h(origin="https://a.example")},
            {"pod": "v1", "access-control-allow-origin": "https://a.example"},
        ),
        ("/", {}, {"access-control-allow-origin": None}),
    ),
    acting(
        "cors-ignore",
        f"{{corsPolicy: {{allowOrigins: [{{exact: 'https://a'}}], unmatchedPreflights: IGNORE}}, {TO_V1}}}",
        (
            "/",
            {"method": "OPTIONS", **h(origin="https://evil", access_control_request_method="PUT")},
            {"status": 200, "body": "", "access-control-allow-origin": None},
        ),
    ),
    acting(
        "cors-star",
        f"{{corsPolicy: {{allowOrigins: [{{exact: '*'}}]}}, {TO_V1}}}",
        ("/", h(origin="https://any"), {"access-control-allow-origin": "https://any"}),
    ),
    acting(
        "fault-abort",
        f"{{fault: {{abort: {{httpStatus: 418, percentage: {{value: 100}}}}}}, {TO_V1}}}",
        ("/", {}, {"status": 418, "body": "fault filter abort"}),
    ),
    acting("fault-abort-never", f"{{fault: {{abort: {{httpStatus: 418, percentage: {{value: 0}}}}}}, {TO_V1}}}", ("/", {}, "v1")),
    acting("fault-abort-unset", f"{{fault: {{abort: {{httpStatus: 418}}}}, {TO_V1}}}", ("/", {}, "v1")),
    acting(
        "fault-abort-grpc",
        f"{{fault: {{abort: {{grpcStatus: UNAVAILABLE, percentage: {{value: 100}}}}}}, {TO_V1}}}",
        ("/", {}, {"status": 200, "grpc-status": "14"}),
    ),
    acting(
        "fault-delay",
        f"{{fault: {{delay: {{fixedDelay: 300ms, percentage: {{value: 100}}}}}}, {TO_V1}}}",
        ("/", {}, {"pod": "v1", "took": (0.3, 2)}),
    ),
    acting(
        "fault-delay-percent",
        f"{{fault: {{delay: {{fixedDelay: 0.3s, percent: 100}}}}, {TO_V1}}}",
        ("/", {}, {"pod": "v1", "took": (0.3, 2)}),
    ),
    acting(
        "fault-delay-never",
        f"{{fault: {{delay: {{fixedDelay: 5s, percentage: {{value: 0}}}}}}, {TO_V1}}}",
        ("/", {}, {"pod": "v1", "took": (0, 2)}),
    ),
    acting("fault-delay-unset", f"{{fault: {{delay: {{fixedDelay: 5s}}}}, {TO_V1}}}", ("/", {}, {"pod": "v1", "took": (0, 2)})),
    acting(
        "fault-both",
        f"{{fault: {{delay: {{fixedDelay: 200ms, percentage: {{value: 100}}}}, "
        f"abort: {{httpStatus: 500, percentage: {{value: 100}}}}}}, {TO_V1}}}",
        ("/", {}, {"status": 500, "body": "fault filter abort", "took": (0.2, 2)}),
    ),
    acting(
        "fault-not-timed",
        f"{{timeout: 100ms, fault: {{delay: {{fixedDelay: 400ms, percentage: {{value: 100}}}}}}, {TO_V1}}}",
        ("/", {}, {"pod": "v1", "took": (0.4, 2)}),
    ),
    acting(
        "timeout",
        f"{{timeout: 0.3s, {TO_V1}}}",
        ("/", {"do": "delay=2"}, {"status": 504, "body": "upstream request timeout", "took": (0.3, 1.5)}),
        ("/", {}, "v1"),
    ),
    acting("timeout-off", f"{{{TO_V1}}}", ("/", {"do": "delay=0.6"}, {"pod": "v1", "took": (0.6, 3)})),
]
CASES = MATCHES + ACTIONS


def objects() -> Iterator[Obj]:
    for case in CASES:
        yield service(case.name, app="echo")
        yield virtual_service(case.name, case.rules, **(case.spec or {}))


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    made = Mesh(tmp_path_factory.mktemp("routing"))
    try:
        made.namespace("other")
        made.proxy("client", app="client", tier="gold")
        made.proxy("stranger", "other", app="stranger")
        made.pod("v1", app="echo", version="v1")
        made.pod("v2", app="echo", version="v2")
        made.pod("far", "other", app="far")
        subsets = [{"name": name, "labels": {"version": name}} for name in ("v1", "v2", "nobody")]
        echo = [service("echo", app="echo"), destination_rule("echo", {"subsets": subsets}), service("echo2", "other", app="far")]
        made.apply(*echo, *objects())
        made.endpoints("echo", 2)
        made.endpoints("echo2", 1, "other")
        made.ready()
        yield made
    finally:
        print(made.logs())
        made.close()


def held(answer: Answer, expected: Any) -> None:
    if isinstance(expected, int):
        expected = {"status": expected}
    elif isinstance(expected, str):
        expected = {"status": 200, "pod": expected}
    said = f"{answer.status} {answer.headers} {answer.text}"
    for name, value in expected.items():
        if name == "status":
            assert answer.status == value, said
        elif name == "body":
            assert answer.text == value, said
        elif name in ("pod", "path", "host"):
            assert answer.json[name] == value, said
        elif name == "took":
            assert value[0] <= answer.took < value[1], said
        elif name.startswith(">"):
            assert answer.asked(name[1:]) == value, said
        elif name.startswith("<"):
            assert answer.list(name[1:]) == value, said
        else:
            assert answer.get(name) == value, said


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_table(mesh: Mesh, case: Case) -> None:
    for path, options, expected in case.asks:
        options = dict(options)
        by = mesh.proxies[options.pop("by", "client")]
        host = options.pop("host", case.name)
        if by.name == "stranger":
            host = f"{case.name}.default"
        form = "" if options.pop("origin", False) else "http://"
        held(by.ask(f"{form}{host}{path}", **options), expected)


@pytest.mark.parametrize(
    ("name", "path", "status", "flag", "asking"),
    [
        ("fault-abort", "/", 418, "FI", {}),
        ("fault-delay", "/", 200, "DI", {}),
        ("fault-both", "/", 500, "DI,FI", {}),
        ("no-match", "/b", 404, "NR", {}),
        ("subset-unknown", "/", 503, "NC", {}),
        ("subset-empty", "/", 503, "UH", {}),
        ("timeout", "/", 504, "UT", {"do": "delay=1"}),
        ("direct", "/", 418, "-", {}),
        ("redirect-all", "/", 308, "-", {}),
        ("uri-exact", "/", 200, "-", {}),
    ],
)
def test_flags(mesh: Mesh, name: str, path: str, status: int, flag: str, asking: dict[str, Any]) -> None:
    """The response flag in ``istio_requests_total``."""
    client = mesh.proxies["client"]
    before = client.requests(response_code=str(status), response_flags=flag)
    assert client.ask(f"http://{name}{path}", **asking).status == status
    assert client.requests(response_code=str(status), response_flags=flag) == before + 1
