"""Policies on the whole data path: what a caller is told, what an authoriser is asked, and that nothing is kept when it ends."""

from __future__ import annotations

from typing import Any

import pytest

from meshproxy.message.reason import Reason
from meshproxy.model.cluster import Cluster, ConnectionPool, Endpoint, Endpoints, Service
from meshproxy.model.listener import Listener
from meshproxy.model.route import Forward, Retry, Route, RouteConfig, VirtualHost, WeightedCluster
from meshproxy.model.security import Condition, ExtAuthz, Operation, Policy, Rule, Security
from tests.flow.memnet import OK, Wire, World, status_of

APP, AUTHORISER = "127.1.0.2", "127.1.0.9"
GET = b"GET /a?q=1 HTTP/1.1\r\nhost: books:8080\r\n\r\n"
SERVICE = Service(host="books.default.svc.cluster.local", name="books", namespace="default")
YES = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


def resources(*policies: Policy, authz: bool = True, direction: Any = "inbound", **provider: Any) -> dict[str, dict[str, Any]]:
    app = Forward(clusters=(WeightedCluster(cluster="app"),), timeout=5.0, retry=Retry(attempts=2, on=("5xx",)))
    hosts = (VirtualHost(name="all", domains=("*",), routes=(Route(name="r", action=app),)),)
    clusters = {"app": Cluster(name="app", service=SERVICE), "authz": Cluster(name="authz", pool=ConnectionPool(max_requests=2))}
    if not authz:
        del clusters["authz"]
    addresses = {"app": APP, "authz": AUTHORISER}
    known = ExtAuthz(**{"name": "opa", "cluster": "authz", "timeout": 2.0, **provider})
    return {
        "cluster": clusters,
        "endpoints": {name: Endpoints(name=name, endpoints=(Endpoint(address=addresses[name], port=8080),)) for name in clusters},
        "route": {"in": RouteConfig(name="in", virtual_hosts=hosts)},
        "listener": {"in": Listener(name="in", direction=direction, port=8080, route="in")},
        "security": {"workload": Security(policies=policies, ext_authz=(known,))},
    }


CUSTOM = Policy(name="default/ask", action="CUSTOM", rules=(Rule(),), provider="opa")


class Asked:
    """A request for which the authoriser is asked; ``client`` and ``authoriser`` are the two far ends."""

    def __init__(self, request: bytes = GET, **given: Any) -> None:
        self.world = World(resources(CUSTOM, **given), "in")
        self.client = self.world.client()
        self.client.deliver(request)

    @property
    def dialled(self) -> list[str]:
        return [pool.endpoint.address for pool in self.world.dials]

    def authoriser(self) -> Wire:
        assert self.dialled == [AUTHORISER]
        return self.world.accept()

    def app(self) -> Wire:
        assert self.dialled == [APP]
        return self.world.accept()

    def said(self) -> list[tuple[str, str]]:
        (record,) = self.world.records
        return [(one.policy, one.result) for one in record.decisions]

    def settled(self) -> None:
        assert self.world.clock.armed == 0
        for cluster in self.world.snapshot.clusters.values():
            assert (cluster.limits.requests, cluster.limits.pending) == (0, 0)
            assert all(endpoint.active == 0 for endpoint in cluster.members())


# -- rules


@pytest.mark.parametrize(
    ("policy", "detail"),
    [
        (Policy(name="default/nothing"), "none"),
        (Policy(name="default/no", action="DENY", rules=(Rule(),)), "ns[default]-policy[no]-rule[0]"),
        (Policy(name="default/odd", unusable="unknown field"), "ns[default]-policy[odd]-unusable"),
    ],
)
def test_a_denial_is_a_bare_403_with_istio_s_words(policy: Policy, detail: str) -> None:
    world = World(resources(policy), "in")
    client = world.client()
    client.deliver(GET)
    answer = client.take()
    assert status_of(answer) == 403
    assert answer.endswith(b"\r\n\r\nRBAC: access denied")
    assert b"content-type: text/plain\r\n" in answer
    (record,) = world.records
    assert record.detail == f"rbac_access_denied_matched_policy[{detail}]"
    assert [reason.flag for reason in record.flags if reason.flag] == []
    assert [one.allowed for one in record.decisions] == [False]
    assert (record.route_name, record.service) == ("r", SERVICE)  # for whom it was, for the metrics
    assert world.dials == []


