"""The decision that the sidecar would take for a request, by the very code that takes it, with every reason in words.

In: a snapshot, a listener's name and a request (a ``RequestHead`` or a small mapping). Out: ``Explanation`` (``as_dict`` is
JSON-able; attributes for programs). Nothing is sent and nothing counted: the filters that run are the ones that only look.
Used by ``meshctl explain`` and ``meshctl test``, live and from files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from meshproxy.apply import CompiledListener, Snapshot
from meshproxy.filters.cors import cors
from meshproxy.message.head import Headers, RequestHead, first
from meshproxy.message.reason import Reason
from meshproxy.message.record import ExchangeRecord
from meshproxy.message.secured import Peer, Secured
from meshproxy.message.verdict import Ask, Reply
from meshproxy.model.base import Model
from meshproxy.model.cluster import Cluster, Endpoint
from meshproxy.model.route import Forward
from meshproxy.policy.compiled import DIRECT, FORWARD, REDIRECT, Choice, CompiledRoute
from meshproxy.policy.fault import MILLION
from meshproxy.policy.rbac_explain import explain_policies
from meshproxy.policy.routes import Step, port_of

__all__ = ["Explanation", "explain", "listener_for", "overlay", "request_from"]

_KINDS = {FORWARD: "forward", REDIRECT: "redirect", DIRECT: "direct response"}
_MAX_LOSERS = 20  # virtual hosts that lost, listed one by one; the rest are counted


class Explanation(NamedTuple):
    """``decision``: forward, redirect, direct response, preflight, fault, denied, no route, no cluster, no healthy upstream, or
    refused.

    ``status``: the local answer's, or None where upstream answers (a fault or an empty destination that only some requests meet
    leaves it None). ``destinations``: what may be drawn, each with percent and endpoints. ``authorization``: every rule of the
    workload's AuthorizationPolicies, with what matched or did not; an external authoriser is not asked.
    """

    listener: str
    version: str
    request: dict[str, Any]
    decision: str
    status: int | None
    route: dict[str, Any] | None
    destinations: list[dict[str, Any]]
    policy: dict[str, Any]
    answer: dict[str, Any] | None
    steps: list[Step]
    authorization: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types; empty parts are left out."""
        found = {
            "listener": self.listener,
            "snapshot": self.version,
            "request": self.request,
            "decision": self.decision,
            "status": self.status,
            "route": self.route,
            "destinations": self.destinations,
            "policy": self.policy,
            "answer": self.answer,
            "steps": [step._asdict() for step in self.steps],
            "authorization": self.authorization,
        }
        return {key: value for key, value in found.items() if value not in (None, [], {}, "")}


def overlay(told: dict[str, Any], statuses: Iterable[Mapping[str, Any]]) -> None:
    """Put the endpoints' states as several workers tell them (``cluster.status.merged``) into ``as_dict``'s answer, in place.

    Each worker ejects for itself, so the decision stays: another worker may still use the endpoint.
    """
    known = {status["name"]: {one["address"]: one for one in status["endpoints"]} for status in statuses}
    for destination in told.get("destinations", ()):
        for endpoint in destination.get("endpoints", ()):
            state = known.get(destination["cluster"], {}).get(endpoint["address"])
            if state is None:
                continue
            endpoint["activeRequests"] = state["rq_active"]
            endpoint["healthy"] = state["health"] == "healthy"
            if not endpoint["healthy"]:
                endpoint["state"] = "ejected by outlier detection in one worker at least"
                endpoint["backInSeconds"] = round(state["ejected_for"], 1)


class _Probe:
    """An exchange that only looks: what filters ask of ``InFlight``, and nothing behind it."""

    def __init__(self, listener: CompiledListener, request: RequestHead, source: str) -> None:
        self.request = request
        self.listener = listener
        self.source = source
        self.remote: tuple[str, int] | None = None
        self.local: tuple[str, int] | None = None
        self.secured: Any = None
        self.own: Any = None
        self.dice = lambda: 0.5
        self.compiled: Any = None  # what identity made of the route, where the request's headers ask for it
        self.choice: Any = None
        self.cors_origin = b""
        self.vouched: Headers = []
        self.record = _record(listener, request)

    def route(self) -> CompiledRoute | None:
        return self.listener.choose(self.request)

    def clear_route(self) -> None:
        return None


def _record(listener: CompiledListener, request: RequestHead) -> ExchangeRecord:
    record = ExchangeRecord(listener, 0.0, 0.0)
    record.method = request.method
    record.path = request.target
    record.authority = request.authority
    record.request_headers = request.headers
    return record


