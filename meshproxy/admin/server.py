"""Admin room: the sites of a sidecar, opened and closed together. Loud.

In: an ``AdminPort`` and where to listen. Out: admin, metrics and health pages until ``aclose``.
"""

from __future__ import annotations

import asyncio

from meshproxy.admin.http import Site
from meshproxy.admin.pages import admin_routes, health_routes, metrics_routes, prometheus_routes
from meshproxy.admin.port import AdminPort, Place
from meshproxy.admin.probes import AppProbes

__all__ = ["AdminServer"]


class AdminServer:
    """``admin``, ``metrics``, ``health``, ``prometheus``: the sites; their ``port`` is known once open."""

    def __init__(self, port: AdminPort, place: Place) -> None:
        hosts = (place.ip, place.admin_bind, place.status_bind)
        metrics = {**metrics_routes(port), **AppProbes(place.app_probers, place.ip).routes()}
        self.admin = Site("admin", place.admin_bind, place.admin_port, admin_routes(port), hosts)
        self.metrics = Site("metrics", place.status_bind, place.metrics_port, metrics, hosts)
        self.health = Site("health", place.status_bind, place.health_port, health_routes(port), hosts)
        self._sites = [self.health, self.admin, self.metrics]
        if place.prometheus_port is not None:
            self._sites.append(Site("prometheus", place.status_bind, place.prometheus_port, prometheus_routes(port), hosts))

    async def open(self) -> None:
        """Open all, or none. Raises ``OSError`` whose ``strerror`` names the site and its address."""
        try:
            for site in self._sites:
                await site.open()
        except OSError:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        await asyncio.gather(*(site.aclose() for site in self._sites))
