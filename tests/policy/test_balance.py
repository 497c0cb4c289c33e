"""Load balancers: turns, weights, choices, and their place kept over a rebuild. Dice are drawn by the test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.policy.balance import (
    LeastRequest,
    Picker,
    RoundRobin,
    WeightedLeastRequest,
    WeightedRandom,
    WeightedRoundRobin,
    picker,
)

POLICIES = ("ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "RING_HASH")


def hosts(*weights: int) -> list[Any]:
    return [SimpleNamespace(label=b"h%d" % n, weight=weight, active=0, name="abcdefgh"[n]) for n, weight in enumerate(weights)]


def dice(*draws: float) -> Callable[[], float]:
    left = list(draws)
    return lambda: left.pop(0)


def never() -> float:
    raise AssertionError("this balancer throws no dice")


def names(found: Picker[Any], count: int, draw: Callable[[], float] = never) -> str:
    return "".join(host.name if (host := found.pick(draw, None)) else "-" for _ in range(count))


def test_round_robin_begins_with_the_first() -> None:
    assert names(RoundRobin(hosts(1, 1, 1)), 7) == "abcabca"


def test_round_robin_goes_on_after_the_last_picked() -> None:
    a, b, c = hosts(1, 1, 1)
    found = RoundRobin([a, b, c])
    assert names(found, 2) == "ab"
    found.rebuild([a, b])  # c is ejected: its turn goes to the next
    assert names(found, 1) == "a"
    found.rebuild([a, b, c])
    assert names(found, 3) == "bca"
    found.rebuild([b, c])  # the last picked is gone
    assert names(found, 3) == "bcb"


def test_round_robin_starts_over_only_when_nobody_stayed() -> None:
    first, second = hosts(1, 1), hosts(1, 1)
    found = RoundRobin(first)
    assert names(found, 1) == "a"
    found.rebuild(second)
    assert names(found, 2) == "ab"


def test_a_newcomer_does_not_take_the_first_turn_twice() -> None:
    a, b = hosts(1, 1)
    found = RoundRobin([a])
    assert names(found, 3) == "aaa"
    found.rebuild([a, b])
    assert names(found, 3) == "bab"


def test_before_the_first_pick_the_order_is_all_that_counts() -> None:
    a, b = hosts(1, 1)
    found = RoundRobin([b])
    found.rebuild([a, b])
    assert names(found, 2) == "ab"


@given(st.integers(1, 8), st.integers(0, 30))
def test_round_robin_is_even(count: int, picks: int) -> None:
    counts = Counter(names(RoundRobin(hosts(*[1] * count)), picks))
    assert not counts or max(counts.values()) - min(counts[name] for name in "abcdefgh"[:count]) <= 1


def test_weighted_round_robin_is_smooth() -> None:
    assert names(WeightedRoundRobin(hosts(3, 1)), 8) == "aabaaaba"


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.integers(1, 400))
def test_weighted_round_robin_keeps_to_the_weights(weights: list[int], picks: int) -> None:
    counts = Counter(names(WeightedRoundRobin(hosts(*weights)), picks))
    for name, weight in zip("abcdefgh", weights, strict=False):
        assert abs(counts[name] - picks * weight / sum(weights)) <= 1 + len(weights) / 2


def test_weighted_round_robin_keeps_its_place() -> None:
    a, b = hosts(1, 1)
    c = SimpleNamespace(label=b"c", weight=2, active=0, name="c")
    found = WeightedRoundRobin([a, b])
    assert names(found, 1) == "a"
    found.rebuild([a, b, c])
    assert names(found, 1) == "b"


def test_weighted_least_request_halves_the_weight_of_the_busy() -> None:
    a, b = hosts(2, 1)
    a.active = 1
    counts = Counter(names(WeightedLeastRequest([a, b]), 300))
    assert counts["a"] == pytest.approx(150, abs=3)


def test_two_choices_take_the_less_loaded() -> None:
    a, b, c = hosts(1, 1, 1)
    a.active, b.active, c.active = 2, 1, 0
    found = LeastRequest([a, b, c])
    assert found.pick(dice(0.0, 0.0), None) is b  # draws a and b
    assert found.pick(dice(0.5, 0.9), None) is c  # draws b and c
    assert found.pick(dice(0.9, 0.0), None) is c  # draws c and a


@given(st.integers(2, 9), st.integers(2, 5), st.data())
def test_choices_are_distinct(count: int, choices: int, data: st.DataObject) -> None:
    """Of ``choices`` distinct hosts the least loaded is better than all but ``count - choices`` others."""
    found = hosts(*[1] * min(count, 8))
    for load, host in enumerate(data.draw(st.permutations(found))):
        host.active = load
    draws = data.draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=choices, max_size=choices))
    picked = LeastRequest(found, choices).pick(dice(*draws), None)
    assert picked is not None and picked.active <= len(found) - min(choices, len(found))


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_every_pair_is_possible_and_none_is_a_double(one: float, other: float) -> None:
    seen: list[Any] = []

    class Spy(SimpleNamespace):
        @property
        def active(self) -> int:
            seen.append(self.name)
            return 0

    spies: list[Any] = [Spy(name=name, weight=1, label=b"") for name in "abc"]
    LeastRequest(spies).pick(dice(one, other), None)
    assert len(set(seen)) == 2


@pytest.mark.parametrize(("draw", "name"), [(0.0, "a"), (0.24, "a"), (0.25, "b"), (0.99, "b")])
def test_weighted_random(draw: float, name: str) -> None:
    assert names(WeightedRandom(hosts(1, 3)), 1, dice(draw)) == name


def test_without_a_key_a_ring_picks_at_random() -> None:
    found = picker("RING_HASH", hosts(1, 1, 1))
    assert found.hashed and names(found, 1, dice(0.5)) == "b"
    assert found.pick(never, 12345) is found.pick(never, 12345)


@pytest.mark.parametrize("policy", POLICIES)
def test_nobody(policy: str) -> None:
    assert picker(policy, []).pick(never, 7) is None


@pytest.mark.parametrize("policy", POLICIES)
def test_one(policy: str) -> None:
    (only,) = hosts(5)
    assert picker(policy, [only]).pick(lambda: 0.999, 2**64 - 1) is only


@given(st.sampled_from(POLICIES), st.lists(st.integers(1, 5), min_size=1, max_size=8), st.data())
def test_only_who_was_given_is_picked(policy: str, weights: list[int], data: st.DataObject) -> None:
    everybody = hosts(*weights)
    found = picker(policy, everybody)
    for _ in range(5):
        some = data.draw(st.lists(st.sampled_from(everybody), unique_by=id))
        found = picker(policy, some, previous=found)
        picked = found.pick(lambda: data.draw(st.floats(0, 1, exclude_max=True)), data.draw(st.integers(0, 2**64 - 1)))
        assert (picked in some) if some else picked is None


def test_a_picker_is_kept_while_its_kind_fits() -> None:
    first = picker("ROUND_ROBIN", hosts(1, 1))
    assert picker("ROUND_ROBIN", hosts(2, 2), previous=first) is first
    assert type(picker("ROUND_ROBIN", hosts(1, 2), previous=first)) is WeightedRoundRobin


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lb\.policy: no balancer for 'MAGLEV'"):
        picker("MAGLEV", [])
