"""Identity and policy out of the ordinary: workers, tunnels, a company's own authority, another trust domain, control away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.certs import spiffe
from tests.control.ca.requests import company
from tests.e2e.mesh_control_process import KILL, ROOT, TERM
from tests.e2e.secure_mesh import INBOUND, SecureMesh, Steady, running, security, shell
from tests.e2e.semantics_support import Obj, destination_rule, resource, until, virtual_service

pytestmark = [pytest.mark.system("kubectl", "curl"), pytest.mark.timeout(120)]
EDGE = 8081
EDGE_ONLY = {"x-envoy-internal", "x-envoy-external-address", "x-envoy-original-path", "x-envoy-decorator-operation"}
KEYS = ROOT / "control/demo/jwt/jwks.json"
STRICT = security("PeerAuthentication", "default", {"mtls": {"mode": "STRICT"}}, "istio-system")


@contextmanager
def made(state: Path, *options: str, sidecar: tuple[str, ...] = ()) -> Iterator[SecureMesh]:
    """``web`` calls ``bank``, whose sidecar has these options."""
    with running(SecureMesh(state, *options)) as mesh:
        mesh.workload("web")
        mesh.workload("bank", options=sidecar)
        mesh.ready()
        mesh.endpoints("bank", 1)
        yield mesh


def asked(mesh: SecureMesh) -> int:
    return mesh.proxies["web"].ask("http://bank/x").status


def plain(mesh: SecureMesh) -> int:
    """curl's exit code in plaintext: 0, or 56 for a reset."""
    return shell("curl", "-sS", "-o", "/dev/null", f"http://{mesh.proxies['bank'].ip}:{INBOUND}/x")[0]


def test_workers_are_of_one_mind(tmp_path: Path) -> None:
    """STRICT, denial and revocation reach every worker of a sidecar, and their connections."""
    with made(tmp_path, sidecar=("--concurrency", "2")) as mesh:
        assert {plain(mesh) for _ in range(10)} == {0}
        mesh.apply(STRICT)
        assert {plain(mesh) for _ in range(20)} == {56}
        assert {asked(mesh) for _ in range(10)} == {200}
        assert mesh.refused("bank", "plaintext") == 20, "the parent counts for all"
        web = mesh.proxies["web"]
        with Steady((web.ip, web.port), "http://bank/x", "bank", 8, pause=0.002) as load:
            mesh.apply(security("AuthorizationPolicy", "no", {"action": "DENY", "rules": [{}]}))
            assert set(load.fresh(100)) == {403}
            mesh.delete("authorizationpolicy/no")
            assert set(load.fresh(100)) == {200}
            mesh.meshctl("ca", "revoke", "default/web")
            assert set(load.fresh(100)) == {503}
            mesh.meshctl("ca", "restore", "default/web")
            assert set(load.fresh(100)) == {200}
            failed = len(load.bad)
            mesh.meshctl("ca", "rotate")
            mesh.reconnect()
            load.more(100)
            assert len(load.bad) == failed


def test_a_tunnel_into_the_mesh_is_mutual_tls_too(tmp_path: Path) -> None:
    """CONNECT through the sidecar: what is in the tunnel is the app's own, the way is the mesh's."""
    with made(tmp_path) as mesh:
        mesh.apply(STRICT)
        code, said = shell(
            "curl", "-sS", "--max-time", "10", "-p", "-x", f"http://{mesh.proxies['web'].ip}:15001", "http://bank/x"
        )
        assert code == 0 and f"URI={spiffe('web')}" in said, said


def test_a_company_s_own_authority_with_intermediates(tmp_path: Path) -> None:
    own = company(tmp_path / "company", time.time(), kind="rsa", links=2)
    with made(tmp_path, "--ca-dir", str(own)) as mesh:
        mesh.apply(STRICT)
        assert asked(mesh) == 200 and plain(mesh) == 56
        assert "company root" in mesh.meshctl("ca", "status")
        with load(mesh) as one:
            assert mesh.meshctl("ca", "rotate").splitlines()[-1] == "root rotated", "back to an authority of control's own"
            mesh.reconnect()
            one.more(20)
        assert not one.bad
        assert "company root" not in mesh.meshctl("ca", "status")


def load(mesh: SecureMesh, keep: bool = False, to: str = "bank") -> Steady:
    web = mesh.proxies["web"]
    return Steady((web.ip, web.port), f"http://{to}/x", to, 2, keep=keep, pause=0.005)


def settings(text: str) -> Obj:
    meta = {"name": "istio", "namespace": "istio-system"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"mesh": text}}


