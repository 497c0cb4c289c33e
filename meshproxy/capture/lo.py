"""The loopback device as interception needs it: whether there is IPv6, and ::6, from where the sidecar calls its app. Loud.

127.0.0.6 needs nothing: all of 127.0.0.0/8 is there.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from pathlib import Path

from meshproxy.capture.tables import Cannot

__all__ = ["addresses", "drop", "have"]

_ADD, _DELETE = 0x8916, 0x8936  # SIOCSIFADDR, SIOCDIFADDR
_SOURCE = socket.inet_pton(socket.AF_INET6, "::6")


def addresses() -> tuple[bool, bool]:
    """(IPv6 is on, the pod has an IPv6 address by which others know it)."""
    try:
        lines = [line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines()]
    except OSError:
        return False, False
    # address, index, length of the prefix, scope (00: global), flags, device; ::6 on lo is global, too, and ours
    return bool(lines), any(scope == "00" and device != "lo" for _, _, _, scope, _, device in lines)


def have() -> bool:
    """True when it was not there before. Raises ``Cannot``."""
    return _change(_ADD, errno.EEXIST, "added to")


def drop() -> bool:
    return _change(_DELETE, errno.EADDRNOTAVAIL, "removed from")


def _change(request: int, fine: int, what: str) -> bool:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        try:
            fcntl.ioctl(sock, request, struct.pack("@16sIi", _SOURCE, 128, socket.if_nametoindex("lo")))
        except OSError as failure:
            if failure.errno == fine:
                return False
            hint = "; it needs the capability NET_ADMIN" if failure.errno == errno.EPERM else ""
            raise Cannot(f"::6 could not be {what} lo: {failure.strerror}{hint}") from None
    return True
