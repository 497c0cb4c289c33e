"""Tokens at control's door, with the real kubectl and meshctl: what each role may do, and how a token ends."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.control.ca.requests import request
from tests.e2e.secure_mesh import SecureMesh, put, running
from tests.e2e.semantics_support import until

pytestmark = [pytest.mark.system("kubectl"), pytest.mark.timeout(120)]
RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: bank}
spec: {host: bank}
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureMesh]:
    with running(SecureMesh(tmp_path_factory.mktemp("tokens"))) as made:
        for name in ("web", "bank"):
            made.workload(name)
        made.ready()
        made.kubectl("create", "secret", "generic", "safe", "--from-literal=word=open-sesame")
        yield made


class Person:
    """Somebody with a kubeconfig of the own."""

    def __init__(self, mesh: SecureMesh, name: str, role: str, *options: str) -> None:
        text = mesh.meshctl("token", "create", name, "--role", role, "--as-kubeconfig", *options)
        self.file = put(mesh.state, f"{name}.kubeconfig", text.encode())
        self.token = str(yaml.safe_load(text)["users"][0]["user"]["token"])
        self.environ = {"PATH": os.environ["PATH"], "HOME": str(mesh.state), "KUBECONFIG": self.file}

    def kubectl(self, *words: str, stdin: str = "") -> tuple[int, str]:
        done = subprocess.run(["kubectl", *words], input=stdin, env=self.environ, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def may(self, *words: str) -> bool:
        return self.kubectl("auth", "can-i", *words)[1].strip() == "yes"


def test_view_reads_all_but_secrets(mesh: SecureMesh) -> None:
    ann = Person(mesh, "ann", "view")
    code, said = ann.kubectl("get", "pods,services")
    assert code == 0 and "bank" in said
    for words, stdin in (
        (("apply", "-f", "-"), RULE),
        (("create", "-f", "-"), RULE),
        (("delete", "pod", "bank"), ""),
        (("label", "pod", "bank", "a=b"), ""),
    ):
        code, said = ann.kubectl(*words, stdin=stdin)
        assert code == 1 and "Forbidden" in said and "view may not" in said, (words, said)
    for words in (("get", "secrets"), ("get", "secret", "safe", "-o", "yaml"), ("get", "secrets", "-A", "-o", "yaml")):
        code, said = ann.kubectl(*words)
        assert code == 1 and "view may not read secrets" in said and "open-sesame" not in said
    assert ann.may("get", "pods") and not ann.may("create", "pods") and not ann.may("get", "secrets")
    assert "only admin" in mesh.meshctl("token", "list", "--kubeconfig", ann.file, check=False)
    refused = mesh.meshctl("token", "create", "more", "--role", "admin", "--kubeconfig", ann.file, check=False)
    assert "only admin" in refused
    for words in (("ca", "rotate"), ("ca", "revoke", "default/web")):
        assert "only admin" in mesh.meshctl(*words, "--kubeconfig", ann.file, check=False)
    assert "root" in mesh.meshctl("ca", "status", "--kubeconfig", ann.file)
    assert "bank" in mesh.meshctl("proxy-status", "--kubeconfig", ann.file)
    shown = mesh.meshctl("proxy-config", "secret", "web", "-o", "json", "--kubeconfig", ann.file)
    assert "PRIVATE KEY" not in shown


def test_edit_writes_and_is_nobody_else(mesh: SecureMesh) -> None:
    bob = Person(mesh, "bob", "edit")
    assert bob.kubectl("apply", "-f", "-", stdin=RULE)[0] == 0
    assert "open-sesame" in bob.kubectl("get", "secret", "safe", "-o", "go-template={{.data.word | base64decode}}")[1]
    assert bob.kubectl("delete", "-f", "-", stdin=RULE)[0] == 0
    for words in (("token", "create", "more"), ("token", "list"), ("ca", "revoke", "default/web"), ("ca", "rotate")):
        assert "only admin" in mesh.meshctl(*words, "--kubeconfig", bob.file, check=False), words


def rows(mesh: SecureMesh, holder: str) -> list[list[str]]:
    lines = mesh.meshctl("token", "list").splitlines()
    assert lines[0].split() == ["ID", "HOLDER", "ROLE", "CREATED", "EXPIRES", "REVOKED"]
    return [line.split() for line in lines[1:] if holder in line]


@pytest.mark.parametrize("role", ["view", "admin"])
def test_a_revoked_token_ends_what_it_has_under_way(mesh: SecureMesh, role: str) -> None:
    cid = Person(mesh, f"cid-{role}", role)
    watching = subprocess.Popen(
        ["kubectl", "get", "pods", "-w", "--no-headers"],
        env=cid.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert watching.stdout is not None
        assert {watching.stdout.readline().split()[0] for _ in range(2)} == {"web", "bank"}
        mesh.kubectl("label", "pod", "bank", f"seen-{role}=yes")
        assert watching.stdout.readline().split()[0] == "bank", "the watch is open"
        ((number, *_, revoked),) = (row for row in rows(mesh, f"cid-{role}"))
        assert re.fullmatch(r"\d{4}-.*Z", revoked) and len(rows(mesh, f"cid-{role}")[0]) == 5, "the last column is empty"
        mesh.meshctl("token", "revoke", number)
        watching.communicate(timeout=20)
        assert watching.returncode is not None
    finally:
        watching.kill()
        watching.wait()
    assert len(rows(mesh, f"cid-{role}")[0]) == 6
    code, said = cid.kubectl("get", "pods")
    assert code == 1 and ("Unauthorized" in said or "must be logged in" in said), said


def test_a_token_expires(mesh: SecureMesh) -> None:
    dan = Person(mesh, "dan", "view", "--ttl", "1s")
    until(lambda: "the bearer token has expired" in dan.kubectl("get", "pods")[1], "it has expired")
    assert rows(mesh, "dan") == []


def test_no_token_or_another_s_opens_nothing(mesh: SecureMesh) -> None:
    with httpx.Client(base_url=mesh.control.url, verify=mesh.control.tls, trust_env=False) as client:
        for headers in ({}, {"authorization": "Bearer made-up"}, {"authorization": f"Basic {mesh.control.admin_token}"}):
            for path in ("/api/v1/pods", "/mesh/v1/proxies", "/mesh/v1/config", "/mesh/v1/tokens"):
                assert client.get(path, headers=headers).status_code == 401, path


def test_a_join_token_opens_its_own_configuration_and_certificate_only(mesh: SecureMesh) -> None:
    token = (mesh.state / "web.token").read_text()
    with httpx.Client(
        base_url=mesh.control.url, verify=mesh.control.tls, trust_env=False, headers={"authorization": f"Bearer {token}"}
    ) as client:
        made = client.post("/mesh/v1/certificate", json={"csr": request()})
        assert made.status_code == 201 and made.json()["identity"] == "spiffe://cluster.local/ns/default/sa/web"
        for path in ("/api/v1/namespaces/default/pods", "/api/v1/secrets", "/mesh/v1/proxies", "/mesh/v1/tokens", "/mesh/v1/ca"):
            refused = client.get(path)
            assert refused.status_code == 403, path
            assert token not in refused.text
        with client.stream("GET", "/mesh/v1/config", params={"namespace": "default", "pod": "bank"}) as other:
            assert other.status_code == 403
        assert client.post("/mesh/v1/tokens", json={"namespace": "default", "pod": "bank"}).status_code == 403
        assert client.post("/mesh/v1/ca/revocations", json={"subject": "default/bank"}).status_code == 403


def test_a_sidecar_whose_token_is_revoked_loses_its_stream_and_serves_on(mesh: SecureMesh) -> None:
    """Static failure: what it had stays; nothing new reaches it, and no certificate."""
    bank = next(row for row in rows(mesh, "bank"))
    mesh.meshctl("token", "revoke", bank[0])
    until(lambda: "bank" not in mesh.meshctl("proxy-status"), "its stream has ended")
    assert mesh.proxies["web"].ask("http://bank/x").status == 200
    token = (mesh.state / "bank.token").read_text()
    answer = mesh.api.post("/mesh/v1/certificate", json={"csr": request()}, headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 401
    assert token not in Path(mesh.state / "bank.log").read_text() + mesh.control.logged()
