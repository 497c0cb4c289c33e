"""End-user tokens on the whole data path: answers, what reaches the app, spoofed headers, routes by claims."""

from __future__ import annotations

from typing import Any

import pytest

from meshproxy.apply import Refused, compile_snapshot
from meshproxy.message.reason import Reason
from meshproxy.model.cluster import Workload
from meshproxy.model.listener import Listener
from meshproxy.model.match import ClaimMatch, HeaderMatch, RouteMatch, StringMatch
from meshproxy.model.route import Cors, DirectResponse, Forward, Rewrite, Route, RouteConfig, VirtualHost, WeightedCluster
from meshproxy.model.security import JwtProvider, Security
from meshproxy.model.telemetry import Telemetry, Tracing
from meshproxy.policy import format as formats
from meshproxy.telemetry.spans import Span, span_of
from tests.flow.memnet import OK, Wire, World, simple, status_of
from tests.policy.jwt_keys import DATA, ISSUER, article, jwk, jwks, provider, token

FORWARD = Forward(clusters=(WeightedCluster(cluster="c"),))
LISTENER = {"inbound": "inbound|8080", "gateway": "gateway|8080"}


def resources(direction: str, *jwt: JwtProvider, routes: tuple[Route, ...] = ()) -> dict[str, dict[str, Any]]:
    table = RouteConfig(
        name="in",
        virtual_hosts=(VirtualHost(name="any", domains=("*",), routes=routes or (Route(name="r", action=FORWARD),)),),
    )
    name = LISTENER[direction]
    made = simple(endpoints=1, more={"route": {"in": table}})
    made["listener"] = {name: Listener(name=name, direction=direction, port=8080, route="in")}  # type: ignore[arg-type]
    if jwt:
        made["security"] = {"workload": Security(jwt=jwt)}
    return made


def world_of(direction: str = "inbound", *jwt: JwtProvider, routes: tuple[Route, ...] = ()) -> World:
    return World(resources(direction, *jwt, routes=routes), listener=LISTENER[direction])


def request(text: bytes = b"", target: bytes = b"/a", method: bytes = b"GET", more: bytes = b"") -> bytes:
    bearer = b"authorization: Bearer " + text + b"\r\n" if text else b""
    return method + b" " + target + b" HTTP/1.1\r\nhost: shop:8080\r\n" + bearer + more + b"\r\n"


def forwarded(world: World, data: bytes) -> bytes:
    """What reaches the app."""
    client = world.client()
    client.deliver(data)
    server: Wire = world.accept()
    sent = server.take()
    server.deliver(OK)
    assert status_of(client.take()) == 200
    server.lose()
    return sent


def answer(world: World, data: bytes) -> bytes:
    client = world.client()
    client.deliver(data)
    assert not world.dials
    return client.take()


# The virtual clock stands at 1000; tokens of these tests end at 5000.
GOOD = token(exp=5000)
ARTICLE = provider(issuer="testing@secure.istio.io", jwks=(DATA / "jwks.json").read_text())


@pytest.mark.parametrize("direction", ["inbound", "gateway"])
def test_the_articles_walk(direction: str) -> None:
    world = world_of(direction, ARTICLE)
    got = answer(world, request(article("invalid-signature"), b"/book/1"))
    assert status_of(got) == 401
    assert got.endswith(b"\r\n\r\nJwt verification fails")
    assert b"\r\ncontent-type: text/plain\r\n" in got
    assert b'\r\nwww-authenticate: Bearer realm="http://shop:8080/book/1", error="invalid_token"\r\n' in got
    (record,) = world.records
    assert (record.status, record.flags) == (401, (Reason.TOKEN_REFUSED,))
    assert record.detail == "jwt_authn_access_denied{Jwt_verification_fails}"
    sent = forwarded(world, request(article("valid-no-role")))
    assert b"authorization" not in sent
    assert b"GET /a HTTP/1.1" in forwarded(world, request())  # without a token
    world.settled()


def test_outbound_looks_at_no_token() -> None:
    made = simple(endpoints=1)
    made["security"] = {"workload": Security(jwt=(provider(),))}
    world = World(made)
    client = world.client()
    client.deliver(b"GET /a HTTP/1.1\r\nhost: rating:8080\r\nauthorization: Bearer rubbish\r\n\r\n")
    assert b"authorization: Bearer rubbish\r\n" in world.accept().take()


