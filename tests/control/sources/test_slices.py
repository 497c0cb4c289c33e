"""Slices from pods, as Kubernetes makes them, whatever the order of the pods."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from control.resources.check import validate
from control.sources.picking import PodIndex, SelectorIndex
from control.sources.slices import PodFacts, pod_facts, selector_of, wanted_slices


def service(ports: list[dict[str, Any]] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "rating", "namespace": "default", "uid": "u-rating"},
        "spec": {"selector": {"app": "rating"}, "ports": [{"port": 8080}] if ports is None else ports, **spec},
    }


def pod(name: str, ip: str = "127.1.0.2", ready: bool = True, **more: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default", "uid": f"u-{name}", "labels": {"app": "rating"}, **more},
        "spec": {"containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 9080}]}]},
        "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def slices(subject: dict[str, Any], *pods: dict[str, Any]) -> list[dict[str, Any]]:
    return list(wanted_slices(subject, [pod_facts(p) for p in pods]).values())


def test_one_ready_pod() -> None:
    (made,) = slices(service([{"name": "http", "port": 8080, "targetPort": 9080}]), pod("rating-v1"))
    name = made["metadata"].pop("name")
    assert name.startswith("rating-")
    assert made == {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "default",
            "labels": {
                "kubernetes.io/service-name": "rating",
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "name": "rating",
                    "uid": "u-rating",
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "addressType": "IPv4",
        "endpoints": [
            {
                "addresses": ["127.1.0.2"],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "targetRef": {"kind": "Pod", "namespace": "default", "name": "rating-v1", "uid": "u-rating-v1"},
            }
        ],
        "ports": [{"name": "http", "port": 9080, "protocol": "TCP"}],
    }


def test_what_we_write_the_api_would_accept() -> None:
    for made in slices(service(), pod("a"), pod("b", "::1")):
        assert validate(made).errors == ()


def test_a_pod_that_is_not_ready_is_listed_as_not_ready() -> None:
    (made,) = slices(service(), pod("a", ready=False))
    assert made["endpoints"][0]["conditions"] == {"ready": False, "serving": False, "terminating": False}
    (made,) = slices(service(publishNotReadyAddresses=True), pod("a", ready=False))
    assert made["endpoints"][0]["conditions"]["ready"] is True


def test_a_terminating_pod_serves_but_is_not_ready() -> None:
    (made,) = slices(service(), pod("a", deletionTimestamp="2024-01-01T00:00:00Z"))
    assert made["endpoints"][0]["conditions"] == {"ready": False, "serving": True, "terminating": True}


def test_pods_without_address_or_at_their_end_are_left_out() -> None:
    ended = pod("b")
    ended["status"]["phase"] = "Succeeded"
    assert slices(service(), pod("a", ip=""), ended) == []


def test_named_target_ports_are_resolved_per_pod() -> None:
    other = pod("b", "127.1.0.3")
    other["spec"]["containers"][0]["ports"][0]["containerPort"] = 9999
    lacking = pod("c", "127.1.0.4")
    del lacking["spec"]["containers"][0]["ports"]
    made = slices(service([{"port": 80, "targetPort": "http"}]), pod("a"), other, lacking)
    assert [(s["ports"][0]["port"], [e["targetRef"]["name"] for e in s["endpoints"]]) for s in made] == [
        (9080, ["a"]),
        (9999, ["b"]),
    ]
    assert len({s["metadata"]["name"] for s in made}) == 2


def test_a_hundred_per_slice() -> None:
    made = slices(service(), *(pod(f"p{number:03}", f"10.0.0.{number}") for number in range(250)))
    assert [len(s["endpoints"]) for s in made] == [100, 100, 50]


def test_services_left_alone() -> None:
    assert selector_of(service(selector=None)) is None
    assert selector_of(service(selector={})) is None
    assert selector_of(service(type="ExternalName")) is None
    assert selector_of(service(clusterIP="None")) == {"app": "rating"}


def test_headless_slices_say_so() -> None:
    (made,) = slices(service(clusterIP="None"), pod("a"))
    assert made["metadata"]["labels"]["service.kubernetes.io/headless"] == ""


@given(st.permutations([pod(f"p{number}", f"10.0.{number % 2}.{number}", number % 3 == 0) for number in range(6)]))
def test_the_order_of_the_pods_is_irrelevant(pods: list[dict[str, Any]]) -> None:
    expected = slices(service(), *(pod(f"p{number}", f"10.0.{number % 2}.{number}", number % 3 == 0) for number in range(6)))
    assert slices(service(), *pods) == expected


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(["metadata", "spec", "status", "labels", "containers", "ports", "name", "podIPs", "conditions"]),
                x,
            )
        ),
    )
)
def test_no_pod_is_too_strange(value: Any) -> None:
    strange = value if isinstance(value, dict) else {"spec": value, "metadata": value, "status": value}
    assert isinstance(pod_facts(strange), PodFacts)


labels = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy"), max_size=3)
steps = st.lists(st.tuples(st.sampled_from(["pod", "service"]), st.sampled_from("123"), st.none() | labels), max_size=25)


@given(steps)
def test_the_indexes_answer_as_a_full_search_would(changes: list[tuple[str, str, dict[str, str] | None]]) -> None:
    pods, selectors = PodIndex(), SelectorIndex()
    model: dict[str, dict[str, dict[str, str]]] = {"pod": {}, "service": {}}
    facts = {}
    for what, name, value in changes:
        if value is None:
            model[what].pop(name, None)
        else:
            model[what][name] = value
        if what == "pod":
            made = None if value is None else pod_facts({"metadata": {"name": name, "namespace": "n", "labels": value}})
            assert pods.put(("n", name), made) == facts.pop(name, None)
            if made is not None:
                facts[name] = made
        else:
            selectors.put(("n", name), value)
    for selector in model["service"].values():
        expected = {p for p, held in model["pod"].items() if selector and selector.items() <= held.items()}
        assert {p.name for p in pods.matching("n", selector)} == expected
    for name, made in facts.items():
        held = model["pod"][name]
        expected = {s for s, selector in model["service"].items() if selector and selector.items() <= held.items()}
        assert {s for _, s in selectors.matching(made)} == expected
        assert list(selectors.matching(made._replace(namespace="other"))) == []
