"""The exchange's states and legal transitions, as data. Read by tests and the diagram generator, not interpreted at run time.

NEW: no head yet, or filters are judging. PARKED: a filter waits (fault delay, an authoriser). TRYING: a try is under way (waiting
for a connection, sending, waiting for the response head). BACKOFF: between tries. RESPONDING: the response head went
downstream. TUNNEL: both sides switched protocols. DONE: ``finish`` ran.
"""

from __future__ import annotations

__all__ = ["BACKOFF", "DONE", "NAMES", "NEW", "PARKED", "RESPONDING", "TRANSITIONS", "TRYING", "TUNNEL"]

NEW, PARKED, TRYING, BACKOFF, RESPONDING, TUNNEL, DONE = range(7)
NAMES = ("NEW", "PARKED", "TRYING", "BACKOFF", "RESPONDING", "TUNNEL", "DONE")

TRANSITIONS: frozenset[tuple[int, int]] = frozenset(
    {
        (NEW, PARKED),
        (NEW, TRYING),
        (NEW, DONE),  # a filter's reply; no route; no cluster
        (PARKED, TRYING),
        (PARKED, DONE),  # fault abort after a delay; client gone
        (TRYING, BACKOFF),
        (TRYING, RESPONDING),
        (TRYING, TUNNEL),
        (TRYING, DONE),  # local reply; client gone
        (BACKOFF, TRYING),
        (BACKOFF, DONE),  # deadline; client gone
        (RESPONDING, DONE),
        (TUNNEL, DONE),
    }
)
