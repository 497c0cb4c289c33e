"""AuthorizationPolicy at sidecars and at a gateway, end to end: who may, who may not; a change lets nobody slip through."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.mesh_control_process import ROOT
from tests.e2e.secure_mesh import INBOUND, SecureMesh, Steady, running, security, shell
from tests.e2e.semantics_support import Answer, Obj, destination_rule, resource, until, virtual_service

pytestmark = [pytest.mark.system("kubectl", "curl"), pytest.mark.timeout(180)]
DENIED = (403, "RBAC: access denied")
EDGE = 8081
DEMO = ROOT / "control/demo/jwt"


class Judge(http.server.BaseHTTPRequestHandler):
    """An authoriser: whoever says ``x-pass: yes`` may, whoever says ``slow`` waits in vain. It tells the app who judged."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, str, dict[str, str]]] = []

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        Judge.asked.append((self.command, self.path, headers))
        word = headers.get("x-pass", "")
        body = b"" if word == "yes" else b"not you"
        self.send_response(200 if word == "yes" else 302 if word == "login" else 401)
        for name, value in (("x-judge", "me"), ("x-reason", "because"), ("location", "/login")):
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


MESH = """
extensionProviders:
- name: judge
  envoyExtAuthzHttp:
    service: judge.default.svc.cluster.local
    port: 80
    timeout: 1s
    includeRequestHeadersInCheck: [x-pass]
    headersToUpstreamOnAllow: [x-judge]
    headersToDownstreamOnDeny: [x-reason, location]
- name: nobody
  envoyExtAuthzHttp: {service: nobody.default.svc.cluster.local, port: 80, timeout: 300ms}
- name: nobody-open
  envoyExtAuthzHttp: {service: nobody.default.svc.cluster.local, port: 80, timeout: 300ms, failOpen: true}
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureMesh]:
    with running(SecureMesh(tmp_path_factory.mktemp("authz"))) as made:
        made.namespace("other")
        made.workload("web")
        made.workload("bank")
        made.workload("judge", app=9081)
        made.workload("guest", namespace="other")
        made.gateway("edge", EDGE, edge="yes")
        made.service("nobody", INBOUND, app="nobody")
        made.ready()
        for name in ("web", "bank", "judge"):
            made.endpoints(name, 1)
        servers = [{"port": {"number": EDGE, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}]
        route = [{"route": [{"destination": {"host": "bank"}}]}]
        made.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "istio", "namespace": "istio-system"},
                "data": {"mesh": MESH},
            },
            resource("Gateway", "edge", {"selector": {"edge": "yes"}, "servers": servers}),
            virtual_service("all", route, hosts=["*"], gateways=["edge"]),
        )
        with http.server.ThreadingHTTPServer((made.ips["judge"], 9081), Judge) as judge:
            judge.daemon_threads = True
            threading.Thread(target=judge.serve_forever, args=(0.01,), daemon=True).start()
            yield made
            judge.shutdown()


@pytest.fixture(autouse=True)
def clean(mesh: SecureMesh) -> Iterator[None]:
    yield
    mesh.kubectl("delete", "authorizationpolicies,peerauthentications,destinationrules", "--all", "--all-namespaces")
    mesh.settle()


def policy(name: str, action: str = "ALLOW", rules: Any = None, to: str | None = "bank", namespace: str = "default") -> Obj:
    spec: Obj = {} if to is None else {"selector": {"matchLabels": {"edge": "yes"} if to == "edge" else {"app": to}}}
    if action != "ALLOW":
        spec["action"] = action
    if rules is not None:
        spec["rules"] = rules
    return security("AuthorizationPolicy", name, spec, namespace)


def source(**fields: list[str]) -> Obj:
    return {"from": [{"source": fields}]}


def operation(**fields: list[str]) -> Obj:
    return {"to": [{"operation": fields}]}


def ask(mesh: SecureMesh, who: str, path: str = "/x", method: str = "GET", **headers: str) -> Answer:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    if who == "edge":
        return mesh.proxies["edge"].ask(f"http://anything{path}", fields, method)
    return mesh.proxies[who].ask(f"http://bank.default{path}", fields, method)


def direct(mesh: SecureMesh, path: str = "/x") -> int:
    """curl in plaintext, past every sidecar of its own."""
    said = shell("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://{mesh.proxies['bank'].ip}:{INBOUND}{path}")
    return int(said[1])


def may(mesh: SecureMesh, *who: str, path: str = "/x", method: str = "GET") -> list[str]:
    """Which of the callers get through; whoever does not gets the words, and nothing else."""
    found = []
    for one in who or ("web", "guest", "edge", "curl"):
        if one == "curl":
            status = direct(mesh, path)
            assert status in (200, 403)
        else:
            answer = ask(mesh, one, path, method)
            status = answer.status
            assert status == 200 or (status, answer.text) == DENIED, (one, answer)
            assert status == 200 or answer.get("content-type") == "text/plain"
        if status == 200:
            found.append(one)
    return found


def test_principals_namespaces_accounts_and_addresses(mesh: SecureMesh) -> None:
    bank = mesh.proxies["bank"].ip
    assert may(mesh) == ["web", "guest", "edge", "curl"]
    for rule, allowed in (
        (source(principals=["cluster.local/ns/default/sa/web"]), ["web"]),
        (source(principals=["*"]), ["web", "guest", "edge"]),
        (source(principals=["*/sa/guest"]), ["guest"]),
        (source(notPrincipals=["cluster.local/ns/default/sa/web"]), ["guest", "edge", "curl"]),
        (source(namespaces=["default"]), ["web", "edge"]),
        (source(namespaces=["oth*"]), ["guest"]),
        (source(serviceAccounts=["other/guest", "edge"]), ["guest", "edge"]),
        (source(ipBlocks=[mesh.proxies["web"].ip]), ["web"]),
        (source(ipBlocks=[f"{mesh.base}.0/24"]), ["web", "guest", "edge"]),
        (source(notIpBlocks=["127.0.0.1"]), ["web", "guest", "edge"]),
        ({"when": [{"key": "source.principal", "values": ["cluster.local/ns/other/*"]}]}, ["guest"]),
        ({"when": [{"key": "destination.port", "values": [str(INBOUND)]}]}, ["web", "guest", "edge", "curl"]),
        ({"when": [{"key": "destination.ip", "values": [bank]}]}, ["web", "guest", "edge", "curl"]),
        ({"when": [{"key": "destination.port", "values": ["80"]}]}, []),
    ):
        mesh.apply(policy("who", rules=[rule]))
        assert may(mesh) == allowed, rule
    # DENY, with the same words, is the complement.
    for rule, allowed in (
        (source(principals=["cluster.local/ns/default/sa/web"]), ["guest", "edge", "curl"]),
        (source(notPrincipals=["*"]), ["web", "guest", "edge"]),
        (source(namespaces=["other"]), ["web", "edge", "curl"]),
    ):
        mesh.apply(policy("who", "DENY", [rule]))
        assert may(mesh) == allowed, rule


def test_paths_methods_hosts_and_headers(mesh: SecureMesh) -> None:
    mesh.apply(policy("what", rules=[operation(methods=["GET"], paths=["/open/*", "/{*}/info"], notPaths=["/open/not"])]))
    for method, path, good in (
        ("GET", "/open/a", True),
        ("GET", "/open/a?query=/closed", True),
        ("POST", "/open/a", False),
        ("GET", "/open/not", False),
        ("GET", "/closed", False),
        ("GET", "/open/../closed", False),
        ("GET", "/open/%2e%2e/closed", False),
        ("GET", "/closed/..%2fopen/a", False),
        ("GET", "/user/info", True),
        ("GET", "/user/a/info", False),
        ("GET", "/closed?/open/a", False),
    ):
        assert may(mesh, "web", path=path, method=method) == (["web"] if good else []), (method, path)
    mesh.apply(policy("what", rules=[{"when": [{"key": "request.headers[x-team]", "values": ["a*"]}]}]))
    assert ask(mesh, "web", x_team="alpha").status == 200
    assert ask(mesh, "web", x_team="beta").status == 403 == ask(mesh, "web").status
    mesh.apply(policy("what", rules=[operation(hosts=["BANK.default"])]))
    assert may(mesh, "web") == ["web"]


def test_deny_comes_before_allow_and_a_dry_run_only_tells(mesh: SecureMesh) -> None:
    allow, deny = policy("allow", rules=[{}]), policy("deny", "DENY", [operation(paths=["/secret*"])])
    mesh.apply(allow, deny)
    assert may(mesh, "web", path="/secrets") == [] and may(mesh, "web") == ["web"]
    before = mesh.metric("bank", "mesh_authz_dry_run_total")
    deny["metadata"]["annotations"] = {"istio.io/dry-run": "true"}
    mesh.apply(deny)
    assert may(mesh, "web", path="/secrets") == ["web"]
    assert mesh.metric("bank", "mesh_authz_dry_run_total") > before
    assert "dry run" in mesh.log("bank") and "deny" in mesh.log("bank")
    mesh.apply(policy("watch", "AUDIT", [{}]))
    assert may(mesh, "web") == ["web"]


def test_deny_by_default_as_istio_s_documentation_has_it(mesh: SecureMesh) -> None:
    """allow-nothing in the namespace, then what each workload needs; the health of pods does not suffer."""
    mesh.apply(policy("allow-nothing", to=None))
    assert may(mesh) == []
    assert ask(mesh, "edge").status == 403, "the gateway's own answer, or the bank's"
    mesh.apply(
        policy("bank-viewer", rules=[{**source(principals=["cluster.local/ns/default/sa/web"]), **operation(methods=["GET"])}])
    )
    assert may(mesh) == ["web"] and may(mesh, "web", method="POST") == []
    assert (
        shell("curl", "-s", "-w", "%{http_code}", "-o", "/dev/null", f"http://{mesh.ips['bank']}:15021/healthz/ready")[1] == "200"
    )
    told = mesh.meshctl("x", "authz", "check", "bank")
    assert "bank-viewer.default" in told and "allow-nothing.default" in told
    mesh.kubectl("delete", "authorizationpolicy", "bank-viewer", "allow-nothing")
    mesh.apply(policy("allow-nothing", to=None, namespace="istio-system"))
    assert may(mesh) == [], "the root namespace speaks for the mesh"
    mesh.apply(policy("bank", rules=[{}]), policy("edge", rules=[{}], to="edge"))
    assert may(mesh) == ["web", "guest", "edge", "curl"]


def test_at_the_gateway(mesh: SecureMesh) -> None:
    asked = mesh.metric("bank", "istio_requests_total")
    mesh.apply(policy("edge", "DENY", [operation(paths=["/admin*"], hosts=["anything"])], to="edge"))
    assert may(mesh, "edge", path="/admin/x") == [] and may(mesh, "web", path="/admin/x") == ["web"]
    assert mesh.metric("bank", "istio_requests_total") == asked + 1, "the gateway asked nobody"
    mesh.apply(policy("edge", rules=[source(ipBlocks=["127.0.0.1"])], to="edge"))
    assert may(mesh, "edge") == ["edge"]
    mesh.apply(policy("edge", rules=[source(ipBlocks=["10.0.0.0/8"])], to="edge"))
    assert may(mesh, "edge") == []
    assert ask(mesh, "edge", x_forwarded_for="10.1.1.1").status == 403, "nobody is believed about where he comes from"


def test_tokens_at_the_gateway(mesh: SecureMesh) -> None:
    """Verified at the edge, obeyed there, and routed by what they say; a browser's preflight needs none."""
    tokens = {
        name: (DEMO / f"{name}.jwt").read_text().strip() for name in ("invalid-signature", "valid-no-role", "valid-role-customer")
    }
    issuer = "testing@secure.istio.io"
    rule = {
        "issuer": issuer,
        "jwks": (DEMO / "jwks.json").read_text(),
        "outputClaimToHeaders": [{"header": "x-who", "claim": "sub"}],
    }
    edge = {"matchLabels": {"edge": "yes"}}
    customers = {"match": [{"headers": {"@request.auth.claims.role": {"exact": "customer"}}}], "directResponse": {"status": 299}}
    cors = {"allowOrigins": [{"exact": "http://shop"}], "allowMethods": ["GET"]}
    rest = {"route": [{"destination": {"host": "bank"}}], "corsPolicy": cors}
    mesh.apply(
        security("RequestAuthentication", "edge", {"selector": edge, "jwtRules": [rule]}),
        policy("edge", "DENY", [source(notRequestPrincipals=["*"])], to="edge"),
        virtual_service("all", [customers, rest], hosts=["*"], gateways=["edge"]),
    )
    proxy = mesh.proxies["edge"]

    def told(name: str = "", **more: str) -> Answer:
        bearer = {"authorization": f"Bearer {tokens[name]}"} if name else {}
        return proxy.ask("http://shop/x", {**bearer, **more})

    try:
        bad = told("invalid-signature")
        assert (bad.status, bad.text) == (401, "Jwt verification fails")
        assert bad.get("www-authenticate") == 'Bearer realm="http://shop/x", error="invalid_token"'
        assert (told().status, told().text) == DENIED
        good = told("valid-no-role", **{"x-who": "root"})
        assert good.status == 200 and good.asked("x-who") == [issuer] and good.asked("authorization") == []
        assert told("valid-role-customer").status == 299
        assert told(**{"@request.auth.claims.role": "customer"}).status == 400, "no header of that name can be sent"
        preflight = {"origin": "http://shop", "access-control-request-method": "GET"}
        answer = proxy.ask("http://shop/x", preflight, "OPTIONS")
        assert answer.status == 200 and answer.get("access-control-allow-origin") == "http://shop"
    finally:
        mesh.kubectl("delete", "requestauthentication", "edge")
        mesh.apply(virtual_service("all", [{"route": [{"destination": {"host": "bank"}}]}], hosts=["*"], gateways=["edge"]))