def test_the_path_is_judged_as_it_is_forwarded() -> None:
    denied = Rule(operations=(Operation(paths=("/admin*",)),))
    world = World(resources(Policy(name="default/no", action="DENY", rules=(denied,))), "in")
    for path in (b"/admin", b"/x/../admin", b"/%61dmin?x", b"/./admin/y#z"):
        client = world.client()
        client.deliver(b"GET %b HTTP/1.1\r\nhost: books\r\n\r\n" % path)
        assert status_of(client.take()) == 403, path
    client.deliver(b"GET /x?/admin HTTP/1.1\r\nhost: books\r\n\r\n")
    assert len(world.dials) == 1


def test_dry_runs_and_audits_are_noted_only() -> None:
    dry = Policy(name="default/dry", action="DENY", rules=(Rule(),), dry_run=True)
    audit = Policy(name="default/audit", action="AUDIT", rules=(Rule(),))
    world = World(resources(dry, audit), "in")
    client = world.client()
    client.deliver(GET)
    world.accept().deliver(OK)
    assert status_of(client.take()) == 200
    (record,) = world.records
    noted = [(one.action, one.result, one.dry_run) for one in record.decisions]
    assert noted == [("AUDIT", "matched", False), ("DENY", "denied", True), ("ALLOW", "allowed", False)]


def test_a_gateway_judges_too_and_outbound_never_does() -> None:
    world = World(resources(Policy(name="default/nothing"), direction="gateway"), "in")
    client = world.client()
    client.deliver(GET)
    assert status_of(client.take()) == 403


# -- the question


def test_the_authoriser_is_asked_with_the_request_s_own_line_and_what_is_listed() -> None:
    asked = Asked(
        b"DELETE /a?q=1 HTTP/1.1\r\nhost: books:8080\r\nauthorization: Bearer t\r\nx-user: jo\r\nx-team-a: 1\r\n"
        b"x-other: 2\r\nx-extra: forged\r\nx-envoy-auth-partial-body: forged\r\n\r\n",
        path_prefix="/check",
        include_request_headers=("X-User", "x-team-*", "x-extra", "x-envoy-*"),
        include_additional_headers=(("x-extra", "ours"),),
    )
    question = asked.authoriser().take()
    head, _, body = question.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[:2] == [b"DELETE /check/a?q=1 HTTP/1.1", b"host: books:8080"]
    assert sorted(lines[2:]) == [
        b"authorization: Bearer t",
        b"content-length: 0",
        b"x-extra: ours",
        b"x-team-a: 1",
        b"x-user: jo",
    ]
    assert body == b""


def test_a_provider_may_have_a_name_of_its_own_for_itself() -> None:
    assert b"\r\nhost: opa.default\r\n" in Asked(authority="opa.default").authoriser().take()


def test_allowed_goes_on_with_the_authoriser_s_headers() -> None:
    asked = Asked(
        GET[:-2] + b"x-user: forged\r\nx-role: forged\r\nX_Role: forged\r\nx-keep: me\r\n\r\n",
        headers_to_upstream_on_allow=("x-user", "x-role", "content-length", "host"),
        headers_to_downstream_on_allow=("x-seen", "set-cookie"),
    )
    asked.authoriser().deliver(
        b"HTTP/1.1 200 OK\r\nx-user: jo\r\nx-not: listed\r\nx-seen: 1\r\nset-cookie: a=1\r\ncontent-length: 2\r\n\r\nok"
    )
    app = asked.app()
    sent = app.take()
    assert b"x-user: jo\r\n" in sent and b"x-keep: me\r\n" in sent
    assert b"forged" not in sent and b"x-not" not in sent and b"content-length" not in sent
    app.deliver(b"HTTP/1.1 200 OK\r\nx-seen: app\r\nset-cookie: b=2\r\ncontent-length: 2\r\n\r\nhi")
    answer = asked.client.take()
    assert status_of(answer) == 200
    assert b"x-seen: 1\r\n" in answer and b"x-seen: app" not in answer
    assert b"set-cookie: a=1\r\n" in answer and b"set-cookie: b=2\r\n" in answer
    assert asked.said() == [("default/ask", "allowed")]
    asked.settled()


