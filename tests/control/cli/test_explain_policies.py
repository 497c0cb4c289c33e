"""meshctl explain and test over policies, offline: both sides of a call, other callers, tokens, and what is said of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from control.cli.__main__ import main
from tests.control.cli.mesh_files import APP

Run = Callable[..., tuple[int, str, str]]
DEMO = Path(__file__).parents[3] / "control/demo/jwt"
URL = "http://rating:8080/rate/1"

POLICIES = """
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers}
spec:
  selector: {matchLabels: {app: rating}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/default]}}]
    to: [{operation: {methods: [GET]}}]
  - from: [{source: {requestPrincipals: ["https://issuer/jo"]}}]
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: users}
spec:
  selector: {matchLabels: {app: rating}}
  jwtRules: [{issuer: "https://issuer", jwks: '{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}'}]
---
{apiVersion: v1, kind: Pod, metadata: {name: bare, labels: {sidecar.istio.io/inject: "false"}}, spec: {containers: [{name: app}]}}
"""


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    (tmp_path / "app.yml").write_text(APP + POLICIES)

    def go(*words: str) -> tuple[int, str, str]:
        code = main([*words, "-f", str(tmp_path / "app.yml")])
        said = capsys.readouterr()
        return code, said.out, said.err

    return go


def told(run: Run, *words: str) -> dict[str, Any]:
    code, out, err = run("explain", *words, "-o", "json")
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def test_both_sides_in_words(run: Run) -> None:
    code, out, _ = run("explain", "PUT", URL, "--from", "book", "-H", "x-user: jo")
    assert code == 0
    assert "Decision     forward\n             but default/rating-v2 answers 403 'RBAC: access denied'\n" in out
    start = "Reached      default/rating-v2 answers 403 'RBAC: access denied': no ALLOW policy matched\n"
    assert out[out.index("Reached") :] == start + (
        "                    caller      cluster.local/ns/default/sa/default over mutual TLS\n"
        "                    mutual TLS  STRICT (PeerAuthentication default/strict)\n"
        "                    token       https://issuer (RequestAuthentication default/users jwtRules[0]): "
        "no token in header authorization, query parameter access_token\n"
        "                                no token: passes without a principal; an AuthorizationPolicy may demand one\n"
        '                    policies    ALLOW default/readers rule 0: does not match: methods is GET: it is "PUT"\n'
        "                                ALLOW default/readers rule 1: does not match: "
        "requestPrincipals is https://issuer/jo: it is absent\n"
    )


def test_the_caller_speaks_as_it_would(run: Run) -> None:
    let_in = told(run, URL, "--from", "book", "-H", "x-user: jo")["callees"][0]["told"]
    assert (let_in["decision"], let_in["because"]) == ("forward", "rule 0 of ALLOW policy default/readers matched")
    assert let_in["request"]["path"] == "/v2/rate/1", "as the caller's sidecar rewrites it"
    plain = told(run, URL, "--from", "bare", "-H", "x-user: jo")["callees"][0]["told"]
    assert plain["decision"] == "not let in" and plain["mtls"]["refused"] == "plaintext where mutual TLS is demanded"
    _, out, _ = run("explain", URL, "--from", "book", "--plaintext", "-H", "x-user: jo")
    assert "but default/rating-v2 refuses the connection: plaintext where mutual TLS is demanded" in out


def test_other_callers_at_a_door(run: Run) -> None:
    at = ("PUT", URL, "--at", "rating-v2")
    denied = told(run, *at, "--as", "default/other")
    assert (denied["decision"], denied["caller"]["principal"]) == ("denied", "cluster.local/ns/default/sa/other")
    assert told(run, *at)["decision"] == "not let in"
    jo = told(run, *at, "--as", "shop/web", "--source-ip", "10.1.1.1", "--claims", '{"iss": "https://issuer", "sub": "jo"}')
    assert (jo["decision"], jo["caller"]["source"]) == ("forward", "10.1.1.1")
    assert jo["because"] == "rule 1 of ALLOW policy default/readers matched"
    out = run("explain", *at, "--as", "default/default")[1]
    assert out.startswith("PUT http://rating:8080/rate/1 at default/rating-v2, by the files\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((URL,), "say who sends it, with --from POD, or whom it reaches, with --at POD"),
        ((URL, "--from", "book", "--at", "rating-v2"), "say who sends it"),
        ((URL, "--at", "rating-v2", "--as", "a/b", "--plaintext"), "--as and --plaintext"),
        ((URL, "--at", "rating-v2", "--claims", "{"), "--claims: must be JSON"),
        ((URL, "--at", "rating-v2", "--claims", "[]"), "--claims: must be a JSON object"),
        ((URL, "--at", "rating-v2", "--as", "web"), "principal: must be NAMESPACE/ACCOUNT"),
        ((URL, "--at", "nobody"), "--at nobody: there is no such pod"),
    ],
)
def test_wrong_usage_is_one_line(run: Run, words: tuple[str, ...], says: str) -> None:
    code, out, err = run("explain", *words)
    assert code in (1, 2) and out == "" and says in err and len(err.splitlines()) == 1


def test_a_real_token_is_used_and_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = (DEMO / "jwks.json").read_text()
    spec = {"jwtRules": [{"issuer": "testing@secure.istio.io", "jwks": keys}]}
    request = {"apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication", "metadata": {"name": "r"}, "spec": spec}
    (tmp_path / "app.yml").write_text(APP + "\n---\n" + yaml.safe_dump(request))
    tokens = {"valid-no-role": "verified; principal testing@secure", "invalid-signature": "401 'Jwt verification fails'"}
    for name, says in tokens.items():
        token = (DEMO / f"{name}.jwt").read_text().strip()
        words = ("explain", URL, "--from", "book", "-H", f"Authorization: Bearer {token}", "-f", str(tmp_path / "app.yml"))
        assert main(list(words)) == 0
        out = capsys.readouterr().out
        assert says in out and token not in out and token.split(".")[2] not in out
        assert main([*words, "-o", "json"]) == 0
        assert token not in capsys.readouterr().out


CASES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"from": "book"}, {"decision": "forward"}, ""),
    ({"from": "book", "request": {"method": "PUT"}}, {"status": 403, "decision": "denied", "reason": "no ALLOW policy"}, ""),
    ({"from": "book", "request": {"method": "PUT"}}, {"status": 200}, "expect.status: expected 200, got 403"),
    ({"from": "book", "plaintext": True}, {"decision": "not let in"}, ""),
    ({"at": "rating-v2", "as": "default/default"}, {"decision": "forward", "reason": "rule 0"}, ""),
    ({"at": "rating-v2", "as": "a/b"}, {"status": 403, "body": "RBAC: access denied"}, ""),
    ({"at": "rating-v2", "as": "a/b", "request": {"claims": {"iss": "https://issuer", "sub": "jo"}}}, {"reason": "rule 1"}, ""),
    ({"at": "rating-v2", "as": "a/b", "request": {"claims": {"iss": "https://other"}}}, {"status": 401}, ""),
    ({"at": "rating-v2", "as": "a/b"}, {"reason": "rule 0"}, "expect.reason: expected rule 0, got no ALLOW policy matched"),
]


@pytest.mark.parametrize(("case", "expect", "fails"), CASES)
def test_cases_over_policies(run: Run, tmp_path: Path, case: dict[str, Any], expect: dict[str, Any], fails: str) -> None:
    path = tmp_path / "cases.yaml"
    request = {"url": URL, "headers": {"x-user": "jo"}, **case.get("request", {})}
    path.write_text(yaml.safe_dump({"cases": [{**case, "request": request, "expect": expect}]}))
    code, out, err = run("test", str(path))
    assert (code, err) == (1 if fails else 0, ""), out
    assert fails in out
    if fails:
        assert "ALLOW default/readers rule 0: does not match" in out, "it says why"


def test_a_case_has_one_sender(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "cases.yaml"
    path.write_text(yaml.safe_dump({"cases": [{"from": "a", "at": "b", "request": {"url": URL}, "expect": {"status": 1}}]}))
    code, _, err = run("test", str(path))
    assert code == 2 and "from" in err and "at" in err
