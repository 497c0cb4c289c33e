"""Policy room: load balancers over the hosts of one priority. Pure: dice and hash keys come in.

In: the hosts that may be picked now (``rebuild``), whenever health or membership changed; then picks. Out: a host, or None when
there is none. Every picker keeps its place over a rebuild, so that an ejection or an endpoint change does not restart a round.

Source of behaviour: semantics A1; Envoy ``load_balancer_impl.cc``, ``edf_scheduler.h``. One deliberate difference: the round
robin cursor starts at the first host in the order given (Envoy starts at a random one), because users read its turns as a
promise.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from heapq import heapify, heapreplace
from itertools import accumulate
from typing import Generic, Protocol, TypeVar

from meshproxy.policy.ring import Points, Ring

__all__ = [
    "Host",
    "LeastRequest",
    "Picker",
    "RandomPick",
    "RingPick",
    "RoundRobin",
    "WeightedLeastRequest",
    "WeightedRandom",
    "WeightedRoundRobin",
    "picker",
]

Dice = Callable[[], float]


class Host(Protocol):
    """What a picker reads: ``active`` requests in flight, ``label`` b"ip:port"."""

    active: int
    weight: int
    label: bytes


H = TypeVar("H", bound=Host)


class Picker(Generic[H]):
    """``hosts``: who may be picked. ``hashed``: ``pick`` heeds ``key``."""

    __slots__ = ("hosts",)
    hashed = False

    def __init__(self, hosts: Sequence[H] = ()) -> None:
        self.hosts: tuple[H, ...] = ()
        self.rebuild(hosts)

    def rebuild(self, hosts: Sequence[H]) -> None:
        self.hosts = tuple(hosts)

    def pick(self, dice: Dice, key: int | None) -> H | None:
        raise NotImplementedError


class RoundRobin(Picker[H]):
    """Each host in turn. Hot: see the row "pick, round robin of 3" of benchmarks/micro_cluster.py."""

    __slots__ = ("_next",)

    def __init__(self, hosts: Sequence[H] = ()) -> None:
        self._next = 0  # 0 only before the first pick; then the last pick's index + 1
        super().__init__(hosts)

    def rebuild(self, hosts: Sequence[H]) -> None:
        """Go on after the last host picked; if it is gone, with the next one of the old order that is still there."""
        old, taken = self.hosts, self._next
        self.hosts = tuple(hosts)
        self._next = 0
        if taken:
            places = {id(host): place for place, host in enumerate(self.hosts)}
            for step in range(len(old)):
                place = places.get(id(old[(taken - 1 + step) % len(old)]))
                if place is not None:
                    self._next = place + 1 if step == 0 else place
                    break

    def pick(self, dice: Dice, key: int | None) -> H | None:
        hosts = self.hosts
        place = self._next
        if place >= len(hosts):
            if not hosts:
                return None
            place = 0
        self._next = place + 1
        return hosts[place]


class WeightedRoundRobin(Picker[H]):
    """Earliest deadline first: a host of weight 3 comes three times as often as one of weight 1, spread out. O(log n)."""

    __slots__ = ("_heap",)

    def __init__(self, hosts: Sequence[H] = ()) -> None:
        self._heap: list[tuple[float, int, H]] = []
        super().__init__(hosts)

    def rebuild(self, hosts: Sequence[H]) -> None:
        """Who stays keeps its deadline; who comes enters half a turn from now."""
        now = self._heap[0][0] if self._heap else 0.0
        known = {id(host): deadline for deadline, _, host in self._heap}
        self.hosts = tuple(hosts)
        # Deadlines are counted from now on, so that they never grow into the imprecise range of a float.
        self._heap = [
            (known[id(host)] - now if id(host) in known else 0.5 / host.weight, order, host)
            for order, host in enumerate(self.hosts)
        ]
        heapify(self._heap)

    def pick(self, dice: Dice, key: int | None) -> H | None:
        heap = self._heap
        if not heap:
            return None
        deadline, order, host = heap[0]
        heapreplace(heap, (deadline + self._turn(host), order, host))
        return host

    def _turn(self, host: H) -> float:
        return 1.0 / host.weight


class WeightedLeastRequest(WeightedRoundRobin[H]):
    """Weighted round robin in which a host's weight shrinks with its load: ``weight / (active + 1)``, active request bias 1."""

    __slots__ = ()

    def _turn(self, host: H) -> float:
        return (host.active + 1.0) / host.weight


