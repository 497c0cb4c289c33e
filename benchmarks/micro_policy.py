"""What policy and filters cost per request, in microseconds; run it before and after a change to them.

    .venv/bin/python -m benchmarks.micro_policy [rounds]

Each row is the best of several rounds, less the cost of making the request and the exchange. Where code bends for speed, it
names its row.
"""

from __future__ import annotations

import sys
import timeit
from collections.abc import Callable
from random import random
from typing import Any

from meshproxy.apply import compile_snapshot
from meshproxy.filters.chain import run
from meshproxy.filters.identity import sidecar_identity
from meshproxy.message.head import RequestHead
from meshproxy.message.record import ExchangeRecord
from meshproxy.message.secured import Peer, Secured
from meshproxy.message.token import Token
from meshproxy.model.base import Model
from meshproxy.model.cluster import Cluster, Endpoint, Endpoints, Workload
from meshproxy.model.listener import Listener
from meshproxy.model.match import HeaderMatch, RouteMatch, StringMatch
from meshproxy.model.route import Forward, HeaderOps, Retry, Route, RouteConfig, VirtualHost, WeightedCluster
from meshproxy.model.security import Condition, Operation, Policy, Rule, Source, Trust
from meshproxy.policy.context import request_id
from meshproxy.policy.paths import normaliser
from meshproxy.policy.rbac import Judge, compile_policies

CALLS = 20_000


class Live:
    """A cluster that only stands there."""

    def __init__(self, config: Cluster, endpoints: tuple[Endpoint, ...]) -> None:
        self.config = config
        self.endpoints = endpoints


def make(config: Cluster, endpoints: tuple[Endpoint, ...], old: Any) -> Any:
    if old is None:
        return Live(config, endpoints)
    old.config, old.endpoints = config, endpoints
    return old


class Exchange:
    __slots__ = (
        "choice",
        "compiled",
        "cors_origin",
        "dice",
        "known",
        "listener",
        "own",
        "record",
        "request",
        "secured",
        "source",
    )

    def __init__(self, listener: Any, request: RequestHead, record: ExchangeRecord) -> None:
        self.listener = listener
        self.request = request
        self.record = record
        self.dice = random
        self.source = "127.0.0.1"
        self.choice = None
        self.own = self.secured = None
        self.known = False

    def route(self) -> Any:
        if not self.known:
            self.known = True
            self.compiled = self.listener.choose(self.request)
        return self.compiled


def head(path: bytes = b"/rate/1", *more: tuple[bytes, bytes]) -> RequestHead:
    headers = [(b"user-agent", b"curl/8"), (b"accept", b"*/*"), (b"accept-encoding", b"gzip"), (b"x-user", b"jo"), *more]
    return RequestHead(b"GET", path, b"rating:8080", headers)


def world(routes: tuple[Route, ...], services: int = 1) -> dict[str, dict[str, Model]]:
    domains = ("rating", "rating.default", "rating.default.svc", "rating.default.svc.cluster.local")
    hosts = [VirtualHost(name="rating", domains=domains, routes=routes)]
    clusters: dict[str, Model] = {name: Cluster(name=name) for name in ("a", "b")}
    endpoints: dict[str, Model] = {}
    for number in range(services):
        name = f"outbound|8080||s{number}.default.svc.cluster.local"
        clusters[name] = Cluster(name=name)
        endpoints[name] = group(name, 10)
        forward = Forward(clusters=(WeightedCluster(cluster=name),), retry=Retry(on=("connect-failure",)))
        names = (f"s{number}", f"s{number}.default", f"s{number}.default.svc.cluster.local")
        hosts.append(VirtualHost(name=name, domains=names, routes=(Route(name="default", action=forward),)))
    outbound = Listener(name="outbound", direction="outbound", port=15001, route_ports=(8080,))
    config: Model = RouteConfig(name="8080", virtual_hosts=tuple(hosts))
    return {"cluster": clusters, "endpoints": endpoints, "route": {"8080": config}, "listener": {"outbound": outbound}}


def group(name: str, size: int, weight: int = 1) -> Endpoints:
    number = int(name.split("|")[-1].split(".")[0][1:])
    return Endpoints(
        name=name,
        endpoints=tuple(
            Endpoint(
                address=f"10.{number // 250}.{number % 250}.{at}",
                port=8080,
                weight=weight,
                workload=Workload(pod=f"{number}-{at}"),
            )
            for at in range(1, size + 1)
        ),
    )


