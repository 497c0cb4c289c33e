"""Peer metadata: Envoy's form both ways, and nothing that a peer sends does harm."""

from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.model.cluster import Workload
from meshproxy.policy import peer_metadata
from meshproxy.policy.peer_metadata import METADATA, METADATA_ID, OwnMetadata, decode_struct, encode_struct, peer_workload

ME = Workload(
    pod="web-1",
    namespace="shop",
    workload="web",
    app="web",
    version="v1",
    canonical_service="web",
    canonical_revision="v1",
    cluster="Kubernetes",
)
TEXT = st.text(max_size=40)


def test_the_form_is_a_protobuf_struct() -> None:
    # {"A": "b"} as google.protobuf.Struct: field 1 { key "A", value { string_value "b" } }
    assert encode_struct({"A": "b"}) == bytes.fromhex("0a08 0a0141 1203 1a0162")
    assert encode_struct({"L": {"A": "b"}}) == bytes.fromhex("0a11 0a014c 120c 2a0a 0a08 0a0141 1203 1a0162")


def test_what_envoy_sends_is_read() -> None:
    # Made by the protobuf library from {"NAME": "p", "NAMESPACE": "n", "N": 1.5, "B": true, "L": ["x"], "LABELS": {"app": "a"}}
    value = base64.b64encode(
        bytes.fromhex(
            "0a0a 0a0142 1205 2001 0a0130"  # a bool, and a field nobody knows
            "0a0e 0a014e 1209 11000000000000f83f"
            "0a0c 0a014c 1207 3205 0a03 1a0178"
            "0a0b 0a044e414d45 1203 1a0170"
            "0a10 0a094e414d455350414345 1203 1a016e"
            "0a18 0a064c4142454c53 120e 2a0c 0a0a 0a03617070 1203 1a0161"
        )
    )
    assert peer_workload(value) == Workload(pod="p", namespace="n", app="a", cluster="")
    assert peer_workload(value.rstrip(b"=")) == peer_workload(value)


def test_ours_comes_back() -> None:
    own = OwnMetadata(ME, "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local")
    pairs = dict(own.pairs)
    assert peer_workload(pairs[METADATA]) == ME
    assert peer_workload(pairs[METADATA]) is peer_workload(bytes(bytearray(pairs[METADATA])))  # one object for equal bytes
    assert pairs[METADATA_ID] == b"sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local"
    assert own.lines == b"".join(b"%b: %b\r\n" % pair for pair in own.pairs)
    before = own.lines
    own.update(ME)
    assert own.lines is before  # nothing new to say
    own.update(Workload(pod="web-1", namespace="shop"))
    assert own.lines != before


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"!",
        b"A",
        base64.b64encode(b"\x0a\xff"),
        base64.b64encode(encode_struct({"NAME": "p"})),  # of no namespace
        base64.b64encode(encode_struct({"NAMESPACE": {"x": "y"}})),
        base64.b64encode(encode_struct({"NAMESPACE": "n" * 9000})),
    ],
)
def test_what_is_none_is_nobody(value: bytes) -> None:
    assert peer_workload(value) is None


def test_long_or_unprintable_values_are_left_out() -> None:
    fields = {"NAMESPACE": "n", "NAME": "p" * 254, "WORKLOAD_NAME": "a\nb", "LABELS": {"app": "\x00", "version": "v1"}}
    assert peer_workload(base64.b64encode(encode_struct(fields))) == Workload(namespace="n", version="v1", cluster="")


def test_a_peer_cannot_make_us_keep_ever_more() -> None:
    for number in range(3000):
        peer_workload(b"%d" % number)
    assert len(peer_metadata._known) <= 1024
    large = b"A" * 8193
    assert peer_workload(large) is None and large not in peer_metadata._known


@given(
    st.recursive(
        st.dictionaries(TEXT, TEXT, max_size=4), lambda inner: st.dictionaries(TEXT, TEXT | inner, max_size=3), max_leaves=3
    )
)
def test_what_is_written_is_read(fields: dict[str, object]) -> None:
    depth = 1
    inner: list[object] = [fields]
    while inner := [value for one in inner if isinstance(one, dict) for value in one.values() if isinstance(value, dict)]:
        depth += 1
    if depth <= 4:
        assert decode_struct(encode_struct(fields)) == fields


@given(st.binary(max_size=200))
def test_anything_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        decode_struct(data)
    peer_workload(base64.b64encode(data))
    peer_workload(data)
