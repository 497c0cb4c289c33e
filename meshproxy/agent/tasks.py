"""The one place where the agent starts tasks: each has a name and is referenced until it ends.

In: a coroutine. Out: ``spawn``. Assumes a running loop. A crash is logged; it never passes in silence.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

__all__ = ["spawn"]

log = logging.getLogger("meshproxy.agent")
_running: set[asyncio.Task[Any]] = set()


def spawn(coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
    """Run ``coroutine`` as a named task; asyncio itself would let an unreferenced task vanish."""
    task = asyncio.get_running_loop().create_task(coroutine, name=name)
    _running.add(task)
    task.add_done_callback(_ended)
    return task


def _ended(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("task %s crashed", task.get_name(), exc_info=error)
