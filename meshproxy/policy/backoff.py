"""Policy room: how long to wait before a retry. Pure: a number of the retry and a draw in, seconds out.

Source of behaviour: semantics B2.13, Envoy's ``JitteredExponentialBackOffStrategy``: full jitter over a span that doubles
(1, 3, 7, ... times the base) and stops growing at the cap.
"""

from __future__ import annotations

__all__ = ["delay"]

_MAX_SHIFT = 62  # 2**62 times any base is past any cap; the guard keeps the shift cheap for absurd attempt counts


def delay(retry: int, base: float, cap: float, draw: float) -> float:
    """Seconds to wait before retry number ``retry`` (1 for the first): ``draw * min((2**retry - 1) * base, cap)``.

    ``draw`` is from [0, 1). A retry number below 1 counts as 1. Never negative, always below ``cap``.
    """
    span = ((1 << min(max(retry, 1), _MAX_SHIFT)) - 1) * base
    return draw * (span if span < cap else cap)
