"""Matching: every kind of condition, and which conditions are judged when configuration is made (semantics A1)."""

from __future__ import annotations

import pytest
from world_objects import client, service, to, virtual_service

from meshproxy.model.match import HeaderMatch, QueryMatch, RouteMatch, StringMatch

A, B = to("a"), to("b")
TO_A, TO_B = [("outbound|8080||a.default.svc.cluster.local", 1)], [("outbound|8080||b.default.svc.cluster.local", 1)]
TWO = [service("a"), service("b")]


def match_of(condition: dict) -> RouteMatch:
    view = client([*TWO, virtual_service("v", ["a"], [{"match": [condition], "route": [A]}])])
    (route,) = view.routes("a")
    return route.match


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"uri": {"exact": "/x"}}, RouteMatch(path=StringMatch(kind="exact", value="/x"))),
        ({"uri": {"prefix": "/x"}}, RouteMatch(path=StringMatch(kind="prefix", value="/x"))),
        ({"uri": {"regex": "/x.*"}}, RouteMatch(path=StringMatch(kind="regex", value="/x.*"))),
        (
            {"uri": {"exact": "/X"}, "ignoreUriCase": True},
            RouteMatch(path=StringMatch(kind="exact", value="/X", ignore_case=True)),
        ),
        (
            {"uri": {"prefix": "/X"}, "ignoreUriCase": True},
            RouteMatch(path=StringMatch(kind="prefix", value="/X", ignore_case=True)),
        ),
        ({"uri": {"regex": "/x"}, "ignoreUriCase": True}, RouteMatch(path=StringMatch(kind="regex", value="/x"))),
        ({"method": {"exact": "POST"}}, RouteMatch(method=StringMatch(kind="exact", value="POST"))),
        ({"scheme": {"exact": "https"}}, RouteMatch(scheme=StringMatch(kind="exact", value="https"))),
        ({"authority": {"prefix": "a:"}}, RouteMatch(authority=StringMatch(kind="prefix", value="a:"))),
        (
            {"headers": {"X-B": {"exact": "1"}, "x-a": {"regex": "1|2"}}},
            RouteMatch(
                headers=(
                    HeaderMatch(name="x-a", match=StringMatch(kind="regex", value="1|2")),
                    HeaderMatch(name="x-b", match=StringMatch(kind="exact", value="1")),
                )
            ),
        ),
        ({"headers": {"x-a": {}}}, RouteMatch(headers=(HeaderMatch(name="x-a", match=StringMatch(kind="present")),))),
        (
            {"headers": {"x-a": {"regex": "*"}}},
            RouteMatch(headers=(HeaderMatch(name="x-a", match=StringMatch(kind="present")),)),
        ),
        (
            {"withoutHeaders": {"x-a": {"prefix": "b"}}},
            RouteMatch(headers=(HeaderMatch(name="x-a", match=StringMatch(kind="prefix", value="b"), invert=True),)),
        ),
        (
            {"withoutHeaders": {"x-a": {}}},
            RouteMatch(headers=(HeaderMatch(name="x-a", match=StringMatch(kind="present"), invert=True),)),
        ),
        (
            {"queryParams": {"q": {"exact": "1"}, "p": {}}},
            RouteMatch(
                query=(
                    QueryMatch(name="p", match=StringMatch(kind="present")),
                    QueryMatch(name="q", match=StringMatch(kind="exact", value="1")),
                )
            ),
        ),
    ],
)
def test_dynamic_conditions(condition, expected):
    assert match_of(condition) == expected


def rules(condition: dict) -> list:
    return [{"match": [condition], "route": [A]}, {"route": [B]}]


@pytest.mark.parametrize(
    ("condition", "applies"),
    [
        ({"port": 8080}, True),
        ({"port": 9090}, False),
        ({"gateways": ["mesh"]}, True),
        ({"gateways": ["gw"]}, False),
        ({"sourceLabels": {"app": "shop"}}, True),
        ({"sourceLabels": {"app": "shop", "tier": "front"}}, False),
        ({"sourceNamespace": "default"}, True),
        ({"sourceNamespace": "other"}, False),
        # A match that names gateways does not look at source labels (Istio's sourceMatchHTTP).
        ({"gateways": ["mesh"], "sourceLabels": {"app": "else"}}, True),
    ],
)
def test_static_conditions_are_judged_here(condition, applies):
    condition = {"uri": {"prefix": "/x"}, **condition}
    vs = virtual_service("v", ["a"], rules(condition), gateways=["mesh", "gw"])
    view = client([*TWO, vs], labels={"app": "shop"})
    assert view.targets("a") == ([TO_A, TO_B] if applies else [TO_B])


def test_static_condition_alone_then_catches_all():
    view = client([*TWO, virtual_service("v", ["a"], rules({"port": 8080}))])
    assert view.targets("a") == [TO_A]
    assert view.routes("a")[0].source == "VirtualService default/v http[0].match[0]"


@pytest.mark.parametrize("uri", [{"prefix": "/"}, {"regex": ".*"}])
def test_a_catch_all_ends_the_list(uri):
    view = client([*TWO, virtual_service("v", ["a"], [{"match": [{"uri": uri}], "route": [A]}, {"route": [B]}])])
    assert view.targets("a") == [TO_A]


def test_a_catch_all_path_with_another_condition_does_not_end_the_list():
    condition = {"uri": {"prefix": "/"}, "headers": {"x": {"exact": "1"}}}
    view = client([*TWO, virtual_service("v", ["a"], rules(condition))])
    assert view.targets("a") == [TO_A, TO_B]


def test_matches_of_a_rule_are_alternatives_in_order():
    rule = {
        "name": "r",
        "match": [
            {"name": "one", "uri": {"exact": "/1"}},
            {"port": 1, "uri": {"exact": "/2"}},
            {"uri": {"exact": "/3"}},
        ],
        "route": [A],
    }
    view = client([*TWO, virtual_service("v", ["a"], [rule])])
    found = [(r.name, r.source, r.match.path.value) for r in view.routes("a") if r.match.path]
    assert found == [
        ("r.one", "VirtualService default/v http[0].match[0]", "/1"),
        ("r", "VirtualService default/v http[0].match[2]", "/3"),
    ]


def test_a_rule_without_match_ends_the_list():
    view = client([*TWO, virtual_service("v", ["a"], [{"route": [A]}, {"route": [B]}])])
    assert view.targets("a") == [TO_A]


def test_when_no_rule_is_for_this_client_the_service_is_reached_plainly():
    vs = virtual_service("v", ["a"], [{"match": [{"sourceLabels": {"app": "x"}}], "route": [B]}])
    assert client([*TWO, vs]).targets("a") == [TO_A]
    assert client([*TWO, vs], labels={"app": "x"}).targets("a") == [TO_B]