def request_from(given: Mapping[str, Any]) -> RequestHead:
    """``{"method", "url" or "path" and "authority", "headers": {name: value or [values]}}`` as the codec would hand it on; beside
    it who asks: "source" (an address) and "principal" (the peer's over mutual TLS, without ``spiffe://``).

    Raises ValueError, one line, for a URL that is none or a name that is unknown.
    """
    unknown = set(given) - {"method", "url", "path", "authority", "headers", "source", "principal"}
    if unknown:
        raise ValueError(
            f"{min(unknown)}: unknown; a request has method, url (or path and authority), headers, source, principal"
        )
    target, authority, scheme = str(given.get("path", "/")), str(given.get("authority", "")), ""
    if given.get("url"):
        url = str(given["url"])
        parts = urlsplit(url if "://" in url else f"//{url}" if not url.startswith("/") else url)
        if parts.scheme not in ("", "http", "https"):
            raise ValueError(f"url: must be http or https, not {parts.scheme}")
        authority = parts.netloc.rpartition("@")[2] or authority
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        scheme = parts.scheme
    headers: Headers = []
    for name, value in dict(given.get("headers") or {}).items():
        for one in value if isinstance(value, (list, tuple)) else (value,):
            if name.lower() == "host":
                authority = str(one)
            else:
                headers.append((name.lower().encode(), str(one).encode()))
    if not authority:
        raise ValueError('authority: the request names no host; give a url such as "http://host:port/path"')
    if not target.startswith("/"):
        target = "/" + target
    method = str(given.get("method", "GET")).upper()
    return RequestHead(method.encode(), target.encode(), authority.encode(), headers, scheme=scheme.encode())


def listener_for(snapshot: Snapshot, request: Mapping[str, Any]) -> str:
    """Where a request is meant to come in when nobody says: at a gateway the listener of the URL's port, else its only one; a
    sidecar's outbound listener. Raises ValueError, one line, when that leaves a choice.
    """
    gateways = sorted(name for name, one in snapshot.listeners.items() if one.direction == "gateway")
    if gateways:
        head = request_from(request)
        port = port_of(head.authority, 443 if head.scheme == b"https" else 80)
        same = [name for name in gateways if snapshot.listeners[name].port == port]
        if len(same) == 1:
            return same[0]
    if "outbound" in snapshot.listeners:
        return "outbound"
    if len(gateways) == 1:
        return gateways[0]
    known = ", ".join(gateways or sorted(snapshot.listeners)) or "none"
    raise ValueError(f"listener: say which one is meant; there are {known}")


def explain(
    snapshot: Snapshot,
    listener: str,
    request: RequestHead | Mapping[str, Any],
    source: str = "127.0.0.1",
    now: float | None = None,
) -> Explanation:
    """The decision for one request.

    ``source``: the peer's address (a mapping may name it itself); ``now``: the loop's clock, for what is left of ejections.
    Raises KeyError when there is no such listener, ValueError when the request is none.
    """
    compiled = snapshot.listeners.get(listener)
    if compiled is None:
        raise KeyError(f"no listener {listener!r}; there are {', '.join(sorted(snapshot.listeners)) or 'none'}")
    if isinstance(request, RequestHead):
        head = request.copy()
    else:
        head, source = request_from(request), str(request.get("source") or source)
    asked = head.target
    probe = _Probe(compiled, head, source)
    if isinstance(request, Mapping) and request.get("principal"):
        probe.secured = Secured(Peer(identity=f"spiffe://{request['principal']}"), mesh=True)
    verdict = compiled.chain[0](probe, 0.0)  # identity: what matching looks at
    told = _request(head, asked)
    if isinstance(verdict, Reply):
        return Explanation(
            compiled.name, snapshot.version, told, "refused", verdict.head.status, None, [], {}, _reply(verdict), [], []
        )
    denial, rules = _authorized(compiled, snapshot, probe)
    if denial is not None:
        no = _reply(denial)
        return Explanation(compiled.name, snapshot.version, told, "denied", no["status"], None, [], {}, no, [], rules)
    steps = _trim(compiled.explain(head))
    route = compiled.choose(head)
    if route is None:
        lost = _early(Reason.NO_ROUTE)
        return Explanation(compiled.name, snapshot.version, told, "no route", 404, None, [], {}, lost, steps, rules)
    about = {"name": route.name, "source": route.model.source, "kind": _KINDS[route.kind]}
    policy = _policy(probe.compiled or route, head)
    decision, status, answer = _outcome(route, probe, compiled)
    destinations = [_destination(snapshot, compiled, route, choice, head, now) for choice in route.choices if choice.name]
    if decision == "forward":
        decision, status, answer = _upstream(destinations)
    return Explanation(compiled.name, snapshot.version, told, decision, status, about, destinations, policy, answer, steps, rules)


