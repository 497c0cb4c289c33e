"""Identity: path, request id, forwarded headers, what the edge strips."""

from __future__ import annotations

import random
import re
import uuid

import pytest

from meshproxy.filters.identity import EDGE_HEADERS, gateway_identity, request_id, sidecar_identity
from meshproxy.message.reason import Reason
from meshproxy.message.secured import Secured
from meshproxy.message.verdict import Reply
from meshproxy.model.route import Route
from meshproxy.policy.routes import RouteTable
from tests.policy.fakes import CLUSTERS, FakeExchange, config, get, host, to

_UUID4 = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def test_request_ids_are_version_4_and_differ() -> None:
    dice = random.Random(1).random
    ids = {request_id(dice) for _ in range(2000)}
    assert len(ids) == 2000
    assert all(_UUID4.fullmatch(one) and uuid.UUID(one.decode()).version == 4 for one in ids)
    assert _UUID4.fullmatch(request_id(lambda: 0.0)) and _UUID4.fullmatch(request_id(lambda: 1 - 2**-53))


def test_a_sidecar_adds_what_is_missing() -> None:
    exchange = FakeExchange(None, get(user_agent="x"))
    assert sidecar_identity("BASE")(exchange, 0.0) is None
    names = [name for name, _ in exchange.request.headers]
    assert names == [b"user-agent", b"x-forwarded-proto", b"x-request-id"]
    assert (b"x-forwarded-proto", b"http") in exchange.request.headers


def test_a_sidecar_keeps_what_is_there_and_adds_no_forwarded_for() -> None:
    exchange = FakeExchange(None, get(x_request_id="mine", x_forwarded_proto="https", x_envoy_retry_on="5xx"))
    before = list(exchange.request.headers)
    assert sidecar_identity("BASE")(exchange, 0.0) is None
    assert exchange.request.headers == before


def test_a_forged_client_certificate_header_is_taken_out() -> None:
    exchange = FakeExchange(None, get(x_forwarded_client_cert="URI=spiffe://admin", x_request_id="1", x_forwarded_proto="http"))
    sidecar_identity("BASE")(exchange, 0.0)
    assert exchange.request.headers == [(b"x-request-id", b"1"), (b"x-forwarded-proto", b"http")]


@pytest.mark.parametrize("make", [sidecar_identity, gateway_identity])
def test_a_forgery_in_another_spelling_is_one_too(make: object) -> None:
    """``X_Forwarded_Client_Cert`` is the same variable as the real one to a CGI or WSGI app."""
    names = ("x_forwarded_client_cert", "x-forwarded_client-cert", "x_envoy_peer_metadata", "x-envoy-peer-metadata_id")
    exchange = FakeExchange(None, get(x_request_id="1", x_forwarded_proto="http"))
    exchange.request.headers += [(name.encode(), b"forged") for name in names] + [(b"x_app", b"1")]
    exchange.secured = Secured(None, mesh=True)
    assert make("BASE")(exchange, 0.0) is None  # type: ignore[operator]
    assert b"forged" not in dict(exchange.request.headers).values()
    assert (b"x_app", b"1") in exchange.request.headers


def test_an_app_steers_its_own_requests_only() -> None:
    table = RouteTable(config(host(Route(action=to("a")))), CLUSTERS.get)
    exchange = FakeExchange(table, get(x_request_id="1", x_forwarded_proto="http", x_envoy_upstream_rq_timeout_ms="70"))
    assert sidecar_identity("BASE")(exchange, 0.0) is None  # inbound: somebody else's, for the app to see
    assert len(exchange.request.headers) == 3
    assert sidecar_identity("BASE", tunnels=True)(exchange, 0.0) is None
    assert [name for name, _ in exchange.request.headers] == [b"x-request-id", b"x-forwarded-proto"]
    assert exchange.compiled.timeout == 0.07 and table.routes[0].timeout == 0


@pytest.mark.parametrize("make", [sidecar_identity, gateway_identity])
def test_the_path_is_normalised_for_match_and_record(make: object) -> None:
    exchange = FakeExchange(None, get("/app/../admin?x"))
    make("BASE")(exchange, 0.0)  # type: ignore[operator]
    assert (exchange.request.target, exchange.record.path) == (b"/admin?x", b"/admin?x")


@pytest.mark.parametrize("make", [sidecar_identity, gateway_identity])
def test_a_nul_in_the_path_is_a_bad_request(make: object) -> None:
    verdict = make("BASE")(FakeExchange(None, get("/a%00")), 0.0)  # type: ignore[operator]
    assert isinstance(verdict, Reply)
    assert (verdict.reason, verdict.head.status, verdict.detail) == (Reason.BAD_REQUEST, 400, "path_normalization_failed")


def test_the_edge_strips_internal_headers_and_says_itself_who_came() -> None:
    exchange = FakeExchange(None, get(user_agent="x", x_forwarded_proto="https", x_request_id="mine", x_forwarded_for="1.1.1.1"))
    exchange.request.headers += [(name, b"1") for name in sorted(EDGE_HEADERS)]
    exchange.request.headers.append((b"x-forwarded-for", b"2.2.2.2"))
    assert gateway_identity("BASE")(exchange, 0.0) is None
    assert exchange.request.headers == [
        (b"user-agent", b"x"),
        (b"x-request-id", b"mine"),
        (b"x-forwarded-for", b"1.1.1.1,2.2.2.2,10.0.0.9"),
        (b"x-forwarded-proto", b"http"),
    ]


def test_the_edge_makes_an_id() -> None:
    exchange = FakeExchange(None, get())
    exchange.secured = Secured(None)
    gateway_identity("BASE")(exchange, 0.0)
    headers = dict(exchange.request.headers)
    assert headers[b"x-forwarded-for"] == b"10.0.0.9" and headers[b"x-forwarded-proto"] == b"https"
    assert _UUID4.fullmatch(headers[b"x-request-id"])


@pytest.mark.parametrize("make", [sidecar_identity, gateway_identity])
def test_connect_is_no_way_past_the_rules_of_an_app(make: object) -> None:
    exchange = FakeExchange(None, get("rating:8080"))
    exchange.request.method = b"CONNECT"
    verdict = make("BASE")(exchange, 0.0)  # type: ignore[operator]
    assert isinstance(verdict, Reply)
    assert (verdict.reason, verdict.head.status) == (Reason.UPGRADE_REFUSED, 403)
    assert sidecar_identity("BASE", tunnels=True)(exchange, 0.0) is None  # on the pod's own way out


def test_a_loop_of_gateways_ends() -> None:
    identity = gateway_identity("BASE")
    for hops in range(1, 200):
        exchange = FakeExchange(None, get(x_forwarded_for=",".join(["10.0.0.9"] * hops)))
        verdict = identity(exchange, 0.0)
        if verdict is not None:
            break
    assert isinstance(verdict, Reply)
    assert (verdict.reason, verdict.head.status, hops) == (Reason.LOOP_DETECTED, 508, 101)
    spread = FakeExchange(None, get())
    spread.request.headers += [(b"x-forwarded-for", b"10.0.0.9")] * 101  # one line each, as some proxies write it
    assert isinstance(identity(spread, 0.0), Reply)
