"""Room: policy. One route, ready to run: where it forwards to, or what it answers.

In: ``model.route.Route`` and a resolver from cluster names to live clusters. Out: ``CompiledRoute`` with everything judged at
config time: choices with their header edits, rewrite, retry policy, fault, CORS, prepared replies. Read-only after
construction.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final

from msgspec.structs import replace

from meshproxy.message.head import RequestHead
from meshproxy.message.ports import ClusterPort
from meshproxy.message.reason import Reason
from meshproxy.message.verdict import Reply
from meshproxy.model.route import DirectResponse, Forward, Redirect, Route, WeightedCluster
from meshproxy.policy.cors import CompiledCors
from meshproxy.policy.fault import CompiledFault
from meshproxy.policy.headers import HOST, HeaderEdits, compile_ops
from meshproxy.policy.invalid import Invalid
from meshproxy.policy.matchers import Condition, Predicate, compile_route_match
from meshproxy.policy.redirect import compile_redirect
from meshproxy.policy.replies import local_reply, plain_reply
from meshproxy.policy.retry import RetryPolicy
from meshproxy.policy.rewrite import compile_rewrite

__all__ = [
    "ALLOW_ANY",
    "BLACK_HOLE",
    "DIRECT",
    "FORWARD",
    "PASSTHROUGH",
    "REDIRECT",
    "Choice",
    "CompiledRoute",
    "MakeReply",
    "Resolve",
    "allow_any",
    "block_all",
    "compile_route",
]

FORWARD: Final = 0
REDIRECT: Final = 1
DIRECT: Final = 2

ALLOW_ANY: Final = "allow_any"
BLOCK_ALL: Final = "block_all"
PASSTHROUGH: Final = "PassthroughCluster"
BLACK_HOLE: Final = "BlackHoleCluster"

Resolve = Callable[[str], ClusterPort | None]
MakeReply = Callable[[RequestHead, bytes, int], Reply]  # request, the wire's scheme, the port the client asked for


class Choice:
    """A destination of a route. ``cluster`` None: no such cluster (503, NC). Edits of destination and route are joined here."""

    __slots__ = ("cluster", "name", "request_ops", "response_ops", "weight")

    def __init__(
        self,
        name: str,
        cluster: ClusterPort | None,
        weight: int = 1,
        request_ops: HeaderEdits | None = None,
        response_ops: HeaderEdits | None = None,
    ) -> None:
        self.name = name
        self.cluster = cluster
        self.weight = weight
        self.request_ops = request_ops
        self.response_ops = response_ops


class CompiledRoute:
    """A route and all that it says.

    ``kind`` FORWARD uses ``pick``, ``timeout`` (seconds, 0: none), ``retry``, ``mirrors`` ((cluster, percent)...) and
    ``rewrite``; REDIRECT and DIRECT use ``reply``. ``raw``: what follows a CONNECT is a connection of the service's own protocol.
    ``single`` is the choice when there is only one, so that no draw is needed.
    """

    __slots__ = (
        "_edges",
        "_total",
        "choices",
        "cors",
        "fault",
        "kind",
        "mirrors",
        "model",
        "name",
        "raw",
        "reply",
        "retry",
        "rewrite",
        "single",
        "target",
        "timeout",
    )

    def __init__(self, model: Route, kind: int, choices: tuple[Choice, ...], raw: bool = False) -> None:
        self.model = model
        self.raw = raw
        self.name = model.name
        self.kind = kind
        self.choices = choices
        self.single = choices[0] if len(choices) == 1 else None
        self._total = sum(choice.weight for choice in choices)
        self._edges = tuple(accumulate(choice.weight for choice in choices))[:-1]
        self.timeout = 0.0
        self.retry: RetryPolicy | None = None
        self.mirrors: tuple[tuple[ClusterPort | None, float], ...] = ()
        self.rewrite: Callable[[RequestHead], None] | None = None
        self.cors: CompiledCors | None = None
        self.fault: CompiledFault | None = None
        self.reply: MakeReply | None = None
        self.target = ""  # cluster name on the record of a reply ("BlackHoleCluster")

    def pick(self, draw: float) -> Choice:
        """The choice for a draw from [0, 1): by weight."""
        return self.choices[bisect_right(self._edges, draw * self._total)]

    def cluster_names(self) -> Iterator[str]:
        """Every cluster that the route names, mirrors included."""
        action = self.model.action
        if isinstance(action, Forward):
            yield from (weighted.cluster for weighted in action.clusters)
            yield from (mirror.cluster for mirror in action.mirrors)


def compile_route(model: Route, resolve: Resolve, path: str) -> tuple[Predicate | None, tuple[Condition, ...], CompiledRoute]:
    """The predicate (None: always), its conditions in words, and the route. Raises ``Invalid`` under ``path``."""
    holds, conditions = compile_route_match(model.match, path + ".match")
    action = model.action
    if isinstance(action, Forward):
        route = _forward(model, action, resolve, path)
    else:
        route = _answer(model, action, path)
    if model.cors is not None and route.kind == FORWARD:  # Envoy: bypassed for redirects and direct responses
        route.cors = CompiledCors(model.cors, path + ".cors")
    if model.fault is not None:
        route.fault = CompiledFault(model.fault, path + ".fault")
    return holds, conditions, route


def _forward(model: Route, action: Forward, resolve: Resolve, path: str) -> CompiledRoute:
    at = path + ".action"
    weighted = action.clusters
    if not weighted:
        raise Invalid(at + ".clusters", "a route must forward to at least one cluster")
    if any(cluster.weight < 0 for cluster in weighted):
        raise Invalid(at + ".clusters", "a weight must not be negative")
    used = [(index, cluster) for index, cluster in enumerate(weighted) if len(weighted) == 1 or cluster.weight > 0]
    if not used:
        raise Invalid(at + ".clusters", "total destination weight = 0: give at least one cluster a weight")
    alone = len(weighted) == 1
    choices = tuple(_choice(model, cluster, resolve, path, f"{at}.clusters[{index}]", alone) for index, cluster in used)
    route = CompiledRoute(model, FORWARD, choices)
    if action.timeout < 0:
        raise Invalid(at + ".timeout", f"must not be negative, not {action.timeout}")
    route.timeout = action.timeout
    if action.retry is not None and action.retry.attempts > 0:
        try:
            route.retry = RetryPolicy(action.retry)
        except ValueError as error:
            raise Invalid(at + ".retry", str(error)) from None
    for index, mirror in enumerate(action.mirrors):
        if not 0 <= mirror.percent <= 100:
            raise Invalid(f"{at}.mirrors[{index}].percent", f"must be between 0 and 100, not {mirror.percent}")
    route.mirrors = tuple((resolve(mirror.cluster), mirror.percent) for mirror in action.mirrors if mirror.percent > 0)
    if action.rewrite is not None:
        route.rewrite = compile_rewrite(action.rewrite, at + ".rewrite")
    return route


def _choice(model: Route, weighted: WeightedCluster, resolve: Resolve, path: str, at: str, alone: bool) -> Choice:
    """``alone``: the route's only destination. Its operations then run after the route's, as Istio writes them into one list;
    one of several has its operations run first (Envoy). Either way the route has the last word on the host.
    """
    ours, theirs = weighted.request_headers, model.request_headers
    if alone and ours is not None and theirs is not None and any(name in HOST for name, _ in theirs.set):
        ours = replace(ours, set=tuple(pair for pair in ours.set if pair[0] not in HOST))
    levels = ((ours, at + ".request_headers"), (theirs, path + ".request_headers"))
    back = ((weighted.response_headers, at + ".response_headers"), (model.response_headers, path + ".response_headers"))
    return Choice(
        weighted.cluster,
        resolve(weighted.cluster),
        max(weighted.weight, 1),
        compile_ops(levels[::-1] if alone else levels),
        compile_ops(back[::-1] if alone else back, response=True),
    )


def _answer(model: Route, action: Redirect | DirectResponse, path: str) -> CompiledRoute:
    response_ops = compile_ops(((model.response_headers, path + ".response_headers"),), response=True)
    choice = Choice("", None, 1, None, response_ops)
    if isinstance(action, Redirect):
        route = CompiledRoute(model, REDIRECT, (choice,))
        route.reply = compile_redirect(action, path + ".action")
        return route
    if not 200 <= action.status <= 599:
        raise Invalid(path + ".action.status", f"must be between 200 and 599, not {action.status}")
    status, body = action.status, action.body
    route = CompiledRoute(model, DIRECT, (choice,))
    route.reply = lambda request, scheme, port: plain_reply(status, body, None, "direct_response")
    return route


def allow_any(cluster: ClusterPort | None) -> CompiledRoute:
    """ALLOW_ANY for a host that no table knows: on to wherever the authority points."""
    action = Forward(clusters=(WeightedCluster(cluster=PASSTHROUGH),))
    model = Route(name=ALLOW_ANY, action=action, source="outboundTrafficPolicy ALLOW_ANY")
    return CompiledRoute(model, FORWARD, (Choice(PASSTHROUGH, cluster),))


def block_all() -> CompiledRoute:
    """REGISTRY_ONLY for a host that no table knows: 502."""
    action = DirectResponse(status=Reason.EGRESS_BLOCKED.status)
    model = Route(name=BLOCK_ALL, action=action, source="outboundTrafficPolicy REGISTRY_ONLY")
    route = CompiledRoute(model, DIRECT, (Choice("", None),))
    route.reply = lambda request, scheme, port: local_reply(Reason.EGRESS_BLOCKED)
    route.target = BLACK_HOLE
    return route
