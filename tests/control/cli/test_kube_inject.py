"""``meshctl kube-inject``: bytes that are left alone, documents that are written anew, whose settings are used."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from control.cli.__main__ import main

Run = Callable[..., tuple[int, str, str]]
SERVICE = """\
# Copyright: us
apiVersion: v1
kind: Service   # the door
metadata: {name:   web}
spec:
  ports: [ {port: 80} ]   # odd   spacing
"""
DEPLOYMENT = """\
# the shop window
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - {name: web, image: "web:1"}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Without any cluster in reach; the words, then stdin."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "values.yml").write_text("tag: test\n")

    def call(*words: str, text: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        code = main(["kube-inject", *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def inject(run: Run, text: str) -> str:
    code, out, err = run("-f", "-", "--valuesFile", "values.yml", text=text)
    assert (code, err) == (0, "")
    return out


def names(document: Any) -> list[str]:
    return [one["name"] for one in document["spec"]["template"]["spec"]["containers"]]


def test_untouched_documents_stay_byte_for_byte(run: Run) -> None:
    before = f"---\n{SERVICE}--- # next\n"
    after = f"---\n# nothing here\n---\n\n---\n{SERVICE}..."
    out = inject(run, before + DEPLOYMENT + after)
    assert out.startswith(before + "# the shop window\napiVersion: apps/v1\n")
    assert out.endswith(after + "\n")
    documents = list(yaml.safe_load_all(out))
    assert names(documents[1]) == ["web", "istio-proxy"]
    assert inject(run, out) == out


@pytest.mark.parametrize(
    "text",
    [
        SERVICE,
        SERVICE.replace("\n", "\r\n"),
        f"%YAML 1.1\n---\n{SERVICE}",
        "",
        "# only a comment\n",
        "---\n---\n",
        "a: |\n  --- not a mark\n  text\n",
        '{"apiVersion": "v1",   "kind": "ConfigMap"}\n',
        DEPLOYMENT.replace("spec:\n      containers", "spec:\n      hostNetwork: true\n      containers"),
        DEPLOYMENT.replace("labels: {app: web}", 'labels: {app: web, sidecar.istio.io/inject: "false"}'),
        "just: text\n---\n- a\n- list\n",
    ],
)
def test_what_needs_no_sidecar_comes_out_as_it_went_in(run: Run, text: str) -> None:
    code, out, err = run("-f", "-", "--valuesFile", "values.yml", text=text)
    assert (code, out) == (0, text)
    assert ("Skipping injection because" in err) == ("kind: Deployment" in text)


def test_forms(run: Run) -> None:
    as_json = json.dumps(yaml.safe_load(DEPLOYMENT))
    out = inject(run, as_json)
    assert names(json.loads(out)) == ["web", "istio-proxy"]
    inline = inject(run, f"--- {as_json}\n---\n{SERVICE}")
    assert names(next(yaml.safe_load_all(inline))) == ["web", "istio-proxy"]
    assert inline.endswith(f"\n---\n{SERVICE}")
    directive = inject(run, f"%YAML 1.1\n---\n{DEPLOYMENT}")
    assert directive.startswith("%YAML 1.1\n---\n# the shop window\n")
    assert names(yaml.safe_load(directive)) == ["web", "istio-proxy"]
    listed = inject(run, yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": [yaml.safe_load(DEPLOYMENT)]}))
    assert names(yaml.safe_load(listed)["items"][0]) == ["web", "istio-proxy"]
    anchored = DEPLOYMENT.replace("matchLabels: {app: web}", "matchLabels: &l {app: web}").replace(
        "labels: {app: web}\n    s", "labels: *l\n    s"
    )
    out = inject(run, anchored)
    assert yaml.safe_load(out)["spec"]["selector"] == {"matchLabels": {"app": "web"}}
    assert "*" not in out.replace("'*'", "").replace('"*"', "")


def test_several_files_and_an_output(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(SERVICE.rstrip("\n"))
    (tmp_path / "b.yml").write_text(DEPLOYMENT)
    code, out, _ = run("-f", "a.yml", "-f", "b.yml", "--valuesFile", "values.yml", "-o", "out.yml")
    assert (code, out) == (0, "")
    assert [one["kind"] for one in yaml.safe_load_all((tmp_path / "out.yml").read_text())] == ["Service", "Deployment"]
    assert (tmp_path / "out.yml").read_text().startswith(SERVICE + "---\n# the shop window\n")
    code, _, err = run("-f", "a.yml", "--valuesFile", "values.yml", "-o", "no/such/place.yml")
    assert (code, err) == (1, "error: no/such/place.yml: cannot be written: No such file or directory\n")


def test_a_refusal_prints_nothing_else(run: Run) -> None:
    bad = DEPLOYMENT.replace("labels: {app: web}", "labels: {app: web}\n      annotations: {sidecar.istio.io/proxyCPU: lots}")
    code, out, err = run("-f", "-", "--valuesFile", "values.yml", text=f"{SERVICE}---\n{bad}---\n{{\n")
    assert (code, out) == (1, "")
    first, second = err.splitlines()
    path = "STDIN: spec.template.metadata.annotations[sidecar.istio.io/proxyCPU]"
    assert first == f'error: {path}: must be a quantity such as 100m or 128Mi, not "lots"'
    assert second.startswith("error: error parsing STDIN: line ")
    assert run("--valuesFile", "values.yml")[0] == 2


def test_an_alias_of_what_holds_it_is_one_line(run: Run) -> None:
    code, out, err = run("-f", "-", "--valuesFile", "values.yml", text=f"{DEPLOYMENT}---\na: &x [*x]\n")
    assert (code, out) == (1, "")
    assert err == "error: error parsing STDIN: an alias stands for something that holds the alias itself\n"


def test_aliases_do_not_stand_for_gigabytes(run: Run) -> None:
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 30))
    code, out, err = run("-f", "-", "--valuesFile", "values.yml", text=f"l0: &l0 [x]\n{levels}")
    assert (code, out) == (1, "")
    assert err == "error: error parsing STDIN: aliases stand for more than 1000000 values; write them out\n"


def test_settings_of_files(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mesh.yml").write_text("defaultConfig: {holdApplicationUntilProxyStarts: true}\n")
    (tmp_path / "bad.yml").write_text("tga: 1\n")
    _, out, _ = run("-f", "-", "--valuesFile", "values.yml", "--meshConfigFile", "mesh.yml", "-r", "canary", text=DEPLOYMENT)
    assert names(yaml.safe_load(out)) == ["istio-proxy", "web"]
    assert "istiod-canary.istio-system.svc:15012" in out
    assert run("-f", "-", "--valuesFile", "bad.yml")[2] == "error: bad.yml: values.tga: is no setting, did you mean tag?\n"
    assert run("-f", "-", "--valuesFile", "none.yml")[2] == 'error: the path "none.yml" does not exist\n'


def test_defaults_stand_in_for_a_cluster(run: Run) -> None:
    code, out, err = run("-f", "-", text=DEPLOYMENT)
    assert code == 0
    assert "image: pymesh/mesh:" in out
    assert err.startswith("Warning: injecting with default settings: no kubeconfig")
    assert run("-f", "-", "-r", "canary", text=DEPLOYMENT)[:2] == (1, "")


def test_the_cluster_s_settings(mesh: Any, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, err = run("-f", "-", text=DEPLOYMENT)
    assert err == "Warning: injecting with default settings: no ConfigMap istio-sidecar-injector in istio-system\n"
    path = "/api/v1/namespaces/istio-system/configmaps"
    made = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "istio-sidecar-injector"},
        "data": {"values": "tag: from-cluster"},
    }
    mesh.api.request("POST", path, body=made)
    try:
        code, out, err = run("-f", "-", text=DEPLOYMENT)
        assert (code, err) == (0, "")
        assert "image: pymesh/mesh:from-cluster" in out
        (Path.cwd() / "injected.yml").write_text(out)
        assert main(["apply", "-f", "injected.yml", "-n", mesh.namespace]) == 0
        assert capsys.readouterr().out == "deployment.apps/web created\n"
    finally:
        mesh.api.request("DELETE", f"{path}/istio-sidecar-injector")


@pytest.mark.system("kubectl")
def test_the_walkthrough_s_pipe(mesh: Any, run: Run) -> None:
    _, out, _ = run("-f", "-", text=f"{SERVICE}---\n{DEPLOYMENT}")
    applied = mesh.kubectl("apply", "-f", "-", text=out)
    assert (applied.code, applied.out) == (0, "service/web created\ndeployment.apps/web created\n")
    again = mesh.kubectl("apply", "-f", "-", text=out)
    assert again.out == "service/web unchanged\ndeployment.apps/web unchanged\n"
