"""Retries, timeouts, mirrors and all that a DestinationRule says, black box through a sidecar (semantics A1, A2, B1-B4)."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.semantics_echo import APP_PORT
from tests.e2e.semantics_support import (
    Answer,
    Mesh,
    Obj,
    Proxy,
    destination_rule,
    new_key,
    resource,
    service,
    until,
    virtual_service,
)

pytestmark = [pytest.mark.system("kubectl"), pytest.mark.timeout(120)]

RESET = "upstream connect error or disconnect/reset before headers. "
OVERFLOW = RESET + "reset reason: overflow"

# name, retries, x-do, status, tries
RETRIES: list[tuple[str, str, str, int, int]] = [
    ("on-5xx", "{attempts: 2, retryOn: 5xx}", "fail=1:503", 200, 2),
    ("on-5xx-500", "{attempts: 2, retryOn: 5xx}", "fail=2:500", 200, 3),
    ("on-5xx-closed", "{attempts: 2, retryOn: 5xx}", "close=1", 200, 2),
    ("on-5xx-404", "{attempts: 2, retryOn: 5xx}", "fail=1:404", 404, 1),
    ("on-5xx-junk", "{attempts: 1, retryOn: 5xx}", "junk", 502, 2),
    ("on-gateway", "{attempts: 2, retryOn: gateway-error}", "fail=1:502", 200, 2),
    ("on-gateway-504", "{attempts: 2, retryOn: gateway-error}", "fail=1:504", 200, 2),
    ("on-gateway-500", "{attempts: 2, retryOn: gateway-error}", "fail=1:500", 500, 1),
    ("on-4xx", "{attempts: 2, retryOn: retriable-4xx}", "fail=1:409", 200, 2),
    ("on-4xx-404", "{attempts: 2, retryOn: retriable-4xx}", "fail=1:404", 404, 1),
    ("on-reset-closed", "{attempts: 2, retryOn: reset}", "close=1", 200, 2),
    ("on-reset-reset", "{attempts: 2, retryOn: reset}", "reset=1", 200, 2),
    ("on-reset-503", "{attempts: 2, retryOn: reset}", "fail=1:503", 503, 1),
    ("on-before-closed", "{attempts: 2, retryOn: reset-before-request}", "close=1", 503, 1),
    ("on-connect-closed", "{attempts: 2, retryOn: connect-failure}", "close=1", 503, 1),
    ("on-number", "{attempts: 2, retryOn: '503'}", "fail=1:503", 200, 2),
    ("on-numbers", "{attempts: 2, retryOn: 'connect-failure,418, 503'}", "fail=1:418", 200, 2),
    ("on-number-other", "{attempts: 2, retryOn: '503'}", "fail=1:502", 502, 1),
    ("on-codes-and-number", "{attempts: 2, retryOn: 'retriable-status-codes,404'}", "fail=1:404", 200, 2),
    ("on-two", "{attempts: 2, retryOn: 'gateway-error,retriable-4xx'}", "fail=1:409", 200, 2),
    ("on-unavailable", "{attempts: 2, retryOn: unavailable}", "first=grpc-status:14", 200, 2),
    ("on-cancelled", "{attempts: 2, retryOn: cancelled}", "first=grpc-status:1", 200, 2),
    ("on-deadline", "{attempts: 2, retryOn: deadline-exceeded}", "first=grpc-status:4", 200, 2),
    ("on-internal", "{attempts: 2, retryOn: internal}", "first=grpc-status:13", 200, 2),
    ("on-exhausted", "{attempts: 2, retryOn: resource-exhausted}", "first=grpc-status:8", 200, 2),
    ("on-limited-not", "{attempts: 2, retryOn: 5xx}", "fail=1:503 first=x-envoy-ratelimited:true", 503, 1),
    ("on-limited", "{attempts: 2, retryOn: 'envoy-ratelimited'}", "fail=1:503 first=x-envoy-ratelimited:true", 200, 2),
    ("on-unset", "{attempts: 2}", "fail=1:503", 503, 1),
    ("attempts-0", "{attempts: 0}", "fail=1:503", 503, 1),
    ("attempts-3", "{attempts: 3, retryOn: 5xx}", "status=503", 503, 4),
    ("same-hosts", "{attempts: 2, retryOn: 5xx, retryIgnorePreviousHosts: false}", "fail=1:503", 200, 2),
    ("backoff", "{attempts: 2, retryOn: 5xx, backoff: 10ms}", "fail=2:503", 200, 3),
    ("per-try", "{attempts: 1, retryOn: 5xx, perTryTimeout: 250ms}", "slow=1:2", 200, 2),
    ("per-try-reset", "{attempts: 1, retryOn: reset, perTryTimeout: 250ms}", "slow=1:2", 200, 2),
    ("per-try-gateway", "{attempts: 1, retryOn: gateway-error, perTryTimeout: 250ms}", "slow=1:2", 200, 2),
    ("per-try-connect", "{attempts: 1, retryOn: connect-failure, perTryTimeout: 250ms}", "slow=1:2", 504, 1),
    ("per-try-all", "{attempts: 1, retryOn: 5xx, perTryTimeout: 200ms}", "delay=2", 504, 2),
]
ON_ANY = {"maxEjectionPercent": 100, "interval": "100ms", "baseEjectionTime": "60s"}
OUTLIER: dict[str, Obj] = {
    "out-5xx": {**ON_ANY, "consecutive5xxErrors": 2},
    "out-defaults": {},
    "out-half": {**ON_ANY, "consecutive5xxErrors": 1, "maxEjectionPercent": 50},
    "out-gateway": {**ON_ANY, "consecutive5xxErrors": 0, "consecutiveGatewayErrors": 2},
    "out-gateway-reset": {**ON_ANY, "consecutive5xxErrors": 0, "consecutiveGatewayErrors": 2},
    "out-success-resets": {**ON_ANY, "consecutive5xxErrors": 2},
    "out-back": {**ON_ANY, "consecutive5xxErrors": 1, "baseEjectionTime": "400ms"},
    "out-all": {**ON_ANY, "consecutive5xxErrors": 1},
    "out-panic": {**ON_ANY, "consecutive5xxErrors": 1, "minHealthPercent": 60},
    "out-codes": {**ON_ANY, "consecutive5xxErrors": 1, "outlierDetectionHttpErrorCodes": [404]},
    "out-closed": {**ON_ANY, "consecutive5xxErrors": 2},
    "out-timeout": {**ON_ANY, "consecutiveGatewayErrors": 1, "consecutive5xxErrors": 0},
}
POOLS: dict[str, Obj] = {
    "pool-queue": {"tcp": {"maxConnections": 1}, "http": {"http1MaxPendingRequests": 1}},
    "pool-requests": {"http": {"http2MaxRequests": 1}},
    "pool-one-each": {"http": {"maxRequestsPerConnection": 1}},
    "pool-two-each": {"http": {"maxRequestsPerConnection": 2}},
    "pool-free": {"tcp": {"maxConnections": 0}, "http": {"http1MaxPendingRequests": 0, "http2MaxRequests": 0}},
    "pool-retries": {"http": {"maxRetries": 1}},
    "pool-idle": {"http": {"idleTimeout": "300ms"}},
    "pool-old": {"tcp": {"maxConnectionDuration": "300ms"}},
}
BALANCERS: dict[str, Obj] = {
    "lb-round": {"simple": "ROUND_ROBIN"},
    "lb-random": {"simple": "RANDOM"},
    "lb-least": {"simple": "LEAST_REQUEST"},
    "lb-least-old": {"simple": "LEAST_CONN"},
    "lb-pass": {"simple": "PASSTHROUGH"},
    "lb-header": {"consistentHash": {"httpHeaderName": "X-User"}},
    "lb-query": {"consistentHash": {"httpQueryParameterName": "user", "ringHash": {"minimumRingSize": 64}}},
    "lb-source": {"consistentHash": {"useSourceIp": True, "minimumRingSize": 256}},
    "lb-cookie": {"consistentHash": {"httpCookie": {"name": "who", "path": "/x", "ttl": "60s"}}},
    "lb-session": {"consistentHash": {"httpCookie": {"name": "who", "ttl": "0s"}}},
    "lb-cookie-given": {"consistentHash": {"httpCookie": {"name": "who"}}},
}
EXACT = [{"destination": {"host": "echo", "subset": "v1"}}]


def objects() -> Iterator[Obj]:
    subsets = [{"name": name, "labels": {"version": name}} for name in ("v1", "v2", "v3")]
    yield service("echo", app="echo")
    yield destination_rule("echo", {"subsets": subsets})
    for name, retries, _, _, _ in RETRIES:
        yield service(name, app="echo")
        yield virtual_service(name, f"[{{retries: {retries}, route: [{{destination: {{host: {name}}}}}]}}]")
    for name, outlier in OUTLIER.items():
        yield service(name, pair="yes")
        yield destination_rule(name, {"trafficPolicy": {"outlierDetection": outlier}})
    yield virtual_service("out-timeout", "[{timeout: 200ms, route: [{destination: {host: out-timeout}}]}]")
    for name, pool in POOLS.items():
        yield service(name, version="v1")
        yield destination_rule(name, {"trafficPolicy": {"connectionPool": pool}})
    yield virtual_service(
        "pool-retries", "[{retries: {attempts: 1, retryOn: 5xx}, route: [{destination: {host: pool-retries}}]}]"
    )
    yield service("budget", version="v1")
    yield destination_rule("budget", {"trafficPolicy": {"retryBudget": {"percent": 20, "minRetryConcurrency": 1}}})
    yield virtual_service("budget", "[{retries: {attempts: 1, retryOn: 5xx}, route: [{destination: {host: budget}}]}]")
    for name, balancer in BALANCERS.items():
        yield service(name, app="echo")
        yield destination_rule(name, {"trafficPolicy": {"loadBalancer": balancer}})
    yield service("plain", app="echo")
    yield service("half-dead", half="yes")
    yield service("dead", app="dead")
    yield service("no-tries", app="dead")
    yield virtual_service("no-tries", "[{retries: {attempts: 0}, route: [{destination: {host: no-tries}}]}]")
    yield service("local-split", half="yes")
    split = {**ON_ANY, "splitExternalLocalOriginErrors": True, "consecutiveLocalOriginFailures": 1, "consecutive5xxErrors": 50}
    yield destination_rule("local-split", {"trafficPolicy": {"outlierDetection": split}})
    yield service("local-mapped", half="yes")
    mapped = {**ON_ANY, "consecutiveGatewayErrors": 1, "consecutive5xxErrors": 0}
    yield destination_rule("local-mapped", {"trafficPolicy": {"outlierDetection": mapped}})
    yield service("hole", app="hole")
    yield destination_rule("hole", {"trafficPolicy": {"connectionPool": {"tcp": {"connectTimeout": "200ms"}}}})
    yield virtual_service("hole", "[{retries: {attempts: 0}, route: [{destination: {host: hole}}]}]")
    for name, spec in {
        "mirrored": "mirror: {host: echo, subset: v2}",
        "mirrored-never": "mirror: {host: echo, subset: v2}, mirrorPercentage: {value: 0}",
        "mirrored-old": "mirror: {host: echo, subset: v2}, mirrorPercent: 100",
        "mirrored-twice": "mirrors: [{destination: {host: echo, subset: v2}}, {destination: {host: echo, subset: v3}}]",
        "mirrored-rewritten": "rewrite: {uri: /in/}, headers: {request: {add: {x-more: m}}}, mirror: {host: echo, subset: v2}",
        "mirrored-dead": "mirror: {host: dead}",
        "mirrored-lost": "mirror: {host: nowhere}",
    }.items():
        yield service(name, app="echo")
        yield virtual_service(name, f"[{{{spec}, route: [{{destination: {{host: echo, subset: v1}}}}]}}]")
    yield service("stays", app="echo")
    yield virtual_service("stays", "[{retries: {attempts: 2, retryOn: 5xx}, route: [{destination: {host: echo, subset: v2}}]}]")
    yield service("overall", app="echo")
    tries = "{attempts: 9, retryOn: 5xx, perTryTimeout: 200ms}"
    yield virtual_service("overall", f"[{{timeout: 500ms, retries: {tries}, route: [{{destination: {{host: overall}}}}]}}]")
    yield service("split", app="echo")
    shares = "{destination: {host: echo, subset: v1}, weight: 75}, {destination: {host: echo, subset: v2}, weight: 25}"
    yield virtual_service("split", f"[{{route: [{shares}]}}]")
    yield service("ported", ports={80: APP_PORT, 81: APP_PORT}, version="v1")
    yield destination_rule(
        "ported",
        {
            "trafficPolicy": {
                "connectionPool": {"http": {"maxRequestsPerConnection": 1}},
                "outlierDetection": {"consecutive5xxErrors": 7},
                "portLevelSettings": [{"port": {"number": 81}, "loadBalancer": {"simple": "RANDOM"}}],
            }
        },
    )
    yield service("layered", app="echo")
    yield destination_rule(
        "layered",
        {
            "trafficPolicy": {"loadBalancer": {"simple": "RANDOM"}, "connectionPool": {"http": {"maxRequestsPerConnection": 1}}},
            "subsets": [
                {"name": "own", "labels": {"version": "v1"}, "trafficPolicy": {"loadBalancer": {"simple": "LEAST_REQUEST"}}},
                {"name": "none", "labels": {"version": "v1"}},
            ],
        },
    )
    yield service("layered-own", app="echo")
    yield virtual_service("layered-own", "[{route: [{destination: {host: layered, subset: own}}]}]")
    yield from (service(name, app="placed") for name in ("placed", "placed-off", "placed-plain", "placed-named", "placed-labels"))
    one = {**ON_ANY, "consecutive5xxErrors": 1}
    yield destination_rule("placed", {"trafficPolicy": {"outlierDetection": one}})
    off = {"localityLbSetting": {"enabled": False}}
    yield destination_rule("placed-off", {"trafficPolicy": {"outlierDetection": one, "loadBalancer": off}})
    named = {"localityLbSetting": {"failover": [{"from": "r1", "to": "r3"}]}}
    yield destination_rule("placed-named", {"trafficPolicy": {"outlierDetection": one, "loadBalancer": named}})
    labels = {"localityLbSetting": {"failoverPriority": ["tier"]}}
    yield destination_rule("placed-labels", {"trafficPolicy": {"outlierDetection": one, "loadBalancer": labels}})
    yield from _rules()


def _rules() -> Iterator[Obj]:
    """Who speaks for a service: one subset ``s`` in several rules, and where it leads tells which rule won."""

    def rule(name: str, host: str, version: str, namespace: str = "default", subset: str = "s", **more: Any) -> Obj:
        subsets = [{"name": subset, "labels": {"version": version}}]
        return resource("DestinationRule", name, {"host": host, "subsets": subsets, **more}, namespace)

    for name in ("dr-client", "dr-root", "dr-private", "dr-wild", "dr-merged", "dr-selected"):
        yield service(name, app="echo")
        yield virtual_service(name, f"[{{route: [{{destination: {{host: {name}, subset: s}}}}]}}]")
    yield rule("client-own", "dr-client", "v1")
    yield rule("client-theirs", "dr-client.default.svc.cluster.local", "v2", "other")
    yield rule("client-root", "dr-client.default.svc.cluster.local", "v3", "istio-system")
    yield rule("root-only", "dr-root.default.svc.cluster.local", "v3", "istio-system")
    yield rule("private-own", "dr-private", "v1", exportTo=["."])
    yield rule("wild", "*.default.svc.cluster.local", "v3", "third")
    yield rule("wild-exact", "dr-wild.default.svc.cluster.local", "v2", "third")
    yield rule("merged-a", "dr-merged", "v1", trafficPolicy={"loadBalancer": {"simple": "RANDOM"}})
    yield rule("merged-b", "dr-merged", "v2", trafficPolicy={"loadBalancer": {"simple": "LEAST_REQUEST"}})
    yield rule("merged-c", "dr-merged", "v3", subset="t")
    yield service("dr-merged-t", app="echo")
    yield virtual_service("dr-merged-t", "[{route: [{destination: {host: dr-merged, subset: t}}]}]")
    yield rule("selected-all", "dr-selected", "v1")
    yield rule("selected-one", "dr-selected", "v2", workloadSelector={"matchLabels": {"app": "client"}})


class Hole:
    """An address that takes no connection and refuses none: its queue is full."""

    def __init__(self, ip: str) -> None:
        self._listening = socket.socket()
        self._listening.bind((ip, APP_PORT))
        self._listening.listen(0)
        self._waiting = []
        for _ in range(4):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex((ip, APP_PORT))
            self._waiting.append(sock)

    def close(self) -> None:
        for sock in (*self._waiting, self._listening):
            sock.close()


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    made = Mesh(tmp_path_factory.mktemp("resilience"))
    hole = None
    try:
        for name in ("other", "third", "istio-system"):
            made.namespace(name)
        made.proxy("client", app="client", tier="gold", **{"istio-locality": "r1.z1.s1"})
        made.proxy("stranger", "other", app="stranger")
        made.proxy("thirdly", "third", app="third")
        made.pod("v1", app="echo", version="v1", pair="yes", half="yes")
        made.pod("v2", app="echo", version="v2", pair="yes")
        made.pod("v3", app="echo", version="v3")
        made.pod("dead", serve=False, app="dead", half="yes")
        hole = Hole(made.pod("hole", serve=False, app="hole"))
        made.pod("near", app="placed", **{"istio-locality": "r1.z1.s1"})
        made.pod("same-region", app="placed", **{"istio-locality": "r1.z2.s1"})
        made.pod("region-2", app="placed", tier="gold", **{"istio-locality": "r2.z1.s1"})
        made.pod("region-3", app="placed", **{"istio-locality": "r3.z1.s1"})
        made.apply(*objects())
        made.endpoints("echo", 3)
        made.endpoints("placed-labels", 4)
        made.ready()
        yield made
    finally:
        print(made.logs())
        made.close()
        if hole is not None:
            hole.close()


@pytest.fixture
def client(mesh: Mesh) -> Proxy:
    return mesh.proxies["client"]


def fqdn(name: str, port: int = 80, subset: str = "") -> str:
    return f"outbound|{port}|{subset}|{name}.default.svc.cluster.local"


def flags(client: Proxy, name: str, code: int) -> set[str]:
    """Response flags counted for a service and code."""
    found = {"-", "UO", "UF", "UC", "UT", "UH", "URX", "UPE", "NR", "NC", "DI", "FI"}
    found |= {f"{flag},URX" for flag in ("UF", "UC", "UT", "UPE")}
    return {
        flag
        for flag in found
        if client.requests(
            destination_service=f"{name}.default.svc.cluster.local",
            response_code=str(code),
            response_flags=flag,
            reporter="source",
        )
    }


# -- retries


@pytest.mark.parametrize(("name", "retries", "do", "status", "tries"), RETRIES, ids=[row[0] for row in RETRIES])
def test_retry(mesh: Mesh, client: Proxy, name: str, retries: str, do: str, status: int, tries: int) -> None:
    key = new_key()
    answer = client.ask(f"http://{name}/", do=do, key=key)
    seen = mesh.echo.seen[key]
    assert (answer.status, len(seen)) == (status, tries), answer
    counts = [dict(one.headers).get("x-envoy-attempt-count") for one in seen]
    assert counts == [str(number + 1) for number in range(tries)]
    assert len({dict(one.headers)["x-request-id"] for one in seen}) == 1
    if 1 < tries < 4:
        assert len({one.pod for one in seen}) == tries  # never twice on the same host while there is another


def test_what_exhausted_retries_leave(client: Proxy) -> None:
    assert client.ask("http://attempts-3/", do="status=503").status == 503
    assert flags(client, "attempts-3", 503) == {"URX"}
    answer = client.ask("http://on-reset-closed/", do="close")
    assert answer.status == 503
    assert answer.text == RESET + "retried and the latest reset reason: connection termination"
    assert flags(client, "on-reset-closed", 503) == {"UC,URX"}
    answer = client.ask("http://per-try-all/", do="delay=2")
    assert (answer.status, answer.text) == (504, "upstream request timeout")


def test_a_body_goes_with_every_try(mesh: Mesh, client: Proxy) -> None:
    key = new_key()
    answer = client.ask("http://on-5xx-500/p", method="POST", body=b"hello" * 1000, do="fail=2:500", key=key)
    assert answer.json["body"] == "hello" * 1000
    assert [one.body for one in mesh.echo.seen[key]] == [b"hello" * 1000] * 3


def test_the_default_retries_connecting_but_no_503(mesh: Mesh, client: Proxy) -> None:
    key = new_key()
    assert client.ask("http://plain/", do="fail=1:503", key=key).status == 503
    assert len(mesh.echo.seen[key]) == 1
    assert client.pods("http://half-dead/", 6) == ["v1"] * 6


def test_nobody_to_connect_to(client: Proxy) -> None:
    answer = client.ask("http://dead/")
    refused = "remote connection failure, transport failure reason: delayed connect error: Connection refused"
    assert (answer.status, answer.text) == (503, f"{RESET}retried and the latest reset reason: {refused}")
    assert flags(client, "dead", 503) == {"UF,URX"}
    answer = client.ask("http://no-tries/")
    assert (answer.status, answer.text) == (503, f"{RESET}reset reason: {refused}")
    assert flags(client, "no-tries", 503) == {"UF"}
    assert answer.get("content-type") == "text/plain" and answer.get("server") == "meshproxy"
    assert (answer.get("date") or "").endswith(" GMT")


def test_a_black_hole_is_given_up(client: Proxy) -> None:
    answer = client.ask("http://hole/")
    assert (answer.status, answer.text) == (503, f"{RESET}reset reason: connection timeout")
    assert 0.2 <= answer.took < 2
    assert flags(client, "hole", 503) == {"UF"}


def test_retries_stay_in_their_subset(mesh: Mesh, client: Proxy) -> None:
    key = new_key()
    assert client.ask("http://stays/", do="on=v2:503", key=key).status == 503
    assert [one.pod for one in mesh.echo.seen[key]] == ["v2"] * 3


def test_the_timeout_covers_all_tries(mesh: Mesh, client: Proxy) -> None:
    key = new_key()
    answer = client.ask("http://overall/", do="delay=2", key=key)
    assert (answer.status, answer.text) == (504, "upstream request timeout")
    assert 0.5 <= answer.took < 1.5
    assert 2 <= len(mesh.echo.seen[key]) <= 3
    assert flags(client, "overall", 504) == {"UT"}


def test_closed_without_an_answer(client: Proxy) -> None:
    answer = client.ask("http://plain/", do="close")
    assert (answer.status, answer.text) == (503, f"{RESET}reset reason: connection termination")
    assert "UC" in flags(client, "plain", 503)
    answer = client.ask("http://plain/", do="junk")
    assert (answer.status, answer.text) == (502, f"{RESET}reset reason: protocol error")
    assert flags(client, "plain", 502) == {"UPE"}


def test_an_app_may_steer_a_request(mesh: Mesh, client: Proxy) -> None:
    answer = client.ask("http://plain/", headers={"x-envoy-upstream-rq-timeout-ms": "250"}, do="delay=2")
    assert (answer.status, answer.text) == (504, "upstream request timeout")
    key = new_key()
    asked = {"x-envoy-retry-on": "5xx", "x-envoy-max-retries": "3"}
    answer = client.ask("http://plain/", headers=asked, do="fail=3:503", key=key)
    assert (answer.status, len(mesh.echo.seen[key])) == (200, 4)
    assert not [name for name, _ in mesh.echo.seen[key][0].headers if name in asked]


# -- mirrors, weights


def test_mirrors(mesh: Mesh, client: Proxy) -> None:
    for name, pods in (("mirrored", ["v2"]), ("mirrored-old", ["v2"]), ("mirrored-twice", ["v2", "v3"]), ("mirrored-never", [])):
        key = new_key()
        answer = client.ask(f"http://{name}:80/p?q", method="POST", body=b"data", key=key)
        assert (answer.status, answer.pod) == (200, "v1")
        until(lambda key=key, pods=pods: len(mesh.echo.seen[key]) == 1 + len(pods), name, 5)  # type: ignore[misc]
        copies = [one for one in mesh.echo.seen[key] if one.pod != "v1"]
        assert sorted(one.pod for one in copies) == pods
        for one in copies:
            assert (one.method, one.path, one.host, one.body) == ("POST", "/p?q", f"{name}-shadow:80", b"data")


def test_a_mirror_gets_what_the_route_made_of_the_request(mesh: Mesh, client: Proxy) -> None:
    key = new_key()
    client.ask("http://mirrored-rewritten/p", key=key)
    until(lambda: len(mesh.echo.seen[key]) == 2, "the copy", 5)
    copy = next(one for one in mesh.echo.seen[key] if one.pod == "v2")
    assert (copy.path, copy.host, dict(copy.headers)["x-more"]) == ("/in/p", "mirrored-rewritten-shadow", "m")


@pytest.mark.parametrize("name", ["mirrored-dead", "mirrored-lost"])
def test_a_mirror_that_fails_is_not_noticed(client: Proxy, name: str) -> None:
    assert client.pods(f"http://{name}/", 3) == ["v1"] * 3


def test_weights(client: Proxy) -> None:
    drawn = Counter(client.pods("http://split/", 200))
    assert set(drawn) == {"v1", "v2"} and 120 <= drawn["v1"] <= 180  # 150 +- 5 standard deviations


# -- load balancers


def test_round_robin_is_strict(client: Proxy) -> None:
    assert client.pods("http://lb-round/", 7) == ["v1", "v2", "v3", "v1", "v2", "v3", "v1"]


def test_passthrough_balances_what_is_asked_for_by_name(client: Proxy) -> None:
    assert set(client.pods("http://lb-pass/", 6)) == {"v1", "v2", "v3"}


@pytest.mark.parametrize("name", ["lb-random", "lb-least", "lb-least-old"])
def test_everybody_gets_some(client: Proxy, name: str) -> None:
    drawn = Counter(client.pods(f"http://{name}/", 60))
    assert set(drawn) == {"v1", "v2", "v3"} and min(drawn.values()) >= 2


def test_least_request_spares_the_busy(mesh: Mesh, client: Proxy) -> None:
    """With one request under way on every host but one, that one is preferred."""
    key = new_key()
    with ThreadPoolExecutor(6) as pool:
        busy = [pool.submit(client.ask, "http://lb-least/", do="on=x:1 delay=1.5", key=key) for _ in range(6)]
        until(lambda: len(mesh.echo.seen[key]) == 6, "six are under way", 5)
        loads = Counter(one.pod for one in mesh.echo.seen[key])
        assert max(loads.values()) <= 3
        for one in busy:
            assert one.result().status == 200


def sticky(client: Proxy, url: Any, headers: Any) -> set[str]:
    """Each of 24 keys stays with one pod; the pods there were."""
    found = set()
    for number in range(24):
        pods = {client.ask(url(number), headers=headers(number)).pod for _ in range(3)}
        assert len(pods) == 1
        found |= pods
    return found


def test_hash_by_header(client: Proxy) -> None:
    assert len(sticky(client, lambda n: "http://lb-header/", lambda n: {"x-user": f"user-{n}"})) >= 2
    assert len(set(client.pods("http://lb-header/", 40))) == 3  # no key: anybody


def test_hash_by_query(client: Proxy) -> None:
    assert len(sticky(client, lambda n: f"http://lb-query/?a=b&user=u{n}", lambda n: {})) >= 2


def test_hash_by_source(client: Proxy) -> None:
    assert len(set(client.pods("http://lb-source/", 12))) == 1


def test_hash_by_cookie(client: Proxy) -> None:
    assert len(sticky(client, lambda n: "http://lb-cookie-given/", lambda n: {"cookie": f"a=b; who=u{n}"})) >= 2
    assert client.ask("http://lb-cookie-given/").get("set-cookie") is None
    pods = set()
    for _ in range(12):
        first = client.ask("http://lb-cookie/")
        given = first.get("set-cookie")
        assert given is not None
        value, *attributes = given.split("; ")
        assert attributes == ["Max-Age=60", "Path=/x", "HttpOnly"] and value.startswith('who="')
        again = [client.ask("http://lb-cookie/", headers={"cookie": value}) for _ in range(3)]
        assert [(one.pod, one.get("set-cookie")) for one in again] == [(first.pod, None)] * 3
        pods.add(first.pod)
    assert len(pods) > 1
    session = client.ask("http://lb-session/").get("set-cookie")
    assert session is not None and "Max-Age" not in session


# -- connection pools


def test_a_full_queue_overflows(mesh: Mesh, client: Proxy) -> None:
    assert client.ask("http://pool-queue/").status == 200  # the one connection is there
    key = new_key()
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(client.ask, "http://pool-queue/", do="slow=1:1", key=key)]
        until(lambda: mesh.echo.seen[key], "the first is under way")
        running.append(pool.submit(client.ask, "http://pool-queue/", key=key))
        until(lambda: client.cluster(fqdn("pool-queue"))["active"]["pending"] == 1, "the second waits")
        answers = [client.ask("http://pool-queue/") for _ in range(2)]
        for answer in answers:
            assert (answer.status, answer.text, answer.get("x-envoy-overloaded")) == (503, OVERFLOW, "true")
        assert [one.result().status for one in running] == [200, 200]
    assert flags(client, "pool-queue", 503) == {"UO"}


def test_too_many_requests_overflow(mesh: Mesh, client: Proxy) -> None:
    key = new_key()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.ask, "http://pool-requests/", do="delay=0.5", key=key)
        until(lambda: mesh.echo.seen[key], "the first is under way")
        answer = client.ask("http://pool-requests/")
        assert (answer.status, answer.text) == (503, OVERFLOW)
        assert running.result().status == 200
    assert client.ask("http://pool-requests/").status == 200


def test_requests_per_connection(client: Proxy) -> None:
    def connections(name: str) -> list[int]:
        return [client.ask(f"http://{name}/").json["connection"] for _ in range(4)]

    assert len(set(connections("pool-one-each"))) == 4
    assert client.ask("http://pool-one-each/").asked("connection") == ["close"]
    found = connections("pool-two-each")
    assert len(set(found)) == 2 and found[0] == found[1]
    assert len(set(connections("pool-free"))) == 1  # 0 is no limit


@pytest.mark.parametrize("name", ["pool-idle", "pool-old"])
def test_connections_end_by_time(client: Proxy, name: str) -> None:
    first = client.ask(f"http://{name}/").json["connection"]
    assert client.ask(f"http://{name}/").json["connection"] == first
    until(lambda: client.cluster(fqdn(name))["active"]["connections"] == 0, "it is closed", 10)
    assert client.ask(f"http://{name}/").json["connection"] != first


def test_a_budget_limits_retries(mesh: Mesh, client: Proxy) -> None:
    """At most one retry at a time: a fifth of one or two requests is less than that."""
    key, other = new_key(), new_key()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.ask, "http://budget/", do="fail=1:503 delay=0.5", key=key)
        until(lambda: len(mesh.echo.seen[key]) == 2, "the retry is under way")
        assert client.ask("http://budget/", do="fail=1:503", key=other).status == 503
        assert running.result().status == 200
    assert len(mesh.echo.seen[other]) == 1


def test_zero_limits_are_none(client: Proxy) -> None:
    assert [answer.status for answer in client.together(8, "http://pool-free/", do="delay=0.2")] == [200] * 8


def test_retries_have_a_limit(mesh: Mesh, client: Proxy) -> None:
    key, other = new_key(), new_key()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.ask, "http://pool-retries/", do="fail=1:503 delay=0.5", key=key)
        until(lambda: len(mesh.echo.seen[key]) == 2, "the retry is under way")
        assert client.ask("http://pool-retries/", do="fail=1:503", key=other).status == 503
        assert running.result().status == 200
    assert len(mesh.echo.seen[other]) == 1
    assert client.cluster(fqdn("pool-retries"))["overflow"]["retries"] == 1


def test_port_level_settings_replace_wholesale(client: Proxy) -> None:
    assert client.ask("http://ported/").asked("connection") == ["close"]
    assert client.ask("http://ported:81/").asked("connection") == []
    assert client.cluster(fqdn("ported", 80))["policy"] == "ROUND_ROBIN"
    assert client.cluster(fqdn("ported", 81))["policy"] == "RANDOM"
    assert client.cluster(fqdn("ported", 80))["outlier"] and not client.cluster(fqdn("ported", 81))["outlier"]


def test_a_subset_overrides_block_by_block(client: Proxy) -> None:
    assert client.ask("http://layered-own/").asked("connection") == ["close"]
    assert client.cluster(fqdn("layered", subset="own"))["policy"] == "LEAST_REQUEST"
    assert client.cluster(fqdn("layered", subset="none"))["policy"] == "RANDOM"


# -- outlier detection


def spread(mesh: Mesh, client: Proxy, name: str, count: int, do: str) -> tuple[Counter[str], list[Answer]]:
    """How often each pod was asked, and the answers."""
    key = new_key()
    answers = [client.ask(f"http://{name}/", do=do, key=key) for _ in range(count)]
    return Counter(one.pod for one in mesh.echo.seen[key]), answers


def test_consecutive_errors_eject(mesh: Mesh, client: Proxy) -> None:
    drawn, answers = spread(mesh, client, "out-5xx", 12, "on=v1:500")
    assert drawn == {"v1": 2, "v2": 10}
    assert [answer.status for answer in answers].count(500) == 2
    assert flags(client, "out-5xx", 500) == {"-"}


def test_the_defaults_never_eject_one_of_two(mesh: Mesh, client: Proxy) -> None:
    drawn, _ = spread(mesh, client, "out-defaults", 24, "on=v1:500")
    assert drawn == {"v1": 12, "v2": 12}
    assert client.cluster(fqdn("out-defaults"))["outlier"]["ejections_overflow"] > 0


def test_no_more_than_the_percentage_is_ejected(mesh: Mesh, client: Proxy) -> None:
    drawn, answers = spread(mesh, client, "out-half", 10, "status=500")
    assert [answer.status for answer in answers] == [500] * 10  # never UH
    assert sorted(drawn.values()) == [1, 9]


def test_gateway_errors(mesh: Mesh, client: Proxy) -> None:
    drawn, _ = spread(mesh, client, "out-gateway", 8, "on=v1:500")
    assert drawn == {"v1": 4, "v2": 4}  # 500 is none
    drawn, _ = spread(mesh, client, "out-gateway", 12, "on=v1:503")
    assert drawn["v1"] == 2


def test_another_error_resets_gateway_errors(mesh: Mesh, client: Proxy) -> None:
    for do in ("on=v1:503", "on=v1:500") * 3:
        drawn, _ = spread(mesh, client, "out-gateway-reset", 2, do)
        assert drawn == {"v1": 1, "v2": 1}


def test_success_resets(mesh: Mesh, client: Proxy) -> None:
    for do in ("on=v1:500", "") * 3:
        drawn, _ = spread(mesh, client, "out-success-resets", 2, do)
        assert drawn == {"v1": 1, "v2": 1}


def test_an_ejected_host_comes_back(mesh: Mesh, client: Proxy) -> None:
    drawn, _ = spread(mesh, client, "out-back", 6, "on=v1:500")
    assert drawn["v1"] == 1
    began = time.monotonic()
    until(lambda: "v1" in client.pods("http://out-back/", 2), "v1 is back", 5)
    assert time.monotonic() - began < 3


def test_all_ejected(mesh: Mesh, client: Proxy) -> None:
    spread(mesh, client, "out-all", 2, "status=500")
    answer = client.ask("http://out-all/")
    assert (answer.status, answer.text) == (503, "no healthy upstream")
    assert flags(client, "out-all", 503) == {"UH"}


def test_panic_ignores_ejection(mesh: Mesh, client: Proxy) -> None:
    drawn, _ = spread(mesh, client, "out-panic", 10, "on=v1:500")
    assert drawn == {"v1": 5, "v2": 5}
    assert client.cluster(fqdn("out-panic"))["outlier"]["ejected"] == 1


def test_error_codes_of_ones_own(mesh: Mesh, client: Proxy) -> None:
    drawn, _ = spread(mesh, client, "out-codes", 6, "on=v1:500")
    assert drawn == {"v1": 3, "v2": 3}
    drawn, _ = spread(mesh, client, "out-codes", 6, "on=v1:404")
    assert drawn["v1"] == 1


def test_closing_counts_as_503(mesh: Mesh, client: Proxy) -> None:
    answers = [client.ask("http://out-closed/", do="close") for _ in range(4)]
    assert [answer.status for answer in answers] == [503] * 4
    assert client.ask("http://out-closed/").text == "no healthy upstream"


def test_a_timeout_counts_as_504(client: Proxy) -> None:
    assert client.ask("http://out-timeout/", do="delay=1").status == 504
    assert client.cluster(fqdn("out-timeout"))["outlier"]["ejected"] == 1


@pytest.mark.parametrize("name", ["local-split", "local-mapped"])
def test_failing_to_connect_ejects(client: Proxy, name: str) -> None:
    assert client.pods(f"http://{name}/", 4) == ["v1"] * 4
    found = client.cluster(fqdn(name))
    health = {one["pod"]: one["health"] for one in found["endpoints"]}
    assert health == {"dead": "failed_outlier_check", "v1": "healthy"}
    assert next(one for one in found["endpoints"] if one["pod"] == "dead")["cx_connect_fail"] == 1


# -- locality


def test_locality_failover(mesh: Mesh, client: Proxy) -> None:
    assert set(client.pods("http://placed/", 6)) == {"near"}
    client.ask("http://placed/", do="on=near:500")
    assert set(client.pods("http://placed/", 6)) == {"same-region"}
    client.ask("http://placed/", do="on=same-region:500")
    assert set(client.pods("http://placed/", 6)) == {"region-2", "region-3"}
    client.ask("http://placed-named/", do="on=near:500")
    client.ask("http://placed-named/", do="on=same-region:500")
    assert set(client.pods("http://placed-named/", 6)) == {"region-3"}


def test_locality_does_not_matter_without_outlier_detection(client: Proxy) -> None:
    everybody = {"near", "same-region", "region-2", "region-3"}
    assert set(client.pods("http://placed-plain/", 4)) == everybody
    assert set(client.pods("http://placed-off/", 4)) == everybody


def test_failover_by_labels(client: Proxy) -> None:
    assert set(client.pods("http://placed-labels/", 4)) == {"region-2"}
    client.ask("http://placed-labels/", do="on=region-2:500")
    assert set(client.pods("http://placed-labels/", 6)) == {"near", "same-region", "region-3"}


# -- which rule


def test_which_destination_rule_speaks(mesh: Mesh, client: Proxy) -> None:
    stranger, third = mesh.proxies["stranger"], mesh.proxies["thirdly"]
    url = "http://{}.default.svc.cluster.local/".format
    assert client.ask(url("dr-client")).pod == "v1"  # the service's namespace before the root's
    assert stranger.ask(url("dr-client")).pod == "v2"  # the client's before all
    assert client.ask(url("dr-root")).pod == stranger.ask(url("dr-root")).pod == "v3"
    assert client.ask(url("dr-private")).pod == "v1"
    assert stranger.ask(url("dr-private")).status == 503  # exportTo "."
    assert third.ask(url("dr-wild")).pod == "v2"  # the exact host before the wildcard
    assert third.ask(url("dr-root")).pod == "v3"  # a wildcard in the client's namespace before the root's exact one
    assert client.ask(url("dr-merged")).pod == "v1"
    assert client.ask(url("dr-merged-t")).pod == "v3"  # distinct subsets are collected
    assert client.cluster(fqdn("dr-merged"))["policy"] == "RANDOM"  # the oldest policy, the first by name here
    assert client.ask(url("dr-selected")).pod == "v2"
    assert stranger.ask(url("dr-selected")).pod == "v1"
