"""The table of kinds and its look-ups."""

from __future__ import annotations

import pytest

from control.resources.kinds import KINDS, by_kind, by_plural, kind_of


def test_names_are_unique_and_consistent() -> None:
    assert len({(k.group, k.plural) for k in KINDS}) == len(KINDS)
    assert len({(k.group, k.kind) for k in KINDS}) == len(KINDS)
    short = [s for k in KINDS for s in k.short_names]
    assert len(set(short)) == len(short)
    for kind in KINDS:
        assert kind.struct.__name__ == kind.kind
        assert kind.singular == kind.kind.lower()
        assert by_plural(kind.group, kind.plural) is kind
        assert by_kind(kind.group, kind.kind) is kind
        for version in kind.versions:
            api_version = f"{kind.group}/{version}" if kind.group else version
            assert by_kind(api_version, kind.kind) is kind
            assert kind_of({"apiVersion": api_version, "kind": kind.kind}) is kind


def test_what_users_type() -> None:
    vs = by_plural("networking.istio.io", "virtualservices")
    assert (vs.api_version, vs.resource, vs.short_names) == (
        "networking.istio.io/v1",
        "virtualservices.networking.istio.io",
        ("vs",),
    )
    assert vs.is_mesh and vs.namespaced
    assert by_kind("v1", "Pod").resource == "pods"
    assert not by_kind("v1", "Pod").is_mesh
    assert not by_kind("", "Namespace").namespaced
    assert repr(vs) == "<Kind VirtualService.networking.istio.io>"


@pytest.mark.parametrize(
    ("group", "kind", "message"),
    [
        ("v1", "VirtualService", 'no kind "VirtualService" in apiVersion "v1"'),
        ("networking.istio.io/v7", "Gateway", "it is served as networking.istio.io/v1, networking.istio.io/v1beta1"),
        ("v2", "Pod", 'no kind "Pod" in apiVersion "v2"; it is served as v1'),
        ("x.y/v1", "Pod", 'no kind "Pod"'),
    ],
)
def test_unknown(group: str, kind: str, message: str) -> None:
    with pytest.raises(KeyError) as caught:
        by_kind(group, kind)
    assert message in caught.value.args[0]


def test_unknown_plural() -> None:
    with pytest.raises(KeyError) as caught:
        by_plural("", "virtualservices")
    assert caught.value.args[0] == "no resource 'virtualservices' in group 'core'"
