"""Hash keys: where they are found, and the cookie for a client that has none."""

from __future__ import annotations

from typing import Any

import pytest

from meshproxy.cluster.hashing import Hasher
from meshproxy.message.head import RequestHead
from meshproxy.model.cluster import HashPolicy
from meshproxy.policy.ring import hash_key


def never() -> float:
    raise AssertionError("no dice are needed here")


def key(request: RequestHead, source: str = "10.0.0.9", **policy: Any) -> int | None:
    found, cookie = Hasher(HashPolicy(**policy)).key(request, source, never)
    assert cookie is None
    return found


def request(target: bytes = b"/", *headers: tuple[bytes, bytes]) -> RequestHead:
    return RequestHead(b"GET", target, b"a", list(headers))


@pytest.mark.parametrize(
    ("asked", "policy", "value"),
    [
        (request(b"/", (b"user", b"joe")), {"header": "User"}, b"joe"),
        (request(b"/", (b"user", b"a"), (b"x", b"1"), (b"user", b"b")), {"header": "user"}, b"a,b"),
        (request(b"/"), {"header": "user"}, None),
        (request(b"/p?a=1&user=joe&user=2"), {"query": "user"}, b"joe"),
        (request(b"/p?user"), {"query": "user"}, b""),
        (request(b"/p?xuser=1"), {"query": "user"}, None),
        (request(b"/user=1"), {"query": "user"}, None),
        (request(b"/", (b"cookie", b"a=1; s=abc;b=2")), {"cookie": "s"}, b"abc"),
        (request(b"/", (b"cookie", b"x=1"), (b"cookie", b's="abc"')), {"cookie": "s"}, b"abc"),
        (request(b"/", (b"cookie", b"ss=1")), {"cookie": "s"}, None),
        (request(b"/"), {"source_ip": True}, b"10.0.0.9"),
        (request(b"/"), {}, None),
    ],
)
def test_keys(asked: RequestHead, policy: dict[str, Any], value: bytes | None) -> None:
    assert key(asked, **policy) == (None if value is None else hash_key(value))


@pytest.mark.parametrize(
    ("policy", "attributes"),
    [
        ({"cookie_ttl": 0.0}, b"; HttpOnly"),
        ({"cookie_ttl": 3600.0, "cookie_path": "/app"}, b"; Max-Age=3600; Path=/app; HttpOnly"),
        (
            {"cookie_ttl": 1.5, "cookie_attributes": (("SameSite", "Strict"), ("Secure", ""))},
            b"; Max-Age=1; SameSite=Strict; Secure; HttpOnly",
        ),
    ],
)
def test_a_cookie_is_given_to_who_has_none(policy: dict[str, Any], attributes: bytes) -> None:
    hasher = Hasher(HashPolicy(cookie="s", **policy))
    draws = iter([0.5, 0.25])
    found, cookie = hasher.key(request(), "10.0.0.9", lambda: next(draws))
    assert cookie == b's="8000000040000000"' + attributes
    back = request(b"/", (b"cookie", b's="8000000040000000"'))
    assert hasher.key(back, "10.0.0.1", never) == (found, None)