def _authorized(listener: CompiledListener, snapshot: Snapshot, probe: _Probe) -> tuple[Reply | None, list[dict[str, Any]]]:
    """What policies say of the request, and the denial if there is one. An authoriser is taken to allow: it is not asked."""
    guard = snapshot.guard
    if listener.direction == "outbound" or not guard.policies:
        return None, []
    # CUSTOM is judged before tokens are known, as on the way of a request.
    rules = [rule._asdict() for rule in explain_policies(guard.policies, probe)]
    for stage in (*guard.ext_authz, *([guard.authz] if guard.authz is not None else [])):
        verdict = stage.filter(probe, 0.0)
        if isinstance(verdict, Reply):
            return verdict, rules
        assert verdict is None or isinstance(verdict, Ask)
    return None, rules


def _upstream(destinations: list[dict[str, Any]]) -> tuple[str, int | None, dict[str, Any] | None]:
    """Forwarding, unless no destination can take a request at all."""
    if not any(one["known"] for one in destinations):
        return "no cluster", 503, _early(Reason.NO_CLUSTER)
    if all("reason" in one for one in destinations):
        return "no healthy upstream", 503, _early(Reason.NO_HEALTHY_UPSTREAM)
    return "forward", None, None


def _early(reason: Reason) -> dict[str, Any]:
    told: dict[str, Any] = {"status": reason.status, "flag": reason.flag, "detail": reason.detail}
    if reason.body:
        told["body"] = _text(reason.body)
    return told


def _outcome(route: CompiledRoute, probe: _Probe, listener: CompiledListener) -> tuple[str, int | None, dict[str, Any] | None]:
    if route.kind != FORWARD:
        reply = listener.chain[-1](probe, 0.0)  # the route filter, which answers
        assert isinstance(reply, Reply)
        return _KINDS[route.kind], reply.head.status, _reply(reply)
    if route.cors is not None:
        reply = cors(probe, 0.0)
        if isinstance(reply, Reply):
            return "preflight", reply.head.status, _reply(reply)
    if route.fault is not None and route.fault.abort_share == MILLION:
        reply = route.fault.reply()
        return "fault", reply.head.status, _reply(reply)
    return "forward", None, None


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _request(head: RequestHead, asked: bytes) -> dict[str, Any]:
    told = {"method": _text(head.method), "authority": _text(head.authority), "path": _text(head.target)}
    if head.target != asked:
        told["pathAsGiven"] = _text(asked)
    return told


def _reply(reply: Reply) -> dict[str, Any]:
    headers = {_text(name): _text(value) for name, value in reply.head.headers}
    told: dict[str, Any] = {"status": reply.head.status, "headers": headers, "detail": reply.detail}
    if reply.body:
        told["body"] = _text(reply.body)
    return told


def _trim(steps: list[Step]) -> list[Step]:
    losers = [step for step in steps if step.what == "virtual host" and not step.taken]
    if len(losers) <= _MAX_LOSERS:
        return steps
    # The nearest misses are worth reading: hosts that do match, but less closely.
    near = [step for step in losers if "more closely" in step.reason]
    kept = (near + [step for step in losers if step not in near])[:_MAX_LOSERS]
    more = Step("virtual host", "", "", False, f"{len(losers) - len(kept)} other virtual hosts do not have this host either")
    return [*kept, more, *(step for step in steps if step.what != "virtual host" or step.taken)]


def _policy(route: CompiledRoute, head: RequestHead) -> dict[str, Any]:
    """Timeout, retries, faults, mirrors, CORS: what a request on this route is subject to."""
    told: dict[str, Any] = {}
    action = route.model.action
    if isinstance(action, Forward):
        if route.timeout:
            told["timeoutSeconds"] = route.timeout
        if action.retry is not None and route.retry is not None:
            retry = action.retry
            told["retries"] = {
                "attempts": retry.attempts,
                "on": [*retry.on, *(str(code) for code in retry.status_codes)],
                "perTryTimeoutSeconds": retry.per_try_timeout or None,
                "avoidsPreviousHosts": retry.avoid_previous_hosts,
            }
        if action.mirrors:
            told["mirrors"] = [{"cluster": mirror.cluster, "percent": mirror.percent} for mirror in action.mirrors]
    fault = route.fault
    if fault is not None and fault.delay_share:
        told["delay"] = {"seconds": fault.delay, "percent": fault.delay_share / MILLION * 100}
    if fault is not None and fault.abort_share:
        told["abort"] = {"status": fault.reply().head.status, "percent": fault.abort_share / MILLION * 100}
    if route.cors is not None:
        origin = first(head.headers, b"origin")
        told["cors"] = "no Origin header" if not origin else "allowed" if route.cors.allows(origin) else "origin not allowed"
    return told


