"""``meshctl why`` and ``meshctl top`` on a running mesh: what is broken is found, and told with its cause."""

from __future__ import annotations

import json
import os
import pty
import select
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.demo_mesh import BIN, Demo, wait_until
from tests.e2e.test_walkthrough import demo

__all__ = ["demo"]  # a fixture

pytestmark = [pytest.mark.timeout(240), pytest.mark.system("curl")]

RULES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: rating, namespace: default}
spec:
  hosts: [rating]
  http:
  - match: [{uri: {exact: /rate/7}}]
    name: broken
    fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: rating}}]
  - match: [{uri: {exact: /rate/8}}]
    route: [{destination: {host: rating, subset: gone}}]
  - match: [{uri: {exact: /rate/9}}]
    timeout: 200ms
    route: [{destination: {host: hole.example, port: {number: 8080}}}]
  - match: [{uri: {exact: /rate/10}}]
    route: [{destination: {host: shut.example, port: {number: 8080}}}]
  - match: [{uri: {prefix: /rate/1}}]
    route: [{destination: {host: rating}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: hole, namespace: default}
spec:
  hosts: [hole.example]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 8080, name: http, protocol: HTTP}]
  endpoints: [{address: 127.0.0.1, ports: {http: HOLE}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: shut, namespace: default}
spec:
  hosts: [shut.example]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 8080, name: http, protocol: HTTP}]
  endpoints: [{address: 127.0.0.1, ports: {http: SHUT}}]
