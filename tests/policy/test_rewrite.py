"""Path and authority rewriting."""

from __future__ import annotations

import pytest

from meshproxy.model.route import RegexRewrite, Rewrite
from meshproxy.policy.invalid import Invalid
from meshproxy.policy.rewrite import compile_rewrite
from tests.policy.fakes import get


@pytest.mark.parametrize(
    ("rewrite", "target", "expected"),
    [
        (Rewrite(prefix=("/foo", "/bar")), "/foo/x?y=1", "/bar/x?y=1"),
        (Rewrite(prefix=("/foo", "/bar")), "/foobar", "/barbar"),
        (Rewrite(prefix=("/foo", "/")), "/foo/x", "//x"),  # as Istio's users know it
        (Rewrite(prefix=("/foo/", "/")), "/foo/x", "/x"),
        (Rewrite(prefix=("/foo", "")), "/foo", "/"),
        (Rewrite(prefix=("/foo", "/bar")), "/FOO/x", "/bar/x"),
        (Rewrite(prefix=("/", "/v1/")), "/x", "/v1/x"),
        (Rewrite(prefix=("/foo", "/bar")), "/other", "/other"),
        (Rewrite(path="/new"), "/old/x?y", "/new?y"),
        (Rewrite(path="/a b\r\n#\u00e4"), "/old", "/a%20b%0D%0A%23%C3%A4"),
        (Rewrite(prefix=("/old", "/\r\nx")), "/old", "/%0D%0Ax"),
        (Rewrite(regex=RegexRewrite(match="old", rewrite="a b")), "/old", "/a%20b"),
        (Rewrite(path="new?z=1"), "/old?y=2", "/new?z=1&y=2"),
        (Rewrite(regex=RegexRewrite(match="/a/([^/]+)/b", rewrite=r"/\1/c")), "/a/x/b/d?q", "/x/c/d?q"),
        (Rewrite(regex=RegexRewrite(match="o", rewrite="0")), "/foo/boo?o", "/f00/b00?o"),
        (Rewrite(regex=RegexRewrite(match="^/(.*)$", rewrite=r"\0\\x")), "/a", "/a\\x"),
        (Rewrite(regex=RegexRewrite(match="(z)?/a", rewrite=r"\1x")), "/a", "/x"),
    ],
)
def test_paths(rewrite: Rewrite, target: str, expected: str) -> None:
    edit = compile_rewrite(rewrite, "rewrite")
    assert edit is not None
    request = get(target)
    edit(request)
    assert request.target.decode() == expected
    changed = target != expected
    assert request.headers == ([(b"x-envoy-original-path", target.encode())] if changed else [])


def test_authority() -> None:
    edit = compile_rewrite(Rewrite(authority="other:80"), "rewrite")
    assert edit is not None
    request = get("/a")
    edit(request)
    assert (request.authority, request.target, request.headers) == (b"other:80", b"/a", [])


def test_an_empty_rewrite_is_none() -> None:
    assert compile_rewrite(Rewrite(), "rewrite") is None


@pytest.mark.parametrize(
    ("rewrite", "path", "says"),
    [
        (Rewrite(path="/a", prefix=("/", "/")), "r", "only one"),
        (Rewrite(regex=RegexRewrite(match="(", rewrite="")), "r.regex.match", "bad regex"),
        (Rewrite(regex=RegexRewrite(match="a", rewrite=r"\1")), "r.regex.rewrite", "group"),
        (Rewrite(regex=RegexRewrite(match="a", rewrite="\\x")), "r.regex.rewrite", "backslash"),
    ],
)
def test_bad_rewrites(rewrite: Rewrite, path: str, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        compile_rewrite(rewrite, "r")
    assert caught.value.path == path
    assert says in caught.value.message
