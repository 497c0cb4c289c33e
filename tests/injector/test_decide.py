"""Whether a pod gets a sidecar: the table of section F, in its order."""

from __future__ import annotations

from typing import Any

import pytest

from injector.decide import LEFT_ALONE, decide
from injector.settings import Expression, Selector, Settings

INJECT = "sidecar.istio.io/inject"
NEVER = Settings(never_inject_selector=(Selector(match_labels={"tier": "db"}),))
ALWAYS = Settings(
    policy="disabled",
    always_inject_selector=(Selector(), Selector(match_expressions=(Expression(key="tier", operator="In", values=("web",)),))),
)
BOTH = Settings(
    never_inject_selector=(Selector(match_expressions=(Expression(key="tier", operator="Exists"),)),),
    always_inject_selector=(Selector(match_labels={"tier": "web"}),),
)
OFF = Settings(policy="disabled")


@pytest.mark.parametrize(
    ("settings", "labels", "annotations", "spec", "namespace", "expected", "reason"),
    [
        (Settings(), {}, {}, {}, "shop", True, "the injector's policy is enabled"),
        (OFF, {}, {}, {}, "shop", False, "the injector's policy is disabled"),
        (OFF, {INJECT: "true"}, {}, {}, "shop", True, f"the label {INJECT} is true"),
        (OFF, {}, {INJECT: "true"}, {}, "shop", True, f"the annotation {INJECT} is true"),
        (Settings(), {}, {INJECT: "false"}, {}, "shop", False, f"the annotation {INJECT} is false"),
        (Settings(), {INJECT: "true"}, {INJECT: "false"}, {}, "shop", True, f"the label {INJECT} is true"),
        (Settings(), {INJECT: "false"}, {INJECT: "true"}, {}, "shop", False, f"the label {INJECT} is false"),
        (Settings(), {INJECT: "yes"}, {INJECT: "false"}, {}, "shop", True, "the injector's policy is enabled"),
        (OFF, {INJECT: "True"}, {}, {}, "shop", False, "the injector's policy is disabled"),
        (Settings(), {INJECT: "true"}, {}, {"hostNetwork": True}, "shop", False, "spec.hostNetwork is true"),
        (Settings(), {}, {}, {"hostNetwork": False}, "shop", True, "policy"),
        (Settings(), {INJECT: "true"}, {}, {"os": {"name": "windows"}}, "shop", False, "the pod runs on Windows"),
        (Settings(), {}, {}, {"nodeSelector": {"kubernetes.io/os": "windows"}}, "shop", False, "the pod runs on Windows"),
        (Settings(), {}, {}, {"os": {"name": "linux"}, "nodeSelector": {"kubernetes.io/os": "linux"}}, "shop", True, "policy"),
        *((Settings(), {INJECT: "true"}, {}, {}, name, False, f"the namespace {name} is left alone") for name in LEFT_ALONE),
        (Settings(), {}, {}, {}, "istio-system", False, "the namespace istio-system is the mesh's own"),
        (Settings(), {INJECT: "true"}, {}, {}, "istio-system", True, "label"),
        (Settings(root_namespace="mesh"), {}, {}, {}, "mesh", False, "the namespace mesh is the mesh's own"),
        (NEVER, {"tier": "db"}, {}, {}, "shop", False, "neverInjectSelector[0] picks"),
        (NEVER, {"tier": "db", INJECT: "true"}, {}, {}, "shop", True, "label"),
        (NEVER, {"tier": "web"}, {}, {}, "shop", True, "policy"),
        (ALWAYS, {"tier": "web"}, {}, {}, "shop", True, "alwaysInjectSelector[1] picks"),
        (ALWAYS, {"tier": "db"}, {}, {}, "shop", False, "policy"),
        (ALWAYS, {"tier": "web"}, {INJECT: "false"}, {}, "shop", False, "annotation"),
        (BOTH, {"tier": "web"}, {}, {}, "shop", False, "neverInjectSelector[0] picks"),
    ],
)  # fmt: skip
def test_decide(
    settings: Settings,
    labels: dict[str, str],
    annotations: dict[str, str],
    spec: dict[str, Any],
    namespace: str,
    expected: bool,
    reason: str,
) -> None:
    found = decide({"metadata": {"labels": labels, "annotations": annotations}, "spec": spec}, namespace, settings)
    assert found.inject is expected
    assert reason in found.reason
    odd = (labels.get(INJECT) or annotations.get(INJECT)) in ("yes", "True")
    assert bool(found.warning) is odd
    if odd:
        assert 'is neither "true" nor "false" and counts as not set' in found.warning


def test_a_pod_that_says_nothing() -> None:
    assert decide(
        {"metadata": {"labels": None, "annotations": None}, "spec": {"os": None, "nodeSelector": None}}, "a", Settings()
    )


@pytest.mark.parametrize(
    ("operator", "values", "labels", "expected"),
    [
        ("In", ("a",), {"k": "a"}, True),
        ("In", ("a",), {}, False),
        ("NotIn", ("a",), {"k": "b"}, True),
        ("NotIn", ("a",), {}, True),
        ("NotIn", ("a",), {"k": "a"}, False),
        ("Exists", (), {"k": ""}, True),
        ("Exists", (), {}, False),
        ("DoesNotExist", (), {}, True),
        ("DoesNotExist", (), {"k": "a"}, False),
    ],
)
def test_selectors(operator: Any, values: tuple[str, ...], labels: dict[str, str], expected: bool) -> None:
    selector = Selector(match_expressions=(Expression(key="k", operator=operator, values=values),))
    assert selector.matches(labels) is expected
    assert not Selector(match_labels={"x": "y"}, match_expressions=selector.match_expressions).matches(labels)
    assert not Selector().matches(labels)
