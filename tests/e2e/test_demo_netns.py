"""``meshctl demo --netns``: sections 1 to 3 of the walkthrough with apps that know of no proxy, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.demo.netns import network
from control.demo.plan import Addresses
from tests.e2e.demo_mesh import BIN, Demo, free_port, wait_until
from tests.e2e.pods import Space

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(network.problem()), reason=f"{network.problem()}"),
    pytest.mark.system("ip", "iptables-restore", "kubectl", "curl"),
]


class Netns(Demo):
    @property
    def addresses(self) -> Addresses:
        return Addresses(self.base, netns=True)

    def pod(self, number: int) -> str:
        return self.addresses.pod(number)

    def demo(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return super().demo(*words, "--netns", check=check)

    def space(self, pod: str) -> Space:
        there = object.__new__(Space)  # the demo has made it
        there.name = self.addresses.layout.space("default", pod)
        return there

    def left(self) -> list[str]:
        """What of this demo is on the host."""
        own = self.addresses.layout
        spaces = subprocess.run(("ip", "netns", "list"), capture_output=True, text=True, check=True).stdout.split()
        links = subprocess.run(("ip", "-o", "link"), capture_output=True, text=True, check=True).stdout.split()
        found = [one for one in spaces if own.owns(one)] + [one for one in links if one.startswith(own.id)]
        return found + [str(one) for folder in (network.ETC, Path("/run/mesh-netns")) for one in folder.glob(f"{own.id}*")]


@pytest.fixture
def demo(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Netns]:
    made = Netns(
        tmp_path, f"127.{100 + os.getpid() % 100}.{200 + list(request.session.items).index(request.node) % 50}.0", free_port()
    )
    yield made
    made.meshctl("demo", "--stop", check=False)
    if request.session.testsfailed:
        for log in sorted(made.state.glob("logs/*/*/*.log")):
            print(f"--- {log.relative_to(made.state)}\n{log.read_text()[-1500:]}")


def test_sections_1_to_3(demo: Netns) -> None:
    started = demo.demo("--detach").stdout
    inside = f"ip netns exec {demo.space('book-service').name} curl -s rating:8080/rate/1"
    for line in ("mesh ready\n", demo.pod(1), demo.pod(3), f"127.0.0.1:{demo.port}", inside):
        assert line in started
    pods = {row.split()[0]: row.split()[1:3] for row in demo.kubectl("get", "pods", "--no-headers").splitlines()}
    assert pods == {name: ["2/2", "Running"] for name in ("book-service", "rating-service-v1", "rating-service-v2")}

    # Who runs there, and with what: the sidecar as 1337, the app as somebody else and with no proxy.
    users = {}
    for pid in demo.shell("ip", "netns", "pids", demo.space("book-service").name).stdout.split():
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        users[words[words.index("-m") + 1]] = os.stat(f"/proc/{pid}").st_uid
        environ = dict(part.partition("=")[::2] for part in Path(f"/proc/{pid}/environ").read_text().split("\0"))
        assert not [name for name, value in environ.items() if name.lower().endswith("_proxy") and value]
    assert users == {"meshproxy": 1337, "control.demo.apps.book": 1338}

    # 1. Discovery, and not a word of it in plaintext on the wire.
    wire = demo.space("book-service").sniff("eth0")
    assert sorted(rating for rating in demo.ratings(4) if rating) == [1, 1, 3, 3]
    seen = wire.seen()
    wire.close()
    assert b"\x16\x03" in seen and b"/rate/" not in seen and b"/book/" not in seen
    demo.kubectl("apply", "-f", "destination-rule-v1-v2.yml", "-f", "virtual-service-v2.yml")
    demo.live("networking.istio.io/v1/virtualservices/rating", 5.0)
    assert demo.ratings(4) == [3] * 4
    demo.kubectl("delete", "-f", "virtual-service-v2.yml")

    # 2. Resilience
    assert demo.curl(f"{demo.pod(3)}:9080/rate/misbehave") == (200, "Ratings endpoint returns 503 error.")
    wait_until(lambda: 503 in [demo.book()[0] for _ in range(2)], 10, "without a route half of the calls fail")
    demo.kubectl("apply", "-f", "virtual-service-retry.yml")
    demo.live("networking.istio.io/v1/virtualservices/rating", 5.0)
    assert [demo.book() for _ in range(6)] == [(200, 1)] * 6
    assert demo.curl(f"{demo.pod(3)}:9080/rate/behave") == (200, "Back to normal")

    # 3. Identity and policy
    demo.kubectl("apply", "-f", "request-authentication-jwt.yml")
    demo.live("security.istio.io/v1/requestauthentications/bookjwt", 5.0)

    def with_token(name: str) -> tuple[int, str]:
        return demo.curl(demo.url, "-H", f"Authorization: Bearer {(demo.manifests / name).read_text().strip()}")

    assert with_token("invalid-signature.jwt") == (401, "Jwt verification fails")
    assert with_token("valid-no-role.jwt")[0] == 200
    demo.kubectl("apply", "-f", "authorization-policy-jwt.yml")
    demo.live("security.istio.io/v1/authorizationpolicies/require-jwt", 5.0)
    assert with_token("valid-no-role.jwt") == (403, "RBAC: access denied")
    assert with_token("valid-role-customer.jwt")[0] == 200


def test_a_program_joins_and_nothing_is_left_whatever_happens(demo: Netns) -> None:
    demo.demo("--detach")
    again = demo.meshctl("demo", "--netns", "--base", demo.base, "--port", str(free_port()), "--state", "other", check=False)
    assert again.returncode == 1 and f"another mesh has the network {demo.pod(0)}/24" in again.stderr
    environ = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    serving = ("sh", "-c", "exec python3 -m http.server $PORT --bind $HOST")
    words = ("meshctl", "run", "--name", "hello", "--port", "80", "--app-port", "8000", "--", *serving)
    program = subprocess.Popen(words, cwd=demo.root, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert program.stdout is not None
        while "is in the mesh" not in (line := program.stdout.readline()):
            assert line, "it ended"

        def called() -> bool:
            """By the name of its Service, from another pod."""
            done = subprocess.run(
                ("ip", "netns", "exec", demo.space("book-service").name, "curl", "-s", "-i", "--max-time", "5", "hello/"),
                capture_output=True,
                text=True,
                check=False,
            )
            return "200 OK" in done.stdout and "x-envoy-upstream-service-time" in done.stdout.lower()

        wait_until(called, 20, "the program is called by its name")
    finally:
        program.send_signal(signal.SIGINT)
        program.communicate(timeout=30)
    assert not [one for one in demo.left() if one.endswith(".hello")]

    # The launcher is killed: its janitor cleans up. Both are killed: the next start does.
    launcher = json.loads((demo.state / "demo.json").read_text())["pid"]
    os.kill(launcher, signal.SIGKILL)
    wait_until(lambda: not demo.left(), 20, "nothing is left")
    demo.demo("--detach")
    launcher = json.loads((demo.state / "demo.json").read_text())["pid"]
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    janitors = [pid for pid in children if b"control.demo.netns.janitor" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    for pid in (*map(int, janitors), launcher):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{launcher}/exe").exists(), 10, "the launcher is gone")
    assert demo.left()
    demo.demo("--detach")
    assert demo.book()[0] == 200
    demo.meshctl("demo", "--stop")
    assert not demo.left()