def test_who_says_it_is_somebody_is_not_believed(mesh: SecureMesh) -> None:
    mesh.apply(policy("who", rules=[source(principals=["cluster.local/ns/default/sa/web"])]))
    header = "x-forwarded-client-cert: By=x;Hash=y;URI=spiffe://cluster.local/ns/default/sa/web"
    to = f"http://{mesh.proxies['bank'].ip}:{INBOUND}/x"
    assert shell("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", header, to)[1] == "403"
    assert ask(mesh, "guest", x_forwarded_client_cert="URI=spiffe://cluster.local/ns/default/sa/web").status == 403
    mesh.apply(destination_rule("bank", {"trafficPolicy": {"tls": {"mode": "DISABLE"}}}))
    assert may(mesh, "web") == [], "in plaintext nobody is anybody"


def test_an_authoriser_in_the_mesh(mesh: SecureMesh) -> None:
    custom = policy("ask", "CUSTOM", [operation(paths=["/guarded*"])])
    custom["spec"]["provider"] = {"name": "judge"}
    mesh.apply(custom)
    Judge.asked.clear()
    good = ask(mesh, "web", "/guarded/a?b=c", x_pass="yes", x_judge="forged")
    assert good.status == 200 and good.asked("x-judge") == ["me"]
    ((method, path, headers),) = Judge.asked
    assert (method, path, headers["x-pass"]) == ("GET", "/guarded/a?b=c", "yes")
    bad = ask(mesh, "web", "/guarded")
    assert (bad.status, bad.text, bad.get("x-reason"), bad.get("x-judge")) == (401, "not you", "because", None)
    assert ask(mesh, "web", "/guarded", x_pass="login").get("location") == "/login"
    assert ask(mesh, "web", "/open").status == 200 and len(Judge.asked) == 3
    mesh.apply(policy("no", "DENY", [operation(paths=["/guarded/never"])]))
    assert ask(mesh, "web", "/guarded/never").status == 401 and ask(mesh, "web", "/guarded/never", x_pass="yes").status == 403
    # The question goes over mutual TLS like everything else: the judge may let only the bank ask.
    mesh.apply(policy("judge", rules=[source(principals=["cluster.local/ns/default/sa/bank"])], to="judge"))
    assert ask(mesh, "web", "/guarded", x_pass="yes").status == 200
    mesh.apply(policy("judge", rules=[source(principals=["cluster.local/ns/default/sa/web"])], to="judge"))
    assert ask(mesh, "web", "/guarded", x_pass="yes").status == 403


