"""Reading a ClientHello: real ones of Python's ssl and of openssl, cut anywhere; and anything else without harm."""

from __future__ import annotations

import socket
import ssl
import subprocess
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.tls.hello import ClientHello, HelloReader, Look


def python_hello(name: str | None, alpn: list[str]) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols(alpn)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def records(hello: bytes, size: int) -> bytes:
    """The same handshake message in records of ``size`` bytes."""
    message = hello[5:]
    parts = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(hello[:3] + len(part).to_bytes(2, "big") + part for part in parts)


MESH = python_hello("outbound_.80_._book.default.svc.cluster.local", ["istio-http/1.1", "istio"])
WANTED = ClientHello("outbound_.80_._book.default.svc.cluster.local", ("istio-http/1.1", "istio"), (0x0304, 0x0303))


@pytest.mark.parametrize("name", [None, "Shop.Example.com"])
@pytest.mark.parametrize("alpn", [[], ["h2", "http/1.1"]])
def test_python_s_own(name: str | None, alpn: list[str]) -> None:
    seen = HelloReader().feed(python_hello(name, alpn))
    assert seen == ClientHello((name or "").lower(), tuple(alpn), (0x0304, 0x0303))


@given(st.integers(1, 600), st.lists(st.integers(1, 3000), max_size=8))
def test_cut_over_records_and_over_reads(size: int, cuts: list[int]) -> None:
    wire = records(MESH, size)
    reader = HelloReader()
    places = [0, *sorted(cuts), len(wire)]
    verdicts = [reader.feed(wire[start:end]) for start, end in pairwise(places)]
    assert WANTED in verdicts
    assert set(verdicts[: verdicts.index(WANTED)]) <= {Look.MORE}
    assert bytes(reader.data) == wire


def test_byte_by_byte() -> None:
    reader = HelloReader()
    assert [reader.feed(MESH[at : at + 1]) for at in range(len(MESH) - 1)] == [Look.MORE] * (len(MESH) - 1)
    assert reader.feed(MESH[-1:]) == WANTED


@pytest.mark.system("openssl")
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3", ""])
def test_openssl_s_own(version: str) -> None:
    with socket.socket() as listening:
        listening.bind(("127.61.0.8", 0))
        listening.listen()
        host, port = listening.getsockname()
        options = ["-servername", "a.example.com", "-alpn", "istio,h2", *([version] if version else [])]
        client = subprocess.Popen(
            ["openssl", "s_client", "-connect", f"{host}:{port}", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        listening.settimeout(10)
        peer, _ = listening.accept()
        with peer:
            peer.settimeout(10)
            reader = HelloReader()
            while (seen := reader.feed(peer.recv(100))) is Look.MORE:
                pass
        client.wait(10)
    assert isinstance(seen, ClientHello)
    assert (seen.sni, seen.alpn) == ("a.example.com", ("istio", "h2"))
    assert (0x0304 in seen.versions) is (version != "-tls1_2")


@given(st.binary(max_size=200))
def test_anything_is_a_verdict(data: bytes) -> None:
    seen = HelloReader().feed(data)
    if not data:
        assert seen is Look.MORE
    elif data[0] != 0x16:
        assert seen is Look.NOT_TLS
    else:
        assert seen in (Look.MORE, Look.MALFORMED)


@given(st.data())
def test_a_changed_hello_is_a_verdict_and_never_an_exception(data: st.DataObject) -> None:
    wire = bytearray(MESH)
    for _ in range(data.draw(st.integers(1, 6))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    seen = HelloReader().feed(bytes(wire))
    assert isinstance(seen, Look | ClientHello)
    if isinstance(seen, ClientHello):
        assert seen.sni.isascii() and all(0x20 < ord(mark) < 0x7F for mark in seen.sni)


@given(st.binary(max_size=300))
def test_any_body_of_a_hello(body: bytes) -> None:
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    assert HelloReader().feed(b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message) is not Look.NOT_TLS


def hello(extensions: bytes) -> bytes:
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0" + len(extensions).to_bytes(2, "big") + extensions
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message


NAME = b"\0\0\0\x06\0\x04\0\0\x01a"


@pytest.mark.parametrize(
    ("extensions", "what"),
    [
        (b"", ClientHello("", (), (0x0303,))),
        (NAME, ClientHello("a", (), (0x0303,))),
        (NAME + NAME, Look.MALFORMED),
        (b"\0\0\0\x02\0\0", Look.MALFORMED),  # an empty list of names
        (b"\0\0\0\x05\0\x03\0\0\0", Look.MALFORMED),  # an empty name
        (b"\0\0\0\x06\0\x04\0\0\x01\n", Look.MALFORMED),  # a name that would break a log line
        (b"\0\0\0\x06\0\x04\x01\0\x01a", Look.MALFORMED),  # another kind of name
        (b"\0\0\0\x06\0\x09\0\0\x01a", Look.MALFORMED),  # a length past the end
        (b"\0\x10\0\x03\0\x01\0", Look.MALFORMED),  # an empty protocol
        (b"\0\x2b\0\x01\0", Look.MALFORMED),  # no version
        (b"\0\x2b\0\x04\x03\x03\x04\x03", Look.MALFORMED),  # half a version
        (b"\x12\x34\0\0", ClientHello("", (), (0x0303,))),  # unknown: not our business
    ],
)
def test_extensions(extensions: bytes, what: ClientHello | Look) -> None:
    assert HelloReader().feed(hello(extensions)) == what


def test_it_is_bounded() -> None:
    for first in (
        b"\x16\x03\x01\x40\x01",  # a record that is too long
        b"\x16\x03\x01\0\x04\x01\0\x40\x01",  # a message that is too long
        b"\x16\x03\x01\0\x01\x02",  # no ClientHello
        b"\x16\x03\x01\0\x01\x01\x15\x03\x03\0\x02",  # another record within it
        b"\x16\x02",  # SSL 2
    ):
        assert HelloReader().feed(first) is Look.MALFORMED, first
    reader, fed = HelloReader(), 0
    seen = reader.feed(b"\x16\x03\x01\0\x04\x01\0\x40\0")
    while seen is Look.MORE:
        seen = reader.feed(b"\x16\x03\x01\0\x01\0")
        fed += 1
    assert seen is Look.MALFORMED and len(reader.data) < 20_000 and fed < 4000
