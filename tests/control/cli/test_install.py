"""meshctl install, manifest generate, upgrade, verify-install, uninstall, x precheck, in front of a cluster of the test's own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml

from control.cli.__main__ import main
from control.cli.installed import KINDS, collection, differences, path

Obj = dict[str, Any]


class Cluster:
    """Objects by path. Reads, label selectors, deletions, access reviews; ``apply`` is kubectl's, as far as it matters here."""

    def __init__(self) -> None:
        self.objects: dict[str, Obj] = {}
        self.may = True
        self.asked: list[str] = []
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                """Not in tests."""

            def _say(self, code: int, body: Obj) -> None:
                data = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def _any(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                cluster.asked.append(f"{self.command} {self.path}")
                self._say(*cluster.answer(self.command, self.path))

            do_GET = do_POST = do_DELETE = do_PATCH = _any

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, method: str, url: str) -> tuple[int, Obj]:
        at = urlsplit(url)
        if at.path == "/version":
            return 200, {"gitVersion": "v1.33.1"}
        if at.path.endswith("/selfsubjectaccessreviews"):
            return 201, {"status": {"allowed": self.may}}
        if at.path in self.objects:
            if method == "DELETE":
                return 200, self.objects.pop(at.path)
            return 200, self.objects[at.path]
        plural = at.path.rpartition("/")[2]
        if plural in {one[1] for one in KINDS.values()}:
            found = [obj for key, obj in self.objects.items() if key.rpartition("/")[0].endswith("/" + plural)]
            selector = parse_qs(at.query).get("labelSelector", [""])[0]
            return 200, {"items": [obj for obj in found if selected(unquote(selector), obj["metadata"].get("labels") or {})]}
        return 404, {"kind": "Status", "reason": "NotFound", "message": f"{at.path} not found", "code": 404}

    def apply(self, text: str, ready: bool = True) -> None:
        """And what the cluster and control do then."""
        for obj in yaml.safe_load_all(text):
            here = self.objects.setdefault(path(obj), obj)
            here.update(obj)
            if obj["kind"] == "Deployment":
                here["status"] = {"readyReplicas": obj["spec"]["replicas"] if ready else 0, "observedGeneration": 1}
            if obj["kind"] == "CustomResourceDefinition":
                stored = [version["name"] for version in obj["spec"]["versions"] if version["storage"]]
                here["status"] = {"conditions": [{"type": "Established", "status": "True"}], "storedVersions": stored}
            for hook in obj.get("webhooks", ()) if ready else ():
                hook["clientConfig"]["caBundle"] = "Y2E="
                hook["failurePolicy"] = "Fail"

    def put(self, kind: str, name: str, namespace: str = "", **more: Any) -> None:
        metadata = {"name": name, **({"namespace": namespace} if namespace else {}), **more.pop("metadata", {})}
        self.objects[f"{collection(kind, namespace)}/{name}"] = {"metadata": metadata, **more}


def selected(selector: str, labels: Obj) -> bool:
    import re

    for part in re.findall(r"[^,(]+(?:\([^)]*\))?", selector):
        if not part.strip(","):
            continue
        if found := re.fullmatch(r"(\S+) (in|notin) \(([^)]*)\)", part.strip(", ")):
            if (labels.get(found[1]) in [one.strip() for one in found[3].split(",")]) != (found[2] == "in"):
                return False
        else:
            key, _, value = part.strip(", ").partition("=")
            if labels.get(key) != value:
                return False
    return True


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    made = Cluster()
    config = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{made.server.server_port}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.chdir(tmp_path)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


class Said:
    def __init__(self, capsys: pytest.CaptureFixture[str], *words: str) -> None:
        self.code = main(list(words))
        self.out, self.err = capsys.readouterr()

    @property
    def names(self) -> set[str]:
        return {f"{obj['kind']}/{obj['metadata']['name']}" for obj in yaml.safe_load_all(self.out)}