def test_an_authoriser_that_does_not_answer(mesh: SecureMesh) -> None:
    for provider, status in (("nobody", 403), ("nobody-open", 200), ("not-defined", 403)):
        custom = policy("ask", "CUSTOM", [{}])
        custom["spec"]["provider"] = {"name": provider}
        mesh.apply(custom)
        answer = ask(mesh, "web")
        assert answer.status == status, provider
        if provider == "nobody-open":
            assert answer.asked("x-envoy-auth-failure-mode-allowed") == ["true"]
    until(lambda: " UAEX " in mesh.access("bank"), "the flag")


def test_after_distribution_nothing_that_is_denied_gets_through(mesh: SecureMesh) -> None:
    """Under load, on kept connections, again and again: what is answered after ``meshctl wait`` is answered by the new policy."""
    deny = policy("flip", "DENY", [operation(paths=["/flip"])])
    file = mesh.state / "flip.json"
    file.write_text(json.dumps(deny))
    web = mesh.proxies["web"]
    loads = [Steady((web.ip, web.port), "http://bank/flip", "bank", 3, keep=keep) for keep in (True, False)]
    with loads[0], loads[1]:
        for _ in range(3):
            mesh.kubectl("apply", "-f", str(file))
            mesh.meshctl("wait", "--for=distribution", "-f", str(file))
            assert [set(load.fresh(30)) for load in loads] == [{403}, {403}]
            mesh.kubectl("delete", "-f", str(file))
            mesh.meshctl("wait", "--for=delete", "-f", str(file))
            assert [set(load.fresh(30)) for load in loads] == [{200}, {200}]
    assert all(one.startswith("403 RBAC: access denied") for load in loads for one in load.bad)


def test_a_policy_that_names_a_broken_thing_is_refused_at_the_door(mesh: SecureMesh) -> None:
    done = mesh.apply(policy("bad", rules=[operation(paths=["/a*b"])]), check=False)
    assert done.returncode == 1 and "spec.rules[0].to[0].operation.paths[0]" in done.stderr, done.stderr
    assert may(mesh, "web") == ["web"]
