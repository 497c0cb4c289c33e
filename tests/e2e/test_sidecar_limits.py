"""Limits, ejection and metrics of a real sidecar, with real connections."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from meshproxy.model.cluster import Outlier
from meshproxy.model.route import Abort, Fault
from tests.e2e.support.app import App
from tests.e2e.support.config import Config
from tests.e2e.support.sidecar import Sidecar
from tests.e2e.support.sockets import Listening, Peer, own_address, until

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
OVERFLOW = b"upstream connect error or disconnect/reset before headers. reset reason: overflow"


def get(host: str, path: str = "/") -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()


@pytest.fixture(scope="module")
def raw() -> Iterator[Listening]:
    with Listening() as listening:
        yield listening


@pytest.fixture(scope="module")
def other() -> Iterator[Listening]:
    with Listening() as listening:
        yield listening


@pytest.fixture(scope="module")
def apps() -> Iterator[tuple[App, App]]:
    with App("good") as good, App("bad") as bad:
        yield good, bad


@pytest.fixture(scope="module")
def sidecar(raw: Listening, other: Listening, apps: tuple[App, App]) -> Iterator[Sidecar]:
    good, bad = apps
    outlier = Outlier(consecutive_5xx=3, interval=0.2, base_ejection=0.6, max_ejection_percent=100)
    config = Config()
    config.service("connections", raw.address, pool={"max_connections": 2, "max_pending_requests": 2})
    config.service("both", raw.address, other.address, pool={"max_connections": 1})
    config.service("requests", raw.address, pool={"max_requests": 2})
    config.service("once", raw.address, pool={"max_requests_per_connection": 1})
    config.service("thrice", raw.address, pool={"max_requests_per_connection": 3})
    config.service("idle", raw.address, pool={"idle_timeout": 0.3})
    config.service("aging", raw.address, pool={"max_connection_duration": 0.3})
    config.service("ejecting", good.address, bad.address, outlier=outlier)
    config.service("alone", bad.address, outlier=outlier)
    config.service("timid", good.address, bad.address, outlier=Outlier(consecutive_5xx=1, max_ejection_percent=10))
    config.service("good", good.address, workload="good-v1")
    config.service("dead", (own_address(), 9), workload="dead-v1")
    config.service("raw", raw.address, workload="raw-v1")
    config.service("faulty", good.address, route={"fault": Fault(abort=Abort(percent=100.0, status=418))})
    config.listener("inbound|8081", "inbound", 8081, "*", good.address)
    config.listener("gateway|8082", "gateway", 8082, "*", good.address)
    with Sidecar(config, "--workload-labels", "app=caller,version=v7") as sidecar:
        yield sidecar


@pytest.fixture
def upstream(raw: Listening, other: Listening, sidecar: Sidecar) -> Iterator[Listening]:
    yield raw
    raw.forget()
    other.forget()


Crowd = Callable[[str, int], list[Peer]]


@pytest.fixture
def crowd(sidecar: Sidecar) -> Iterator[Crowd]:
    """So many clients that have asked a host."""
    opened: list[Peer] = []

    def crowd(host: str, count: int) -> list[Peer]:
        clients = [sidecar.client() for _ in range(count)]
        opened.extend(clients)
        for client in clients:
            client.send(get(host))
        return clients

    yield crowd
    for client in opened:
        client.close()


def test_more_than_the_connections_wait_and_more_than_may_wait_are_refused(
    sidecar: Sidecar, upstream: Listening, crowd: Crowd
) -> None:
    busy, servers = [], []
    for _ in range(2):
        busy += crowd("connections", 1)
        servers.append(upstream.accept())
        servers[-1].request()
    waiting = crowd("connections", 2)
    until(lambda: sidecar.active("connections")["pending"] == 2, "two wait")
    refused = crowd("connections", 3)
    for client in refused:
        answer = client.response()
        assert (answer.status, answer.body, answer.headers["x-envoy-overloaded"]) == (503, OVERFLOW, "true")
    assert sidecar.active("connections") == {"connections": 2, "pending": 2, "requests": 4, "retries": 0}
    for server in servers:
        server.send(OK)
        server.request()  # who waited comes on the same connection
    for server in servers:
        server.send(OK)
    assert [client.response().status for client in (*busy, *waiting)] == [200] * 4
    assert sidecar.cluster("connections")["overflow"]["pending"] == 3


def test_every_endpoint_may_have_one_connection(upstream: Listening, other: Listening, crowd: Crowd) -> None:
    clients = crowd("both", 2)
    for listening in (upstream, other):
        server = listening.accept()
        server.request()
        server.send(OK)
    assert [client.response().status for client in clients] == [200, 200]


def test_more_than_the_requests_are_refused(sidecar: Sidecar, upstream: Listening, crowd: Crowd) -> None:
    busy = crowd("requests", 2)
    servers = [upstream.accept() for _ in busy]
    refused = crowd("requests", 3)
    assert {client.response().body for client in refused} == {OVERFLOW}
    for server in servers:
        server.request()
        server.send(OK)
    assert [client.response().status for client in busy] == [200, 200]
    refused[0].send(get("requests"))  # there is room again
    until(lambda: sidecar.active("requests")["requests"] == 1, "it is let in")


def test_one_request_per_connection_says_close(sidecar: Sidecar, upstream: Listening) -> None:
    with sidecar.client() as client:
        for _ in range(2):
            client.send(get("once"))
            server = upstream.accept()
            assert server.request()[1]["connection"] == "close"
            server.send(OK)
            assert client.response().status == 200
            assert server.ended()


def test_the_last_request_of_a_connection_says_close(sidecar: Sidecar, upstream: Listening) -> None:
    with sidecar.client() as client:
        said = []
        for number in range(6):
            client.send(get("thrice"))
            if number % 3 == 0:
                server = upstream.accept()
            said.append(server.request()[1].get("connection"))
            server.send(OK)
            assert client.response().status == 200
        assert said == [None, None, "close"] * 2


@pytest.mark.parametrize("host", ["idle", "aging"])
def test_connections_end_when_their_time_is_over(sidecar: Sidecar, upstream: Listening, host: str) -> None:
    with sidecar.client() as client:
        client.send(get(host))
        server = upstream.accept()
        server.request()
        server.send(OK)
        assert client.response().status == 200
        assert server.ended()
        client.send(get(host))
        again = upstream.accept()
        again.request()
        again.send(OK)
        assert client.response().status == 200


def test_an_endpoint_that_fails_is_ejected_and_comes_back(sidecar: Sidecar, apps: tuple[App, App]) -> None:
    _, bad = apps
    address = f"{bad.address[0]}:{bad.address[1]}"

    def health() -> str:
        return str({one["address"]: one["health"] for one in sidecar.cluster("ejecting")["endpoints"]}[address])

    with sidecar.client() as client:

        def ask() -> str:
            return client.ask(get("ejecting")).headers["x-app"]

        assert [ask() for _ in range(4)] == ["good", "bad"] * 2
        bad.fail = 500
        try:
            assert Counter(ask() for _ in range(6)) == {"good": 3, "bad": 3}
            assert health() == "failed_outlier_check"
            assert {ask() for _ in range(4)} == {"good"}
        finally:
            bad.fail = 0
        assert sidecar.cluster("ejecting")["outlier"]["ejections"] == 1
        until(lambda: health() == "healthy", "it is back")
        assert {ask() for _ in range(4)} == {"good", "bad"}


def test_all_ejected_is_no_healthy_upstream(sidecar: Sidecar) -> None:
    with sidecar.client() as client:
        for _ in range(3):
            assert client.ask(get("alone", "/status/503")).status == 503
        answer = client.ask(get("alone"))
        assert (answer.status, answer.body) == (503, b"no healthy upstream")
        until(lambda: client.ask(get("alone")).status == 200, "it is back")


def test_ten_percent_of_two_is_nobody(sidecar: Sidecar) -> None:
    with sidecar.client() as client:
        for _ in range(6):
            client.ask(get("timid", "/status/500"))
        assert {client.ask(get("timid")).headers["x-app"] for _ in range(4)} == {"good", "bad"}
    outlier = sidecar.cluster("timid")["outlier"]
    assert (outlier["ejected"], outlier["ejections_overflow"] > 0) == (0, True)


# -- what the metrics say

FAMILIES = (
    "istio_requests_total",
    "istio_request_duration_milliseconds_count",
    "istio_request_bytes_count",
    "istio_response_bytes_count",
)


def samples(sidecar: Sidecar, name: str, **labels: str) -> list[dict[str, str]]:
    found = []
    for line in sidecar.get("/stats/prometheus", port=15020)[1].splitlines():
        if line.startswith(name + "{"):
            sample = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', line))
            if all(sample.get(key) == value for key, value in labels.items()):
                found.append({**sample, "value": line.rpartition(" ")[2]})
    return found


def test_each_end_is_counted_once_under_its_labels(sidecar: Sidecar, upstream: Listening) -> None:
    asked = Counter(
        {
            ("good", "200", "-"): 3,
            ("good", "404", "-"): 2,
            ("dead", "503", "UF"): 2,
            ("faulty", "418", "FI"): 1,
            ("raw", "0", "DC"): 1,
            ("raw", "502", "UPE"): 1,
        }
    )
    before = {key: sidecar.metrics("istio_requests_total", **_labels(*key)) for key in asked}
    with sidecar.client() as client:
        for _ in range(3):
            assert client.ask(get("good")).status == 200
        for _ in range(2):
            assert client.ask(get("good", "/status/404")).status == 404
            assert client.ask(get("dead")).status == 503
        assert client.ask(get("faulty")).status == 418
        client.send(get("raw"))
        server = upstream.accept()
        server.request()
        server.send(b"nonsense\r\n\r\n")
        assert client.response().status == 502
    with sidecar.client() as client:
        client.send(get("raw"))
        upstream.accept().request()
        client.cut()
    sidecar.settled("raw")
    for key, count in asked.items():
        assert sidecar.metrics("istio_requests_total", **_labels(*key)) - before[key] == count, key
    for family in FAMILIES:
        assert sidecar.metrics(family, **_labels("dead", "503", "UF")) >= 2
        assert sidecar.metrics(family, port=15000, **_labels("dead", "503", "UF")) >= 2
    assert samples(sidecar, "istio_build")[0]["component"] == "proxy"


def _labels(service: str, code: str, flags: str) -> dict[str, str]:
    return {"destination_service_name": service, "response_code": code, "response_flags": flags, "reporter": "source"}


def test_the_labels_say_who_asked_whom(sidecar: Sidecar) -> None:
    with sidecar.client() as client:
        assert client.ask(get("good")).status == 200
    found = samples(sidecar, "istio_requests_total", **_labels("good", "200", "-"))
    (sample,) = [one for one in found if one["destination_workload"] == "good-v1"]
    wanted = {
        "source_workload": "pod",
        "source_app": "caller",
        "source_version": "v7",
        "source_workload_namespace": "default",
        "destination_app": "good",
        "destination_version": "v1",
        "destination_service": "good.default.svc.cluster.local",
        "destination_service_namespace": "default",
        "destination_workload_namespace": "default",
        "request_protocol": "http",
        "connection_security_policy": "unknown",
        "grpc_response_status": "",
    }
    assert {key: sample[key] for key in wanted} == wanted
    assert len(sample) == 26


def test_sizes_are_those_on_the_wire(sidecar: Sidecar) -> None:
    labels = {**_labels("good", "200", "-"), "destination_workload": "good-v1"}
    sent, got = (sidecar.metrics(f"istio_{side}_bytes_sum", **labels) for side in ("request", "response"))
    head = b"POST /bytes/1000 HTTP/1.1\r\nhost: good\r\ncontent-length: 500\r\n\r\n"
    with sidecar.client() as client:
        assert len(client.ask(head + b"x" * 500).body) == 1000
    assert sidecar.metrics("istio_request_bytes_sum", **labels) - sent == len(head) + 500
    assert (
        sidecar.metrics("istio_response_bytes_sum", **labels) - got
        == len(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n") + 1000
    )


def test_refusals_before_a_request_are_counted(sidecar: Sidecar) -> None:
    before = sidecar.metrics("mesh_messages_refused_total", response_code="400")
    with sidecar.client() as client:
        assert client.ask(b"GET / HTTP/1.1\r\n\r\n").status == 400
    assert sidecar.metrics("mesh_messages_refused_total", response_code="400", listener="outbound") - before == 1


def test_headers_on_the_way(sidecar: Sidecar) -> None:
    def seen(port: int, *lines: str) -> dict[str, str]:
        with sidecar.client(port) as client:
            head = "".join(f"{line}\r\n" for line in ("GET / HTTP/1.1", "host: good", *lines))
            told = json.loads(client.ask(f"{head}\r\n".encode()).body)
        assert len(told["headers"]) == len(dict(told["headers"])), "no header twice"
        return dict(told["headers"])

    outbound, inbound, gateway = 15001, 8081, 8082
    for port in (outbound, inbound):
        assert seen(port, "x-request-id: mine")["x-request-id"] == "mine"
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", seen(port)["x-request-id"])
        assert seen(port)["x-forwarded-proto"] == "http"
        assert seen(port, "x-forwarded-proto: https")["x-forwarded-proto"] == "https"
        assert "x-forwarded-for" not in seen(port)
        assert seen(port, "x-forwarded-for: 192.0.2.1")["x-forwarded-for"] == "192.0.2.1"
    assert seen(outbound, "x-envoy-attempt-count: 7")["x-envoy-attempt-count"] == "1"
    assert seen(inbound, "x-envoy-attempt-count: 2")["x-envoy-attempt-count"] == "2"
    assert seen(gateway)["x-forwarded-for"] == sidecar.ip
    assert seen(gateway, "x-forwarded-for: 192.0.2.1")["x-forwarded-for"] == f"192.0.2.1,{sidecar.ip}"
    assert seen(gateway, "x-forwarded-proto: https")["x-forwarded-proto"] == "http"
    assert seen(gateway, "x-envoy-attempt-count: 7")["x-envoy-attempt-count"] == "1"
    with sidecar.client() as client:
        answer = client.ask(get("good"))
    assert answer.headers["server"] == "meshproxy"
    assert int(answer.headers["x-envoy-upstream-service-time"]) >= 0
