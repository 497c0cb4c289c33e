"""Mirrors end: whatever their target does, the request they copy is none the worse and nothing is kept."""

from __future__ import annotations

import pytest

from meshproxy.model.cluster import Cluster, Endpoint, Endpoints
from meshproxy.model.route import Forward, Mirror, WeightedCluster
from tests.flow.memnet import GET, OK, Wire, World, simple, status_of


def world(timeout: float = 0.0) -> World:
    action = Forward(clusters=(WeightedCluster(cluster="c"),), mirrors=(Mirror(cluster="m"),), timeout=timeout)
    shadow = Endpoints(name="m", endpoints=(Endpoint(address="127.1.0.9", port=8080),))
    more = {"cluster": {"m": Cluster(name="m")}, "endpoints": {"m": shadow}}
    return World(simple(action=action, endpoints=1, more=more))


def begun(timeout: float = 0.0) -> tuple[World, Wire]:
    """A request that has been answered; its copy is on its way."""
    made = world(timeout)
    client = made.client()
    client.deliver(GET)
    addresses = {pool.endpoint.address for pool in made.dials}
    assert addresses == {"127.1.0.2", "127.1.0.9"}
    made.dials.sort(key=lambda pool: pool.endpoint.address)
    made.accept().deliver(OK)
    assert status_of(client.take()) == 200
    return made, client


def test_a_target_that_refuses() -> None:
    made, client = begun()
    made.refuse()
    assert not client.closing
    assert len(made.records) == 1
    made.settled()


@pytest.mark.parametrize("answer", [OK, b"HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno", b"nonsense\r\n\r\n"])
def test_a_target_that_answers_anything(answer: bytes) -> None:
    made, _ = begun()
    server = made.accept()
    assert b"host: rating-shadow:8080\r\n" in server.take()
    server.deliver(answer)
    assert len(made.records) == 1
    made.settled()


def test_a_target_that_hangs_ends_with_the_route_s_timeout() -> None:
    made, _ = begun(timeout=1.0)
    server = made.accept()
    made.clock.advance(1.1)
    assert server.closing
    made.settled()


@pytest.mark.parametrize(
    "head",
    [
        b"CONNECT rating:8080 HTTP/1.1\r\nhost: rating:8080\r\n\r\n",
        b"GET /chat HTTP/1.1\r\nhost: rating:8080\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    ],
)
def test_a_tunnel_is_not_copied(head: bytes) -> None:
    """Nobody would ever end the copy."""
    made = world()
    made.client().deliver(head)
    assert [pool.endpoint.address for pool in made.dials] == ["127.1.0.2"]
