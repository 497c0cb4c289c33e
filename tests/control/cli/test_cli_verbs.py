"""meshctl against a real mesh-control; where kubectl has the same verb, both must say the same."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from control.ca.authority import Authority

Meshctl = Callable[..., Any]
MANIFESTS = Path(__file__).parents[3] / "control" / "demo" / "manifests"
V1, V2, RULE = (
    str(MANIFESTS / name) for name in ("virtual-service-v1.yml", "virtual-service-v2.yml", "destination-rule-v1-v2.yml")
)


def test_apply_created_unchanged_configured_and_delete(meshctl: Meshctl) -> None:
    assert meshctl("apply", "-f", V1).out == "virtualservice.networking.istio.io/rating created\n"
    assert meshctl("apply", "-f", V1).out == "virtualservice.networking.istio.io/rating unchanged\n"
    assert meshctl("apply", "-f", V2).out == "virtualservice.networking.istio.io/rating configured\n"
    done = meshctl("delete", "-f", V2)
    assert (done.code, done.out) == (0, 'virtualservice.networking.istio.io "rating" deleted\n')
    again = meshctl("delete", "-f", V2)
    assert again.code == 1
    assert "Error from server (NotFound): " in again.err and 'virtualservices.networking.istio.io "rating" not found' in again.err
    assert meshctl("delete", "-f", V2, "--ignore-not-found").code == 0


def test_dry_runs_store_nothing(meshctl: Meshctl) -> None:
    assert meshctl("apply", "-f", V1, "--dry-run=client").out == "virtualservice.networking.istio.io/rating created (dry run)\n"
    assert (
        meshctl("apply", "-f", V1, "--dry-run=server").out
        == "virtualservice.networking.istio.io/rating created (server dry run)\n"
    )
    assert meshctl("get", "vs").err.startswith("No resources found in test-")


def test_a_typo_is_refused_with_path_and_nearest_name_and_the_rest_is_applied(meshctl: Meshctl, tmp_path: Path) -> None:
    text = Path(V1).read_text().replace("subset:", "subsett:")
    bad = tmp_path / "bad.yml"
    bad.write_text(f"{text}\n---\n{Path(RULE).read_text()}")
    done = meshctl("apply", "-f", str(bad))
    assert done.code == 1
    assert "subsett" in done.err and "subset" in done.err and len(done.err.splitlines()) == 1
    assert done.out == "destinationrule.networking.istio.io/rating created\n"


@pytest.mark.system("kubectl")
def test_kubectl_and_meshctl_take_turns_on_one_object(mesh: Any, meshctl: Meshctl) -> None:
    assert mesh.kubectl("apply", "-f", V1).out == "virtualservice.networking.istio.io/rating created\n"
    assert meshctl("apply", "-f", V1).out == "virtualservice.networking.istio.io/rating unchanged\n"
    assert meshctl("apply", "-f", V2).out == "virtualservice.networking.istio.io/rating configured\n"
    assert mesh.kubectl("apply", "-f", V2).out == "virtualservice.networking.istio.io/rating unchanged\n"


@pytest.mark.system("kubectl")
@pytest.mark.parametrize(
    "words",
    [
        ("get", "vs"),
        ("get", "vs,dr"),
        ("get", "vs", "rating", "-o", "wide"),
        ("get", "vs", "rating", "-o", "yaml"),
        ("get", "vs", "rating", "-o", "json"),
        ("get", "dr", "-o", "name"),
        ("get", "pods"),
        ("describe", "vs", "rating"),
        ("get", "vs", "none"),
        ("get", "vs", "--no-headers", "--show-labels"),
        ("diff", "-f", V1),
        ("label", "vs", "rating", "a=b"),
        ("annotate", "vs", "rating", "a=b"),
        ("delete", "dr", "rating"),
    ],
    ids=" ".join,
)
def test_the_same_words_as_kubectl(mesh: Any, meshctl: Meshctl, words: tuple[str, ...]) -> None:
    for name in (V1, RULE):
        meshctl("apply", "-f", name)
    if words[0] in ("label", "annotate"):
        theirs = mesh.kubectl(*words, "--dry-run=server")
    elif words[0] == "delete":
        theirs = mesh.kubectl(*words)
        meshctl("apply", "-f", RULE)
    else:
        theirs = mesh.kubectl(*words)
    ours = meshctl(*words)
    assert _aged(ours.out) == _aged(theirs.out).replace(" (server dry run)", "")
    assert ours.code == theirs.code
    assert ours.err == theirs.err


def _aged(out: str) -> str:
    """The clock may have gone on by a second between two commands."""
    return re.sub(r"\b\ds\b", "0s", out.rstrip("\n"))


def test_labels_are_kept_unless_told_otherwise(meshctl: Meshctl, mesh: Any) -> None:
    meshctl("apply", "-f", V1)
    assert meshctl("label", "vs", "rating", "a=b").out.endswith("/rating labeled\n")
    refused = meshctl("label", "vs", "rating", "a=c")
    assert (refused.code, refused.err) == (1, "error: 'a' already has a value (b), and --overwrite is false\n")
    assert meshctl("label", "vs/rating", "a=c", "--overwrite").code == 0
    assert meshctl("label", "vs/rating", "a-").out.endswith("/rating unlabeled\n")


def test_forms_of_output(meshctl: Meshctl) -> None:
    meshctl("apply", "-f", V1)
    listed = json.loads(meshctl("get", "vs", "-o", "json").out)
    assert [item["metadata"]["name"] for item in listed["items"]] == ["rating"]
    assert yaml.safe_load(meshctl("get", "vs", "-o", "yaml").out) == listed
    wrong = meshctl("get", "vs", "-o", "xml")
    assert (wrong.code, wrong.err) == (2, "error: --output xml: must be table, wide, json, yaml or name (kubectl knows more)\n")


def test_wait_for_conditions_and_deletion(meshctl: Meshctl, mesh: Any) -> None:
    meshctl("apply", "-f", V1)
    assert meshctl("wait", "--for=jsonpath={.spec.hosts[0]}=rating", "vs/rating").out.endswith("/rating condition met\n")
    late = meshctl("wait", "--for=delete", "vs/rating", "--timeout=0s")
    assert (late.code, late.err) == (1, "error: timed out waiting for the condition on virtualservices/rating\n")
    assert meshctl("wait", "--for=delete", "vs/none").out.endswith("condition met\n")


def test_wait_for_distribution_of_what_the_file_says(meshctl: Meshctl) -> None:
    none = meshctl("wait", "--for=distribution", "-f", V1, "--timeout=0s")
    assert (none.code, none.out) == (1, "")
    assert none.err == (
        "error: timed out waiting for distribution on virtualservices/rating: it is not there; "
        f"apply {V1} first, or wait for its end with --for=delete\n"
    )
    meshctl("apply", "-f", V1)
    assert meshctl("wait", "--for=distribution", "-f", V1).out == (
        "virtualservice.networking.istio.io/rating distributed to 0 proxies\n"
    )
    other = meshctl("wait", "--for=distribution", "-f", V2, "--timeout=0s")
    assert (other.code, other.out) == (1, "")
    assert other.err.endswith(f": the mesh has another one than {V2}; spec.http differs\n")
    meshctl("annotate", "vs", "rating", "a=b")
    assert meshctl("wait", "--for=distribution", "-f", V1).code == 0
    meshctl("delete", "-f", V1)
    assert meshctl("wait", "--for=distribution", "-f", V1, "--timeout=0s").code == 1
    assert meshctl("wait", "--for=delete", "-f", V1).out == "virtualservice.networking.istio.io/rating condition met\n"


def test_logs_come_from_the_containers_file(meshctl: Meshctl, mesh: Any) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "app", "image": "x"}, {"name": "istio-proxy", "image": "x"}]},
    }
    mesh.api.request("POST", f"/api/v1/namespaces/{mesh.namespace}/pods", body=pod)
    log = mesh.state / "logs" / mesh.namespace / "web" / "app.log"
    log.parent.mkdir(parents=True)
    log.write_text("one\ntwo\nthree\n")
    done = meshctl("logs", "web", "--tail=2")
    assert done.out == "two\nthree\n"
    assert done.err == 'Defaulted container "app" out of: app, istio-proxy\n'
    assert meshctl("logs", "pod/web", "-c", "none").code == 1


def test_logs_of_all_sidecars_are_searched_and_merged(meshctl: Meshctl, mesh: Any) -> None:
    def line(second: int, status: int, id_: str = "id") -> str:
        return (
            f'[2026-11-23T03:57:{second:02}.000Z] "GET /a HTTP/1.1" {status} {"UF" if status == 503 else "-"} via_upstream - "-" '
            f'0 39 9 9 "-" "curl/8" "{id_}" "a:80" "127.1.0.1:80" inbound|80|| 127.0.0.1:1 127.1.0.1:80 127.1.0.9:2 - default'
        )

    written = {"one": [line(1, 200), "meshproxy starts", line(5, 503)], "two": [line(2, 503, "x"), line(4, 404)], "three": []}
    for name, lines in written.items():
        containers = [{"name": "app", "image": "x"}, *([{"name": "istio-proxy", "image": "x"}] if lines else [])]
        meta = {"name": name, "labels": {"tier": "edge" if name == "one" else "core"}}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": containers}}
        mesh.api.request("POST", f"/api/v1/namespaces/{mesh.namespace}/pods", body=body)
        folder = mesh.state / "logs" / mesh.namespace / name
        folder.mkdir(parents=True)
        (folder / "istio-proxy.log").write_text("".join(f"{one}\n" for one in lines))
    one, two = "[pod/one/istio-proxy] ", "[pod/two/istio-proxy] "

    every = meshctl("logs")
    expected = [one + line(1, 200), one + "meshproxy starts", two + line(2, 503, "x"), two + line(4, 404), one + line(5, 503)]
    assert every.out.splitlines() == expected and every.err == ""
    failed = meshctl("logs", "--failed")
    assert failed.out.splitlines() == [two + line(2, 503, "x"), one + line(5, 503)]
    assert failed.err == "1 line was no request in Istio's default format or JSON, and left out\n"
    assert meshctl("logs", "-l", "tier=edge", "--status", "5xx").out.splitlines() == [line(5, 503)]
    assert meshctl("logs", "one", "--status", "2xx,5xx", "--tail", "1").out.splitlines() == [line(5, 503)]
    assert meshctl("logs", "two", "--since", "1m", "--status", "5xx").out == ""
    (row,) = (json.loads(found) for found in meshctl("logs", "--request-id", "x", "-o", "json").out.splitlines())
    assert (row["pod"], row["response_code"], row["response_flags"], row["user_agent"]) == ("two", 503, "UF", "curl/8")
    assert meshctl("logs", "three", "--failed").code == 1
    assert meshctl("logs", "one", "-l", "tier=edge").code == 2
    assert meshctl("logs", "-l", "tier=none").err.startswith("error: there is no pod with tier=none in namespace")


def test_proxy_status_without_proxies(meshctl: Meshctl) -> None:
    assert meshctl("proxy-status").out.split() == ["NAME", "CDS", "LDS", "EDS", "RDS", "STATUS", "VERSION"]
    none = meshctl("proxy-config", "route", "web")
    assert none.code == 1
    assert none.err.startswith("error: no sidecar test-") and "proxy-status" in none.err


def test_version_names_both_sides(meshctl: Meshctl) -> None:
    said = json.loads(meshctl("version", "-o", "json").out)
    assert said["proxies"] == 0 and {"client", "server"} <= said.keys()


def test_the_kubeconfig_of_a_mesh_whose_address_another_has_now(meshctl: Meshctl, mesh: Any, tmp_path: Path) -> None:
    Authority.open(tmp_path, time.time())
    stale = yaml.safe_load(mesh.kubeconfig.read_text())
    cluster = stale["clusters"][0]["cluster"]
    cluster["certificate-authority-data"] = base64.b64encode((tmp_path / "root.pem").read_bytes()).decode()
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(stale))
    done = meshctl("get", "pods", "--kubeconfig", str(tmp_path / "kubeconfig"))
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert done.err.startswith(
        f"error: another mesh answers at {cluster['server']}: {tmp_path}/kubeconfig is of a mesh that is not running"
    )


@pytest.mark.parametrize(
    ("words", "verb"),
    [
        (("exec", "-it", "web", "--", "sh", "-c", "ls"), "exec"),
        (("attach", "web"), "attach"),
        (("port-forward", "pod/web", "8080:80"), "port-forward"),
    ],
)
def test_there_are_no_tunnels_and_why(meshctl: Meshctl, mesh: Any, words: tuple[str, ...], verb: str) -> None:
    spec = {"containers": [{"name": "app", "image": "x", "ports": [{"containerPort": 80}]}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}
    pods = f"/api/v1/namespaces/{mesh.namespace}/pods"
    mesh.api.request("POST", pods, body=pod)
    merge = "application/merge-patch+json"
    mesh.api.request("PATCH", f"{pods}/web/status", body={"status": {"podIP": "127.9.9.9"}}, content_type=merge)
    done = meshctl(*words[:1], "-n", mesh.namespace, *words[1:])
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"Error from server (NotImplemented): {verb} is not offered here: pod web runs on this machine, "
        "reach it with curl http://127.9.9.9:80/\n"
    )


def test_a_pod_is_described_to_be_read(meshctl: Meshctl, mesh: Any) -> None:
    ports = [{"containerPort": 80}, {"containerPort": 81}]
    spec = {
        "containers": [{"name": "app", "image": "x", "ports": ports, "args": ["a", "b"]}, {"name": "istio-proxy", "image": "y"}]
    }
    pods = f"/api/v1/namespaces/{mesh.namespace}/pods"
    mesh.api.request("POST", pods, body={"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec})
    ready = {"type": "Ready", "status": "True"}
    status = {"podIP": "127.9.9.9", "podIPs": [{"ip": "127.9.9.9"}], "conditions": [ready]}
    merge = "application/merge-patch+json"
    mesh.api.request("PATCH", f"{pods}/web/status", body={"status": status}, content_type=merge)
    said = " ".join(meshctl("describe", "pod", "web").out.split())
    assert "Containers: app: Image: x Ports: - Container Port: 80 Protocol: TCP - Container Port: 81 Protocol: TCP" in said
    assert "Args: a, b istio-proxy: Image: y" in said
    assert "Pod IP: 127.9.9.9 Pod IPs: - 127.9.9.9 Conditions: Ready: Status: True" in said
