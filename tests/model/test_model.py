"""The contract: what is decoded equals what was encoded, equal values have equal bytes, errors carry the path.

And importing it pulls in nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.model.base import Model, decode, encode, fingerprint
from meshproxy.model.cluster import Cluster, ConnectionPool, Endpoints, LoadBalancer, Outlier
from meshproxy.model.delivery import KINDS, FromControl, Push, Resource
from meshproxy.model.listener import Listener
from meshproxy.model.route import Forward, Route, RouteConfig, VirtualHost, WeightedCluster

MODELS: Any = st.one_of(*(st.from_type(kind) for kind in (Cluster, Endpoints, RouteConfig, Listener))).filter(
    lambda value: "inf" not in repr(value) and "nan" not in repr(value)  # JSON has neither
)


@settings(max_examples=100, deadline=None)
@given(MODELS)
def test_round_trip_gives_an_equal_value_and_the_same_bytes(value: Model) -> None:
    data = encode(value)
    again = decode(data, type(value))
    assert again == value
    assert encode(again) == data


@settings(max_examples=100, deadline=None)
@given(MODELS, st.randoms())
def test_the_order_of_fields_does_not_matter(value: Model, random: Any) -> None:
    def shuffled(node: Any) -> Any:
        if isinstance(node, dict):
            items = [(key, shuffled(inner)) for key, inner in node.items()]
            random.shuffle(items)
            return dict(items)
        return [shuffled(inner) for inner in node] if isinstance(node, list) else node

    data = encode(value)
    assert encode(decode(json.dumps(shuffled(json.loads(data))).encode(), type(value))) == data


def test_a_value_that_equals_its_default_is_left_out_however_it_was_made() -> None:
    said = Cluster(
        name="c", lb=LoadBalancer(policy="".join(["ROUND_", "ROBIN"])), pool=ConnectionPool(connect_timeout=float("10"))
    )
    assert encode(said) == encode(Cluster(name="c")) == b'{"name":"c"}'
    assert decode(b'{"name":"c","outlier":{"interval":10.0}}', Cluster).outlier == Outlier()


@pytest.mark.parametrize(
    ("kind", "data", "path"),
    [
        ("cluster", b'{"name":"c","pool":{"max_conections":1}}', "$.pool"),
        ("cluster", b'{"name":"c","pool":{"connect_timeout":"soon"}}', "$.pool.connect_timeout"),
        ("cluster", b'{"name":"c","type":"MAGIC"}', "$.type"),
        ("listener", b'{"name":"l","direction":"outbound"}', "port"),
        ("route", b'{"name":"r","virtual_hosts":[{"name":"v","domains":["*"],"routes":[{}]}]}', "$.virtual_hosts[0].routes[0]"),
        ("endpoints", b'{"name":"e","endpoints":[{"address":"127.0.0.1","port":"http"}]}', "$.endpoints[0].port"),
    ],
)
def test_unknown_and_mistyped_fields_are_errors_with_their_path(kind: str, data: bytes, path: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        decode(data, KINDS[kind])
    assert path in str(caught.value)


def test_a_push_carries_resources_as_their_own_bytes() -> None:
    route = Route(action=Forward(clusters=(WeightedCluster(cluster="c"),)))
    body = encode(RouteConfig(name="80", virtual_hosts=(VirtualHost(name="v", domains=("*",), routes=(route,)),)))
    resource = Resource(kind="route", name="80", version=fingerprint(body), body=msgspec.Raw(body))
    line = encode(Push(nonce="n", version="v", full=True, set=(resource,)))
    push = msgspec.json.decode(line, type=FromControl)
    assert isinstance(push, Push)
    assert bytes(push.set[0].body) == body


def test_importing_the_model_imports_nothing_else_of_ours_and_only_msgspec() -> None:
    script = (
        "import sys; before = set(sys.modules); import meshproxy.model.delivery;"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)));"
        "print(*sorted(n for n in sys.modules if n.startswith('meshproxy.') and not n.startswith('meshproxy.model')))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()
    assert out[0].replace(" typing_extensions", "") == "meshproxy msgspec"  # which msgspec imports where it is there
    assert out[1] == ""
