"""What a rule does: retries, faults, CORS, headers, rewrites, redirects, direct answers (semantics A1, A2, B2)."""

from __future__ import annotations

import pytest
from world_objects import client, forward, service, to, virtual_service

from control.translate.actions import percent_of
from control.world import MeshSettings
from control.world.mesh import DEFAULT_RETRY
from meshproxy.model.match import StringMatch
from meshproxy.model.route import (
    Abort,
    Cors,
    Delay,
    DirectResponse,
    Fault,
    HeaderOps,
    Redirect,
    RegexRewrite,
    Retry,
    Rewrite,
    Route,
)


def route_of(rule: dict, **more: object) -> Route:
    if not {"redirect", "directResponse"} & rule.keys():
        rule = {"route": [to("a")], **rule}
    view = client([service("a"), virtual_service("v", ["a"], [rule])], **more)
    assert view.problems == []
    return view.routes("a")[0]


def retry_of(retries: dict | None) -> Retry | None:
    return forward(route_of({} if retries is None else {"retries": retries})).retry


def test_default_retries_are_istios_without_503():
    assert retry_of(None) == DEFAULT_RETRY
    assert DEFAULT_RETRY.attempts == 2
    assert DEFAULT_RETRY.on == (
        "connect-failure",
        "refused-stream",
        "unavailable",
        "cancelled",
        "retriable-status-codes",
    )
    assert DEFAULT_RETRY.status_codes == ()


def test_default_retries_can_be_switched_off_for_the_mesh():
    assert forward(route_of({}, mesh=MeshSettings(default_retry=None))).retry is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"attempts": 0}, None),
        ({"attempts": 3}, Retry(attempts=3, on=DEFAULT_RETRY.on)),
        ({"attempts": 1, "retryOn": "5xx, reset"}, Retry(attempts=1, on=("5xx", "reset"))),
        (
            {"attempts": 1, "retryOn": "503,gateway-error,429"},
            Retry(attempts=1, on=("gateway-error", "retriable-status-codes"), status_codes=(429, 503)),
        ),
        (
            {"attempts": 1, "retryOn": "retriable-status-codes,503"},
            Retry(attempts=1, on=("retriable-status-codes",), status_codes=(503,)),
        ),
        (
            {"attempts": 1, "retryOn": "5xx", "perTryTimeout": "1.5s"},
            Retry(attempts=1, on=("5xx",), per_try_timeout=1.5),
        ),
        (
            {"attempts": 1, "retryOn": "5xx", "backoff": "100ms"},
            Retry(attempts=1, on=("5xx",), backoff=0.1, backoff_max=1.0),
        ),
        (
            {"attempts": 1, "retryOn": "5xx", "retryIgnorePreviousHosts": False},
            Retry(attempts=1, on=("5xx",), avoid_previous_hosts=False),
        ),
    ],
)
def test_retries(given, expected):
    assert retry_of(given) == expected


def test_timeout():
    assert forward(route_of({})).timeout == 0.0
    assert forward(route_of({"timeout": "1m30s"})).timeout == 90.0
    assert forward(route_of({"timeout": "0s"})).timeout == 0.0


HALF = {"percentage": {"value": 50}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"delay": {"fixedDelay": "5s"}}, None),
        ({"abort": {"httpStatus": 503}}, None),
        ({"delay": {"fixedDelay": "5s", "percentage": {"value": 0}}}, None),
        ({"delay": {"fixedDelay": "5s", **HALF}}, Fault(delay=Delay(seconds=5.0, percent=50.0))),
        ({"delay": {"fixedDelay": "5s", "percent": 7}}, Fault(delay=Delay(seconds=5.0, percent=7.0))),
        ({"abort": {"httpStatus": 503, **HALF}}, Fault(abort=Abort(percent=50.0, status=503))),
        ({"abort": {"grpcStatus": "UNAVAILABLE", **HALF}}, Fault(abort=Abort(percent=50.0, grpc_status=14))),
        (
            {"delay": {"fixedDelay": "10ms", **HALF}, "abort": {"httpStatus": 400, "percentage": {"value": 0.1}}},
            Fault(delay=Delay(seconds=0.01, percent=50.0), abort=Abort(percent=0.1, status=400)),
        ),
    ],
)
def test_faults_need_a_percentage(given, expected):
    assert route_of({"fault": given}).fault == expected


def test_percentages_keep_four_places():
    assert [percent_of(x) for x in (0.00019, 0.1, 0.29, 33.33333, 100.0)] == [0.0001, 0.1, 0.29, 33.3333, 100.0]


