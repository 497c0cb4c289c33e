"""The ring: shares by weight, and only the keys of a lost host move."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.policy.ring import MAX_RING, Points, Ring, hash_key

KEYS = [hash_key(b"user-%d" % number) for number in range(2000)]


def hosts(*weights: int) -> list[Any]:
    return [SimpleNamespace(label=b"10.0.0.%d:80" % number, weight=weight) for number, weight in enumerate(weights)]


def test_hash_is_stable_over_releases() -> None:
    """A changed hash moves every session of every user at the next update of the proxy: do not change it lightly."""
    assert hash_key(b"user") == 0x638DD47B9A5CDFAF
    assert 0 <= hash_key(b"") < 2**64


def test_each_host_gets_its_share() -> None:
    found = hosts(1, 1, 2)
    counts = Counter(Ring(found, 1024).pick(key).label for key in KEYS)  # type: ignore[union-attr]
    shares = [counts[host.label] / len(KEYS) for host in found]
    assert shares == pytest.approx([0.25, 0.25, 0.5], abs=0.06)


def test_only_the_lost_hosts_keys_move_and_they_come_back() -> None:
    found, points = hosts(1, 1, 1), Points()
    whole, less = Ring(found, 1024, points), Ring(found[:2], 1024, points, total=3)
    for key in KEYS:
        owner = whole.pick(key)
        assert owner is found[2] or less.pick(key) is owner
    again = Ring(found, 1024, points)
    assert [again.pick(key) for key in KEYS] == [whole.pick(key) for key in KEYS]


@given(st.lists(st.integers(1, 200), min_size=1, max_size=20), st.integers(1, 2000))
def test_size_is_bounded_and_everybody_is_on_it(weights: list[int], minimum: int) -> None:
    found = hosts(*weights)
    ring = Ring(found, minimum)
    assert len(ring) <= MAX_RING + len(found)
    assert len(ring) >= minimum - len(found)
    assert {id(host) for host in ring._owners} == {id(host) for host in found}


def test_a_newcomer_takes_keys_and_nobody_else_does() -> None:
    before, after = Ring(hosts(1, 1, 1, 1, 1), 1024), Ring(hosts(1, 1, 1, 1, 1, 1), 1024)
    for key in KEYS:
        owner = after.pick(key)
        assert owner is not None and (owner.label == b"10.0.0.5:80" or owner.label == before.pick(key).label)  # type: ignore[union-attr]


def test_a_huge_ring_is_cut() -> None:
    assert len(Ring(hosts(1, 1), 8_000_000)) == MAX_RING


def test_an_empty_ring_owns_nothing() -> None:
    assert Ring([], 1024).pick(1) is None


def test_points_forget() -> None:
    points = Points()
    points.of(b"a", 10), points.of(b"b", 10)
    points.keep({b"a"})
    assert set(points._known) == {b"a"}
