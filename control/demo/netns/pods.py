"""The network of one node's pods: made at the start, each pod put into it, names kept, all of it removed at the end. Loud.

In: pod plans. Out: plans whose programs run, and are probed, within their namespaces. The launcher makes the network;
``meshctl run`` joins it with its own pod only.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from control.demo.netns import names, network
from control.demo.netns.layout import Layout, entering
from control.demo.netns.network import NoNetwork
from control.demo.plan import PodPlan

__all__ = ["NoNetwork", "PodNetwork", "sweep"]


class PodNetwork:
    def __init__(self, layout: Layout) -> None:
        """Makes nothing yet."""
        self.layout = layout
        self._lock: int | None = None
        self._janitors: list[subprocess.Popen[bytes]] = []
        self._pods: dict[str, PodPlan] = {}

    def make(self) -> None:
        """The whole network; what a killed demo left of it goes first. Raises ``NoNetwork``."""
        sweep()
        if why := network.collision(self.layout):
            raise NoNetwork(why)
        self._lock = network.hold(self.layout)
        self._janitors.append(network.watched(self.layout, self._lock))
        network.switch(self.layout)

    def place(self, plan: PodPlan) -> PodPlan:
        """Raises ``NoNetwork``."""
        space = self.layout.space(plan.namespace, plan.name)
        if self._lock is None:
            network.remove(self.layout, [space])  # of a program that was killed, and its janitor, too
            self._janitors.append(network.watched(self.layout, None, [space]))
        text = names.hosts(plan.namespace, plan.name, plan.ip)
        network.attach(self.layout, space, plan.ip, text, plan.intercepted)
        self._pods[space] = plan
        containers = [
            replace(one, argv=entering(space, one.argv, one.user), probe=replace(one.probe, space=space))
            for one in plan.containers
        ]
        return replace(plan, containers=tuple(containers))

    async def tend(self, services: Sequence[dict[str, Any]], patch: Callable[[str, dict[str, Any]], Awaitable[None]]) -> None:
        """Addresses for Services that have none, and names for all pods here."""
        for namespace, name, address in list(names.missing(services)):
            await patch(f"/api/v1/namespaces/{namespace}/services/{name}", {"spec": {"clusterIP": address}})
            for one in services:
                if (one["metadata"]["namespace"], one["metadata"]["name"]) == (namespace, name):
                    one["spec"]["clusterIP"] = address
        for space, plan in self._pods.items():
            names.rewrite(network.ETC / space / "hosts", names.hosts(plan.namespace, plan.name, plan.ip, services))

    def close(self) -> None:
        """Removes it all, and returns when it is gone."""
        for janitor in self._janitors:
            assert janitor.stdin is not None
            janitor.stdin.close()
        for janitor in self._janitors:
            janitor.wait()
        self._janitors.clear()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def sweep() -> None:
    """Remove what demos left that were killed together with their janitors."""
    for layout in network.stale():
        network.remove(layout)
