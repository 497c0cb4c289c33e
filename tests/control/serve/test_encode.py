"""What goes over the wire decodes to the very push that was meant, and what many proxies share is made once."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from control.serve.encode import PIECE, Encoder, push_line
from control.translate import Layer, Snapshot
from control.translate.snapshot import entry, make_layer
from meshproxy.model.base import encode, fingerprint
from meshproxy.model.cluster import Cluster, Endpoints
from meshproxy.model.delivery import ORDER, FromControl, Push


def layer(slot: str, clusters: dict[str, int], endpoints: tuple[str, ...] = ()) -> Layer:
    entries = {("cluster", name): entry("cluster", Cluster(name=name, source=f"{salt}")) for name, salt in clusters.items()}
    return make_layer(slot, {**entries, **{("endpoints", name): entry("endpoints", Endpoints(name=name)) for name in endpoints}})  # type: ignore[arg-type]


def sent(encoder: Encoder, old: Snapshot | None, new: Snapshot, nonce: str = "n") -> Push:
    pieces = list(push_line(nonce, new.version, encoder.change(old, new)))
    assert all(0 < len(piece) <= PIECE for piece in pieces)
    wire = b"".join(pieces)
    assert wire.endswith(b"\n")
    assert wire.count(b"\n") == 1
    message = msgspec.json.decode(wire, type=FromControl)
    assert isinstance(message, Push)
    assert (message.nonce, message.version) == (nonce, new.version)
    kinds = [ORDER.index(resource.kind) for resource in message.set]
    assert kinds == sorted(kinds)
    for resource in message.set:
        assert fingerprint(bytes(resource.body)) == resource.version
    return message


names = st.dictionaries(st.sampled_from(["a", "b", 'odd "näme"', "d\\"]), st.integers(0, 2))


@given(names, names, st.text(max_size=5))
def test_any_change_arrives_as_it_was_meant(before: dict[str, int], after: dict[str, int], nonce: str) -> None:
    encoder = Encoder()
    own = layer("inbound", {}, ("mine",))
    old, new = Snapshot((layer("outbound", before), own)), Snapshot((layer("outbound", after), own))
    full = sent(encoder, None, new, nonce)
    assert full.full
    assert {resource.name: bytes(resource.body) for resource in full.set} == {
        **{name: encode(Cluster(name=name, source=f"{salt}")) for name, salt in after.items()},
        "mine": encode(Endpoints(name="mine")),
    }
    change = sent(encoder, old, new, nonce)
    assert not change.full
    assert {resource.name for resource in change.set} == {name for name in after if before.get(name) != after[name]}
    assert set(change.removed) == {("cluster", name) for name in before if name not in after}
    assert encoder.change(old, new).kinds <= {"cluster"}


def test_a_change_that_many_share_is_encoded_once() -> None:
    encoder = Encoder()
    before, after = layer("outbound", {"a": 1}), layer("outbound", {"a": 2})
    first, second = (layer("inbound", {}, (name,)) for name in "xy")
    one = encoder.change(Snapshot((before, first)), Snapshot((after, first)))
    other = encoder.change(Snapshot((before, second)), Snapshot((after, second)))
    assert one is other


def test_full_pushes_share_the_bytes_of_shared_layers() -> None:
    encoder = Encoder()
    shared = layer("outbound", {"a": 1, "b": 2})
    pushes = [encoder.change(None, Snapshot((shared, layer("inbound", {}, (name,))))) for name in "xy"]
    assert pushes[0].set[0] is pushes[1].set[0]


def test_a_large_push_goes_in_pieces() -> None:
    big = layer("outbound", {f"cluster-{number}": number for number in range(4000)})
    assert len(sent(Encoder(), None, Snapshot((big,))).set) == 4000
