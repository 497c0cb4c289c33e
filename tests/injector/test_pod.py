"""How a pod gets its sidecar: nothing of the user's is lost, a second run changes nothing, each wish is heard."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import kubernetes_validate
import msgspec
import pytest
import yaml
from hypothesis import given

from control.resources.core import Pod
from control.world.pods import pod_info
from injector import annotations as notes
from injector.annotations import BadPod
from injector.names import INIT, PROXY, STATUS
from injector.pod import inject, stripped
from injector.settings import Cni, Init, Proxy, Settings
from meshproxy.bootstrap import AppPage, parse
from tests.injector.pods import OWNERS, SETTINGS, Obj, admitted, owned, pod, pods

CORPUS = Path(__file__).parent / "corpus"


def injected(made: Obj, settings: Settings = SETTINGS) -> Obj:
    return inject(made, "shop", settings)


def annotated(**values: str) -> Obj:
    """Keys with ``__`` for the prefix sidecar.istio.io/."""
    return pod(annotations={f"sidecar.istio.io/{key}": value for key, value in values.items()})


def named(items: list[Obj], name: str) -> Obj:
    return next(one for one in items if one["name"] == name)


def proxy(made: Obj) -> Obj:
    return named([*made["spec"].get("initContainers", []), *made["spec"]["containers"]], PROXY)


def env(made: Obj) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in proxy(made)["env"]}


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.pod.yml")), ids=lambda path: path.name.removesuffix(".pod.yml"))
def test_goldens(path: Path) -> None:
    """``MESH_GOLDENS=write`` writes what comes out; look at the difference before you commit it."""
    given, *settings = list(yaml.safe_load_all(path.read_text()))
    made, _ = admitted(given, Settings.read(yaml.safe_dump({"tag": "test", **(settings[0] if settings else {})})))
    expected = path.with_name(path.name.replace(".pod.", ".expected."))
    if os.environ.get("MESH_GOLDENS") == "write":
        expected.write_text(yaml.safe_dump(made, sort_keys=False, width=1000))
    assert yaml.safe_load(expected.read_text()) == made
    kubernetes_validate.validate(made, "1.33", strict=True)


@pytest.mark.parametrize("kind", OWNERS)
def test_owners(kind: str) -> None:
    made, _ = admitted(owned(kind))
    name, reference = OWNERS[kind][2]
    assert (env(made)["ISTIO_META_WORKLOAD_NAME"], env(made)["ISTIO_META_OWNER"]) == (name, reference)
    kubernetes_validate.validate(made, "1.33", strict=True)


@given(pods())
def test_a_second_run_changes_nothing(given: Obj) -> None:
    before = copy.deepcopy(given)
    once, first = admitted(given)
    assert given == before
    assert first.verdict == "injected"
    again, second = admitted(once)
    assert (second.verdict, again) == ("unchanged", once)


@given(pods())
def test_a_second_run_leaves_what_kubernetes_added(given: Obj) -> None:
    once, _ = admitted(given)
    for one in (*once["spec"].get("initContainers", ()), *once["spec"]["containers"]):
        one["terminationMessagePath"] = "/dev/termination-log"
        one.setdefault("volumeMounts", []).append({"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io"})
        for probe in ("readinessProbe", "startupProbe"):
            if probe in one:
                one[probe]["successThreshold"] = 1
    for volume in once["spec"]["volumes"]:
        if "configMap" in volume:
            volume["configMap"]["defaultMode"] = 420
    again, second = admitted(once)
    assert (second.verdict, again) == ("unchanged", once)


OURS = {
    "security.istio.io/tlsMode", "service.istio.io/canonical-name", "service.istio.io/canonical-revision", "istio.io/rev",
    "kubectl.kubernetes.io/default-container", "kubectl.kubernetes.io/default-logs-container", "proxy.istio.io/overrides",
}  # fmt: skip


def numbered(spec: Obj) -> Obj:
    """Probes' named ports as numbers: what a pod that was injected no longer knows."""
    for one in (*spec.get("initContainers", ()), *spec["containers"]):
        ports = {port.get("name"): port["containerPort"] for port in one.get("ports", ())}
        for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
            for handler in ("httpGet", "tcpSocket"):
                action = one.get(probe, {}).get(handler)
                if action and action["port"] in ports:
                    action["port"] = ports[action["port"]]
    return spec


