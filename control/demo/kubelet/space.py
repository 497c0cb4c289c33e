"""Sockets of another network namespace. Loud; needs root.

In: a namespace's name, as ``ip netns`` has it. Out: a TCP socket that belongs to it. The process is back in its own before
anything else runs.
"""

from __future__ import annotations

import ctypes
import os
import socket

__all__ = ["socket_in"]

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def socket_in(space: str) -> socket.socket:
    """Raises ``OSError``."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        other = os.open(f"/run/netns/{space}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(other)
            try:
                made = socket.socket()
            finally:
                _enter(own)
        finally:
            os.close(other)
    finally:
        os.close(own)
    made.setblocking(False)
    return made


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
