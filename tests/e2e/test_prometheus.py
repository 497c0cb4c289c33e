"""The real Prometheus beside a running mesh, configured as ``meshctl dashboard prometheus`` says: it finds every sidecar, answers
what every panel of the dashboards asks, and the page's numbers are the same whether control reads them from it or from itself."""

from __future__ import annotations

import asyncio
import http.client
import re
import socket
import ssl
import threading
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from control.tools.boards import ALL
from control.tools.boards.panels import Board
from tests.e2e.mesh_control_process import ControlProcess
from tests.e2e.test_walkthrough import Demo, demo, wait_until
from tests.tools.prometheus_process import PrometheusProcess, hurried, promtool

__all__ = ["demo"]  # the fixture

pytestmark = [pytest.mark.timeout(300), pytest.mark.system("prometheus", "promtool", "kubectl")]
LONG = 120.0
# Names that are Istio's and that promtool would have otherwise.
ISTIOS = re.compile(r"(istio_request_duration_milliseconds use base unit|citadel_server_\w+_count non-histogram)")
EVENTS = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: rating, namespace: default}
spec:
  host: rating
  trafficPolicy:
    connectionPool: {tcp: {maxConnections: 10}, http: {http1MaxPendingRequests: 10, maxRetries: 20}}
    outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 2s, maxEjectionPercent: 50}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: rating, namespace: default}
spec:
  hosts: [rating]
  http:
  - fault:
      abort: {httpStatus: 500, percentage: {value: 30}}
    retries: {attempts: 2, perTryTimeout: 5s, retryOn: 5xx}
    route:
    - destination: {host: rating}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: closed, namespace: default}
