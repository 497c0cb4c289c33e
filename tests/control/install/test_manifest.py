"""The manifests: as Kubernetes wants them, as the programs in them want them, and no larger in their rights than they must be."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from control.__main__ import _parser as control_parser
from control.cli.check_inject import judge
from control.cluster.rbac import cluster_rules, root_rules
from control.cluster.webhooks import service_names
from control.install.manifest import objects, text
from control.install.overlay import read
from control.install.plan import VERSION, Plan, settle
from injector.__main__ import _parser as injector_parser
from injector.annotations import check_settings
from injector.patch import apply
from injector.review import answer, variables
from injector.settings import Settings, with_mesh

Obj = dict[str, Any]
GOLDENS = Path(__file__).parent / "goldens"
PROFILES = ("minimal", "default", "demo")
CASES = {
    **{name: [f"profile={name}"] for name in PROFILES},
    "revision": ["profile=demo", "revision=canary"],
    "everything": [
        "profile=demo",
        "namespace=mesh",
        "values.global.imagePullSecrets={registry}",
        "values.global.imagePullPolicy=Always",
        "components.pilot.k8s.replicaCount=3",
        "components.pilot.k8s.env[0].name=A",
        "components.pilot.k8s.env[0].value=b",
        "components.pilot.k8s.priorityClassName=system-cluster-critical",
        "components.injector.k8s.podDisruptionBudget.minAvailable=1",
        "components.ingressGateways[name:inner].enabled=true",
        "components.ingressGateways[name:inner].namespace=edge",
        "components.ingressGateways[name:inner].label.istio=inner",
        "components.ingressGateways[name:inner].k8s.service.ports[0].name=http",
        "components.ingressGateways[name:inner].k8s.service.ports[0].port=80",
        "components.ingressGateways[name:inner].k8s.service.ports[0].targetPort=9000",
        "values.sidecarInjectorWebhook.enableNamespacesByDefault=true",
        "meshConfig.trustDomain=example.org",
    ],
}


def plan_of(case: str) -> Plan:
    return settle(read([], CASES[case])[0])


def made(case: str) -> list[Obj]:
    return objects(plan_of(case))


def of(found: list[Obj], kind: str, name: str) -> Obj:
    return next(obj for obj in found if obj["kind"] == kind and obj["metadata"]["name"] == name)


def deployments(found: list[Obj]) -> Iterator[Obj]:
    return (obj for obj in found if obj["kind"] == "Deployment")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("version", ["1.28", "1.30", "1.33", "1.36"])
def test_kubernetes_schemas(case: str, version: str) -> None:
    for obj in made(case):
        kubernetes_validate.validate(obj, version, strict=True)


@pytest.mark.parametrize("profile", PROFILES)
def test_goldens(profile: str) -> None:
    """All but the CRDs, which have tests of their own. To renew: write what this compares."""
    found = text([obj for obj in made(profile) if obj["kind"] != "CustomResourceDefinition"]).replace(VERSION, "VERSION")
    golden = GOLDENS / f"{profile}.yaml"
    assert found == golden.read_text(), f"{golden.name} differs"


@pytest.mark.parametrize("case", CASES)
def test_the_text_is_the_objects_and_plain(case: str) -> None:
    found = made(case)
    assert list(yaml.safe_load_all(text(found))) == json.loads(json.dumps(found))
    assert text(found) == text(made(case))


@pytest.mark.parametrize("case", CASES)
def test_order(case: str) -> None:
    """What is needed stands before who needs it."""
    found = made(case)
    places = {(obj["kind"], obj["metadata"].get("namespace"), obj["metadata"]["name"]): at for at, obj in enumerate(found)}
    assert len(places) == len(found)
    kinds = [obj["kind"] for obj in found]
    assert kinds[0] == "Namespace" and max(i for i, kind in enumerate(kinds) if kind == "Namespace") < kinds.index(
        "CustomResourceDefinition"
    )
    for obj in found:
        namespace = obj["metadata"].get("namespace")
        here = places[obj["kind"], namespace, obj["metadata"]["name"]]
        assert namespace is None or places["Namespace", None, namespace] < here
        if obj["kind"] == "Deployment":
            spec = obj["spec"]["template"]["spec"]
            assert places["ServiceAccount", namespace, spec["serviceAccountName"]] < here
            for volume in spec.get("volumes", ()):
                if "configMap" in volume:
                    assert places["ConfigMap", namespace, volume["configMap"]["name"]] < here
            auto = spec["containers"][0]["image"] == "auto"
            assert auto == (here > kinds.index("MutatingWebhookConfiguration"))
        if obj["kind"].endswith("Binding"):
            assert (
                places[obj["roleRef"]["kind"], namespace if obj["roleRef"]["kind"] == "Role" else None, obj["roleRef"]["name"]]
                < here
            )
            for subject in obj["subjects"]:
                assert ("ServiceAccount", subject["namespace"], subject["name"]) in places


@pytest.mark.parametrize("case", CASES)
def test_programs_take_their_arguments(case: str) -> None:
    plan = plan_of(case)
    parsers = {"mesh-control": control_parser(), "mesh-injector": injector_parser()}
    ran = []
    for deployment in deployments(objects(plan)):
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        if container["image"] == "auto":
            continue
        given = parsers[container["command"][0]].parse_args(container["args"])
        ran.append(container["command"][0])
        ports = {port["containerPort"] for port in container["ports"]}
        if container["command"] == ["mesh-control"]:
            assert (given.store, given.root_namespace, given.revision) == ("kubernetes", plan.namespace, plan.revision)
            assert ports == {given.port, given.metrics_port, given.webhook_port}
            assert f"{given.state}".startswith(container["volumeMounts"][0]["mountPath"] + "/")
        else:
            assert ports == {given.port, given.metrics_port}
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            for file in (given.settings, given.mesh_config, given.tls_cert, given.tls_key):
                assert str(file.parent) in mounts
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert probe not in container or container[probe]["httpGet"]["port"] in ports
    assert ran == ["mesh-control", "mesh-injector"]


@pytest.mark.parametrize("case", CASES)
def test_services_lead_to_ports_that_pods_have(case: str) -> None:
    found = made(case)
    for service in (obj for obj in found if obj["kind"] == "Service"):
        behind = [
            one["spec"]["template"]
            for one in deployments(found)
            if one["metadata"]["namespace"] == service["metadata"]["namespace"]
            and service["spec"]["selector"].items() <= one["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert len(behind) == 1
        ports = {port["containerPort"] for container in behind[0]["spec"]["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
        names = [port["name"] for port in service["spec"]["ports"]]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("case", CASES)
def test_the_injector_takes_its_settings_and_makes_gateways(case: str) -> None:
    plan, found = plan_of(case), made(case)
    values = of(found, "ConfigMap", plan.injector_name)["data"]["values"]
    mesh = of(found, "ConfigMap", plan.mesh_map)["data"]["mesh"]
    settings = check_settings(with_mesh(Settings.read(values), mesh))
    assert settings.proxy_image == plan.image and settings.root_namespace == plan.namespace
    for gateway in plan.gateways:
        template = of(found, "Deployment", gateway.name)["spec"]["template"]
        pod = {"apiVersion": "v1", "kind": "Pod", **json.loads(json.dumps(template))}
        request = {
            "uid": "1",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "operation": "CREATE",
            "namespace": gateway.namespace,
            "object": pod,
        }
        body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
        said = answer(json.dumps(body).encode(), settings, variables("")).body["response"]
        assert said["allowed"], said
        running = apply(json.loads(base64.b64decode(said["patch"])), pod)
        (container,) = running["spec"]["containers"]
        assert (container["image"], container["command"], container["args"][:2]) == (
            plan.image,
            ["meshproxy"],
            ["proxy", "router"],
        )
        assert not running["spec"].get("initContainers")
        addresses = {one["name"]: one.get("value") for one in container["env"]}
        assert addresses["CA_ADDR"] == f"{plan.control_name}.{plan.namespace}.svc:15012"
        assert {port["containerPort"] for port in container["ports"]} >= {port["targetPort"] for port in gateway.service["ports"]}
        kubernetes_validate.validate({**running, "metadata": {**running["metadata"], "name": "g"}}, "1.33", strict=True)
        restricted(running["spec"])


def restricted(spec: Obj) -> None:
    """The Pod Security Standard of that name."""
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC"))
    for volume in spec.get("volumes", ()):
        assert set(volume) - {"name"} <= {"configMap", "emptyDir", "projected", "secret", "downwardAPI"}
    for container in spec["containers"]:
        context = container["securityContext"]
        assert context["runAsNonRoot"] and context["runAsUser"] == 1337 and not context["privileged"]
        assert context["capabilities"] == {"drop": ["ALL"]} and not context["allowPrivilegeEscalation"]
        assert context["readOnlyRootFilesystem"]


@pytest.mark.parametrize("case", CASES)
def test_pods_are_restricted_and_have_no_token_they_do_not_need(case: str) -> None:
    for deployment in deployments(made(case)):
        spec = deployment["spec"]["template"]["spec"]
        restricted(spec)
        assert spec["automountServiceAccountToken"] == (spec["containers"][0].get("command") == ["mesh-control"])


@pytest.mark.parametrize("case", CASES)
def test_rights_are_named_and_bound_to_control_alone(case: str) -> None:
    plan, found = plan_of(case), made(case)
    for role in (obj for obj in found if obj["kind"] in ("Role", "ClusterRole")):
        for rule in role["rules"]:
            for part in ("apiGroups", "resources", "verbs"):
                assert rule[part] and "*" not in "".join(rule[part])
            assert not {"escalate", "bind", "impersonate", "deletecollection"} & set(rule["verbs"])
            if "secrets" in rule["resources"]:
                assert role["kind"] == "Role", "Secrets of the whole cluster are nobody's business"
    for binding in (obj for obj in found if obj["kind"].endswith("Binding")):
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": plan.control_name, "namespace": plan.namespace}]


def test_rights_are_what_control_says_that_it_needs() -> None:
    found = made("default")
    assert of(found, "ClusterRole", "istiod-clusterrole-istio-system")["rules"] == [
        r.manifest() for r in cluster_rules("istio-system")
    ]
    assert of(found, "Role", "istiod")["rules"] == [rule.manifest() for rule in root_rules()]


def test_a_revision_shares_only_what_all_must_share() -> None:
    default, canary = plan_of("demo"), plan_of("revision")
    mine = {(obj["kind"], obj["metadata"]["name"]) for obj in objects(default)}
    others = {(obj["kind"], obj["metadata"]["name"]) for obj in objects(canary)}
    gateways = {gateway.name for gateway in default.gateways}
    for kind, name in mine & others:
        assert kind in ("Namespace", "CustomResourceDefinition") or name.removesuffix("-service-account") in gateways
    named = {name for rule in of(objects(canary), "Role", "istiod-canary")["rules"] for name in rule.get("resourceNames", ())}
    assert {"istio-canary", "istio-leader-canary", "istio-sidecar-injector-certs-canary", "istio-ca-secret"} <= named
    certified = {*service_names(canary.injector_name, "istio-system"), *service_names(canary.control_name, "istio-system")}
    for hook in (obj for obj in objects(canary) if obj["kind"].endswith("WebhookConfiguration")):
        service = hook["webhooks"][0]["clientConfig"]["service"]
        assert f"{service['name']}.{service['namespace']}.svc" in certified


# labels of the namespace, of the pod, injected by the default revision, by canary
MATRIX: list[tuple[Obj, Obj, bool, bool]] = [
    ({}, {}, False, False),
    ({"istio-injection": "enabled"}, {}, True, False),
    ({"istio-injection": "enabled"}, {"sidecar.istio.io/inject": "false"}, False, False),
    ({"istio-injection": "disabled"}, {"sidecar.istio.io/inject": "true"}, False, False),
    ({}, {"sidecar.istio.io/inject": "true"}, True, False),
    ({}, {"sidecar.istio.io/inject": "false"}, False, False),
    ({"istio.io/rev": "default"}, {}, True, False),
    ({"istio.io/rev": "canary"}, {}, False, True),
    ({"istio.io/rev": "canary"}, {"sidecar.istio.io/inject": "false"}, False, False),
    ({}, {"istio.io/rev": "canary", "sidecar.istio.io/inject": "true"}, False, True),
    ({}, {"istio.io/rev": "default"}, True, False),
    ({"istio-injection": "enabled", "istio.io/rev": "canary"}, {}, True, False),
]


@pytest.mark.parametrize("namespace, pod, default, canary", MATRIX)
def test_who_is_injected(namespace: Obj, pod: Obj, default: bool, canary: bool) -> None:
    for case, expected in (("demo", default), ("revision", canary)):
        configuration = next(obj for obj in made(case) if obj["kind"] == "MutatingWebhookConfiguration")
        row = judge(configuration, {"metadata": {"labels": pod}, "spec": {}}, namespace, "shop", Settings())
        assert row.injected is expected, (case, row)


def test_webhooks() -> None:
    mutating, validating = (obj for obj in made("demo") if obj["kind"].endswith("WebhookConfiguration"))
    assert [hook["name"] for hook in mutating["webhooks"]] == [
        f"{prefix}.sidecar-injector.istio.io" for prefix in ("rev.namespace", "rev.object", "namespace", "object")
    ]
    for hook in mutating["webhooks"]:
        assert (hook["failurePolicy"], hook["sideEffects"], hook["reinvocationPolicy"]) == ("Fail", "None", "Never")
        assert hook["clientConfig"]["service"]["path"] == "/inject" and "caBundle" not in hook["clientConfig"]
    (hook,) = validating["webhooks"]
    assert (hook["failurePolicy"], hook["clientConfig"]["service"]["path"]) == ("Ignore", "/validate")
    assert [one["name"] for one in next(o for o in made("everything") if o["kind"].startswith("Mutating"))["webhooks"]][
        -1
    ].startswith("auto.")


# who is reached, at which port, and whether it may be
REACHED = [
    ("istiod", 15012, True),
    ("istiod", 15014, True),
    ("istiod", 15017, True),
    ("istiod", 15010, False),
    ("istiod", 8080, False),
    ("istio-sidecar-injector", 15017, True),
    ("istio-sidecar-injector", 15014, True),
    ("istio-sidecar-injector", 15000, False),
    ("istio-ingressgateway", 8080, True),
    ("istio-ingressgateway", 8443, True),
    ("istio-ingressgateway", 15021, True),
    ("istio-ingressgateway", 15020, True),
    ("istio-ingressgateway", 15090, True),
    ("istio-ingressgateway", 31400, True),
    ("istio-ingressgateway", 15000, False),
    ("istio-egressgateway", 8443, True),
    ("istio-egressgateway", 15443, True),
    ("istio-egressgateway", 31400, False),
]


@pytest.mark.parametrize("name, port, expected", REACHED)
def test_network_policies(name: str, port: int, expected: bool) -> None:
    """With any policy for a pod only what one of them lets in comes in."""
    found = made("demo")
    labels = of(found, "Deployment", name)["spec"]["template"]["metadata"]["labels"]
    mine = [
        obj["spec"]
        for obj in found
        if obj["kind"] == "NetworkPolicy" and obj["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    ]
    assert len(mine) == 1
    assert any(port in {one["port"] for one in rule["ports"]} and "from" not in rule for rule in mine[0]["ingress"]) is expected


@pytest.mark.parametrize("case", CASES)
def test_all_can_be_found_again(case: str) -> None:
    """Uninstall goes by these labels."""
    for obj in made(case):
        labels = obj["metadata"].get("labels") or {}
        if obj["kind"] == "Namespace":
            assert not labels
            continue
        assert labels["app.kubernetes.io/part-of"] == "pymesh"
        assert ("istio.io/rev" in labels) == (obj["kind"] != "CustomResourceDefinition")
        assert all(
            re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", value) and len(value) < 64 for value in labels.values()
        )


def test_what_control_has_of_keys_in_files_is_in_memory() -> None:
    """OpenSSL reads them from files: there for a moment in /tmp, and on no node's disk."""
    (spec,) = (
        obj["spec"]["template"]["spec"]
        for obj in objects(settle(read([], [], "")[0]))
        if obj["kind"] == "Deployment" and obj["metadata"]["name"] == "istiod"
    )
    (name,) = (one["name"] for one in spec["containers"][0]["volumeMounts"] if one["mountPath"] == "/tmp")
    (volume,) = (one for one in spec["volumes"] if one["name"] == name)
    assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": "64Mi"}
