"""Tables of routes: hosts, order, weights, ports; and that explain tells what choose does."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.model.match import HeaderMatch, RouteMatch
from meshproxy.model.route import DirectResponse, Forward, HeaderOps, Mirror, Retry, Route, RouteConfig, WeightedCluster
from meshproxy.policy.compiled import DIRECT, FORWARD, REDIRECT, CompiledRoute, allow_any, block_all
from meshproxy.policy.invalid import Invalid
from meshproxy.policy.routes import PortTables, RouteTable, bare_host, port_of
from tests.policy.fakes import CLUSTERS, config, exact, get, host, prefix, rule, to

FIRST = "virtual_hosts[0].routes[0]"


def table(*hosts: object) -> RouteTable:
    return RouteTable(config(*hosts), CLUSTERS.get)  # type: ignore[arg-type]


def taken(route: CompiledRoute | None) -> str | None:
    return None if route is None else route.name


@pytest.mark.parametrize(
    ("authority", "bare", "port"),
    [
        (b"Rating:8080", b"rating", 8080),
        (b"rating", b"rating", 80),
        (b"rating:", b"rating", 80),
        (b"[::1]:9080", b"::1", 9080),
        (b"[::1]", b"::1", 80),
        (b"::1", b"::1", 80),
        (b"10.0.0.1:80", b"10.0.0.1", 80),
        (b"rating.default.", b"rating.default.", 80),
        (b"a:b", b"a:b", 80),
        (b"a:999999999999", b"a", 0),
        (b"", b"", 80),
    ],
)
def test_hosts_and_ports(authority: bytes, bare: bytes, port: int) -> None:
    assert bare_host(authority) == bare
    assert port_of(authority, 80) == port


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        ("rating", "a"),
        ("RATING:8080", "a"),
        ("rating.default", "a"),
        ("rating.default.", None),  # only as listed
        ("x.example.com", "b"),
        ("y.x.example.com", "c"),  # the longest suffix
        ("example.com", None),  # a wildcard stands for at least one character
        ("[::1]:8080", "d"),
        ("other", None),
    ],
)
def test_virtual_hosts(authority: str, expected: str | None) -> None:
    found = table(
        host(rule("a"), domains=("rating", "Rating.Default")),
        host(rule("b"), domains=("*.example.com",)),
        host(rule("c"), domains=("*.x.example.com",)),
        host(rule("d"), domains=("[::1]",)),
    )
    for _ in range(2):  # the second answer is remembered
        assert taken(found.choose(get(authority=authority))) == expected


def test_an_exact_host_beats_a_wildcard_and_star_comes_last() -> None:
    found = table(host(rule("c")), host(rule("b"), domains=("*.com",)), host(rule("a"), domains=("x.com",)))
    assert [taken(found.choose(get(authority=name))) for name in ("x.com", "y.com", "z.org", "")] == ["a", "b", "c", "c"]


def test_the_first_match_wins_and_nothing_matching_is_none() -> None:
    found = table(host(rule("a", RouteMatch(path=prefix("/a"))), rule("b", RouteMatch(path=prefix("/ab")))))
    assert [taken(found.choose(get(path))) for path in ("/abc", "/a?x", "/b")] == ["a", "a", None]


def test_the_memo_of_hosts_is_bounded() -> None:
    found = table(host(rule("a")))
    for number in range(5000):
        assert taken(found.choose(get(authority=f"h{number}"))) == "a"
    assert taken(found.choose(get(authority="h" * 5000))) == "a"
    assert len(found._memo) <= 1024
    assert max(map(len, found._memo)) <= 256


@pytest.mark.parametrize(
    ("hosts", "path", "says"),
    [
        ((host(rule("a"), domains=("x",)), host(rule("b"), domains=("X",))), "virtual_hosts[1].domains[0]", "duplicate"),
        ((host(rule("a"), domains=("x:80",)),), "virtual_hosts[0].domains[0]", "port"),
        ((host(rule("a"), domains=("a.*.b",)),), "virtual_hosts[0].domains[0]", "bad domain"),
        ((host(rule("a"), domains=("",), name="v"),), "virtual_hosts[0].domains[0]", "bad domain"),
        ((host(Route(action=to("a=0", "b=0"))),), f"{FIRST}.action.clusters", "total destination weight = 0"),
        ((host(Route(action=to())),), f"{FIRST}.action.clusters", "at least one"),
        ((host(Route(action=to("a", retry=Retry(on=("5xxx",))))),), f"{FIRST}.action.retry", "5xxx"),
        (
            (host(Route(action=to("a", mirrors=(Mirror(cluster="b", percent=101.0),)))),),
            f"{FIRST}.action.mirrors[0].percent",
            "100",
        ),
        ((host(Route(action=DirectResponse(status=99))),), f"{FIRST}.action.status", "200"),
        ((host(rule("a", request_headers=HeaderOps(set=(("x", "%NOPE%"),)))),), f"{FIRST}.request_headers.set[0]", "%NOPE%"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_with_its_path(hosts: tuple[object, ...], path: str, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        table(*hosts)
    assert caught.value.path == path
    assert says in caught.value.message


def test_an_unknown_cluster_is_a_choice_without_one() -> None:
    route = table(host(rule("zz"))).choose(get())
    assert route is not None and route.single is not None
    assert (route.kind, route.single.name, route.single.cluster) == (FORWARD, "zz", None)


def test_weights() -> None:
    route = table(host(Route(action=to("a=75", "b=25", "c=0")))).choose(get())
    assert route is not None and route.single is None
    assert [route.pick(draw).name for draw in (0.0, 0.7499, 0.75, 0.999999)] == ["a", "a", "b", "b"]
    draws = random.Random(7)
    hits = sum(route.pick(draws.random()).name == "a" for _ in range(10_000))
    assert 7300 < hits < 7700


@given(st.lists(st.integers(0, 100), min_size=2, max_size=8).filter(any), st.floats(0, 1, exclude_max=True))
def test_a_pick_is_never_of_weight_zero_and_never_outside(weights: list[int], draw: float) -> None:
    names = "abcdefgh"[: len(weights)]
    route = table(host(Route(action=to(*(f"{name}={weight}" for name, weight in zip(names, weights, strict=True))))))
    chosen = route.routes[0].pick(draw).name
    assert weights[names.index(chosen)] > 0


def test_one_destination_is_taken_whatever_its_weight() -> None:
    route = table(host(Route(action=to("a=0")))).choose(get())
    assert route is not None and route.single is not None and route.single.name == "a"


def test_edits_of_destination_and_route_are_joined_the_route_last() -> None:
    action = to("a", "b")
    weighted = WeightedCluster(cluster="a", weight=1, request_headers=HeaderOps(set=(("x", "dest"),), add=(("y", "dest"),)))
    action = type(action)(clusters=(weighted, action.clusters[1]))
    route = table(host(Route(action=action, request_headers=HeaderOps(set=(("x", "route"),))))).routes[0]
    request = get()
    ops = route.choices[0].request_ops
    assert ops is not None
    ops.request(request, None)  # type: ignore[arg-type]
    assert request.headers == [(b"x", b"route"), (b"y", b"dest")]


def test_edits_of_the_only_destination_run_last_but_the_route_names_the_host() -> None:
    ours = HeaderOps(set=(("host", "dest"), ("x", "dest")))
    action = Forward(clusters=(WeightedCluster(cluster="a", request_headers=ours),))
    of_route = HeaderOps(set=(("host", "route"), ("x", "route")))
    route = table(host(Route(action=action, request_headers=of_route))).routes[0]
    request = get()
    ops = route.choices[0].request_ops
    assert ops is not None
    ops.request(request, SimpleNamespace())  # type: ignore[arg-type]
    assert (request.authority, request.headers) == (b"route", [(b"x", b"dest")])


def test_retry_off_and_on() -> None:
    routes = table(host(Route(action=to("a", retry=Retry(attempts=0))), Route(action=to("a", retry=Retry(on=("5xx",)))))).routes
    assert routes[0].retry is None
    assert routes[1].retry is not None and routes[1].retry.wants_status(503, [])


def test_ports_select_tables_and_the_rest_falls_back() -> None:
    eighty = RouteTable(config(host(rule("a"), domains=("rating",)), name="80"), CLUSTERS.get)
    other = RouteTable(config(host(rule("b", RouteMatch(path=prefix("/b"))), domains=("rating",)), name="8080"), CLUSTERS.get)
    tables = PortTables(
        {80: eighty, 8080: other, 443: RouteTable(config(host(rule("c"), domains=("rating",))), CLUSTERS.get)}, block_all()
    )
    for _ in range(2):
        assert taken(tables.choose(get(authority="rating"))) == "a"
        assert taken(tables.choose(get(authority="rating", scheme="https"))) == "c"
        assert taken(tables.choose(get("/b", authority="rating:8080"))) == "b"
        assert tables.choose(get("/c", authority="rating:8080")) is None  # a known host: 404, not the fallback
        assert taken(tables.choose(get(authority="rating:81"))) == "block_all"
        assert taken(tables.choose(get(authority="unknown"))) == "block_all"


def test_allow_any_and_block_all() -> None:
    passed = allow_any(CLUSTERS["a"])
    assert (passed.name, passed.kind) == ("allow_any", FORWARD)
    assert passed.single is not None and (passed.single.name, passed.single.cluster) == ("PassthroughCluster", CLUSTERS["a"])
    blocked = block_all()
    assert (blocked.kind, blocked.target) == (DIRECT, "BlackHoleCluster") and blocked.reply is not None
    reply = blocked.reply(get(), b"http", 80)
    assert (reply.head.status, reply.body, reply.head.headers) == (502, b"", [(b"content-length", b"0")])
    assert REDIRECT not in (passed.kind, blocked.kind)


def test_a_new_table_takes_over_equal_hosts_unless_a_cluster_moved() -> None:
    first = config(host(rule("a"), domains=("x",)), host(rule("b"), domains=("y",)))
    second = config(host(rule("a"), domains=("x",)), host(rule("c"), domains=("y",)), host(rule("d"), domains=("z",)))
    old = RouteTable(first, CLUSTERS.get)
    new = RouteTable(second, CLUSTERS.get, old)
    assert new.choose(get(authority="x")) is old.choose(get(authority="x"))
    assert taken(new.choose(get(authority="y"))) == "c" and taken(new.choose(get(authority="z"))) == "d"
    moved = RouteTable(second, {}.get, new, frozenset("a"))
    route = moved.choose(get(authority="x"))
    assert route is not None and route.single is not None and route.single.cluster is None
    assert new.choose(get(authority="y")) is moved.choose(get(authority="y"))


def test_explain_names_the_first_condition_that_did_not_hold() -> None:
    found = table(
        host(
            rule("a", RouteMatch(path=prefix("/a"), headers=(HeaderMatch(name="x", match=exact("1")),)), source="vs http[0]"),
            rule("b", source="vs http[1]"),
            rule("c"),
            domains=("rating",),
        ),
        host(rule("d"), name="catch all"),
        host(rule("e"), domains=("ratings",)),
    )
    steps = found.explain(get("/abc"))
    assert [(step.what, step.name, step.taken) for step in steps] == [
        ("virtual host", "ratings", False),
        ("virtual host", "catch all", False),
        ("virtual host", "rating", True),
        ("route", "a", False),
        ("route", "b", True),
        ("route", "c", False),
    ]
    assert [step.reason for step in steps] == [
        'its hosts (ratings) do not include "rating"',
        'another virtual host matches "rating" more closely',
        '"rating" is among its hosts',
        'header x is "1": it is absent',
        "it has no conditions",
        "a route before it matched",
    ]


MATCHES = st.builds(
    RouteMatch,
    path=st.none() | st.sampled_from(["/", "/a", "/ab", "/b"]).map(prefix) | st.sampled_from(["/a", "/b"]).map(exact),
    method=st.none() | st.sampled_from(["GET", "POST"]).map(exact),
    headers=st.lists(
        st.builds(HeaderMatch, name=st.just("x"), match=st.sampled_from(["1", "2"]).map(exact), invert=st.booleans()), max_size=2
    ).map(tuple),
)
TABLES = st.lists(MATCHES, max_size=6)
REQUESTS = st.builds(
    get,
    path=st.sampled_from(["/", "/a", "/ab", "/b?x=1", "/c"]),
    method=st.sampled_from(["GET", "POST"]),
    x=st.sampled_from(["1", "2", "3"]),
)


def built(matches: list[RouteMatch]) -> RouteTable:
    return table(host(*(rule("a", match, name=str(number)) for number, match in enumerate(matches))))


@given(TABLES, REQUESTS)
def test_first_match_wins(matches: list[RouteMatch], request: object) -> None:
    each = [built([match]).choose(request) is not None for match in matches]  # type: ignore[arg-type]
    chosen = built(matches).choose(request)  # type: ignore[arg-type]
    assert taken(chosen) == (str(each.index(True)) if any(each) else None)


@given(TABLES, MATCHES, st.integers(0, 6), REQUESTS)
def test_a_rule_that_does_not_match_changes_nothing(
    matches: list[RouteMatch], extra: RouteMatch, at: int, request: object
) -> None:
    if built([extra]).choose(request) is not None:  # type: ignore[arg-type]
        return
    routes = [rule("a", match, name=str(number)) for number, match in enumerate(matches)]
    more = [*routes[:at], rule("b", extra, name="extra"), *routes[at:]]
    assert taken(table(host(*routes)).choose(request)) == taken(table(host(*more)).choose(request))  # type: ignore[arg-type]


@given(TABLES, REQUESTS)
def test_explain_takes_what_choose_takes(matches: list[RouteMatch], request: object) -> None:
    found = built(matches)
    steps = [step.name for step in found.explain(request) if step.taken and step.what == "route"]  # type: ignore[arg-type]
    chosen = taken(found.choose(request))  # type: ignore[arg-type]
    assert steps == ([] if chosen is None else [chosen])


def test_an_empty_configuration_answers_nobody() -> None:
    assert RouteTable(RouteConfig(name="80", virtual_hosts=()), CLUSTERS.get).choose(get()) is None
