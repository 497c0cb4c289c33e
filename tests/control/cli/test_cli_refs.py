"""Words and files to objects: every name of a kind, every way to point, and errors that say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from control.cli.errors import CliError
from control.cli.options import seconds
from control.cli.refs import Document, documents, kinds_of, named, ref_of


@pytest.mark.parametrize(
    "word",
    [
        "vs",
        "virtualservice",
        "virtualservices",
        "VirtualService",
        "virtualservices.networking.istio.io",
        "vs.v1.networking.istio.io",
    ],
)
def test_every_name_of_a_kind(word: str) -> None:
    assert [kind.kind for kind in kinds_of(word)] == ["VirtualService"]


def test_several_types_and_categories() -> None:
    assert [kind.kind for kind in kinds_of("vs,dr")] == ["VirtualService", "DestinationRule"]
    assert "Pod" in [kind.kind for kind in kinds_of("all")]
    assert "Gateway" in [kind.kind for kind in kinds_of("istio-io")]


def test_an_unknown_type_is_told_the_nearest() -> None:
    with pytest.raises(CliError) as told:
        kinds_of("virtualservic")
    assert told.value.line == 'error: the server doesn\'t have a resource type "virtualservic"; did you mean virtualservice?'


def test_paths() -> None:
    assert [ref.path for ref in named(["vs", "a", "b"], "ns")] == [
        "/apis/networking.istio.io/v1/namespaces/ns/virtualservices/a",
        "/apis/networking.istio.io/v1/namespaces/ns/virtualservices/b",
    ]
    assert [ref.path for ref in named(["ns/default", "pod/x"], "ns")] == [
        "/api/v1/namespaces/default",
        "/api/v1/namespaces/ns/pods/x",
    ]
    assert named(["pods"], "ns")[0].path == "/api/v1/namespaces/ns/pods"


def test_a_name_cannot_leave_its_path() -> None:
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "../../secrets"}}
    assert ref_of(Document("f", document), "n").path == "/api/v1/namespaces/n/pods/..%2F..%2Fsecrets"


def test_an_object_goes_where_its_own_version_and_namespace_say() -> None:
    document = {"apiVersion": "networking.istio.io/v1alpha3", "kind": "Gateway", "metadata": {"name": "g", "namespace": "own"}}
    ref = ref_of(Document("f", document), "default")
    assert ref.path == "/apis/networking.istio.io/v1alpha3/namespaces/own/gateways/g"
    assert ref.said == "gateway.networking.istio.io/g"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: X", "f.yml: apiVersion, kind and metadata must be set"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {}", "f.yml: metadata.name: must be set"),
        ("[1]", "f.yml: holds a list where an object with apiVersion and kind should be"),
        ("a: [", "error parsing f.yml: "),
        (
            "apiVersion: v1\nkind: Pot\nmetadata: {name: x}",
            'resource mapping not found for name: "x" namespace: "" from "f.yml": no matches for kind "Pot" in version "v1"',
        ),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f.yml").write_text(text)
    with pytest.raises(CliError) as told:
        for document in documents(["f.yml"]):
            ref_of(document, "default")
    assert told.value.line.startswith(f"error: {said}")
    assert "\n" not in told.value.line


def test_directories_lists_and_several_documents(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text("kind: A\n---\n---\nkind: B\n")
    (tmp_path / "a.json").write_text('{"kind": "List", "items": [{"kind": "C"}, {"kind": "D"}]}')
    (tmp_path / "c.txt").write_text("not ours")
    assert [document.object["kind"] for document in documents([str(tmp_path)])] == ["C", "D", "A", "B"]


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(CliError, match=r'the path "/none\.yml" does not exist'):
        list(documents(["/none.yml"]))


@pytest.mark.parametrize(("text", "value"), [("30s", 30), ("1m30s", 90), ("250ms", 0.25), ("7", 7), ("1.5h", 5400)])
def test_durations(text: str, value: float) -> None:
    assert seconds(text, "--timeout") == value


@pytest.mark.parametrize("text", ["", "s", "-1s", "1x", "1s 2s"])
def test_bad_durations_name_the_option(text: str) -> None:
    with pytest.raises(CliError, match=r"^--timeout"):
        seconds(text, "--timeout")
