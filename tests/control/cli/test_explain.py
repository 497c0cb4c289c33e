"""meshctl explain: offline from files; and live, a real sidecar asked through a real mesh-control."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from control.cli.__main__ import main
from control.client.api import Api
from control.client.kubeconfig import load
from tests.control.cli.mesh_files import APP

Run = Callable[..., tuple[int, str, str]]
BASE = "127.79.3"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def go(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        said = capsys.readouterr()
        return code, said.out, said.err

    return go


@pytest.fixture
def files(tmp_path: Path) -> str:
    path = tmp_path / "app.yml"
    path.write_text(APP)
    return str(path)


def test_the_whole_decision_in_words(run: Run, files: str) -> None:
    code, out, err = run("explain", "GET", "http://rating:8080/rate/1", "--from", "book", "-f", files, "-H", "X-User: jo")
    assert (code, err) == (0, "")
    assert out == (
        "GET http://rating:8080/rate/1 from default/book, by the files\n"
        "\n"
        "Decision     forward\n"
        "Listener     outbound\n"
        'Host         rating.default.svc.cluster.local:8080: "rating" is among its hosts\n'
        "Rule         VirtualService default/rating http[0].match[0]\n"
        '             because header x-user is "jo"\n'
        "Not taken    VirtualService default/rating http[1].match[0], VirtualService default/rating http[2].match[0], "
        "VirtualService default/rating http[3].match[0], VirtualService default/rating http[4].match[0] and 1 more: "
        "a route before it matched\n"
        "Destination  100 %  outbound|8080|v2|rating.default.svc.cluster.local  (DestinationRule default/rating subset v2)\n"
        "                    mutual TLS where a sidecar takes it (automatic), server name "
        "outbound_.8080_.v2_.rating.default.svc.cluster.local\n"
        "                    the server must be cluster.local/ns/default/sa/default\n"
        "                    ROUND_ROBIN\n"
        "                    sent as /v2/rate/1 to host rating:8080\n"
        "                    with x-new: 1, x-envoy-original-path: /rate/1\n"
        "                    without x-user\n"
        "                    response: set x-served: mesh\n"
        "                    response: remove x-debug\n"
        "                    rating-v2 v2  healthy, mutual TLS\n"
        "Timeout      2 s for all tries together\n"
        "Retries      2 more tries on 5xx, reset; 0.5 s each; on another endpoint if there is one\n"
        "Mirror       10 % also go to outbound|8080|v1|rating.default.svc.cluster.local\n"
        "Reached      default/rating-v2 lets it in\n"
        "                    caller      cluster.local/ns/default/sa/default over mutual TLS\n"
        "                    mutual TLS  PERMISSIVE (the default)\n"
    )


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/rate/1", ("forward to one of 2 destinations", "75 %", "25 %", '"jo": it is absent', "rating-v1-0 v1")),
        ("/old/x", ("redirect: the client gets 302", "location: http://rating:8080/new")),
        ("/tea", ("answer 418 at once", "body 'short'")),
        ("/gone", ("answer 503: no destination has an endpoint", "flag UH", "body 'no healthy upstream'")),
        ("/broken", ("answer 500: an injected fault aborts every request", "5 % wait 1 s first", "fault filter abort")),
        ("/nothing", ("answer 404: no rule of this host matches", "flag NR", "no body")),
        ("/a%00", ("refuse: 400",)),
    ],
)
def test_other_decisions_in_words(run: Run, files: str, path: str, says: tuple[str, ...]) -> None:
    code, out, err = run("explain", f"http://rating:8080{path}", "--from", "book", "-f", files)
    assert (code, err) == (0, "")
    assert [part for part in says if part not in out] == []


def test_what_nobody_knows(run: Run, files: str) -> None:
    _, out, _ = run("explain", "http://example.org/x", "--from", "book", "-f", files)
    assert "outboundTrafficPolicy ALLOW_ANY" in out and "example.org  dialled as asked" in out
    _, out, _ = run("explain", "http://other:8080/x", "--from", "book", "-f", files)
    assert "Other hosts" in out and "rating.default.svc.cluster.local:8080: its hosts" in out


@pytest.mark.parametrize("source", ["gateway", "istio-ingressgateway"])
def test_gateways_use_the_listener_of_the_port(run: Run, files: str, source: str) -> None:
    for url, listener in (("http://shop.example.com/api", "gateway|80"), ("http://b.example.com:8081/api", "gateway|8081")):
        told = json.loads(run("explain", url, "--from", source, "-f", files, "-o", "json")[1])
        assert (told["listener"], told["route"]["source"]) == (listener, "VirtualService default/edge http[0].match[0]")
    code, _, err = run("explain", "http://shop.example.com:99/api", "--from", source, "-f", files)
    assert (code, err) == (1, "error: listener: say which one is meant, with --listener; there are gateway|80, gateway|8081\n")
    assert run("explain", "http://shop.example.com:99/api", "--from", source, "-f", files, "--listener", "gateway|80")[0] == 0


def test_a_gateways_service_leads_to_the_pods_port(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "all.yml"
    path.write_text(
        f"""{APP}
