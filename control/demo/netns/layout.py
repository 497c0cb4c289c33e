"""Which names and addresses the pods' networks have, and how programs come into them. Pure.

In: the network's first address, ``10.1.0.0``. Out: ``Layout``. All names carry the network's, so that two demos never meet and
what a killed one left is known by its name.

    10.1.0.N    pod N, eth0 in its namespace      10.1.0.253  the switch, a namespace with the bridge; the pods' default route
    10.1.0.254  the host                          172.20.0.0/16  Services; no machine has these, only interception leads there
"""

from __future__ import annotations

import ipaddress
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

__all__ = ["APP", "SERVICES", "SIDECAR", "Layout", "cluster_ip", "entering"]

SERVICES = ipaddress.IPv4Network("172.20.0.0/16")
SIDECAR, APP = 1337, 1338  # users


@dataclass(frozen=True)
class Layout:
    network: str  # its first address; a /24

    @property
    def id(self) -> str:
        """Also the name of the host's device: 15 letters at most."""
        return "mesh" + "-".join(self.network.split(".")[:3])

    @property
    def range(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(f"{self.network}/24")

    def address(self, number: int) -> str:
        return str(self.range[number])

    @property
    def host(self) -> str:
        return self.address(254)

    @property
    def switch(self) -> str:
        return self.address(253)

    @property
    def switch_space(self) -> str:
        return f"{self.id}.switch."

    def space(self, namespace: str, pod: str) -> str:
        return f"{self.id}.{pod}" if namespace == "default" else f"{self.id}.{namespace}.{pod}"

    def owns(self, space: str) -> bool:
        return space.startswith(f"{self.id}.")


def entering(space: str, argv: Sequence[str], user: int) -> tuple[str, ...]:
    """The command within a namespace, as ``user``. The mesh's own get no right but to read what is installed where only root
    looks."""
    inside = ("ip", "netns", "exec", space)
    if not user:
        return (*inside, *argv)
    read = "-all,+dac_read_search" if user in (SIDECAR, APP) else "-all"
    drop = (f"--reuid={user}", f"--regid={user}", "--clear-groups", f"--inh-caps={read}", f"--ambient-caps={read}")
    return (*inside, "setpriv", *drop, "--no-new-privs", "--pdeathsig=KILL", "--", *argv)


def cluster_ip(namespace: str, name: str, taken: Collection[str]) -> str:
    """An address for a Service: by its name, so that it is likely the same again."""
    room = SERVICES.num_addresses - 2
    start = zlib.crc32(f"{namespace}/{name}".encode()) % room
    for step in range(room):
        address = str(SERVICES[1 + (start + step) % room])
        if address not in taken:
            return address
    raise ValueError(f"no address is left in {SERVICES}")
