"""What control translates for two injected pods, run by two real sidecars behind real iptables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from control.translate import proxy_of, translate
from control.world import World
from meshproxy.model.base import Model
from tests.e2e.pods import Pod, needs_root, two_pods
from tests.e2e.support.sockets import until

pytestmark = needs_root

IPS = {"caller": ("10.77.0.1", "fd77::1"), "callee": ("10.77.0.2", "fd77::2")}
PORTS = {"http": 8080, "tcp-db": 5432, "": 7000, "tcp-own": 6000, "grpc": 9090}


def pod(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name, "security.istio.io/tlsMode": "istio"}},
        "spec": {
            "serviceAccountName": name,
            "containers": [{"name": "app"}],
            "initContainers": [{"name": "istio-init"}],
        },
        "status": {
            "podIP": IPS[name][0],
            "podIPs": [{"ip": ip} for ip in IPS[name]],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def service(name: str, number: int, *ips: str) -> list[dict[str, Any]]:
    port = next(key for key, value in PORTS.items() if value == number)
    spec: dict[str, Any] = {"selector": {"app": "callee"}, "ports": [{"name": port, "port": number}]}
    spec |= {"clusterIP": ips[0], "clusterIPs": list(ips)}
    found: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": spec}
    ]
    for family in sorted({"IPv6" if ":" in ip else "IPv4" for ip in ips}):
        address = IPS["callee"][family == "IPv6"]
        found.append(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": f"{name}-{family.lower()}",
                    "namespace": "default",
                    "labels": {"kubernetes.io/service-name": name},
                },
                "addressType": family,
                "ports": [{"name": port, "port": number}],
                "endpoints": [
                    {"addresses": [address], "conditions": {"ready": True}, "targetRef": {"kind": "Pod", "name": "callee"}}
                ],
            }
        )
    return found


def resources(world: World, name: str) -> list[tuple[str, Model]]:
    proxy = proxy_of(world, "default", name)
    assert proxy is not None
    snapshot = translate(world, proxy)
    assert snapshot.problems == ()
    found: list[tuple[str, Model]] = []
    for kind, key in snapshot.resources:
        value = snapshot.get(kind, key)
        assert value is not None
        found.append((kind, value))
    return found


@pytest.fixture(scope="module")
def pods() -> Iterator[tuple[Pod, Pod]]:
    strict = {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "strict", "namespace": "default"},
        "spec": {"mtls": {"mode": "STRICT"}},
    }
    world = World.of(
        [
            *map(pod, IPS),
            *service("rating", 8080, "10.96.0.8"),
            *service("db", 5432, "10.96.0.7"),
            *service("db6", 5432, "fd96::7"),
            *service("anything", 7000, "10.96.0.9"),
            *service("own", 6000, "None"),
            *service("calls", 9090, "10.96.0.10"),
            strict,
        ]
    )
    assert world.problems == ()
    with two_pods() as (caller, callee):
        caller.start(*resources(world, "caller"))
        callee.start(*resources(world, "callee"))
        yield caller, callee


@pytest.mark.parametrize(
    ("vip", "port", "own", "mark"),
    [
        ("10.96.0.7", 5432, "10.77.0.2", "127.0.0.6"),
        ("fd96::7", 5432, "fd77::2", "::6"),
        ("10.96.0.9", 7000, "10.77.0.2", "127.0.0.6"),
        ("10.77.0.2", 6000, "10.77.0.2", "127.0.0.6"),  # headless: by the pod's own address
    ],
)
def test_bytes_go_over_mutual_tls(pods: tuple[Pod, Pod], vip: str, port: int, own: str, mark: str) -> None:
    caller, callee = pods
    with callee.space.listen(own, port) as app, caller.space.connect(vip, port) as client:
        wire = caller.space.sniff(caller.device)
        client.send(b"\x00 an open secret")
        server = app.accept()
        assert app.source == mark
        assert server.exactly(16) == b"\x00 an open secret"
        server.send(b"its plain answer")
        assert client.exactly(16) == b"its plain answer"
        server.close()
        seen = wire.seen()
        wire.close()
    assert b"secret" not in seen and b"plain answer" not in seen


@pytest.mark.parametrize(("vip", "port"), [("10.96.0.8", 8080), ("10.96.0.9", 7000), ("10.96.0.10", 9090)])
def test_http_goes_over_mutual_tls(pods: tuple[Pod, Pod], vip: str, port: int) -> None:
    caller, callee = pods
    with callee.space.listen("10.77.0.2", port) as app, caller.space.connect(vip, port) as client:
        host = {8080: "rating", 7000: "anything.default:7000", 9090: "calls"}[port]
        client.send(f"GET /a HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
        server = app.accept()
        line, headers, _ = server.request()
        assert line == "GET /a HTTP/1.1" and "sa/caller" in headers["x-forwarded-client-cert"]
        server.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        assert client.response().body == b"ok"
        server.close()


def test_http2_goes_as_bytes_to_the_service_it_was_meant_for(pods: tuple[Pod, Pod]) -> None:
    caller, callee = pods
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    with callee.space.listen("10.77.0.2", 9090) as app, caller.space.connect("10.96.0.10", 9090) as client:
        client.send(preface)
        server = app.accept()
        assert server.exactly(len(preface)) == preface
        server.close()


def test_what_nobody_knows_is_refused_where_the_callee_is_strict(pods: tuple[Pod, Pod]) -> None:
    caller, callee = pods
    with callee.space.listen("10.77.0.2", 9998), caller.space.connect("10.77.0.2", 9998) as client:
        client.send(b"hello")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            client.exactly(1)
    until(lambda: caller.metric("istio_tcp_connections_opened_total", destination_service_name="PassthroughCluster") >= 1)
