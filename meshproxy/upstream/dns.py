"""Room 6, loud: keeps the endpoints of DNS clusters as their names resolve (Envoy: STRICT_DNS; every answer is an endpoint).

In: ``watch(cluster, config, endpoints)`` at each configuration. Out: ``cluster.update`` when the answers change. A name that
does not resolve keeps its last answers; before the first answer the name itself stands as an endpoint, which the dialer
resolves.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import msgspec

from meshproxy.model.cluster import Cluster, Endpoint

__all__ = ["DnsKeeper"]

_REFRESH = 30.0  # seconds; the standard resolver tells no TTL
_RETRY = 5.0


class DnsKeeper:
    """One task per watched cluster. ``update(cluster, config, endpoints)`` puts new endpoints in force."""

    def __init__(self, loop: asyncio.AbstractEventLoop, update: Callable[[Any, Cluster, tuple[Endpoint, ...]], None]) -> None:
        self._loop = loop
        self._update = update
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._watched: dict[str, tuple[Any, Cluster, tuple[Endpoint, ...]]] = {}
        self._answers: dict[str, dict[tuple[str, int], tuple[str, ...]]] = {}

    def watch(self, cluster: Any, config: Cluster, endpoints: tuple[Endpoint, ...]) -> None:
        """Resolve this cluster's names now and again. The same words twice change nothing."""
        entry = (cluster, config, endpoints)
        if self._watched.get(config.name) == entry:
            return
        self.forget(config.name)
        self._watched[config.name] = entry
        self._tasks[config.name] = self._loop.create_task(self._keep(*entry), name=f"dns {config.name}")

    def resolved(self, name: str, templates: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        """The endpoints as last resolved; a name not resolved yet stands for itself."""
        answers = self._answers.get(name, {})
        return tuple(
            msgspec.structs.replace(template, address=address)
            for template in templates
            for address in answers.get((template.address, template.port), (template.address,))
        )

    def forget(self, name: str) -> None:
        self._watched.pop(name, None)
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()

    def retain(self, names: set[str]) -> None:
        """Forget all clusters but these."""
        for name in [name for name in self._watched if name not in names]:
            self.forget(name)
            self._answers.pop(name, None)

    async def aclose(self) -> None:
        tasks = list(self._tasks.values())
        for name in list(self._watched):
            self.forget(name)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, cluster: Any, config: Cluster, templates: tuple[Endpoint, ...]) -> None:
        answers = self._answers.setdefault(config.name, {})
        while True:
            failed = False
            for template in templates:
                try:
                    found = await self._loop.getaddrinfo(template.address, template.port, type=socket.SOCK_STREAM)
                except (OSError, UnicodeError):  # not there, or no name of a host
                    failed = True
                    continue
                answers[template.address, template.port] = tuple(sorted({str(address[0]) for *_, address in found}))
            self._update(cluster, config, self.resolved(config.name, templates))
            await asyncio.sleep(_RETRY if failed else _REFRESH)
