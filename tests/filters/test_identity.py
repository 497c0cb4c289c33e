"""Identity: path, request id, forwarded headers, what the edge strips."""

from __future__ import annotations

import random
import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.filters.chain import Filter
from meshproxy.filters.identity import EDGE_HEADERS, gateway_identity, sidecar_identity
from meshproxy.filters.tracing import tracing_filter
from meshproxy.message.reason import Reason
from meshproxy.message.secured import Secured
from meshproxy.message.verdict import Reply
from meshproxy.model.route import Route
from meshproxy.model.telemetry import Tracing
from meshproxy.policy.context import compile_tracing, request_id
from meshproxy.policy.routes import RouteTable
from tests.policy.fakes import CLUSTERS, FakeExchange, config, get, host, to

_UUID4 = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def test_request_ids_are_version_4_and_differ() -> None:
    dice = random.Random(1).random
    ids = dict(request_id(dice) for _ in range(2000))
    assert len(ids) == 2000
    assert all(_UUID4.fullmatch(one) and uuid.UUID(one.decode()).version == 4 for one in ids)
    assert all(int(one[:8], 16) == first for one, first in ids.items())
    assert _UUID4.fullmatch(request_id(lambda: 0.0)[0]) and _UUID4.fullmatch(request_id(lambda: 1 - 2**-53)[0])


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


class _Timed(FakeExchange):
    __slots__ = ()

    @staticmethod
    def precise() -> int:
        return 1


_TOLD = st.lists(
    st.sampled_from(
        (
            (b"accept", b"*/*"),
            (b"x-request-id", b"6f2b1c2e-8f0a-4c3d-9e51-3c7a5e0f9b11"),
            (b"x-request-id", b"mine"),
            (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),
            (b"traceparent", b"none"),
            (b"tracestate", b"a=b"),
            (b"x-b3-sampled", b"1"),
            (b"x-b3-sampled", b"0"),
            (b"b3", b"0"),
            (b"x-envoy-force-trace", b"1"),
            (b"x-envoy-max-retries", b"3"),
            (b"x-forwarded-client-cert", b"Hash=0"),
            (b"x-forwarded-proto", b"https"),
        )
    ),
    max_size=4,
)


@given(
    _TOLD,
    st.lists(st.floats(0, 1, exclude_max=True), min_size=3, max_size=12),
    st.sampled_from((0.0, 1.0, 50.0, 100.0)),
    st.booleans(),
    st.booleans(),
)
def test_identity_with_tracing_is_identity_and_then_tracing(
    headers: list[tuple[bytes, bytes]], draws: list[float], sampling: float, by_id: bool, propagate: bool
) -> None:
    """The quicker way changes nothing, not even the order of the draws."""
    tracing = compile_tracing(Tracing(sampling=sampling, use_request_id=by_id, propagate=propagate), "tracing")

    def run(*filters: Filter) -> tuple[object, ...]:
        table = RouteTable(config(host(Route(action=to("a")))), CLUSTERS.get)
        exchange = _Timed(table, get(), tuple(draws))
        exchange.request.headers[:] = headers
        for one in filters:
            assert one(exchange, 0.0) is None
        trace = exchange.record.trace
        told = None if trace is None else (trace.trace_id, trace.span_id, trace.parent_id, trace.state)
        return exchange.request.headers, told, exchange.dice()

    together = run(sidecar_identity("BASE", True, tracing))
    assert together == run(sidecar_identity("BASE", True), tracing_filter(tracing))
