"""Gateways: which servers a proxy opens and where, whose VirtualServices are bound, how they merge (semantics A1, A7)."""

from __future__ import annotations

import pytest
from world_objects import View, mesh_object, pod, service, slices, to, virtual_service

from control.world import MeshSettings
from meshproxy.model.match import ClaimMatch, StringMatch

LABELS = {"istio": "ingressgateway"}


def gateway(name: str, *hosts: str, port: int = 80, namespace: str = "default", created: str = "", **more: object) -> dict:
    server = {
        "port": {"number": port, "name": f"http-{port}", "protocol": "HTTP"},
        "hosts": list(hosts) or ["*"],
        **more,
    }
    return mesh_object("Gateway", name, {"selector": LABELS, "servers": [server]}, namespace, created)


def see(*objs: dict, annotations: dict | None = None, labels: dict | None = None, mesh: MeshSettings | None = None) -> View:
    proxy = pod("gw", "127.1.0.10", labels or LABELS, namespace="istio-system", annotations=annotations or {})
    return View([service("a"), service("b"), *objs, proxy], ("istio-system", "gw"), mesh)


def bound(
    name: str, hosts: list[str], rules: list[dict] | None = None, gateways: tuple[str, ...] = ("gw",), **more: object
) -> dict:
    return virtual_service(name, hosts, rules or [{"route": [to("a")]}], gateways=list(gateways), **more)


A, B = "outbound|8080||a.default.svc.cluster.local", "outbound|8080||b.default.svc.cluster.local"


def test_only_gateways_that_select_the_pod_are_opened():
    other = mesh_object(
        "Gateway",
        "egress",
        {
            "selector": {"istio": "egressgateway"},
            "servers": [{"port": {"number": 81, "name": "h", "protocol": "HTTP"}, "hosts": ["*"]}],
        },
    )
    assert see(gateway("gw"), other).names("listener") == ["gateway|80"]


def test_no_inbound_and_outbound_listeners():
    view = see(gateway("gw"), bound("v", ["*"]), slices("a", [("x", "10.0.0.1")]))
    assert view.names("listener") == ["gateway|80"]
    assert view.names("cluster") == [A]  # only what its routes use
    assert view.endpoints(A) == ["10.0.0.1:8080"]


@pytest.mark.parametrize(
    ("text", "bind", "port"),
    [
        ("80=127.0.0.1:8080", "127.0.0.1", 8080),
        ("80=8081", "", 8081),
        ("9=127.0.0.1:1", "", 80),
        ("80=[::1]:8080", "::1", 8080),
    ],
)
def test_the_annotation_says_where_a_port_is_opened(text, bind, port):
    listener = see(gateway("gw"), annotations={"mesh.dev/gateway-bind": text}).listener(f"gateway|{port}")
    assert (listener.bind, listener.port, listener.route) == (bind, port, f"http.{port}")


def test_the_mesh_setting_says_it_for_all():
    mesh = MeshSettings(gateway_bind=((80, "127.0.0.1", 8080),))
    assert see(gateway("gw"), mesh=mesh).listener("gateway|8080").bind == "127.0.0.1"


def test_the_service_in_front_translates_the_port():
    front = service("front", LABELS, [{"name": "http2", "port": 80, "targetPort": 8080}], namespace="istio-system")
    assert see(gateway("gw"), front).names("listener") == ["gateway|8080"]


def test_an_explicit_bind():
    assert see(gateway("gw", bind="127.0.0.5")).listener("gateway|80").bind == "127.0.0.5"


def test_unreadable_annotation_entries_are_reported():
    view = see(gateway("gw"), annotations={"mesh.dev/gateway-bind": "80=nonsense,80=127.0.0.1:8080"})
    assert view.names("listener") == ["gateway|8080"]
    assert view.problems == [
        "Pod istio-system/gw metadata.annotations[mesh.dev/gateway-bind]: "
        "entry '80=nonsense' cannot be read; write it as 80=127.0.0.1:8080"
    ]


def test_servers_on_the_same_port_are_one_listener():
    view = see(
        gateway("one", "a.example"),
        gateway("two", "b.example"),
        bound("va", ["a.example"], gateways=("one",)),
        bound("vb", ["b.example"], [{"route": [to("b")]}], gateways=("two",)),
    )
    assert view.names("listener") == ["gateway|80"]
    assert view.targets("a.example", "http.80") == [[(A, 1)]]
    assert view.targets("b.example", "http.80") == [[(B, 1)]]


def test_one_port_on_two_addresses_is_two_listeners():
    view = see(gateway("one", bind="127.0.0.1"), gateway("two", bind="127.0.0.2"))
    assert view.names("listener") == ["gateway|80|127.0.0.1", "gateway|80|127.0.0.2"]
    assert view.names("route") == ["http.80|127.0.0.1", "http.80|127.0.0.2"]


def test_a_port_is_opened_without_any_virtual_service():
    assert see(gateway("gw")).config("http.80").virtual_hosts == ()


HOSTS = [
    (["*"], ["a.example"], ["a.example"]),
    (["*.example"], ["a.example", "b.other"], ["a.example"]),
    (["a.example"], ["*"], ["a.example"]),
    (["default/*"], ["a.example"], ["a.example"]),
    (["./*"], ["a.example"], ["a.example"]),
    (["*/*"], ["a.example"], ["a.example"]),
    (["shop/*"], ["a.example"], []),
    (["other.example"], ["a.example"], []),
]


@pytest.mark.parametrize(("server", "hosts", "expected"), HOSTS)
def test_hosts_must_be_in_both_server_and_virtual_service(server, hosts, expected):
    view = see(gateway("gw", *server), bound("v", hosts))
    assert [v.domains[0] for v in view.config("http.80").virtual_hosts] == expected
    assert bool(view.problems) == (not expected)


