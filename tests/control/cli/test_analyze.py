"""meshctl analyze and validate: files alone, a running mesh, both together; istioctl's words and exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from control.analyze import CODES
from control.cli.__main__ import main
from tests.control.cli.mesh_files import APP

Run = Callable[..., tuple[int, str, str]]
SEE = "See https://istio.io/latest/docs/reference/config/analysis for more information about causes and resolutions.\n"
LOST = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: lost}
spec: {hosts: [x.example.com], http: [{route: [{destination: {host: ratingg}}]}]}
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    def go(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        said = capsys.readouterr()
        return code, said.out.replace(str(tmp_path), "."), said.err.replace(str(tmp_path), ".")

    return go


@pytest.fixture
def app(tmp_path: Path) -> str:
    path = tmp_path / "app.yml"
    path.write_text(APP)
    return str(path)


def test_files_in_istioctls_words(run: Run, app: str) -> None:
    code, out, err = run("analyze", "-f", app)
    assert code == 79
    assert out.splitlines()[:2] == [
        "Error [MESH0005] (VirtualService default/rating ./app.yml) spec.http[3].route[0].destination: "
        "all requests of this rule go to "
        'subset "v9" of "rating.default.svc.cluster.local", which selects no pod: 503. Mend its labels in DestinationRule '
        "default/rating.",
        "Warning [IST0173] (DestinationRule default/rating ./app.yml) spec.subsets[2].labels: The Subset v9 defined in the "
        "DestinationRule does not select any pods: version is v1, v2 on the pods, not v9",
    ]
    assert err == f"Error: Analyzers found issues when analyzing ./app.yml.\n{SEE}"


def test_nothing_wrong(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "svc.yml"
    path.write_text(APP.split("---")[0])
    assert run("analyze", str(path)) == (0, "", "\u2714 No validation issues found when analyzing ./svc.yml.\n")
    assert run("analyze", str(path), "-o", "json") == (0, "[]\n", "")


def test_thresholds(run: Run, app: str, tmp_path: Path) -> None:
    mild = tmp_path / "mild.yml"
    mild.write_text(APP.split("---")[0].replace("name: http", "name: web"))
    assert run("analyze", str(mild))[0] == 0
    assert run("analyze", str(mild), "--failure-threshold", "Warning")[0] == 0
    assert run("analyze", str(mild), "--failure-threshold", "info")[0] == 79
    code, out, err = run("analyze", str(mild), "--output-threshold", "Warning")
    assert (code, out) == (0, "") and err.startswith("\u2714")
    code, out, _ = run("analyze", app, "--output-threshold", "Error")
    assert code == 79 and all(line.startswith("Error ") for line in out.splitlines())
    wrong = run("analyze", app, "--failure-threshold", "Fatal")
    assert wrong == (2, "", "error: --failure-threshold Fatal: must be Error, Warning or Info\n")


def test_suppressions(run: Run, app: str) -> None:
    words = ["analyze", app, "-S", "MESH0005=VirtualService rating.default"]
    assert run(*words)[0] == 0
    assert "MESH0005" not in run(*words)[1]
    assert run("analyze", app, "-S", "IST0173") == (
        2,
        "",
        'error: --suppress IST0173: must be CODE=KIND NAME.NAMESPACE, such as "IST0103=Pod web.default"\n',
    )


def test_forms_of_output(run: Run, app: str) -> None:
    told = json.loads(run("analyze", app, "-o", "json")[1])
    assert yaml.safe_load(run("analyze", app, "-o", "yaml")[1]) == told
    assert run("analyze", app, "-o", "log")[1] == run("analyze", app)[1]
    one = next(item for item in told if item["code"] == "IST0173")
    assert one["level"] == "Warning" and one["origin"] == "DestinationRule default/rating" and one["reference"] == "./app.yml"
    assert one["documentationUrl"].endswith("/ist0173/") and one["path"] == "spec.subsets[2].labels"
    assert run("analyze", app, "-o", "xml")[0] == 2


def test_the_list_of_checks(run: Run) -> None:
    _, out, _ = run("analyze", "-L")
    assert all(code in out for code in CODES)
    assert {one["code"] for one in json.loads(run("analyze", "-L", "-o", "json")[1])} == set(CODES)


def test_directories_recursively(run: Run, tmp_path: Path) -> None:
    inner = tmp_path / "all" / "inner"
    inner.mkdir(parents=True)
    (inner / "lost.yaml").write_text(LOST)
    (tmp_path / "all" / "svc.yml").write_text(APP.split("---")[0])
    assert run("analyze", str(tmp_path / "all"))[0] == 0
    code, out, _ = run("analyze", "-R", str(tmp_path / "all"))
    assert code == 79 and "inner/lost.yaml" in out and 'did you mean "rating.default.svc.cluster.local"?' in out
    (tmp_path / "empty").mkdir()
    assert run("analyze", "-R", str(tmp_path / "empty"))[0] == 1


def test_files_that_hold_nonsense(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "odd.yml"
    path.write_text("{apiVersion: networking.istio.io/v1, kind: VirtualServise, metadata: {name: x}}\n---\n{a: 1}\n")
    code, out, _ = run("analyze", str(path))
    assert code == 79
    assert 'no kind "VirtualServise"' in out and "apiVersion and kind must be given" in out
    path.write_text("[1]")
    assert run("analyze", str(path))[0] == 1
    assert run("analyze", "--no-use-kube")[0] == 2


def test_validate(run: Run, app: str, tmp_path: Path) -> None:
    assert run("validate", "-f", app) == (0, '"./app.yml" is valid\n', "")
    bad = tmp_path / "bad.yml"
    bad.write_text(LOST.replace("hosts:", "host:"))
    code, out, err = run("validate", "-f", app, "-f", str(bad))
    assert (code, out) == (1, '"./app.yml" is valid\n')
    assert err.startswith(
        'Error [IST0106] (VirtualService default/lost ./bad.yml) spec.host: unknown field; did you mean "hosts"?'
    )
    assert run("validate")[0] == 2


# -- live ----------------------------------------------------------------------------------------------------------------


def apply(mesh: Any, text: str) -> None:
    for document in yaml.safe_load_all(text):
        if document and document["apiVersion"] != "autoscaling/v2" and document["kind"] != "StatefulSet":
            group = "api/v1" if document["apiVersion"] == "v1" else f"apis/{document['apiVersion']}"
            plural = document["kind"].lower() + "s"
            mesh.api.request("POST", f"/{group}/namespaces/{mesh.namespace}/{plural}", body=document)


def test_a_running_mesh(mesh: Any, meshctl: Callable[..., Any], tmp_path: Path) -> None:
    done = meshctl("analyze")
    assert (done.code, done.out) == (0, "")
    assert done.err == f"\u2714 No validation issues found when analyzing namespace: {mesh.namespace}.\n"
    apply(mesh, LOST)
    done = meshctl("analyze")
    assert done.code == 79
    assert f"Error [IST0101] (VirtualService {mesh.namespace}/lost) spec.http[0].route[0].destination.host: " in done.out
    assert done.err == f"Error: Analyzers found issues when analyzing namespace: {mesh.namespace}.\n{SEE}"
    assert "all namespaces" in meshctl("analyze", "-A").err
    mesh.api.request("DELETE", f"/apis/networking.istio.io/v1/namespaces/{mesh.namespace}/virtualservices/lost")
    assert meshctl("analyze").code == 0  # at once, although sidecars are told of changes a moment later
    apply(mesh, LOST)
    # With the service in a file the same mesh is sound; nothing was stored by asking.
    path = tmp_path / "more.yml"
    path.write_text(APP.split("---")[0].replace("name: rating}", "name: ratingg}"))
    done = meshctl("analyze", "-f", str(path), "--use-kube")
    assert done.code == 0 and "IST0101" not in done.out and "MESH0007" in done.out
    assert mesh.api.request("GET", f"/api/v1/namespaces/{mesh.namespace}/services")["items"] == []


def test_the_api_refuses_what_is_no_request(mesh: Any) -> None:
    from control.client.api import ApiError

    for body in ({}, {"objects": 1}, {"objects": [], "more": 1}):
        with pytest.raises(ApiError, match="not a request for analysis") as caught:
            mesh.api.request("POST", "/mesh/v1/analyze", body=body)
        assert caught.value.code == 400
    odd = [{}, {"kind": 3}, {"apiVersion": "v1", "kind": "Pod"}, {"apiVersion": "v1", "kind": "Pod", "metadata": []}]
    answer = mesh.api.request("POST", "/mesh/v1/analyze", body={"objects": odd})
    assert {one["code"] for one in answer["findings"] if one["name"] == "?"} <= {"IST0106", "MESH0010"}


def test_apply_shows_the_warnings_that_the_api_sends(mesh: Any, meshctl: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "dr.yml"
    spec = {"host": "rating", "trafficPolicy": {"connectionPool": {"http": {"useClientProtocol": True}}}}
    rule = {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "tls"}, "spec": spec}
    path.write_text(yaml.safe_dump(rule))
    done = meshctl("apply", "-f", str(path))
    assert done.out.endswith("/tls created\n")
    assert done.err == "Warning: spec.trafficPolicy.connectionPool.http.useClientProtocol: accepted but not honoured yet\n"
    assert meshctl("delete", "dr", "tls").code == 0


def test_the_query_takes_headers(mesh: Any) -> None:
    from control.client.api import ApiError

    with pytest.raises(ApiError, match=r"header: must be `name: value`, not 'x'") as caught:
        mesh.api.request("GET", "/mesh/v1/proxies/default/none/query?verb=explain&url=x&header=x")
    assert caught.value.code == 400