@given(pods())
def test_without_what_was_added_it_is_the_user_s(given: Obj) -> None:
    made, _ = admitted(given)
    wishes = notes.read(made["metadata"]["annotations"])
    bare, own = stripped(made, wishes, {PROXY, INIT})
    expected = copy.deepcopy(given)
    theirs = [one for one in expected["spec"]["containers"] if one["name"] == PROXY]
    expected["spec"]["containers"] = [one for one in expected["spec"]["containers"] if one["name"] != PROXY]
    assert list(own.values()) == theirs
    assert numbered(bare["spec"]) == numbered(expected["spec"])
    for field in ("labels", "annotations"):
        left = {key: value for key, value in bare["metadata"].pop(field).items() if key not in OURS}
        there = expected["metadata"].pop(field, {})
        assert left == {key: value for key, value in there.items() if key not in OURS}
    assert bare["metadata"] == expected["metadata"]


@given(pods())
def test_nothing_of_the_user_s_is_lost_or_moved(given: Obj) -> None:
    made, _ = admitted(given)
    for field in ("containers", "initContainers", "volumes", "imagePullSecrets"):
        before = [one["name"] for one in given["spec"].get(field, ()) if one["name"] != PROXY]
        after = [one["name"] for one in made["spec"].get(field, ())]
        assert [name for name in after if name in before] == before
    for one in given["spec"]["containers"]:
        after_one = proxy(made) if one["name"] == PROXY else named(made["spec"]["containers"], one["name"])
        for key, value in one.items():
            if key in ("env", "ports"):
                assert all(item in after_one[key] or "name" not in item for item in value)
            elif key not in ("image", "readinessProbe", "livenessProbe", "startupProbe", "lifecycle"):
                assert after_one[key] == value
    for key, value in (given["metadata"].get("annotations") or {}).items():
        if not key.startswith("prometheus.io/"):
            assert made["metadata"]["annotations"][key] == value
    for key, value in (given["metadata"].get("labels") or {}).items():
        assert made["metadata"]["labels"][key] == value


@given(pods())
def test_opted_out_is_untouched(given: Obj) -> None:
    given["metadata"].setdefault("labels", {})["sidecar.istio.io/inject"] = "false"
    made, found = admitted(given)
    assert (made, found.verdict) == (given, "skipped")
    assert "patch" not in found.body["response"]


def test_order() -> None:
    inits = [{"name": "a", "image": "x"}]
    classic = injected(pod(initContainers=inits))["spec"]
    assert [one["name"] for one in classic["containers"]] == ["web", PROXY]
    assert [one["name"] for one in classic["initContainers"]] == ["a", INIT]
    native = injected(pod(initContainers=inits, annotations={"sidecar.istio.io/nativeSidecar": "true"}))["spec"]
    assert [one["name"] for one in native["containers"]] == ["web"]
    assert [one["name"] for one in native["initContainers"]] == [INIT, PROXY, "a"]
    cni = injected(pod(initContainers=inits), Settings(cni=Cni(enabled=True)))["spec"]
    assert [one["name"] for one in cni["initContainers"]] == ["istio-validation", "a"]


