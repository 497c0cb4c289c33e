"""What one request may ask for, and that nothing it says can be worse than ignored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.message.reason import Reason
from meshproxy.model.route import DirectResponse, Retry, Route
from meshproxy.policy.compiled import CompiledRoute
from meshproxy.policy.routes import RouteTable
from meshproxy.policy.steering import STEERING, steered
from tests.policy.fakes import CLUSTERS, config, get, host, to

ROUTE = Route(action=to("a", timeout=5.0, retry=Retry(attempts=2, on=("connect-failure", "retriable-status-codes"))))


def steer(route: Route = ROUTE, **asked: str) -> CompiledRoute:
    compiled = RouteTable(config(host(route)), CLUSTERS.get).routes[0]
    headers = get(user_agent="x", **asked).headers
    made = steered(headers, compiled)
    assert headers == [(b"user-agent", b"x")]
    assert made is not None and (compiled.timeout, made.choices) == (getattr(route.action, "timeout", 0.0), compiled.choices)
    return made


def test_timeouts() -> None:
    assert steer(x_envoy_upstream_rq_timeout_ms="250").timeout == 0.25
    assert steer(x_envoy_upstream_rq_timeout_ms="0").timeout == 0
    made = steer(x_envoy_upstream_rq_per_try_timeout_ms="300")
    assert made.retry is not None and (made.retry.per_try_timeout, made.retry.attempts, made.timeout) == (0.3, 2, 5.0)
    made = steer(x_envoy_upstream_rq_per_try_timeout_ms="5000")
    assert made.retry is not None and made.retry.per_try_timeout == 0  # not longer than the whole
    bare = steer(Route(action=to("a")), x_envoy_upstream_rq_per_try_timeout_ms="300")
    assert bare.retry is not None and (bare.retry.per_try_timeout, bare.retry.attempts) == (0.3, 0)
    assert not bare.retry.wants_reset(Reason.PER_TRY_TIMEOUT, True, False)


def test_retries() -> None:
    made = steer(x_envoy_retry_on="5xx, nonsense", x_envoy_max_retries="7")
    assert made.retry is not None and made.retry.attempts == 7
    assert made.retry.wants_status(503, []) and made.retry.wants_reset(Reason.CONNECT_FAILURE, False, False)
    made = steer(Route(action=to("a")), x_envoy_retry_on="gateway-error")
    assert made.retry is not None and made.retry.attempts == 1 and made.retry.wants_status(502, [])
    made = steer(x_envoy_retriable_status_codes="409,418,x")
    assert made.retry is not None and made.retry.wants_status(418, []) and not made.retry.wants_status(503, [])
    made = steer(x_envoy_retry_grpc_on="internal", x_envoy_retriable_header_names="x-again")
    assert made.retry is not None and made.retry.wants_status(200, [(b"grpc-status", b"13")])
    assert steer(Route(action=to("a")), x_envoy_max_retries="3").retry is None  # nothing to retry on


@pytest.mark.parametrize("value", ["", "-1", "1.5", "x", "9" * 30, "²"])
def test_what_cannot_be_read_is_ignored(value: str) -> None:
    made = steer(x_envoy_upstream_rq_timeout_ms=value, x_envoy_max_retries=value, x_envoy_retriable_status_codes=value)
    assert made.timeout == 5.0 and made.retry is not None and made.retry.attempts == 2


def test_other_routes_stay() -> None:
    compiled = RouteTable(config(host(Route(action=DirectResponse(status=200)))), CLUSTERS.get).routes[0]
    assert steered(get(x_envoy_max_retries="1").headers, compiled) is compiled
    assert steered([], None) is None


@given(st.lists(st.tuples(st.sampled_from(sorted(STEERING)), st.binary(max_size=20)), max_size=8))
def test_any_value_is_survived(headers: list[tuple[bytes, bytes]]) -> None:
    compiled = RouteTable(config(host(ROUTE)), CLUSTERS.get).routes[0]
    made = steered(headers, compiled)
    assert headers == [] and made is not None and made.timeout >= 0
