"""The demo in network namespaces, without any: names and addresses, what is refused, names for pods, the load balancer."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.demo.kubelet.space import socket_in
from control.demo.launcher import Options, refusal
from control.demo.netns import names, network
from control.demo.netns.front import front
from control.demo.netns.layout import APP, SERVICES, SIDECAR, Layout, cluster_ip, entering
from control.demo.plan import Addresses, BadPlan, Sidecar, captured, demo_pods, gateway_pod, seeds
from control.demo.state import State

AT = Sidecar("https://10.1.0.20:15012", Path("/s/ca.pem"), Path("/s/tokens"))
NETNS = Addresses("127.1.0.0", netns=True)


@pytest.mark.parametrize(
    ("base", "first"), [("127.1.0.0", "10.1.0.0"), ("192.168.77.0", "192.168.77.0"), ("10.200.9.0", "10.200.9.0")]
)
def test_addresses_move_together(base: str, first: str) -> None:
    addresses = Addresses(base, netns=True)
    assert addresses.layout == Layout(first)
    prefix = first.removesuffix("0")
    assert [addresses.pod(3), addresses.gateway, addresses.control] == [f"{prefix}3", f"{prefix}10", f"{prefix}20"]
    assert len(addresses.layout.id) <= 15  # the host's device is called so


@pytest.mark.parametrize("base", ["8.8.8.0", "10.0.0.7", "172.20.4.0", "0.0.0.0", "127.0.0.0"])
def test_a_base_that_cannot_be(base: str) -> None:
    with pytest.raises(BadPlan):
        Addresses(base, netns=True)


def test_without_namespaces_a_base_is_loopback() -> None:
    with pytest.raises(BadPlan):
        Addresses("192.168.77.0")


def test_apps_know_of_no_proxy_and_sidecars_run_as_istio_s_user() -> None:
    for pod in demo_pods(NETNS, AT):
        app, proxy = pod.containers
        assert pod.intercepted and pod.annotations["sidecar.istio.io/interceptionMode"] == "REDIRECT"
        assert "mesh.dev/inbound-ports" not in pod.annotations
        assert not [name for name, value in app.env.items() if "proxy" in name.lower() and value]
        assert (app.user, proxy.user) == (APP, SIDECAR) and app.ports == (9080,)
    gateway = gateway_pod(NETNS, AT)
    assert not gateway.intercepted and gateway.containers[0].user == SIDECAR
    assert "80=10.1.0.10:8080" in gateway.annotations["mesh.dev/gateway-bind"]
    assert captured(demo_pods(Addresses("127.1.0.0"), AT)[0]).intercepted


def test_services_lead_to_the_apps_own_ports() -> None:
    ports = {
        body["metadata"]["name"]: body["spec"]["ports"][0]["targetPort"] for _, body in seeds(NETNS) if body["kind"] == "Service"
    }
    assert (ports["rating"], ports["book-service"]) == (9080, 9080)


def test_a_command_within_a_namespace() -> None:
    assert entering("m.a", ("x", "-y"), 0) == ("ip", "netns", "exec", "m.a", "x", "-y")
    words = entering("m.a", ("x",), SIDECAR)
    assert words[:6] == ("ip", "netns", "exec", "m.a", "setpriv", "--reuid=1337")
    assert "--ambient-caps=-all,+dac_read_search" in words and "--pdeathsig=KILL" in words and words[-2:] == ("--", "x")
    assert "--ambient-caps=-all" in entering("m.a", ("x",), 1000)  # a user's own program gets no right at all


def test_names_of_spaces_say_whose_they_are() -> None:
    layout = Layout("10.1.0.0")
    assert layout.space("default", "book") == "mesh10-1-0.book"
    assert layout.owns(layout.space("shop", "book")) and layout.owns(layout.switch_space)
    assert not Layout("10.1.1.0").owns(layout.switch_space) and not Layout("10.1.10.0").owns("mesh10-1-1.a")


service_names = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.text("abc", min_size=1, max_size=3)), unique=True, max_size=30)


@given(service_names)
def test_every_service_has_an_address_of_its_own(given: list[tuple[str, str]]) -> None:
    services = [service(name, namespace) for namespace, name in given]
    found = list(names.missing(services))
    addresses = [address for *_, address in found]
    assert len(set(addresses)) == len(services) and all(ip_address(one) in SERVICES for one in addresses)


def service(name: str, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def test_who_has_an_address_or_wants_none_gets_none() -> None:
    first = cluster_ip("default", "a", ())
    assert first == cluster_ip("default", "a", ()) != cluster_ip("default", "a", (first,))
    services = [
        service("a"),
        service("b", clusterIP=first),
        service("headless", clusterIP="None"),
        service("outside", type="ExternalName"),
    ]
    assert [(name, address != first) for _, name, address in names.missing(services)] == [("a", True)]


def test_a_pod_knows_its_own_namespace_s_services_by_their_short_names() -> None:
    services = [
        service("a", clusterIP="172.20.0.9"),
        service("b", "shop", clusterIP="172.20.0.8"),
        service("h", clusterIP="None"),
    ]
    assert names.hosts("default", "book", "10.1.0.1", services).splitlines()[2:] == [
        "10.1.0.1\tbook",
        "172.20.0.9\ta.default.svc.cluster.local a.default.svc a.default a",
        "172.20.0.8\tb.shop.svc.cluster.local b.shop.svc b.shop",
    ]


def test_a_hosts_file_is_written_in_place(tmp_path: Path) -> None:
    """A namespace has that very file mounted."""
    file = tmp_path / "hosts"
    names.rewrite(file, "of a pod that is gone")
    assert not file.exists()
    file.write_text("one\ntwo\n")
    number = file.stat().st_ino
    for text in ("three\n", "four\nfive\nsix\n"):
        names.rewrite(file, text)
        assert (file.read_text(), file.stat().st_ino) == (text, number)


def test_one_line_where_it_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options(tmp_path / "s", "127.1.0.0", netns=True)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert refusal(options) == "--netns needs root: sudo, or the demo without it"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refusal(options) == "--netns needs the program ip; install the package iproute2"
    assert "--netns" in options.argv()


@pytest.mark.parametrize(
    ("routes", "problem"),
    [
        ([{"dst": "default", "dev": "eth0"}, {"dst": "10.2.0.0/24", "dev": "eth0"}, {"dst": "10.1.1.0/24"}], ""),
        ([{"dst": "10.1.0.0/24", "dev": "mesh10-1-0"}], ""),
        (
            [{"dst": "10.1.0.7", "dev": "tun0"}],
            "10.1.0.0/24 overlaps this host's route to 10.1.0.7/32 (tun0); choose another --base",
        ),
        (
            [{"type": "blackhole", "dst": "10.0.0.0/8"}],
            "10.1.0.0/24 overlaps this host's route to 10.0.0.0/8; choose another --base",
        ),
    ],
)
def test_addresses_that_the_host_has(routes: list[dict[str, str]], problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_run", lambda *words: json.dumps(routes))
    found = network.collision(NETNS.layout)
    assert found.startswith(problem) and bool(found) is bool(problem)


def test_under_sudo_the_kubeconfig_is_the_user_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(tmp_path / "s")
    state.make()
    state.copy_manifests(NETNS)
    state.kubeconfig.write_text("")
    given: dict[Path, tuple[int, int]] = {}
    monkeypatch.setattr(os, "chown", lambda path, user, group, follow_symlinks: given.update({path: (user, group)}))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    state.hand_over()
    assert not given
    monkeypatch.setenv("SUDO_UID", "1000")
    monkeypatch.setenv("SUDO_GID", "100")
    state.hand_over()
    assert {state.path, state.kubeconfig, state.manifests, state.manifests / "virtual-service-v1.yml"} <= set(given)
    assert set(given.values()) == {(1000, 100)} and state.tokens not in given


def test_one_network_has_one_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_LOCKS", tmp_path / "locks")
    lock = network.hold(NETNS.layout)
    with pytest.raises(network.NoNetwork, match=r"another mesh has the network 10\.1\.0\.0/24"):
        network.hold(NETNS.layout)
    os.close(network.hold(Layout("10.1.1.0")))
    os.close(lock)
    os.close(network.hold(NETNS.layout))


def test_a_socket_of_a_namespace_that_is_not_there() -> None:
    with pytest.raises(OSError):
        socket_in("there is none of this name")


def test_the_load_balancer_passes_bytes_and_ends() -> None:
    async def story() -> None:
        async def gateway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked = await reader.read()  # to the client's end
            writer.write(asked.upper())
            writer.close()

        there = await asyncio.start_server(gateway, "127.77.5.1", 0)
        port = there.sockets[0].getsockname()[1]
        balancer = await front("127.77.5.2", port, "127.77.5.1")
        reader, writer = await asyncio.open_connection("127.77.5.2", port)
        writer.write(b"hello" * 100_000)
        writer.write_eof()
        assert await reader.read() == b"HELLO" * 100_000
        writer.close()
        there.close()
        await there.wait_closed()
        reader, writer = await asyncio.open_connection("127.77.5.2", port)
        with contextlib.suppress(ConnectionResetError):  # the gateway has gone: an end or a reset, at once
            assert await reader.read() == b""
        writer.close()
        balancer.close()
        await balancer.wait_closed()
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)

    asyncio.run(story())


def test_the_load_balancer_ends_what_a_client_has_left() -> None:
    """Neither is a carried connection left to the garbage collector, nor does the gateway's side wait for ever."""

    async def story() -> None:
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        reached, ended = asyncio.Event(), asyncio.Event()

        async def gateway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            reached.set()
            with contextlib.suppress(ConnectionResetError):
                await reader.read()
            gc.collect()
            ended.set()
            writer.close()

        there = await asyncio.start_server(gateway, "127.77.5.3", 0)
        port = there.sockets[0].getsockname()[1]
        balancer = await front("127.77.5.4", port, "127.77.5.3")
        for reset in (True, False):
            reached.clear()
            ended.clear()
            _, writer = await asyncio.open_connection("127.77.5.4", port)
            await asyncio.wait_for(reached.wait(), 30)
            gc.collect()
            if reset:
                writer.transport.abort()
            else:
                writer.close()
            await asyncio.wait_for(ended.wait(), 30)
        there.close()
        balancer.close()
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)
        gc.collect()
        assert told == []

    asyncio.run(story())


def test_its_janitor_needs_no_library_of_ours() -> None:
    """One waits beside every demo: it shall be small."""
    code = "import sys, control.demo.netns.janitor; print(*sys.modules)"
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    assert not {"asyncio", "httpx", "msgspec", "ssl"} & set(done.stdout.split())
