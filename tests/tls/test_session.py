"""The TLS machine: any cut of the wire gives the same plaintext; a close_notify is an end, a truncation is not."""

from __future__ import annotations

import ssl
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.message.secured import TlsFault
from meshproxy.tls.contexts import client_context, server_context
from meshproxy.tls.session import Session, alert
from tests.certs import spiffe
from tests.tls.pair import ROOT, joined, mesh_vault, shake

BOOK, WEB = mesh_vault("book"), mesh_vault("web")
PAIR = ROOT.issue(dns=("a.example.com",))


def pair(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> tuple[Session, Session]:
    """One-way TLS; (server, client)."""
    door = server_context(PAIR.certificate, PAIR.key)
    call = client_context(roots=(ROOT.root,), check_name=True)
    call.maximum_version = version
    ends = Session(door, True), Session(call, False, "a.example.com")
    shake(*ends)
    return ends


def cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(marks)]


@given(
    st.lists(st.binary(max_size=40_000), min_size=1, max_size=4),
    st.lists(st.integers(0, 120_000), max_size=12),
    st.sampled_from([ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]),
    st.booleans(),
)
def test_the_plaintext_does_not_depend_on_how_the_wire_is_cut(
    messages: list[bytes], places: list[int], version: ssl.TLSVersion, back: bool
) -> None:
    server, client = pair(version)
    sender, receiver = (server, client) if back else (client, server)
    wire = b"".join(sender.send(message) for message in messages) + sender.finish()
    got = b"".join(receiver.receive(part) for part in cut(wire, places))
    assert got == b"".join(messages)
    assert receiver.ended and receiver.fault is None and not receiver.partial


@given(st.binary(min_size=1, max_size=2000), st.data())
def test_what_was_cut_off_is_no_end(message: bytes, data: st.DataObject) -> None:
    server, client = pair()
    wire = client.send(message) + client.finish()
    at = data.draw(st.integers(0, len(wire) - 1))
    got = server.receive(wire[:at])
    assert message.startswith(got) and not server.ended and server.fault is None


@given(st.binary(min_size=1, max_size=3000), st.data())
def test_what_was_changed_is_a_fault_and_nothing_of_it_comes_out(message: bytes, data: st.DataObject) -> None:
    server, client = pair()
    wire = bytearray(client.send(message))
    at = data.draw(st.integers(5, len(wire) - 1))
    wire[at] ^= data.draw(st.integers(1, 255))
    assert server.receive(bytes(wire)) == b""
    assert server.fault is TlsFault.PROTOCOL and server.detail
    assert server.take(), "the alert"
    assert server.send(b"more") == b"" and server.receive(client.send(b"x")) == b""


@given(st.binary(max_size=400))
def test_any_first_bytes_end_in_a_fault_or_wait(data: bytes) -> None:
    session = Session(server_context(PAIR.certificate, PAIR.key), True)
    assert session.receive(data) == b""
    assert not session.handshaken and session.fault in (None, TlsFault.PROTOCOL)


def test_both_may_end_their_half_on_their_own() -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        server, client = pair(version)
        assert server.receive(client.finish()) == b"" and server.ended
        assert client.receive(server.send(b"an answer all the same")) == b"an answer all the same"
        assert client.finish() == b"", "once"
        assert client.receive(server.finish()) == b"" and client.ended
        assert client.fault is None and server.fault is None
        assert client.send(b"late") == b""


def test_a_half_that_ended_first_goes_on_reading_even_within_a_record() -> None:
    server, client = pair()
    sealed = client.send(b"question")
    server.receive(sealed[:11])
    assert server.partial
    server.finish()
    assert server.receive(sealed[11:]) == b"question"


def test_what_comes_with_the_last_handshake_bytes_waits_for_read() -> None:
    door, call = BOOK.mesh_server(), WEB.mesh_client()
    assert isinstance(door, ssl.SSLContext) and isinstance(call, ssl.SSLContext)
    server, client = Session(door, True), Session(call, False)
    client.start()
    server.receive(client.take())
    client.receive(server.take())
    assert server.receive(client.take() + client.send(b"GET")) == b""
    assert server.handshaken and server.pending
    assert server.read() == b"GET" and not server.pending


def test_who_is_there() -> None:
    server, client = joined(BOOK, WEB)
    peer = server.peer()
    assert peer is not None and peer.identity == spiffe("web")
    secured = client.secured(client.peer(), "outbound_.80_._book", True)
    assert secured.peer is not None and secured.peer.account == "book"
    assert (secured.alpn, secured.version, secured.sni) == ("istio-http/1.1", "TLSv1.3", "outbound_.80_._book")
    one_way, _ = pair()
    assert one_way.peer() is None and one_way.certificate is None


def test_the_wrong_name_is_a_wrong_identity() -> None:
    server = Session(server_context(PAIR.certificate, PAIR.key), True)
    client = Session(client_context(roots=(ROOT.root,), check_name=True), False, "b.example.com")
    shake(server, client)
    assert client.fault is TlsFault.WRONG_IDENTITY and "b.example.com" in client.detail


def test_a_refusal_says_why_while_it_can() -> None:
    for version, says in ((ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, False)):
        door, call = BOOK.mesh_server(), WEB.mesh_client()
        assert isinstance(door, ssl.SSLContext)
        own = WEB.identity
        assert own is not None and isinstance(call, ssl.SSLContext)
        limited = client_context(own.certificate, own.key, roots=own.roots)
        limited.maximum_version = version
        server, client = Session(door, True), Session(limited, False)
        client.start()
        server.receive(client.take())
        client.receive(server.take())
        server.receive(client.take())
        assert server.handshaken
        said = server.refuse(TlsFault.REVOKED)
        assert bool(said) is says
        if says:
            client.receive(said)
            assert client.detail == "sslv3 alert certificate revoked"
        assert server.receive(client.send(b"GET")) == b"" and server.read() == b""


def test_alerts_are_whole_records() -> None:
    for fault in TlsFault:
        assert alert(fault)[:6] == b"\x15\x03\x03\x00\x02\x02" and len(alert(fault)) == 7


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_resumed_session_shows_its_peer_again_or_is_none(version: ssl.TLSVersion) -> None:
    """Python cannot forbid TLS 1.2's session ids: who comes back that way is judged like everybody."""
    door, own = BOOK.mesh_server(), WEB.identity
    assert isinstance(door, ssl.SSLContext) and own is not None
    call = client_context(own.certificate, own.key, roots=own.roots)
    call.maximum_version = version
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()

    def meet(session: ssl.SSLSession | None) -> tuple[Session, ssl.SSLObject]:
        server = Session(door, True)
        client = call.wrap_bio(incoming, outgoing, session=session)
        for _ in range(4):
            with suppress(ssl.SSLWantReadError):
                client.do_handshake()
            server.receive(outgoing.read())
            incoming.write(server.take())
        return server, client

    _, first = meet(None)
    again, second = meet(first.session)
    peer = again.peer()
    assert peer is not None and peer.identity == spiffe("web")
    assert second.session_reused is False or version is ssl.TLSVersion.TLSv1_2
