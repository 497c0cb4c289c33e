"""Room 1, loud: where a connection that iptables redirected was meant to go (SO_ORIGINAL_DST, netfilter's connection tracking).

In: an accepted transport. Out: (address, port) in ``ipaddress``'s spelling, IPv4 as such also at a socket of IPv6; None where
nobody has redirected it. One system call per connection, and none where a listener takes no intercepted ones.
"""

from __future__ import annotations

import socket
from ipaddress import IPv6Address
from typing import Any

__all__ = ["original_destination"]

_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h SO_ORIGINAL_DST, linux/netfilter_ipv6/ip6_tables.h IP6T_SO_ORIGINAL_DST
_V4, _V6 = 16, 28  # sizes of sockaddr_in and sockaddr_in6


def original_destination(transport: Any) -> tuple[str, int] | None:
    """As the kernel remembers it."""
    sock = transport.get_extra_info("socket")
    local = transport.get_extra_info("sockname")
    if sock is None or not local:
        return None
    six = ":" in local[0] and not local[0].startswith("::ffff:")
    try:
        if six:
            found = sock.getsockopt(socket.IPPROTO_IPV6, _ORIGINAL_DST, _V6)
            return str(IPv6Address(found[8:24])), int.from_bytes(found[2:4], "big")
        found = sock.getsockopt(socket.IPPROTO_IP, _ORIGINAL_DST, _V4)
        return socket.inet_ntoa(found[4:8]), int.from_bytes(found[2:4], "big")
    except OSError:  # ENOENT: no such connection was redirected; ENOPROTOOPT: nothing tracks connections here
        return None
