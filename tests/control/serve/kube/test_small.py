"""The small judgements: selectors, field checks, defaults, paths, bodies, the protobuf form."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.serve.kube import body, wire
from control.serve.kube.context import target, warn
from control.serve.kube.core_check import examine
from control.serve.kube.defaults import carry_over, fill
from control.serve.kube.selectors import fields, labels
from control.serve.kube.status import ApiError, invalid
from control.serve.kube.table import dress


def labelled(**had: str) -> dict[str, Any]:
    return {"metadata": {"name": "x", "labels": had}}


@pytest.mark.parametrize(
    ("selector", "had", "matches"),
    [
        ("", {}, True),
        ("a=b", {"a": "b"}, True),
        ("a==b", {"a": "c"}, False),
        ("a!=b", {}, True),
        ("a!=b", {"a": "b"}, False),
        ("a", {"a": ""}, True),
        ("!a", {"a": ""}, False),
        ("! a", {}, True),
        ("a in (b, c)", {"a": "c"}, True),
        ("a in (b)", {}, False),
        ("a notin (b)", {}, True),
        ("a notin (b),c", {"a": "x", "c": "1"}, True),
        ("a>1,a<3", {"a": "2"}, True),
        ("a>1", {"a": "x"}, False),
        ("a=", {"a": ""}, True),
        ("app.kubernetes.io/name=x", {"app.kubernetes.io/name": "x"}, True),
    ],
)
def test_label_selectors(selector: str, had: dict[str, str], matches: bool) -> None:
    assert labels(selector).matches(labelled(**had)) is matches


@pytest.mark.parametrize(
    "selector", ["a in (b", "a=b=c", "=", "a,,b", "a in ()x", "-a=b", "a=b c", "a>x", "a" * 64, "a=" + "b" * 64]
)
def test_a_label_selector_that_does_not_parse(selector: str) -> None:
    with pytest.raises(ApiError) as caught:
        labels(selector)
    assert caught.value.code == 400


def test_field_selectors() -> None:
    pod = {"metadata": {"name": "x", "namespace": "n"}, "status": {"phase": "Running"}}
    assert fields("metadata.name=x,metadata.namespace!=m", "Pod").matches(pod)
    assert not fields("status.phase!=Running", "Pod").matches(pod)
    assert fields("spec.nodeName=", "Pod").matches(pod)
    assert fields("metadata.name=x", "Pod").name == "x"
    assert fields("metadata.name=x", "Pod").fixed and not fields("status.phase=x", "Pod").fixed
    for bad in ("spec.image=x", "metadata.name"):
        with pytest.raises(ApiError) as caught:
            fields(bad, "Pod")
        assert caught.value.code == 400


def test_core_fields_are_examined() -> None:
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x", "labls": {}},
        "spec": {"containers": [{"name": "a", "comand": [], "resources": {"limits": {"cpu": 1}}}], "nodeName": None},
    }
    found = examine(pod, "Pod")
    assert found.unknown == [
        'unknown field "metadata.labls", did you mean "labels"?',
        'unknown field "spec.containers[0].comand", did you mean "command"?',
    ]
    assert found.mistyped == []
    pod["spec"] = {"containers": [{"name": 1, "ports": [{"containerPort": "x"}], "tty": "yes", "args": {}}], "volumes": "none"}
    assert examine(pod, "Pod").mistyped == [
        "spec.containers[0].name must be a string, not an integer",
        "spec.containers[0].ports[0].containerPort must be an integer, not a string",
        "spec.containers[0].tty must be true or false, not a string",
        "spec.containers[0].args must be a list, not an object",
        "spec.volumes must be a list, not a string",
    ]
    assert examine({"what": "ever"}, "VirtualService").unknown == []


def test_defaults_are_idempotent_and_keep_what_is_given() -> None:
    service: dict[str, Any] = {"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80, "targetPort": "http"}]}}
    once = fill(copy.deepcopy(service))
    assert once["spec"]["ports"] == [{"port": 80, "targetPort": "http", "protocol": "TCP"}]
    assert fill(copy.deepcopy(once)) == once
    secret = fill({"apiVersion": "v1", "kind": "Secret", "stringData": {"a": "b"}, "data": {"c": "ZA=="}})
    assert secret == {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {"a": "Yg==", "c": "ZA=="}}


def test_the_servers_metadata_is_not_the_clients_to_write() -> None:
    stored = {"metadata": {"name": "x", "uid": "u", "creationTimestamp": "t", "generation": 3}, "status": {"phase": "Running"}}
    given = {
        "metadata": {"name": "x", "uid": "other", "generation": 9, "managedFields": []},
        "spec": {},
        "status": {"phase": "No"},
    }
    kept = carry_over({**given, "kind": "Pod"}, stored, "")
    assert kept["metadata"] == stored["metadata"] and kept["status"] == {"phase": "Running"} and kept["spec"] == {}
    reported = carry_over({**given, "kind": "Pod"}, stored, "status")
    assert reported == {"metadata": stored["metadata"], "status": {"phase": "No"}}


@pytest.mark.parametrize(
    ("group", "rest", "expected"),
    [
        ("", "namespaces", ("Namespace", None, "", "")),
        ("", "namespaces/a", ("Namespace", None, "a", "")),
        ("", "namespaces/a/status", ("Namespace", None, "a", "status")),
        ("", "namespaces/a/pods", ("Pod", "a", "", "")),
        ("", "namespaces/a/pods/b", ("Pod", "a", "b", "")),
        ("", "namespaces/a/pods/b/log", ("Pod", "a", "b", "log")),
        ("", "pods", ("Pod", None, "", "")),
        ("networking.istio.io", "namespaces/a/gateways", ("Gateway", "a", "", "")),
    ],
)
def test_paths(group: str, rest: str, expected: tuple[Any, ...]) -> None:
    found = target(group, "v1", rest)
    assert (found.kind.kind, found.namespace, found.name, found.sub) == expected


def test_warning_headers_carry_any_text() -> None:
    ((name, value),) = warn(['say "päth"\nback\\slash'])
    assert name == "warning"
    assert value.encode("latin-1").decode() == '299 - "say \\"päth\\" back\\\\slash"'
    assert len(warn([str(n) for n in range(200)])) == 50


def test_accept_headers() -> None:
    assert dress("").shape == "" and dress("*/*").shape == ""
    assert dress("application/json;as=Table;g=meta.k8s.io;v=v1beta1").api == "meta.k8s.io/v1beta1"
    assert dress("application/json;as=Table;g=other;v=v1, application/json").shape == ""
    assert dress("application/yaml").as_yaml
    with pytest.raises(ApiError):
        dress("text/html")


def test_an_invalid_with_no_name() -> None:
    assert invalid("Pod", "", "", []).body["details"]["kind"] == "Pod"


@given(st.binary(max_size=60))
def test_bytes_that_claim_to_be_protobuf_raise_nothing_else(raw: bytes) -> None:
    for data in (raw, b"k8s\x00" + raw, b"k8s\x00\x0a\x09\x0a\x02v1\x12\x03Pod\x12" + bytes([len(raw)]) + raw):
        try:
            assert isinstance(wire.decode(data), dict)
        except wire.WireError as error:
            assert "\n" not in str(error)


def _field(number: int, data: bytes | int) -> bytes:
    if isinstance(data, int):
        return _varint(number << 3) + _varint(data)
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _envelope(kind: str, raw: bytes) -> bytes:
    meta = _field(1, b"v1") + _field(2, kind.encode())
    return b"k8s\x00" + _field(1, meta) + _field(2, raw)


def test_the_protobuf_form_of_a_service() -> None:
    meta = _field(1, b"web") + _field(2, b"") + _field(8, b"") + _field(11, _field(1, b"app") + _field(2, b"x"))
    text_port = (
        _field(1, b"http") + _field(2, b"TCP") + _field(3, 80) + _field(4, _field(1, 1) + _field(2, 0) + _field(3, b"web"))
    )
    number_port = _field(3, 81) + _field(4, _field(1, 0) + _field(2, 8081) + _field(3, b""))
    spec = _field(1, text_port) + _field(1, number_port) + _field(2, _field(1, b"app") + _field(2, b"")) + _field(4, b"ClusterIP")
    assert wire.decode(_envelope("Service", _field(1, meta) + _field(2, spec) + _field(99, b"unknown"))) == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "labels": {"app": "x"}},
        "spec": {
            "ports": [
                {"name": "http", "protocol": "TCP", "port": 80, "targetPort": "web"},
                {"port": 81, "targetPort": 8081},
            ],
            "selector": {"app": ""},
            "type": "ClusterIP",
        },
    }


def test_protobuf_times_bytes_and_negative_numbers() -> None:
    meta = _field(8, _field(1, 1700000000))
    made = wire.decode(_envelope("Secret", _field(1, meta) + _field(2, _field(1, b"k") + _field(2, b"\xff\x00"))))
    assert made["metadata"] == {"creationTimestamp": "2023-11-14T22:13:20Z"} and made["data"] == {"k": "/wA="}
    options = wire.decode(_envelope("DeleteOptions", _field(1, -1)))
    assert options["gracePeriodSeconds"] == -1
    with pytest.raises(wire.WireError, match="send JSON"):
        wire.decode(_envelope("Lease", b""))


def test_duplicate_fields_are_found_with_their_paths() -> None:
    raw = b'{"a":{"b":1,"b":2},"c":[{"d":1},{"d":1,"d":2,"e":3}],"a":{"b":1,"b":2}}'
    found = body._parse(raw, False, True)
    assert found.value == {"a": {"b": 2}, "c": [{"d": 1}, {"d": 2, "e": 3}]}
    assert found.duplicates == ("a", "a.b", "c[1].d")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(json_values, st.booleans())
def test_json_reads_the_same_either_way(value: Any, noticing: bool) -> None:
    raw = json.dumps(value).encode()
    try:
        assert body._parse(raw, False, noticing).value == value
    except ApiError:
        assert "\\ud" in raw.decode()


@given(st.binary(max_size=80), st.booleans(), st.booleans())
def test_any_bytes_are_a_value_or_a_bad_request(raw: bytes, as_yaml: bool, noticing: bool) -> None:
    try:
        body._parse(raw, as_yaml, noticing)
    except ApiError as error:
        assert error.code == 400 and "\n" not in str(error)


def test_finding_a_field_given_twice_is_linear() -> None:
    fields = ",".join(f'"k{index}":""' for index in range(100_000))
    found = body._parse(f'{{"data":{{{fields},"k7":""}}}}'.encode(), False, True)
    assert found.duplicates == ("data.k7",)  # counting each key anew took minutes


def test_shapes_that_fell_the_yaml_reader_are_bad_requests() -> None:
    for raw in (b"[" * 300_000 + b"]" * 300_000, b"a: !!bool x", b"a: &x {b: c}\nd: {<<: *x}\n"):
        with pytest.raises(ApiError) as refused:
            body._parse(raw, True, False)
        assert refused.value.code == 400 and "\n" not in str(refused.value)


def test_blanks_in_a_selector_are_read_once() -> None:
    blanks = " " * 60_000  # as many as a request line takes; two parts of a pattern that fought over them took half a minute
    assert labels(f"{blanks}a{blanks}={blanks}b{blanks},{blanks}!{blanks}c{blanks}").matches(labelled(a="b"))
    for text in (f"{blanks}(", f"a{blanks}(", f"a{blanks}in{blanks}", f"!{blanks}=", f"{blanks}="):
        with pytest.raises(ApiError):
            labels(text)