class LeastRequest(Picker[H]):
    """Power of ``choices`` choices: the least loaded of as many distinct random hosts; the first drawn wins a tie."""

    __slots__ = ("_choices",)

    def __init__(self, hosts: Sequence[H] = (), choices: int = 2) -> None:
        self._choices = max(choices, 1)
        super().__init__(hosts)

    def pick(self, dice: Dice, key: int | None) -> H | None:
        hosts = self.hosts
        count = len(hosts)
        if count < 2:
            return hosts[0] if hosts else None
        if self._choices == 2:
            first = int(dice() * count)
            second = int(dice() * (count - 1))
            if second >= first:
                second += 1  # distinct, and every pair equally likely
            one, other = hosts[first], hosts[second]
            return one if one.active <= other.active else other
        best: H | None = None
        drawn: list[int] = []
        for step in range(min(self._choices, count)):
            place = int(dice() * (count - step))
            for taken in sorted(drawn):
                if place >= taken:
                    place += 1
            drawn.append(place)
            if best is None or hosts[place].active < best.active:
                best = hosts[place]
        return best


class RandomPick(Picker[H]):
    __slots__ = ()

    def pick(self, dice: Dice, key: int | None) -> H | None:
        hosts = self.hosts
        return hosts[int(dice() * len(hosts))] if hosts else None


class WeightedRandom(Picker[H]):
    __slots__ = ("_upto",)

    def rebuild(self, hosts: Sequence[H]) -> None:
        self.hosts = tuple(hosts)
        self._upto = tuple(accumulate(host.weight for host in self.hosts))

    def pick(self, dice: Dice, key: int | None) -> H | None:
        upto = self._upto
        return self.hosts[bisect_right(upto, int(dice() * upto[-1]))] if upto else None


class RingPick(Picker[H]):
    """Consistent hashing; a request without a key goes to a random host. The ring is built at the first pick that needs it."""

    __slots__ = ("_minimum", "_points", "_ring", "total")
    hashed = True

    def __init__(self, hosts: Sequence[H] = (), minimum: int = 1024, points: Points | None = None, total: int = 0) -> None:
        self._minimum = max(minimum, 1)
        self.total = total
        self._points = points or Points()
        self._ring: Ring[H] | None = None
        super().__init__(hosts)

    def rebuild(self, hosts: Sequence[H]) -> None:
        self.hosts = tuple(hosts)
        self._ring = None

    def pick(self, dice: Dice, key: int | None) -> H | None:
        hosts = self.hosts
        if not hosts:
            return None
        if key is None:
            return hosts[int(dice() * len(hosts))]
        if self._ring is None:
            self._ring = Ring(hosts, self._minimum, self._points, self.total)
        return self._ring.pick(key)


def picker(
    policy: str,
    hosts: Sequence[H],
    choices: int = 2,
    ring_size: int = 1024,
    points: Points | None = None,
    previous: Picker[H] | None = None,
    total: int = 0,
) -> Picker[H]:
    """The picker for a policy and these hosts; ``previous`` is used again, with its place, when its kind still fits.

    total: weights of all hosts, the unhealthy ones too (for the ring). Weights that are all equal are no weights.
    Raises ValueError for an unknown policy.
    """
    even = len({host.weight for host in hosts}) < 2
    make: Callable[[Sequence[H]], Picker[H]]
    if policy == "ROUND_ROBIN":
        make = RoundRobin if even else WeightedRoundRobin
    elif policy == "LEAST_REQUEST":
        make = (lambda given: LeastRequest(given, choices)) if even else WeightedLeastRequest
    elif policy == "RANDOM":
        make = RandomPick if even else WeightedRandom
    elif policy == "RING_HASH":
        make = lambda given: RingPick(given, ring_size, points, total)  # noqa: E731
    else:
        raise ValueError(f"lb.policy: no balancer for {policy!r}")
    if previous is not None and type(previous) is type(make(())):
        if isinstance(previous, RingPick):
            previous.total = total
        previous.rebuild(hosts)
        return previous
    return make(hosts)