def test_what_the_authoriser_saw_and_let_stand_is_passed_on() -> None:
    request = GET[:-2] + b"authorization: Bearer t\r\nx-user: jo\r\n\r\n"
    asked = Asked(request, headers_to_upstream_on_allow=("authorization", "x-user"), include_request_headers=("x-user",))
    asked.authoriser().deliver(YES)
    sent = asked.app().take()
    assert b"authorization: Bearer t\r\n" in sent and b"x-user: jo\r\n" in sent


def test_a_pattern_of_names_does_not_take_what_the_mesh_says() -> None:
    asked = Asked(GET[:-2] + b"x-request-id: 1\r\nx-user: forged\r\n\r\n", headers_to_upstream_on_allow=("x-*",))
    asked.authoriser().deliver(YES[:-2] + b"x-forwarded-client-cert: By=me\r\nx-team: a\r\n\r\n")
    sent = asked.app().take()
    assert b"x-request-id: 1\r\n" in sent and b"x-forwarded-proto: http\r\n" in sent and b"x-team: a\r\n" in sent
    assert b"client-cert" not in sent and b"forged" not in sent


def test_denied_is_the_authoriser_s_own_answer() -> None:
    asked = Asked()
    asked.authoriser().deliver(
        b"HTTP/1.1 302 Found\r\nlocation: /login\r\nset-cookie: s=1\r\ncontent-type: text/html\r\ncontent-length: 5\r\n\r\nlogin"
    )
    answer = asked.client.take()
    assert status_of(answer) == 302
    assert answer.endswith(b"\r\n\r\nlogin")
    assert b"location: /login\r\n" in answer and b"set-cookie: s=1\r\n" in answer and b"content-type: text/html\r\n" in answer
    assert answer.count(b"content-length: ") == answer.count(b"date: ") == answer.count(b"server: ") == 1
    (record,) = asked.world.records
    assert (record.flags, record.detail) == ((Reason.EXT_AUTHZ_DENIED,), "ext_authz_denied")
    assert asked.said() == [("default/ask", "denied")]
    assert asked.dialled == []
    asked.settled()


def test_a_denial_s_headers_are_those_listed_and_the_usual_ones() -> None:
    asked = Asked(headers_to_downstream_on_deny=("x-why",))
    asked.authoriser().deliver(
        b"HTTP/1.1 401 No\r\nx-why: y\r\nx-other: z\r\nwww-authenticate: Basic\r\n"
        b"transfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"
    )
    answer = asked.client.take()
    assert status_of(answer) == 401
    assert b"x-why: y\r\n" in answer and b"www-authenticate: Basic\r\n" in answer and b"x-other" not in answer
    assert answer.endswith(b"no") and b"content-length: 2\r\n" in answer


@pytest.mark.parametrize("status", [b"204 No Content", b"201 Created", b"403 No"])
def test_only_200_allows(status: bytes) -> None:
    asked = Asked()
    length = b"" if status.startswith(b"204") else b"content-length: 0\r\n"
    asked.authoriser().deliver(b"HTTP/1.1 %b\r\n%b\r\n" % (status, length))
    assert status_of(asked.client.take()) == int(status[:3])
    assert asked.dialled == []


# -- no answer