def test_the_audience_is_a_403() -> None:
    world = world_of("inbound", provider(audiences=("a",)))
    got = answer(world, request(GOOD))
    assert status_of(got) == 403
    assert got.endswith(b"\r\n\r\nAudiences in Jwt are not allowed")
    assert b'error="invalid_token"' in got
    assert world.records[0].flags == (Reason.TOKEN_AUDIENCE,)


def test_a_head_request_gets_no_body() -> None:
    got = answer(world_of("inbound", provider()), request(b"a.b.c", method=b"HEAD"))
    assert status_of(got) == 401
    assert got.endswith(b"\r\n\r\n")


def test_the_realm_is_cut_and_cannot_be_broken_out_of() -> None:
    world = world_of("inbound", provider())
    got = answer(world, request(b"x", b"/" + b"p" * 300))
    assert b'realm="http://shop:8080/' + b"p" * 255 + b'", error' in got
    got = answer(world, request(b"x", b'/a?b="c\\'))
    assert b'realm="http://shop:8080/a?b=%22c%5C", error' in got


def test_a_token_in_the_query_is_neither_echoed_nor_logged_nor_passed_on() -> None:
    world = world_of("inbound", provider())
    got = answer(world, request(target=b"/a?x=1&access_token=SECRET"))
    assert status_of(got) == 401
    assert b"SECRET" not in got
    assert b'realm="http://shop:8080/a?x=1"' in got
    sent = forwarded(world, request(target=b"/a?access_token=" + GOOD + b"&x=1"))
    assert sent.startswith(b"GET /a?x=1 HTTP/1.1\r\n")
    assert [record.path for record in world.records] == [b"/a?x=1", b"/a?x=1"]
    kept = world_of("inbound", provider(forward=True))
    sent = forwarded(kept, request(target=b"/a?access_token=" + GOOD))
    assert b"access_token=" + GOOD in sent
    assert kept.records[0].path == b"/a"


def test_forwarding() -> None:
    assert b"authorization: Bearer " + GOOD in forwarded(world_of("inbound", provider(forward=True)), request(GOOD))
    cookie = provider(from_cookies=("t",))
    assert b"cookie: t=" + GOOD in forwarded(world_of("inbound", cookie), request(more=b"cookie: t=" + GOOD + b"\r\n"))


def test_spoofed_headers_never_arrive() -> None:
    one = provider(claim_headers=(("x-sub", "sub"), ("x-role", "role")), payload_header="x-payload")
    spoofed = b"x-sub: root\r\nX-Role: admin\r\nx-payload: e30\r\nx-other: 1\r\n"
    world = world_of("gateway", one)
    for data in (request(more=spoofed), request(more=spoofed, method=b"OPTIONS")):
        sent = forwarded(world, data)
        assert b"root" not in sent and b"admin" not in sent and b"e30" not in sent
        assert b"x-other: 1\r\n" in sent
    preflight = b"origin: http://a\r\naccess-control-request-method: GET\r\n" + spoofed
    sent = forwarded(world, request(b"rubbish", more=preflight, method=b"OPTIONS"))
    assert b"root" not in sent
    sent = forwarded(world, request(GOOD, more=spoofed))
    assert b"x-sub: ann\r\n" in sent
    assert b"x-payload: " + GOOD.split(b".")[1] in sent
    assert b"root" not in sent and b"admin" not in sent and sent.count(b"x-sub") == 1


def test_a_preflight_passes_unjudged_and_nothing_else_does() -> None:
    world = world_of("inbound", provider())
    asked = b"origin: http://a\r\naccess-control-request-method: GET\r\n"
    assert forwarded(world, request(b"rubbish", more=asked, method=b"OPTIONS"))
    assert status_of(answer(world, request(b"rubbish", more=asked))) == 401
    assert status_of(answer(world, request(b"rubbish", more=b"origin: http://a\r\n", method=b"OPTIONS"))) == 401
    world.records.clear()
    assert forwarded(world, request(target=b"/a?access_token=SECRET", more=asked, method=b"OPTIONS"))
    assert [record.path for record in world.records] == [b"/a"], "unjudged, and the log shows no token all the same"


