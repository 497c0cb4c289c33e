"""The real kubectl on the mesh's own kinds: every verb, in the words that Kubernetes uses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.system("kubectl")

VS = "virtualservice.networking.istio.io/rating"


def service(subset: str, **more: Any) -> str:
    route = {"destination": {"host": "rating", "subset": subset}, "weight": 100}
    return json.dumps(
        {
            "apiVersion": "networking.istio.io/v1alpha3",
            "kind": "VirtualService",
            "metadata": {"name": "rating"},
            "spec": {"hosts": ["rating"], "http": [{"route": [route], **more}]},
        }
    )


def test_the_walkthroughs_resources(stored_mesh: Any, manifests: Path) -> None:
    def run(verb: str, name: str) -> str:
        return str(stored_mesh.kubectl(verb, "-f", str(manifests / name))).strip()

    assert run("apply", "destination-rule-v1-v2.yml") == "destinationrule.networking.istio.io/rating created"
    assert run("apply", "virtual-service-v1.yml") == f"{VS} created"
    assert run("apply", "virtual-service-v2.yml") == f"{VS} configured"
    assert run("apply", "virtual-service-v2.yml") == f"{VS} unchanged"
    assert run("apply", "virtual-service-v1-v2-75-25.yml") == f"{VS} configured"
    weights = stored_mesh.json("get", "vs", "rating")["spec"]["http"][0]["route"]
    assert [destination["weight"] for destination in weights] == [75, 25]
    assert run("delete", "virtual-service-v1-v2-75-25.yml") == 'virtualservice.networking.istio.io "rating" deleted'
    assert run("apply", "virtual-service-retry.yml") == f"{VS} created"
    assert run("apply", "destination-rule-circuit-breaker.yml") == "destinationrule.networking.istio.io/rating configured"
    said = run("apply", "request-authentication-jwt.yml")
    assert said.splitlines()[0] == "requestauthentication.security.istio.io/bookjwt created"
    said = run("apply", "authorization-policy-jwt.yml")
    assert said.splitlines()[0] == "authorizationpolicy.security.istio.io/require-jwt created"
    assert "service/book-service created" in run("apply", "service-book.yml")


def test_get_prints_tables_names_yaml_and_versions(mesh: Any) -> None:
    assert mesh.kubectl("get", "vs") == "No resources found in default namespace.\n"
    mesh.kubectl("apply", "-f", "-", stdin=service("version-v1"))
    header, row = mesh.kubectl("get", "vs").splitlines()
    assert header.split() == ["NAME", "GATEWAYS", "HOSTS", "AGE"]
    assert row.split()[:2] == ["rating", '["rating"]']
    assert mesh.kubectl("get", "vs", "-A").split()[:1] == ["NAMESPACE"]
    assert mesh.kubectl("get", "virtualservices", "-o", "name") == f"{VS}\n"
    assert yaml.safe_load(mesh.kubectl("get", "vs", "rating", "-o", "yaml"))["apiVersion"] == "networking.istio.io/v1"
    for version in ("v1alpha3", "v1beta1", "v1"):
        found = mesh.json("get", f"virtualservices.{version}.networking.istio.io", "rating")
        assert found["apiVersion"] == f"networking.istio.io/{version}"
    assert "LABELS" in mesh.kubectl("get", "vs", "--show-labels")
    assert mesh.kubectl("get", "vs", "--sort-by=.metadata.name", "-o", "wide").splitlines()[1].startswith("rating")
    assert mesh.kubectl("get", "vs", "nope", code=1) == (
        'Error from server (NotFound): virtualservices.networking.istio.io "nope" not found\n'
    )


def test_several_kinds_at_once(mesh: Any) -> None:
    mesh.kubectl("apply", "-f", "-", stdin=service("version-v1"))
    mesh.kubectl("create", "configmap", "c", "--from-literal=a=b")
    assert mesh.kubectl("get", "vs,cm,dr", "-o", "name") == f"{VS}\nconfigmap/c\n"
    assert mesh.kubectl("get", "istio-io", "-o", "name") == f"{VS}\n"


def test_a_typo_is_refused_with_its_path_and_the_nearest_name(mesh: Any) -> None:
    typo = service("version-v1").replace("weight", "wieght")
    for validate in ("true", "warn", "ignore"):  # mesh kinds are strict whatever the client asks
        said = mesh.kubectl("apply", f"--validate={validate}", "-f", "-", stdin=typo, code=1)
        assert said.splitlines()[0].startswith('The VirtualService "rating" is invalid: spec.http[0].route[0].wieght: ')
        assert 'did you mean "weight"?' in said
    assert mesh.kubectl("get", "vs") == "No resources found in default namespace.\n"
    mesh.kubectl("apply", "-f", "-", stdin=service("version-v1"))
    said = mesh.kubectl("apply", "-f", "-", stdin=typo, code=1)
    assert 'The VirtualService "rating" is invalid: spec.http[0].route[0].wieght' in said


def test_what_is_not_honoured_yet_is_a_warning(mesh: Any) -> None:
    rule = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "warm"},
        "spec": {"host": "rating", "trafficPolicy": {"loadBalancer": {"simple": "ROUND_ROBIN", "warmup": {"duration": "10s"}}}},
    }
    said = mesh.kubectl("apply", "-f", "-", stdin=json.dumps(rule))
    assert "destinationrule.networking.istio.io/warm created" in said
    assert "Warning: " in said and "warmup" in said


def test_dry_run_on_the_server_stores_nothing(mesh: Any) -> None:
    assert mesh.kubectl("apply", "--dry-run=server", "-f", "-", stdin=service("version-v1")) == f"{VS} created (server dry run)\n"
    assert mesh.kubectl("get", "vs") == "No resources found in default namespace.\n"
    mesh.kubectl("apply", "-f", "-", stdin=service("version-v1"))
    changed = mesh.kubectl("apply", "--dry-run=server", "-o", "json", "-f", "-", stdin=service("version-v2"))
    assert json.loads(changed)["spec"]["http"][0]["route"][0]["destination"]["subset"] == "version-v2"
    assert mesh.json("get", "vs", "rating")["spec"]["http"][0]["route"][0]["destination"]["subset"] == "version-v1"
    mesh.kubectl("label", "vs", "rating", "a=b", "--dry-run=server")
    mesh.kubectl("delete", "vs", "rating", "--dry-run=server")
    assert "labels" not in mesh.json("get", "vs", "rating")["metadata"]
    typo = service("version-v1").replace("weight", "wieght")
    assert "is invalid" in mesh.kubectl("apply", "--dry-run=server", "-f", "-", stdin=typo, code=1)


def test_diff(mesh: Any) -> None:
    mesh.kubectl("apply", "-f", "-", stdin=service("version-v1"))
    assert mesh.kubectl("diff", "-f", "-", stdin=service("version-v1")) == ""
    said = mesh.kubectl("diff", "-f", "-", stdin=service("version-v2"), code=1)
    assert "-        subset: version-v1\n+        subset: version-v2\n" in said


def test_describe(mesh: Any) -> None:
    mesh.kubectl("apply", "-f", "-", stdin=service("version-v1"))
    said = mesh.kubectl("describe", "vs", "rating")
    assert "Kind:         VirtualService" in said and "Events:          <none>" in said


def test_label_and_annotate(mesh: Any) -> None:
    mesh.kubectl("apply", "-f", "-", stdin=service("version-v1"))
    assert mesh.kubectl("label", "vs", "rating", "tier=web") == f"{VS} labeled\n"
    assert mesh.kubectl("label", "vs", "rating", "tier=web") == f"{VS} not labeled\n"
    assert "'tier' already has a value" in mesh.kubectl("label", "vs", "rating", "tier=db", code=1)
    assert mesh.kubectl("label", "vs", "rating", "tier=db", "--overwrite") == f"{VS} labeled\n"
    assert mesh.kubectl("get", "vs", "-l", "tier in (db,web)", "-o", "name") == f"{VS}\n"
    assert mesh.kubectl("get", "vs", "-l", "tier!=db", "-o", "name") == ""
    assert mesh.kubectl("label", "vs", "rating", "tier-") == f"{VS} unlabeled\n"
    assert mesh.kubectl("annotate", "vs", "rating", "note=x") == f"{VS} annotated\n"
    found = mesh.json("get", "vs", "rating")["metadata"]
    assert found["annotations"]["note"] == "x" and not found.get("labels") and found["generation"] == 1


def test_edit(mesh: Any) -> None:
    mesh.kubectl("apply", "-f", "-", stdin=service("version-v1"))
    assert mesh.kubectl("edit", "vs", "rating", EDITOR="sed -i s/version-v1/version-v2/") == f"{VS} edited\n"
    assert mesh.json("get", "vs", "rating")["spec"]["http"][0]["route"][0]["destination"]["subset"] == "version-v2"
    assert mesh.kubectl("edit", "vs", "rating", EDITOR="true") == "Edit cancelled, no changes made.\n"
    assert "is invalid" in mesh.kubectl("edit", "vs", "rating", code=1, EDITOR="sed -i s/subset:/subzet:/")


def test_create_replace_and_patch(mesh: Any) -> None:
    assert mesh.kubectl("create", "-f", "-", stdin=service("version-v1")) == f"{VS} created\n"
    said = mesh.kubectl("create", "-f", "-", stdin=service("version-v1"), code=1)
    assert said.endswith('virtualservices.networking.istio.io "rating" already exists\n')
    assert mesh.kubectl("replace", "-f", "-", stdin=service("version-v2")) == f"{VS} replaced\n"
    add = '[{"op":"add","path":"/spec/http/0/timeout","value":"3s"}]'
    assert mesh.kubectl("patch", "vs", "rating", "--type=json", "-p", add) == f"{VS} patched\n"
    merge = '{"spec":{"http":[{"route":[{"destination":{"host":"other"}}],"timeout":"4s"}]}}'
    assert mesh.kubectl("patch", "vs", "rating", "--type=merge", "-p", merge) == f"{VS} patched\n"
    assert mesh.kubectl("patch", "vs", "rating", "--type=merge", "-p", merge) == f"{VS} patched (no change)\n"
    found = mesh.json("get", "vs", "rating")
    assert found["spec"]["http"] == [{"route": [{"destination": {"host": "other"}}], "timeout": "4s"}]
    assert found["metadata"]["generation"] == 4
    assert "is not supported by" in mesh.kubectl("patch", "vs", "rating", "--type=strategic", "-p", "{}", code=1)
    bad = '{"spec":{"http":[{"route":[{"destination":{"host":"x"}}],"timeout":"4 parsecs"}]}}'
    assert "spec.http[0].timeout: " in mesh.kubectl("patch", "vs", "rating", "--type=merge", "-p", bad, code=1)


def test_server_side_apply_is_refused_in_one_line(mesh: Any) -> None:
    said = mesh.kubectl("apply", "--server-side", "-f", "-", stdin=service("version-v1"), code=1)
    assert said.startswith("error: Server-side apply not available on the server: ") and said.count("\n") == 1


def test_delete_by_name_label_and_all(mesh: Any) -> None:
    for name in ("a", "b", "c", "d"):
        made = json.loads(service("version-v1"))
        made["metadata"] = {"name": name, "labels": {"pair": "yes" if name in "ab" else "no"}}
        mesh.kubectl("apply", "-f", "-", stdin=json.dumps(made))
    assert mesh.kubectl("delete", "vs", "-l", "pair=yes").splitlines() == [
        'virtualservice.networking.istio.io "a" deleted',
        'virtualservice.networking.istio.io "b" deleted',
    ]
    assert mesh.kubectl("delete", "vs", "c") == 'virtualservice.networking.istio.io "c" deleted\n'
    assert mesh.kubectl("delete", "vs", "--all") == 'virtualservice.networking.istio.io "d" deleted\n'
    assert "NotFound" in mesh.kubectl("delete", "vs", "c", code=1)
    assert mesh.kubectl("delete", "vs", "c", "--ignore-not-found") == ""


def test_watch_prints_what_happens(mesh: Any) -> None:
    mesh.kubectl("apply", "-f", "-", stdin=service("version-v1"))
    with mesh.popen("get", "vs", "-w", "-o", "name") as watching:
        assert watching.stdout.readline() == f"{VS}\n"
        mesh.kubectl("label", "vs", "rating", "a=b")
        assert watching.stdout.readline() == f"{VS}\n"
        mesh.end_streams()  # a stopping service ends the watch, and kubectl its work
        watching.terminate()


def test_wait_for_deletion(mesh: Any) -> None:
    mesh.kubectl("apply", "-f", "-", stdin=service("version-v1"))
    with mesh.popen("wait", "--for=delete", "vs/rating", "--timeout=20s") as waiting:
        mesh.kubectl("delete", "vs", "rating")
        assert waiting.wait(20) == 0


def test_discovery_and_explain(mesh: Any) -> None:
    known = mesh.kubectl("api-resources", "--no-headers")
    rows = {line.split()[0]: line for line in known.splitlines()}
    assert rows["virtualservices"].split() == ["virtualservices", "vs", "networking.istio.io/v1", "true", "VirtualService"]
    assert {"pods", "services", "endpointslices", "authorizationpolicies", "telemetries"} <= rows.keys()
    assert {"v1", "networking.istio.io/v1alpha3", "security.istio.io/v1beta1"} <= set(mesh.kubectl("api-versions").split())
    said = mesh.kubectl("explain", "vs.spec.http.retries")
    assert "perTryTimeout\t<string>" in said
    assert "FIELD: port <integer>" in mesh.kubectl("explain", "service.spec.ports.port")
    assert "Server Version: v1." in mesh.kubectl("version")
    assert "is running at http://127.0.0.1" in mesh.kubectl("cluster-info")
    assert mesh.kubectl("auth", "can-i", "create", "vs") == "yes\n"
    assert "mesh-admin" in mesh.kubectl("auth", "whoami")


def test_the_oldest_and_newest_kubectl_at_hand(mesh: Any) -> None:
    folder = Path(shutil.which("kubectl") or "").resolve().parent
    programs = sorted(path for path in folder.glob("kubectl.1.*") if path.name.rpartition(".")[2].isdigit())
    for program in {str(path) for path in (*programs[:1], *programs[-1:])}:
        made = mesh.kubectl("apply", "-f", "-", stdin=service("version-v1"), program=program)
        assert made == f"{VS} created\n"
        assert mesh.kubectl("apply", "-f", "-", stdin=service("version-v2"), program=program) == f"{VS} configured\n"
        assert mesh.kubectl("diff", "-f", "-", stdin=service("version-v2"), program=program) == ""
        assert "deleted" in mesh.kubectl("delete", "vs", "rating", program=program)
