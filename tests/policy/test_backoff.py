"""Backoff: full jitter over a span that doubles and is capped (semantics B2.13)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.policy.backoff import delay


@pytest.mark.parametrize(("retry", "span"), [(1, 0.025), (2, 0.075), (3, 0.175), (4, 0.25), (5, 0.25), (1000, 0.25)])
def test_span_doubles_up_to_the_cap(retry: int, span: float) -> None:
    assert delay(retry, 0.025, 0.25, 0.5) == pytest.approx(span / 2)


def test_a_draw_of_zero_waits_not_at_all() -> None:
    assert delay(3, 0.025, 0.25, 0.0) == 0.0


@given(st.integers(-3, 10**6), st.floats(0.001, 10), st.floats(0.001, 100), st.floats(0, 1, exclude_max=True))
def test_always_below_the_cap(retry: int, base: float, cap: float, draw: float) -> None:
    assert 0 <= delay(retry, base, cap, draw) <= cap
