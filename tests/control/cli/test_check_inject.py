"""``meshctl x check-inject``: each webhook's decision and its reason."""

from __future__ import annotations

from typing import Any

import pytest

from control.cli import check_inject
from control.cli.__main__ import main
from control.cli.check_inject import judge
from control.client.api import ApiError
from injector.settings import Settings


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


INJECT, INJECTION, REV = "sidecar.istio.io/inject", "istio-injection", "istio.io/rev"


def configuration(name: str = "istio-sidecar-injector", revision: str = "default") -> dict[str, Any]:
    """Istio's own rules for the default revision."""
    hooks = [
        (
            "rev.namespace",
            [expression(REV, "In", revision), expression(INJECTION, "DoesNotExist")],
            [expression(INJECT, "NotIn", "false")],
        ),
        (
            "rev.object",
            [expression(REV, "DoesNotExist"), expression(INJECTION, "DoesNotExist")],
            [expression(INJECT, "NotIn", "false"), expression(REV, "In", revision)],
        ),
        ("namespace", [expression(INJECTION, "In", "enabled")], [expression(INJECT, "NotIn", "false")]),
        (
            "object",
            [expression(INJECTION, "DoesNotExist"), expression(REV, "DoesNotExist")],
            [expression(INJECT, "In", "true"), expression(REV, "DoesNotExist")],
        ),
    ]
    return {
        "metadata": {"name": name, "labels": {REV: revision}},
        "webhooks": [
            {
                "name": f"{prefix}.sidecar-injector.istio.io",
                "namespaceSelector": {"matchExpressions": spaces},
                "objectSelector": {"matchExpressions": objects},
                "clientConfig": {"service": {"namespace": "istio-system", "name": "istio-sidecar-injector"}},
            }
            for prefix, spaces, objects in hooks
        ],
    }


NO = "No matching namespace labels (istio.io/rev=default, istio-injection=enabled) or pod labels "
NO += "(istio.io/rev=default, sidecar.istio.io/inject=true)"


@pytest.mark.parametrize(
    ("namespace", "labels", "spec", "expected", "reason"),
    [
        ({}, {}, {}, False, NO),
        ({INJECTION: "enabled"}, {}, {}, True, "Namespace label istio-injection=enabled matches"),
        ({INJECTION: "enabled"}, {INJECT: "true"}, {}, True, "Namespace label istio-injection=enabled matches, and pod label sidecar.istio.io/inject=true matches"),  # noqa: E501
        ({INJECTION: "enabled"}, {INJECT: "false"}, {}, False, "Pod has sidecar.istio.io/inject=false label, preventing injection"),  # noqa: E501
        ({INJECTION: "disabled"}, {INJECT: "true"}, {}, False, "Namespace has istio-injection=disabled label, preventing injection"),  # noqa: E501
        ({}, {INJECT: "true"}, {}, True, "Pod label sidecar.istio.io/inject=true matches"),
        ({REV: "default"}, {}, {}, True, "Namespace label istio.io/rev=default matches"),
        ({REV: "other"}, {}, {}, False, NO),
        ({INJECTION: "enabled"}, {}, {"hostNetwork": True}, False, "Namespace label istio-injection=enabled matches, but spec.hostNetwork is true: interception would change the host's own traffic"),  # noqa: E501
    ],
)  # fmt: skip
def test_reasons(namespace: dict[str, str], labels: dict[str, str], spec: dict[str, Any], expected: bool, reason: str) -> None:
    pod = {"metadata": {"labels": labels}, "spec": spec}
    row = judge(configuration(), pod, namespace, "shop", Settings())
    assert (row.webhook, row.revision, row.injected, row.reason) == ("istio-sidecar-injector", "default", expected, reason)


def test_one_that_is_switched_off() -> None:
    never = {"matchLabels": {"istio.io/deactivated": "never-match"}}
    off = {"metadata": {"name": "x"}, "webhooks": [{"name": "a.istio.io", "namespaceSelector": never, "objectSelector": never}]}
    row = judge(off, {}, {}, "shop", Settings())
    assert (row.injected, row.revision) == (False, "")
    assert row.reason == "The injection webhook is deactivated, and will never match labels."


