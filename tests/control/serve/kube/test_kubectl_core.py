"""The real kubectl on core kinds: strategic patches, pods with status and logs, namespaces, what is refused."""

from __future__ import annotations

import base64
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.certs import Authority

pytestmark = pytest.mark.system("kubectl")

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {
        "containers": [
            {"name": "app", "image": "local", "ports": [{"containerPort": 9080}], "env": [{"name": "A", "value": "1"}]},
            {"name": "proxy", "image": "local"},
        ]
    },
}
RUNNING = {
    "status": {
        "phase": "Running",
        "podIP": "127.1.0.9",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [
            {"name": name, "ready": True, "restartCount": 0, "image": "local", "imageID": "", "state": {"running": {}}}
            for name in ("app", "proxy")
        ],
    }
}


NOBODYS = "Warning: stored only: nothing here starts its containers; use meshctl run, or a cluster\n"


def make_pod(mesh: Any) -> None:
    said = mesh.kubectl("apply", "-f", "-", stdin=json.dumps(POD))
    assert said == f"pod/web created\n{NOBODYS}"
    said = mesh.kubectl("patch", "pod", "web", "--subresource=status", "--type=merge", "-p", json.dumps(RUNNING))
    assert said == "pod/web patched\n"


def make_service(ports: list[dict[str, Any]]) -> str:
    spec = {"selector": {"app": "web"}, "ports": ports}
    return json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec})


def test_pods_with_status(stored_mesh: Any) -> None:
    make_pod(stored_mesh)
    header, row = stored_mesh.kubectl("get", "pods", "-o", "wide").splitlines()
    assert row.split() == ["web", "2/2", "Running", "0", row.split()[4], "127.1.0.9", "<none>", "<none>", "<none>"]
    assert header.split()[:6] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP"]
    said = stored_mesh.kubectl("describe", "pod", "web")
    assert "Ready          True" in said and "IP:           127.1.0.9" in said and "Events:          <none>" in said
    assert stored_mesh.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=5s") == "pod/web condition met\n"
    assert "condition met" in stored_mesh.kubectl("wait", "--for=jsonpath={.status.phase}=Running", "pod/web", "--timeout=5s")
    assert stored_mesh.kubectl("get", "pods", "--field-selector=status.phase!=Running", "-o", "name") == ""
    # a plain write leaves the status alone, and the status resource everything else
    stored_mesh.kubectl("patch", "pod", "web", "-p", '{"status":{"phase":"Failed"},"metadata":{"labels":{"a":"b"}}}')
    found = stored_mesh.json("get", "pod", "web")
    assert (found["status"]["phase"], found["metadata"]["labels"]["a"]) == ("Running", "b")
    assert stored_mesh.kubectl("delete", "pod", "web") == 'pod "web" deleted\n'


def test_a_pod_that_nobody_will_run_is_accepted_with_a_warning(mesh: Any) -> None:
    assert mesh.kubectl("run", "x", "--image=nginx") == f"pod/x created\n{NOBODYS}"
    kept = {**POD, "metadata": {"name": "kept", "annotations": {"mesh.dev/kubelet": "7.1"}}}
    assert mesh.kubectl("apply", "-f", "-", stdin=json.dumps(kept)) == "pod/kept created\n"


def test_wait_is_woken_by_a_change(mesh: Any) -> None:
    mesh.kubectl("apply", "-f", "-", stdin=json.dumps(POD))
    with mesh.popen("wait", "--for=condition=Ready", "pod/web", "--timeout=20s") as waiting:
        mesh.http.patch(
            "/api/v1/namespaces/default/pods/web/status",
            content=json.dumps(RUNNING),
            headers={"content-type": "application/merge-patch+json"},
        ).raise_for_status()
        assert waiting.wait(20) == 0


