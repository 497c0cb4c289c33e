"""Chains by destination, against a search of all of them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.policy.chains import ChainIndex
from meshproxy.policy.invalid import Invalid

ADDRESSES = ["10.0.0.1", "10.0.0.2", "10.0.1.1", "10.1.0.1", "192.0.2.1", "fd00::1", "fd00::2", "fd00:1::1", "::fffe:0:1"]
BLOCKS = ["10.0.0.0/24", "10.0.0.0/16", "10.0.0.0/8", "0.0.0.0/0", "fd00::/64", "fd00::/8", "::/0", "10.0.0.1/32", "fd00::1/128"]
Row = tuple[int, tuple[str, ...]]


def expected(rows: list[Row], address: str, port: int) -> int | None:
    """By definition: of those that hold the most specific."""
    found: list[tuple[bool, int, int]] = []
    for number, (theirs, places) in enumerate(rows):
        if theirs not in (0, port):
            continue
        lengths = [-1] if not places else []
        for place in places:
            network = ip_network(place)
            if ip_address(address).version == network.version and ip_address(address) in network:
                lengths.append(network.prefixlen)
        if lengths:
            found.append((theirs != 0, max(lengths), number))
    return max(found)[2] if found else None


@given(
    st.lists(
        st.tuples(st.sampled_from([0, 80, 90]), st.lists(st.sampled_from(ADDRESSES + BLOCKS), max_size=3).map(tuple)), max_size=8
    )
)
def test_the_most_specific_one(rows: list[Row]) -> None:
    kept: list[Row] = []
    for row in rows:  # leave out those that cannot stand beside the others
        try:
            ChainIndex([("", port, places, number) for number, (port, places) in enumerate([*kept, row])])
        except Invalid:
            continue
        kept.append(row)
    index = ChainIndex([("", port, places, number) for number, (port, places) in enumerate(kept)])
    for address in ADDRESSES:
        for port in (80, 90, 91):
            assert index.find(str(ip_address(address)), port) == expected(kept, address, port), (kept, address, port)


BAD: list[tuple[list[tuple[int, tuple[str, ...]]], str]] = [
    ([(70000, ())], "chains[0].port: must be between 0 and 65535, not 70000"),
    ([(80, ("nonsense",))], 'chains[0].addresses[0]: must be an address or a block such as "10.0.0.0/8", not "nonsense"'),
    ([(80, ()), (80, ())], "chains[1].addresses: another chain has all of port 80 already"),
    ([(0, ()), (0, ())], "chains[1].addresses: another chain has all of port any already"),
    ([(80, ("10.0.0.1",)), (80, ("10.0.0.1/32",))], "chains[1].addresses[0]: another chain of this port has 10.0.0.1/32 already"),
    ([(80, ("fd00::/8",)), (80, ("fd00::/8",))], "chains[1].addresses[0]: another chain of this port has fd00::/8 already"),
]


@pytest.mark.parametrize(("rows", "words"), BAD)
def test_refusals(rows: list[Any], words: str) -> None:
    with pytest.raises(Invalid) as no:
        ChainIndex([(f"chains[{at}]", port, places, at) for at, (port, places) in enumerate(rows)])
    assert str(no.value) == words


def test_the_same_address_twice_in_one_chain() -> None:
    assert ChainIndex([("", 80, ("10.0.0.1", "10.0.0.1/32"), "it")]).find("10.0.0.1", 80) == "it"
