"""Where a real sidecar lets its pod go: known hosts, any host, and never its own ports; and whom it serves."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from tests.e2e.support.app import App
from tests.e2e.support.config import Config
from tests.e2e.support.sidecar import Sidecar
from tests.e2e.support.sockets import Listening, connect, until

PORTS = (15000, 15001, 15020, 15021)


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    with App(host="127.0.0.1") as app:
        yield app


@pytest.fixture(scope="module")
def strict(app: App) -> Iterator[Sidecar]:
    with Sidecar(Config("REGISTRY_ONLY").service("app", app.address)) as sidecar:
        yield sidecar


@pytest.fixture(scope="module")
def free(app: App) -> Iterator[Sidecar]:
    with Sidecar(Config("ALLOW_ANY").service("app", app.address), "--access-log", "/dev/stdout") as sidecar:
        yield sidecar


def get(authority: str) -> bytes:
    return f"GET http://{authority}/x HTTP/1.1\r\nhost: {authority}\r\n\r\n".encode()


def tunnel(authority: str) -> bytes:
    return f"CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n".encode()


def status(sidecar: Sidecar, request: bytes) -> int:
    with sidecar.client() as client:
        return client.ask(request, "CONNECT" if request.startswith(b"CONNECT") else "GET").status


def test_registry_only_knows_its_hosts_and_nobody_else(strict: Sidecar, app: App) -> None:
    port = app.address[1]
    assert status(strict, get("app")) == 200
    assert status(strict, tunnel("app:80")) == 200
    for authority in (f"127.0.0.1:{port}", f"localhost:{port}", "example.invalid", "app:81", f"[::1]:{port}"):
        with strict.client() as client:
            answer = client.ask(get(authority))
            assert (answer.status, answer.body) == (502, b""), authority
            assert client.ask(get("app")).status == 200, "and the connection lives on"
    assert status(strict, tunnel(f"127.0.0.1:{port}")) == 502
    assert status(strict, tunnel("example.invalid:443")) == 502


def test_allow_any_goes_on_by_address_and_by_name(free: Sidecar, app: App) -> None:
    port = app.address[1]
    for authority in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}"):
        with free.client() as client:
            answer = client.ask(get(authority))
            assert answer.status == 200, authority
            told = json.loads(answer.body)
            assert told["target"] == "/x"
            assert dict(told["headers"])["host"] == authority
    with free.client() as client:
        assert client.ask(tunnel(f"127.0.0.1:{port}"), "CONNECT").status == 200
        assert client.ask(b"GET /in HTTP/1.1\r\nhost: whatever\r\n\r\n").status == 200
    until(lambda: " PassthroughCluster " in free.log(), "the access log")


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a..b", "..", "x" * 64 + ".example", "%41.b", "x" * 300])
def test_a_name_that_does_not_resolve_is_503(free: Sidecar, name: str) -> None:
    with free.client() as client:
        answer = client.ask(get(name))
    assert answer.status == 503
    assert b"delayed connect error" in answer.body


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("form", ["{ip}", "[::ffff:{ip}]", "[0:0:0:0:0:ffff:{ip}]", "[::FFFF:{ip}]"])
@pytest.mark.parametrize("make", [get, tunnel])
def test_its_own_ports_are_out_of_reach(free: Sidecar, make: object, form: str, port: int) -> None:
    request = make(f"{form.format(ip=free.ip)}:{port}")  # type: ignore[operator]
    with free.client() as client:
        answer = client.ask(request)
        assert answer.status == 403, (request, answer)
        assert client.ask(get("app")).status == 200


@pytest.fixture(scope="module")
def everywhere(app: App) -> Iterator[Sidecar]:
    """Its admin pages take every address of the machine; other ports, because the usual ones may be somebody's."""
    ports = dict(zip(("admin", "health", "metrics"), free_ports(3), strict=True))
    options = [word for name, port in ports.items() for word in (f"--{name}-port", str(port))]
    with Sidecar(Config("ALLOW_ANY").service("app", app.address), "--admin-bind", "0.0.0.0", *options, **ports) as sidecar:
        yield sidecar


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("0.0.0.0", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "0.0.0.0", "0", "127.1", "2130706433", "[::ffff:127.9.9.9]", "{ip}"])
def test_pages_bound_to_every_address_are_out_of_reach_by_every_address(everywhere: Sidecar, name: str) -> None:
    authority = f"{name.format(ip=everywhere.ip)}:{everywhere.ports['admin']}"
    assert everywhere.get("/ready")[0] == 200
    assert status(everywhere, get(authority)) == 403
    assert status(everywhere, tunnel(authority)) == 403


def test_an_app_that_is_our_own_listener_is_a_loop(app: App) -> None:
    config = Config()
    with Sidecar(config) as sidecar:
        config.listener("inbound|8080", "inbound", 8080, "*", (sidecar.ip, 8080))
        config.listener("inbound|8081", "inbound", 8081, "*", (sidecar.ip, 8080))
        config.listener("gateway|8082", "gateway", 8082, "*", (sidecar.ip, 8082))
        config.listener("inbound|8083", "inbound", 8083, "*", app.address)
        sidecar.install(config)
        before = sidecar.files()
        for port in (8080, 8081, 8082):
            with sidecar.client(port) as client:
                assert client.ask(get("app")).status == 508, port
        with sidecar.client(8083) as client:
            assert client.ask(get("app")).status == 200
        assert sidecar.files() <= before + 2


def test_a_pod_may_call_itself_through_its_own_inbound(app: App) -> None:
    config = Config("ALLOW_ANY").listener("inbound|8080", "inbound", 8080, "*", app.address)
    with Sidecar(config) as sidecar:
        assert status(sidecar, get(f"{sidecar.ip}:8080")) == 200


def test_outbound_serves_its_own_pod_only(strict: Sidecar) -> None:
    for source in (strict.ip, "127.0.0.1"):
        with connect(strict.outbound, source) as client:
            assert client.ask(get("app")).status == 200
    for source in ("127.61.254.1", "127.0.0.2"):
        with connect(strict.outbound, source) as client:
            try:
                client.send(get("app"))
                assert client.rest() == b""
            except (BrokenPipeError, ConnectionResetError):
                pass


def test_one_sidecar_is_no_stepping_stone_to_another_s_outbound(free: Sidecar, strict: Sidecar) -> None:
    """What it dials comes from its own address, however the target is written; so the other one sees a stranger."""
    for form in ("{ip}", "[::ffff:{ip}]"):
        assert status(free, get(f"{form.format(ip=strict.ip)}:15001")) == 503


def test_what_the_kernel_forbids_is_no_refusal_of_ours(free: Sidecar) -> None:
    assert status(free, get("255.255.255.255:80")) == 503


def test_the_app_sees_our_address(free: Sidecar) -> None:
    with Listening("127.0.0.1") as upstream, free.client() as client:
        client.send(get(f"[::ffff:127.0.0.1]:{upstream.address[1]}"))
        server = upstream.accept()
        assert server.sock.getpeername()[0] == free.ip
        server.request()
        server.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        assert client.response().status == 200