---
{{apiVersion: v1, kind: Service, metadata: {{name: in, namespace: istio-system}}, spec: {{selector: {{istio: ingressgateway}},
  ports: [{{name: http, port: 80, targetPort: 8080}}, {{name: http-b, port: 8081, targetPort: 9091}}]}}}}
---
{{apiVersion: v1, kind: Pod, metadata: {{name: in-1, namespace: istio-system, labels: {{istio: ingressgateway}}}},
  spec: {{containers: [{{name: istio-proxy, image: auto}}]}}}}
"""
    )
    code, out, err = run("explain", "http://b.example.com:8081/api", "--from", "in-1.istio-system", "-f", str(path), "-o", "json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["listener"] == "gateway|9091"


def test_forms_of_output(run: Run, files: str) -> None:
    words = ("explain", "rating:8080/rate/1", "--from", "deploy/book", "-f", files, "-o")
    told = json.loads(run(*words, "json")[1])
    assert yaml.safe_load(run(*words, "yaml")[1]) == told
    assert told["decision"] == "forward" and [one["percent"] for one in told["destinations"]] == [75.0, 25.0]
    assert run(*words, "xml")[0] == 2


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("http://x/", "--from", "nobody"), 1, "--from nobody: there is no such pod in the files; they hold default/book"),
        (("ftp://x/", "--from", "book"), 1, "url: must be http or https, not ftp"),
        (("GET", "http://x/", "more", "--from", "book"), 2, "give one METHOD and one URL"),
        (
            ("http://x/", "--from", "book", "--source-ip", "10.0.0"),
            2,
            "--source-ip 10.0.0: must be an IP address, such as 10.0.0.7",
        ),
        (("http://x/", "--from", "book", "-H", "nonsense"), 2, "-H nonsense: must be 'name: value'"),
        (("http://x/", "--from", "book", "--listener", "inbound"), 1, "no listener 'inbound'; there are outbound"),
    ],
)
def test_wrong_usage_is_one_line(run: Run, files: str, words: tuple[str, ...], code: int, says: str) -> None:
    got, out, err = run("explain", *words, "-f", files)
    assert (got, out, len(err.splitlines())) == (code, "", 1)
    assert says in err


def test_invalid_files_are_refused_whole(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "bad.yml"
    path.write_text(APP.replace("timeout: 2s", "timeout: 2").replace("subset: v9", "subsett: v9"))
    code, _, err = run("explain", "http://rating:8080/", "--from", "book", "-f", str(path))
    assert code == 1
    assert err.splitlines() == [
        f'error: {path}: VirtualService default/rating: spec.http[0].timeout: must be a duration such as "2s", '
        "not an integer (2)",
        f"error: {path}: VirtualService default/rating: spec.http[3].route[0].destination.subsett: unknown field; "
        'did you mean "subset"?',
    ]


# -- live ----------------------------------------------------------------------------------------------------------------


def pod(name: str, ip: str, **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {"containers": [{"name": "app", "image": "x"}, {"name": "istio-proxy", "image": "x"}]},
        "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]},
    }


@pytest.fixture(scope="module")
def sidecar(control: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The sidecar of a pod ``book`` beside two pods of ``rating`` that nobody is behind."""
    api = Api(load([control / "kubeconfig"]))
    pods = [
        pod("book", f"{BASE}.1", app="book"),
        pod("rating-1", f"{BASE}.2", app="rating", version="v1"),
        pod("rating-2", f"{BASE}.3", app="rating", version="v2"),
    ]
    for one in pods:
        status = one.pop("status")
        api.request("POST", "/api/v1/namespaces/default/pods", body=one)
        api.request(
            "PATCH",
            f"/api/v1/namespaces/default/pods/{one['metadata']['name']}/status",
            body={"status": status},
            content_type="application/merge-patch+json",
        )
    for document in list(yaml.safe_load_all(APP)):
        if document["kind"] in ("Service", "VirtualService", "DestinationRule"):
            group = "api/v1" if document["apiVersion"] == "v1" else f"apis/{document['apiVersion']}"
            if document["kind"] == "DestinationRule":
                document["spec"]["trafficPolicy"] = {
                    "outlierDetection": {"consecutive5xxErrors": 1, "baseEjectionTime": "3m", "maxEjectionPercent": 100}
                }
            api.request("POST", f"/{group}/namespaces/default/{document['kind'].lower()}s", body=document)
    token = tmp_path_factory.mktemp("token") / "book"
    token.write_text(api.request("POST", "/mesh/v1/tokens", body={"namespace": "default", "pod": "book"})["token"])
    token.chmod(0o600)
    argv = [sys.executable, "-P", "-m", "meshproxy", "--pod", "book", "--namespace", "default", "--ip", f"{BASE}.1"]
    argv += ["--control", api.target.server, "--control-ca", str(control / "ca" / "root.pem"), "--token-file", str(token)]
    with subprocess.Popen([*argv, "--drain-seconds", "0", "--log-level", "warning"]) as process:
        try:
            until = time.monotonic() + 20
            while not settled(api):
                assert process.poll() is None and time.monotonic() < until, "the sidecar did not get its configuration"
                time.sleep(0.02)  # nothing tells us; the sidecar is another process
            yield control
        finally:
            process.terminate()
            process.wait(timeout=20)
            api.close()