RETRY = Retry(attempts=2, on=("5xx",))
SPLIT = Forward(clusters=(WeightedCluster(cluster="a", weight=75), WeightedCluster(cluster="b", weight=25)), retry=RETRY)
USUAL = (Route(name="default", action=SPLIT),)
MATCHES = (
    *(
        Route(
            name=str(number),
            match=RouteMatch(
                path=StringMatch(kind="prefix", value="/rate"),
                headers=(HeaderMatch(name="x-user", match=StringMatch(kind="exact", value=str(number))),),
            ),
            action=SPLIT,
        )
        for number in range(9)
    ),
    Route(name="last", action=SPLIT, request_headers=HeaderOps(set=(("x-a", "1"),), remove=("x-b",))),
)
REGEX = (Route(name="regex", match=RouteMatch(path=StringMatch(kind="regex", value="/rate/[0-9]+")), action=SPLIT),)
SEEN = ((b"x-request-id", b"0" * 36), (b"x-forwarded-proto", b"http"))


def cost(call: Callable[[], object], rounds: int) -> float:
    return min(timeit.repeat(call, number=CALLS, repeat=rounds)) / CALLS * 1e6


def walk(routes: tuple[Route, ...], rounds: int, services: int = 1, *more: tuple[bytes, bytes]) -> float:
    """The whole outbound chain, less the making of what it works on."""
    listener = compile_snapshot(world(routes, services), None, make).listeners["outbound"]
    record = ExchangeRecord(listener, 0.0, 0.0)
    chain = listener.chain

    def whole() -> None:
        run(chain, Exchange(listener, head(b"/rate/1", *more), record), 0.0)

    return cost(whole, rounds) - cost(lambda: Exchange(listener, head(b"/rate/1", *more), record), rounds)


# The article's policy for books, and one that asks for more.
ARTICLE = Policy(
    name="default/books",
    rules=(
        Rule(
            sources=(Source(request_principals=("testing@secure.istio.io/testing@secure.istio.io",)),),
            when=(Condition(key="request.auth.claims[role]", values=("customer",)),),
        ),
    ),
)
LONGER = (
    Policy(name="default/no", action="DENY", rules=(Rule(operations=(Operation(paths=("/admin*",)),)),)),
    Policy(
        name="default/web",
        rules=(
            Rule(
                sources=(Source(principals=("cluster.local/ns/default/sa/web", "cluster.local/ns/default/sa/gateway")),),
                operations=(Operation(methods=("GET", "HEAD"), paths=("/rate*",)),),
                when=(Condition(key="request.auth.claims[role]", values=("customer",)),),
            ),
        ),
    ),
)


class Flight:
    """What a policy looks at."""

    def __init__(self) -> None:
        self.request = head()
        who = "testing@secure.istio.io"
        self.request.token = Token(who, who, {"iss": who, "sub": who, "role": "customer"})
        self.secured = Secured(Peer(identity="spiffe://cluster.local/ns/default/sa/gateway"), mesh=True)


def delta(services: int) -> float:
    """Milliseconds for a snapshot in which one cluster's endpoints changed."""
    resources = world(USUAL, services)
    snapshot = compile_snapshot(resources, None, make)
    best = 1e9
    for weight in range(2, 7):
        name = f"outbound|8080||s{services // 2}.default.svc.cluster.local"
        changed = {**resources, "endpoints": {**resources["endpoints"], name: group(name, 10, weight)}}
        start = timeit.default_timer()
        snapshot = compile_snapshot(changed, snapshot, make)
        best = min(best, timeit.default_timer() - start)
    return best * 1000


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    listener = compile_snapshot(world(USUAL), None, make).listeners["outbound"]
    request = head(b"/rate/1", *SEEN)
    normalise = normaliser("BASE")
    identity = sidecar_identity("BASE")
    exchange: Any = Exchange(listener, request, ExchangeRecord(listener, 0.0, 0.0))
    article, longer = (Judge(compile_policies(policies, Trust())).judge for policies in ((ARTICLE,), LONGER))
    flight: Any = Flight()
    rows = (
        ("run: usual outbound request, ids made here", walk(USUAL, rounds)),
        ("run: the same, ids came along", walk(USUAL, rounds, 1, *SEEN)),
        ("run: the same among 1,000 services", walk(USUAL, rounds, 1000, *SEEN)),
        ("run: tenth of ten header routes, header edits", walk(MATCHES, rounds, 1, *SEEN)),
        ("run: one regex route", walk(REGEX, rounds, 1, *SEEN)),
        ("identity", cost(lambda: identity(exchange, 0.0), rounds)),
        ("request id", cost(lambda: request_id(random), rounds)),
        ("choose", cost(lambda: listener.choose(request), rounds)),
        ("rbac: the article's policy", cost(lambda: article(flight), rounds)),
        ("rbac: a DENY, principals, methods, paths, a claim", cost(lambda: longer(flight), rounds)),
        ("normalise clean", cost(lambda: normalise(b"/rate/1?x=1"), rounds)),
        ("normalise dirty", cost(lambda: normalise(b"/app/../%61dmin"), rounds)),
    )
    for name, microseconds in rows:
        print(f"{name:<50}{microseconds:8.2f} us")
    print(f"{'snapshot: one endpoint change among 1,000 clusters':<50}{delta(1000):8.2f} ms")


if __name__ == "__main__":
    main()
