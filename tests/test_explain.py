"""Explain says what the walk does, and why."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest

from meshproxy.apply import Snapshot, compile_snapshot
from meshproxy.explain import explain, listener_for, overlay, request_from
from meshproxy.model.cluster import Cluster, Endpoint, Endpoints, Outlier, Service, Workload
from meshproxy.model.listener import Listener
from meshproxy.model.match import ClaimMatch, HeaderMatch, RouteMatch
from meshproxy.model.route import (
    Abort,
    Cors,
    DirectResponse,
    Fault,
    HeaderOps,
    Mirror,
    Redirect,
    Retry,
    Rewrite,
    Route,
)
from meshproxy.model.security import (
    ClientTls,
    ExtAuthz,
    JwtProvider,
    Policy,
    Rule,
    Security,
    ServerTls,
    Source,
    Trust,
)
from tests.policy.fakes import config, exact, get, host, prefix, rule, to
from tests.test_apply import EDGE, OUT, Maker, resources

Mode = Literal["DISABLE", "PERMISSIVE", "STRICT"]
DOOR = Listener(name="inbound|8080", direction="inbound", port=8080, route="inbound|8080", mtls="PERMISSIVE")
PODS = tuple(
    Endpoint(address=f"127.1.0.{number}", port=8080, workload=Workload(pod=f"rating-v{number}", version=f"v{number}"))
    for number in (1, 2)
)
ROUTES = config(
    host(
        Route(
            name="canary",
            match=RouteMatch(path=prefix("/rate"), headers=(HeaderMatch(name="x-user", match=exact("jo")),)),
            action=to("a"),
            source="VirtualService default/rating http[0].match[0]",
        ),
        Route(
            name="split",
            match=RouteMatch(path=prefix("/rate")),
            action=to(
                "a=75",
                "gone=25",
                timeout=2.0,
                retry=Retry(attempts=2, on=("5xx",), per_try_timeout=1.0),
                mirrors=(Mirror(cluster="a", percent=10.0),),
                rewrite=Rewrite(prefix=("/rate", "/v2/rate")),
            ),
            request_headers=HeaderOps(set=(("x-added", "1"),), remove=("x-secret",)),
            fault=Fault(abort=Abort(percent=0.5, status=503)),
            cors=Cors(allow_origins=(exact("https://ok"),)),
            source="VirtualService default/rating http[1]",
        ),
        Route(name="moved", match=RouteMatch(path=exact("/old")), action=Redirect(path="/new")),
        Route(name="tea", match=RouteMatch(path=exact("/tea")), action=DirectResponse(status=418, body=b"tea")),
        domains=("rating", "rating.default"),
        name="rating:8080",
    ),
    name="8080",
)


def snapshot(*more: object) -> Snapshot:
    items = (
        Cluster(
            name="a",
            service=Service(host="rating.default.svc.cluster.local", name="rating", namespace="default"),
            outlier=Outlier(consecutive_5xx=1, max_ejection_percent=100, base_ejection=180.0),
            source="DestinationRule default/rating",
        ),
        Endpoints(name="a", endpoints=PODS),
        ROUTES,
        OUT,
        *more,
    )
    return compile_snapshot(resources(*items), None, Maker(), "v7")  # type: ignore[arg-type]


def test_a_split() -> None:
    told = explain(snapshot(), "outbound", {"url": "http://rating:8080/rate/./1?x=1", "headers": {"x-secret": "s"}}).as_dict()
    json.dumps(told)
    assert told["request"] == {"method": "GET", "authority": "rating:8080", "path": "/rate/1?x=1", "pathAsGiven": "/rate/./1?x=1"}
    assert (told["decision"], told["snapshot"], "status" in told) == ("forward", "v7", False)
    assert told["route"] == {"name": "split", "source": "VirtualService default/rating http[1]", "kind": "forward"}
    first, second = told["destinations"]
    assert (first["cluster"], first["percent"], first["source"]) == ("a", 75.0, "DestinationRule default/rating")
    assert first["forwarded"] == {
        "authority": "rating:8080",
        "path": "/v2/rate/1?x=1",
        "headersSet": {"x-added": "1", "x-envoy-original-path": "/rate/1?x=1"},
        "headersRemoved": ["x-secret"],
    }
    assert [(one["address"], one["version"], one["healthy"]) for one in first["endpoints"]] == [
        ("127.1.0.1:8080", "v1", True),
        ("127.1.0.2:8080", "v2", True),
    ]
    assert first["outlierDetection"]["base_ejection"] == 180.0
    assert (second["known"], second["percent"]) == (False, 25.0) and "NC" in second["reason"]
    assert told["policy"] == {
        "timeoutSeconds": 2.0,
        "retries": {"attempts": 2, "on": ["5xx"], "perTryTimeoutSeconds": 1.0, "avoidsPreviousHosts": True},
        "mirrors": [{"cluster": "a", "percent": 10.0}],
        "abort": {"status": 503, "percent": 0.5},
        "cors": "no Origin header",
    }
    assert [(step["name"], step["taken"]) for step in told["steps"]] == [
        ("rating:8080", True),
        ("canary", False),
        ("split", True),
        ("moved", False),
        ("tea", False),
    ]
    assert told["steps"][1]["reason"] == 'header x-user is "jo": it is absent'


def test_an_ejected_endpoint_says_when_it_is_back() -> None:
    found = snapshot()
    live = found.clusters["a"]
    live.report(live.endpoints[1], 503, False, 100.0)
    told = explain(found, "outbound", {"url": "http://rating:8080/rate/1"}, now=110.0).as_dict()
    sick = told["destinations"][0]["endpoints"][1]
    assert (sick["healthy"], sick["state"], sick["backInSeconds"]) == (False, "ejected by outlier detection", 170.0)
    live.report(live.endpoints[0], 503, False, 100.0)
    told = explain(found, "outbound", {"url": "http://rating:8080/rate/1"}).as_dict()
    assert told["destinations"][0]["reason"] == "every endpoint is ejected: 503, UH"


def test_looking_changes_nothing() -> None:
    found = snapshot()
    request = get("/rate/1", x_secret="s")
    explain(found, "outbound", request)
    assert (request.target, request.headers) == (b"/rate/1", [(b"x-secret", b"s")])
    assert all(one.active == 0 and one.rq_total == 0 for one in found.clusters["a"].endpoints)


def test_redirect_direct_response_preflight() -> None:
    found = snapshot()
    moved = explain(found, "outbound", {"url": "http://rating:8080/old"})
    assert (moved.decision, moved.status) == ("redirect", 301)
    assert moved.answer is not None and moved.answer["headers"]["location"] == "http://rating:8080/new"
    tea = explain(found, "outbound", {"url": "http://rating:8080/tea"})
    assert (tea.decision, tea.status, tea.answer and tea.answer["body"]) == ("direct response", 418, "tea")
    headers = {"Origin": "https://ok", "Access-Control-Request-Method": "GET"}
    preflight = explain(found, "outbound", {"method": "options", "url": "http://rating:8080/rate/1", "headers": headers})
    assert (preflight.decision, preflight.status) == ("preflight", 200)


def test_no_route_no_cluster_refused_and_unknown_hosts() -> None:
    found = snapshot()
    lost = explain(found, "outbound", {"url": "http://rating:8080/nothing"})
    assert (lost.decision, lost.status, lost.route) == ("no route", 404, None)
    assert all(not step.taken for step in lost.steps if step.what == "route")
    assert explain(found, "outbound", {"url": "http://rating:8080/a%00"}).decision == "refused"
    away = explain(found, "outbound", {"url": "http://example.org/"})
    assert away.route is not None and away.route["name"] == "allow_any"
    assert away.destinations[0]["endpoints"] == [{"address": "example.org", "state": "dialled as asked"}]
    assert away.steps[0].reason == "no routes are known for port 80"
    nobody = compile_snapshot(resources(config(host(rule("zz")), name="8080"), OUT), None, Maker())
    none = explain(nobody, "outbound", {"url": "http://rating:8080/"})
    assert (none.decision, none.status) == ("no cluster", 503)


def test_an_empty_cluster_says_so() -> None:
    found = compile_snapshot(resources(Cluster(name="a"), config(host(rule("a")), name="http.80"), EDGE), None, Maker())
    told = explain(found, "gateway|80", {"authority": "x", "path": "y"})
    assert told.request["path"] == "/y"
    assert "UH" in told.destinations[0]["reason"]


def test_many_hosts_are_cut_short_the_nearest_kept() -> None:
    hosts = [host(rule("a"), domains=(f"s{number}",)) for number in range(100)]
    routes = config(*hosts, host(rule("a"), domains=("*",), name="any"), name="http.80")
    found = compile_snapshot(resources(Cluster(name="a"), routes, EDGE), None, Maker())
    told = explain(found, "gateway|80", {"url": "http://s5/"})
    losers = [step for step in told.steps if not step.taken]
    assert (losers[0].name, losers[-1].reason) == ("any", "80 other virtual hosts do not have this host either")
    assert [step.name for step in told.steps if step.taken] == ["s5", "a"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"path": "/x"}, "authority"),
        ({"url": "ftp://x/"}, "http or https"),
        ({"url": "http://x/", "verb": "GET"}, "verb: unknown"),
    ],
)
def test_bad_requests(given: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        request_from(given)


def test_requests_in_short_form() -> None:
    assert request_from({"url": "rating:8080/a"}).authority == b"rating:8080"
    assert request_from({"url": "/a?b", "headers": {"Host": "h"}}).authority == b"h"
    assert request_from({"url": "http://u:p@h/"}).authority == b"h"
    assert request_from({"url": "http://h", "headers": {"X-A": ["1", "2"]}}).headers == [(b"x-a", b"1"), (b"x-a", b"2")]


def test_the_source_is_what_a_gateway_forwards_for() -> None:
    echo = rule("a", request_headers=HeaderOps(set=(("x-from", "%REQ(x-forwarded-for)%"),)))
    found = compile_snapshot(resources(Cluster(name="a"), config(host(echo), name="http.80"), EDGE), None, Maker())
    told = explain(found, "gateway|80", {"url": "http://x/", "source": "203.0.113.9"})
    assert told.destinations[0]["forwarded"]["headersSet"] == {"x-from": "203.0.113.9"}


def test_policies_of_the_workload_are_told_rule_by_rule() -> None:
    allow = Policy(name="default/web", rules=(Rule(sources=(Source(principals=("cluster.local/ns/default/sa/web",)),)),))
    asks = Policy(name="default/ask", action="CUSTOM", rules=(Rule(),), provider="opa")
    both = (config(host(Route(name="r", action=to("a"))), name=name) for name in ("inbound|8080", "8080"))
    tables: dict[str, Any] = resources(OUT, DOOR, Cluster(name="a"), Endpoints(name="a", endpoints=PODS), *both)
    tables["security"] = {"workload": Security(policies=(allow, asks), ext_authz=(ExtAuthz(name="opa", cluster="a"),))}
    made = compile_snapshot(tables, None, Maker())
    denied = explain(made, DOOR.name, {"url": "http://rating/", "principal": "cluster.local/ns/default/sa/other"}).as_dict()
    assert (denied["decision"], denied["status"]) == ("denied", 403)
    assert denied["answer"]["body"] == "RBAC: access denied"
    assert denied["answer"]["detail"] == "rbac_access_denied_matched_policy[none]"
    rows = [(row["policy"], row["matched"], row["reason"]) for row in denied["authorization"]]
    assert rows == [
        ("default/ask", True, "it matches every request"),
        ("default/web", False, 'principals is cluster.local/ns/default/sa/web: it is "cluster.local/ns/default/sa/other"'),
    ]
    passed = explain(made, DOOR.name, {"url": "http://rating/", "principal": "cluster.local/ns/default/sa/web"}).as_dict()
    assert passed["decision"] != "denied" and passed["authorization"][1]["matched"]
    assert "authorization" not in explain(made, OUT.name, {"url": "http://rating/"}).as_dict()


def test_an_unknown_listener() -> None:
    with pytest.raises(KeyError, match="outbound"):
        explain(snapshot(), "inbound", get())


def test_the_listener_when_nobody_says() -> None:
    assert listener_for(snapshot(), {"url": "http://rating:8080/"}) == "outbound"
    one = compile_snapshot(resources(Cluster(name="a"), config(host(rule("a")), name="http.80"), EDGE), None, Maker())
    assert listener_for(one, {"url": "http://x:9999/"}) == "gateway|80"  # there is only this one
    other = Listener(name="gateway|81", direction="gateway", port=81, route="http.80")
    both = compile_snapshot(resources(Cluster(name="a"), config(host(rule("a")), name="http.80"), EDGE, other), None, Maker())
    assert listener_for(both, {"url": "http://x:81/"}) == "gateway|81"
    assert listener_for(both, {"url": "http://x/"}) == "gateway|80"
    with pytest.raises(ValueError, match=r"say which one is meant, with --listener; there are gateway\|80, gateway\|81"):
        listener_for(both, {"url": "http://x:99/"})


def test_local_answers_are_told_whole() -> None:
    lost = explain(snapshot(), "outbound", {"url": "http://rating:8080/nothing"}).answer
    assert lost == {"status": 404, "flag": "NR", "detail": "route_not_found"}
    empty = compile_snapshot(resources(Cluster(name="a"), config(host(rule("a")), name="http.80"), EDGE), None, Maker())
    told = explain(empty, "gateway|80", {"url": "http://x/"})
    assert (told.decision, told.status) == ("no healthy upstream", 503)
    assert told.answer is not None and told.answer["body"] == "no healthy upstream"
    always = rule("a", fault=Fault(abort=Abort(percent=100.0, status=500)))
    told = explain(snapshot(config(host(always, domains=("rating",)), name="8080")), "outbound", {"url": "http://rating:8080/"})
    assert (told.decision, told.status, told.answer and told.answer["body"]) == ("fault", 500, "fault filter abort")


def test_response_edits_of_destination_and_route() -> None:
    edited = rule("a", response_headers=HeaderOps(set=(("x-route", "1"),), remove=("x-debug",)))
    told = explain(snapshot(config(host(edited, domains=("rating",)), name="8080")), "outbound", {"url": "http://rating:8080/"})
    assert told.destinations[0]["responseHeaders"] == {"set": {"x-route": "1"}, "remove": ["x-debug"]}


def test_the_state_that_workers_tell() -> None:
    told = explain(snapshot(), "outbound", {"url": "http://rating:8080/rate/1"}).as_dict()
    sick = {"address": "127.1.0.2:8080", "health": "failed_outlier_check", "ejected_for": 12.34, "rq_active": 2}
    overlay(told, [{"name": "a", "endpoints": [sick]}, {"name": "b", "endpoints": []}])
    first, second = told["destinations"][0]["endpoints"]
    assert first["healthy"] and "state" not in first
    assert (second["healthy"], second["backInSeconds"], second["activeRequests"]) == (False, 12.3, 2)


# -- identity and policy

BOOK, JO = "cluster.local/ns/default/sa/book", "https://issuer/jo"
ALLOW = Policy(name="default/allow", rules=(Rule(sources=(Source(principals=(BOOK,)),)),))
PROVIDER = JwtProvider(
    source="RequestAuthentication default/jwt jwtRules[0]", issuer="https://issuer", claim_headers=(("x-sub", "sub"),)
)


def guarded(mode: Mode = "PERMISSIVE", trust: Trust | None = None, **security: Any) -> Snapshot:
    door = Listener(name="inbound|8080", direction="inbound", port=8080, route="inbound|8080", mtls=mode, mtls_source="P")
    found: dict[str, Any] = resources(
        door, Cluster(name="a"), Endpoints(name="a", endpoints=PODS), config(host(rule("a")), name="inbound|8080")
    )
    found["security"] = {"workload": Security(**security)} if security else {}
    found["trust"] = {"mesh": trust} if trust is not None else {}
    return compile_snapshot(found, None, Maker())


@pytest.mark.parametrize(
    ("mode", "principal", "trust", "refused"),
    [
        ("PERMISSIVE", BOOK, None, ""),
        ("PERMISSIVE", "", None, ""),
        ("STRICT", BOOK, None, ""),
        ("STRICT", "", None, "plaintext where mutual TLS is demanded"),
        ("DISABLE", BOOK, None, "a TLS handshake where only plaintext is spoken"),
        ("DISABLE", "", None, ""),
        ("STRICT", "other/ns/a/sa/b", None, "the peer's trust domain is not of this mesh"),
        ("STRICT", "other/ns/a/sa/b", Trust(aliases=("other",)), ""),
        ("PERMISSIVE", BOOK, Trust(revoked_identities=(f"spiffe://{BOOK}",)), "the peer's certificate or identity is revoked"),
    ],
)
def test_the_door(mode: Mode, principal: str, trust: Trust | None, refused: str) -> None:
    told = explain(guarded(mode, trust), "inbound|8080", {"url": "http://rating/", "principal": principal}).as_dict()
    assert (told["mtls"]["mode"], told["mtls"]["source"]) == (mode, "P")
    assert told["mtls"].get("refused", "") == refused
    assert told["decision"] == ("not let in" if refused else "forward")
    assert told["caller"]["principal"] == principal


def test_a_short_principal_is_of_this_mesh_and_a_wrong_one_is_told() -> None:
    found = guarded("STRICT", Trust(domain="mine"), policies=(ALLOW,))
    told = explain(found, "inbound|8080", {"url": "http://rating/", "principal": "default/book"})
    assert (told.decision, told.caller["principal"]) == ("forward", "mine/ns/default/sa/book")
    with pytest.raises(ValueError, match="principal: must be NAMESPACE/ACCOUNT"):
        explain(found, "inbound|8080", {"url": "http://rating/", "principal": "book"})


def test_what_decided_is_said() -> None:
    found = guarded(policies=(ALLOW,))
    passed = explain(found, "inbound|8080", {"url": "http://rating/", "principal": BOOK})
    assert (passed.decision, passed.because) == ("forward", "rule 0 of ALLOW policy default/allow matched")
    denied = explain(found, "inbound|8080", {"url": "http://rating/"})
    assert (denied.decision, denied.status, denied.because) == ("denied", 403, "no ALLOW policy matched")
    assert denied.authorization[0]["reason"] == f"principals is {BOOK}: it is absent"


def test_a_token_is_judged_and_never_shown() -> None:
    token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL290aGVyIn0.c2lnbmF0dXJl"
    found = guarded(jwt=(PROVIDER,), policies=(ALLOW,))
    for request in (
        {"url": "http://rating/", "headers": {"Authorization": f"Bearer {token}"}},
        {"url": f"http://rating/?access_token={token}"},
    ):
        told = explain(found, "inbound|8080", request, wall=1e9).as_dict()
        assert (told["decision"], told["status"], told["answer"]["body"]) == ("denied", 401, "Jwt issuer is not configured")
        assert told["because"] == '401 "Jwt issuer is not configured"'
        assert "authorization" not in told, "the rules are never asked"
        assert token not in json.dumps(told)
    out = explain(snapshot(), "outbound", {"url": f"http://rating:8080/rate/1?access_token={token}&x=1"}).as_dict()
    assert token not in json.dumps(out) and out["request"]["path"] == "/rate/1?access_token=***&x=1"


def test_claims_are_taken_as_verified_by_the_provider_whose_issuer_they_name() -> None:
    end_user = Policy(name="default/users", rules=(Rule(sources=(Source(request_principals=(JO,)),)),))
    found = guarded(jwt=(PROVIDER,), policies=(end_user,))
    asked: dict[str, Any] = {"url": "http://rating/", "claims": {"iss": "https://issuer", "sub": "jo"}}
    told = explain(found, "inbound|8080", asked, wall=1e9).as_dict()
    assert told["decision"] == "forward" and told["tokens"][-1]["reason"] == f"claims taken as verified; principal {JO}"
    assert told["destinations"][0]["forwarded"]["headersSet"] == {"x-sub": "jo"}
    for claims, body in (
        ({"iss": "https://other", "sub": "jo"}, "Jwt issuer is not configured"),
        ({"iss": "https://issuer", "exp": 1}, "Jwt is expired"),
        ({"iss": 3}, "Jwt payload [iss] field is not a string"),
    ):
        refused = explain(found, "inbound|8080", {"url": "http://rating/", "claims": claims}, wall=1e9)
        assert (refused.status, refused.answer and refused.answer["body"]) == (401, body)
    nobody = explain(found, "inbound|8080", {"url": "http://rating/"}, wall=1e9)
    assert (nobody.status, nobody.because) == (403, "no ALLOW policy matched")
    unread = explain(guarded(), "inbound|8080", asked, wall=1e9)
    assert "nobody reads tokens here" in unread.tokens[0].reason
    with pytest.raises(ValueError, match="claims: must be a mapping"):
        explain(found, "inbound|8080", {"url": "http://rating/", "claims": "x"})


def test_an_authoriser_is_named_and_not_asked() -> None:
    asks = Policy(name="default/ask", action="CUSTOM", rules=(Rule(),), provider="opa")
    told = explain(
        guarded(policies=(asks,), ext_authz=(ExtAuthz(name="opa", cluster="a"),)), "inbound|8080", {"url": "http://rating/"}
    )
    assert (told.decision, told.asks) == ("forward", ["opa"])
    unknown = explain(guarded(policies=(asks,)), "inbound|8080", {"url": "http://rating/"})
    assert (unknown.decision, unknown.asks) == ("denied", []) and "provider is unknown" in unknown.because


def test_how_endpoints_are_spoken_to() -> None:
    def told(tls: ClientTls | None, source: str = "", mtls: bool = True) -> dict[str, Any]:
        workload = Workload(
            pod="rating-1", namespace="default", workload="rating", principal="cluster.local/ns/default/sa/rating"
        )
        ends = (Endpoint(address="127.1.0.1", port=8080, mtls=mtls, workload=workload), Endpoint(address="127.1.0.2", port=8080))
        group = Endpoints(
            name="outbound|8080||rating", endpoints=ends, identities=("spiffe://cluster.local/ns/default/sa/rating",)
        )
        cluster = Cluster(name=group.name, tls=tls, source=source)
        routes = config(host(rule(group.name), domains=("rating",)), name="8080")
        made = compile_snapshot(resources(cluster, group, routes, OUT), None, Maker())
        found: dict[str, Any] = explain(made, "outbound", {"url": "http://rating:8080/"}).as_dict()["destinations"][0]
        return found

    auto = told(ClientTls(sni="outbound_.8080_._.rating"))
    assert auto["tls"] == {
        "mode": "AUTO",
        "source": "automatic",
        "sni": "outbound_.8080_._.rating",
        "identities": ["spiffe://cluster.local/ns/default/sa/rating"],
    }
    assert [one["tls"] for one in auto["endpoints"]] == ["mutual TLS", "plaintext"]
    assert "refused" not in auto["endpoints"][0]
    other = told(ClientTls(mode="ISTIO_MUTUAL", sans=("spiffe://cluster.local/ns/x/sa/y",)), "DestinationRule default/rating")
    assert other["tls"]["source"] == "DestinationRule default/rating"
    assert other["endpoints"][0]["refused"].startswith("the peer is not who it should be")
    assert told(None, "DestinationRule default/rating")["tls"] == {
        "mode": "plaintext",
        "why": "switched off by DestinationRule default/rating",
    }
    assert told(None, mtls=False)["tls"] == {"mode": "plaintext"}
    simple = told(ClientTls(mode="SIMPLE", sni="api.example.com"))
    assert (simple["tls"]["sni"], simple["endpoints"][0]["tls"]) == ("api.example.com", "TLS (SIMPLE)")
    assert "problem" not in simple


def test_a_gateways_tls_server_is_chosen_by_name() -> None:
    servers = (
        ServerTls(hosts=("a.example.com",), route="https.a", secret="x"),
        ServerTls(hosts=("b.example.com",), route="https.b", secret="x", mode="MUTUAL", source="Gateway default/g servers[1]"),
    )
    edge = Listener(name="gateway|443", direction="gateway", port=443, tls=servers)
    tables = [config(host(Route(name=name, action=DirectResponse(status=200))), name=f"https.{name}") for name in ("a", "b")]
    made = compile_snapshot(resources(edge, *tables), None, Maker())
    for name in ("a", "b"):
        told = explain(made, "gateway|443", {"url": f"https://{name}.example.com/"}).as_dict()
        assert told["route"]["name"] == name and told["listener"] == "gateway|443"
    assert "client certificate" in told["mtls"]["demands"]
    lost = explain(made, "gateway|443", {"url": "https://c.example.com/"})
    assert (lost.decision, lost.mtls["refused"]) == ("not let in", "no server here has the name that was asked for")
    plain = explain(made, "gateway|443", {"url": "http://a.example.com:443/"})
    assert (plain.decision, plain.mtls["refused"]) == ("not let in", "plaintext where TLS is demanded")


def test_a_gateway_chooses_by_verified_claims_and_tells_what_it_takes_out() -> None:
    by_claim = Route(name="staff", match=RouteMatch(claims=(ClaimMatch(path=("role",), match=exact("staff")),)), action=to("a"))
    tables: dict[str, Any] = resources(EDGE, Cluster(name="a"), config(host(by_claim, rule("a")), name="http.80"))
    tables["security"] = {"workload": Security(jwt=(PROVIDER,))}
    made = compile_snapshot(tables, None, Maker())
    staff = {"iss": "https://issuer", "sub": "jo", "role": "staff"}
    told = explain(made, EDGE.name, {"url": "http://x/", "claims": staff}, wall=1e9)
    assert told.route is not None and told.route["name"] == "staff"
    other = explain(made, EDGE.name, {"url": "http://x/", "headers": {"x-sub": "forged"}}, wall=1e9)
    assert other.route is not None and other.route["name"] != "staff"
    assert other.tokens[0].reason == "only the proxy may write this header: taken out"
    assert "x-sub" in other.destinations[0]["forwarded"]["headersRemoved"]