def settled(api: Api) -> bool:
    found = api.request("GET", "/mesh/v1/proxies")
    if not any(one["status"] == "SYNCED" for one in found["proxies"]):
        return False
    try:
        told = api.request("GET", "/mesh/v1/proxies/default/book/query?verb=explain&url=http://rating:8080/rate/1")
    except Exception:
        return False
    return [len(one.get("endpoints", ())) for one in told.get("destinations", ())] == [1, 1]


def test_a_running_sidecar_says_what_it_would_do(run: Run, sidecar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(sidecar / "kubeconfig"))
    words = ("explain", "GET", "http://rating:8080/rate/1", "--from", "book")
    code, out, err = run(*words, "-H", "x-user: jo")
    assert (code, err) == (0, "")
    assert "from default/book\n" in out and "because header x-user is" in out and "Timeout      2 s" in out
    assert f"{BASE}.3:8080  rating-2 v2  healthy" in out
    # Nobody listens at the pods' addresses: the connection fails, which ejects the endpoint.
    client = http.client.HTTPConnection(f"{BASE}.1", 15001, timeout=10, source_address=(f"{BASE}.1", 0))
    client.request("GET", "http://rating:8080/rate/1", headers={"x-user": "jo"})
    assert client.getresponse().status == 503
    client.close()
    told = json.loads(run(*words, "-H", "x-user: jo", "-o", "json")[1])
    assert told["decision"] == "no healthy upstream" and told["status"] == 503
    _, out, _ = run(*words, "-H", "x-user: jo")
    assert "rating-2 v2  ejected for 1" in out and "every endpoint is ejected: 503, UH" in out


def test_live_and_offline_agree(run: Run, sidecar: Path, files: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(sidecar / "kubeconfig"))
    for path in ("/rate/1?x=1", "/old/x", "/tea", "/gone", "/broken", "/nothing"):
        words = ("explain", "POST", f"http://rating:8080{path}", "--from", "book", "-H", "x-debug: 1", "-o", "json")
        live, offline = json.loads(run(*words)[1]), json.loads(run(*words, "-f", files)[1])
        for told in (live, offline):
            for key in ("snapshot", "own", "callees"):
                told.pop(key, None)
            for destination in told.get("destinations", ()):
                for key in ("endpoints", "outlierDetection", "reason"):
                    destination.pop(key, None)
        if path != "/rate/1?x=1":  # there outlier detection may have had its say
            assert live == offline
        assert live.get("route") == offline.get("route")
        assert live["steps"] == offline["steps"]


def test_a_name_that_one_sidecar_has_needs_no_namespace(run: Run, sidecar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(sidecar / "kubeconfig"))
    for source in ("book", "book.default", "default/book"):
        assert run("explain", "http://rating:8080/tea", "--from", source)[0] == 0
    code, _, err = run("explain", "http://rating:8080/tea", "--from", "book", "-n", "other")
    assert (code, err) == (1, "error: no sidecar other/book is connected; `meshctl proxy-status` lists those that are\n")
    code, _, err = run("explain", "ftp://rating/", "--from", "book")
    assert (code, err) == (1, "error: sidecar default/book: url: must be http or https, not ftp\n")


BYTES = """
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {selector: {app: db}, clusterIP: 10.96.0.7, ports: [{name: tcp, port: 5432}]}
---
apiVersion: v1
kind: Pod
metadata:
  {name: db-1, labels: {app: db, security.istio.io/tlsMode: istio}, annotations: {sidecar.istio.io/interceptionMode: REDIRECT}}
spec: {containers: [{name: a}]}
status: {podIP: 10.0.0.1, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, annotations: {sidecar.istio.io/interceptionMode: REDIRECT}}
spec: {containers: [{name: a}]}
status: {podIP: 10.0.0.2, conditions: [{type: Ready, status: "True"}]}
"""
NOBODY = """
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: none}
spec: {action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/default]}}]}]}
"""


@pytest.mark.parametrize(
    ("more", "end"), [("", "lets it in"), (NOBODY, "resets the connection: rule 0 of DENY policy default/none")]
)
@pytest.mark.parametrize("host", ["db", "10.96.0.7"])
def test_bytes_are_explained_on_both_sides(run: Run, tmp_path: Path, host: str, more: str, end: str) -> None:
    given = tmp_path / "all.yml"
    given.write_text(BYTES + more)
    code, out, err = run("explain", f"tcp://{host}:5432", "--from", "client", "-f", str(given))
    assert code == 0, err
    assert "outbound|5432||db.default.svc.cluster.local" in out
    assert f"Reached      default/db-1 {end}" in out
