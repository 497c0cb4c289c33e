"""Admin room: the three sites of a sidecar, opened and closed together. Loud.

In: an ``AdminPort`` and where to listen. Out: admin, metrics and health pages until ``aclose``.
"""

from __future__ import annotations

import asyncio

from meshproxy.admin.http import Site
from meshproxy.admin.pages import admin_routes, health_routes, metrics_routes
from meshproxy.admin.port import AdminPort, Place

__all__ = ["AdminServer"]


class AdminServer:
    """``admin``, ``metrics``, ``health``: the sites; their ``port`` is known once open."""

    def __init__(self, port: AdminPort, place: Place) -> None:
        hosts = (place.ip, place.admin_bind)
        self.admin = Site("admin", place.admin_bind, place.admin_port, admin_routes(port), hosts)
        self.metrics = Site("metrics", place.admin_bind, place.metrics_port, metrics_routes(port), hosts)
        self.health = Site("health", place.admin_bind, place.health_port, health_routes(port), hosts)

    async def open(self) -> None:
        """Open all, or none. Raises ``OSError`` whose ``strerror`` names the site and its address."""
        try:
            for site in (self.health, self.admin, self.metrics):
                await site.open()
        except OSError:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        await asyncio.gather(*(site.aclose() for site in (self.health, self.admin, self.metrics)))
