"""Retry: every token of ``retryOn`` against statuses, headers and resets (semantics A2, B2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.message.reason import Reason
from meshproxy.model.route import Retry
from meshproxy.policy.retry import TOKENS, RetryPolicy

DEFAULT = ("connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes")


def policy(*on: str, **more: object) -> RetryPolicy:
    return RetryPolicy(Retry(on=on, **more))  # type: ignore[arg-type]


def test_the_default_policy_leaves_a_503_alone() -> None:
    assert not policy(*DEFAULT).wants_status(503, [])


@pytest.mark.parametrize(
    ("token", "yes", "no"),
    [
        ("5xx", (500, 502, 503, 504, 599), (200, 404, 409, 429, 499)),
        ("gateway-error", (502, 503, 504), (500, 501, 505, 200)),
        ("retriable-4xx", (409,), (400, 404, 429, 503)),
        ("reset", (), (200, 409, 500, 503)),
        ("connect-failure", (), (503,)),
        ("retriable-status-codes", (), (503, 429)),
    ],
)
def test_statuses(token: str, yes: tuple[int, ...], no: tuple[int, ...]) -> None:
    found = policy(token)
    assert [status for status in yes if not found.wants_status(status, [])] == []
    assert [status for status in no if found.wants_status(status, [])] == []


def test_codes_from_both_fields() -> None:
    found = policy("retriable-status-codes", "418", status_codes=(429,))
    assert [status for status in (200, 418, 429, 503) if found.wants_status(status, [])] == [418, 429]


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("cancelled", b"1"),
        ("deadline-exceeded", b"4"),
        ("resource-exhausted", b"8"),
        ("internal", b"13"),
        ("unavailable", b"14"),
    ],
)
def test_grpc_status_in_the_head(token: str, code: bytes) -> None:
    found = policy(token)
    for number in range(17):
        text = b"%d" % number
        assert found.wants_status(200, [(b"content-type", b"application/grpc"), (b"grpc-status", text)]) == (text == code)


def test_retriable_headers_need_their_token() -> None:
    headers = [(b"x-try-again", b"1")]
    assert policy("retriable-headers", retriable_headers=("X-Try-Again",)).wants_status(200, headers)
    assert not policy("reset", retriable_headers=("x-try-again",)).wants_status(200, headers)


def test_a_rate_limited_answer_is_left_alone_unless_asked_for() -> None:
    limited = [(b"x-envoy-ratelimited", b"true")]
    assert not policy("5xx").wants_status(503, limited)
    assert policy("envoy-ratelimited").wants_status(429, limited)
    assert not policy("envoy-ratelimited").wants_status(429, [])


_FAILED = (
    Reason.CONNECT_FAILURE,
    Reason.CONNECT_TIMEOUT,
    Reason.UPSTREAM_TERMINATION,
    Reason.UPSTREAM_REMOTE_RESET,
    Reason.UPSTREAM_PROTOCOL_ERROR,
    Reason.PER_TRY_TIMEOUT,
    Reason.LOCAL_RESET,
)


@pytest.mark.parametrize(
    ("token", "started", "reasons"),
    [
        ("5xx", True, _FAILED),
        ("gateway-error", True, _FAILED),
        ("reset", True, _FAILED),
        ("reset-before-request", False, _FAILED),
        ("reset-before-request", True, ()),
        ("connect-failure", True, (Reason.CONNECT_FAILURE, Reason.CONNECT_TIMEOUT)),
        ("retriable-4xx", False, ()),
        ("refused-stream", False, ()),
    ],
)
def test_resets(token: str, started: bool, reasons: tuple[Reason, ...]) -> None:
    found = policy(token)
    wanted = [reason for reason in _FAILED if found.wants_reset(reason, started, False)]
    assert wanted == list(reasons)


@pytest.mark.parametrize(
    "reason",
    [
        Reason.OVERFLOW,
        Reason.NO_HEALTHY_UPSTREAM,
        Reason.NO_CLUSTER,
        Reason.UPSTREAM_TIMEOUT,
        Reason.DOWNSTREAM_GONE,
        Reason.FAULT_ABORT,
        Reason.NO_ROUTE,
    ],
)
def test_never_retried(reason: Reason) -> None:
    assert not policy(*TOKENS).wants_reset(reason, False, False)


@given(st.sampled_from(Reason), st.booleans(), st.sets(st.sampled_from(sorted(TOKENS))))
def test_nothing_is_retried_once_the_response_has_begun(reason: Reason, started: bool, on: set[str]) -> None:
    assert not policy(*on).wants_reset(reason, started, True)


@given(st.integers(100, 599), st.sets(st.sampled_from(sorted(TOKENS))), st.sampled_from(sorted(TOKENS)))
def test_one_more_token_never_retries_less(status: int, on: set[str], more: str) -> None:
    assert policy(*on, more).wants_status(status, []) >= policy(*on).wants_status(status, [])


def test_an_unknown_token_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"^retry\.on: unknown token '5xxx'; known are .*5xx") as caught:
        policy("5xxx")
    assert "\n" not in str(caught.value)


def test_attempts_below_zero_are_none() -> None:
    assert policy("5xx", attempts=-1).attempts == 0


def test_backoff_uses_the_routes_base_and_cap() -> None:
    assert policy("5xx", backoff=1.0, backoff_max=2.0).backoff(2, 0.5) == 1.0
