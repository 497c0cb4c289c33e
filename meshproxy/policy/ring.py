"""Policy room: a ketama ring for consistent hashing. Pure: hosts and keys in, hosts out.

Each host owns points on a circle of 64-bit numbers, in proportion to its weight; a key belongs to the next point clockwise. When
a host goes, only its keys move; when it returns, they come back. Source of behaviour: Envoy ``ring_hash_lb.cc``. The hash is
BLAKE2b instead of xxHash: as stable and as even, so a key stays put over restarts, but it is another ring than Envoy's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from hashlib import blake2b
from math import ceil, log2
from struct import unpack
from typing import Generic, Protocol, TypeVar

__all__ = ["MAX_RING", "Points", "Ring", "hash_key"]

MAX_RING = 65_536  # points; a bound on what one configuration can make the loop sort (Envoy's default bound is 8M)
_PER_DIGEST = 8  # eight points out of each 64-byte digest, as ketama cuts four out of an MD5


class Weighted(Protocol):
    label: bytes
    weight: int


H = TypeVar("H", bound=Weighted)


def hash_key(value: bytes) -> int:
    """The place of a key on the circle: 64 bits, the same in every process and release."""
    return int.from_bytes(blake2b(value, digest_size=8).digest(), "little")


class Points:
    """Remembers the hosts' points, so that a ring that lost or regained a host is sorted again, not hashed again."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, list[int]] = {}

    def of(self, label: bytes, count: int) -> list[int]:
        """The first ``count`` points of the host of that label."""
        known = self._known.setdefault(label, [])
        while len(known) < count:
            block = len(known) // _PER_DIGEST
            known += unpack("<8Q", blake2b(b"%b_%d" % (label, block)).digest())
        return known[:count]

    def keep(self, labels: set[bytes]) -> None:
        """Forget the hosts that are gone."""
        for label in self._known.keys() - labels:
            del self._known[label]


class Ring(Generic[H]):
    """A ring of at least ``minimum`` points when all are well (at most ``MAX_RING``, or one per host when there are more hosts).

    total: weights of all hosts of the tier, the unhealthy ones too. Points per weight depend on it alone, and in powers of two,
    so that neither an ejection nor most changes of membership move keys between hosts that stay (in Envoy some always move).
    """

    __slots__ = ("_owners", "_places")

    def __init__(self, hosts: Sequence[H], minimum: int, points: Points | None = None, total: int = 0) -> None:
        points = points or Points()
        total = max(total, sum(host.weight for host in hosts))
        placed: list[tuple[int, int]] = []
        if hosts:
            scale = max(2.0 ** ceil(log2(minimum / total)), 1 / min(host.weight for host in hosts))
            scale = min(scale, MAX_RING / total)
            for index, host in enumerate(hosts):
                count = max(int(host.weight * scale), 1)
                placed += [(place, index) for place in points.of(host.label, count)]
        placed.sort()
        self._places = [place for place, _ in placed]
        self._owners = [hosts[index] for _, index in placed]

    def __len__(self) -> int:
        return len(self._places)

    def pick(self, key: int) -> H | None:
        """The owner of ``key`` (64 bits); None on an empty ring."""
        owners = self._owners
        if not owners:
            return None
        place = bisect_left(self._places, key)
        return owners[place if place < len(owners) else 0]