def test_strategic_patches_merge_lists_by_key(mesh: Any) -> None:
    mesh.kubectl("apply", "-f", "-", stdin=make_service([{"name": "http", "port": 80}]))
    add = '{"spec":{"ports":[{"port":81,"name":"more"}]}}'
    assert mesh.kubectl("patch", "service", "web", "-p", add) == "service/web patched\n"
    assert [port["port"] for port in mesh.json("get", "svc", "web")["spec"]["ports"]] == [81, 80]
    # kubectl apply only takes out what it once put in
    said = mesh.kubectl("apply", "-f", "-", stdin=make_service([{"name": "web", "port": 80, "targetPort": 9080}]))
    assert said == "service/web configured\n"
    ports = mesh.json("get", "svc", "web")["spec"]["ports"]
    assert {port["port"]: (port["name"], port["targetPort"]) for port in ports} == {80: ("web", 9080), 81: ("more", 81)}
    assert (
        mesh.kubectl("patch", "svc", "web", "-p", '{"spec":{"ports":[{"port":81,"$patch":"delete"}]}}') == "service/web patched\n"
    )
    assert [port["port"] for port in mesh.json("get", "svc", "web")["spec"]["ports"]] == [80]
    make_pod(mesh)
    mesh.kubectl("patch", "pod", "web", "-p", '{"spec":{"containers":[{"name":"app","env":[{"name":"B","value":"2"}]}]}}')
    containers = mesh.json("get", "pod", "web")["spec"]["containers"]
    assert [container["name"] for container in containers] == ["app", "proxy"]
    assert {one["name"] for one in containers[0]["env"]} == {"A", "B"}
    assert mesh.kubectl("set", "image", "pod/web", "app=other") == "pod/web image updated\n"


def test_service_defaults_do_not_show_in_a_diff(mesh: Any) -> None:
    given = make_service([{"port": 80}])
    mesh.kubectl("apply", "-f", "-", stdin=given)
    assert mesh.kubectl("diff", "-f", "-", stdin=given) == ""
    assert mesh.kubectl("apply", "-f", "-", stdin=given) == "service/web unchanged\n"
    _, row = mesh.kubectl("get", "svc").splitlines()
    assert row.split()[:5] == ["web", "ClusterIP", "<none>", "<none>", "80/TCP"]
    assert "TargetPort:        80/TCP" in mesh.kubectl("describe", "svc", "web")


def test_unknown_core_fields_obey_field_validation(mesh: Any) -> None:
    typo = make_service([{"port": 80, "targetPart": 1}])
    said = mesh.kubectl("apply", "-f", "-", stdin=typo, code=1)
    assert 'strict decoding error: unknown field "spec.ports[0].targetPart", did you mean "targetPort"?' in said
    said = mesh.kubectl("apply", "--validate=warn", "-f", "-", stdin=typo)
    assert said == 'service/web created\nWarning: unknown field "spec.ports[0].targetPart", did you mean "targetPort"?\n'
    # an old fault does not stand in the way of another change
    assert mesh.kubectl("label", "svc", "web", "a=b") == "service/web labeled\n"
    wrong = make_service([{"port": "eighty"}])
    said = mesh.kubectl("apply", "--validate=ignore", "-f", "-", stdin=wrong, code=1)
    assert "spec.ports[0].port must be an integer, not a string" in said


def test_create_verbs_that_speak_protobuf(mesh: Any) -> None:
    assert mesh.kubectl("create", "namespace", "shop") == "namespace/shop created\n"
    mesh.kubectl("create", "configmap", "c", "--from-literal=a=b", "-n", "shop")
    mesh.kubectl("create", "secret", "generic", "s", "--from-literal=a=b", "-n", "shop")
    mesh.kubectl("create", "serviceaccount", "sa", "-n", "shop")
    mesh.kubectl("create", "service", "clusterip", "web", "--tcp=80:http", "-n", "shop")
    mesh.kubectl("create", "deployment", "d", "--image=x", "--replicas=0", "-n", "shop")
    found = {item["kind"]: item for item in mesh.json("get", "cm,secret,svc,deploy", "-n", "shop")["items"]}
    assert found["ConfigMap"]["data"] == {"a": "b"}
    assert found["Secret"]["data"] == {"a": "Yg=="}
    assert found["Service"]["spec"]["ports"] == [{"name": "80-http", "port": 80, "protocol": "TCP", "targetPort": "http"}]
    assert found["Deployment"]["spec"]["replicas"] == 0
    assert "Yg==" not in mesh.kubectl("describe", "secret", "s", "-n", "shop")


def test_a_tls_secret(mesh: Any, tmp_path: Path) -> None:
    pair = Authority().issue(dns=("a.example",))
    for name, data in (("crt", pair.certificate), ("key", pair.key)):
        (tmp_path / name).write_bytes(data)
    files = (f"--cert={tmp_path / 'crt'}", f"--key={tmp_path / 'key'}")
    assert mesh.kubectl("create", "secret", "tls", "web", *files) == "secret/web created\n"
    made = mesh.json("get", "secret", "web")
    assert (made["type"], sorted(made["data"])) == ("kubernetes.io/tls", ["tls.crt", "tls.key"])
    assert base64.b64decode(made["data"]["tls.key"]) == pair.key
    assert mesh.kubectl("get", "secret", "web").splitlines()[1].split()[:3] == ["web", "kubernetes.io/tls", "2"]
    for said in (mesh.kubectl("describe", "secret", "web"), mesh.kubectl("get", "secret", "web", "-o", "wide")):
        assert made["data"]["tls.key"][:40] not in said and "PRIVATE" not in said


