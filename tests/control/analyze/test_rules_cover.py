"""Which matches cover which: held to the proxy's own matcher, so that "not used" is never said of a rule that is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.analyze.rules import covers
from control.resources.virtual_service import HTTPMatchRequest, StringMatch
from control.translate.match import Client, applies, route_match
from meshproxy.message.head import RequestHead
from meshproxy.policy.matchers import compile_route_match, split_target

PATHS = ("/", "/a", "/ab", "/A", "/b/c")
WORDS = ("x", "xy", "Y")


def strings_of(words: tuple[str, ...]) -> st.SearchStrategy[StringMatch]:
    word = st.sampled_from(words)
    regexes = st.sampled_from((".*", "/a.*", "x.*", "/b/c", "xy"))
    return st.one_of(
        word.map(lambda text: StringMatch(exact=text)),
        word.map(lambda text: StringMatch(prefix=text)),
        regexes.map(lambda text: StringMatch(regex=text)),
    )


HEADER = st.one_of(strings_of(WORDS), st.just(StringMatch()))
MATCHES = st.builds(
    HTTPMatchRequest,
    uri=st.none() | strings_of(PATHS),
    method=st.none() | st.sampled_from(("GET", "POST")).map(lambda text: StringMatch(exact=text)),
    headers=st.dictionaries(st.sampled_from(("h", "H2")), HEADER, max_size=2),
    without_headers=st.dictionaries(st.sampled_from(("w", "h")), HEADER, max_size=1),
    query_params=st.dictionaries(st.just("q"), strings_of(WORDS), max_size=1),
    ignore_uri_case=st.booleans(),
    port=st.sampled_from((0, 0, 80)),
    source_labels=st.dictionaries(st.just("app"), st.sampled_from(("a", "b")), max_size=1),
    source_namespace=st.sampled_from(("", "", "other")),
    gateways=st.sampled_from(((), (), ("gw",), ("mesh",), ("gw", "mesh"))),
)
VALUES = st.sampled_from((*WORDS, "", "z"))
REQUESTS = st.tuples(
    st.sampled_from((*PATHS, "/abc")),
    st.sampled_from(("GET", "POST")),
    st.dictionaries(st.sampled_from(("h", "h2", "w")), VALUES, max_size=3),
    st.none() | VALUES,
)
CLIENTS = st.builds(
    Client,
    namespace=st.sampled_from(("default", "other")),
    labels=st.dictionaries(st.just("app"), st.sampled_from(("a", "b")), max_size=1),
    gateways=st.sampled_from((frozenset(("mesh",)), frozenset(("default/gw",)))),
    ports=st.sampled_from((frozenset((80,)), frozenset((81,)))),
)


def holds(match: HTTPMatchRequest, request: tuple[str, str, dict[str, str], str | None], client: Client) -> bool:
    gateways = frozenset(name if name == "mesh" else f"default/{name}" for name in match.gateways)
    if not applies(match, gateways, client):
        return False
    path, method, headers, query = request
    target = path + (f"?q={query}" if query is not None else "")
    head = RequestHead(method.encode(), target.encode(), b"host", [(k.encode(), v.encode()) for k, v in headers.items()])
    predicate, _ = compile_route_match(route_match(match), "match")
    return predicate is None or predicate(head, *split_target(head.target))


@settings(max_examples=600, deadline=None)
@given(wide=MATCHES, narrow=MATCHES, request=REQUESTS, client=CLIENTS)
def test_what_is_covered_never_matches_alone(wide: Any, narrow: Any, request: Any, client: Any) -> None:
    if covers(wide, narrow, "default") and holds(narrow, request, client):
        assert holds(wide, request, client)


@settings(max_examples=200, deadline=None)
@given(match=MATCHES)
def test_a_match_covers_itself(match: Any) -> None:
    assert covers(match, match, "default")


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        (HTTPMatchRequest(), HTTPMatchRequest(uri=StringMatch(exact="/a"))),
        (HTTPMatchRequest(uri=StringMatch(prefix="/")), HTTPMatchRequest(uri=StringMatch(regex="/x.*"))),
        (HTTPMatchRequest(uri=StringMatch(prefix="/a")), HTTPMatchRequest(uri=StringMatch(prefix="/ab"), port=80)),
        (HTTPMatchRequest(uri=StringMatch(regex="/a[0-9]+")), HTTPMatchRequest(uri=StringMatch(exact="/a12"))),
        (HTTPMatchRequest(headers={"H": StringMatch()}), HTTPMatchRequest(headers={"h": StringMatch(exact="x")})),
        (
            HTTPMatchRequest(uri=StringMatch(prefix="/a"), ignore_uri_case=True),
            HTTPMatchRequest(uri=StringMatch(exact="/AB")),
        ),
        (
            HTTPMatchRequest(without_headers={"h": StringMatch(exact="x")}),
            HTTPMatchRequest(without_headers={"h": StringMatch()}),
        ),
        (HTTPMatchRequest(gateways=("gw", "mesh")), HTTPMatchRequest(gateways=("mesh",), source_labels={"a": "b"})),
    ],
)
def test_covered(wide: HTTPMatchRequest, narrow: HTTPMatchRequest) -> None:
    assert covers(wide, narrow, "default")
    assert not covers(narrow, wide, "default")
