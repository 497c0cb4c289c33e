"""Kubeconfigs as clusters give them, and the way to control through a cluster's API server."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from control.ca.issuer import pem
from control.ca.material import make_root
from control.client.carried import HEADER, Carried, NoRole
from control.client.kubeconfig import BadKubeconfig, load

Obj = dict[str, Any]


def kubeconfig(path: Path, user: Obj) -> Path:
    config = {
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(config))
    return path


def program(tmp_path: Path, text: str) -> Obj:
    path = tmp_path / "credentials.py"
    path.write_text(text)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": [str(path)]}}


def test_certificates_in_the_file_are_used_and_shown_to_nobody(tmp_path: Path) -> None:
    issuer = make_root(1_700_000_000.0)
    text = {"client-certificate-data": pem(issuer.certificate), "client-key-data": issuer.key_pem()}
    target = load([kubeconfig(tmp_path / "k", {name: base64.b64encode(value).decode() for name, value in text.items()})])
    target.ssl_context()  # raises if certificate and key do not fit
    assert "PRIVATE" not in repr(target)
    key = ec.generate_private_key(ec.SECP256R1())
    no_encryption = serialization.NoEncryption()
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no_encryption)
    )
    with pytest.raises(BadKubeconfig, match="client-certificate-data is not base64 of PEM"):
        load([kubeconfig(tmp_path / "k", {"client-certificate-data": "??", "client-key": "key.pem"})])


def test_a_program_gives_a_token(tmp_path: Path) -> None:
    said = (
        "import json, os\n"
        "info = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        "print(json.dumps({'apiVersion': info['apiVersion'], 'kind': 'ExecCredential', 'status': {'token': os.environ['T']}}))\n"
    )
    user = program(tmp_path, said)
    user["exec"]["env"] = [{"name": "T", "value": "hidden"}]
    target = load([kubeconfig(tmp_path / "k", user)])
    assert target.token == "hidden" and "hidden" not in repr(target)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("raise SystemExit(3)", "ended with 3"),
        ("print('hidden')", "gave no ExecCredential"),
        ("print('{}')", "gave no ExecCredential"),
        ("print('{\"status\": {}}')", "neither a token nor a certificate"),
    ],
)
def test_a_program_that_gives_nothing_is_told_of_in_one_line(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(BadKubeconfig) as told:
        load([kubeconfig(tmp_path / "k", program(tmp_path, text))])
    assert why in str(told.value) and "hidden" not in str(told.value) and "\n" not in str(told.value)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    spec = {"apiVersion": "client.authentication.k8s.io/v1", "command": "/no/such", "installHint": "get\nit"}
    with pytest.raises(BadKubeconfig, match=r"/no/such: no such program \(get it\)"):
        load([kubeconfig(tmp_path / "k", {"exec": spec})])


class Server:
    def __init__(self, *roles: str) -> None:
        self.roles = roles
        self.asked: list[str] = []

    def __call__(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        role = path.split("/")[-2]
        self.asked.append(role)
        assert body["spec"] == {"audiences": ["mesh-api"], "expirationSeconds": 600}
        if role in self.roles:
            return 201, {"status": {"token": f"t-{role}"}}
        return 403, {"message": f"{role}/token is forbidden"}


@pytest.mark.parametrize(
    ("roles", "method", "path", "token"),
    [
        (("mesh-view",), "GET", "/mesh/v1/proxies", "t-mesh-view"),
        (("mesh-view", "mesh-admin"), "POST", "/mesh/v1/proxies/a/b/query", "t-mesh-view"),
        (("mesh-view", "mesh-admin"), "POST", "/mesh/v1/ca/rotation", "t-mesh-admin"),
        (("mesh-admin",), "GET", "/mesh/v1/ca", "t-mesh-admin"),
    ],
)
def test_the_least_role_that_will_do_is_asked_for(roles: tuple[str, ...], method: str, path: str, token: str) -> None:
    server = Server(*roles)
    carried = Carried(server, "mesh")
    assert carried.headers(method, path) == {HEADER: f"Bearer {token}"}
    asked = len(server.asked)
    assert carried.headers(method, path) == {HEADER: f"Bearer {token}"}
    assert carried.path(path) == f"/api/v1/namespaces/mesh/services/https:istiod:15012/proxy{path}"
    assert json.dumps(server.asked[asked:]).count(token[2:]) == 0, "asked once"


def test_who_has_no_role_is_told_what_is_missing() -> None:
    with pytest.raises(NoRole, match="mesh-view/token is forbidden"):
        Carried(Server()).headers("GET", "/mesh/v1/proxies")
