"""Where control and the injector listen: a pod's address may be of either family, and only IPv6 in some clusters."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any

import pytest

from control.install.manifest import objects
from control.install.overlay import read
from control.install.plan import settle
from control.serve.server import listen, reached_at
from injector.__main__ import _parser
from injector.server import _listen

BOTH = pytest.mark.parametrize("listening", [listen, _listen])
Listen = Callable[[str, int, str], socket.socket]


@BOTH
def test_two_colons_are_every_address_of_both_families(listening: Listen) -> None:
    with listening("::", 0, "--port") as sock:
        port = sock.getsockname()[1]
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, port), timeout=10).close()
        assert reached_at("::", sock) == f"127.0.0.1:{port}"


@BOTH
@pytest.mark.parametrize("code", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_where_there_is_no_ipv6_they_are_those_of_ipv4(listening: Listen, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Without(socket.socket):
        def __init__(self, family: int = -1, *more: Any) -> None:
            if family == socket.AF_INET6 and code == errno.EAFNOSUPPORT:
                raise OSError(code, "Address family not supported by protocol")
            super().__init__(family, *more)

        def bind(self, address: Any) -> None:
            if self.family == socket.AF_INET6:
                raise OSError(code, "Cannot assign requested address")
            super().bind(address)

    monkeypatch.setattr(socket, "socket", Without)
    with listening("::", 0, "--port") as sock:
        assert sock.family == socket.AF_INET
        socket.create_connection(("127.0.0.1", sock.getsockname()[1]), timeout=10).close()


def test_what_is_installed_listens_so() -> None:
    made = objects(settle(read([], [], "")[0]))
    for name in ("istiod", "istio-sidecar-injector"):
        (found,) = (one for one in made if one["kind"] == "Deployment" and one["metadata"]["name"] == name)
        args = found["spec"]["template"]["spec"]["containers"][0]["args"]
        bind = args[args.index("--bind") + 1] if "--bind" in args else _parser().get_default("bind")
        assert bind == "::"
