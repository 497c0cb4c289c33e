"""Which connections mesh-init's rules send where: real iptables, two namespaces, and listeners that say what reached them."""

from __future__ import annotations

import itertools
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.e2e.pods import ROOT, Space, needs_root
from tests.e2e.support.sockets import WAIT

pytestmark = needs_root

POD = ("-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-b", "*", "-d", "15090,15021,15020")
OWN, FAR, OTHER = "10.77.1.1", "10.77.1.2", "10.77.1.3"
OWN6, FAR6, OTHER6 = "fd77:1::1", "fd77:1::2", "fd77:1::3"
_numbers = itertools.count()


class Teller:
    """Answers each connection with its name and where the client meant to go."""

    def __init__(self, space: Space, name: str, port: int) -> None:
        self.name = name

        def listen() -> socket.socket:
            sock = socket.socket(socket.AF_INET6)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind(("::", port))
            sock.listen(64)
            return sock

        self.sock = space.within(listen)
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                taken, _ = self.sock.accept()
            except OSError:
                return
            with taken:
                taken.sendall(f"{self.name} {_aim(taken)}".encode())

    def close(self) -> None:
        self.sock.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.sock.close()


def _aim(taken: socket.socket) -> str:
    own, here = taken.getsockname()[:2]
    try:
        if own.startswith("::ffff:"):
            own = own.removeprefix("::ffff:")
            _, port, packed = struct.unpack_from("!HH4s", taken.getsockopt(socket.SOL_IP, 80, 16))
            aim = socket.inet_ntop(socket.AF_INET, packed), port
        else:
            _, port, _, packed = struct.unpack_from("!HHI16s", taken.getsockopt(socket.IPPROTO_IPV6, 80, 28))
            aim = socket.inet_ntop(socket.AF_INET6, packed), port
    except OSError:  # nobody keeps track of connections in that namespace
        return "as it was"
    return "as it was" if aim == (own, here) else f"{aim[0]}:{aim[1]}"


