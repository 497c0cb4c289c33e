"""Explanations, where it goes: the destinations of a route, the request as it leaves, endpoints, and how they are spoken to.

In: a snapshot, a compiled route, the request. Out: plain JSON types. Whether TLS is spoken, and under which name, is asked of the
code that dials (``upstream.plan``); who is believed there, of the vault that judges certificates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from meshproxy.apply import CompiledListener, Snapshot, trust_of
from meshproxy.message.head import RequestHead
from meshproxy.message.record import ExchangeRecord
from meshproxy.message.secured import Peer
from meshproxy.model.base import Model
from meshproxy.model.cluster import Cluster, Endpoint, Endpoints, Workload
from meshproxy.model.route import Forward
from meshproxy.model.security import ClientTls, Secret, Trust
from meshproxy.policy.compiled import Choice, CompiledRoute
from meshproxy.tls.vault import Vault
from meshproxy.upstream.plan import plan_of

__all__ = ["destination", "overlay", "recorded", "text", "trusting"]

_UNTOLD = Trust()
_FOREVER = float("inf")


def trusting(snapshot: Snapshot) -> tuple[Vault, Trust]:
    """The judge of certificates, by the snapshot's trust; what its own certificate would add is not known here."""
    trust = trust_of(snapshot.resources) or _UNTOLD
    vault = Vault()
    vault.configure(trust, {})
    return vault, trust


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


def destination(
    snapshot: Snapshot,
    listener: CompiledListener,
    route: CompiledRoute,
    choice: Choice,
    head: RequestHead,
    came: RequestHead,
    now: float | None,
) -> dict[str, Any]:
    """One choice: its share, the request as it will leave, its cluster and endpoints. ``came``: the request before its tokens
    were looked at.
    """
    total = sum(one.weight for one in route.choices)
    told: dict[str, Any] = {
        "cluster": choice.name,
        "percent": 100 * choice.weight / total,
        "known": choice.cluster is not None,
        "forwarded": _forwarded(listener, route, choice, head, came),
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
    if listener.direction != "inbound":
        told["tls"] = _tls(snapshot, choice.cluster, endpoints)
        problem = _unusable(snapshot, config.tls)
        if problem:
            told["problem"] = problem
    if config.type == "PASSTHROUGH":
        told["endpoints"] = [_dialled(snapshot, told["forwarded"]["authority"], config.tls)]
    elif not endpoints:
        told["reason"] = "the cluster has no endpoints: 503, UH (do the subset's labels select any ready pod?)"
    elif not any(one["healthy"] for one in endpoints):
        told["reason"] = "every endpoint is ejected: 503, UH"
    return told


def _forwarded(
    listener: CompiledListener, route: CompiledRoute, choice: Choice, head: RequestHead, came: RequestHead
) -> dict[str, Any]:
    sent = head.copy()
    if choice.request_ops is not None:
        choice.request_ops.request(sent, recorded(listener, sent))
    if route.rewrite is not None:
        route.rewrite(sent)
    told: dict[str, Any] = {"authority": text(sent.authority), "path": text(sent.target)}
    before = set(came.headers)
    added = {text(name): text(value) for name, value in sent.headers if (name, value) not in before}
    gone = sorted({text(name) for name, _ in came.headers} - {text(name) for name, _ in sent.headers})
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


def _tls(snapshot: Snapshot, cluster: Any, endpoints: list[dict[str, Any]]) -> dict[str, Any]:
    """How the cluster's endpoints are spoken to; each endpoint gets its own word, ``tls``, where TLS is in question."""
    config: Cluster = cluster.config
    tls = config.tls
    members = [*_members(snapshot, cluster)]
    if tls is None:
        for one in endpoints:
            one["tls"] = "plaintext"
        off = any(member.mtls for member in members)
        by = config.source or "enableAutoMtls of the mesh"
        return {"mode": "plaintext", "why": f"switched off by {by}"} if off else {"mode": "plaintext"}
    told: dict[str, Any] = {"mode": tls.mode, "source": config.source if tls.mode != "AUTO" else "automatic"}
    if tls.sni:
        told["sni"] = tls.sni
    mesh = tls.mode in ("AUTO", "ISTIO_MUTUAL")
    group = cast("Endpoints | None", snapshot.resources.get("endpoints", {}).get(cluster.name))
    allowed = tls.sans or (group.identities if mesh and group is not None else ())
    vault, trust = trusting(snapshot)
    for member, one in zip(members, endpoints, strict=False):
        plan = plan_of(cluster, member, lambda wanted: None)
        one["tls"] = "plaintext" if plan is None else "mutual TLS" if plan.mesh else f"TLS ({tls.mode})"
        if plan is None:
            continue
        told["sni"] = plan.name if plan.name is not None else "the request's host"
        who = _principal(member.workload, trust.domain) if mesh else ""
        if who:
            peer = Peer(identity=f"spiffe://{who.removeprefix('spiffe://')}", expires=_FOREVER)
            fault = vault.judge(peer, 0.0, frozenset(allowed) or None)
            if fault is not None:
                one["refused"] = f"{fault.value}: {who.removeprefix('spiffe://')}"
    told["identities"] = list(allowed)
    return told


def _principal(workload: Workload | None, domain: str) -> str:
    """Whom the mesh's certificate there is made out to, as far as it is known."""
    if workload is None or workload.principal or not workload.service_account:
        return workload.principal if workload is not None else ""
    return f"{domain}/ns/{workload.namespace}/sa/{workload.service_account}"


def _unusable(snapshot: Snapshot, tls: ClientTls | None) -> str:
    """Why the credential of a TLS origination is none."""
    if tls is None or not tls.secret:
        return ""
    secret = cast("Secret | None", snapshot.resources.get("secret", {}).get(tls.secret))
    fault = "not found" if secret is None else secret.error
    return f"secret {tls.secret}: {fault}" if fault else ""


def _members(snapshot: Snapshot, cluster: Any) -> Iterable[Any]:
    live = getattr(cluster, "endpoints", None)
    return live if live is not None else snapshot.endpoints.get(cluster.name, ())


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
        told["namespace"] = workload.namespace
        told["workload"] = workload.workload
        told["version"] = workload.version
    if one.priority:
        told["priority"] = one.priority
    if one.weight != 1:
        told["weight"] = one.weight
    return told


def _dialled(snapshot: Snapshot, authority: str, tls: ClientTls | None) -> dict[str, Any]:
    """A request's own address. It may be a pod of the mesh, in plaintext even so unless a rule says otherwise."""
    told: dict[str, Any] = {"address": authority, "state": "dialled as asked"}
    for one in (one for group in snapshot.endpoints.values() for one in group):
        about = _endpoint(one, True)
        if about["address"] == authority and "pod" in about:
            del about["healthy"]
            mutual = tls is not None and (tls.mode == "ISTIO_MUTUAL" or (tls.mode == "AUTO" and one.mtls))
            return {**about, **told, "tls": "mutual TLS" if mutual else "plaintext"}
    return told


def _set(model: Model) -> dict[str, Any]:
    """The fields of a struct that differ from their defaults."""
    plain = type(model)()
    return {name: value for name, value in _all(model).items() if getattr(plain, name) != value}


def _all(model: Model) -> dict[str, Any]:
    return {name: getattr(model, name) for name in model.__struct_fields__}


def text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def recorded(listener: CompiledListener, request: RequestHead) -> ExchangeRecord:
    """A record for what reads one."""
    record = ExchangeRecord(listener, 0.0, 0.0)
    record.method = request.method
    record.path = request.target
    record.authority = request.authority
    record.request_headers = request.headers
    return record
