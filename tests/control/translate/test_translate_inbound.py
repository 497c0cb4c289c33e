"""Inbound: which ports are opened for a pod, which app port is behind them, whose name the metrics carry."""

from __future__ import annotations

import pytest
from world_objects import View, pod, service

APP = {"app": "a"}


def see(*objs: dict, annotation: str = "", ports: list[dict] | None = None, labels: dict | None = None) -> View:
    notes = {"mesh.dev/inbound-ports": annotation} if annotation else {}
    return View([*objs, pod("p", "127.1.0.1", labels or APP, annotations=notes, ports=ports)], ("default", "p"))


def inbound(view: View) -> dict[str, tuple[str, ...]]:
    return {n: tuple(view.endpoints(f"{n}||")) for n in view.names("listener") if n != "outbound"}


def one(target: int | str | None = None, port: int = 80, name: str = "http") -> list[dict]:
    found: dict = {"name": name, "port": port}
    if target is not None:
        found["targetPort"] = target
    return [found]


@pytest.mark.parametrize(
    ("target", "annotation", "expected"),
    [
        (8080, "8080:9080", {"inbound|8080": ("127.1.0.1:9080",)}),
        (8080, "8080", {"inbound|8080": ("127.1.0.1:8080",)}),
        (8080, "", {"inbound|8080": ("127.1.0.1:8080",)}),
        (None, "", {"inbound|80": ("127.1.0.1:80",)}),
        ("8080", "", {"inbound|8080": ("127.1.0.1:8080",)}),
        ("web", "", {"inbound|8181": ("127.1.0.1:8181",)}),
        (8080, "8080:9080,8081:9081", {"inbound|8080": ("127.1.0.1:9080",), "inbound|8081": ("127.1.0.1:9081",)}),
    ],
)
def test_ports(target, annotation, expected):
    view = see(service("a", ports=one(target)), annotation=annotation, ports=[{"name": "web", "containerPort": 8181}])
    assert inbound(view) == expected
    assert view.problems == []


def test_a_pod_without_a_service_still_gets_the_listeners_it_asks_for():
    view = see(annotation="8080:9080")
    assert inbound(view) == {"inbound|8080": ("127.1.0.1:9080",)}
    assert view.cluster("inbound|8080||").service is None


def test_a_pod_without_service_and_annotation_has_none():
    assert inbound(see()) == {}


def test_the_oldest_service_names_a_shared_port():
    young = service("young", APP, one(8080), created="2026-01-02T00:00:00Z")
    old = service("zold", APP, one(8080), created="2026-01-01T00:00:00Z")
    found = see(young, old).cluster("inbound|8080||").service
    assert found is not None
    assert found.name == "zold"


def test_services_that_do_not_select_the_pod_or_stand_elsewhere_do_not_count():
    others = [service("b", {"app": "b"}), service("c", {**APP, "x": "y"}), service("d", APP, namespace="else")]
    assert inbound(see(*others)) == {}


def test_a_service_port_that_the_annotation_does_not_name_is_reported():
    view = see(service("a", ports=one(7070)), annotation="8080:9080")
    assert inbound(view) == {"inbound|8080": ("127.1.0.1:9080",)}
    assert view.problems == ['Pod default/p: "a" sends to port 7070, which mesh.dev/inbound-ports does not name']


def test_an_unknown_container_port_name_is_reported():
    view = see(service("a", ports=one("nope")))
    assert inbound(view) == {}
    assert view.problems == ["Service default/a port 80: targetPort 'nope' is no container port of pod default/p"]


def test_an_unreadable_annotation_entry_is_reported():
    view = see(annotation="8080:9080, x:1, 70000")
    assert inbound(view) == {"inbound|8080": ("127.1.0.1:9080",)}
    assert len(view.problems) == 2
    assert "entry 'x:1' cannot be read; write it as 8080:9080" in view.problems[1]


def test_the_endpoint_carries_the_pods_own_workload():
    view = see(service("a"))
    found = view.snapshot.get("endpoints", "inbound|8080||")
    assert found is not None
    (endpoint,) = found.endpoints  # type: ignore[attr-defined]
    assert (endpoint.workload.pod, endpoint.workload.app) == ("p", "a")