def test_another_trust_domain_with_the_old_one_as_an_alias(tmp_path: Path) -> None:
    """Control starts again with a new trust domain: nobody is refused on the way, and policies name either."""
    with made(tmp_path) as mesh:
        rule = {"from": [{"source": {"principals": ["cluster.local/ns/default/sa/web"]}}]}
        mesh.apply(
            STRICT, security("AuthorizationPolicy", "web", {"selector": {"matchLabels": {"app": "bank"}}, "rules": [rule]})
        )
        mesh.apply(settings("trustDomain: new.example\ntrustDomainAliases: [cluster.local]\n"))
        with load(mesh) as one, load(mesh, keep=True) as other:
            port = mesh.control.port
            assert mesh.control.signal(TERM) == 0
            mesh.control.start(port)
            mesh.reconnect()

            def moved() -> bool:
                return all(mesh.identity(name)["uri"].startswith("spiffe://new.example/") for name in ("web", "bank"))

            for name in ("web", "bank"):  # a certificate for the new name comes with the next renewal; a revoked serial is one
                mesh.meshctl("ca", "revoke", mesh.serial(name), "--yes")
                until(
                    lambda name=name: mesh.identity(name)["uri"].startswith("spiffe://new.example/"), f"{name} has the new name"
                )
            assert moved()
            one.more(20)
            until(lambda: set(one.fresh(10)) == {200}, "everybody is heard")
            assert set(other.fresh(10)) == {200}
        (told,) = mesh.proxies["web"].ask("http://bank/x").asked("x-forwarded-client-cert")
        assert told.startswith("By=spiffe://new.example/ns/default/sa/bank;") and told.endswith(
            "URI=spiffe://new.example/ns/default/sa/web"
        )


@pytest.mark.slow
def test_certificates_that_end_while_control_is_away(tmp_path: Path) -> None:
    """Until its end the certificate serves; then new connections are refused, open ones go on; with control all is well again."""
    with made(tmp_path, "--workload-cert-ttl", "6") as mesh:
        mesh.service("till", INBOUND, app="bank")
        once = {"trafficPolicy": {"connectionPool": {"http": {"maxRequestsPerConnection": 1}}}}
        mesh.apply(STRICT, destination_rule("till", once))
        with load(mesh, keep=True) as kept:
            port = mesh.control.port
            mesh.control.signal(KILL)
            with load(mesh, to="till") as new:
                until(lambda: mesh.identity("bank")["last_error"], "it asked in vain")
                until(lambda: new.bad, "the certificates have ended", 30)
            assert "TLS_error: " in new.bad[-1] and "expired" in new.bad[-1], new.bad[-1]
            assert mesh.metric("bank", "mesh_certificate_renewal_failures_total") > 0
            mesh.control.start(port)
            mesh.reconnect()
            web = mesh.proxies["web"]
            until(lambda: web.ask("http://till/x").status == 200, "new certificates", 30)
            assert not kept.bad


def test_what_an_outsider_says_of_itself_is_not_passed_on(tmp_path: Path) -> None:
    """Headers that are the mesh's own, sent to a gateway and in plaintext to a sidecar."""
    spoofed = {
        "x-forwarded-client-cert": "By=x;URI=spiffe://cluster.local/ns/default/sa/web",
        "x-envoy-peer-metadata": "AAAA",
        "x-envoy-peer-metadata-id": "sidecar~1.2.3.4~web.default~x",
        "x-envoy-internal": "true",
        "x-envoy-external-address": "1.2.3.4",
        "x-envoy-original-path": "/admin",
        "x-envoy-decorator-operation": "x",
        "x-jwt-role": "admin",
        "x-jwt-payload": "e30",
    }
    with made(tmp_path) as mesh:
        edge = mesh.gateway("edge", EDGE, edge="yes")
        mesh.ready()
        servers = [{"port": {"number": EDGE, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}]
        jwt: Obj = {"issuer": "me", "jwks": KEYS.read_text(), "outputPayloadToHeader": "x-jwt-payload"}
        jwt["outputClaimToHeaders"] = [{"header": "x-jwt-role", "claim": "role"}]
        mesh.apply(
            resource("Gateway", "edge", {"selector": {"edge": "yes"}, "servers": servers}),
            virtual_service("all", [{"route": [{"destination": {"host": "bank"}}]}], hosts=["*"], gateways=["edge"]),
            security("RequestAuthentication", "jwt", {"selector": {"matchLabels": {"app": "bank"}}, "jwtRules": [jwt]}),
        )
        inside = mesh.proxies["bank"].ask("/x", {"host": "bank", **spoofed}, port=INBOUND)
        for answer, all_of_it in ((edge.ask("http://any/x", spoofed), True), (inside, False)):
            assert answer.status == 200
            got = dict(answer.json["headers"])
            left = {name for name, value in spoofed.items() if got.get(name) == value}
            # What a plaintext caller inside the mesh says of its own request is passed on, as by Envoy; never who it is.
            assert not left if all_of_it else left <= EDGE_ONLY, left
        told = edge.ask("http://any/x", spoofed).asked("x-forwarded-client-cert")
        assert (
            told
            and told[0].startswith(f"By={spiffe('bank')};")
            and told[0].endswith(f"URI={spiffe('edge')}")
            and "," not in told[0]
        )
