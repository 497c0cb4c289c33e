"""Kubernetes' quantities: ``100m``, ``128Mi``, ``1e3``. Quiet.

In: text. Out: the amount, to be compared. Only amounts of CPU and memory: negative ones are wrong.
"""

from __future__ import annotations

import re
from decimal import Decimal

__all__ = ["read"]

_FORM = re.compile(r"\+?(\d+(?:\.\d*)?|\.\d+)(?:([eE][+-]?\d{1,2})|([KMGTPE]i|[numkMGTPE])?)", re.ASCII)
_SCALES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1), "k": Decimal(10**3), "M": Decimal(10**6),
    "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18), "Ki": Decimal(2**10),
    "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50), "Ei": Decimal(2**60),
}  # fmt: skip


def read(text: str) -> Decimal:
    """Raises ``ValueError`` whose text says what it must be."""
    found = _FORM.fullmatch(text)
    if found is None or len(text) > 40:
        raise ValueError(f'must be a quantity such as 100m or 128Mi, not "{text[:60]}"')
    return Decimal(found[1]) * (Decimal(f"1{found[2]}") if found[2] else _SCALES[found[3] or ""])