spec:
  action: DENY
  rules: [{to: [{operation: {paths: [/closed]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tried, namespace: default, annotations: {istio.io/dry-run: "true"}}
spec:
  action: DENY
  rules: [{to: [{operation: {paths: [/book/*]}}]}]
"""


def ask(address: str, path: str = "/book/1") -> int:
    host, _, port = address.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def send(address: str, port: int, data: bytes, wait: bool = True) -> None:
    """Bytes as they are; the connection is closed after an answer, or at once."""
    with suppress(OSError), socket.create_connection((address, port), timeout=10) as connection:
        connection.sendall(data)
        if wait:
            connection.recv(4096)


def handshake_without_certificate(address: str, port: int) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["istio-http/1.1", "istio"])
    with suppress(OSError), socket.create_connection((address, port), timeout=10) as raw, context.wrap_socket(raw) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        connection.recv(100)


@contextmanager
def traffic(demo: Demo) -> Iterator[None]:
    """Good, failing, denied, plaintext and broken requests, one round after the other, until the block ends."""
    over = threading.Event()
    user = f"127.0.0.1:{demo.port}"
    book = demo.pod(1)

    def rounds() -> None:
        while not over.is_set():
            with suppress(OSError, http.client.HTTPException):
                for _ in range(5):
                    ask(user)
                ask(user, "/closed")
                ask(f"{book}:8080")
            send(book, 8080, b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n")
            send(book, 8080, b"POST /book/1 HTTP/1.1\r\nhost: book-service\r\ncontent-length: 10\r\n\r\nabc", wait=False)
            handshake_without_certificate(book, 8080)

    thread = threading.Thread(target=rounds, name="traffic")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture
def prometheus(demo: Demo, tmp_path: Path) -> Iterator[PrometheusProcess]:
    """Configured by the command, but for the haste."""
    demo.demo("--detach")
    demo.meshctl("dashboard", "prometheus", "--export", str(tmp_path / "prometheus"))
    config = tmp_path / "prometheus" / "prometheus.yml"
    config.write_text(hurried(config.read_text()))
    process = PrometheusProcess(config)
    try:
        process.start()
        yield process
    finally:
        process.stop()


def found(prometheus: PrometheusProcess) -> set[tuple[str, str]]:
    """(job, pod) of what answers."""
    return {(labels["job"], labels.get("pod", "")) for labels, value in prometheus.values("up") if value == 1}


SIDECARS = {
    ("mesh-sidecars", name) for name in ("book-service", "rating-service-v1", "rating-service-v2", "istio-ingressgateway")
}
EVERYTHING = ".*"
CHOSEN = {
    "mesh": [{"namespace": EVERYTHING}],
    "service": [{"namespace": "default", "service": "rating", "reporter": "source"}],
    "workload": [{"namespace": "default", "workload": "book-service"}],
    "proxy": [{"namespace": EVERYTHING, "pod": EVERYTHING}, {"namespace": "default", "pod": "book-service"}],
    "control": [{}],
}


def filled(expr: str, chosen: dict[str, str]) -> str:
    """As Grafana fills the variables in."""
    for name, value in {"__rate_interval": "15s", "__range": "60s", **chosen}.items():
        expr = re.sub(rf"\$(?:{name}\b|\{{{name}\}})", lambda _, value=value: value, expr)
    return expr


def questions(board: Board, chosen: dict[str, str]) -> dict[str, str]:
    """What panels and variables ask, by what it is for."""
    asked = {
        f"{board.title}: {panel.title} [{number}]": filled(expr, chosen)
        for panel in board.panels()
        for number, expr in enumerate(panel.expressions())
    }
    for variable in board.variables:
        if variable.fixed:
            continue
        values = re.fullmatch(r"label_values\((.+), (\w+)\)", variable.query)
        result = re.fullmatch(r"query_result\((.+)\)", variable.query)
        expr = f"group by ({values[2]}) ({values[1]})" if values else result[1] if result else ""
        asked[f"{board.title}: ${variable.name}"] = filled(expr, chosen)
    assert all("$" not in expr for expr in asked.values()), asked
    return asked


def test_every_panel_of_every_dashboard_has_an_answer(demo: Demo, prometheus: PrometheusProcess) -> None:
    wait_until(
        lambda: found(prometheus) == {*SIDECARS, ("mesh-control", "")}, LONG, "Prometheus scrapes every sidecar and control"
    )
    (demo.root / "events.yml").write_text(EVENTS)
    demo.shell("meshctl", "apply", "-f", "events.yml")
    assert ask(f"{demo.pod(3)}:9080", "/rate/misbehave") == 200
    open_ = {
        f"{where} {chosen}": expr
        for name, board in ALL.items()
        for chosen in CHOSEN[name]
        for where, expr in questions(board, chosen).items()
    }
    number = 0

    def answered() -> bool:
        nonlocal number
        number += 1
        demo.shell("kubectl", "annotate", "--overwrite", "virtualservice", "rating", f"round={number}")
        for where in [where for where, expr in open_.items() if prometheus.values(expr)]:
            del open_[where]
        return not open_

    with traffic(demo):
        try:
            wait_until(answered, LONG, "an answer for every panel")
        except AssertionError:
            pytest.fail("no answer for\n" + "\n".join(f"{where}: {expr}" for where, expr in open_.items()))
        # A fault of each kind that the dashboards are for was really seen, not just a row of zeros.
        for seen in (
            'sum(istio_requests_total{reporter="source", response_flags=~".*FI.*"})',
            "sum(mesh_cluster_ejections_total)",
            "sum(mesh_cluster_retries_total)",
            "sum(mesh_plaintext_requests_total)",
            "sum(mesh_messages_refused_total)",
            "sum(mesh_tls_failures_total)",
            "sum(mesh_authz_dry_run_total)",
        ):
            wait_until(lambda seen=seen: any(value > 0 for _, value in prometheus.values(seen)), LONG, seen)
    assert prometheus.get("rules")["groups"] and not [
        rule for group in prometheus.get("rules")["groups"] for rule in group["rules"] if rule["health"] == "err"
    ]
    for address in (
        f"{demo.pod(1)}:15020/stats/prometheus",
        f"{demo.pod(10)}:15020/stats/prometheus",
        f"{demo.pod(20)}:15014/metrics",
    ):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{address}", timeout=30) as answer:
            _, said = promtool("check", "metrics", given=answer.read().decode())
        assert [line for line in said.splitlines() if not ISTIOS.search(line)] == []


@asynccontextmanager
async def page(code: dict[str, Any]) -> AsyncIterator[httpx.AsyncClient]:
    """A browser that has signed in with the code that control gave."""
    base = str(code["url"]).partition("/#")[0]
    async with httpx.AsyncClient(base_url=base, headers={"x-mesh-dashboard": "1"}, trust_env=False, timeout=30) as client:
        assert (await client.post("/api/session", json={"code": code["code"]})).status_code == 204
        yield client


async def told(client: httpx.AsyncClient, path: str) -> dict[str, Any]:
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def calls(graph: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(edge["from"], edge["to"]): edge for edge in graph["edges"]}


def test_the_page_shows_the_same_from_prometheus_as_from_controls_own_history(
    demo: Demo, prometheus: PrometheusProcess, tmp_path: Path
) -> None:
    """One control remembers by itself; another, which no sidecar talks to, reads from Prometheus."""
    user, failing, count = f"127.0.0.1:{demo.port}", f"{demo.pod(3)}:9080", 80
    for _ in range(2):  # a series that is new has no rate: Prometheus must have seen each of them once
        assert ask(user) == 200
    assert ask(failing, "/rate/misbehave") == 200
    for _ in range(2):
        ask(user)
    series = (
        'sum(istio_requests_total{reporter="destination", destination_workload="rating-service-v2", response_code=~"200|503"})'
    )
    wait_until(lambda: any(value >= 2 for _, value in prometheus.values(series)), LONG, "Prometheus has every series")
    wait_until(lambda: len(prometheus.values(f"{series[4:-1]} offset 2s")) == 2, LONG, "it has seen them twice")
    reading = ControlProcess(tmp_path / "reading", "127.0.0.1", "--prometheus", prometheus.url)
    reading.start()

    async def story() -> None:
        async with reading.client() as other:
            second = (await other.post("/mesh/v1/dashboard-code")).json()
        api = demo.api()
        first = api.request("POST", "/mesh/v1/dashboard-code")
        api.close()
        async with page(first) as own, page(second) as from_it:
            for done in range(1, count + 1):
                await asyncio.to_thread(ask, user)
                if done % 20 == 0:  # a counter that starts near 0 and leaps is told too low, lest it had begun below 0
                    arrived = (
                        f'sum(istio_requests_total{{reporter="destination", destination_workload="book-service"}}) >= {done}'
                    )
                    await asyncio.to_thread(wait_until, lambda query=arrived: prometheus.values(query), LONG, arrived)

            # What arrives late is waited for: sidecars report every 5 s.
            edge = ("workload/istio-system/istio-ingressgateway", "service/default/book-service")

            async def enough(client: httpx.AsyncClient, least: float) -> bool:
                seen = calls(await told(client, "/api/graph?window=300")).get(edge, {"requests": 0})
                return bool(seen["requests"] >= least)

            async with asyncio.timeout(LONG):
                while not (await enough(own, count + 4) and await enough(from_it, 0.9 * count)):
                    await asyncio.sleep(0.1)
            for path in ("/api/graph?window=300", "/api/graph?window=300&namespace=default"):
                mine, its = [calls(await told(one, path)) for one in (own, from_it)]
                assert mine.keys() == its.keys()
                for key, known in mine.items():
                    found = its[key]
                    near = pytest.approx(known["requests"], rel=0.1, abs=5)  # those before each series was first seen
                    assert found["requests"] == near, key
                    assert found["errors"] == pytest.approx(known["errors"], rel=0.1, abs=5), key
                    assert (found["mtls"], found["protocol"]) == (known["mtls"], known["protocol"]), key
                    assert found["bytesOut"] == pytest.approx(known["bytesOut"], rel=0.15, abs=2500), key
                    assert found["p50"] == pytest.approx(known["p50"], rel=0.5, abs=20), key  # the slowest were the first
            for node in (
                "node=service/default/book-service",
                f"edge={edge[0]}>{edge[1]}",
                "node=workload/default/book-service&direction=outbound",
            ):
                path = f"/api/series?{node}&window=300&step=5"
                mine, its = [await told(one, path) for one in (own, from_it)]
                assert len(mine["times"]) == len(its["times"]) == len(its["rps"]) == 60
                assert mine["codes"].keys() == its["codes"].keys()
                assert sum(its["rps"]) * 5 == pytest.approx(sum(mine["rps"]) * 5, rel=0.15, abs=5), node

    try:
        asyncio.run(story())
    finally:
        reading.stop()
