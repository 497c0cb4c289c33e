"""Names, namespaces, exportTo, Sidecar, Gateways, ServiceEntries and egress, black box (semantics A1, B9)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.semantics_echo import APP_PORT
from tests.e2e.semantics_support import Mesh, Obj, Proxy, destination_rule, new_key, resource, service, virtual_service

pytestmark = [pytest.mark.system("kubectl"), pytest.mark.timeout(120)]

TO_V1, TO_V2 = "route: [{destination: {host: echo, subset: v1}}]", "route: [{destination: {host: echo, subset: v2}}]"
SAYS = "[{{directResponse: {{status: 200, body: {{string: {}}}}}}}]".format


def gateway(name: str, hosts: list[str], port: int, selector: str = "edge", namespace: str = "default", **server: Any) -> Obj:
    server = {"port": {"number": port, "name": f"http-{port}", "protocol": "HTTP"}, "hosts": hosts, **server}
    return resource("Gateway", name, {"selector": {"istio": selector}, "servers": [server]}, namespace)


def gateways() -> Iterator[Obj]:
    shop = ["shop.example.com", "*.wild.example.com", "other/theirs.example.com", "./own.example.com"]
    shop += ["merged.example.com", "both.example.com", "short.example.com", "default/shared.example.com", "port.example.com"]
    yield gateway("front", shop, 80)
    yield gateway("not-ours", ["*"], 8099, selector="someone-else")
    yield gateway("everything", ["*"], 8081)
    yield gateway("secure", ["secure.example.com", "*.lone.example.com"], 8082, tls={"httpsRedirect": True})
    yield gateway("old", ["old.example.com"], 80, namespace="other")
    rules = f"[{{match: [{{uri: {{prefix: /a}}}}], {TO_V1}}}, {{match: [{{uri: {{prefix: /b}}}}], {TO_V2}}}]"
    yield virtual_service("shop", rules, hosts=["shop.example.com"], gateways=["front"])
    yield virtual_service("wild", SAYS("wild"), hosts=["*.wild.example.com"], gateways=["front"])
    yield virtual_service("wild-exact", SAYS("exact"), hosts=["x.wild.example.com"], gateways=["front"])
    yield virtual_service("theirs-wrong", SAYS("wrong"), hosts=["theirs.example.com"], gateways=["front"])
    yield virtual_service("theirs", SAYS("theirs"), "other", hosts=["theirs.example.com"], gateways=["default/front"])
    yield virtual_service("own", SAYS("own"), hosts=["own.example.com"], gateways=["front"])
    yield virtual_service("own-wrong", SAYS("wrong"), "other", hosts=["own.example.com"], gateways=["default/front"])
    # Two for one host: the rules of both, in order of age, and what catches everything behind the rest.
    first = f"[{{match: [{{uri: {{prefix: /a}}}}], {TO_V1}}}, {{directResponse: {{status: 200, body: {{string: rest}}}}}}]"
    yield virtual_service("merged-1", first, hosts=["merged.example.com"], gateways=["front"])
    second = f"[{{match: [{{uri: {{prefix: /a}}}}], {TO_V2}}}, {{match: [{{uri: {{prefix: /b}}}}], {TO_V2}}}]"
    yield virtual_service("merged-2", second, hosts=["merged.example.com"], gateways=["front"])
    both = f"[{{match: [{{gateways: [front], uri: {{prefix: /g}}}}], {TO_V1}}}, {{match: [{{gateways: [mesh]}}], {TO_V2}}}]"
    yield virtual_service("both", both, hosts=["both.example.com"], gateways=["front", "mesh"])
    short = "[{route: [{destination: {host: echo2}}]}]"
    yield virtual_service("short", short, "other", hosts=["short.example.com"], gateways=["default/front"])
    port = f"[{{match: [{{port: 80}}], {TO_V1}}}, {{{TO_V2}}}]"
    yield virtual_service("port", port, hosts=["port.example.com"], gateways=["front"])
    yield virtual_service("everything", SAYS("any"), hosts=["*"], gateways=["everything"])
    yield virtual_service("secure", SAYS("plain"), hosts=["secure.example.com"], gateways=["secure"])
    old = f"[{{{TO_V1}}}]"
    yield virtual_service("old", old, hosts=["old.example.com"], gateways=["other/old"])
    yield virtual_service("gateway-only", SAYS("gateway"), gateways=["front"], hosts=["echo.default.svc.cluster.local"])


def names() -> Iterator[Obj]:
    """Mesh VirtualServices of all kinds of hosts."""
    for name in ("aged", "private", "cross", "annotated"):
        yield service(name, app="echo")
    yield virtual_service("aged-1", f"[{{match: [{{uri: {{prefix: /a}}}}], {TO_V1}}}]", hosts=["aged"])
    yield virtual_service("aged-2", f"[{{{TO_V2}}}]", hosts=["aged"])
    yield virtual_service("private", SAYS("private"), exportTo=["."])
    yield virtual_service(
        "cross", "[{route: [{destination: {host: echo2}}]}]", "other", hosts=["cross.default.svc.cluster.local"]
    )
    yield virtual_service("made-up", SAYS("made-up"), hosts=["made-up", "made-up.example.com", "*.made-up.example.com"])
    yield virtual_service("made-up-exact", SAYS("exact"), hosts=["x.made-up2.example.com"])
    yield virtual_service("made-up-wild", SAYS("wide"), hosts=["*.made-up2.example.com"])
    yield virtual_service("wide", SAYS("wide"), "wide", hosts=["*.wide.svc.cluster.local"])
    yield service("w1", "wide", app="nobody")
    yield service("w2", "wide", app="nobody")
    yield virtual_service("w2", SAYS("w2"), "wide", hosts=["w2"])
    hidden = service("annotated", app="echo")
    hidden["metadata"]["annotations"] = {"networking.istio.io/exportTo": "."}
    yield hidden
    yield service("ports", ports={80: APP_PORT, 81: APP_PORT}, app="echo")
    by_port = f"[{{match: [{{port: 81}}], {TO_V2}}}, {{match: [{{port: 80}}], {TO_V1}}}]"
    yield virtual_service("ports", by_port)
    yield service("same-port", app="echo")
    yield virtual_service("same-port", "[{route: [{destination: {host: ports}}]}]")


def entries(mesh: Mesh, local_port: int) -> Iterator[Obj]:
    v1, v2 = mesh.ips["v1"], mesh.ips["v2"]
    http = {"number": 80, "name": "http", "protocol": "HTTP"}

    def entry(name: str, namespace: str = "default", **spec: Any) -> Obj:
        return resource("ServiceEntry", name, {"hosts": [f"{name}.example"], "ports": [http], **spec}, namespace)

    one, two = {"address": v1, "ports": {"http": APP_PORT}}, {"address": v2, "ports": {"http": APP_PORT}}
    yield entry("static", resolution="STATIC", endpoints=[one, two], location="MESH_EXTERNAL")
    yield entry("target", resolution="STATIC", endpoints=[{"address": v1}], ports=[{**http, "targetPort": APP_PORT}])
    yield entry("vip", resolution="STATIC", endpoints=[one], addresses=["240.11.0.1"])
    yield entry("weighted", resolution="STATIC", endpoints=[{**one, "weight": 3}, {**two, "weight": 1}])
    yield entry("labelled", resolution="STATIC", endpoints=[{**one, "labels": {"v": "1"}}, {**two, "labels": {"v": "2"}}])
    subsets = {"subsets": [{"name": "two", "labels": {"v": "2"}}]}
    yield destination_rule("labelled", subsets, host="labelled.example")
    to_two = "[{timeout: 5s, route: [{destination: {host: labelled.example, subset: two}}]}]"
    yield virtual_service("labelled", to_two, hosts=["labelled.example"])
    yield entry("empty", resolution="STATIC")
    local = {"number": local_port, "name": "http", "protocol": "HTTP"}
    yield resource("ServiceEntry", "localhost", {"hosts": ["localhost"], "ports": [local], "resolution": "DNS"}, "entries")
    yield entry("named", resolution="DNS", endpoints=[{"address": "localhost", "ports": {"http": local_port}}])
    yield entry("nowhere", resolution="DNS", endpoints=[{"address": "no-such-host.invalid"}])
    yield entry("wildcard", hosts=["*.wildcard.example"], resolution="STATIC", endpoints=[one])
    yield entry("by-selector", resolution="STATIC", workloadSelector={"labels": {"app": "far"}}, namespace="other",
                ports=[{**http, "targetPort": APP_PORT}])  # fmt: skip
    yield entry("machines", resolution="STATIC", workloadSelector={"labels": {"app": "machine"}}, location="MESH_INTERNAL")
    yield resource("WorkloadEntry", "machine", {**one, "labels": {"app": "machine"}})
    yield entry("kept", "other", resolution="STATIC", endpoints=[one], exportTo=["."])
    yield entry("direct", hosts=["127.0.0.1.direct.example", "localhost.direct.example"], resolution="NONE")


def sidecars() -> Iterator[Obj]:
    def sidecar(app: str, egress: list[Obj], mode: str = "REGISTRY_ONLY") -> Obj:
        spec: Obj = {"workloadSelector": {"labels": {"app": app}}, "egress": egress, "outboundTrafficPolicy": {"mode": mode}}
        return resource("Sidecar", app, spec)

    yield sidecar("narrow", [{"hosts": ["./*"]}])
    yield sidecar("lonely", [{"hosts": ["~/*"]}])
    yield sidecar("picky", [{"hosts": ["./echo.default.svc.cluster.local", "other/*"]}])
    port = {"number": 81, "protocol": "HTTP", "name": "http"}
    yield sidecar("portly", [{"port": port, "hosts": ["./ports.default.svc.cluster.local"]}])
    yield resource("Sidecar", "default", {"egress": [{"hosts": ["./*", "default/echo.default.svc.cluster.local"]}]}, "strict")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    made = Mesh(tmp_path_factory.mktemp("scope"))
    try:
        for name in ("other", "wide", "strict", "entries", "istio-system"):
            made.namespace(name)
        for name in ("client", "narrow", "lonely", "picky", "portly"):
            made.proxy(name, app=name)
        made.proxy("stranger", "other", app="stranger")
        made.proxy("strictly", "strict", app="strict")
        made.proxy(
            "edge",
            "istio-system",
            "gateway",
            8080,
            {"mesh.dev/gateway-bind": "80=:8080", "mesh.dev/role": "gateway"},
            istio="edge",
        )
        made.pod("v1", app="echo", version="v1")
        made.pod("v2", app="echo", version="v2")
        made.pod("far", "other", app="far")
        made.local_port = made.echo.serve("local", "127.0.0.1", 0)  # type: ignore[attr-defined]
        subsets = [{"name": name, "labels": {"version": name}} for name in ("v1", "v2")]
        made.apply(
            service("echo", app="echo"),
            destination_rule("echo", {"subsets": subsets}),
            service("echo2", "other", app="far"),
            *gateways(),
            *names(),
            *entries(made, made.local_port),  # type: ignore[attr-defined]
            *sidecars(),
        )
        made.endpoints("echo", 2)
        made.endpoints("echo2", 1, "other")
        made.ready()
        yield made
    finally:
        print(made.logs())
        made.close()


@pytest.fixture
def client(mesh: Mesh) -> Proxy:
    return mesh.proxies["client"]


@pytest.fixture
def edge(mesh: Mesh) -> Proxy:
    return mesh.proxies["edge"]


# -- gateways


@pytest.mark.parametrize(
    ("url", "port", "expected"),
    [
        ("http://shop.example.com/a", 0, "v1"),
        ("http://shop.example.com:8080/b", 0, "v2"),
        ("http://SHOP.example.com/a", 0, "v1"),
        ("http://shop.example.com./a", 0, 404),
        ("http://shop.example.com/c", 0, 404),
        ("http://unknown.example.com/", 0, 404),
        ("http://y.wild.example.com/", 0, "wild"),
        ("http://a.b.wild.example.com/", 0, "wild"),
        ("http://x.wild.example.com/", 0, "exact"),
        ("http://wild.example.com/", 0, 404),
        ("http://theirs.example.com/", 0, "theirs"),
        ("http://own.example.com/", 0, "own"),
        ("http://merged.example.com/a", 0, "v1"),
        ("http://merged.example.com/b", 0, "v2"),
        ("http://merged.example.com/c", 0, "rest"),
        ("http://both.example.com/g", 0, "v1"),
        ("http://both.example.com/m", 0, 404),
        ("http://short.example.com/", 0, "far"),
        ("http://port.example.com/", 0, "v1"),
        ("http://old.example.com/", 0, "v1"),
        ("http://anything.at.all/", 8081, "any"),
        ("http://10.1.2.3/", 8081, "any"),
    ],
)
def test_gateway(edge: Proxy, url: str, port: int, expected: str | int) -> None:
    answer = edge.ask(url, port=port)
    if isinstance(expected, int):
        assert (answer.status, answer.text) == (expected, "")
    else:
        assert answer.status == 200 and expected in (answer.text, answer.text.startswith("{") and answer.pod), answer


def test_a_gateway_that_selects_somebody_else_is_not_opened(edge: Proxy) -> None:
    with pytest.raises(ConnectionRefusedError):
        edge.ask("http://any/", port=8099)


def test_https_redirect(edge: Proxy) -> None:
    answer = edge.ask("http://secure.example.com/a?b=c", port=8082)
    assert (answer.status, answer.get("location"), answer.text) == (301, "https://secure.example.com/a?b=c", "")
    assert edge.ask("http://x.lone.example.com:8082/", port=8082).get("location") == "https://x.lone.example.com:8082/"
    assert edge.ask("http://other.example.com/", port=8082).status == 404


def test_what_a_gateway_tells_the_app(edge: Proxy) -> None:
    answer = edge.ask("http://shop.example.com/a", headers={"x-forwarded-for": "1.2.3.4", "x-envoy-retry-on": "5xx"})
    assert answer.asked("x-forwarded-for")[0].startswith("1.2.3.4,") and answer.asked("x-forwarded-proto") == ["http"]
    assert len(answer.asked("x-request-id")) == 1 and answer.asked("x-envoy-retry-on") == []
    assert answer.json["host"] == "shop.example.com"
    assert answer.get("server") == "meshproxy" and answer.get("x-envoy-upstream-service-time") is not None


def test_a_route_for_gateways_is_not_for_the_mesh(client: Proxy) -> None:
    assert set(client.pods("http://echo/", 4)) == {"v1", "v2"}
    assert client.ask("http://both.example.com/g").pod == "v2"


# -- names


@pytest.mark.parametrize(
    "name",
    ["echo", "echo.default", "echo.default.svc", "echo.default.svc.cluster.local", "echo.default.svc.cluster.local.", "ECHO"],
)
def test_a_service_has_many_names(client: Proxy, name: str) -> None:
    for url in (f"http://{name}/", f"http://{name}:80/"):
        answer = client.ask(url)
        assert answer.status == 200 and answer.json["host"] == url[7:-1]
    assert client.requests(destination_service="echo.default.svc.cluster.local", response_code="200") >= 2


def test_short_names_are_of_ones_own_namespace(mesh: Mesh, client: Proxy) -> None:
    stranger = mesh.proxies["stranger"]
    assert client.ask("http://echo2.other/").pod == stranger.ask("http://echo2/").pod == "far"
    assert client.ask("http://echo2/").status == 503  # unknown here: passed through to a name that does not resolve
    assert stranger.ask("http://echo/").status == 503


@pytest.mark.parametrize(
    ("by", "url", "expected"),
    [
        ("client", "http://aged/a", "v1"),
        ("client", "http://aged/b", 404),  # the younger one is not asked
        ("client", "http://private/", "private"),
        ("stranger", "http://private.default/", "v1 v2"),
        ("client", "http://cross/", "far"),  # echo2 of the VirtualService's namespace
        ("client", "http://made-up/", "made-up"),
        ("client", "http://made-up.example.com/", "made-up"),
        ("client", "http://a.made-up.example.com/", "made-up"),
        ("stranger", "http://made-up.default/", "made-up"),
        ("client", "http://x.made-up2.example.com/", "exact"),
        ("client", "http://y.made-up2.example.com/", "wide"),
        ("client", "http://w1.wide/", "wide"),
        ("client", "http://w2.wide/", "w2"),
        ("client", "http://annotated/", "v1 v2"),
        ("stranger", "http://annotated.default/", 503),
        ("client", "http://ports/", "v1"),
        ("client", "http://ports:81/", "v2"),
        ("client", "http://same-port/", "v1 v2"),  # of several ports the one that was asked for
    ],
)
def test_names(mesh: Mesh, by: str, url: str, expected: str | int) -> None:
    answer = mesh.proxies[by].ask(url)
    if isinstance(expected, int):
        assert answer.status == expected, answer
    else:
        assert answer.status == 200 and (answer.text == expected or answer.pod in expected.split()), answer


# -- ServiceEntries


@pytest.mark.parametrize(
    ("by", "url", "expected"),
    [
        ("client", "http://static.example/", "v1 v2"),
        ("stranger", "http://static.example/x", "v1 v2"),
        ("client", "http://target.example/", "v1"),
        ("client", "http://240.11.0.1/", "v1"),
        ("client", "http://vip.example/", "v1"),
        ("client", "http://labelled.example/", "v2"),
        ("client", "http://empty.example/", 503),
        ("client", "http://named.example/", "local"),
        ("client", "http://nowhere.example/", 503),
        ("client", "http://a.wildcard.example/", "v1"),
        ("client", "http://a.b.wildcard.example/", "v1"),
        ("client", "http://by-selector.example/", "far"),
        ("client", "http://machines.example/", "v1"),
        ("stranger", "http://kept.example/", "v1"),
        ("client", "http://kept.example/", 503),
    ],
)
def test_service_entry(mesh: Mesh, by: str, url: str, expected: str | int) -> None:
    answer = mesh.proxies[by].ask(url)
    if isinstance(expected, int):
        assert answer.status == expected, answer
    else:
        assert answer.status == 200 and answer.pod in expected.split(), answer
        assert answer.json["host"] == url[7:].partition("/")[0]


def test_entries_in_detail(mesh: Mesh, client: Proxy) -> None:
    assert client.ask(f"http://localhost:{mesh.local_port}/").pod == "local"  # type: ignore[attr-defined]
    assert client.requests(destination_service="localhost", response_code="200") == 1
    assert client.pods("http://weighted.example/", 8).count("v1") == 6
    assert client.ask("http://empty.example/").text == "no healthy upstream"


# -- egress


def test_unknown_hosts_pass(mesh: Mesh, client: Proxy) -> None:
    port = mesh.local_port  # type: ignore[attr-defined]
    answer = client.ask(f"http://127.0.0.1:{port}/x")
    assert (answer.pod, answer.path, answer.json["host"]) == ("local", "/x", f"127.0.0.1:{port}")
    assert client.requests(destination_service_name="PassthroughCluster", response_code="200") == 1
    with socket.create_server(("127.0.0.1", 0)) as closed:
        free = closed.getsockname()[1]
    answer = client.ask(f"http://127.0.0.1:{free}/")
    assert answer.status == 503 and "Connection refused" in answer.text


def test_unknown_hosts_are_refused(mesh: Mesh) -> None:
    narrow = mesh.proxies["narrow"]
    answer = narrow.ask(f"http://127.0.0.1:{mesh.local_port}/")  # type: ignore[attr-defined]
    assert (answer.status, answer.text) == (502, "")
    assert narrow.requests(destination_service_name="BlackHoleCluster", response_code="502", response_flags="-") == 1
    connect = narrow.ask(f"127.0.0.1:{mesh.local_port}", method="CONNECT")  # type: ignore[attr-defined]
    assert connect.status != 200


@pytest.mark.parametrize(
    ("by", "url", "status"),
    [
        ("narrow", "http://echo/", 200),
        ("narrow", "http://echo2.other/", 502),
        ("narrow", "http://static.example/", 200),
        ("narrow", "http://cross/", 200),  # the VirtualService of namespace other is not imported: the service itself
        ("lonely", "http://echo/", 502),
        ("picky", "http://echo/", 200),
        ("picky", "http://aged/", 502),
        ("picky", "http://echo2.other/", 200),
        ("portly", "http://ports:81/", 200),
        ("portly", "http://ports/", 502),
        ("strictly", "http://echo.default/", 200),
        ("strictly", "http://ports.default/", 503),  # ALLOW_ANY: passed through to a name that does not resolve
    ],
)
def test_sidecar(mesh: Mesh, by: str, url: str, status: int) -> None:
    answer = mesh.proxies[by].ask(url, key=new_key())
    assert answer.status == status, answer
    if url == "http://cross/":
        assert answer.pod in ("v1", "v2")
