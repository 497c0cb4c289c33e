"""``--run-validation``: does the kernel send connections to the sidecar's port? Loud.

In: ports. Out: "" or a line. As the sidecar's own user a connection to our own address and another port must arrive at the
inbound port, with that other port as its original destination. Assumes that the sidecar does not run yet.
"""

from __future__ import annotations

import contextlib
import socket
import struct

from meshproxy.capture.settings import Settings

__all__ = ["probe"]

_ORIGINAL_DST = 80


def probe(settings: Settings) -> str:
    """What is wrong, or ""."""
    tried = False
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        own = _own(family, far)
        if own:
            tried = True
            if problem := _one(settings, family, own):
                return problem
    return "" if tried else "this pod has no address of its own"


def _own(family: socket.AddressFamily, far: str) -> str:
    """Our address on the way to somewhere else; nothing is sent."""
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((far, 9))
        return str(sock.getsockname()[0])
    return ""


def _one(settings: Settings, family: socket.AddressFamily, own: str) -> str:
    aim = f"{own} port {settings.probe_port}"
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket(family))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            server.bind(("", settings.inbound))
        except OSError as failure:
            return f"port {settings.inbound} cannot be listened on: {failure.strerror}"
        server.listen(1)
        server.settimeout(settings.probe_timeout)
        client = stack.enter_context(socket.socket(family))
        client.settimeout(settings.probe_timeout)
        try:
            client.connect((own, settings.probe_port))
            taken, _ = server.accept()
        except OSError as failure:
            return f"a connection to {aim} did not arrive at port {settings.inbound}: {failure.strerror or 'nobody came'}"
        stack.callback(taken.close)
        level = socket.SOL_IP if family == socket.AF_INET else socket.IPPROTO_IPV6
        try:
            port = struct.unpack_from("!H", taken.getsockopt(level, _ORIGINAL_DST, 28), 2)[0]
        except OSError as failure:
            return f"the kernel does not tell where a connection was going: {failure.strerror}"
        if port != settings.probe_port:
            return f"a connection to {aim} is said to have been going to port {port}"
    return ""
