"""A child process that does not outlive its parent, however that ends. Loud; Linux only.

In: nothing. Out: ``die_with_parent()``, a ``preexec_fn`` for ``subprocess``. Assumes a parent without threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

__all__ = ["die_with_parent"]

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)  # loaded before any fork: the child must not allocate more than it needs


def die_with_parent() -> Callable[[], None]:
    """To be called in the parent; what it returns runs in the child, between fork and exec."""
    parent = os.getpid()

    def follow() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before the line above
            os._exit(1)

    return follow
