"""The way of a failed request (``meshctl why``): which sidecar called which, and at which of them it failed.

In: failures as sidecars remember them (``meshproxy.telemetry.failures.Failure``, with the ``pod`` and ``namespace`` that tell
it), of one request id, or several from about the same time. Out: a tree of ``Hop``s, and the hop where the failure began. Pure.
Clocks of machines differ, so the order follows from who called whom, and times only choose between candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from meshproxy.message.reason import Reason

__all__ = ["Hop", "origin", "reason_of", "related", "tree", "walk"]

_ADDED = ("RETRY_EXHAUSTED", "FAULT_DELAY")  # flags that say more about an answer, and not where it came from
_SLACK = 0.05  # seconds by which one sidecar's times may be off
_SKEW = 30.0  # seconds that two machines may disagree


class Hop:
    """One failure and those that it led to, or came from: a caller's sidecar above the one that it called.

    ``guessed``: it has another request id, and is here because it fits in time (the app did not hand the id on).
    """

    def __init__(self, about: dict[str, Any], guessed: bool = False) -> None:
        self.about = about
        self.guessed = guessed
        self.children: list[Hop] = []

    @property
    def pod(self) -> tuple[str, str]:
        return self.about["namespace"], self.about["pod"]

    @property
    def inbound(self) -> bool:
        return bool(self.about["direction"] == "inbound")

    @property
    def began(self) -> float:
        return float(self.about["at"])

    @property
    def ended(self) -> float:
        return self.began + float(self.about["ms"]) / 1000


def tree(failures: Iterable[dict[str, Any]], guessed: frozenset[int] = frozenset()) -> list[Hop]:
    """The hops that nobody here called, each with what it called, oldest first. ``guessed``: ids of such ``failures``."""
    hops = [Hop(one, id(one) in guessed) for one in failures]
    callers: dict[Hop, Hop] = {}
    for hop in hops:
        above = [(late, -other.began, other) for other in hops if (late := _called(other, hop)) is not None]
        for _, _, caller in sorted(above, key=lambda row: row[:2]):
            if hop not in _chain(caller, callers):  # an app may call itself in the end, under the same id
                callers[hop] = caller
                caller.children.append(hop)
                break
    for hop in hops:
        hop.children.sort(key=lambda child: child.began)
    return sorted((hop for hop in hops if hop not in callers), key=lambda hop: hop.began)


def _chain(hop: Hop, callers: dict[Hop, Hop]) -> list[Hop]:
    """The hop, its caller, that one's caller, …"""
    found = [hop]
    while found[-1] in callers:
        found.append(callers[found[-1]])
    return found


def _called(one: Hop, other: Hop) -> float | None:
    """Whether ``other`` may be what ``one`` led to: at the pod that was called, or of the app that was asked. None: no. Otherwise
    the seconds by which their times do not fit: two machines may disagree.
    """
    late = max(0.0, one.began - other.began, other.began - one.ended)
    if one.inbound:
        same = other.about["direction"] == "outbound" and other.pod == one.pod
        return late if same and late <= _SLACK else None
    if not other.inbound or one.about["request_id"] != other.about["request_id"] or late > _SKEW:
        return None
    caller, target = other.about["caller"], one.about["target"]
    if caller.get("pod"):
        same = (caller.get("namespace", ""), caller["pod"]) == one.pod
    else:
        same = (target.get("namespace", ""), target.get("pod", "")) == other.pod
    return late if same else None


def walk(hops: Sequence[Hop], depth: int = 0) -> Iterator[tuple[Hop, int]]:
    for hop in hops:
        yield hop, depth
        yield from walk(hop.children, depth + 1)


def reason_of(about: dict[str, Any]) -> Reason | None:
    """What ended it there; None: it was passed on (or a rule answered)."""
    found = [Reason[name] for name in about["reasons"] if name in Reason.__members__ and name not in _ADDED]
    if about["detail"] == "via_upstream":
        return None  # what else is flagged happened on the way to that answer
    exact = [
        reason
        for reason in found
        if reason.detail == about["detail"].replace("after_response_started", "before_response_started")
    ]
    return next(iter(exact or found), None)


def origin(hop: Hop) -> Hop:
    """Where the failure of ``hop`` began: as deep down as it was only passed on. A caller that went away is no cause of it."""
    if reason_of(hop.about) is not None or hop.about["detail"] == "direct_response":
        return hop
    below = [child for child in hop.children if child.about["status"] or not hop.inbound]
    if not hop.inbound:
        below = [child for child in below if child.about["status"] == hop.about["status"]]
    return origin(below[-1]) if below else hop


def related(one: dict[str, Any], others: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Failed calls of the app that ``one`` came in to, made while it was at work, under another request id."""
    began, ended = one["at"] - 0.002, one["at"] + one["ms"] / 1000 + 0.002
    return [
        other
        for other in others
        if other["direction"] == "outbound"
        and (other["namespace"], other["pod"]) == (one["namespace"], one["pod"])
        and other["request_id"] != one["request_id"]
        and began <= other["at"]
        and other["at"] + other["ms"] / 1000 <= ended
    ]
