"""The article's manifests, word for word, give exactly the configuration that its steps need."""

from __future__ import annotations

import pytest
from world_objects import View, forward, load, pod, rating, virtual_service

from control.world.mesh import DEFAULT_RETRY
from meshproxy.model.cluster import (
    Cluster,
    ConnectionPool,
    Endpoint,
    Endpoints,
    LoadBalancer,
    Outlier,
    Service,
    Workload,
)
from meshproxy.model.listener import Listener
from meshproxy.model.route import Forward, Retry, Route, RouteConfig, VirtualHost, WeightedCluster
from meshproxy.model.security import ClientTls

RULE_V1_V2 = """
apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata:
  name: rating
spec:
  host: rating
  subsets:
  - labels:
      app.kubernetes.io/version: v1.0.0
    name: version-v1
  - labels:
      app.kubernetes.io/version: v2.0.0
    name: version-v2
"""
BREAKER = """
apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata:
  name: rating
spec:
  host: rating
  subsets:
  - labels:
      version: v1
    name: version-v1
  - labels:
      version: v2
    name: version-v2
  trafficPolicy:
    connectionPool:
      http:
        http1MaxPendingRequests: 3
        maxRequestsPerConnection: 3
      tcp:
        maxConnections: 3
    outlierDetection:
      baseEjectionTime: 3m
      consecutive5xxErrors: 1
      interval: 1s
      maxEjectionPercent: 100
"""
RETRY = """
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata:
  name: rating
spec:
  hosts:
  - rating
  http:
  - route:
    - destination:
        host: rating
    retries:
      attempts: 2
      perTryTimeout: 5s
      retryOn: 5xx
"""


def one_version(number: int) -> str:
    return f"""
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata:
  name: rating
spec:
  hosts:
  - rating
  http:
  - route:
    - destination:
        host: rating
        subset: version-v{number}
      weight: 100
"""


SPLIT = """
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata:
  name: rating
spec:
  hosts:
  - rating
  http:
  - route:
    - destination:
        host: rating
        subset: version-v1
      weight: 75
    - destination:
        host: rating
        subset: version-v2
      weight: 25
"""

FQDN = "rating.default.svc.cluster.local"
PLAIN = f"outbound|8080||{FQDN}"
V1, V2 = f"outbound|8080|version-v1|{FQDN}", f"outbound|8080|version-v2|{FQDN}"
DOMAINS = (FQDN, FQDN + ".", "rating.default.svc", "rating.default", "rating")
BOOK = ("default", "book-service")
ACCOUNTS = ("spiffe://cluster.local/ns/default/sa/default",)


def of_pod(number: int) -> Endpoint:
    return Endpoint(
        address=f"127.1.0.{number + 1}",
        port=8080,
        workload=Workload(
            pod=f"rating-service-v{number}",
            namespace="default",
            workload=f"rating-service-v{number}",
            app="rating-service",
            version=f"v{number}.0.0",
            canonical_service="rating-service",
            canonical_revision=f"v{number}.0.0",
            service_account="default",
        ),
    )


def test_without_resources_both_versions_in_order_of_their_names():
    view = View(rating(), BOOK)
    assert view.snapshot.problems == ()
    assert view.snapshot.get("endpoints", PLAIN) == Endpoints(name=PLAIN, endpoints=(of_pod(1), of_pod(2)), identities=ACCOUNTS)
    assert view.cluster(PLAIN) == Cluster(
        name=PLAIN,
        service=Service(host=FQDN, name="rating", namespace="default"),
        tls=ClientTls(mode="AUTO", sni=f"outbound_.8080_._.{FQDN}"),
    )
    assert view.cluster(PLAIN).lb == LoadBalancer(policy="ROUND_ROBIN")
    plain = Route(name="default", action=Forward(clusters=(WeightedCluster(cluster=PLAIN),), retry=DEFAULT_RETRY))
    book = "book-service.default.svc.cluster.local"
    book_names = (book, book + ".", "book-service.default.svc", "book-service.default", "book-service")
    to_book = Forward(clusters=(WeightedCluster(cluster=f"outbound|8080||{book}"),), retry=DEFAULT_RETRY)
    through = Forward(clusters=(WeightedCluster(cluster="PassthroughCluster"),))
    assert view.config("8080") == RouteConfig(
        name="8080",
        virtual_hosts=(
            VirtualHost(name=f"{book}:8080", domains=book_names, routes=(Route(name="default", action=to_book),)),
            VirtualHost(name=f"{FQDN}:8080", domains=DOMAINS, routes=(plain,)),
            VirtualHost(name="allow_any", domains=("*",), routes=(Route(name="allow_any", action=through),)),
        ),
    )
    assert view.listener("outbound") == Listener(name="outbound", direction="outbound", port=15001, route_ports=(8080,))


