"""Pods: the facts that matter, the workload's name and the labels that metrics carry."""

from __future__ import annotations

import msgspec
import pytest
from world_objects import pod

from control.resources.core import Pod
from control.world.pods import PodInfo, labels_workload, locality_of, parse_locality, pod_info
from meshproxy.model.cluster import Locality


def info(name: str, labels: dict | None = None, **more: object) -> PodInfo:
    return pod_info(msgspec.convert(pod(name, "10.0.0.1", labels, **more), Pod))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "labels", "owners", "expected"),
    [
        ("rating-service-v1", {"app.kubernetes.io/name": "rating-service"}, [], "rating-service-v1"),
        ("web-7d9f8b6c5d-x2x7k", {}, [], "web"),
        ("web-7d9f8b6c5d-x2x7k", {"pod-template-hash": "7d9f8b6c5d"}, [("ReplicaSet", "web-7d9f8b6c5d")], "web"),
        ("web-7d9f8b6c5d-x2x7k", {}, [("ReplicaSet", "web-7d9f8b6c5d")], "web"),
        ("db-0", {}, [("StatefulSet", "db")], "db"),
        ("job-abc12", {}, [("Job", "job")], "job"),
        ("x", {"service.istio.io/workload-name": "named"}, [("Job", "job")], "named"),
    ],
)
def test_workload_name(name, labels, owners, expected):
    references = [{"apiVersion": "v1", "kind": kind, "name": owner, "uid": "u", "controller": True} for kind, owner in owners]
    assert info(name, labels, ownerReferences=references).workload.workload == expected


NAME, VERSION = "app.kubernetes.io/name", "app.kubernetes.io/version"
CANONICAL, REVISION = "service.istio.io/canonical-name", "service.istio.io/canonical-revision"


@pytest.mark.parametrize(
    ("labels", "app", "version", "service", "revision"),
    [
        ({}, "", "", "w", "latest"),
        ({"app": "a", "version": "v"}, "a", "v", "a", "v"),
        ({NAME: "n", VERSION: "k"}, "n", "k", "n", "k"),
        ({"app": "a", NAME: "n", "version": "v", VERSION: "k"}, "a", "v", "n", "k"),
        ({"app": "a", CANONICAL: "c", REVISION: "r"}, "a", "", "c", "r"),
    ],
)
def test_peer_metadata(labels, app, version, service, revision):
    found = labels_workload(labels, namespace="ns", workload="w")
    assert (found.app, found.version, found.canonical_service, found.canonical_revision) == (
        app,
        version,
        service,
        revision,
    )


def test_locality():
    assert parse_locality("") is None
    assert parse_locality("r") == Locality(region="r")
    assert parse_locality("r/z/s") == Locality(region="r", zone="z", sub_zone="s")
    assert locality_of({}) is None
    assert locality_of({"istio-locality": "r.z"}) == Locality(region="r", zone="z")
    assert locality_of({"topology.kubernetes.io/zone": "z"}, {"topology.kubernetes.io/region": "r"}) == Locality(
        region="r", zone="z"
    )


@pytest.mark.parametrize(
    ("labels", "annotations", "role"),
    [
        ({}, {}, "sidecar"),
        ({"istio": "ingressgateway"}, {}, "gateway"),
        ({"istio": "egressgateway"}, {}, "gateway"),
        ({"istio": "else"}, {}, "sidecar"),
        ({}, {"mesh.dev/role": "gateway"}, "gateway"),
    ],
)
def test_role(labels, annotations, role):
    assert info("p", labels, annotations=annotations).role == role


def test_facts_that_do_not_matter_give_an_equal_value():
    one, two = pod("p", "10.0.0.1"), pod("p", "10.0.0.1", annotations={"note": "x"})
    two["metadata"]["resourceVersion"] = "7"
    two["status"]["startTime"] = "2026-01-01T00:00:00Z"
    assert pod_info(msgspec.convert(one, Pod)) == pod_info(msgspec.convert(two, Pod))


@pytest.mark.parametrize(("phase", "ip"), [("Running", "10.0.0.1"), ("Pending", "10.0.0.1"), ("Succeeded", ""), ("Failed", "")])
def test_a_pod_that_is_over_has_no_address_any_more(phase, ip):
    """Its status goes on naming it, and the next pod has it already."""
    over = pod("job-abc12", "10.0.0.1")
    over["status"]["phase"] = phase
    assert pod_info(msgspec.convert(over, Pod)).ip == ip