def broken(asked: Asked, how: str) -> None:
    if how == "refused":
        asked.world.refuse()
    elif how == "late":
        asked.authoriser()
        asked.world.clock.advance(2.1)
    elif how == "never connected":
        asked.world.clock.advance(2.1)
    elif how == "gone":
        asked.authoriser().lose()
    elif how == "cut":
        wire = asked.authoriser()
        wire.deliver(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
        wire.lose()
    elif how == "nonsense":
        asked.authoriser().deliver(b"nonsense\r\n\r\n")
    elif how == "switching":
        asked.authoriser().deliver(b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
    elif how == "endless":
        asked.authoriser().deliver(b"HTTP/1.1 403 No\r\ncontent-length: 2000000\r\n\r\n" + b"x" * 1_100_000)
    elif how == "500":
        asked.authoriser().deliver(b"HTTP/1.1 500 X\r\ncontent-length: 2\r\n\r\nno")


WAYS = ["refused", "late", "never connected", "gone", "cut", "nonsense", "switching", "endless", "500"]


@pytest.mark.parametrize("how", WAYS)
def test_without_an_answer_nobody_passes(how: str) -> None:
    asked = Asked()
    broken(asked, how)
    answer = asked.client.take()
    assert status_of(answer) == 403
    assert answer.endswith(b"\r\n\r\n")
    (record,) = asked.world.records
    assert (record.flags, record.detail) == ((Reason.EXT_AUTHZ_ERROR,), "ext_authz_error")
    assert [reason.flag for reason in record.flags] == ["UAEX"]
    assert asked.said() == [("default/ask", "error")]
    assert asked.dialled == [] or how == "never connected"  # asked once
    asked.settled()


@pytest.mark.parametrize("how", WAYS)
def test_failing_open_lets_pass_and_tells_the_app(how: str) -> None:
    asked = Asked(
        GET[:-2] + b"x-user: forged\r\nx-envoy-auth-failure-mode-allowed: forged\r\n\r\n",
        fail_open=True,
        headers_to_upstream_on_allow=("x-user",),
    )
    broken(asked, how)
    while asked.dialled[0] == AUTHORISER:
        asked.world.refuse()
    app = asked.app()
    sent = app.take()
    assert b"x-envoy-auth-failure-mode-allowed: true\r\n" in sent and b"forged" not in sent
    app.deliver(OK)
    assert status_of(asked.client.take()) == 200
    assert asked.said() == [("default/ask", "failure_mode_allowed")]
    asked.settled()


def test_the_status_of_an_error_is_the_provider_s() -> None:
    asked = Asked(status_on_error=503)
    broken(asked, "refused")
    assert status_of(asked.client.take()) == 503


def test_a_cluster_that_is_not_there_is_no_answer() -> None:
    asked = Asked(authz=False)
    assert status_of(asked.client.take()) == 403
    assert asked.said() == [("default/ask", "error")]


def test_an_unknown_provider_denies_what_would_have_been_asked() -> None:
    world = World(resources(Policy(name="default/ask", action="CUSTOM", rules=(Rule(),), provider="nobody")), "in")
    client = world.client()
    client.deliver(GET)
    assert status_of(client.take()) == 403
    assert "bad-CUSTOM-action" in world.records[0].detail


def test_the_authoriser_s_limits_hold() -> None:
    asked = Asked()
    for _ in range(2):
        asked.world.client().deliver(GET)
    assert [record.detail for record in asked.world.records] == ["ext_authz_error"]


# -- order and scope


def test_who_is_not_asked_about_goes_straight_on_and_denials_come_after() -> None:
    post = Rule(operations=(Operation(methods=("POST",)),))
    policies = (Policy(name="default/ask", action="CUSTOM", rules=(post,), provider="opa"), Policy(name="default/nothing"))
    world = World(resources(*policies), "in")
    client = world.client()
    client.deliver(GET)
    assert status_of(client.take()) == 403
    client.deliver(b"POST / HTTP/1.1\r\nhost: b\r\ncontent-length: 0\r\n\r\n")
    world.accept().deliver(YES)
    assert status_of(client.take()) == 403
    assert [one.result for one in world.records[1].decisions] == ["allowed", "denied"]


def test_tokens_are_not_known_yet_when_the_authoriser_is_chosen() -> None:
    claims = Rule(when=(Condition(key="request.auth.principal", values=("*",)),))
    world = World(resources(Policy(name="default/ask", action="CUSTOM", rules=(claims,), provider="opa")), "in")
    world.client().deliver(GET)
    assert world.dials[0].endpoint.address == APP


# -- bodies


POST = b"POST /a HTTP/1.1\r\nhost: books\r\ncontent-length: 6\r\n\r\n"


def test_the_authoriser_gets_the_body_and_the_app_gets_it_too() -> None:
    asked = Asked(POST, include_body=10)
    assert asked.dialled == []  # not all is here yet
    asked.client.deliver(b"abc")
    assert asked.dialled == []
    asked.client.deliver(b"def")
    authoriser = asked.authoriser()
    question = authoriser.take()
    assert question.endswith(b"\r\n\r\nabcdef")
    assert b"x-envoy-auth-partial-body: false\r\n" in question and b"content-length: 6\r\n" in question
    authoriser.deliver(YES)
    app = asked.app()
    assert app.take().endswith(b"abcdef")
    app.deliver(OK)
    assert status_of(asked.client.take()) == 200
    asked.settled()


def test_part_of_the_body_will_do_where_that_is_allowed() -> None:
    asked = Asked(POST, include_body=4, allow_partial_body=True)
    asked.client.deliver(b"abcde")
    authoriser = asked.authoriser()
    question = authoriser.take()
    assert question.endswith(b"\r\n\r\nabcd") and b"x-envoy-auth-partial-body: true\r\n" in question
    authoriser.deliver(YES)
    app = asked.app()
    asked.client.deliver(b"f")
    assert app.take().endswith(b"abcdef")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_too_large_for_the_question_is_refused(chunked: bool) -> None:
    request = b"POST /a HTTP/1.1\r\nhost: books\r\ntransfer-encoding: chunked\r\n\r\n6\r\nabcdef\r\n" if chunked else POST
    asked = Asked(request, include_body=4)
    answer = asked.client.take()
    assert status_of(answer) == 413
    assert asked.world.records[0].detail == "request_payload_too_large"
    assert asked.dialled == []
    asked.settled()


def test_a_chunked_body_with_trailers_is_forwarded_whole() -> None:
    head = b"POST /a HTTP/1.1\r\nhost: books\r\ntransfer-encoding: chunked\r\ntrailer: x\r\n\r\n"
    asked = Asked(head + b"3\r\nabc\r\n", include_body=10)
    asked.client.deliver(b"0\r\nx: y\r\n\r\n")
    authoriser = asked.authoriser()
    assert authoriser.take().endswith(b"\r\n\r\nabc")
    authoriser.deliver(YES)
    assert asked.app().take().endswith(b"3\r\nabc\r\n0\r\nx: y\r\n\r\n")


def test_who_waits_for_a_100_is_asked_for_the_body() -> None:
    asked = Asked(POST[:-2] + b"expect: 100-continue\r\n\r\n", include_body=10)
    assert asked.client.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    asked.client.deliver(b"abcdef")
    asked.authoriser().deliver(YES)
    assert b"expect" not in asked.app().take()


def test_a_large_body_waits_in_the_client_while_the_authoriser_thinks() -> None:
    asked = Asked(b"POST /a HTTP/1.1\r\nhost: books\r\ncontent-length: 400000\r\n\r\n")
    authoriser = asked.authoriser()
    asked.client.deliver(b"x" * 300_000)
    assert not asked.client.reading
    authoriser.deliver(YES)
    app = asked.app()
    assert asked.client.reading
    asked.client.deliver(b"x" * 100_000)
    assert app.take().count(b"x" * 1000) == 400


def test_a_body_more_than_is_held_otherwise_reaches_the_question() -> None:
    asked = Asked(b"POST /a HTTP/1.1\r\nhost: books\r\ncontent-length: 400000\r\n\r\n", include_body=500_000)
    asked.client.deliver(b"x" * 300_000)
    asked.client.deliver(b"x" * 100_000)
    assert asked.authoriser().take().count(b"x" * 1000) == 400


def test_the_route_s_timeout_begins_with_the_first_try() -> None:
    asked = Asked(POST + b"abcdef", timeout=60.0)
    authoriser = asked.authoriser()
    asked.world.clock.advance(10.0)
    assert asked.client.take() == b""
    authoriser.deliver(YES)
    asked.app()
    asked.world.clock.advance(5.1)
    assert status_of(asked.client.take()) == 504


# -- ends


@pytest.mark.parametrize("how", ["dialling", "asked", "half an answer", "half a body"])
def test_a_client_that_goes_away_takes_its_question_along(how: str) -> None:
    asked = Asked(POST, include_body=10) if how == "half a body" else Asked()
    wire = None
    if how in ("asked", "half an answer"):
        wire = asked.authoriser()
    if wire is not None and how == "half an answer":
        wire.deliver(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nha")
    asked.client.lose()
    assert [record.flags for record in asked.world.records] == [(Reason.DOWNSTREAM_GONE,)]
    assert wire is None or wire.closing
    asked.settled()


def test_an_answer_leaves_the_authoriser_s_connection_for_the_next() -> None:
    asked = Asked()
    authoriser = asked.authoriser()
    authoriser.deliver(b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n")
    authoriser.take()
    asked.client.deliver(GET)
    assert asked.dialled == [] and authoriser.take().startswith(b"GET /a?q=1 ")


def test_a_configuration_that_changes_meanwhile_is_for_the_next_request() -> None:
    asked = Asked()
    authoriser = asked.authoriser()
    asked.world.install(resources(Policy(name="default/nothing")))
    authoriser.deliver(YES)
    asked.app().deliver(OK)
    assert status_of(asked.client.take()) == 200
    asked.client.deliver(GET)
    assert status_of(asked.client.take()) == 403
