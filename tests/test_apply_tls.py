"""A gateway's TLS servers in a snapshot: each judges by its own routes; a server without routes is refused with its path."""

from __future__ import annotations

import pytest

from meshproxy.apply import Refused, Snapshot, compile_snapshot
from meshproxy.model.base import Model
from meshproxy.model.cluster import Cluster
from meshproxy.model.listener import Listener
from meshproxy.model.route import Redirect, Route
from meshproxy.model.security import ServerTls, Trust
from tests.policy.fakes import config, get, host, rule
from tests.test_apply import Maker, at, resources


def gateway(*servers: ServerTls) -> Snapshot:
    redirect = Route(name="away", action=Redirect(scheme="https", derive_port="FROM_REQUEST_PORT"))
    return compile_snapshot(
        resources(
            Cluster(name="a"),
            at("a", "10.0.0.1"),
            config(host(rule("a"), domains=("*",)), name="https.443.shop"),
            config(host(redirect, domains=("*",)), name="https.443.club"),
            Listener(name="gateway|443", direction="gateway", port=443, tls=servers),
        ),
        None,
        Maker(),
    )


def test_each_server_judges_by_its_own_routes() -> None:
    shop = ServerTls(hosts=("shop.example.com",), route="https.443.shop", secret="a/b")
    club = ServerTls(hosts=("*.club.org",), route="https.443.club", secret="a/b")
    listener = gateway(shop, club).listeners["gateway|443"]
    assert not listener.plain and listener.server_of("x.club.org") is club and listener.server_of("") is None
    assert set(listener.served) == {"https.443.shop", "https.443.club"}
    assert all(served.server_of is listener.server_of for served in listener.served.values()), "made once, not for each server"
    chosen = {name: served.choose(get("/", "any.org")) for name, served in listener.served.items()}
    assert [route.name for route in chosen.values() if route is not None] == ["a", "away"]
    away = chosen["https.443.club"]
    assert away is not None and away.reply is not None
    location = dict(away.reply(get("/", "x.club.org"), b"https", 443).head.headers)[b"location"]
    assert location == b"https://x.club.org/", "the default port of https is left out"


def test_a_server_without_routes_is_refused() -> None:
    with pytest.raises(Refused, match=r'^listener gateway\|443: tls\[1\]\.route: there is no route configuration "nowhere"$'):
        gateway(ServerTls(route="https.443.shop", secret="a/b"), ServerTls(route="nowhere", secret="a/b"))


def test_a_listener_says_whether_it_has_to_look() -> None:
    for mode, plain in (("DISABLE", True), ("PERMISSIVE", False), ("STRICT", False)):
        made = compile_snapshot(
            resources(
                Cluster(name="a"),
                config(host(rule("a"), domains=("*",)), name="in"),
                Listener(name="in", direction="inbound", port=80, route="in", mtls=mode),  # type: ignore[arg-type]
            ),
            None,
            Maker(),
        )
        assert made.listeners["in"].plain is plain


def test_a_root_that_cannot_be_read_is_refused() -> None:
    trust: dict[str, dict[str, Model]] = {"trust": {"mesh": Trust(roots=("nonsense",))}}
    with pytest.raises(Refused, match=r"^trust mesh: roots\[0\]: root: not a PEM certificate - at `\$\.roots`$"):
        compile_snapshot(trust, None, Maker())
