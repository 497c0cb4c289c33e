"""The walkthrough, sections 0 to 3, as stories with the real kubectl, curl and siege; and what the launcher owes its user.

Each test has a mesh of its own: a private base address, a free port, a state directory. Nothing sleeps to pass: every wait
has a condition and a limit from the walkthrough.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.demo.launcher import port_problem
from control.demo.plan import Addresses
from tests.e2e.demo_mesh import BIN, Demo, free_port, wait_until

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def demo(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Demo]:
    base = f"127.{100 + os.getpid() % 100}.{list(request.session.items).index(request.node) % 200}.0"
    made = Demo(tmp_path, base, free_port())
    yield made
    made.meshctl("demo", "--stop", check=False)
    if request.session.testsfailed:
        for log in sorted(made.state.glob("logs/*/*/*.log")):
            print(f"--- {log.relative_to(made.state)}\n{log.read_text()[-1500:]}")


@pytest.mark.system("kubectl", "siege", "curl")
def test_sections_0_to_2(demo: Demo) -> None:
    # -- 0. Start
    started = demo.demo("--detach").stdout
    assert started.startswith("mesh ready\n")
    for line in (
        "export PATH=",
        "export KUBECONFIG=",
        f"cd {demo.manifests}",
        "127.0.0.1:",
        demo.pod(1),
        demo.pod(2),
        demo.pod(3),
    ):
        assert line in started
    pods = {row.split()[0]: row.split()[1:3] for row in demo.kubectl("get", "pods", "--no-headers").splitlines()}
    assert pods == {name: ["2/2", "Running"] for name in ("book-service", "rating-service-v1", "rating-service-v2")}
    system = demo.kubectl("get", "pods", "-n", "istio-system", "--no-headers")
    assert [row.split()[:3] for row in system.splitlines()] == [
        ["control", "1/1", "Running"],
        ["istio-ingressgateway", "1/1", "Running"],
    ]
    services = demo.kubectl("get", "services")
    assert re.search(r"^book-service .*8080/TCP", services, re.M) and re.search(r"^rating .*8080/TCP", services, re.M)
    ingress = demo.kubectl("get", "services", "-n", "istio-system", "--no-headers").split()
    assert ingress[:2] + ingress[3:5] == ["istio-ingressgateway", "LoadBalancer", "127.0.0.1", f"80:{demo.port}/TCP"]
    assert demo.kubectl("logs", "rating-service-v2", "-c", "rating-service") == ""  # nothing went through a user's route
    assert demo.kubectl("label", "namespace", "default", "istio-injection=enabled") == "namespace/default labeled\n"
    for words in (("exec", "book-service", "-c", "book-service", "--", "true"), ("port-forward", "pod/book-service", "8080")):
        refused = demo.kubectl(*words, check=False)
        assert demo.pod(1) in refused and "curl" in refused and len(refused.strip().splitlines()) == 1, refused

    # -- 1. Discovery
    assert demo.curl(demo.url) == (200, '{"bookId":1,"name":"Book 1","rating":1}')
    assert demo.ratings(3) == [3, 1, 3]
    rule, route = "destinationrule.networking.istio.io/rating", "virtualservice.networking.istio.io/rating"
    at_rule, at_route = "networking.istio.io/v1/destinationrules/rating", "networking.istio.io/v1/virtualservices/rating"
    assert demo.kubectl("apply", "-f", "destination-rule-v1-v2.yml") == f"{rule} created\n"
    demo.live(at_rule)
    assert demo.kubectl("apply", "-f", "virtual-service-v1.yml") == f"{route} created\n"
    demo.live(at_route)
    assert demo.ratings(4) == [1] * 4
    assert demo.kubectl("apply", "-f", "virtual-service-v2.yml") == f"{route} configured\n"
    waited = demo.meshctl("wait", "--for=distribution", "-f", "virtual-service-v2.yml", cwd=demo.manifests)
    assert waited.stdout == f"{route} distributed to 4 proxies\n"
    assert demo.ratings(4) == [3] * 4
    assert demo.kubectl("apply", "-f", "virtual-service-v1-v2-75-25.yml") == f"{route} configured\n"
    demo.live(at_route)
    drawn = demo.ratings(80)
    assert 40 <= drawn.count(1) <= 76 and set(drawn) == {1, 3}  # 60 ± 5 standard deviations
    deleted = demo.kubectl("delete", "-f", "virtual-service-v1-v2-75-25.yml")
    assert deleted == 'virtualservice.networking.istio.io "rating" deleted\n'
    demo.meshctl("wait", "--for=delete", "-f", "virtual-service-v1-v2-75-25.yml", cwd=demo.manifests)
    again = demo.ratings(4)
    assert again in ([1, 3, 1, 3], [3, 1, 3, 1])

    # -- 2. Resilience
    assert demo.curl(f"{demo.pod(3)}:9080/rate/misbehave") == (200, "Ratings endpoint returns 503 error.")
    answers = [demo.curl(demo.url) for _ in range(6)]
    good = (200, '{"bookId":1,"name":"Book 1","rating":1}')
    bad = (503, "")
    assert answers in ([good, bad] * 3, [bad, good] * 3)
    assert demo.kubectl("apply", "-f", "virtual-service-retry.yml") == f"{route} created\n"
    demo.live(at_route)
    assert [demo.book() for _ in range(10)] == [(200, 1)] * 10
    before = demo.hits()
    assert demo.siege() == (40, 100.0)
    retried = demo.hits() - before
    assert 20 <= retried <= 40
    assert demo.kubectl("apply", "-f", "destination-rule-circuit-breaker.yml") == f"{rule} configured\n"
    demo.live(at_rule)
    before = demo.hits()
    assert demo.siege() == (40, 100.0)
    assert 1 <= demo.hits() - before <= 4
    ejected = demo.meshctl("proxy-config", "endpoint", "book-service", "--cluster", "rating", cwd=demo.manifests).stdout
    assert re.search(rf"^{re.escape(demo.pod(3))}:8080 +FAILED_OUTLIER_CHECK +FAILED \(1[78]\ds\)", ejected, re.M), ejected
    status = demo.meshctl("proxy-status", cwd=demo.manifests).stdout
    assert len(re.findall(r"^\S+( +SYNCED){5} +\w+$", status, re.M)) == 4, status
    assert demo.curl(f"{demo.pod(3)}:9080/rate/behave") == (200, "Back to normal")

    # -- the end
    assert demo.meshctl("demo", "--stop").stdout == "mesh stopped\n"
    assert demo.processes() == []
    assert port_problem(Addresses(demo.base, demo.port, port_given=True)) is None


CHECKED = """\
Checked {count} listeners of book-service.default.
LISTENER[FilterChain] | HTTP ROUTE | ALPN | mTLS (MODE) | AuthZ (RULES)
virtualInbound[0] | {route} | istio,istio-http/1.0,istio-http/1.1 | {mtls} | {rules}
{more}
ACTION | AuthorizationPolicy | RULES
{policies}
"""
NOBODY = "- | (none: every request is let in) | 0"


@pytest.mark.system("kubectl", "curl")
def test_section_3_identity_and_policy(demo: Demo) -> None:
    demo.demo("--detach")

    def checked(*words: str, x: str = "x") -> str:
        """The table; its columns apart by a bar."""
        said = demo.meshctl(x, "authz", "check", "book-service", *words).stdout
        return "".join(re.sub(" {2,}", " | ", line.rstrip()) + "\n" for line in said.splitlines())

    def expected(rules: str, policies: str, outbound: bool = False, mtls: str = "yes (PERMISSIVE)") -> str:
        more = "virtualOutbound[1] | 80,8080 | - | no (none) | no (none)\n" if outbound else ""
        route = "inbound|8080|http|book-service.default.svc.cluster.local"
        return CHECKED.format(count=1 + outbound, route=route, mtls=mtls, rules=rules, more=more, policies=policies)

    def told(token: str = "") -> tuple[int, str, str]:
        """Status, body and www-authenticate."""
        bearer = (demo.manifests / f"{token}.jwt").read_text().strip() if token else ""
        done = demo.shell("curl", "-si", demo.url, *(("-H", f"Authorization: Bearer {bearer}") if token else ()))
        head, _, body = done.stdout.partition("\n\n")
        found = re.search(r"^www-authenticate: (.*)$", head, re.M)
        return int(head.split()[1]), body, found[1] if found else ""

    realm = f'Bearer realm="http://{demo.url}", error="invalid_token"'
    good = (200, '{"bookId":1,"name":"Book 1","rating":1}', "")
    bad, denied = (401, "Jwt verification fails", realm), (403, "RBAC: access denied", "")

    def answers(token: str = "") -> set[tuple[int, str, str]]:
        """Of four requests: each rating was asked."""
        return {told(token) for _ in range(4)}

    goods = {good, (200, good[1].replace('"rating":1', '"rating":3'), "")}

    # before
    for x in ("x", "experimental"):
        assert checked(x=x) == expected("no (none)", NOBODY)
        assert checked("-a", x=x) == expected("no (none)", NOBODY, outbound=True)
    assert answers("invalid-signature") == goods

    tokens, rules = "request-authentication-jwt.yml", "authorization-policy-jwt.yml"
    issuer, policy = (f"{kind}.security.istio.io/{name}" for kind, name in (
        ("requestauthentication", "bookjwt"), ("authorizationpolicy", "require-jwt")
    ))  # fmt: skip
    assert demo.kubectl("apply", "-f", tokens) == f"{issuer} created\n"
    demo.live("security.istio.io/v1/requestauthentications/bookjwt")
    wait_until(lambda: told("invalid-signature") == bad, 2.0, "the key set is fetched and in force")
    assert answers("valid-no-role") == answers("valid-role-customer") == answers() == goods
    assert checked() == expected("no (none)", NOBODY)

    assert demo.kubectl("apply", "-f", rules) == f"{policy} created\n"
    demo.live("security.istio.io/v1/authorizationpolicies/require-jwt")
    assert told("valid-no-role") == denied
    assert told() == denied
    assert told("invalid-signature") == bad
    assert answers("valid-role-customer") == goods
    assert checked() == expected("yes (1 rule)", "ALLOW | require-jwt.default | 1")
    assert checked("-a", x="experimental") == expected("yes (1 rule)", "ALLOW | require-jwt.default | 1", outbound=True)

    # Everything between the sidecars is mutual TLS already; from now on nothing else is let in.
    strict = (
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\nspec: {mtls: {mode: STRICT}}\n"
    )
    (demo.manifests / "strict.yml").write_text(strict)
    demo.kubectl("apply", "-f", "strict.yml")
    demo.live("security.istio.io/v1/peerauthentications/default")
    assert checked() == expected("yes (1 rule)", "ALLOW | require-jwt.default | 1", mtls="yes (STRICT)")
    assert answers("valid-role-customer") == goods
    refused = demo.shell("curl", "-sS", f"{demo.pod(1)}:8080/book/1", check=False)
    assert refused.returncode == 56 and "Connection reset by peer" in refused.stderr

    # and back
    for file in ("strict.yml", rules, tokens):
        assert demo.kubectl("delete", "-f", file).endswith(" deleted\n")
        demo.meshctl("wait", "--for=delete", "-f", file, cwd=demo.manifests)
    assert answers("invalid-signature") == answers() == goods
    assert checked() == expected("no (none)", NOBODY)


def test_sidecars_and_the_gateway_say_what_they_do(demo: Demo) -> None:
    demo.demo("--detach")
    assert demo.book()[0] == 200
    for words, role, said in (
        (
            ("istio-ingressgateway", "-n", "istio-system"),
            "gateway istio-ingressgateway.istio-system",
            '"GET /book/1 HTTP/1.1" 200 - ',
        ),
        (("book-service", "-c", "istio-proxy"), "sidecar book-service.default", '"GET /rate/1 HTTP/1.1" 200 - '),
    ):
        wait_until(lambda words=words, said=said: said in demo.kubectl("logs", *words), 5.0, said)
        log = demo.kubectl("logs", *words).splitlines()
        assert re.search(rf" INFO meshproxy: meshproxy \S+ starts: {re.escape(role)}", log[0]), log
        assert any("first configuration in force: version " in line and "listeners " in line for line in log)


def container_pid(demo: Demo, pod: str, container: int, namespace: str = "default") -> int:
    api = demo.api()
    status = api.request("GET", f"/api/v1/namespaces/{namespace}/pods/{pod}")["status"]["containerStatuses"][container]
    api.close()
    return int(status["containerID"].removeprefix("pid://"))


def ready(demo: Demo, pod: str, namespace: str = "default") -> str:
    api = demo.api()
    statuses = api.request("GET", f"/api/v1/namespaces/{namespace}/pods/{pod}")["status"]["containerStatuses"]
    api.close()
    return f"{sum(one['ready'] for one in statuses)}/{len(statuses)}"


def endpoints(demo: Demo, service: str) -> set[str]:
    """Addresses that take traffic."""
    api = demo.api()
    slices = api.request(
        "GET",
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
        params={"labelSelector": f"kubernetes.io/service-name={service}"},
    )["items"]
    api.close()
    return {
        address
        for piece in slices
        for one in piece["endpoints"]
        if one.get("conditions", {}).get("ready") is not False
        for address in one["addresses"]
    }


def test_the_launcher_is_a_kubelet(demo: Demo) -> None:
    demo.demo("--detach")

    # An app: out of the endpoints within 2 s, started again, back. Requests go on meanwhile.
    os.kill(container_pid(demo, "rating-service-v2", 0), signal.SIGKILL)
    wait_until(lambda: endpoints(demo, "rating") == {demo.pod(2)}, 2.0, "v2 is out of the endpoints")
    assert ready(demo, "rating-service-v2") == "1/2"
    wait_until(lambda: endpoints(demo, "rating") == {demo.pod(2), demo.pod(3)}, 10.0, "v2 is back")
    assert ready(demo, "rating-service-v2") == "2/2"
    told = demo.kubectl("describe", "pod", "rating-service-v2")
    assert re.search(r"Normal +Started .*\(x2 over .*kubelet +Started container rating-service", told), told

    # A sidecar, the gateway, control: each comes back by itself, and then everything works.
    for pod, container, namespace in (
        ("rating-service-v1", 1, "default"),
        ("istio-ingressgateway", 0, "istio-system"),
        ("control", 0, "istio-system"),
    ):
        pid = container_pid(demo, pod, container, namespace)
        os.kill(pid, signal.SIGKILL)

        def back(pod: str = pod, container: int = container, namespace: str = namespace, pid: int = pid) -> bool:
            try:
                return container_pid(demo, pod, container, namespace) != pid and ready(demo, pod, namespace).split("/")[0] != "0"
            except Exception:  # control itself is away
                return False

        wait_until(back, 15.0, f"{pod} is back")
    wait_until(lambda: ready(demo, "rating-service-v1") == "2/2", 10.0, "v1 is ready")
    wait_until(lambda: endpoints(demo, "rating") == {demo.pod(2), demo.pod(3)}, 10.0, "both ratings are endpoints")
    wait_until(lambda: sorted(str(rating) for rating in demo.ratings(2)) == ["1", "3"], 10.0, "both ratings answer")

    # A second start is told who runs; another mesh on the same addresses is told which port and which option.
    second = demo.demo("--detach", check=False)
    assert second.returncode == 1 and "already runs (pid " in second.stderr and second.stderr.count("\n") == 1
    clash = demo.meshctl("demo", "--detach", "--state", "other", "--base", demo.base, "--port", str(demo.port), check=False)
    assert (
        clash.returncode == 1 and re.search(rf"port {demo.port} .*in use.*--port", clash.stderr) and clash.stderr.count("\n") == 1
    )

    # kill -9 of the launcher leaves nobody behind, and the mesh starts again from its state.
    launcher = json.loads((demo.state / "demo.json").read_text())["pid"]
    os.kill(launcher, signal.SIGKILL)
    wait_until(lambda: demo.processes() == [], 5.0, "no process is left")
    demo.port = free_port()  # another one: the gateway's Service tells it
    again = demo.demo("--detach").stdout
    assert again.startswith("mesh ready\n") and "Kept from" not in again
    assert f" 80:{demo.port}/TCP " in demo.kubectl("get", "services", "-n", "istio-system")
    assert sorted(str(rating) for rating in demo.ratings(2)) == ["1", "3"]


def test_two_demos_side_by_side_need_only_another_base_and_directory(demo: Demo) -> None:
    bases = (demo.base, re.sub(r"^127\.(\d+)", lambda found: f"127.{int(found[1]) - 50}", demo.base))
    try:
        for number, base in enumerate(bases):
            started = demo.meshctl("demo", "--detach", "--base", base, "--state", f"mesh{number}").stdout
            assert started.startswith("mesh ready\n")
        for base in bases:
            assert demo.curl(f"{Addresses(base).gateway}:8080/book/1") == (200, '{"bookId":1,"name":"Book 1","rating":1}')
    finally:
        for number, _ in enumerate(bases):
            demo.meshctl("demo", "--stop", "--state", f"mesh{number}", check=False)


PROGRAM = """
import http.server, os
class Hello(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = b"hello from " + os.environ["POD_NAME"].encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        print("asked", flush=True)
http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Hello).serve_forever()
"""


def test_any_local_program_joins_the_mesh(demo: Demo) -> None:
    demo.demo("--detach")
    argv = [BIN / "meshctl", "run", "--name", "hello", "-l", "tier=test", "--port", "8080", "--", sys.executable, "-c", PROGRAM]
    with subprocess.Popen(argv, cwd=demo.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        assert running.stdout is not None
        said = running.stdout.readline()
        assert said.startswith(f"default/hello is in the mesh at {demo.pod(30)}:8080"), said
        assert ready(demo, "hello") == "2/2"
        demo.meshctl("wait", "--for=distribution", "pod/hello")
        wait_until(
            lambda: demo.shell("curl", "-s", "-x", f"{demo.pod(1)}:15001", "http://hello:8080/").stdout == "hello from hello",
            5.0,
            "book-service's sidecar reaches hello by its name",
        )
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=20)
        assert running.returncode == 0
    gone = demo.meshctl("get", "pod,service", "hello", check=False)
    assert gone.returncode == 1 and gone.stderr.count("NotFound") == 2


def test_a_killed_run_leaves_no_ghost(demo: Demo) -> None:
    demo.demo("--detach")
    argv = [BIN / "meshctl", "run", "--name", "hello", "--port", "8080", "--", sys.executable, "-c", PROGRAM]
    with subprocess.Popen(argv, cwd=demo.root, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline().startswith("default/hello is in the mesh")
        wait_until(lambda: endpoints(demo, "hello") == {demo.pod(30)}, 5.0, "hello is an endpoint")
        running.kill()
        api = demo.api()

        def named(path: str) -> set[str]:
            return {one["metadata"]["name"] for one in api.request("GET", path)["items"]}

        gone = lambda: "hello" not in named("/api/v1/pods") | named("/api/v1/services")  # noqa: E731
        wait_until(gone, 2.0, "pod and Service went with the kubelet")
        wait_until(lambda: endpoints(demo, "hello") == set(), 1.0, "no endpoint is left")
        assert named("/api/v1/namespaces/default/pods") == {"book-service", "rating-service-v1", "rating-service-v2"}
        api.close()


def test_a_program_that_keeps_ending_is_one_line_and_not_a_traceback(demo: Demo) -> None:
    demo.demo("--detach")
    ended = demo.meshctl("run", "--name", "broken", "--port", "8080", "--", "sh", "-c", "echo no database; exit 3", check=False)
    assert ended.returncode == 1
    said = ended.stderr.splitlines()
    assert said[-1].startswith("error: broken: container broken is not ready: no database (log: ")
    assert set(said[:-1]) == {"broken: broken ended (exit code 3), it is started again"}
    assert set(ended.stdout.splitlines()) == {"no database"}
