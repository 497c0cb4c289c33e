"""Every match kind, with the cases that are most often got wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.message.head import RequestHead
from meshproxy.message.token import Token
from meshproxy.model.match import ClaimMatch, HeaderMatch, QueryMatch, RouteMatch, StringMatch
from meshproxy.policy.invalid import Invalid
from meshproxy.policy.matchers import compile_route_match, compile_string, split_target
from tests.policy.fakes import exact, get, prefix, regex


def holds(match: RouteMatch, request: RequestHead) -> bool:
    test, conditions = compile_route_match(match, "match")
    path, query = split_target(request.target)
    one_by_one = all(part.holds(request, path, query) for part in conditions)
    together = test is None or test(request, path, query)
    assert together == one_by_one  # explain can never disagree with the walk
    return together


@pytest.mark.parametrize(
    ("match", "value", "expected"),
    [
        (exact("/a"), b"/a", True),
        (exact("/a"), b"/A", False),
        (StringMatch(kind="exact", value="/aB", ignore_case=True), b"/Ab", True),
        (prefix("/foo"), b"/foobar", True),  # a plain string prefix, as Istio's
        (prefix("/foo"), b"/Foo", False),
        (StringMatch(kind="prefix", value="/FOO", ignore_case=True), b"/foo/x", True),
        (StringMatch(kind="suffix", value=".png"), b"/x.png", True),
        (StringMatch(kind="suffix", value=".PNG", ignore_case=True), b"/x.png", True),
        (regex("/a[0-9]+"), b"/a12", True),
        (regex("/a[0-9]+"), b"/a12x", False),  # the whole value
        (regex("a|ab"), b"ab", True),  # the whole value, whatever alternative comes first
        (regex(".*"), b"", True),
        (StringMatch(kind="present"), b"", True),
    ],
)
def test_strings(match: StringMatch, value: bytes, expected: bool) -> None:
    assert compile_string(match, "m")(value) is expected


@pytest.mark.parametrize(
    ("pattern", "says"), [("(", "missing )"), ("a{2000}", "repetition"), ("(?=x)", "perl"), ("a" * 5000, "longer than")]
)
def test_a_bad_regex_is_refused_with_its_path(pattern: str, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        compile_string(regex(pattern), "routes[0].match.path")
    assert caught.value.path.startswith("routes[0].match.path")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_large_regex_still_matches_and_a_huge_one_is_refused() -> None:
    large = compile_string(regex(r"\pL{100}"), "p")
    assert large(b"a" * 100) and not large(b"a" * 99)
    with pytest.raises(Invalid, match="too large"):
        compile_string(regex(r"(\pL{1000}){1}" * 20), "p")


def test_a_regex_that_blows_up_backtracking_engines_is_quick() -> None:
    assert compile_string(regex("(a+)+$"), "p")(b"a" * 5000 + b"!") is False


def header(name: str, match: StringMatch, invert: bool = False) -> RouteMatch:
    return RouteMatch(headers=(HeaderMatch(name=name, match=match, invert=invert),))


@pytest.mark.parametrize(
    ("match", "request_head", "expected"),
    [
        (header("x-a", exact("1")), get(x_a="1"), True),
        (header("x-a", exact("1")), get(), False),
        (header("x-a", exact("1"), invert=True), get(), True),  # withoutHeaders: absence passes
        (header("x-a", exact("1"), invert=True), get(x_a="1"), False),
        (header("x-a", exact("1"), invert=True), get(x_a="2"), True),
        (header("x-a", StringMatch(kind="present")), get(x_a=""), True),
        (header("x-a", StringMatch(kind="present")), get(), False),
        (header("x-a", StringMatch(kind="present"), invert=True), get(), True),
        (header("x-a", StringMatch(kind="present"), invert=True), get(x_a="1"), False),
        (header("x-a", regex("a.*")), get(x_a="abc"), True),
        (header("X-A", exact("1")), get(x_a="1"), True),
        (header("host", exact("Rating:8080")), get(), True),
        (header(":authority", prefix("rating")), get(authority="RATING:8080"), True),
        (header(":method", exact("GET")), get(), True),
        (header(":path", exact("/x?y=1")), get("/x?y=1"), True),
        (header(":scheme", exact("https")), get(x_forwarded_proto="https"), True),
    ],
)
def test_headers(match: RouteMatch, request_head: RequestHead, expected: bool) -> None:
    assert holds(match, request_head) is expected


def test_several_headers_of_one_name_are_matched_joined() -> None:
    request = get()
    request.headers += [(b"x-a", b"1"), (b"x-b", b"?"), (b"x-a", b"2")]
    assert holds(header("x-a", exact("1,2")), request)
    assert not holds(header("x-a", exact("1")), request)


@pytest.mark.parametrize(
    ("match", "path", "expected"),
    [
        (exact("1"), "/?q=1", True),
        (exact("1"), "/?a=2&q=1&q=3", True),  # the first value
        (exact("3"), "/?q=1&q=3", False),
        (exact("1"), "/?xq=1", False),
        (exact(""), "/?q", True),
        (StringMatch(kind="present"), "/?q", True),
        (StringMatch(kind="present"), "/?p=q", False),
        (StringMatch(kind="present"), "/q=1", False),
        (regex("[0-9]+"), "/?q=12", True),
        (exact("a b"), "/?q=a%20b", False),  # not decoded
        (exact("a=b"), "/?q=a=b", True),
    ],
)
def test_query_parameters(match: StringMatch, path: str, expected: bool) -> None:
    assert holds(RouteMatch(query=(QueryMatch(name="q", match=match),)), get(path)) is expected


@pytest.mark.parametrize(
    ("match", "request_head", "expected"),
    [
        (RouteMatch(), get("/anything"), True),
        (RouteMatch(path=prefix("/")), get("*", method="OPTIONS"), True),
        (RouteMatch(path=exact("/a")), get("/a?b=c"), True),  # the query is no part of the path
        (RouteMatch(path=regex("/a.*")), get("/b"), False),
        (RouteMatch(method=exact("POST")), get(), False),
        (RouteMatch(method=regex("GET|HEAD")), get(method="HEAD"), True),
        (RouteMatch(scheme=exact("http")), get(), True),
        (RouteMatch(scheme=exact("https")), get(scheme="https"), True),
        (RouteMatch(authority=exact("rating:8080")), get(authority="Rating:8080"), True),
        (RouteMatch(authority=exact("rating")), get(authority="rating:8080"), False),  # with its port
        (RouteMatch(authority=prefix("rating")), get(authority="rating:8080"), True),
        (RouteMatch(authority=regex("RATING:.*")), get(), True),
        (
            RouteMatch(path=prefix("/a"), method=exact("GET"), headers=(HeaderMatch(name="x", match=exact("1")),)),
            get("/a"),
            False,
        ),
        (
            RouteMatch(path=prefix("/a"), method=exact("GET"), headers=(HeaderMatch(name="x", match=exact("1")),)),
            get("/a", x="1"),
            True,
        ),
    ],
)
def test_whole_matches(match: RouteMatch, request_head: RequestHead, expected: bool) -> None:
    assert holds(match, request_head) is expected


def test_words_say_what_is_asked_and_what_is_there() -> None:
    _, conditions = compile_route_match(RouteMatch(path=prefix("/a"), headers=(HeaderMatch(name="x-u", match=exact("jo")),)), "m")
    request = get("/b")
    assert [part.words for part in conditions] == ['path starts with "/a"', 'header x-u is "jo"']
    assert [part.actual(request, b"/b", b"") for part in conditions] == ['"/b"', "absent"]


@given(st.text(alphabet="ab/.", max_size=6), st.text(alphabet="abAB/.", max_size=8))
def test_exact_prefix_and_suffix_agree_with_str(pattern: str, value: str) -> None:
    for kind, method in (("exact", str.__eq__), ("prefix", str.startswith), ("suffix", str.endswith)):
        for ignore in (False, True):
            left, right = (value.lower(), pattern.lower()) if ignore else (value, pattern)
            test = compile_string(StringMatch(kind=kind, value=pattern, ignore_case=ignore), "m")  # type: ignore[arg-type]
            assert test(value.encode()) == method(left, right)


CLAIMS = {"sub": "ann", "groups": ["dev", "ops", 7], "a": {"b": {"c": "deep"}}, "x.y": "dotted", "n": 7, "t": True, "none": None}


@pytest.mark.parametrize(
    ("path", "match", "expected"),
    [
        (("sub",), exact("ann"), True),
        (("sub",), exact("Ann"), False),
        (("sub",), prefix("a"), True),
        (("sub",), regex("a.*"), True),
        (("groups",), exact("ops"), True),
        (("groups",), exact("7"), False),
        (("groups",), regex("o"), False),
        (("a", "b", "c"), exact("deep"), True),
        (("a", "b"), exact("deep"), False),
        (("x.y",), exact("dotted"), True),
        (("x", "y"), exact("dotted"), False),
        (("sub", "more"), exact("ann"), False),
        (("n",), exact("7"), False),  # neither a string nor a list of them (Istio)
        (("t",), exact("true"), False),
        (("n",), StringMatch(kind="present"), True),
        (("none",), StringMatch(kind="present"), False),
        (("absent",), exact(""), False),
    ],
)
def test_claims_of_the_verified_token(path: tuple[str, ...], match: StringMatch, expected: bool) -> None:
    request = get()
    request.token = Token("iss", "ann", CLAIMS)
    assert holds(RouteMatch(claims=(ClaimMatch(path, match),)), request) is expected
    assert holds(RouteMatch(claims=(ClaimMatch(path, match, invert=True),)), request) is not expected
    bare = get(sub="ann")
    assert holds(RouteMatch(claims=(ClaimMatch(path, match),)), bare) is False
    assert holds(RouteMatch(claims=(ClaimMatch(path, match, invert=True),)), bare) is True


def test_a_claim_match_says_what_it_saw() -> None:
    request = get()
    request.token = Token("iss", "ann", CLAIMS)
    _, (condition,) = compile_route_match(RouteMatch(claims=(ClaimMatch(("a", "b"), exact("x")),)), "match")
    assert condition.words == 'claim a.b is "x"'
    assert condition.actual(request, b"/", b"") == "\"{'c': 'deep'}\""
    assert condition.actual(get(), b"/", b"") == "absent: there is no verified token"
    for path in ((), ("a", "")):
        with pytest.raises(Invalid, match=r"^match\.claims\[0\]\.path: "):
            compile_route_match(RouteMatch(claims=(ClaimMatch(path, exact("x")),)), "match")
