"""Which TLS server of a gateway a name means: exact before suffix before any, the longest suffix, the first of equals."""

from __future__ import annotations

import pytest

from meshproxy.model.security import ServerTls
from meshproxy.policy.server_names import ServerNames


def server(source: str, *hosts: str) -> ServerTls:
    return ServerTls(hosts=hosts, source=source)


SERVERS = (
    server("any", "*"),
    server("wide", "*.example.com"),
    server("narrow", "*.a.example.com", "Shop.Example.com"),
    server("late", "*.example.com", "shop.example.com", "*"),
)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("shop.example.com", "narrow"),
        ("x.example.com", "wide"),
        ("x.y.example.com", "wide"),
        ("x.a.example.com", "narrow"),
        ("a.example.com", "wide"),
        ("example.com", "any"),
        ("", "any"),
        ("xexample.com", "any"),
        (".example.com", "wide"),
    ],
)
def test_choice(name: str, source: str) -> None:
    found = ServerNames(SERVERS).choose(name)
    assert found is not None and found.source == source


def test_no_server_for_that_name() -> None:
    names = ServerNames(SERVERS[1:3])
    assert names.choose("") is None and names.choose("example.com") is None
    assert ServerNames(()).choose("a") is None