def _destination(
    snapshot: Snapshot,
    listener: CompiledListener,
    route: CompiledRoute,
    choice: Choice,
    head: RequestHead,
    now: float | None,
) -> dict[str, Any]:
    """One choice: its share, the request as it will leave, its cluster and endpoints."""
    total = sum(one.weight for one in route.choices)
    told: dict[str, Any] = {
        "cluster": choice.name,
        "percent": 100 * choice.weight / total,
        "known": choice.cluster is not None,
        "forwarded": _forwarded(listener, route, choice, head),
    }
    if choice.cluster is None:
        told["reason"] = "no such cluster: 503, NC (is the subset in a DestinationRule, the host a known service?)"
        return told
    config: Cluster = choice.cluster.config
    told["source"] = config.source
    edits = _response_edits(route, choice)
    if edits:
        told["responseHeaders"] = edits
    told["loadBalancer"] = config.lb.policy
    if config.service is not None:
        told["service"] = config.service.host
    limits = _set(config.pool)
    if limits:
        told["limits"] = limits
    if config.outlier is not None:
        told["outlierDetection"] = _all(config.outlier)
    endpoints = _endpoints(snapshot, choice.cluster, now)
    told["endpoints"] = endpoints
    if config.type == "PASSTHROUGH":
        told["endpoints"] = [{"address": told["forwarded"]["authority"], "state": "dialled as asked"}]
    elif not endpoints:
        told["reason"] = "the cluster has no endpoints: 503, UH (do the subset's labels select any ready pod?)"
    elif not any(one["healthy"] for one in endpoints):
        told["reason"] = "every endpoint is ejected: 503, UH"
    return told


def _forwarded(listener: CompiledListener, route: CompiledRoute, choice: Choice, head: RequestHead) -> dict[str, Any]:
    sent = head.copy()
    if choice.request_ops is not None:
        choice.request_ops.request(sent, _record(listener, sent))
    if route.rewrite is not None:
        route.rewrite(sent)
    told: dict[str, Any] = {"authority": _text(sent.authority), "path": _text(sent.target)}
    before = set(head.headers)
    added = {_text(name): _text(value) for name, value in sent.headers if (name, value) not in before}
    gone = sorted({_text(name) for name, _ in head.headers} - {_text(name) for name, _ in sent.headers})
    if added:
        told["headersSet"] = added
    if gone:
        told["headersRemoved"] = gone
    return told


def _response_edits(route: CompiledRoute, choice: Choice) -> dict[str, Any]:
    """The response's header operations as configured, the destination's and then the route's."""
    action = route.model.action
    own = None
    if isinstance(action, Forward):
        own = next((one.response_headers for one in action.clusters if one.cluster == choice.name), None)
    told: dict[str, Any] = {}
    for ops in (own, route.model.response_headers):
        if ops is not None:
            told.setdefault("set", {}).update(ops.set)
            told.setdefault("add", {}).update(ops.add)
            told.setdefault("remove", []).extend(ops.remove)
    return {name: value for name, value in told.items() if value}


def _endpoints(snapshot: Snapshot, cluster: Any, now: float | None) -> list[dict[str, Any]]:
    live = getattr(cluster, "endpoints", None)
    if live is None:  # judged from files: there is nothing live to ask
        return [_endpoint(one, True) for one in snapshot.endpoints.get(cluster.name, ())]
    told = []
    for one in live:
        health = one.health
        about = _endpoint(one, not health.ejected)
        about["activeRequests"] = one.active
        if health.ejected and cluster.detector is not None:
            length = cluster.detector.ejection_time(health)
            about["state"] = "ejected by outlier detection"
            if now is not None:
                about["backInSeconds"] = max(0.0, round(health.since + length - now, 1))
        told.append(about)
    return told


def _endpoint(one: Endpoint | Any, healthy: bool) -> dict[str, Any]:
    workload = one.workload
    told: dict[str, Any] = {
        "address": f"[{one.address}]:{one.port}" if ":" in one.address else f"{one.address}:{one.port}",
        "healthy": healthy,
    }
    if workload is not None:
        told["pod"] = workload.pod
        told["version"] = workload.version
    if one.priority:
        told["priority"] = one.priority
    if one.weight != 1:
        told["weight"] = one.weight
    return told


def _set(model: Model) -> dict[str, Any]:
    """The fields of a struct that differ from their defaults."""
    plain = type(model)()
    return {name: value for name, value in _all(model).items() if getattr(plain, name) != value}


def _all(model: Model) -> dict[str, Any]:
    return {name: getattr(model, name) for name in model.__struct_fields__}