def test_one_without_selectors() -> None:
    row = judge({"metadata": {"name": "x"}, "webhooks": [{"name": "a.istio.io"}]}, {}, {}, "shop", Settings())
    assert (row.injected, row.reason) == (True, "Everything matches")


class Cluster:
    """Answers of an API server."""

    def __init__(self, objects: dict[str, Any]) -> None:
        self.objects = objects
        self.target = type("Target", (), {"namespace": "default"})()

    def request(self, method: str, path: str) -> Any:
        if path not in self.objects:
            raise ApiError(404, "NotFound", f"{path} not found")
        return self.objects[path]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {}}
    made = Cluster(
        {
            "/api/v1/namespaces/shop": {"metadata": {"name": "shop", "labels": {INJECTION: "enabled"}}},
            "/api/v1/namespaces/default": {"metadata": {"name": "default"}},
            "/api/v1/namespaces/shop/pods/web-1": {"metadata": {"name": "web-1", "labels": {INJECT: "false"}}, "spec": {}},
            "/apis/apps/v1/namespaces/shop/deployments/web": {"spec": {"template": template}},
            "/apis/batch/v1/namespaces/shop/cronjobs/nightly": {"spec": {"jobTemplate": {"spec": {"template": template}}}},
            check_inject.WEBHOOKS: {"items": [configuration(), {"metadata": {"name": "other"}, "webhooks": [{"name": "a.b"}]}]},
        }
    )
    monkeypatch.setattr(check_inject, "connect", lambda kubeconfig, context: made)
    return made


@pytest.mark.parametrize(
    ("words", "row"),
    [
        (["deploy/web", "-n", "shop"], "✔          Namespace label istio-injection=enabled matches"),
        (["deployments/web.shop"], "✔          Namespace label istio-injection=enabled matches"),
        (["cj/nightly", "-n", "shop"], "✔          Namespace label istio-injection=enabled matches"),
        (["web-1.shop"], "✘          Pod has sidecar.istio.io/inject=false label, preventing injection"),
        (["pod/web-1", "-n", "shop"], "✘          Pod has sidecar.istio.io/inject=false label, preventing injection"),
        (["-l", "sidecar.istio.io/inject=true,app=x"], "✔          Pod label sidecar.istio.io/inject=true matches"),
    ],
)
def test_the_table(cluster: Cluster, capsys: pytest.CaptureFixture[str], words: list[str], row: str) -> None:
    assert main(["x", "check-inject", *words]) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split() == ["WEBHOOK", "REVISION", "INJECTED", "REASON"]
    assert line == f"istio-sidecar-injector   default    {row}"


def test_two_at_once_and_none(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.objects[check_inject.WEBHOOKS]["items"].append(configuration("second"))
    assert main(["x", "check-inject", "deploy/web", "-n", "shop"]) == 0
    assert capsys.readouterr().out.endswith("ERROR: multiple webhooks will inject, which can lead to errors\n")
    del cluster.objects[check_inject.WEBHOOKS]
    assert main(["x", "check-inject", "deploy/web", "-n", "shop"]) == 0
    assert capsys.readouterr().out == "ERROR: no Istio injection hooks present.\n"


@pytest.mark.parametrize("words", [[], ["a", "-l", "b=c"], ["service/x"], ["deploy/"], ["-l", "novalue"]])
def test_wrong_usage(cluster: Cluster, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(["x", "check-inject", *words]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_the_injector_s_settings_count(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.objects["/api/v1/namespaces/istio-system/configmaps/istio-sidecar-injector"] = {
        "data": {"values": "policy: disabled"}
    }
    assert main(["x", "check-inject", "deploy/web", "-n", "shop"]) == 0
    assert "✘" in (out := capsys.readouterr().out)
    assert "but the injector's policy is disabled" in out


def test_no_cluster_of_ours_has_webhooks(mesh: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["x", "check-inject", "-l", "app=x", "-n", mesh.namespace]) == 0
    assert capsys.readouterr().out == "ERROR: no Istio injection hooks present.\n"
