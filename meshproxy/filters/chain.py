"""Room 4 (filters): the chain itself. Three verdicts instead of Envoy's eleven: go on, answer now, park.

In: a tuple of filters and an exchange. Out: the index reached and its verdict. A parked exchange goes on at the index after
the one that parked it. Response hooks are listed in the order in which they run: the reverse of the filters'.
"""

from __future__ import annotations

from collections.abc import Callable

from meshproxy.message.head import ResponseHead
from meshproxy.message.ports import InFlight
from meshproxy.message.verdict import Verdict

__all__ = ["Chain", "Filter", "Hook", "run"]

Filter = Callable[[InFlight, float], Verdict]
Hook = Callable[[InFlight, ResponseHead], None]
Chain = tuple[Filter, ...]


def run(chain: Chain, exchange: InFlight, now: float, start: int = 0) -> tuple[int, Verdict]:
    """Run the filters from ``start``; (index, verdict) of the first that does not say None, else (len(chain), None)."""
    # A filter may put itself anywhere, so the index is counted here. (benchmarks/micro_policy.py "run")
    for index in range(start, len(chain)):
        verdict = chain[index](exchange, now)
        if verdict is not None:
            return index, verdict
    return len(chain), None