@pytest.mark.parametrize(
    ("settings", "wish", "expected"),
    [
        (Settings(), None, False),
        (Settings(kubernetes_version="1.32"), None, False),
        (Settings(kubernetes_version="v1.33.2-eks-1"), None, True),
        (Settings(kubernetes_version="1.40"), None, True),
        (Settings(kubernetes_version="1.40", native_sidecars="false"), None, False),
        (Settings(native_sidecars="true"), None, True),
        (Settings(native_sidecars="true"), "false", False),
        (Settings(), "true", True),
    ],
)
def test_native(settings: Settings, wish: str | None, expected: bool) -> None:
    made = injected(pod(annotations={"sidecar.istio.io/nativeSidecar": wish} if wish else {}), settings)
    assert (PROXY in [one["name"] for one in made["spec"]["initContainers"]]) is expected
    assert (proxy(made).get("restartPolicy") == "Always") is expected
    stop = {"preStop": {"exec": {"command": ["meshproxy", "request", "--debug-port=15020", "POST", "drain"]}}}
    assert (proxy(made).get("lifecycle") == stop) is expected


def test_hold() -> None:
    made = injected(pod(annotations={"proxy.istio.io/config": "holdApplicationUntilProxyStarts: true"}))
    assert [one["name"] for one in made["spec"]["containers"]] == [PROXY, "web"]
    assert proxy(made)["lifecycle"] == {"postStart": {"exec": {"command": ["meshproxy", "wait"]}}}
    assert made["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"] == "web"
    everywhere = Settings(proxy=Proxy(hold_application_until_proxy_starts=True))
    assert injected(pod(), everywhere)["spec"]["containers"][0]["name"] == PROXY
    off = pod(annotations={"proxy.istio.io/config": "holdApplicationUntilProxyStarts: false"})
    assert injected(off, everywhere)["spec"]["containers"][0]["name"] == "web"


def test_resources_are_replaced_as_a_whole() -> None:
    assert proxy(injected(pod()))["resources"] == {
        "requests": {"cpu": "100m", "memory": "128Mi"},
        "limits": {"cpu": "2000m", "memory": "1024Mi"},
    }
    assert proxy(injected(annotated(proxyCPU="5m")))["resources"] == {"requests": {"cpu": "5m"}}
    made = injected(annotated(proxyMemoryLimit="1Gi", proxyCPULimit="2"))
    assert proxy(made)["resources"] == {"limits": {"cpu": "2", "memory": "1Gi"}}
    assert made["spec"]["initContainers"][0]["resources"] == proxy(made)["resources"]


def test_images() -> None:
    assert proxy(injected(pod(), Settings(hub="reg.io/x", tag="9")))["image"] == "reg.io/x/mesh:9"
    assert proxy(injected(pod(), Settings(image="reg.io/own:1")))["image"] == "reg.io/own:1"
    made = injected(annotated(proxyImage="mine:2", proxyImageType="distroless"), Settings(image_pull_policy="Always"))
    assert (proxy(made)["image"], proxy(made)["imagePullPolicy"]) == ("mine:2", "Always")
    assert made["spec"]["initContainers"][0]["image"] == "mine:2"
    own = injected(pod(imagePullSecrets=[{"name": "a"}]), Settings(image_pull_secrets=("a", "b"), init=Init(image="init:1")))
    assert own["spec"]["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}]
    assert json.loads(own["metadata"]["annotations"][STATUS])["imagePullSecrets"] == ["b"]
    assert own["spec"]["initContainers"][0]["image"] == "init:1"


def test_rules() -> None:
    traffic = "traffic.sidecar.istio.io"
    made = injected(
        pod(
            annotations={
                f"{traffic}/includeOutboundIPRanges": "10.0.0.0/8, 2001:db8::/32",
                f"{traffic}/excludeOutboundIPRanges": "10.1.0.0/16",
                f"{traffic}/includeInboundPorts": "80,443",
                f"{traffic}/excludeInboundPorts": "9000, 15020",
                f"{traffic}/includeOutboundPorts": "1000",
                f"{traffic}/excludeOutboundPorts": "3306,5432",
                f"{traffic}/excludeInterfaces": "eth1",
                "istio.io/reroute-virtual-interfaces": "net1,net2",
                "status.sidecar.istio.io/port": "15999",
                "sidecar.istio.io/agentLogLevel": "default:debug",
            }
        )
    )
    init = made["spec"]["initContainers"][0]
    assert init["command"] == ["mesh-init"]
    assert " ".join(init["args"]) == (
        "istio-iptables -p 15001 -z 15006 -u 1337 -m REDIRECT -i 10.0.0.0/8,2001:db8::/32 -x 10.1.0.0/16 -b 80,443 "
        "-d 15090,15021,15999,9000,15020 -q 1000 -o 3306,5432 -k net1,net2 -c eth1 --log_output_level=default:debug"
    )
    plain = injected(pod(), Settings(init=Init(force_apply=True)))["spec"]["initContainers"][0]
    assert plain["args"][7:] == [
        *("-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*", "-d", "15090,15021,15020"),
        *("--log_output_level=default:info", "--force-apply"),
    ]
    assert plain["securityContext"]["capabilities"] == {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]}
    cni = injected(pod(), Settings(cni=Cni(enabled=True)))["spec"]["initContainers"][0]
    assert cni["args"][-2:] == ["--run-validation", "--skip-rule-apply"]
    assert (cni["securityContext"]["runAsUser"], cni["securityContext"]["capabilities"]) == (1337, {"drop": ["ALL"]})