"""
BREAKER = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: rating, namespace: default}
spec:
  host: rating
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 3m, maxEjectionPercent: 100}
"""
WRONG_PEER = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: rating, namespace: default}
spec:
  host: rating
  trafficPolicy:
    tls: {mode: ISTIO_MUTUAL, subjectAltNames: [spiffe://cluster.local/ns/default/sa/other]}
"""
DENY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-ratings, namespace: default}
spec:
  action: DENY
  rules: [{to: [{operation: {paths: ["/rate/*"]}}]}]
"""


def applied(demo: Demo, text: str) -> Path:
    file = demo.root / "why.yml"
    file.write_text(text)
    demo.meshctl("apply", "-f", str(file))
    demo.meshctl("wait", "--for=distribution", "-f", str(file))
    return file


def gone(demo: Demo, file: Path) -> None:
    demo.meshctl("delete", "-f", str(file))
    api = demo.api()
    version = api.request("GET", "/apis/networking.istio.io/v1/virtualservices")["metadata"]["resourceVersion"]
    query = {"resourceVersion": version}
    wait_until(lambda: not api.request("GET", "/mesh/v1/distribution", params=query)["pending"], 30, "the deletion everywhere")
    api.close()


def why(demo: Demo, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(demo.meshctl("why", *words, "-o", "json").stdout)
    return found


def where(told: dict[str, Any]) -> tuple[str, str, str]:
    """Pod, direction and flags of the hop where it began."""
    (begun,) = [hop for hop in told["hops"] if hop["begunHere"]]
    return begun["pod"], begun["direction"], ",".join(begun["flags"])


def book(demo: Demo, number: int) -> int:
    return demo.curl(f"127.0.0.1:{demo.port}/book/{number}")[0]


def test_why_a_request_failed(demo: Demo) -> None:
    demo.demo("--detach")
    assert "no request that was answered 503 is remembered by 4 sidecars" in demo.meshctl("why", "last-503", check=False).stderr

    # an app's own answer, passed on by three sidecars
    demo.curl(f"{demo.pod(3)}:9080/rate/misbehave")
    assert {book(demo, 1), book(demo, 1)} == {200, 503}
    text = demo.meshctl("why", "last-503").stdout
    assert f"Where     the app of default/rating-service-v2 (v2.0.0), at {demo.pod(3)}:9080\n" in text
    assert "kubectl logs -n default rating-service-v2" in text
    told = why(demo, "last-503")
    assert [(hop["pod"], hop["direction"], hop["status"]) for hop in told["hops"]] == [
        ("istio-ingressgateway", "gateway", 503),
        ("book-service", "inbound", 503),
        ("book-service", "outbound", 503),
        ("rating-service-v2", "inbound", 503),
    ]
    assert where(told) == ("rating-service-v2", "inbound", "")
    id_ = told["request"]["request_id"]
    assert why(demo, id_)["where"] == why(demo, "last-5xx", "--from", "book-service")["where"] == told["where"]

    # who is ejected
    demo.curl(f"{demo.pod(2)}:9080/rate/misbehave")
    file = applied(demo, BREAKER)
    assert [book(demo, 1) for _ in range(3)] == [503, 503, 503]
    told = why(demo, "last-503")
    assert where(told) == ("book-service", "outbound", "UH")
    assert "It still holds" in told["now"][0] and "0 of 2 endpoints take requests." in told["now"]
    assert sum("is ejected by outlier detection for 1" in line for line in told["now"]) == 2
    assert sum("had failed before" in line for line in told["why"]) == 2
    assert "kubectl get destinationrule rating -n default -o yaml" in told["do"]
    gone(demo, file)
    for pod in (2, 3):
        demo.curl(f"{demo.pod(pod)}:9080/rate/behave")
    assert book(demo, 1) == 200
    assert "It holds no longer: the same request would be forwarded now." in why(demo, "last-503")["now"]

    # a policy
    file = applied(demo, DENY)
    assert book(demo, 1) == 403
    told = why(demo, "last-403")
    assert where(told)[0].startswith("rating-service-v") and where(told)[1] == "inbound"
    assert "policy: DENY AuthorizationPolicy default/no-ratings rule 0" in told["config"]
    assert "The caller was cluster.local/ns/default/sa/default over mutual TLS." in told["why"]
    assert "kubectl get authorizationpolicy -n default no-ratings -o yaml" in told["do"]
    gone(demo, file)

    # TLS
    file = applied(demo, WRONG_PEER)
    assert book(demo, 1) == 503
    told = why(demo, "last-503")
    assert where(told) == ("book-service", "outbound", "UF,URX")
    assert "TLS with the endpoint could not be agreed on, so the request was never sent." in told["why"]
    assert any("the peer is not who it should be" in line for line in told["why"])
    assert "TLS mode ISTIO_MUTUAL (by DestinationRule default/rating)." in told["now"]
    gone(demo, file)

    # an id that nobody knows, and one of a request that went well
    said = demo.meshctl("why", "0000-unknown-id", check=False)
    assert said.returncode == 1 and said.stderr.count("\n") == 1
    assert "0000-unknown-id: nobody knows this request: looked into what 4 sidecars remember" in said.stderr
    for stranger in (("why", "last-503", "--pod", "nobody"), ("why", "last-503", "--pod", "rating-service-v1.other")):
        assert "is connected; `meshctl proxy-status` lists those that are" in demo.meshctl(*stranger, check=False).stderr


def test_why_by_routes_and_top(demo: Demo) -> None:
    demo.demo("--detach")
    with socket.create_server(("127.0.0.1", 0)) as hole, socket.create_server(("127.0.0.1", 0)) as shut:
        ports = hole.getsockname()[1], shut.getsockname()[1]
        shut.close()
        applied(demo, RULES.replace("HOLE", str(ports[0])).replace("SHUT", str(ports[1])))
        statuses = [book(demo, number) for number in (7, 8, 9, 10, 2, 1)]
        assert statuses == [418, 503, 504, 503, 404, 200]

        told = why(demo, "last-418")
        assert where(told) == ("book-service", "outbound", "FI")
        assert "VirtualService default/rating http[0].match[0] aborts 100 % with 418." in told["now"]
        told = why(demo, "last-504")
        assert where(told) == ("book-service", "outbound", "UT")
        assert "VirtualService default/rating http[2].match[0] allows 0.2 s for all tries together." in told["now"]
        told = why(demo, "last-404")
        assert where(told) == ("book-service", "outbound", "NR")
        assert any(
            'nearest rule VirtualService default/rating http[0].match[0]: path is "/rate/7"' in line for line in told["now"]
        )
        told = why(demo, "last-503")
        assert where(told) == ("book-service", "outbound", "UF,URX")
        assert "3 tries were made; the last went to" in "\n".join(told["why"])
        api = demo.api()
        failed = api.request("GET", "/mesh/v1/failures", params={"status": "503", "direction": "outbound"})["failures"]
        api.close()
        assert [(one["flags"], one["cluster"].split("|")[2]) for one in failed] == [(["UF", "URX"], ""), (["NC"], "gone")]
        told = why(demo, failed[1]["request_id"])
        assert "destination: outbound|8080|gone|rating.default.svc.cluster.local (no DestinationRule)" in told["config"]

    # what the codec refuses has no head, and so no id
    with socket.create_connection(("127.0.0.1", demo.port), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")
    assert demo.meshctl("why", "last-400").stdout.startswith("A request without a head was answered 400 at ")

    # the same as a table
    def rows(*words: str) -> dict[str, dict[str, Any]]:
        return {
            row["route"] or row["source"]: row for row in json.loads(demo.meshctl("top", *words, "-o", "json").stdout)["rows"]
        }

    wanted = ("routes", "--from", "book-service", "--window", "5m")
    wait_until(lambda: sum(row["requests"] for row in rows(*wanted).values()) == 6, 60, "the report of six calls")
    found = rows(*wanted)
    assert found["broken"]["flags"] == {"FI": 1} and found["broken"]["source"] == "VirtualService default/rating http[0].match[0]"
    good = found["VirtualService default/rating http[4].match[0]"]
    assert (good["to"], good["port"], good["success"], good["mtls"]) == ("rating.default", "8080", 1.0, True)
    assert found["VirtualService default/rating http[1].match[0]"]["subset"] == "gone"
    table = demo.meshctl("top", "--window", "5m").stdout
    assert table.startswith("FROM ") and "default/rating http[1].match[0] → gone" in table
    services = demo.meshctl("top", "services", "--window", "5m", "--sort", "success").stdout
    assert services.splitlines()[0].split() == ["SERVICE", "RPS", "SUCCESS", "P50", "P99", "CALLERS", "MTLS"]
    wait_until(lambda: "Mi " in demo.meshctl("top", "pods").stdout, 60, "what sidecars say of themselves")
    assert "No such requests in the last 60s" in demo.meshctl("top", "--from", "nobody").stdout
    assert live(demo) == 0


def live(demo: Demo) -> int:
    """``meshctl top`` on a terminal, until ``q``: its exit code."""
    ours, theirs = pty.openpty()
    environ = {**os.environ, "KUBECONFIG": ".mesh/kubeconfig", "TERM": "xterm", "COLUMNS": "160", "LINES": "40"}
    words = [str(BIN / "meshctl"), "top", "--window", "5m"]
    process = subprocess.Popen(words, cwd=demo.root, env=environ, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    try:
        while b"q ends" not in said or b"book-service.default" not in said:
            ready, _, _ = select.select([ours], [], [], 60)
            assert ready, said
            said += os.read(ours, 65536)
        os.write(ours, b"q")
        while True:  # what it still writes has to be read, or it waits
            try:
                if not os.read(ours, 65536):
                    break
            except OSError:
                break
        return process.wait(30)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