class Pods:
    """``pod`` has the rules and what stands for a sidecar; ``far`` is another machine with two addresses of each family."""

    def __init__(self, stack: ExitStack, arguments: tuple[str, ...]) -> None:
        mark = f"{os.getpid()}r{next(_numbers)}"
        self.pod, self.far = (Space(f"mr{mark}{side}") for side in "ab")
        for space in (self.pod, self.far):
            stack.callback(space.delete)
        ends = ("name", "eth0", "netns", self.pod.name, "type", "veth", "peer", "name", "eth0", "netns", self.far.name)
        subprocess.run(("ip", "link", "add", *ends), check=True)
        for space, addresses in ((self.pod, (OWN, OWN6)), (self.far, (FAR, OTHER, FAR6, OTHER6))):
            for address in addresses:
                wide = ("64", "nodad") if ":" in address else ("24",)
                space.run("ip", "addr", "add", f"{address}/{wide[0]}", "dev", "eth0", *wide[1:])
            space.run("ip", "link", "set", "eth0", "up")
        self.pod.run("env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "meshproxy.capture", *arguments)
        for space, name, port in (
            (self.pod, "outbound", 15001),
            (self.pod, "inbound", 15006),
            (self.pod, "health", 15021),
            *((self.pod, "app", port) for port in (80, 22)),
            *((self.far, "far", port) for port in (80, 3306, 15008)),
        ):
            stack.callback(Teller(space, name, port).close)

    def call(self, space: Space, address: str, port: int) -> str:
        with space.connect(address, port) as client:
            return client.rest().decode()

    def sidecar(self, address: str, port: int) -> str:
        """As the sidecar's user."""
        who = ("setpriv", "--reuid=1337", "--regid=1337", "--clear-groups")
        return self.pod.run(*who, "timeout", str(WAIT), "bash", "-c", f"cat < /dev/tcp/{address}/{port}")


@contextmanager
def pods(*arguments: str) -> Iterator[Pods]:
    with ExitStack() as stack:
        yield Pods(stack, arguments)


@pytest.fixture(scope="module")
def usual() -> Iterator[Pods]:
    with pods(*POD, "-o", "3306", "-x", f"{OTHER}/32,{OTHER6}/128") as made:
        yield made


@pytest.mark.parametrize(("own", "far", "other"), [(OWN, FAR, OTHER), (OWN6, FAR6, OTHER6)], ids=["IPv4", "IPv6"])
def test_an_injected_pod(usual: Pods, own: str, far: str, other: str) -> None:
    assert usual.call(usual.pod, far, 80) == f"outbound {far}:80"
    assert usual.call(usual.far, own, 80) == f"inbound {own}:80"
    assert usual.call(usual.far, own, 9999) == f"inbound {own}:9999"  # whether anybody listens there or not
    assert usual.call(usual.far, own, 15021) == "health as it was"
    # excluded: a port, a range
    assert usual.call(usual.pod, far, 3306) == "far as it was"
    assert usual.call(usual.pod, other, 80) == "far as it was"
    # the app to itself, at its pod's address and at loopback
    assert usual.call(usual.pod, own, 80) == "app as it was"
    assert usual.call(usual.pod, "127.0.0.1" if "." in own else "::1", 80) == "app as it was"


@pytest.mark.parametrize(("own", "far", "loopback"), [(OWN, FAR, "127.0.0.1"), (OWN6, FAR6, "::1")], ids=["IPv4", "IPv6"])
def test_the_sidecar_s_own_connections_do_not_loop(usual: Pods, own: str, far: str, loopback: str) -> None:
    assert usual.sidecar(far, 80) == "far as it was"
    assert usual.sidecar(loopback, 80) == "app as it was"
    # what the app sent to a Service that is itself comes to its sidecar's other side
    assert usual.sidecar(own, 80) == f"inbound {own}:80"


@pytest.mark.parametrize(("address", "mark"), [(OWN, "127.0.0.6"), (OWN6, "::6")])
def test_what_the_sidecar_calls_the_app_from(usual: Pods, address: str, mark: str) -> None:
    def dial() -> str:
        with socket.socket(socket.AF_INET6 if ":" in mark else socket.AF_INET) as sock:
            sock.settimeout(WAIT)
            sock.bind((mark, 0))
            sock.connect((address, 80))
            return sock.recv(100).decode()

    assert usual.pod.within(dial) == "app as it was"


def test_only_some_of_it() -> None:
    some = ("-p", "15001", "-z", "15006", "-u", "1337", "-i", f"{OTHER}/32", "-q", "3306", "-b", "80")
    with pods(*some) as made:
        assert made.call(made.pod, FAR, 80) == "far as it was"
        assert made.call(made.pod, OTHER, 80) == f"outbound {OTHER}:80"
        assert made.call(made.pod, FAR, 3306) == f"outbound {FAR}:3306"
        assert made.call(made.pod, FAR6, 80) == "far as it was"
        assert made.call(made.far, OWN, 80) == f"inbound {OWN}:80"
        assert made.call(made.far, OWN, 22) == "app as it was"
        assert made.call(made.far, OWN, 15021) == "health as it was"


def test_an_interface_that_is_left_alone() -> None:
    with pods(*POD, "-c", "eth0") as made:
        assert made.call(made.pod, FAR, 80) == made.call(made.pod, FAR6, 80) == "far as it was"
        assert made.call(made.far, OWN, 80) == made.call(made.far, OWN6, 80) == "app as it was"


def test_an_interface_behind_which_machines_live() -> None:
    """What comes in there goes out: to the outbound port."""
    with pods(*POD, "-k", "eth0") as made:
        assert made.call(made.far, OWN, 80) == f"outbound {OWN}:80"


def test_nothing_is_asked_for() -> None:
    with pods("-p", "15001") as made:
        assert made.call(made.pod, FAR, 80) == "far as it was"
        assert made.call(made.far, OWN, 80) == "app as it was"
