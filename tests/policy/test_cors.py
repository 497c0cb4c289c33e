"""Origins, preflights, response headers."""

from __future__ import annotations

import pytest

from meshproxy.model.match import StringMatch
from meshproxy.model.route import Cors
from meshproxy.policy.cors import CompiledCors, is_preflight
from tests.policy.fakes import exact, get, prefix, regex

FULL = Cors(
    allow_origins=(exact("https://a.example"),),
    allow_methods=("GET", "POST"),
    allow_headers=("x-a", "x-b"),
    expose_headers=("x-c",),
    max_age=3600,
    allow_credentials=True,
)


@pytest.mark.parametrize(
    ("rule", "origin", "expected"),
    [
        (exact("https://a.example"), b"https://a.example", True),
        (exact("https://a.example"), b"https://a.example.evil", False),
        (prefix("https://a."), b"https://a.example", True),
        (regex(r"https://.*\.example"), b"https://x.example", True),
        (regex(r"https://.*\.example"), b"https://x.example.evil", False),
        (exact("*"), b"https://anything", True),
        (regex(".*"), b"null", True),
    ],
)
def test_origins(rule: StringMatch, origin: bytes, expected: bool) -> None:
    assert CompiledCors(Cors(allow_origins=(rule,)), "c").allows(origin) is expected


def test_no_origin_is_allowed_by_an_empty_policy() -> None:
    assert not CompiledCors(Cors(), "c").allows(b"https://a.example")


def test_preflight_answer() -> None:
    reply = CompiledCors(FULL, "c").preflight(b"https://a.example")
    assert (reply.head.status, reply.body, reply.detail) == (200, b"", "cors_response")
    assert reply.head.headers == [
        (b"content-length", b"0"),
        (b"access-control-allow-origin", b"https://a.example"),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-allow-methods", b"GET,POST"),
        (b"access-control-allow-headers", b"x-a,x-b"),
        (b"access-control-max-age", b"3600"),
    ]


def test_a_bare_policy_says_only_the_origin() -> None:
    reply = CompiledCors(Cors(allow_origins=(exact("*"),), allow_credentials=False), "c").preflight(b"o")
    assert reply.head.headers == [(b"content-length", b"0"), (b"access-control-allow-origin", b"o")]


def test_a_response_is_decorated_and_the_apps_word_overwritten() -> None:
    headers = [(b"access-control-allow-origin", b"*"), (b"etag", b"1")]
    CompiledCors(FULL, "c").decorate(headers, b"https://a.example")
    assert headers == [
        (b"access-control-allow-origin", b"https://a.example"),
        (b"etag", b"1"),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"x-c"),
    ]


def test_what_a_preflight_is() -> None:
    assert is_preflight(get(method="OPTIONS", access_control_request_method="PUT"))
    assert not is_preflight(get(method="OPTIONS"))
    assert not is_preflight(get(method="GET", access_control_request_method="PUT"))