def test_wall_time_decides_also_for_remembered_tokens() -> None:
    world = world_of("inbound", provider())
    client = world.client()
    text = token(exp=2000)
    forwarded(world, request(text))
    world.clock.advance(1060)
    forwarded(world, request(text))
    world.clock.advance(1)
    client.deliver(request(text))
    assert client.take().endswith(b"Jwt is expired")


def test_several_rules() -> None:
    other = "https://other.example"
    world = world_of("inbound", provider(), provider(issuer=other, jwks=jwks(jwk("RS256")), from_headers=(("x-jwt", ""),)))
    sent = forwarded(world, request(GOOD, more=b"x-jwt: " + token("RS256", iss=other, exp=5000) + b"\r\n"))
    assert b"authorization" not in sent and b"x-jwt" not in sent
    got = answer(world, request(GOOD, more=b"x-jwt: " + GOOD + b"\r\n"))
    assert got.endswith(b"Jwt issuer is not configured")


def test_new_keys_are_in_force_at_once_and_equal_ones_keep_what_is_known() -> None:
    world = world_of("inbound", provider())
    forwarded(world, request(GOOD))
    verifier = world.snapshot.guard.verifier
    world.install(resources("inbound", provider()))
    assert world.snapshot.guard.verifier is verifier
    assert GOOD in verifier.known
    world.install(resources("inbound", provider(jwks=jwks(jwk("RS256")))))
    assert answer(world, request(GOOD)).endswith(b"Jwt verification fails")
    world.install(resources("inbound", provider(jwks="")))
    assert answer(world, request(GOOD)).endswith(b"Jwks remote fetch is failed")
    world.install(resources("inbound"))
    assert b"authorization" in forwarded(world, request(b"rubbish"))  # no policy, no filter


def test_a_policy_that_cannot_be_obeyed_is_refused_with_its_path() -> None:
    with pytest.raises(Refused) as caught:
        compile_snapshot(resources("inbound", provider(), provider(payload_header="a b")), None, lambda config, *rest: config)
    assert str(caught.value).startswith("security workload: jwt[1].payload_header: ")


# -- routes by claims


def route(name: str, **match: Any) -> Route:
    return Route(name=name, action=DirectResponse(status=200, body=name.encode()), match=RouteMatch(**match))


def claim(path: str, value: str, kind: Any = "exact", invert: bool = False) -> ClaimMatch:
    return ClaimMatch(tuple(path.split(".")), StringMatch(kind, value), invert)


def body(got: bytes) -> bytes:
    return got.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("direction", ["inbound", "gateway"])
def test_routes_by_claims(direction: str) -> None:
    routes = (
        route("admins", claims=(claim("groups", "admin"),)),
        route("deep", claims=(claim("a.b", "x", "prefix"),)),
        route("true", claims=(claim("yes", "true"),)),
        route("seven", claims=(claim("number", "7"),)),
        route("not ann", claims=(claim("sub", "ann", invert=True),)),
        route("rest"),
    )
    world = world_of(direction, provider(), routes=routes)

    def ask(**claims: Any) -> bytes:
        return body(answer(world, request(token(exp=5000, **claims))))

    assert ask(groups=["user", "admin"]) == b"admins"
    assert ask(groups="admin") == b"admins"
    assert ask(groups=[["admin"]]) == b"rest"
    assert ask(a={"b": "xyz"}) == b"deep"
    assert ask(a=["b"]) == b"rest"
    assert ask(yes=True, number=7) == b"rest"  # a bool and a number are no strings (Istio)
    assert ask(sub="bob") == b"not ann"
    assert body(answer(world, request())) == b"not ann"  # no token: only what is inverted
    spoofed = b"@request.auth.claims.groups: admin\r\n"
    assert b"admins" not in answer(world, request(more=spoofed))


def test_a_claim_that_was_not_verified_does_not_count() -> None:
    world = world_of("gateway", routes=(route("admins", claims=(claim("groups", "admin"),)), route("rest")))
    assert body(answer(world, request(token(exp=5000, groups="admin")))) == b"rest"