def test_namespaces(mesh: Any) -> None:
    assert mesh.kubectl("label", "namespace", "default", "istio-injection=enabled") == "namespace/default labeled\n"
    assert mesh.kubectl("get", "ns", "-L", "istio-injection").splitlines()[1].split()[-1] == "enabled"
    said = mesh.kubectl("create", "configmap", "c", "-n", "nowhere", code=1)
    assert 'namespaces "nowhere" not found' in said
    mesh.kubectl("create", "ns", "shop")
    mesh.kubectl("create", "configmap", "c", "-n", "shop")
    assert mesh.kubectl("describe", "ns", "shop").startswith("Name:         shop\n")
    assert mesh.kubectl("delete", "ns", "shop") == 'namespace "shop" deleted\n'
    assert mesh.kubectl("get", "cm", "-A", "-o", "name") == ""
    said = mesh.kubectl("delete", "ns", "default", code=1)
    assert said == 'Error from server (Forbidden): namespaces "default" is forbidden: this namespace may not be deleted\n'


def test_logs(mesh: Any) -> None:
    make_pod(mesh)
    folder = mesh.logs / "default" / "web"
    folder.mkdir(parents=True)
    (folder / "app.log").write_text("".join(f"Request {n}\n" for n in range(1, 6)))
    (folder / "app.previous.log").write_text("before\n")
    assert mesh.kubectl("logs", "web", "-c", "app", "--tail=2") == "Request 4\nRequest 5\n"
    assert mesh.kubectl("logs", "web").endswith('Defaulted container "app" out of: app, proxy\n')
    assert mesh.kubectl("logs", "web", "-c", "app", "--previous") == "before\n"
    assert mesh.kubectl("logs", "web", "-c", "proxy") == ""
    assert "container nope is not valid for pod web" in mesh.kubectl("logs", "web", "-c", "nope", code=1)
    assert 'previous terminated container "proxy"' in mesh.kubectl("logs", "web", "-c", "proxy", "-p", code=1)
    assert "carry no time" in mesh.kubectl("logs", "web", "-c", "app", "--timestamps", code=1)
    assert "not found" in mesh.kubectl("logs", "nope", code=1)
    assert mesh.kubectl("logs", "-l", "app=web", "-c", "app", "--tail=1") == "Request 5\n"


def test_following_logs(mesh: Any) -> None:
    make_pod(mesh)
    folder = mesh.logs / "default" / "web"
    folder.mkdir(parents=True)
    log = folder / "app.log"
    log.write_text("one\n")
    with mesh.popen("logs", "-f", "web", "-c", "app") as following:
        assert following.stdout.readline() == "one\n"
        with log.open("a") as more:
            more.write("two\n")
        assert following.stdout.readline() == "two\n"
        log.rename(folder / "app.log.1")
        log.write_text("three\n")
        assert following.stdout.readline() == "three\n"
        mesh.end_streams()
        assert following.wait(10) == 0


def test_exec_attach_and_port_forward_name_the_address(mesh: Any) -> None:
    make_pod(mesh)
    for words in (("exec", "web", "-c", "app", "--", "ls"), ("port-forward", "web", "8080:80"), ("attach", "web", "-c", "app")):
        lines = [line for line in mesh.kubectl(*words, code=1).splitlines() if "rror" in line]
        assert len(lines) == 1 and "not offered here" in lines[0] and "curl http://127.1.0.9:9080/" in lines[0]


def test_scale_says_what_to_do(mesh: Any) -> None:
    mesh.kubectl("create", "deployment", "d", "--image=x")
    assert "nothing scales here" in mesh.kubectl("scale", "deploy", "d", "--replicas=2", code=1)


def test_events_are_an_empty_list(mesh: Any) -> None:
    assert mesh.kubectl("get", "events") == "No resources found in default namespace.\n"
    assert mesh.kubectl("events") == "No events found in default namespace.\n"


def test_concurrent_labels_all_arrive(stored_mesh: Any) -> None:
    stored_mesh.kubectl("create", "configmap", "c")
    failures: list[BaseException] = []

    def label(n: int) -> None:
        try:
            stored_mesh.kubectl("label", "cm", "c", f"k{n}=v")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=label, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert stored_mesh.json("get", "cm", "c")["metadata"]["labels"] == {f"k{n}": "v" for n in range(6)}
