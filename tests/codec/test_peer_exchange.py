"""What sidecars say of themselves before plain bytes; Envoy's frame, byte for byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.codec.peer_exchange import PeerReader, preamble
from meshproxy.model.cluster import Workload
from meshproxy.policy.peer_metadata import OwnMetadata

OWN = OwnMetadata(Workload(pod="db-1", namespace="default", workload="db", app="db", version="v1"), "sidecar~10.0.0.1~db-1~x")
SAID = preamble(OWN.fields, OWN.node)


def test_the_frame() -> None:
    assert SAID[:4] == bytes.fromhex("3d230467")
    assert int.from_bytes(SAID[4:8], "big") == len(SAID) - 8
    assert SAID[8:10] == b"\x0a\x2a" and SAID[10:52] == b"type.googleapis.com/google.protobuf.Struct"
    assert b"x-envoy-peer-metadata-id" in SAID and b"WORKLOAD_NAME" in SAID


@given(st.binary(max_size=40), st.integers(1, 50))
def test_in_any_pieces(following: bytes, step: int) -> None:
    reader = PeerReader()
    got: bytes | None = None
    data = SAID + following
    for at in range(0, len(data), step):
        if got is None:
            got = reader.feed(data[at : at + step])
        else:
            got += data[at : at + step]
    assert got == following
    assert reader.workload is not None and (reader.workload.workload, reader.workload.version) == ("db", "v1")


@given(st.binary(max_size=200).filter(lambda data: not data.startswith(b"\x3d")))
def test_who_says_nothing_of_himself_is_passed_on(data: bytes) -> None:
    reader = PeerReader()
    assert reader.feed(data) == (data or None) and reader.workload is None and not reader.broken


def test_a_beginning_that_turns_out_otherwise() -> None:
    reader = PeerReader()
    assert reader.feed(b"\x3d\x23") is None
    assert reader.feed(b"xyz") == b"\x3d\x23xyz"


@given(st.binary(max_size=80))
def test_what_cannot_be_read_is_left_out(content: bytes) -> None:
    reader = PeerReader()
    assert reader.feed(SAID[:4] + len(content).to_bytes(4, "big") + content + b"!") == b"!"


@pytest.mark.parametrize("size", [64 * 1024 + 1, 2**32 - 1])
def test_too_much(size: int) -> None:
    reader = PeerReader()
    assert reader.feed(SAID[:4] + size.to_bytes(4, "big")) == b"" and reader.broken
