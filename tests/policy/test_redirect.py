"""Locations (Envoy's newUri, Istio's redirect)."""

from __future__ import annotations

import pytest

from meshproxy.message.head import RequestHead
from meshproxy.model.route import Redirect
from meshproxy.policy.invalid import Invalid
from meshproxy.policy.redirect import compile_redirect
from tests.policy.fakes import get


@pytest.mark.parametrize(
    ("model", "request_head", "location"),
    [
        (Redirect(path="/b"), get("/a?x=1", "h.example"), "http://h.example/b?x=1"),
        (Redirect(path="/b?y=2"), get("/a?x=1", "h.example"), "http://h.example/b?y=2"),
        (Redirect(authority="o.example"), get("/a?x=1", "h.example:8080"), "http://o.example/a?x=1"),
        (Redirect(), get("/a", "h.example:8080"), "http://h.example:8080/a"),
        (Redirect(scheme="https"), get("/a", "h.example:80"), "https://h.example/a"),
        (Redirect(scheme="https"), get("/a", "h.example:8080"), "https://h.example:8080/a"),
        (Redirect(scheme="http"), get("/a", "h.example:443", x_forwarded_proto="https"), "http://h.example/a"),
        (Redirect(path="/b"), get("/a", "h.example:80"), "http://h.example:80/b"),
        (Redirect(port=8443, scheme="https"), get("/a", "h.example:80"), "https://h.example:8443/a"),
        (Redirect(port=80), get("/a", "h.example"), "http://h.example:80/a"),  # explicit: not stripped
        (Redirect(derive_port="FROM_REQUEST_PORT"), get("/a", "h.example"), "http://h.example:9090/a"),
        (Redirect(derive_port="FROM_PROTOCOL_DEFAULT", scheme="https"), get("/a", "h.example:80"), "https://h.example/a"),
        (Redirect(prefix_rewrite=("/a", "/b")), get("/a/c?x", "h.example"), "http://h.example/b/c?x"),
        (Redirect(port=81), get("/a", "[::1]:80"), "http://[::1]:81/a"),
        (Redirect(scheme="https"), get("/a", "h.example", scheme="http"), "https://h.example/a"),
        (Redirect(), get("*", "h.example", "OPTIONS"), "http://h.example/"),
        (Redirect(path="/b#part"), get("/a?x", "h.example"), "http://h.example/b?x#part"),
        (Redirect(path="/b c"), get("/a", "h.example"), "http://h.example/b%20c"),
        (Redirect(authority="a\r\nx: y"), get("/a"), "http://a%0D%0Ax:%20y/a"),
    ],
)
def test_locations(model: Redirect, request_head: RequestHead, location: str) -> None:
    reply = compile_redirect(model, "p")(request_head, b"http", 9090)
    assert reply.head.status == 301
    assert reply.head.headers == [(b"content-length", b"0"), (b"location", location.encode())]
    assert (reply.body, reply.reason) == (b"", None)


def test_a_derived_default_port_is_left_out() -> None:
    redirect = compile_redirect(Redirect(derive_port="FROM_REQUEST_PORT"), "p")
    assert redirect(get("/a", "h:1"), b"http", 80).head.headers[1][1] == b"http://h/a"
    assert redirect(get("/a", "h:1"), b"https", 443).head.headers[1][1] == b"https://h/a"


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_codes(code: int) -> None:
    assert compile_redirect(Redirect(code=code), "p")(get(), b"http", 80).head.status == code


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (Redirect(code=300), "p.code"),
        (Redirect(port=0), "p.port"),
        (Redirect(port=1, derive_port="FROM_REQUEST_PORT"), "p"),
        (Redirect(path="/a", prefix_rewrite=("/", "/")), "p"),
    ],
)
def test_bad_redirects(model: Redirect, path: str) -> None:
    with pytest.raises(Invalid) as caught:
        compile_redirect(model, "p")
    assert caught.value.path == path
