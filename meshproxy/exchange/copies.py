"""The corridor: which mirrors get a copy of a request. Quiet; the copies are sent once the request is complete (semantics A1).

In: a route's mirrors, the head as it stands before the first try, dice. Out: the drawn clusters, each with a head of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from meshproxy.message.head import RequestHead
from meshproxy.message.ports import Dice

__all__ = ["drawn"]


def drawn(mirrors: Iterable[tuple[Any, float]], request: RequestHead, dice: Dice) -> list[tuple[Any, RequestHead]] | None:
    """``mirrors``: (live cluster or None, percent). None: nobody gets one."""
    chosen = []
    for cluster, percent in mirrors:
        if cluster is not None and (percent >= 100 or dice() * 100 < percent):
            chosen.append((cluster, request.copy()))
    return chosen or None
