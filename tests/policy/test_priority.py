"""Priorities: Envoy's arithmetic of overprovisioning and panic, by its documented examples and as properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.policy.priority import spread


@pytest.mark.parametrize(
    ("levels", "load"),
    [
        ([(3, 3)], [100]),
        ([(3, 0)], [100]),  # nobody is well: the first level says so
        ([(100, 72), (100, 100)], [100, 0]),  # Envoy's table: 72 % healthy is 100 % of the load
        ([(100, 71), (100, 100)], [99, 1]),
        ([(100, 50), (100, 100)], [70, 30]),
        ([(100, 25), (100, 100)], [35, 65]),
        ([(100, 0), (100, 100)], [0, 100]),
        ([(0, 0), (2, 2)], [0, 100]),
        ([(100, 25), (100, 25)], [50, 50]),  # together below 100 %: in proportion
        ([(100, 20), (100, 20), (100, 20)], [34, 33, 33]),
        ([(1, 1), (1, 1), (1, 1)], [100, 0, 0]),
    ],
)
def test_load(levels: list[tuple[int, int]], load: list[int]) -> None:
    assert spread(levels) == (load, [False] * len(levels))


@pytest.mark.parametrize(
    ("healthy", "percent", "panic"),
    [(0, 0, False), (4, 50, True), (5, 50, False), (6, 90, True), (8, 90, False), (0, 1, True)],
)
def test_panic_of_ten_hosts(healthy: int, percent: int, panic: bool) -> None:
    """8 of 10 is below 90 %, but with 140 % they carry everything: Envoy does not panic."""
    assert spread([(10, healthy)], percent) == ([100], [panic])


def test_panic_of_all_levels_spreads_by_size() -> None:
    assert spread([(1, 0), (3, 0)], 50) == ([25, 75], [True, True])


def test_a_level_that_is_well_spares_the_other_the_panic() -> None:
    assert spread([(10, 1), (10, 10)], 50) == ([14, 86], [False, False])


def test_no_level() -> None:
    assert spread([]) == ([], [])


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=5), st.integers(0, 100))
def test_everything_is_spread_and_nothing_goes_to_the_sick(pairs: list[tuple[int, int]], percent: int) -> None:
    levels = [(max(pair), min(pair)) for pair in pairs]
    load, panic = spread(levels, percent)
    assert sum(load) == 100
    if any(healthy for _, healthy in levels):
        for (hosts, healthy), part, panicking in zip(levels, load, panic, strict=True):
            assert healthy or not part or (panicking and hosts)
