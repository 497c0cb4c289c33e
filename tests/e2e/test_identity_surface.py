"""What a user asks a real mesh about identity and policy: explain over both sides, the report for STRICT, analyze.

Nothing sleeps: what is asked for is waited for, with a limit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.demo_mesh import Demo, wait_until
from tests.e2e.test_walkthrough import demo

__all__ = ["demo"]  # the fixture

pytestmark = pytest.mark.timeout(240)
TOKENS = Path(__file__).parents[2] / "control/demo/jwt"
GATEWAY = "istio-ingressgateway.istio-system"
STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: STRICT}}
"""


def told(demo: Demo, *words: str) -> Any:
    return json.loads(demo.meshctl(*words, "-o", "json").stdout)


def applied(demo: Demo, file: str) -> None:
    demo.meshctl("apply", "-f", file, cwd=demo.manifests)
    demo.meshctl("wait", "--for=distribution", "-f", file, cwd=demo.manifests)


def authorization(name: str) -> tuple[str, str]:
    return "-H", f"Authorization: Bearer {(TOKENS / name).read_text().strip()}"


def usable(demo: Demo) -> bool:
    api = demo.api()
    sets = api.request("GET", "/mesh/v1/jwks")["keySets"]
    api.close()
    return bool(sets) and all(one["usable"] for one in sets)


def report(demo: Demo) -> dict[str, dict[str, Any]]:
    found = told(demo, "x", "mtls", "report", "-n", "default")
    assert found["unanswered"] == []
    return {one["workload"]: one["ports"][0] for one in found["workloads"]}


@pytest.mark.system("kubectl", "curl")
def test_explain_report_and_analyze_over_a_real_mesh(demo: Demo) -> None:
    demo.demo("--detach")
    url = f"http://{demo.url}"

    # -- both sides of a call, and the token that decides there
    asked = ("explain", url, "--from", GATEWAY)
    (callee,) = told(demo, *asked)["callees"]
    assert callee["pod"] == "book-service" and callee["told"]["decision"] == "forward"
    own = told(demo, *asked)["own"]["principal"]
    assert own.startswith("cluster.local/ns/istio-system/sa/") and callee["told"]["caller"]["principal"] == own
    applied(demo, "request-authentication-jwt.yml")
    applied(demo, "authorization-policy-jwt.yml")
    wait_until(lambda: usable(demo), 10.0, "the key set was fetched")
    demo.meshctl("wait", "--for=distribution", "-f", "request-authentication-jwt.yml", cwd=demo.manifests)
    for name, status, because in (
        ("invalid-signature.jwt", 401, '401 "Jwt verification fails"'),
        ("valid-no-role.jwt", 403, "no ALLOW policy matched"),
        ("valid-role-customer.jwt", 200, "rule 0 of ALLOW policy default/require-jwt matched"),
    ):
        header = authorization(name)
        wait_until(lambda: demo.curl(url, *header)[0] == status, 5.0, f"{name} gets {status}")  # noqa: B023
        found = told(demo, *asked, *header)["callees"][0]["told"]
        assert (found.get("status", 200), found["because"]) == (status, because), found
        words = demo.meshctl(*asked, *header)
        assert because in words.stdout and header[1].rpartition(" ")[2] not in words.stdout
    door = told(demo, "explain", url, "--at", "book-service", "--as", "default/other", "--claims", '{"iss": "else"}')
    assert (door["status"], door["answer"]["body"]) == (401, "Jwt issuer is not configured")

    # -- the way to STRICT
    assert demo.curl(f"{demo.pod(2)}:8080/rate/1")[0] == 200
    before = report(demo)
    assert before["book-service"]["verdict"] == "ready for STRICT"
    assert before["rating-service-v1"]["verdict"].startswith("not ready: 127.")
    table = demo.meshctl("x", "mtls", "report").stdout
    assert "STILL IN PLAINTEXT" in table and "not ready: 127." in table
    (demo.root / "strict.yml").write_text(STRICT)
    applied(demo, str(demo.root / "strict.yml"))
    refused = lambda: demo.shell("curl", "-s", f"{demo.pod(2)}:8080/rate/1", check=False).returncode != 0  # noqa: E731
    wait_until(refused, 5.0, "STRICT refuses plaintext")
    after = report(demo)["rating-service-v1"]
    assert (after["mtls"], after["source"]) == ("STRICT", "PeerAuthentication default/default")
    assert "turned away" in after["verdict"]
    assert demo.curl(url, *authorization("valid-role-customer.jwt"))[0] == 200
    plain = told(demo, "explain", "http://rating:8080/rate/1", "--from", "book-service", "--plaintext")
    assert {one["told"]["decision"] for one in plain["callees"]} == {"not let in"}
    lines = demo.meshctl("analyze", "-A").stdout
    assert "[MESH0015] (PeerAuthentication default/default)" in lines and "STRICT refuses 127." in lines

    # -- who may ask
    (demo.root / "view.kubeconfig").write_text(demo.meshctl("token", "create", "looker", "--as-kubeconfig").stdout)
    seen = told(demo, "explain", "http://rating:8080/", "--from", "book-service", "--kubeconfig", "view.kubeconfig")
    assert seen["decision"] == "forward", "explain is a question: view may ask it"