def test_without_a_cluster(nowhere: None, capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(capsys, "install", "--set", "profile=demo")
    assert said.code == 0 and {"Deployment/istiod", "Deployment/istio-egressgateway", "Namespace/istio-system"} <= said.names
    assert said.err.splitlines() == [
        "Warning: no cluster was looked at, so not whether another mesh is there: there is no kubeconfig",
        "after `kubectl apply -f -` of this: meshctl verify-install",
    ]
    assert said.out == Said(capsys, "manifest", "generate", "--set", "profile=demo").out


def test_wrong_settings_print_nothing(nowhere: None, capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(capsys, "install", "--set", "values.global.hubb=x", "--set", "values.global.proxy.logLevell=x")
    assert (said.code, said.out) == (1, "")
    assert sorted(said.err.splitlines()) == [
        'error: values.global.hubb: unknown field; did you mean "hub"?',
        'error: values.global.proxy.logLevell: unknown field; did you mean "logLevel"?',
    ]
    said = Said(capsys, "install", "--set", "values.global.proxy.includeInboundPorts=http")
    assert said.code == 1 and said.out == "" and "includeInboundPorts" in said.err


@pytest.mark.parametrize(
    "setting, line",
    [
        (
            "components.pilot.k8s.resources.requests.cpu=5x",
            'istiod: resources.requests.cpu: must be a quantity such as 100m or 128Mi, not "5x"',
        ),
        (
            "values.pilot.resources.limits.memory=",
            'istiod: resources.limits.memory: must be a quantity such as 100m or 128Mi, not ""',
        ),
        (
            "components.ingressGateways[0].k8s.resources.requests.memory=true",
            'istio-ingressgateway: resources.requests.memory: must be a quantity such as 100m or 128Mi, not "True"',
        ),
        (
            "values.pilot.resources.limits.memory=1Mi",
            "istiod: resources.requests.memory: must be at most the limit, 1Mi, not 512Mi",
        ),
    ],
)
def test_amounts_that_a_cluster_would_refuse(nowhere: None, capsys: pytest.CaptureFixture[str], setting: str, line: str) -> None:
    """After it had taken the rest."""
    said = Said(capsys, "install", "--set", setting)
    assert (said.code, said.out, said.err) == (1, "", f"error: {line}\n")


def test_files(nowhere: None, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text("profile: minimal\nhub: registry.example/m\nfuture: 1\n")
    said = Said(capsys, "install", "-f", "mesh.yaml", "--set", "tag=7")
    assert "image: registry.example/m/mesh:7" in said.out and "Deployment/istio-ingressgateway" not in said.names
    assert "Warning: future: unknown field: ignored" in said.err
    assert Said(capsys, "install", "-f", "no.yaml").code == 1


def test_install_verify_and_again(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(capsys, "install", "--set", "profile=demo")
    assert said.code == 0 and said.err.splitlines() == ["after `kubectl apply -f -` of this: meshctl verify-install"]
    assert Said(capsys, "verify-install").code == 1
    cluster.apply(said.out, ready=False)
    half = Said(capsys, "verify-install")
    assert half.code == 1 and "0 of 1 pods are ready" in half.out and "has not written caBundle" in half.out
    assert "deployment.apps/istio-egressgateway -n istio-system: 0 of 1" in half.out
    cluster.apply(said.out)
    assert Said(capsys, "verify-install").code == 0
    assert Said(capsys, "verify-install", "--set", "profile=demo").code == 0
    again = Said(capsys, "install", "--set", "profile=demo")
    for obj in yaml.safe_load_all(again.out):
        assert differences(obj, cluster.objects[path(obj)]) == []
    assert [line for line in cluster.asked if not line.startswith("GET")] == []


def test_another_version_is_shown_before_it_is_applied(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.apply(Said(capsys, "install").out)
    assert Said(capsys, "upgrade").out == ""
    said = Said(capsys, "upgrade", "--set", "tag=next", "--set", "profile=demo")
    assert "change  deployment.apps/istiod -n istio-system: spec" in said.out
    assert "create  deployment.apps/istio-egressgateway -n istio-system" in said.out
    differs = Said(capsys, "verify-install", "--set", "tag=next")
    assert differs.code == 1 and "differs at spec.template.spec.containers[discovery].image" in differs.out


def istio(cluster: Cluster, namespace: str = "istio-system", rev: str = "default") -> None:
    labels = {"app": "istiod", "istio.io/rev": rev}
    cluster.put("Deployment", "istiod", namespace, metadata={"labels": labels})
    hook = {"app": "sidecar-injector", "istio.io/rev": rev}
    cluster.put("MutatingWebhookConfiguration", "istio-sidecar-injector", metadata={"labels": hook})
    cluster.put("CustomResourceDefinition", "gateways.networking.istio.io", status={"storedVersions": ["v1beta1"]})


def test_beside_istio(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    istio(cluster)
    said = Said(capsys, "install")
    assert (said.code, said.out) == (1, "") and "give --revision NAME" in said.err and "deployment.apps/istiod" in said.err
    assert Said(capsys, "x", "precheck").code == 1
    canary = Said(capsys, "install", "--revision", "canary", "--set", "profile=minimal")
    assert canary.code == 0 and "Deployment/istiod-canary" in canary.names and "left as they are" in canary.err
    assert not any(name.startswith("CustomResourceDefinition") for name in canary.names)
    assert Said(capsys, "install", "--revision", "default").code == 1
    elsewhere = Said(capsys, "install", "--revision", "canary", "--set", "namespace=mesh")
    assert elsewhere.code == 1 and "--set namespace=istio-system" in elsewhere.err
    cluster.put("Deployment", "istio-ingressgateway", "istio-system")
    assert "--set profile=minimal" in Said(capsys, "install", "--revision", "canary").err
    assert Said(capsys, "install", "--force").code == 0


def test_precheck(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(capsys, "x", "precheck")
    assert said.code == 0 and "safe to install" in said.out
    cluster.put("Namespace", "odd", metadata={"labels": {"istio-injection": "enabled", "istio.io/rev": "a"}})
    cluster.put("Namespace", "istio-system", metadata={"labels": {"istio-injection": "disabled"}})
    cluster.put("CustomResourceDefinition", "gateways.networking.istio.io", status={"storedVersions": ["v1alpha1", "v1beta1"]})
    cluster.may = False
    said = Said(capsys, "x", "precheck")
    assert said.code == 1
    for line in ("namespace odd: has both", "keeps the injector from its gateways", "stored as v1alpha1", "you may not create"):
        assert line in said.out


def test_uninstall(cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.apply(Said(capsys, "install", "--set", "profile=demo").out)
    made = {"app.kubernetes.io/managed-by": "mesh-control"}
    cluster.put("Secret", "istio-ca-secret", "istio-system", metadata={"labels": made})
    cluster.put("Secret", "cacerts", "istio-system")
    cluster.put("ConfigMap", "istio-ca-root-cert", "shop", metadata={"labels": made})
    cluster.put("Service", "other", "istio-system", metadata={"labels": {"app": "other"}})
    before = set(cluster.objects)
    monkeypatch.setattr("sys.stdin", __import__("io").StringIO("n\n"))
    assert Said(capsys, "uninstall").code == 1 and set(cluster.objects) == before
    assert Said(capsys, "uninstall", "--dry-run").code == 0 and set(cluster.objects) == before
    said = Said(capsys, "uninstall", "-y")
    assert said.code == 0 and said.out.splitlines()[0].startswith('mutatingwebhookconfiguration.admissionregistration.k8s.io "')
    left = {key.split("/")[-2] + "/" + key.split("/")[-1] for key in cluster.objects}
    assert {name for name in left if not name.startswith("customresource")} == {
        "namespaces/istio-system",
        "secrets/istio-ca-secret",
        "secrets/cacerts",
        "configmaps/istio-ca-root-cert",
        "services/other",
    }
    assert sum(name.startswith("customresource") for name in left) == 14
    assert Said(capsys, "uninstall", "--purge", "-y").code == 0
    assert {key.rpartition("/")[2] for key in cluster.objects} == {"istio-system", "cacerts", "other"}
    assert "nothing of this mesh" in Said(capsys, "uninstall", "-y").err


def test_one_revision_is_uninstalled_and_the_other_stays(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.apply(Said(capsys, "install", "--set", "profile=minimal").out)
    before = set(cluster.objects)
    cluster.apply(Said(capsys, "install", "--set", "profile=minimal", "--revision", "canary").out)
    assert Said(capsys, "uninstall", "-y").code == 2
    assert Said(capsys, "uninstall", "-y", "--revision", "canary").code == 0
    assert set(cluster.objects) == before


@pytest.mark.parametrize(
    "wanted, live, expected",
    [
        ({"a": 1}, {"a": 1, "b": 2}, []),
        ({"a": {"b": 1}}, {"a": {}}, ["a.b"]),
        ({"a": [1, 2]}, {"a": [1]}, ["a"]),
        ({"a": [{"name": "x", "v": 1}]}, {"a": [{"name": "y"}, {"name": "x", "v": 2}]}, ["a[x].v"]),
        ({"a": []}, {}, []),
        ({"a": False, "b": ""}, {}, []),
        ({"s": {"limits": {"cpu": "2000m"}}}, {"s": {"limits": {"cpu": "2"}}}, []),
        ({"s": {"limits": {"cpu": "2000m"}}}, {"s": {"limits": {"cpu": "1"}}}, ["s.limits.cpu"]),
    ],
)
def test_differences(wanted: Obj, live: Obj, expected: list[str]) -> None:
    assert differences(wanted, live) == expected
