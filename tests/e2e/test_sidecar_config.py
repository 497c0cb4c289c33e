"""Configuration changed under a real sidecar: only those whom it concerns notice; what cannot be obeyed changes nothing."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator

import pytest

from meshproxy.model.route import DirectResponse, Route
from tests.e2e.support.app import App
from tests.e2e.support.config import Config
from tests.e2e.support.load import Load
from tests.e2e.support.sidecar import Sidecar
from tests.e2e.support.sockets import Listening, own_address, until

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nhost: app\r\n\r\n"


@pytest.fixture(scope="module")
def apps() -> Iterator[tuple[App, App]]:
    with App("one") as one, App("two") as two:
        yield one, two


@pytest.fixture
def sidecar(apps: tuple[App, App]) -> Iterator[Sidecar]:
    with Sidecar(Config().service("app", apps[0].address)) as sidecar:
        yield sidecar


def config_version(sidecar: Sidecar) -> str:
    return str(sidecar.json("/server_info")["config"]["version"])


def test_a_hundred_changes_under_load_fail_no_request(apps: tuple[App, App], sidecar: Sidecar) -> None:
    """Endpoints, clusters, routes, header edits and listeners come and go."""
    one, two = apps
    with Load(sidecar.outbound, "app", 2) as keeping, Load(sidecar.outbound, "app", 2, keep=False) as coming:
        for number in range(100):
            config = Config()
            addresses = ((one.address,), (two.address,), (one.address, two.address))[number % 3]
            cluster = "" if number % 2 else f"outbound|80|v{number}|app"
            config.service("app", *addresses, cluster=cluster, forward={"timeout": 5.0 + number})
            for other in range(number % 5):
                config.service(f"other{other}", one.address)
            if number % 4 == 0:
                config.listener(f"gateway|{9000 + number}", "gateway", 9000 + number, "*", one.address)
            sidecar.install(config)
        keeping.more(20)
        coming.more(20)
    for load in (keeping, coming):
        assert load.lost == []
        assert set(load.statuses) == {200}
    assert sidecar.json("/server_info")["config"]["updates"] == 101
    sidecar.settled("app")


def test_unchanged_clusters_keep_their_connections(apps: tuple[App, App], sidecar: Sidecar) -> None:
    one, _ = apps
    with sidecar.client() as client:
        client.ask(GET)
        before = one.connections
        for number in range(5):
            sidecar.install(Config().service("app", one.address).service(f"more{number}", one.address))
            assert client.ask(GET).status == 200
        assert one.connections == before


def test_requests_in_flight_end_on_what_they_began_with(apps: tuple[App, App], sidecar: Sidecar) -> None:
    with Listening() as raw, sidecar.client() as client:
        sidecar.install(Config().service("app", raw.address))
        client.send(GET)
        server = raw.accept()
        server.request()
        gone = Config().host("app", Route(name="gone", action=DirectResponse(status=410)))
        sidecar.install(gone)
        with sidecar.client() as other:
            assert other.ask(GET).status == 410
        server.send(OK)
        assert client.response().body == b"ok"
        assert server.ended(), "its cluster has left: the connection is of no further use"
        assert client.ask(GET).status == 410


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{", "Input data was truncated"),
        (b"\xff\xfe", ""),
        (b"[" * 100_000, ""),
        (b'{"resources": [{"kind": "cluster", "name": "c", "version": "0", "body": ' + b"[" * 100_000, ""),
        (b'{"resources": 3}', "Expected `array`, got `int` - at `$.resources`"),
        (b'{"resources": [], "extra": 1}', "extra"),
        (b'{"resources": [{"kind": "cluster", "name": "c", "version": "0", "body": {"name": "c"}}]}', "version: is 0"),
        (b"", ""),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line_and_changes_nothing(sidecar: Sidecar, text: bytes, words: str) -> None:
    before, lines = config_version(sidecar), len(sidecar.log().splitlines())
    sidecar.path.write_bytes(text)
    sidecar.signal(signal.SIGHUP)
    until(lambda: len(sidecar.log().splitlines()) > lines, "a line in the log", 5)
    with sidecar.client() as client:
        assert client.ask(GET).status == 200
    assert config_version(sidecar) == before
    said = sidecar.log().splitlines()[lines:]
    assert len(said) == 1, said
    assert str(sidecar.path) in said[0]
    assert words in said[0]
    assert said[0].endswith("the last good configuration stays")
    assert sidecar.json("/server_info")["control"]["last_error"]
    sidecar.install()
    assert not sidecar.json("/server_info")["control"]["last_error"]


def test_what_is_wrong_is_named_by_its_path(apps: tuple[App, App], sidecar: Sidecar) -> None:
    cases = [
        (Config().service("app", (own_address(), 0)), "endpoints[0].port: must be between 1 and 65535, not 0"),
        (
            Config().service("app", apps[0].address).host("x", Route(name="x", action=DirectResponse(status=200)), table="70000"),
            "",
        ),
        (Config().service("app", apps[0].address).listener("in", "inbound", 70000, "*", apps[0].address), "port: must be"),
        (Config().service("app", apps[0].address).listener("in", "inbound", -1, "*", apps[0].address), "port: must be"),
        (
            Config().service("app", apps[0].address).listener("in", "inbound", 8080, "*", apps[0].address, bind="not an address"),
            "bind: must be an IP address, not 'not an address'",
        ),
        (
            Config().service("app", apps[0].address).listener("in", "inbound", 8080, "*", apps[0].address, bind="a..b"),
            "bind: must be an IP address, not 'a..b'",
        ),
        (
            Config().service("app", apps[0].address).listener("in", "inbound", 8080, "*", apps[0].address, bind="192.0.2.1"),
            "cannot listen on 192.0.2.1:8080",
        ),
        (
            Config().service("app", apps[0].address).listener("in", "inbound", 15001, "*", apps[0].address),
            "Address already in use",
        ),
        (
            Config().service("app", apps[0].address).listener("in", "inbound", 15000, "*", apps[0].address),
            "Address already in use",
        ),
    ]
    for config, words in cases:
        lines = len(sidecar.log().splitlines())
        before = config_version(sidecar)
        sidecar.offer(config)
        if not words:
            until(lambda before=before: config_version(sidecar) != before, "the configuration")
            continue
        until(lambda lines=lines: len(sidecar.log().splitlines()) > lines, words)
        assert words in sidecar.log().splitlines()[-1]
        with sidecar.client() as client:
            assert client.ask(GET).status == 200
        assert config_version(sidecar) == before


def test_listeners_come_and_go(apps: tuple[App, App], sidecar: Sidecar) -> None:
    one, two = apps

    def with_port(*ports: int) -> Config:
        config = Config().service("app", one.address)
        for port in ports:
            config.listener(f"gateway|{port}", "gateway", port, "*", two.address)
        return config

    sidecar.install(with_port(8081, 8082))
    with sidecar.client(8081) as kept, sidecar.client(8082) as lost:
        assert json.loads(kept.ask(GET).body)["app"] == "two"
        assert lost.ask(GET).status == 200
        sidecar.install(with_port(8081))
        assert json.loads(lost.ask(GET).body)["app"] == "two", "a request that crossed the change"
        assert lost.ended()
        with pytest.raises(ConnectionRefusedError):
            sidecar.client(8082)
        assert kept.ask(GET).status == 200, "the one that stays keeps its connections"
    sidecar.install(with_port(8082))
    with sidecar.client(8082) as back:
        assert back.ask(GET).status == 200


def test_a_listener_can_move_and_be_renamed(apps: tuple[App, App], sidecar: Sidecar) -> None:
    one, two = apps

    def config(**listeners: int) -> Config:
        config = Config().service("app", one.address)
        for name, port in listeners.items():
            config.listener(name, "gateway", port, "*", one.address if name == "first" else two.address)
        return config

    def answers(port: int) -> str:
        with sidecar.client(port) as client:
            return str(json.loads(client.ask(GET).body)["app"])

    sidecar.install(config(first=8081, second=8082))
    assert (answers(8081), answers(8082)) == ("one", "two")
    sidecar.install(config(first=8082, second=8081))  # they change places
    assert (answers(8081), answers(8082)) == ("two", "one")
    sidecar.install(config(third=8082))  # another name for the same address
    assert answers(8082) == "two"
    sidecar.install(config(third=8083))
    assert answers(8083) == "two"


def test_a_port_that_somebody_has_is_refused_and_nothing_has_changed(apps: tuple[App, App], sidecar: Sidecar) -> None:
    one, two = apps
    with socket.create_server((sidecar.ip, 8085)):
        lines = len(sidecar.log().splitlines())
        greedy = Config().service("app", two.address, pool={"max_connections": 1})
        greedy.listener("fine", "gateway", 8086, "*", two.address).listener("taken", "gateway", 8085, "*", two.address)
        sidecar.offer(greedy)
        until(lambda: len(sidecar.log().splitlines()) > lines, "the refusal")
        said = sidecar.log().splitlines()[-1]
        assert "listener taken: port: cannot listen on" in said
        assert "Address already in use" in said
        with pytest.raises(ConnectionRefusedError):
            sidecar.client(8086)
        with sidecar.client() as client:
            assert json.loads(client.ask(GET).body)["app"] == "one"
        status = sidecar.cluster("app")
        assert status["thresholds"]["max_connections"] is None
        assert [endpoint["address"] for endpoint in status["endpoints"]] == [f"{one.address[0]}:{one.address[1]}"]
    sidecar.install(greedy)  # once the port is free the same file is taken
    with sidecar.client(8085) as client:
        assert json.loads(client.ask(GET).body)["app"] == "two"


def test_a_bad_route_leaves_live_clusters_alone(apps: tuple[App, App], sidecar: Sidecar) -> None:
    lines = len(sidecar.log().splitlines())
    bad = Config().service("app", apps[1].address, pool={"max_requests": 1})
    bad.host("app", Route(name="r", action=DirectResponse(status=42_000)))
    bad.listener("gone", "gateway", 8081, "*", apps[0].address)
    del bad.hosts["gone"]
    sidecar.offer(bad)
    until(lambda: len(sidecar.log().splitlines()) > lines, "the refusal")
    status = sidecar.cluster("app")
    assert status["thresholds"]["max_requests"] is None
    assert status["endpoints"][0]["address"] == f"{apps[0].address[0]}:{apps[0].address[1]}"


def test_a_changed_file_is_noticed_without_a_signal(apps: tuple[App, App], sidecar: Sidecar) -> None:
    Config().service("app", apps[1].address).write(sidecar.path)
    with sidecar.client() as client:
        until(lambda: json.loads(client.ask(GET).body)["app"] == "two", "the new file")


def test_the_file_goes_away_and_comes_back(apps: tuple[App, App], sidecar: Sidecar) -> None:
    sidecar.path.unlink()
    until(lambda: "No such file" in sidecar.log(), "a line in the log")
    with sidecar.client() as client:
        assert client.ask(GET).status == 200
        Config().service("app", apps[1].address).write(sidecar.path)
        until(lambda: json.loads(client.ask(GET).body)["app"] == "two", "the new file")
    assert sidecar.log().count("No such file") == 1
