"""The API spoken to directly: forms of answers, conflicts, lists in pages, limits, and that garbage gets one clear line."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import yaml

from control.serve.kube.body import LIMIT

VS = "/apis/networking.istio.io/v1/namespaces/default/virtualservices"
CM = "/api/v1/namespaces/default/configmaps"
SVC = "/api/v1/namespaces/default/services"
MERGE = {"content-type": "application/merge-patch+json"}


def config(name: str = "c", **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def rating(**spec: Any) -> dict[str, Any]:
    given = {"hosts": ["rating"], "http": [{"route": [{"destination": {"host": "rating"}}]}], **spec}
    return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "rating"}, "spec": given}


def refused(answer: httpx.Response, code: int, reason: str) -> str:
    """The message of a refusal, checked to be a Status of one line."""
    body = answer.json()
    assert (answer.status_code, body["kind"], body["status"], body["code"]) == (code, "Status", "Failure", code), body
    assert body["reason"] == reason and "\n" not in body["message"]
    return str(body["message"])


def test_create_fills_what_a_server_fills(stored_mesh: Any) -> None:
    made = stored_mesh.http.post(CM, json=config(a="b"))
    assert made.status_code == 201
    meta = made.json()["metadata"]
    assert meta["namespace"] == "default" and meta["uid"] and meta["resourceVersion"] and meta["creationTimestamp"]
    assert stored_mesh.http.get(f"{CM}/c").json() == made.json()
    assert "already exists" in refused(stored_mesh.http.post(CM, json=config()), 409, "AlreadyExists")


def test_generate_name(mesh: Any) -> None:
    given = {"metadata": {"generateName": "job-"}}
    names = {mesh.http.post(CM, json=given).json()["metadata"]["name"] for _ in range(5)}
    assert len(names) == 5 and all(name.startswith("job-") and len(name) == 9 for name in names)
    message = refused(mesh.http.post(CM, json={"metadata": {}}), 422, "Invalid")
    assert "name or generateName is required" in message


def test_a_stale_resource_version_is_a_conflict(stored_mesh: Any) -> None:
    http = stored_mesh.http
    old = http.post(VS, json=rating()).json()
    new = {**old, "metadata": {**old["metadata"], "labels": {"a": "b"}}}
    assert http.put(f"{VS}/rating", json=new).status_code == 200
    message = refused(http.put(f"{VS}/rating", json=new), 409, "Conflict")
    assert message == (
        'Operation cannot be fulfilled on virtualservices.networking.istio.io "rating": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    version = {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"], "labels": {"c": "d"}}}
    refused(http.patch(f"{VS}/rating", json=version, headers=MERGE), 409, "Conflict")
    assert http.patch(f"{VS}/rating", json={"metadata": {"labels": {"c": "d"}}}, headers=MERGE).status_code == 200
    other = {**old, "metadata": {"name": "rating", "uid": "another"}}
    assert "UID in precondition" in refused(http.put(f"{VS}/rating", json=other), 409, "Conflict")


def test_an_update_that_changes_nothing_takes_no_version(mesh: Any) -> None:
    made = mesh.http.post(VS, json=rating()).json()
    assert mesh.http.put(f"{VS}/rating", json=rating()).json() == made
    assert mesh.http.patch(f"{VS}/rating", json={}, headers=MERGE).json() == made


def test_delete_preconditions_and_answer(mesh: Any) -> None:
    made = mesh.http.post(CM, json=config()).json()
    options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "x"}, "propagationPolicy": "Foreground"}
    refused(mesh.http.request("DELETE", f"{CM}/c", json=options), 409, "Conflict")
    gone = mesh.http.request("DELETE", f"{CM}/c", json={**options, "preconditions": {"uid": made["metadata"]["uid"]}})
    assert gone.json()["status"] == "Success" and gone.json()["details"]["uid"] == made["metadata"]["uid"]
    refused(mesh.http.delete(f"{CM}/c"), 404, "NotFound")


def test_delete_collection(mesh: Any) -> None:
    for name in "abc":
        mesh.http.post(CM, json={**config(name), "metadata": {"name": name, "labels": {"n": name}}})
    gone = mesh.http.delete(CM, params={"labelSelector": "n in (a,b)"}).json()
    assert [item["metadata"]["name"] for item in gone["items"]] == ["a", "b"]
    assert [item["metadata"]["name"] for item in mesh.http.get(CM).json()["items"]] == ["c"]
    refused(mesh.http.delete("/api/v1/namespaces"), 405, "MethodNotAllowed")
    assert mesh.http.get("/api/v1/namespaces/default").status_code == 200


def test_dry_run_everywhere(mesh: Any) -> None:
    http, dry = mesh.http, {"dryRun": "All"}
    made = http.post(CM, json=config(), params=dry)
    assert made.status_code == 201 and made.json()["metadata"]["uid"]
    assert http.get(f"{CM}/c").status_code == 404
    stored = http.post(CM, json=config()).json()
    refused(http.post(CM, json=config(), params=dry), 409, "AlreadyExists")
    assert http.put(f"{CM}/c", json=config(a="b"), params=dry).json()["data"] == {"a": "b"}
    assert http.patch(f"{CM}/c", json={"data": {"a": "b"}}, headers=MERGE, params=dry).json()["data"] == {"a": "b"}
    assert http.delete(f"{CM}/c", params=dry).json()["status"] == "Success"
    http.request("DELETE", f"{CM}/c", json={"dryRun": ["All"]})
    http.delete(CM, params=dry)
    assert http.get(f"{CM}/c").json() == stored
    refused(http.post(CM, json=config(), params={"dryRun": "Some"}), 400, "BadRequest")


@pytest.mark.parametrize("verb", ["POST", "PUT", "PATCH"])
def test_field_validation(mesh: Any, verb: str) -> None:
    good = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}
    text = json.dumps({**good, "spec": {"ports": [{"port": 80, "zzz": 1}]}}).replace('"name": "s"', '"name": "r", "name": "s"')
    path = SVC if verb == "POST" else f"{SVC}/s"
    kind = "application/merge-patch+json" if verb == "PATCH" else "application/json"
    if verb != "POST":
        mesh.http.post(SVC, json=good)

    def send(mode: str) -> httpx.Response:
        answer: httpx.Response = mesh.http.request(
            verb, path, content=text, headers={"content-type": kind}, params={"fieldValidation": mode, "dryRun": "All"}
        )
        return answer

    message = refused(send("Strict"), 400, "BadRequest")
    assert 'strict decoding error: duplicate field "metadata.name", unknown field "spec.ports[0].zzz"' in message
    warned = send("Warn")
    assert warned.is_success
    assert warned.headers.get_list("warning") == [
        '299 - "duplicate field \\"metadata.name\\""',
        '299 - "unknown field \\"spec.ports[0].zzz\\""',
    ]
    ignored = send("Ignore")
    assert ignored.is_success and not ignored.headers.get_list("warning")
    refused(send("Sometimes"), 400, "BadRequest")


def test_invalid_names_the_fields(mesh: Any) -> None:
    answer = mesh.http.post(VS, json=rating(http=[{"route": [{"destination": {"host": "x"}, "wieght": 1}], "timeout": "soon"}]))
    message = refused(answer, 422, "Invalid")
    assert message.startswith('VirtualService.networking.istio.io "rating" is invalid: [')
    causes = {cause["field"]: cause["message"] for cause in answer.json()["details"]["causes"]}
    assert 'did you mean "weight"' in causes["spec.http[0].route[0].wieght"]
    assert "spec.http[0].timeout" in causes


def test_tables(mesh: Any) -> None:
    mesh.http.post(VS, json=rating())
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    for include, kind in (
        ("None", None),
        ("Metadata", "PartialObjectMetadata"),
        ("Object", "VirtualService"),
        ("", "PartialObjectMetadata"),
    ):
        for path in (VS, f"{VS}/rating"):
            table = mesh.http.get(path, headers={"accept": accept}, params={"includeObject": include}).json()
            assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
            assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Gateways", "Hosts", "Age"]
            assert table["columnDefinitions"][0]["format"] == "name"
            (row,) = table["rows"]
            assert row["cells"][:3] == ["rating", "", '["rating"]']
            assert row.get("object", {}).get("kind") == kind
    assert mesh.http.get(VS, headers={"accept": accept}).json()["metadata"]["resourceVersion"]


def test_other_forms_of_answers(mesh: Any) -> None:
    mesh.http.post(CM, json=config(a="b"))
    text = mesh.http.get(f"{CM}/c", headers={"accept": "application/yaml"})
    assert text.headers["content-type"].startswith("application/yaml") and yaml.safe_load(text.text)["data"] == {"a": "b"}
    partial = mesh.http.get(CM, headers={"accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}).json()
    assert partial["kind"] == "PartialObjectMetadataList" and "data" not in partial["items"][0]
    fallback = "application/vnd.kubernetes.protobuf,application/json;as=Nonsense;v=v1,*/*"
    assert mesh.http.get(CM, headers={"accept": fallback}).json()["kind"] == "ConfigMapList"
    refused(mesh.http.get(CM, headers={"accept": "application/vnd.kubernetes.protobuf"}), 406, "NotAcceptable")


def test_yaml_bodies(mesh: Any) -> None:
    text = "metadata: {name: c}\ndata:\n  when: 2024-01-01\n  note: |\n    two\n    lines\n"
    made = mesh.http.post(CM, content=text, headers={"content-type": "application/yaml"})
    assert made.json()["data"] == {"when": "2024-01-01", "note": "two\nlines\n"}


def test_pages_show_one_moment(mesh: Any) -> None:
    http = mesh.http
    for name in ("a", "b", "c", "d", "e"):
        http.post(CM, json=config(name))
    first = http.get(CM, params={"limit": 2}).json()
    assert [item["metadata"]["name"] for item in first["items"]] == ["a", "b"]
    assert first["metadata"]["remainingItemCount"] == 3
    http.delete(f"{CM}/c")
    http.post(CM, json=config("bb"))
    second = http.get(CM, params={"limit": 2, "continue": first["metadata"]["continue"]}).json()
    assert [item["metadata"]["name"] for item in second["items"]] == ["c", "d"]
    last = http.get(CM, params={"limit": 2, "continue": second["metadata"]["continue"]}).json()
    assert [item["metadata"]["name"] for item in last["items"]] == ["e"] and "continue" not in last["metadata"]
    assert first["metadata"]["resourceVersion"] == last["metadata"]["resourceVersion"]
    refused(http.get(CM, params={"continue": "rubbish"}), 400, "BadRequest")
    refused(http.get(CM, params={"continue": first["metadata"]["continue"], "labelSelector": "a"}), 400, "BadRequest")
    for n in range(20):  # other lists push ours out
        http.get("/api/v1/namespaces", params={"limit": 1})
        http.post(CM, json=config(f"x{n}"))
    message = refused(http.get(CM, params={"limit": 2, "continue": first["metadata"]["continue"]}), 410, "Expired")
    assert "continue parameter is too old" in message


def test_list_versions(mesh: Any) -> None:
    http = mesh.http
    now = int(http.get(CM).json()["metadata"]["resourceVersion"])
    assert http.get(CM, params={"resourceVersion": "0"}).status_code == 200
    exact = {"resourceVersion": str(now), "resourceVersionMatch": "Exact"}
    assert http.get(CM, params=exact).status_code == 200
    http.post(CM, json=config())
    refused(http.get(CM, params=exact), 410, "Expired")
    refused(http.get(CM, params={"resourceVersion": str(now + 50)}), 504, "Timeout")
    refused(http.get(CM, params={"resourceVersion": "new"}), 400, "BadRequest")
    refused(http.get(CM, params={"resourceVersionMatch": "Exact"}), 400, "BadRequest")


def test_namespaces_must_exist_and_agree(mesh: Any) -> None:
    message = refused(mesh.http.post(CM.replace("default", "nowhere"), json=config()), 404, "NotFound")
    assert message == 'namespaces "nowhere" not found'
    other = config()
    other["metadata"]["namespace"] = "other"
    assert "does not match the namespace" in refused(mesh.http.post(CM, json=other), 400, "BadRequest")
    mesh.http.post(CM, json=config())
    assert "does not match the name on the URL" in refused(mesh.http.put(f"{CM}/c", json=config("d")), 400, "BadRequest")
    wrong = {**config(), "kind": "Secret"}
    assert "does not match the expected kind" in refused(mesh.http.post(CM, json=wrong), 400, "BadRequest")
    old = {**rating(), "apiVersion": "networking.istio.io/v1beta1"}
    assert "does not match the expected API version" in refused(mesh.http.post(VS, json=old), 400, "BadRequest")


BAD_BODIES = [
    (b"{", "application/json", 400, "BadRequest"),
    (b"[]", "application/json", 400, "BadRequest"),
    (b"", "application/json", 400, "BadRequest"),
    (b'"x"', "application/json", 400, "BadRequest"),
    (b"\xff\xfe", "application/json", 400, "BadRequest"),
    (b'{"metadata":{"name":7}}', "application/json", 400, "BadRequest"),
    (b'{"metadata":[]}', "application/json", 400, "BadRequest"),
    (b'{"metadata":{"name":"c"},"data":{"a":"\\ud800"}}', "application/json", 400, "BadRequest"),
    (b'{"metadata":{"name":"c"},"data":{"a":1e999}}', "application/json", 400, "BadRequest"),
    (b'{"metadata":{"name":"c"},"data":{"a":NaN}}', "application/json", 400, "BadRequest"),
    (b'{"metadata":{"name":"c"},"data":' + b"[" * 5000 + b"]" * 5000 + b"}", "application/json", 400, "BadRequest"),
    (b'{"metadata":{"name":"c"},"data":' + b"[" * 90000 + b"]" * 90000 + b"}", "application/json", 400, "BadRequest"),
    (b"a: [", "application/yaml", 400, "BadRequest"),
    (b"a: &x [1]\nb: *x\n", "application/yaml", 400, "BadRequest"),
    (b"a: 1\n---\nb: 1\n", "application/yaml", 400, "BadRequest"),
    (b"? [a]\n: b\n", "application/yaml", 400, "BadRequest"),
    (b"a: !!python/object:os.system x\n", "application/yaml", 400, "BadRequest"),
    (b"a: !!binary aGk=\n", "application/yaml", 400, "BadRequest"),
    (b"a: 0x" + b"f" * 100, "application/yaml", 400, "BadRequest"),
    (b"[" * 3000, "application/yaml", 400, "BadRequest"),
    (b"k8s\x00\x0a\xff", "application/vnd.kubernetes.protobuf", 400, "BadRequest"),
    (b"x", "application/vnd.kubernetes.protobuf", 400, "BadRequest"),
    (b"<x/>", "text/xml", 415, "UnsupportedMediaType"),
    (b"x" * (LIMIT + 1), "application/json", 413, "RequestEntityTooLarge"),
    (b'{"metadata":{"name":"Not_A_Name"}}', "application/json", 422, "Invalid"),
    (b'{"metadata":{"name":"c"},"data":[]}', "application/json", 400, "BadRequest"),
]


def test_bad_bodies(mesh: Any) -> None:
    for content, kind, code, reason in BAD_BODIES:
        for mode in ("Strict", "Ignore"):
            answer = mesh.http.post(CM, content=content, headers={"content-type": kind}, params={"fieldValidation": mode})
            refused(answer, code, reason)


def test_a_body_of_unknown_length_is_limited_too(mesh: Any) -> None:
    answer = mesh.http.post(CM, content=iter([b"x" * 65536] * 60), headers={"content-type": "application/json"})
    refused(answer, 413, "RequestEntityTooLarge")


ODD_PATHS = """
/api/v2 /api/v1/ /api/v1/nothings /apis/nothing.io /apis/nothing.io/v1 /apis/networking.istio.io/v9/gateways
/api/v1/namespaces/default /api/v1/pods/x /api/v1/namespaces/a/b/c/d/e/f/g /api//v1 /apis/networking.istio.io/v1/
/api/v1/namespaces/default/namespaces/x /openapi/v3/apis/none /openapi/v9 /anything / /api/v1/namespaces/default/pods/%00
/api/v1/namespaces/..%2f..%2fetc/pods/x/log /api/v1/namespaces/default/secrets/x/status /api/v1/namespaces/default/pods/x/log
"""


def test_odd_paths_answer_a_status(mesh: Any) -> None:
    for path in ODD_PATHS.split():
        for verb in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            answer = mesh.http.request(verb, path)
            assert answer.status_code < 500, (verb, path)
            if answer.status_code >= 300:
                assert answer.json()["kind"] == "Status", (verb, path)


def test_patches_of_each_kind(mesh: Any) -> None:
    mesh.http.post(VS, json=rating())
    for media in ("application/json", "text/plain", "application/strategic-merge-patch+json"):
        refused(mesh.http.patch(f"{VS}/rating", content=b"{}", headers={"content-type": media}), 415, "UnsupportedMediaType")
    apply = mesh.http.patch(f"{VS}/rating", content=b"{}", headers={"content-type": "application/apply-patch+yaml"})
    assert "server-side apply is not offered" in refused(apply, 415, "UnsupportedMediaType")
    for content in (b"", b"[]", b"7", b"null", b"{"):
        refused(mesh.http.patch(f"{VS}/rating", content=content, headers=MERGE), 400, "BadRequest")
    json_patch = {"content-type": "application/json-patch+json"}
    missing = [{"op": "remove", "path": "/spec/nothing"}]
    refused(mesh.http.patch(f"{VS}/rating", json=missing, headers=json_patch), 422, "Invalid")
    for whole in ([], 7, None):
        operations = [{"op": "replace", "path": "", "value": whole}]
        refused(mesh.http.patch(f"{VS}/rating", json=operations, headers=json_patch), 400, "BadRequest")
    renamed = {"metadata": {"name": "other"}}
    refused(mesh.http.patch(f"{VS}/rating", json=renamed, headers=MERGE), 400, "BadRequest")
    refused(mesh.http.patch(f"{VS}/nope", json={}, headers=MERGE), 404, "NotFound")


def test_a_fault_of_ours_is_an_internal_error_with_an_id(mesh: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    async def broken(*_: Any) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(mesh.store, "list", broken)
    message = refused(mesh.http.get(CM), 500, "InternalError")
    mark = message.rpartition(" ")[2]
    assert "secret" not in message and mark in caplog.text and "secret detail" in caplog.text


def test_discovery_documents(mesh: Any) -> None:
    http = mesh.http
    assert http.get("/api").json()["versions"] == ["v1"]
    groups = {group["name"]: group for group in http.get("/apis").json()["groups"]}
    assert groups["networking.istio.io"]["preferredVersion"]["version"] == "v1"
    assert http.get("/apis/networking.istio.io").json()["kind"] == "APIGroup"
    names = {one["name"]: one for one in http.get("/api/v1").json()["resources"]}
    assert (
        names["pods"]["shortNames"] == ["po"] and names["pods/log"]["verbs"] == ["get"] and not names["namespaces"]["namespaced"]
    )
    index = http.get("/openapi/v3").json()["paths"]
    for one in index.values():
        document = http.get(one["serverRelativeURL"])
        assert "immutable" in document.headers["cache-control"]
        assert document.json()["openapi"] == "3.0.0"
        assert http.get(one["serverRelativeURL"], headers={"if-none-match": document.headers["etag"]}).status_code == 304
    assert http.get("/openapi/v2").json()["swagger"] == "2.0"
    for path in ("/healthz", "/livez", "/readyz"):
        assert http.get(path).text == "ok"


def test_openapi_references_all_resolve(mesh: Any) -> None:
    for path in mesh.http.get("/openapi/v3").json()["paths"]:
        document = mesh.http.get(f"/openapi/v3/{path}").json()
        text = json.dumps(document)
        for piece in text.split('"$ref": "#/components/schemas/')[1:]:
            assert piece.partition('"')[0] in document["components"]["schemas"]


def test_secret_values_are_not_in_refusals(mesh: Any) -> None:
    secret = {"metadata": {"name": "s"}, "data": {"password": "hunter2 is not base64"}}
    answer = mesh.http.post("/api/v1/namespaces/default/secrets", json=secret)
    assert answer.status_code == 422 and "hunter2" not in answer.text


def test_patches_cannot_build_what_no_reader_can_walk(mesh: Any) -> None:
    mesh.http.post(CM, json=config())
    operations, path = [], ""
    for _ in range(600):
        path += "/x"
        operations.append({"op": "add", "path": path, "value": {}})
    for count in (600, 300, 110):
        content = json.dumps(operations[:count]).encode()
        answer = mesh.http.patch(f"{CM}/c", content=content, headers={"content-type": "application/json-patch+json"})
        assert "nested deeper" in refused(answer, 400, "BadRequest")