def test_cors():
    given = {
        "allowOrigins": [
            {"exact": "https://a.example"},
            {"prefix": "https://b"},
            {"regex": "https://[cd].*"},
            {"exact": "*"},
        ],
        "allowMethods": ["GET", "POST"],
        "allowHeaders": ["X-A"],
        "exposeHeaders": ["x-b"],
        "maxAge": "24h",
        "allowCredentials": False,
        "unmatchedPreflights": "IGNORE",
    }
    assert route_of({"corsPolicy": given}).cors == Cors(
        allow_origins=(
            StringMatch(kind="exact", value="https://a.example"),
            StringMatch(kind="prefix", value="https://b"),
            StringMatch(kind="regex", value="https://[cd].*"),
            StringMatch(kind="regex", value=".*"),
        ),
        allow_methods=("GET", "POST"),
        allow_headers=("X-A",),
        expose_headers=("x-b",),
        max_age=86400,
        allow_credentials=False,
        forward_unmatched_preflights=False,
    )


def test_cors_defaults_and_the_old_spelling():
    assert route_of({"corsPolicy": {"allowOrigin": ["*", "https://a"]}}).cors == Cors(
        allow_origins=(StringMatch(kind="regex", value=".*"), StringMatch(kind="exact", value="https://a"))
    )


def test_header_operations_at_route_and_destination():
    ops = {
        "request": {"set": {"X-B": "2", "x-a": "1"}, "add": {"x-c": "3"}, "remove": ["X-D"]},
        "response": {"remove": ["server"]},
    }
    route = route_of({"headers": ops, "route": [to("a", headers=ops)]})
    request = HeaderOps(set=(("x-a", "1"), ("x-b", "2")), add=(("x-c", "3"),), remove=("x-d",))
    response = HeaderOps(remove=("server",))
    assert (route.request_headers, route.response_headers) == (request, response)
    (cluster,) = forward(route).clusters
    assert (cluster.request_headers, cluster.response_headers) == (request, response)


def test_the_authority_may_be_set():
    for name in ("Host", ":authority"):
        assert route_of({"headers": {"request": {"set": {name: "b"}}}}).request_headers == HeaderOps(set=(("host", "b"),))


REWRITES = [
    ({"uri": {"prefix": "/a/"}}, {"uri": "/b/"}, Rewrite(prefix=("/a/", "/b/"))),
    ({"uri": {"exact": "/a"}}, {"uri": "/b"}, Rewrite(path="/b")),
    ({"uri": {"regex": "/a.*"}}, {"uri": "/b"}, Rewrite(path="/b")),
    ({"method": {"exact": "GET"}}, {"uri": "/b/"}, Rewrite(prefix=("/", "/b/"))),
    ({"uri": {"prefix": "/a"}}, {"authority": "b.example"}, Rewrite(authority="b.example")),
    (
        {"uri": {"prefix": "/a"}},
        {"uriRegexRewrite": {"match": "/a/(.*)", "rewrite": r"/b/\1"}, "authority": "b"},
        Rewrite(regex=RegexRewrite(match="/a/(.*)", rewrite=r"/b/\1"), authority="b"),
    ),
]


@pytest.mark.parametrize(("condition", "given", "expected"), REWRITES)
def test_rewrite_depends_on_how_the_path_was_matched(condition, given, expected):
    assert forward(route_of({"match": [condition], "rewrite": given})).rewrite == expected


def test_rewrite_without_a_match_is_of_the_prefix_slash():
    assert forward(route_of({"rewrite": {"uri": "/v1/"}})).rewrite == Rewrite(prefix=("/", "/v1/"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"uri": "/x"}, Redirect(code=301, path="/x")),
        ({"authority": "b", "redirectCode": 308}, Redirect(code=308, authority="b")),
        ({"scheme": "https", "port": 8443}, Redirect(scheme="https", port=8443)),
        (
            {"derivePort": "FROM_REQUEST_PORT", "authority": "b"},
            Redirect(authority="b", derive_port="FROM_REQUEST_PORT"),
        ),
        ({"prefixRewrite": "/new"}, Redirect(prefix_rewrite=("/old", "/new"))),
    ],
)
def test_redirect(given, expected):
    route = route_of({"match": [{"uri": {"prefix": "/old"}}], "redirect": given})
    assert route.action == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"status": 418}, DirectResponse(status=418)),
        ({"status": 200, "body": {"string": "hé"}}, DirectResponse(status=200, body="hé".encode())),
        ({"status": 200, "body": {"bytes": "AAE="}}, DirectResponse(status=200, body=b"\x00\x01")),
    ],
)
def test_direct_response(given, expected):
    assert route_of({"directResponse": given}).action == expected
