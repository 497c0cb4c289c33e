"""A gateway's port in memory: TLS that ends there, with HTTP or bytes in it, beside TLS that passes through by its name."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from meshproxy.exchange.corridor import Slot
from meshproxy.listener.doorway import HANDSHAKE
from meshproxy.message.secured import TlsFault
from meshproxy.model.listener import Listener
from meshproxy.model.route import WeightedCluster
from meshproxy.model.security import Secret, ServerTls
from meshproxy.model.tcp import Chain, TcpRoute
from meshproxy.tls.contexts import MESH_BYTES_ALPN, client_context
from meshproxy.tls.wire import TlsWire
from tests.certs import Authority, spiffe
from tests.flow.memnet import Wire, World
from tests.listener.test_entrance import GET, TRUST, became, hello, made, to
from tests.tls.clients import TlsClient
from tests.tls.pair import ROOT

WEB, CUSTOMERS = Authority("web"), Authority("customers")


def server(name: str, *hosts: str, mode: Any = "SIMPLE", tcp: tuple[TcpRoute, ...] = ()) -> ServerTls:
    secret = "" if mode == "ISTIO_MUTUAL" else "site"
    return ServerTls(hosts=hosts, mode=mode, secret=secret, route="any" if not tcp else name, tcp=tcp)


def port(*servers: ServerTls, through: tuple[TcpRoute, ...] = ()) -> World:
    world = made("gateway", Chain(name="g", protocol="TCP", tcp=through), route="any", tls=servers)
    site = WEB.issue(dns=("a.example", "*.example"))
    secret = Secret(name="site", certificate=site.certificate.decode(), key=site.key.decode(), ca=CUSTOMERS.root.decode())
    world.gate.vault.configure(TRUST, {"site": secret})
    listener = world.slot.current
    world.gate.served = {name: world.corridor.at(Slot(one)) for name, one in listener.served.items()}
    return world


def client(wire: Wire, name: str, pair: Any = None, alpn: tuple[str, ...] = (), root: bytes = WEB.root) -> TlsClient:
    own = (pair.certificate, pair.key) if pair is not None else (b"", b"")
    return TlsClient(wire, client_context(*own, roots=(root,), alpn=alpn, check_name=False), name=name)


def said(made: World, name: str, **how: Any) -> tuple[str, bytes]:
    """What becomes of a client that says GET to the server of this name, and what the endpoint hears."""
    wire = made.intercepted(None)
    client(wire, name, **how).send(GET)
    fate = became(made, wire)
    return fate, (made.accept().take() if made.dials else b"")


def test_one_port_of_three_kinds() -> None:
    world = port(
        server("web", "web.example"),
        server("db", "db.example", tcp=(to("bytes"),)),
        through=(to("other", sni=("raw.example",)),),
    )
    assert said(world, "web.example")[0] == "HTTP to http"
    assert said(world, "db.example") == ("bytes to bytes", GET)
    raw = hello("raw.example")
    wire = world.intercepted(None)
    for byte in raw:
        wire.deliver(bytes((byte,)))
    assert became(world, wire) == "bytes to other" and world.accept().take() == raw
    for nobody in ("else.example", None):
        wire = world.intercepted(None)
        wire.deliver(hello(nobody))
        assert wire.aborted and ("server", TlsFault.UNKNOWN_NAME) in world.gate.vault.tally.failures
    wire = world.intercepted(None)
    wire.deliver(GET)
    assert wire.aborted and ("server", TlsFault.NOT_TLS) in world.gate.vault.tally.failures


THROUGH, ENDED = "bytes to other", "bytes to bytes"


@pytest.mark.parametrize(
    ("through", "ended", "name", "expected"),
    [
        (("*",), "db.example", "db.example", ENDED),
        (("*",), "db.example", "x.example", THROUGH),
        (("*.example",), "db.example", "db.example", ENDED),
        (("*.example",), "*.db.example", "x.db.example", ENDED),
        (("*.example",), "*.db.example", "db.example", THROUGH),
        (("*.example",), "*", "x.example", THROUGH),
        (("x.example",), "*.example", "x.example", THROUGH),
        (("x.example",), "*.example", "y.example", ENDED),
        (("X.Example",), "*", "x.exAMPLE", THROUGH),
    ],
)
def test_the_closest_name_says_whether_tls_ends_here(through: tuple[str, ...], ended: str, name: str, expected: str) -> None:
    world = port(server("db", ended, tcp=(to("bytes"),)), through=(to("other", sni=through),))
    wire = world.intercepted(None)
    start = client(wire, name) if expected == ENDED else None
    if start is not None:
        start.send(b"x")
    else:
        wire.deliver(hello(name))
    assert became(world, wire) == expected


@pytest.mark.parametrize("mode", ["MUTUAL", "OPTIONAL_MUTUAL"])
def test_clients_with_certificates(mode: str) -> None:
    world = port(server("db", "db.example", mode=mode, tcp=(to("bytes"),)))
    assert said(world, "db.example", pair=CUSTOMERS.issue(dns=("one.customer",)))[0] == "bytes to bytes"
    wire = world.intercepted(None)
    one = client(wire, "db.example")
    if mode == "MUTUAL":
        assert not world.dials and wire.eof and ("server", TlsFault.NO_CERTIFICATE) in world.gate.vault.tally.failures
    else:
        one.send(b"x")
        assert became(world, wire) == "bytes to bytes"


def test_mutual_tls_of_the_mesh_introduces_both_sides() -> None:
    world = port(server("db", "db.example", mode="ISTIO_MUTUAL", tcp=(to("bytes"),)))
    pair = ROOT.issue(spiffe("web"))
    assert said(world, "db.example", pair=pair, alpn=MESH_BYTES_ALPN, root=ROOT.root) == ("bytes to bytes", GET)


def test_another_route_is_for_the_next_connection() -> None:
    world = port(server("db", "db.example", tcp=(to("bytes"),)))
    wire = world.intercepted(None)
    client(wire, "db.example").send(b"x")
    (stream,) = world.gate.connections
    assert isinstance(stream.transport, TlsWire)

    def changed(**fields: Any) -> Any:
        model: Listener = world.slot.current.model
        new = ServerTls(**{"hosts": ("db.example",), "secret": "site", "route": "db", "tcp": (to("bytes"),), **fields})
        return type("L", (), {"model": replace(model, tls=(new,))})()

    weights = TcpRoute(clusters=(WeightedCluster(cluster="bytes", weight=1), WeightedCluster(cluster="other", weight=1)))
    assert stream.fits(changed())
    assert stream.fits(changed(tcp=(weights,)))
    assert not stream.fits(changed(tcp=()))
    assert not stream.fits(changed(mode="MUTUAL"))


# -- patience


def test_a_hello_that_takes_its_time_still_names_its_server() -> None:
    world = port(through=(to("other", sni=("raw.example",)),))
    raw = hello("raw.example")
    wire = world.intercepted(None)
    world.clock.advance(3)
    assert became(world, wire) == "waits"
    wire.deliver(raw[:7])
    world.clock.advance(3)
    world.sweep()
    wire.deliver(raw[7:])
    assert became(world, wire) == "bytes to other"


@pytest.mark.parametrize("ended", [True, False])
def test_who_never_says_hello_may_not_stay(ended: bool) -> None:
    world = port(*((server("db", "db.example"),) if ended else ()), through=(to("other", sni=("raw.example",)),))
    world.intercepted(None)
    (door,) = world.gate.connections
    assert door.quiet and door.patience == HANDSHAKE
    wire = world.intercepted(None)
    wire.deliver(b"\x16\x03\x01")
    world.clock.advance(HANDSHAKE + 1)
    world.sweep()
    assert wire.aborted and ("server", TlsFault.TIMEOUT) in world.gate.vault.tally.failures
