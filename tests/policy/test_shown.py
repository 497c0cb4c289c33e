"""What a watcher may see: a table of what must never show, and of what must."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.policy.shown import REDACTED, header_values, secret_name, shown_target

TOKEN = b"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "name",
    [
        *("authorization", "Proxy-Authorization", "cookie", "set-cookie", "x-api-key", "X_API_KEY", "apikey", "x-auth-token"),
        *("x-amz-security-token", "x-csrf-token", "x-goog-iap-jwt-assertion", "x-session-id", "x-vault-token", "password", "sig"),
        *("client_secret", "access_token", "code", "x-forwarded-access-token", "x-jwt-payload", "x-hub-signature-256"),
    ],
)
def test_names_that_sound_like_credentials(name: str) -> None:
    assert secret_name(name)


@pytest.mark.parametrize("name", ["accept", ":authority", "user-agent", "x-request-id", "traceparent", "content-type", "x-key2"])
def test_names_that_do_not(name: str) -> None:
    assert not secret_name(name)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/rate/1", b"/rate/1"),
        (b"/a?x=1&y=2", b"/a?x=1&y=2"),
        (b"/a?x=1&token=abc&y", b"/a?x=1&token=[redacted]&y"),
        (b"/a?TOKEN=abc", b"/a?TOKEN=[redacted]"),
        (b"/a?%74oken=abc&api%2Dkey=1", b"/a?%74oken=[redacted]&api%2Dkey=[redacted]"),
        (b"/a?q=" + TOKEN, b"/a?q=[redacted]"),
        (b"/login/" + TOKEN + b"/x", b"/login/[redacted]/x"),
        (b"https://ann:pw@host/a", b"https://[redacted]@host/a"),
        (b"/gateway-service-account/eway-something-long", b"/gateway-service-account/eway-something-long"),
    ],
)
def test_targets(target: bytes, expected: bytes) -> None:
    assert shown_target(target) == expected


def test_values_of_headers() -> None:
    given = [
        (b"accept", b"*/*"),
        (b"authorization", b"Bearer abc"),
        (b"x-note", b"he sent Bearer abcdef today"),
        (b"referer", b"https://h/a?code=abc&x=1"),
        (b"x-token-free", TOKEN),
        (b"x-other", b"a " + TOKEN + b" b"),
    ]
    shown = dict(header_values(given, True, 100))
    assert shown["accept"] == "*/*" and shown["authorization"] == REDACTED
    assert shown["x-note"] == "he sent [redacted] today" and shown["referer"] == "https://h/a?code=[redacted]&x=1"
    assert shown["x-other"] == "a [redacted] b"
    assert all(value == REDACTED for _, value in header_values(given, False, 100))
    assert len(header_values(given, True, 2)) == 2


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_a_token_shows_nowhere(before: bytes, after: bytes) -> None:
    """Wherever it stands in a target or a value."""
    secret = TOKEN.rpartition(b".")[0]
    assert secret not in shown_target(before + TOKEN + after)
    (_, value), *_ = header_values([(b"x", before + TOKEN + after)], True, 1)
    assert secret.decode() not in value
