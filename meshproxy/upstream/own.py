"""Room 6, loud: which addresses are the sidecar's own listeners, so that it never dials itself. Asked once per dial.

In: where we listen, and an address as it would be dialed. Out: whether connecting there would reach us, in whatever way the
address is written: an IPv4 address in IPv6 clothes, the unspecified address (the kernel connects that to ourselves), or, when a
listener takes every address, any address of this machine.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address

__all__ = ["is_local", "plain", "reaches"]


def plain(address: str) -> str:
    """The shortest form of an IP address; one of IPv4 even when it came as ``::ffff:...``. Not an address: as it is."""
    try:
        found = ip_address(address.partition("%")[0])  # a zone changes nothing about whose address it is
    except ValueError:
        return address
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(found)


def reaches(listeners: Iterable[tuple[str, int]], address: str, port: int) -> bool:
    """Whether dialing ``address`` and ``port`` would reach one of these (address, port) pairs."""
    binds = {plain(host) for host, listening in listeners if listening == port}
    if not binds:
        return False
    wanted = plain(address)
    if wanted in binds or wanted in ("0.0.0.0", "::"):
        return True
    return not binds.isdisjoint(("0.0.0.0", "::")) and is_local(wanted)


def is_local(address: str) -> bool:
    """Only an address of this machine can be bound to."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError as no:
            return no.errno != errno.EADDRNOTAVAIL
    return True