def test_inbound_of_the_article_pod():
    view = View(rating(), ("default", "rating-service-v1"))
    assert view.listener("inbound|8080") == Listener(
        name="inbound|8080", direction="inbound", port=8080, route="inbound|8080", mtls="PERMISSIVE"
    )
    (host,) = view.config("inbound|8080").virtual_hosts
    assert (host.name, host.domains) == ("inbound|http|8080", ("*",))
    assert forward(host.routes[0]) == Forward(
        clusters=(WeightedCluster(cluster="inbound|8080||"),), retry=Retry(attempts=2, on=("reset-before-request",))
    )
    assert view.endpoints("inbound|8080||") == ["127.1.0.2:9080"]
    assert view.cluster("inbound|8080||") == Cluster(
        name="inbound|8080||", type="STATIC", service=Service(host=FQDN, name="rating", namespace="default")
    )


@pytest.mark.parametrize("number", [1, 2])
def test_all_traffic_to_one_version(number):
    view = View([*rating(), *load(RULE_V1_V2), *load(one_version(number))], BOOK)
    assert view.problems == []
    assert view.targets("rating") == [[((V1, V2)[number - 1], 1)]]
    assert view.endpoints(V1) == ["127.1.0.2:8080"]
    assert view.endpoints(V2) == ["127.1.0.3:8080"]
    assert view.routes("rating")[0].source == "VirtualService default/rating http[0]"
    assert view.cluster(V1).source == "DestinationRule default/rating subset version-v1"


def test_three_to_one():
    view = View([*rating(), *load(RULE_V1_V2), *load(SPLIT)], BOOK)
    assert view.targets("rating") == [[(V1, 75), (V2, 25)]]


def test_a_deleted_virtual_service_leaves_no_trace():
    with_rule = [*rating(), *load(RULE_V1_V2)]
    assert View(with_rule, BOOK).targets("rating") == [[(PLAIN, 1)]]


def test_retry_goes_to_another_host():
    view = View([*rating(), *load(RULE_V1_V2), *load(RETRY)], BOOK)
    retry = forward(view.routes("rating")[0]).retry
    assert retry == Retry(attempts=2, on=("5xx",), per_try_timeout=5.0, avoid_previous_hosts=True)
    assert view.targets("rating") == [[(PLAIN, 1)]]


def test_circuit_breaker():
    view = View([*rating(), *load(BREAKER), *load(RETRY)], BOOK)
    cluster = view.cluster(PLAIN)
    assert cluster.pool == ConnectionPool(max_connections=3, max_pending_requests=3, max_requests_per_connection=3)
    assert cluster.outlier == Outlier(
        consecutive_5xx=1, interval=1.0, base_ejection=180.0, max_ejection_percent=100, min_health_percent=0
    )
    # Semantics 0.7: the subsets' labels fit no pod. The clusters are there, and empty: 503 UH, not NC.
    assert view.endpoints(V1) == view.endpoints(V2) == []
    assert view.cluster(V1).outlier == cluster.outlier


def test_ingress_gateway():
    ingress = pod(
        "ingressgateway",
        "127.1.0.10",
        {"istio": "ingressgateway"},
        namespace="istio-system",
        annotations={"mesh.dev/gateway-bind": "80=127.0.0.1:8080,8080=127.0.0.1:8080"},
    )
    gateway = load("""
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: book, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ["*"]
""")
    book = virtual_service("book", ["*"], [{"route": [{"destination": {"host": "book-service"}}]}], gateways=["book"])
    view = View([*rating(), ingress, *gateway, book], ("istio-system", "ingressgateway"))
    assert view.problems == []
    assert view.listener("gateway|8080") == Listener(
        name="gateway|8080", direction="gateway", port=8080, bind="127.0.0.1", route="http.8080"
    )
    cluster = "outbound|8080||book-service.default.svc.cluster.local"
    assert view.targets("*", "http.8080") == [[(cluster, 1)]]
    assert view.endpoints(cluster) == ["127.1.0.1:8080"]
    assert view.names("cluster") == [cluster]
