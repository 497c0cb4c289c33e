"""A configuration that changes while a connection is still looked at, and clients that take their time."""

from __future__ import annotations

from typing import Any

import pytest

from meshproxy.codec.peer_exchange import preamble
from meshproxy.message.secured import TlsFault
from meshproxy.model.listener import Listener
from meshproxy.model.tcp import Chain
from meshproxy.tls.contexts import client_context
from meshproxy.tls.session import Session
from tests.certs import spiffe
from tests.flow.memnet import World
from tests.listener.test_entrance import APP, GET, became, chain, hello, made, to
from tests.tls.clients import TlsClient
from tests.tls.pair import ROOT

ELSEWHERE = Chain(name="elsewhere", port=1, protocol="TCP", tcp=(to("other"),))


def change(world: World, *chains: Chain) -> None:
    """As the acceptor does it."""
    resources = dict(world.snapshot.resources)
    model = world.slot.current.model
    resources["listener"] = {"in": Listener(name="in", direction=model.direction, port=15006, chains=chains or (ELSEWHERE,))}
    world.install(resources)
    world.gate.reconfigured()
    for connection in list(world.gate.connections):
        if connection.gate.gone or not connection.fits(connection.gate.corridor.slot.current):
            connection.drain()


def other(**fields: Any) -> Chain:
    return Chain(name="another", port=8080, **{"route": "any", "tcp": (to("other"),), **fields})


@pytest.mark.parametrize("said", [b"", b"HE", b"GET /a"])
def test_the_chain_is_another_one(said: bytes) -> None:
    world = made("inbound", chain())
    wire = world.intercepted(APP)
    if said:
        wire.deliver(said)
    change(world, other())
    wire.deliver(b"\x00rest")
    assert became(world, wire) == "bytes to other" and world.accept().take() == said + b"\x00rest"


def test_silence_after_the_chain_has_become_another_one() -> None:
    world = made("inbound", chain())
    wire = world.intercepted(APP)
    change(world, other())
    world.clock.advance(1)
    assert became(world, wire) == "bytes to other"


def test_the_chain_is_gone() -> None:
    world = made("inbound", chain())
    wire = world.intercepted(APP)
    wire.deliver(b"HE")
    change(world)
    world.clock.advance(1)
    assert wire.aborted and not world.dials
    assert [[reason.flag for reason in record.flags] for record in world.streams] == [["NR"]]
    wire.lose()
    assert world.clock.armed == 0 and not world.gate.connections


def test_plaintext_is_not_welcome_any_more() -> None:
    for new in (chain(mtls="STRICT"), other(mtls="STRICT")):
        world = made("inbound", chain(mtls="PERMISSIVE"))
        wire = world.intercepted(APP)
        wire.deliver(b"GET /a")
        change(world, new)
        world.clock.advance(1)
        if not wire.closing:
            assert became(world, wire) == "waits"
            wire.deliver(b" HTTP/1.1\r\nhost: rating\r\n\r\n")
        assert wire.aborted and ("server", TlsFault.PLAINTEXT) in world.gate.vault.tally.failures


def test_a_chain_that_goes_within_a_handshake_serves_nobody_for_long() -> None:
    world = made("inbound", chain("TCP", "STRICT"))
    wire = world.intercepted(APP)
    pair = ROOT.issue(spiffe("web"))

    session = Session(client_context(pair.certificate, pair.key, roots=(ROOT.root,), alpn=("istio",)), False, None)
    session.start()
    wire.deliver(session.take())
    change(world)
    session.receive(wire.take())
    wire.deliver(session.take() + session.send(b"x"))
    assert len(world.dials) == 1
    world.clock.advance(0.5)
    world.sweep()
    assert wire.aborted


# -- patience


def test_a_word_that_comes_byte_by_byte_with_pauses_is_bytes() -> None:
    world = made("inbound", chain())
    wire = world.intercepted(APP)
    for byte in b"GET":
        wire.deliver(bytes((byte,)))
        world.clock.advance(0.09)
    assert became(world, wire) == "waits"
    world.clock.advance(0.02)
    assert became(world, wire) == "bytes to bytes" and world.accept().take() == b"GET"


def test_a_request_line_that_never_ends_does_not_wait_for_ever() -> None:
    world = made("inbound", chain())
    wire = world.intercepted(APP)
    said = b""
    for byte in GET[:12]:
        said += bytes((byte,))
        if not world.dials:
            wire.deliver(bytes((byte,)))
            world.clock.advance(0.05 if len(said) < 5 else 1.5)
            world.sweep()
    assert became(world, wire) == "bytes to bytes"


@pytest.mark.parametrize("mtls", ["DISABLE", "PERMISSIVE"])
def test_a_hello_that_never_ends_does_not_wait_for_ever(mtls: str) -> None:
    world = made("inbound", chain("TCP" if mtls == "PERMISSIVE" else "AUTO", mtls))
    wire = world.intercepted(APP)
    said = hello("db.example")
    for byte in said[:12]:
        if not world.dials:
            wire.deliver(bytes((byte,)))
            world.clock.advance(1)
            world.sweep()
    assert became(world, wire) == "bytes to bytes"


def test_a_client_lost_while_it_is_looked_at_is_no_failed_handshake() -> None:
    world = made("inbound", chain(mtls="PERMISSIVE"))
    for said, counted in ((b"GET /a", False), (b"\x16\x03", True)):
        wire = world.intercepted(APP)
        wire.deliver(said)
        wire.lose()
        assert (("server", TlsFault.CLOSED) in world.gate.vault.tally.failures) == counted
    assert world.clock.armed == 0 and not world.gate.connections


@pytest.mark.parametrize("said", [preamble({"NAME": "web"}, "web"), b"\x3d\x23\x04\x67\x00\x01\x00\x00" + b"A" * 100])
def test_an_introduction_byte_by_byte_has_a_head_s_time(said: bytes) -> None:
    world = made("inbound", chain("TCP", "STRICT"))
    wire = world.intercepted(APP)
    pair = ROOT.issue(spiffe("web"))
    client = TlsClient(wire, client_context(pair.certificate, pair.key, roots=(ROOT.root,), alpn=("istio-peer-exchange",)))
    for byte in said[:62]:
        if not wire.closing:
            client.send(bytes((byte,)))
            world.clock.advance(1)
            world.sweep()
    assert wire.aborted and not world.dials
    wire.lose()
    assert not world.gate.connections


@pytest.mark.parametrize("size", [0, 1, 1 << 16, (1 << 16) + 1, 1 << 31, (1 << 32) - 1])
def test_what_an_introduction_announces(size: int) -> None:
    """Refused at its head, however it comes; what is not too much is taken in and passed by."""
    world = made("inbound", chain("TCP", "STRICT"))
    for step in (1, 3, 1 << 14):
        wire = world.intercepted(APP)
        pair = ROOT.issue(spiffe("web"))
        client = TlsClient(wire, client_context(pair.certificate, pair.key, roots=(ROOT.root,), alpn=("istio-peer-exchange",)))
        head = b"\x3d\x23\x04\x67" + size.to_bytes(4, "big")
        for at in range(0, 8, step):
            client.send(head[at : at + step])
        if size > 1 << 16:
            assert wire.aborted and not world.dials
            continue
        body = b"\xff" * size + b"question"
        for at in range(0, len(body), max(step, 1 << 12)):
            client.send(body[at : at + max(step, 1 << 12)])
        assert world.accept().take() == b"question"
