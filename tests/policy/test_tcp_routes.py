"""Which route a connection's bytes take."""

from __future__ import annotations

from typing import Any

import pytest

from meshproxy.model.route import WeightedCluster
from meshproxy.model.tcp import TcpRoute
from meshproxy.policy.invalid import Invalid
from meshproxy.policy.tcp_routes import TcpRoutes


def routes(*models: TcpRoute) -> TcpRoutes:
    return TcpRoutes(models, lambda name: None, "chains[0]")


def to(*clusters: tuple[str, int], **fields: Any) -> TcpRoute:
    return TcpRoute(clusters=tuple(WeightedCluster(cluster=name, weight=weight) for name, weight in clusters), **fields)


def test_the_first_that_matches() -> None:
    made = routes(
        to(("a", 1), sni=("a.example",), addresses=("10.0.0.0/8",)),
        to(("b", 1), sni=("*.example",)),
        to(("c", 1), sni=("*",)),
        to(("d", 1), addresses=("10.0.0.0/8", "fd00::1")),
    )
    wanted = {
        ("a.example", "10.1.1.1"): "a",
        ("a.example", "11.1.1.1"): "b",
        ("x.y.example", "10.1.1.1"): "b",
        ("example", "10.1.1.1"): "c",
        ("", "10.1.1.1"): "d",
        ("", "fd00::1"): "d",
        ("", "fd00::2"): None,
    }
    for (sni, address), name in wanted.items():
        found = made.choose(sni, address)
        assert (found.choices[0][0] if found is not None else None) == name, (sni, address)
    assert made.by_name and not routes(to(("a", 1))).by_name


def test_the_closest_name_whatever_the_order() -> None:
    made = routes(
        to(("none", 1)),
        to(("any", 1), sni=("*",)),
        to(("far", 1), sni=("*.example",)),
        to(("near", 1), sni=("*.b.example", "a.b.example")),
    )
    made = routes(
        *(route.model for route in made.routes), to(("exact", 1), sni=("A.B.example",)), to(("late", 1), sni=("*.b.example",))
    )
    wanted = {"a.b.example": "near", "x.b.example": "near", "b.example": "far", "other": "any", "": "none"}
    for sni, name in wanted.items():
        found = made.choose(sni, "10.0.0.1")
        assert found is not None and found.choices[0][0] == name, sni


def test_weights() -> None:
    (route,) = routes(to(("a", 1), ("none", 0), ("b", 3))).routes
    assert [route.pick(draw)[0] for draw in (0.0, 0.24, 0.25, 0.99)] == ["a", "a", "b", "b"] and route.single is None
    (route,) = routes(to(("a", 0))).routes
    assert route.single is not None and route.single[0] == "a"


BAD: list[tuple[TcpRoute, str]] = [
    (to(), "chains[0].tcp[0].clusters: a route must forward to at least one cluster"),
    (to(("a", -1)), "chains[0].tcp[0].clusters: a weight must not be negative"),
    (to(("a", 0), ("b", 0)), "chains[0].tcp[0].clusters: total destination weight = 0: give at least one cluster a weight"),
    (to(("a", 1), sni=("a*b",)), 'chains[0].tcp[0].sni[0]: bad name "a*b": use a host name, "*.suffix" or "*"'),
    (
        to(("a", 1), addresses=("x",)),
        'chains[0].tcp[0].addresses[0]: must be an address or a block such as "10.0.0.0/8", not "x"',
    ),
]


@pytest.mark.parametrize(("route", "words"), BAD)
def test_refusals(route: TcpRoute, words: str) -> None:
    with pytest.raises(Invalid) as no:
        routes(route)
    assert str(no.value) == words
