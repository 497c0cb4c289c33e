"""What ``kubectl apply`` says of Istio resources: refusals with a path, warnings, versions; and changes that take effect live."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.e2e.semantics_support import Mesh, Obj, destination_rule, resource, service, virtual_service

pytestmark = [pytest.mark.system("kubectl"), pytest.mark.timeout(120)]

TO = "route: [{destination: {host: a}}]"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    made = Mesh(tmp_path_factory.mktemp("apply"))
    try:
        made.proxy("client", app="client")
        made.pod("v1", app="echo", version="v1")
        made.pod("v2", app="echo", version="v2")
        made.apply(service("live", app="echo"))
        made.endpoints("live", 2)
        made.ready()
        yield made
    finally:
        print(made.logs())
        made.close()


def rule(text: str) -> Obj:
    return virtual_service("bad", f"[{{{text}}}]")


def gateway(server: str) -> Obj:
    return resource("Gateway", "bad", f"{{selector: {{istio: edge}}, servers: [{server}]}}")


REFUSED: list[tuple[Obj, list[str]]] = [
    (rule(f"{TO}, retrys: {{attempts: 1}}"), ["spec.http[0].retrys", "unknown field", "retries"]),
    (rule("route: [{destination: {hots: a}}]"), ["spec.http[0].route[0].destination.hots", "host"]),
    (rule(f"{TO}, match: [{{uri: {{prefx: /a}}}}]"), ["spec.http[0].match[0].uri.prefx", "prefix"]),
    (rule(f"{TO}, match: [{{uri: {{regex: '(a'}}}}]"), ["spec.http[0].match[0].uri.regex", "regex"]),
    (rule(f"{TO}, match: [{{headers: {{x: {{regex: 'a(?=b)'}}}}}}]"), ["spec.http[0].match[0].headers[x].regex"]),
    (rule(f"{TO}, match: [{{uri: {{exact: /a, prefix: /b}}}}]"), ["spec.http[0].match[0].uri", "exact", "prefix"]),
    (rule(f"{TO}, timeout: 5 seconds"), ["spec.http[0].timeout", "5 seconds"]),
    (rule(f"{TO}, timeout: 0.1ms"), ["spec.http[0].timeout"]),
    (rule(f"{TO}, timeout: 5"), ["spec.http[0].timeout"]),
    (rule(f"{TO}, retries: {{attempts: -1}}"), ["spec.http[0].retries.attempts", "-1"]),
    (rule(f"{TO}, retries: {{attempts: two}}"), ["spec.http[0].retries.attempts"]),
    (rule(f"{TO}, retries: {{attempts: 1, retryOn: 5xxx}}"), ["spec.http[0].retries.retryOn", "5xx"]),
    (rule(f"{TO}, fault: {{abort: {{httpStatus: 99, percentage: {{value: 1}}}}}}"), ["spec.http[0].fault.abort.httpStatus"]),
    (rule(f"{TO}, fault: {{delay: {{fixedDelay: 1s, percentage: {{value: 101}}}}}}"), ["spec.http[0].fault.delay.percentage"]),
    (rule(f"{TO}, redirect: {{uri: /a}}"), ["spec.http[0]", "redirect", "route"]),
    (rule("name: nothing"), ["spec.http[0]"]),
    (rule("redirect: {uri: /a, redirectCode: 300}"), ["spec.http[0].redirect.redirectCode", "300"]),
    (rule(f"{TO}, rewrite: {{uriRegexRewrite: {{match: '(a)', rewrite: '/\\2'}}}}"), ["http[0].rewrite.uriRegexRewrite.rewrite"]),
    (rule(f"{TO}, headers: {{request: {{set: {{x: '%NOPE%'}}}}}}"), ["spec.http[0].headers.request.set[x]", "NOPE"]),
    (rule(f"{TO}, headers: {{request: {{remove: [host]}}}}"), ["spec.http[0].headers.request.remove[0]", "host"]),
    (rule(f"{TO}, corsPolicy: {{allowMethods: [GTE]}}"), ["spec.http[0].corsPolicy.allowMethods[0]", "GET"]),
    (rule("directResponse: {status: 200, body: {bytes: '!'}}"), ["spec.http[0].directResponse.body.bytes"]),
    (
        rule("route: [{destination: {host: a}, weight: 0}, {destination: {host: b}, weight: 0}]"),
        ["spec.http[0].route", "total destination weight = 0"],
    ),
    (rule("route: [{destination: {host: a}}, {destination: {host: b}}]"), ["spec.http[0].route", "total destination weight = 0"]),
    (rule("route: [{destination: {host: a}, weight: -1}]"), ["spec.http[0].route[0].weight"]),
    (rule("route: [{destination: {host: a, port: {number: 70000}}}]"), ["spec.http[0].route[0].destination.port.number"]),
    (resource("VirtualService", "bad", {"hosts": ["*"], "http": [yaml.safe_load(f"{{{TO}}}")]}), ["spec.hosts[0]"]),
    (resource("VirtualService", "bad", {"host": ["a"], "http": [yaml.safe_load(f"{{{TO}}}")]}), ["spec.host", "hosts"]),
    (resource("VirtualService", "bad", {"hosts": ["a"]}), ["http"]),
    (destination_rule("bad", "{trafficPolicy: {loadBalancer: {simple: ROUND_ROBBIN}}}"),
     ["spec.trafficPolicy.loadBalancer.simple", "ROUND_ROBIN"]),
    (destination_rule("bad", "{trafficPolicy: {outlierDetection: {consecutive5xxError: 1}}}"),
     ["spec.trafficPolicy.outlierDetection.consecutive5xxError", "consecutive5xxErrors"]),
    (destination_rule("bad", "{trafficPolicy: {outlierDetection: {maxEjectionPercent: 101}}}"),
     ["spec.trafficPolicy.outlierDetection.maxEjectionPercent"]),
    (destination_rule("bad", "{trafficPolicy: {connectionPool: {tcp: {maxConnections: many}}}}"),
     ["spec.trafficPolicy.connectionPool.tcp.maxConnections"]),
    (destination_rule("bad", "{trafficPolicy: {connectionPool: {tcp: {connectTimeout: 1}}}}"),
     ["spec.trafficPolicy.connectionPool.tcp.connectTimeout"]),
    (destination_rule("bad", "{trafficPolicy: {loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}}"),
     ["spec.trafficPolicy.loadBalancer", "consistentHash"]),
    (destination_rule("bad", "{subsets: [{name: a}, {name: a}]}"), ["spec.subsets"]),
    (destination_rule("bad", "{subsets: [{labels: {v: a}}]}"), ["spec.subsets[0].name"]),
    (gateway("{port: {number: 80, name: h, protocol: HTPP}, hosts: ['*']}"), ["spec.servers[0].port.protocol", "HTTP"]),
    (gateway("{port: {number: 0, name: h, protocol: HTTP}, hosts: ['*']}"), ["spec.servers[0].port.number"]),
    (gateway("{port: {number: 80, name: h, protocol: HTTP}}"), ["spec.servers[0].hosts"]),
    (resource("ServiceEntry", "bad", "{hosts: [a.b], resolution: STATICC, ports: [{number: 80, name: h, protocol: HTTP}]}"),
     ["spec.resolution", "STATIC"]),
    (resource("ServiceEntry", "bad", "{hosts: [a.b], resolution: STATIC, ports: [{number: 80, name: h, protocol: HTTP}],"
              " endpoints: [{address: not-an-ip}]}"), ["spec.endpoints[0].address"]),
    (resource("Sidecar", "bad", "{egress: [{hosts: [a]}]}"), ["spec.egress[0].hosts[0]"]),
    (resource("Sidecar", "bad", "{outboundTrafficPolicy: {mode: REGISTRY}, egress: [{hosts: ['./*']}]}"),
     ["spec.outboundTrafficPolicy.mode", "REGISTRY_ONLY"]),
]  # fmt: skip


@pytest.mark.parametrize(("obj", "said"), REFUSED, ids=[said[0] for _, said in REFUSED])
def test_refused_with_the_path(mesh: Mesh, obj: Obj, said: list[str]) -> None:
    done = mesh.apply(obj, check=False)
    assert done.returncode == 1, done
    for word in said:
        assert word in done.stderr, done.stderr
    gone = mesh.kubectl("get", obj["kind"].lower(), "bad", check=False)
    assert gone.returncode == 1 and "NotFound" in gone.stderr


WARNED: list[tuple[Obj, str]] = [
    (rule("delegate: {name: x}"), "spec.http[0].delegate"),
    (rule(f"{TO}, retries: {{attempts: 1, retryRemoteLocalities: true}}"), "spec.http[0].retries.retryRemoteLocalities"),
    (rule(f"{TO}, fault: {{abort: {{httpStatus: 500}}}}"), "spec.http[0].fault.abort"),
    (destination_rule("bad", "{trafficPolicy: {proxyProtocol: {version: V2}}}"), "spec.trafficPolicy.proxyProtocol"),
    (destination_rule("bad", "{trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true, maglev: {}}}}}"),
     "spec.trafficPolicy.loadBalancer.consistentHash.maglev"),
    (destination_rule("bad", "{trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 10s}}}}"),
     "spec.trafficPolicy.loadBalancer.warmup"),
    (destination_rule("bad", "{trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}}"),
     "spec.trafficPolicy.connectionPool.http.h2UpgradePolicy"),
    (destination_rule("bad", "{subsets: [{name: a, trafficPolicy: {portLevelSettings:"
                            " [{port: {number: 80}, loadBalancer: {simple: RANDOM, warmup: {duration: 10s}}}]}}]}"),
     "spec.subsets[0].trafficPolicy.portLevelSettings[0].loadBalancer.warmup"),
    (gateway("{port: {number: 80, name: t, protocol: HTTP2}, hosts: ['*']}"),
     "spec.servers[0].port.protocol"),
    (resource("Sidecar", "bad", "{ingress: [{port: {number: 80, protocol: HTTP, name: a}, defaultEndpoint: '127.0.0.1:80',"
                         " captureMode: NONE}]}"), "spec.ingress[0].captureMode"),
]  # fmt: skip


@pytest.mark.parametrize(("obj", "path"), WARNED, ids=[path for _, path in WARNED])
def test_accepted_with_a_warning(mesh: Mesh, obj: Obj, path: str) -> None:
    done = mesh.kubectl("apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(obj), check=False)
    assert done.returncode == 0, done.stderr
    assert any(line.startswith("Warning: ") and path in line for line in done.stderr.splitlines()), done.stderr


def test_every_version_is_one_object(mesh: Mesh) -> None:
    client = mesh.proxies["client"]
    for number, version in enumerate(("v1", "v1beta1", "v1alpha3")):
        body = f"of {version}"
        spec: dict[str, Any] = {"hosts": ["live"], "http": [{"directResponse": {"status": 200, "body": {"string": body}}}]}
        done = mesh.apply(resource("VirtualService", "versions", spec, version=version))
        assert done.stdout == f"virtualservice.networking.istio.io/versions {'configured' if number else 'created'}\n"
        assert client.ask("http://live/").text == body
        mesh.apply(resource("DestinationRule", "versions", {"host": "live"}, version=version))
        shown = mesh.kubectl("get", f"virtualservices.{version}.networking.istio.io", "versions", "-o", "yaml").stdout
        assert yaml.safe_load(shown)["apiVersion"] == f"networking.istio.io/{version}"
    mesh.delete("virtualservice/versions", "destinationrule/versions")
    assert client.ask("http://live/").status == 200


def test_changes_take_effect(mesh: Mesh) -> None:
    client = mesh.proxies["client"]
    subsets = [{"name": name, "labels": {"version": name}} for name in ("v1", "v2")]
    to_v1 = virtual_service("live", "[{route: [{destination: {host: live, subset: v1}}]}]")
    # The route before its rule: 503 until the subset is known.
    mesh.apply(to_v1)
    assert client.ask("http://live/").status == 503
    assert client.requests(destination_service="unknown", response_flags="NC") or client.requests(response_flags="NC") == 1
    mesh.apply(destination_rule("live", {"subsets": subsets}))
    assert client.pods("http://live/", 3) == ["v1"] * 3
    mesh.kubectl("patch", "virtualservice", "live", "--type=merge", "-p", yaml.safe_dump({"spec": {"http": [
        {"route": [{"destination": {"host": "live", "subset": "v2"}}]}]}}))  # fmt: skip
    mesh.settle()
    assert client.pods("http://live/", 3) == ["v2"] * 3
    mesh.kubectl("label", "pod", "v1", "version=v2", "--overwrite")
    mesh.settle()
    assert set(client.pods("http://live/", 4)) == {"v1", "v2"}
    mesh.kubectl("label", "pod", "v1", "version=v1", "--overwrite")
    mesh.delete("virtualservice/live", "destinationrule/live")
    assert set(client.pods("http://live/", 4)) == {"v1", "v2"}