def test_gateway_names():
    for name in ("default/gw", "gw", "gw.default.svc.cluster.local"):
        view = see(gateway("gw"), bound("v", ["*"], gateways=(name,)))
        assert view.targets("*", "http.80") == [[(A, 1)]]
    shop = virtual_service(
        "v", ["*"], [{"route": [to("a.default.svc.cluster.local")]}], namespace="shop", gateways=["default/gw"]
    )
    assert see(gateway("gw"), shop).targets("*", "http.80") == [[(A, 1)]]
    assert see(gateway("gw"), bound("v", ["a"], gateways=("mesh",))).config("http.80").virtual_hosts == ()


def test_export_to_hides_a_virtual_service():
    view = see(gateway("gw"), bound("v", ["*"], export_to=["."]))
    assert view.config("http.80").virtual_hosts == ()


def test_virtual_services_of_one_host_merge_oldest_first_catch_alls_last():
    young = bound(
        "young",
        ["h.example"],
        [{"match": [{"uri": {"prefix": "/young"}}], "route": [to("b")]}],
        created="2026-01-02T00:00:00Z",
    )
    old = bound(
        "old",
        ["h.example"],
        [{"match": [{"uri": {"prefix": "/"}}], "route": [to("a")]}],
        created="2026-01-01T00:00:00Z",
    )
    oldest = bound("oldest", ["h.example"], [{"match": [{"uri": {"prefix": "/oldest"}}], "route": [to("b")]}])
    view = see(gateway("gw"), young, old, oldest)
    assert [r.match.path.value for r in view.routes("h.example", "http.80") if r.match.path] == [
        "/oldest",
        "/young",
        "/",
    ]


def test_static_conditions_at_a_gateway():
    rules = [
        {"match": [{"port": 80, "uri": {"prefix": "/1"}}, {"port": 443, "uri": {"prefix": "/2"}}], "route": [to("a")]},
        {"match": [{"gateways": ["mesh"], "uri": {"prefix": "/3"}}], "route": [to("a")]},
        # Matched by gateway: source labels are ignored.
        {"match": [{"gateways": ["gw"], "sourceLabels": {"x": "y"}, "uri": {"prefix": "/4"}}], "route": [to("a")]},
    ]
    view = see(
        gateway("gw"),
        bound("v", ["h.x"], rules, gateways=("gw", "mesh")),
        annotations={"mesh.dev/gateway-bind": "80=8080"},
    )
    assert [r.match.path.value for r in view.routes("h.x", "http.8080") if r.match.path] == ["/1", "/4"]


@pytest.mark.parametrize(("where", "invert"), [("headers", False), ("withoutHeaders", True)])
@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("@request.auth.claims.role", ("role",)),
        ("@request.auth.claims.realm.Roles", ("realm", "Roles")),
        ("@request.auth.claims[role]", ("role",)),
        ("@request.auth.claims[realm.io/x][Roles]", ("realm.io/x", "Roles")),
    ],
)
def test_a_claim_condition_is_asked_of_the_token(where, invert, key, path):
    rules = [{"match": [{where: {key: {"exact": "admin"}, "X-A": {}}}], "route": [to("a")]}, {"route": [to("b")]}]
    view = see(gateway("gw"), bound("v", ["*"], rules))
    match = view.routes("*", "http.80")[0].match
    assert match.claims == (ClaimMatch(path=path, match=StringMatch(kind="exact", value="admin"), invert=invert),)
    assert [(header.name, header.invert) for header in match.headers] == [("x-a", invert)]
    assert view.problems == []


def test_all_forms_of_claim_conditions_come_in_a_stable_order():
    given = {
        "@request.auth.claims.b": {"prefix": "x"},
        "@request.auth.claims[a][b]": {},
        "@request.auth.claims.a": {"regex": "y.*"},
    }
    found = []
    for names in (sorted(given), sorted(given, reverse=True)):
        tests = {name: given[name] for name in names}
        rules = [{"match": [{"headers": tests}], "route": [to("a")]}]
        found.append(see(gateway("gw"), bound("v", ["*"], rules)).routes("*", "http.80")[0].match.claims)
    assert [(c.path, c.match.kind) for c in found[0]] == [(("a",), "regex"), (("a", "b"), "present"), (("b",), "prefix")]
    assert found[0] == found[1]


def test_a_redirecting_server_redirects_what_virtual_services_route():
    servers = [
        {
            "port": {"number": 80, "name": "a", "protocol": "HTTP"},
            "hosts": ["default/a.x", "b.x"],
            "tls": {"httpsRedirect": True},
        },
        {"port": {"number": 80, "name": "c", "protocol": "HTTP"}, "hosts": ["c.x"]},
    ]
    view = see(
        mesh_object("Gateway", "gw", {"selector": LABELS, "servers": servers}),
        bound("v", ["a.x", "c.x"], [{"route": [to("a")]}]),
    )
    names = {host: [route.name for route in view.routes(host, "http.80")] for host in ("a.x", "b.x", "c.x")}
    assert names == {"a.x": ["https_redirect"], "b.x": ["https_redirect"], "c.x": [""]}


def test_role_by_annotation():
    view = see(
        mesh_object(
            "Gateway",
            "gw",
            {
                "selector": {"app": "edge"},
                "servers": [{"port": {"number": 80, "name": "h", "protocol": "HTTP"}, "hosts": ["*"]}],
            },
        ),
        labels={"app": "edge"},
        annotations={"mesh.dev/role": "gateway"},
    )
    assert view.names("listener") == ["gateway|80"]