def test_no_interception() -> None:
    made = injected(annotated(interceptionMode="NONE"))
    assert "initContainers" not in made["spec"]
    assert env(made)["ISTIO_META_INTERCEPTION_MODE"] == "NONE"
    own = {"name": INIT, "image": "mine"}
    kept = injected(pod(initContainers=[own], annotations={"sidecar.istio.io/interceptionMode": "NONE"}))
    assert kept["spec"]["initContainers"] == [own]


def test_security() -> None:
    safe = proxy(injected(pod()))["securityContext"]
    assert safe == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "runAsGroup": 1337,
        "runAsNonRoot": True,
        "runAsUser": 1337,
    }
    low = proxy(injected(annotated(capNetBindService="true")))["securityContext"]
    assert (low["runAsUser"], low["runAsNonRoot"], low["runAsGroup"]) == (0, False, 1337)
    assert low["capabilities"] == {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]}


def test_probes_of_the_sidecar() -> None:
    ready = "readiness.status.sidecar.istio.io"
    made = proxy(
        injected(
            pod(
                annotations={f"{ready}/initialDelaySeconds": "2", f"{ready}/periodSeconds": "3", f"{ready}/failureThreshold": "5"}
            )
        )
    )
    assert made["readinessProbe"] == {
        "httpGet": {"path": "/healthz/ready", "port": 15021},
        "initialDelaySeconds": 2,
        "periodSeconds": 3,
        "timeoutSeconds": 3,
        "failureThreshold": 5,
    }
    assert made["startupProbe"] == {
        "httpGet": {"path": "/healthz/ready", "port": 15021},
        "periodSeconds": 1,
        "timeoutSeconds": 3,
        "failureThreshold": 600,
    }
    silent = injected(pod(annotations={"status.sidecar.istio.io/port": "0"}))
    assert not {"readinessProbe", "startupProbe"} & set(proxy(silent))
    assert "prometheus.io/scrape" not in silent["metadata"]["annotations"]


