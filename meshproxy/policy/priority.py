"""Policy room: how the load spreads over priorities, and when health is ignored. Pure arithmetic on counts of hosts.

Source of behaviour: Envoy ``load_balancer_impl.cc`` (``recalculatePerPriorityState``, ``recalculatePerPriorityPanic``,
``recalculateLoadInTotalPanic``), with its overprovisioning factor of 140 %: a priority keeps all its load until fewer than 72 %
of its hosts are healthy. Istio sets the panic threshold to ``minHealthPercent``, 0 by default: no panic, and no healthy host
means 503 UH.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["OVERPROVISIONING", "spread"]

OVERPROVISIONING = 140


def spread(levels: Sequence[tuple[int, int]], panic_percent: int = 0) -> tuple[list[int], list[bool]]:
    """Load per level in percent (sums to 100, unless there is no level), and whether the level ignores health (panic).

    levels: (hosts, healthy hosts) from the highest priority down.
    """
    if not levels:
        return [], []
    health = [min(100, OVERPROVISIONING * healthy // hosts) if hosts else 0 for hosts, healthy in levels]
    total = min(100, sum(health))
    panic_at = min(100, panic_percent)
    if total == 100:
        panic = [False] * len(levels)
    else:
        panic = [100 * healthy < panic_at * hosts or (not hosts and panic_at > 0) for hosts, healthy in levels]
    if all(panic):
        everyone = sum(hosts for hosts, _ in levels)
        load = [100 * hosts // everyone if everyone else 0 for hosts, _ in levels]
        _give_rest(load, [hosts for hosts, _ in levels])
    elif total == 0:
        load = [100] + [0] * (len(levels) - 1)  # nobody is well: the first level answers for it, with nothing
    else:
        load, rest = [], 100
        for part in health:
            load.append(min(rest, part * 100 // total))
            rest -= load[-1]
        _give_rest(load, health)
    return load, panic


def _give_rest(load: list[int], present: Sequence[int]) -> None:
    """What rounding left over goes to the first level that has anything."""
    place = next((index for index, count in enumerate(present) if count), 0)
    load[place] += 100 - sum(load)
