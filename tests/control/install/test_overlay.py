"""What may be asked, in files and with --set, and what is said of what may not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.install.overlay import BadOptions, read
from control.install.plan import VERSION, Plan, settle


def planned(*sets: str, file: str = "", revision: str = "") -> Plan:
    return settle(read([("mesh.yaml", file)] if file else [], list(sets), revision)[0])


def refused(*sets: str, file: str = "") -> str:
    with pytest.raises(BadOptions) as told:
        planned(*sets, file=file)
    return str(told.value)


def names(plan: Plan) -> list[str]:
    return [gateway.name for gateway in plan.gateways]


@pytest.mark.parametrize(
    "profile, gateways",
    [
        ("minimal", []),
        ("default", ["istio-ingressgateway"]),
        ("demo", ["istio-ingressgateway", "istio-egressgateway"]),
    ],
)
def test_profiles(profile: str, gateways: list[str]) -> None:
    assert names(planned(f"profile={profile}")) == gateways


def test_without_anything_it_is_the_default() -> None:
    plan = planned()
    assert (plan.profile, plan.namespace, plan.revision, plan.image) == ("default", "istio-system", "", f"pymesh/mesh:{VERSION}")
    assert plan.warnings == ()


def test_what_istioctls_users_write() -> None:
    assert planned("meshConfig.accessLogFile=/dev/stdout").mesh == {"accessLogFile": "/dev/stdout"}
    assert planned("values.global.hub=registry.example/a", "values.global.tag=1.10").image == "registry.example/a/mesh:1.10"
    assert planned("hub=registry.example/b", "values.global.hub=a").image.startswith("registry.example/b/")
    assert names(planned("components.ingressGateways[0].enabled=false")) == []
    assert names(planned("components.egressGateways[name:istio-egressgateway].enabled=true"))[1] == "istio-egressgateway"
    assert planned("revision=canary").control_name == "istiod-canary"
    assert planned("revision=default").control_name == "istiod"
    assert planned("values.pilot.traceSampling=50").trace_sampling == 50.0
    assert planned("values.pilot.replicaCount=3").control_work.replicas == 3
    assert planned("components.pilot.k8s.replicaCount=4").control_work.replicas == 4
    assert planned("values.gateways.istio-ingressgateway.type=NodePort").gateways[0].service["type"] == "NodePort"
    assert planned("components.ingressGateways[0].k8s.service.type=ClusterIP").gateways[0].service["type"] == "ClusterIP"
    assert planned("values.global.imagePullSecrets={one,two}").pull_secrets == ("one", "two")
    sidecar = planned("values.global.proxy.resources.requests.cpu=50m").injector["proxy"]["resources"]
    assert sidecar == {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"cpu": "2000m", "memory": "1024Mi"}}
    ports = planned("values.gateways.istio-ingressgateway.ports[1].nodePort=30080").gateways[0].service["ports"]
    assert ports[1] == {"name": "http2", "port": 80, "targetPort": 8080, "nodePort": 30080, "protocol": "TCP"} and len(ports) == 3
    assert planned("values.pilot.env.ENABLE_NATIVE_SIDECARS=true").injector["nativeSidecars"] == "true"
    assert planned("values.global.proxy.autoInject=disabled").injector["policy"] == "disabled"
    assert planned(r"components.pilot.k8s.nodeSelector.kubernetes\.io/os=linux").control_work.node_selector == {
        "kubernetes.io/os": "linux"
    }
    assert planned("meshConfig.defaultConfig.proxyMetadata.A=true").mesh["defaultConfig"]["proxyMetadata"] == {"A": "true"}


@pytest.mark.parametrize(
    "setting, told",
    [
        ("profile=demmo", 'profile: must be one of minimal, default, demo, not demmo; did you mean "demo"?'),
        ("values.global.hubb=x", 'values.global.hubb: unknown field; did you mean "hub"?'),
        ("global.hub=x", 'global: unknown field; did you mean "values.global"?'),
        ("component.pilot.enabled=true", 'component: unknown field; did you mean "components"?'),
        ("profile", "--set profile: must be like profile=demo"),
        ("=x", "--set =x: must be like"),
        ("a..b=1", '--set a..b: cannot be read as a path at "..b"'),
        ("[0]=1", "must begin with a name"),
        ("components.pilot.k8s.replicaCount=many", "components.pilot.k8s.replicaCount: must be an integer"),
        ("components.ingressGateways[3].enabled=true", "components.ingressGateways[3]: there is 1 entry: the next is [1]"),
        ("components.ingressGateways[1].enabled=true", "components.ingressGateways[1].name: is required"),
        (
            "components.ingressGateways[name:own].enabled=true",
            "components.ingressGateways[1].k8s.service.ports: a gateway of your own",
        ),
        ("components.pilot.enabled=false", "components.pilot.enabled: a mesh cannot be without it"),
        ("components.cni.enabled=true", "components.cni.enabled: there is no CNI plugin here"),
        ("revision=Canary", "revision: must be lower case letters"),
        ("namespace=a_b", "namespace: must be a namespace's name"),
        ("meshConfig.accessLogFile=stdout", "meshConfig.accessLogFile: must be an absolute path"),
        ("hub=a b", "hub, tag: must make an image's name"),
        ("hub=registry.example/$(id)", "hub, tag: must make an image's name"),
        ("tag=1;rm", "hub, tag: must make an image's name"),
        ("values.gateways.istio-ingressgateway.type=Loadbalancer", "values.gateways.istio-ingressgateway.type"),
        ("components.ingressGateways[0].k8s.service.ports[0].port=0", "ports[0].port"),
        ("components.pilot.k8s.replicaCount=-1", "components.pilot.k8s.replicaCount"),
        ("profile.x=1", "profile"),
    ],
)
def test_what_is_wrong_is_said_with_its_path(setting: str, told: str) -> None:
    assert told in refused(setting)


def test_components_go_before_values() -> None:
    plan = planned(
        "values.pilot.replicaCount=3",
        "components.pilot.k8s.replicaCount=4",
        "values.gateways.istio-ingressgateway.type=NodePort",
        "components.ingressGateways[0].k8s.service.type=ClusterIP",
        "values.pilot.resources.requests.cpu=1",
        "components.pilot.k8s.resources.requests.cpu=2",
    )
    assert (plan.control_work.replicas, plan.gateways[0].service["type"]) == (4, "ClusterIP")
    assert plan.control_work.resources == {"requests": {"cpu": "2"}}
    assert planned("components.pilot.k8s.replicaCount=0").control_work.replicas == 0
    assert planned("values.pilot.resources.requests.cpu=1").control_work.resources["requests"] == {"cpu": "1", "memory": "512Mi"}


def test_every_fault_is_told_at_once() -> None:
    assert len(refused("values.global.hubb=x", "components.pilot.k8s.replicaCount=x", "meshConfigg.a=b").splitlines()) == 3


def test_what_istio_has_and_we_have_not_is_a_warning() -> None:
    _, warnings = read([], ["values.pilot.autoscaleEnabled=true", "components.ingressGateways[0].k8s.hpaSpec.maxReplicas=3"])
    assert warnings == [
        "components.ingressGateways[0].k8s.hpaSpec: is Istio's and means nothing here: ignored",
        "values.pilot.autoscaleEnabled: is Istio's and means nothing here: ignored",
    ]


OPERATOR = """
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
metadata:
  namespace: mesh