def test_environment() -> None:
    settings = Settings(
        revision="canary",
        cluster_name="west",
        network="n1",
        trust_domain="acme.io",
        proxy=Proxy(env={"A": "1", "B": "1"}),
        proxy_config={"concurrency": 2, "proxyMetadata": {"B": "2", "C": "2"}},
    )
    made = inject(
        pod(annotations={"proxy.istio.io/config": "drainDuration: 5s\nproxyMetadata: {C: '3', ISTIO_META_X: y}"}),
        "shop",
        settings,
        variables=(("ISTIO_META_CLUSTER_ID", "east"),),
    )
    found = env(made)
    assert {key: found[key] for key in "ABC"} == {"A": "1", "B": "2", "C": "3"}
    assert (found["ISTIO_META_CLUSTER_ID"], found["ISTIO_META_NETWORK"], found["ISTIO_META_X"]) == ("east", "n1", "y")
    assert (found["CA_ADDR"], found["TRUST_DOMAIN"]) == ("istiod-canary.istio-system.svc:15012", "acme.io")
    assert found["ISTIO_META_MESH_ID"] == "acme.io"
    assert json.loads(found["PROXY_CONFIG"]) == {
        "concurrency": 2,
        "drainDuration": "5s",
        "proxyMetadata": {"B": "2", "C": "3", "ISTIO_META_X": "y"},
        "statusPort": 15020,
    }
    assert json.loads(found["ISTIO_META_POD_PORTS"]) == [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]
    assert found["ISTIO_META_APP_CONTAINERS"] == "web"
    assert found["POD_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert made["metadata"]["labels"]["topology.istio.io/network"] == "n1"
    assert made["metadata"]["annotations"]["istio.io/rev"] == "canary"
    names = [one["name"] for one in proxy(made)["env"]]
    assert len(names) == len(set(names))


def test_another_revision_takes_over() -> None:
    once = injected(pod(), Settings(tag="1", revision="one"))
    twice = injected(once, Settings(tag="2", revision="two"))
    assert twice == injected(pod(), Settings(tag="2", revision="two"))


@pytest.mark.parametrize(
    ("labels", "name", "revision"),
    [
        ({"app": "a", "version": "v1"}, "a", "v1"),
        ({"app": "a", "app.kubernetes.io/name": "b", "app.kubernetes.io/version": "2", "version": "v1"}, "b", "2"),
        ({"service.istio.io/canonical-name": "c", "app": "a"}, "c", "latest"),
        ({}, "web-0", "latest"),
        ({"service.istio.io/workload-name": "w"}, "w", "latest"),
    ],
)
def test_canonical_names(labels: dict[str, str], name: str, revision: str) -> None:
    made = injected(pod(labels=labels))["metadata"]["labels"]
    assert made["service.istio.io/canonical-name"] == name
    assert made["service.istio.io/canonical-revision"] == revision
    assert made["security.istio.io/tlsMode"] == "istio"


def test_a_long_name_is_cut_to_a_label() -> None:
    long = pod(labels={})
    long["metadata"]["name"] = "a" * 62 + "-" + "b" * 80
    assert injected(long)["metadata"]["labels"]["service.istio.io/canonical-name"] == "a" * 62


def test_volumes_of_the_user_s() -> None:
    own = {"name": "istiod-ca-cert", "configMap": {"name": "mine"}}
    made = injected(
        pod(
            volumes=[own],
            annotations={
                "sidecar.istio.io/userVolume": '{"certs": {"secret": {"secretName": "certs"}}}',
                "sidecar.istio.io/userVolumeMount": '[{"name": "certs", "mountPath": "/etc/certs", "readOnly": true}]',
                "sidecar.istio.io/bootstrapOverride": "boot",
            },
        )
    )
    assert named(made["spec"]["volumes"], "istiod-ca-cert") == own
    assert made["spec"]["volumes"][-2:] == [
        {"name": "custom-bootstrap-volume", "configMap": {"name": "boot"}},
        {"name": "certs", "secret": {"secretName": "certs"}},
    ]
    assert proxy(made)["volumeMounts"][-1] == {"name": "certs", "mountPath": "/etc/certs", "readOnly": True}
    assert "istiod-ca-cert" not in json.loads(made["metadata"]["annotations"][STATUS])["volumes"]
    assert env(made)["ISTIO_BOOTSTRAP_OVERRIDE"] == "/etc/istio/custom-bootstrap/custom_bootstrap.json"


def test_the_user_s_own_proxy_is_laid_over_the_template() -> None:
    own = {
        "name": PROXY,
        "image": "auto",
        "env": [{"name": "POD_NAME", "value": "fixed"}, {"name": "MORE", "value": "1"}],
        "ports": [{"containerPort": 15090, "name": "mine"}, {"containerPort": 80}],
        "volumeMounts": [{"mountPath": "/x", "name": "x"}],
        "readinessProbe": {"exec": {"command": ["true"]}},
        "securityContext": {"runAsUser": 4444},
        "resources": {"limits": {"cpu": "3"}},
    }
    given = pod(volumes=[{"name": "x", "emptyDir": {}}])
    given["spec"]["containers"].insert(0, own)
    made = injected(given)
    sidecar = proxy(made)
    assert [one["name"] for one in made["spec"]["containers"]] == ["web", PROXY]
    assert sidecar["image"] == "pymesh/mesh:test"
    assert named(sidecar["env"], "POD_NAME") == {"name": "POD_NAME", "value": "fixed"}
    assert named(sidecar["env"], "MORE")["value"] == "1"
    assert sidecar["ports"] == [{"containerPort": 15090, "name": "mine", "protocol": "TCP"}, {"containerPort": 80}]
    assert sidecar["volumeMounts"][-1] == {"mountPath": "/x", "name": "x"}
    assert sidecar["readinessProbe"]["exec"] == {"command": ["true"]}
    assert "httpGet" not in sidecar["readinessProbe"]
    assert (sidecar["securityContext"]["runAsUser"], sidecar["securityContext"]["runAsGroup"]) == (4444, 1337)
    assert sidecar["resources"]["limits"] == {"cpu": "3", "memory": "1024Mi"}
    assert json.loads(made["metadata"]["annotations"]["proxy.istio.io/overrides"]) == {"containers": [own]}
    arguments = made["spec"]["initContainers"][0]["args"]
    assert arguments[arguments.index("-u") + 1] == "4444"  # the rules must let this user's traffic pass
    assert injected(made) == made
    own["image"] = "mine:1"
    assert proxy(injected(given))["image"] == "mine:1"


def test_gateway() -> None:
    gateway = pod(annotations={"inject.istio.io/templates": "gateway"})
    with pytest.raises(BadPod, match=r"spec\.containers: a gateway needs a container istio-proxy"):
        injected(gateway)
    gateway["spec"]["containers"] = [{"name": PROXY, "image": "auto", "ports": [{"containerPort": 8080}]}]
    made = injected(gateway, Settings(tag="test", native_sidecars="true"))
    assert "initContainers" not in made["spec"]
    assert proxy(made)["args"][:2] == ["proxy", "router"]
    assert {port["containerPort"] for port in proxy(made)["ports"]} == {15090, 8080}
    assert "security.istio.io/tlsMode" not in made["metadata"]["labels"]
    assert injected(made, Settings(tag="test", native_sidecars="true")) == made
    kubernetes_validate.validate(made, "1.33", strict=True)


def test_a_pod_of_the_proxy_alone_is_no_native_one() -> None:
    given = pod(annotations={"sidecar.istio.io/nativeSidecar": "true"})
    given["spec"]["containers"] = [{"name": PROXY, "image": "auto"}]
    assert [one["name"] for one in injected(given)["spec"]["containers"]] == [PROXY]


def test_injected_annotations_are_not_over_the_user_s() -> None:
    settings = Settings(injected_annotations={"a": "1", "b": "1"})
    found = injected(pod(annotations={"a": "mine"}), settings)["metadata"]["annotations"]
    assert (found["a"], found["b"]) == ("mine", "1")


def test_a_pod_without_containers_is_refused() -> None:
    with pytest.raises(BadPod, match=r"spec\.containers: must be a list"):
        injected({"metadata": {}, "spec": {"containers": []}})


def test_labels_of_the_topology_go_before() -> None:
    given = pod(labels={"topology.istio.io/network": "mine", "topology.istio.io/cluster": "here"})
    ways = (("ISTIO_META_CLUSTER_ID", "east"), ("ISTIO_META_NETWORK", "n1"))
    found = env(inject(given, "shop", Settings(network="n0"), variables=ways))
    assert (found["ISTIO_META_CLUSTER_ID"], found["ISTIO_META_NETWORK"]) == ("here", "mine")
    found = env(inject(pod(), "shop", Settings(network="n0"), variables=ways))
    assert (found["ISTIO_META_CLUSTER_ID"], found["ISTIO_META_NETWORK"]) == ("east", "n1")


def test_a_port_of_the_agent_s_is_told_to_its_own_command() -> None:
    wishes = {"sidecar.istio.io/nativeSidecar": "true", "status.sidecar.istio.io/port": "15999"}
    hook = proxy(injected(pod(annotations=wishes)))["lifecycle"]["preStop"]["exec"]
    assert hook == {"command": ["meshproxy", "request", "--debug-port=15999", "POST", "drain"]}


def test_our_sidecar_understands_what_the_injector_says() -> None:
    wishes = {
        "proxy.istio.io/config": "concurrency: 2\nterminationDrainDuration: 7s",
        "status.sidecar.istio.io/port": "15999",
        "sidecar.istio.io/logLevel": "debug",
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "9090",
    }
    given = pod(annotations=wishes)
    given["spec"]["containers"][0]["readinessProbe"] = {"httpGet": {"path": "/ready", "port": "http"}}
    sidecar = proxy(injected(given))
    fields = {
        "metadata.name": "web-0",
        "metadata.namespace": "shop",
        "status.podIP": "10.0.0.7",
        "spec.serviceAccountName": "web",
    }
    environ = {}
    for one in sidecar["env"]:
        source = one.get("valueFrom", {})
        environ[one["name"]] = one.get("value", fields.get(source.get("fieldRef", {}).get("fieldPath", ""), "2"))
    assert sidecar["command"] == ["meshproxy"]
    found = parse(sidecar["args"], environ, lambda path: True, lambda path: 'app="web"')
    assert (found.node, found.ip, found.service_account, found.role) == ("web-0.shop", "10.0.0.7", "web", "sidecar")
    assert found.control == "https://istiod.istio-system.svc:15012"
    assert str(found.control_ca).startswith("/var/run/secrets/istio/")
    assert str(found.token_file) == "/var/run/secrets/tokens/istio-token"
    assert (found.concurrency, found.termination_seconds, found.metrics_port, found.log_level) == (2, 7.0, 15999, "debug")
    assert found.app_metrics == AppPage("", 9090, "/metrics")
    assert found.app_probers[0][0] == "/app-health/web/readyz"
    assert found.workload_name == "web-0"
    assert found.labels == (("app", "web"),)


def test_control_learns_of_ports_that_the_settings_leave_out() -> None:
    """It reads them from the pod: who calls there would begin mutual TLS with an app otherwise."""
    settings = Settings(tag="test", proxy=Proxy(exclude_inbound_ports="9100", include_inbound_ports="80,9100"))
    made = inject(pod(), "shop", settings)
    found = pod_info(msgspec.convert({**made, "metadata": {**made["metadata"], "namespace": "shop"}}, Pod))
    assert (found.bypassed(9100), found.bypassed(80), found.bypassed(81)) == (True, False, True)
    assert inject(made, "shop", settings) == made
    own = pod(annotations={"traffic.sidecar.istio.io/excludeInboundPorts": "7000"})
    kept = inject(own, "shop", settings)["metadata"]["annotations"]
    assert kept["traffic.sidecar.istio.io/excludeInboundPorts"] == "7000"
    assert not any("InboundPorts" in key for key in inject(pod(), "shop", SETTINGS)["metadata"]["annotations"])
