"""World, host names: short names, wildcards, specificity (semantics B9.2, B9.6; Istio: pkg/config/host).

In: host strings as users write them. Out: full names and answers about them. All comparisons are on lower case.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["covers", "expand", "intersect", "most_specific", "specificity"]


def expand(host: str, namespace: str, domain: str) -> str:
    """The full name of ``host`` written in ``namespace``. A name with a dot or a wildcard is full already (B9.2)."""
    host = host.lower().removesuffix(".")
    if not host or "." in host or host.startswith("*"):
        return host
    return f"{host}.{namespace}.svc.{domain}"


def covers(pattern: str, host: str) -> bool:
    """Whether every name that ``host`` stands for is matched by ``pattern`` (``*``, ``*.suffix``, ``*suffix`` or exact)."""
    if pattern == host or pattern == "*":
        return True
    if not pattern.startswith("*"):
        return False
    suffix = pattern[1:]
    if host.startswith("*"):
        return host[1:].endswith(suffix)
    # "*.foo.com" does not match ".foo.com" itself: the star stands for at least one character.
    return len(host) > len(suffix) and host.endswith(suffix)


def intersect(one: str, other: str) -> str | None:
    """The more specific of two overlapping names, ``None`` when they do not overlap."""
    if covers(one, other):
        return other
    if covers(other, one):
        return one
    return None


def specificity(host: str) -> tuple[int, int, str]:
    """Sort key: exact names first, then the longest wildcard, ``*`` last (B9.6); ties by name."""
    return (1 if host.startswith("*") else 0, -len(host), host)


def most_specific(patterns: Iterable[str], host: str) -> str | None:
    """The most specific of ``patterns`` that covers ``host``."""
    return min((p for p in patterns if covers(p, host)), key=specificity, default=None)