spec:
  profile: demo
  tag: 7
  meshConfig:
    accessLogFile: /dev/stderr
    enablePrometheusMerge: true
  components:
    ingressGateways:
    - name: istio-ingressgateway
      k8s:
        service:
          type: NodePort
    - name: inner
      enabled: true
      namespace: edge
      k8s:
        service: {type: ClusterIP, ports: [{name: http, port: 80, targetPort: 8080}]}
    egressGateways: []
  futures: 1
"""


def test_an_operators_file() -> None:
    spec, warnings = read([("mesh.yaml", OPERATOR)], ["profile=default", "components.ingressGateways[1].label.istio=inner"])
    plan = settle(spec)
    assert warnings == ["futures: unknown field: ignored"]
    assert (plan.namespace, plan.profile, plan.image) == ("mesh", "default", "pymesh/mesh:7")
    assert plan.mesh["accessLogFile"] == "/dev/stderr"
    first, second = plan.gateways
    assert first.service["type"] == "NodePort" and [port["port"] for port in first.service["ports"]] == [15021, 80, 443]
    assert (second.name, second.namespace, second.labels) == ("inner", "edge", {"istio": "inner"})


def test_a_spec_alone_and_null_that_takes_away() -> None:
    assert planned(file="profile: minimal\nhub: here\n").image.startswith("here/")
    assert planned(file="meshConfig: {accessLogFile: null}\nprofile: demo\n").mesh == {}


@pytest.mark.parametrize("text", ["- a", "kind: Pod", "spec: [", "kind: IstioOperator\nspec: [1]"])
def test_files_that_are_none(text: str) -> None:
    assert refused(file=text).startswith("mesh.yaml: ")


@given(st.text(max_size=60), st.text(max_size=20))
def test_nothing_but_badoptions_is_raised(path: str, value: str) -> None:
    try:
        planned(f"{path}={value}")
    except BadOptions as told:
        assert told.lines and all(line.strip() for line in told.lines)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "components",
                        "values",
                        "global",
                        "proxy",
                        "ingressGateways",
                        "k8s",
                        "service",
                        "ports",
                        "name",
                        "meshConfig",
                        "x",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_no_file_breaks_it(tree: object) -> None:
    import json

    try:
        planned(file=json.dumps(tree))
    except BadOptions as told:
        assert told.lines
