"""Destinations: names, ports, weights, subsets, mirrors, and what is said when one does not exist."""

from __future__ import annotations

import msgspec
import pytest
from world_objects import client, destination_rule, forward, service, to, virtual_service

from control.translate.match import Client
from control.translate.route import _Rule
from meshproxy.model.route import DirectResponse, Mirror


def name(service_name: str, port: int = 8080, subset: str = "", namespace: str = "default") -> str:
    return f"outbound|{port}|{subset}|{service_name}.{namespace}.svc.cluster.local"


SUBSETS = destination_rule(
    "a", "a", subsets=[{"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}]
)


def routes(*rules: dict, objs: tuple = (), namespace: str = "default") -> tuple:
    view = client([service("a"), service("b"), *objs, virtual_service("v", ["a"], list(rules))], namespace=namespace)
    return view, view.routes("a.default")


def test_weights():
    view, _ = routes({"route": [to("a", "v1", weight=75), to("a", "v2", weight=25)]}, objs=(SUBSETS,))
    assert view.targets("a") == [[(name("a", subset="v1"), 75), (name("a", subset="v2"), 25)]]


def test_a_single_destination_counts_whatever_its_weight():
    for weight in ({}, {"weight": 0}, {"weight": 7}):
        view, _ = routes({"route": [to("b", **weight)]})
        assert view.targets("a") == [[(name("b"), 1)]]


def test_zero_weights_among_several_are_dropped():
    view, _ = routes({"route": [to("a", weight=0), to("b", weight=5), to("b", port=8080)]})
    assert view.targets("a") == [[(name("b"), 5)]]


def test_short_names_mean_the_namespace_of_the_virtual_service():
    objs = [
        service("a"),
        service("a", namespace="shop"),
        virtual_service("v", ["a"], [{"route": [to("a")]}], namespace="shop"),
    ]
    view = client(objs)
    assert view.targets("a.shop") == [[(name("a", namespace="shop"), 1)]]
    assert view.routes("a")[0].source == ""  # the client's own "a" is not what the VirtualService speaks about


def test_a_name_with_a_dot_is_not_completed():
    view, _ = routes({"route": [to("foo.bar")]})
    assert view.targets("a") == [[("outbound|8080||foo.bar", 1)]]
    assert view.problems == [
        'VirtualService default/v http[0].route[0].destination.host: no service "foo.bar" is visible here: answered 503'
    ]


PORTS = [{"name": "http-one", "port": 80}, {"name": "http-two", "port": 8080}, {"name": "http-three", "port": 9090}]


@pytest.mark.parametrize(("destination", "port"), [(to("many", port=9090), 9090), (to("many"), 8080), (to("b"), 8080)])
def test_destination_port(destination, port):
    """Explicit; else the service's only port; else the port that was asked for."""
    view, (route,) = routes({"route": [destination]}, objs=(service("many", ports=PORTS),))
    assert view.problems == []
    assert forward(route).clusters[0].cluster == name(destination["destination"]["host"], port)


def test_the_only_port_of_a_service_is_taken_whatever_was_asked_for():
    view, (route,) = routes({"route": [to("one")]}, objs=(service("one", ports=[{"name": "http", "port": 7070}]),))
    assert forward(route).clusters[0].cluster == name("one", 7070)
    assert view.problems == []


def test_a_port_that_the_service_lacks_is_reported():
    view, _ = routes({"route": [to("b", port=1)]})
    assert view.targets("a") == [[(name("b", 1), 1)]]
    assert view.problems == [
        "VirtualService default/v http[0].route[0].destination.port.number: "
        '"b.default.svc.cluster.local" has no port 1: answered 503'
    ]


def test_an_unknown_subset_keeps_its_cluster_name_and_is_reported():
    view, _ = routes({"route": [to("a", "v9")]}, objs=(SUBSETS,))
    assert view.targets("a") == [[(name("a", subset="v9"), 1)]]
    assert name("a", subset="v9") not in view.names("cluster")
    assert 'no DestinationRule gives "a.default.svc.cluster.local" a subset "v9"' in view.problems[0]


def test_an_empty_subset_is_a_cluster_without_endpoints():
    view, _ = routes({"route": [to("a", "v1")]}, objs=(SUBSETS,))
    assert view.endpoints(name("a", subset="v1")) == []
    assert view.problems == []


@pytest.mark.parametrize(
    ("given", "percent"),
    [
        ({"mirror": {"host": "b"}}, 100.0),
        ({"mirror": {"host": "b"}, "mirrorPercentage": {"value": 12.5}}, 12.5),
        ({"mirror": {"host": "b"}, "mirrorPercent": 30}, 30.0),
        ({"mirrors": [{"destination": {"host": "b"}}]}, 100.0),
        ({"mirrors": [{"destination": {"host": "b"}, "percentage": {"value": 1}}]}, 1.0),
    ],
)
def test_mirror(given, percent):
    _, (route,) = routes({"route": [to("a")], **given})
    assert forward(route).mirrors == (Mirror(cluster=name("b"), percent=percent),)


def test_a_mirror_of_nothing_is_no_mirror():
    _, (route,) = routes({"route": [to("a")], "mirror": {"host": "b"}, "mirrorPercentage": {"value": 0}})
    assert forward(route).mirrors == ()


def test_retries_may_stay_on_one_host_where_a_hash_chooses():
    hashed = destination_rule("b", "b", trafficPolicy={"loadBalancer": {"consistentHash": {"httpHeaderName": "X-User"}}})
    view, (route,) = routes({"route": [to("b")]}, objs=(hashed,))
    retry = forward(route).retry
    assert retry is not None and retry.avoid_previous_hosts is False
    plain = forward(view.routes("b")[0]).retry
    assert plain is not None and plain.avoid_previous_hosts is False


def test_delegates_match_nothing_and_are_reported():
    view = client(
        [
            service("a"),
            virtual_service(
                "v", ["a"], [{"match": [{"uri": {"prefix": "/x"}}], "delegate": {"name": "d"}}, {"route": [to("a")]}]
            ),
        ]
    )
    assert view.targets("a") == [[(name("a"), 1)]]
    assert "delegate" in view.problems[0]


def test_rules_without_any_weight_answer_503():
    # Refused on the way in, so only an object that was stored otherwise can say so; translation must not break.
    view = client([service("a"), virtual_service("v", ["a"], [{"route": [to("a", weight=1), to("a", weight=1)]}])])
    hosted = view.world.config.virtual_services[0]
    rule = hosted.resource.spec.http[0]
    rule = msgspec.structs.replace(rule, route=tuple(msgspec.structs.replace(r, weight=0) for r in rule.route))
    problems: list = []

    class Nothing:
        def find(self, host):
            return None

        def hashed(self, cluster):
            return False

        def has_subset(self, service, subset):
            return False

        def used(self, service, cluster):
            return None

    client_ = Client("default", {}, frozenset(("mesh",)), frozenset((80,)))
    translator = _Rule(hosted, 0, rule, view.world.mesh, client_, Nothing(), problems)
    assert translator.action(None) == DirectResponse(status=503)
    assert problems