def test_cors_before_authn_and_the_route_is_chosen_again() -> None:
    cors = Cors(allow_origins=(StringMatch("exact", "http://a"),))
    root = HeaderMatch("x-sub", StringMatch("exact", "root"))
    routes = (
        Route(name="admins", action=FORWARD, match=RouteMatch(claims=(claim("groups", "admin"),))),
        Route(name="header", action=FORWARD, match=RouteMatch(headers=(root,)), cors=cors),
        Route(name="rest", action=FORWARD, cors=cors),
    )
    world = world_of("gateway", provider(claim_headers=(("x-sub", "sub"),)), routes=routes)

    def ask(data: bytes) -> tuple[str, bool]:
        client = world.client()
        client.deliver(data)
        server = world.accept()
        server.deliver(OK)
        server.lose()
        return world.records[-1].route_name, b"access-control-allow-origin: http://a\r\n" in client.take()

    origin = b"origin: http://a\r\n"
    assert ask(request(token(exp=5000, groups="admin"), more=origin)) == ("admins", False)  # no CORS policy there
    assert ask(request(GOOD, more=origin)) == ("rest", True)
    assert ask(request(more=origin + b"x-sub: root\r\n")) == ("rest", True)
    assert ask(request(token(exp=5000, sub="root"), more=origin)) == ("header", True)


# -- gRPC

GRPC = b"content-type: application/grpc\r\n"


def test_grpc_gets_trailers_only() -> None:
    world = world_of("inbound", provider(audiences=("a",)))
    got = answer(world, request(token(exp=5000, aud="b"), more=GRPC))
    assert status_of(got) == 200
    head = got.partition(b"\r\n\r\n")
    assert head[2] == b""
    assert b"\r\ngrpc-status: 7\r\ngrpc-message: Audiences in Jwt are not allowed\r\n" in got
    assert b"\r\ncontent-type: application/grpc\r\n" in got
    assert b"www-authenticate" in got
    got = answer(world, request(b"a.b", more=b"content-type: application/grpc+proto\r\n"))
    assert b"\r\ngrpc-status: 16\r\n" in got
    assert [record.status for record in world.records] == [200, 200]
    assert world.records[1].flags == (Reason.TOKEN_REFUSED,)
    assert ISSUER.encode() not in got


@pytest.mark.parametrize("direction", ["inbound", "gateway"])
def test_a_trailer_is_no_way_to_say_what_only_the_proxy_says(direction: str) -> None:
    data = (
        b"POST /a HTTP/1.1\r\nhost: shop:8080\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
        b"x-jwt-user: root\r\nx-forwarded-client-cert: URI=spiffe://a\r\nx_envoy_peer_metadata: a\r\nx-sum: 1\r\n\r\n"
    )
    sent = forwarded(world_of(direction, provider(claim_headers=(("x-jwt-user", "sub"),))), data)
    assert sent.endswith(b"\r\n\r\n1\r\na\r\n0\r\n\r\n")
    sent = forwarded(world_of(direction), data)  # the mesh's own names never; others are the app's to judge
    assert sent.endswith(b"\r\n\r\n1\r\na\r\n0\r\nx-jwt-user: root\r\nx-sum: 1\r\n\r\n")


def test_a_span_shows_no_token_of_the_query_either() -> None:
    told = resources("gateway", ARTICLE)
    told["telemetry"] = {"workload": Telemetry(tracing=(Tracing(sampling=100.0),))}
    world = World(told, listener=LISTENER["gateway"])
    spans: list[Span] = []
    world.corridor.spans = lambda record: spans.append(span_of(record, Workload(), "node", "mesh"))
    asked = b"origin: http://a\r\naccess-control-request-method: GET\r\n"
    assert status_of(answer(world, request(target=b"/a?access_token=SECRET&b=1"))) == 401
    assert forwarded(world, request(target=b"/a?access_token=SECRET&b=1", more=asked, method=b"OPTIONS"))
    assert [span.tags["http.url"] for span in spans] == ["http://shop:8080/a?b=1"] * 2


def test_a_rewritten_path_is_logged_without_the_token_that_is_forwarded() -> None:
    action = Forward(clusters=FORWARD.clusters, rewrite=Rewrite(prefix=("/a", "/b")))
    route = Route(name="r", match=RouteMatch(path=StringMatch(kind="prefix", value="/a")), action=action)
    world = world_of("gateway", provider(forward=True), routes=(route,))
    text = token(exp=5000)
    assert b"GET /b?access_token=" + text in forwarded(world, request(target=b"/a?access_token=" + text))
    (record,) = world.records
    assert formats.compile("%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%")(record) == b"/a"
