"""Whether what made a request fail still holds (``meshctl why``): the present state beside what happened.

In: the hop, its reason, ``explain``'s answer for the same request now, live state of the cluster, the sidecar's row of
proxy-status. Out: sentences. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from control.cli.callee import verdict
from control.cli.why_hops import Hop
from meshproxy.message.reason import Reason

__all__ = ["holds"]

_LIMITS = {
    "connections": ("max_connections", "maxConnections"),
    "pending": ("max_pending_requests", "http1MaxPendingRequests"),
    "requests": ("max_requests", "http2MaxRequests"),
    "retries": ("max_retries", "maxRetries"),
}
_TO_ENDPOINTS = (
    *(Reason.NO_HEALTHY_UPSTREAM, Reason.OVERFLOW, Reason.CONNECT_FAILURE, Reason.CONNECT_TIMEOUT, Reason.UPSTREAM_TERMINATION),
    *(Reason.UPSTREAM_REMOTE_RESET, Reason.UPSTREAM_TIMEOUT, Reason.PER_TRY_TIMEOUT, Reason.UPSTREAM_PROTOCOL_ERROR),
)
_DECIDED = {  # what ``explain`` calls it, where it decides alike
    Reason.NO_ROUTE: "no route",
    Reason.NO_CLUSTER: "no cluster",
    Reason.NO_HEALTHY_UPSTREAM: "no healthy upstream",
    Reason.RBAC_DENIED: "denied",
    Reason.EGRESS_BLOCKED: "direct response",
}
_LOOK_AT_HEADERS = (Reason.NO_ROUTE, Reason.RBAC_DENIED)
_NEEDS_HEADERS = (Reason.TOKEN_REFUSED, Reason.TOKEN_AUDIENCE, Reason.EXT_AUTHZ_DENIED, Reason.EXT_AUTHZ_ERROR)


def holds(
    at: Hop,
    reason: Reason | None,
    told: dict[str, Any] | None,
    caller: dict[str, Any] | None,
    cluster: dict[str, Any] | None,
    proxy: dict[str, Any] | None,
    problem: str,
) -> Iterator[str]:
    if problem:
        yield f"What holds now is not known: {problem}."
    if told is not None:
        yield from _decision(reason, told)
        yield from _policy(at, reason, told)
    if cluster is not None and (reason is None or reason in _TO_ENDPOINTS) and not at.inbound:
        yield from _endpoints(reason, cluster, (at.about["cluster"], told))
    if reason is None and at.inbound and at.about["status"] >= 500 and caller is not None:
        yield from _seen_by_caller(at, caller)
    if proxy is not None and proxy.get("status") not in ("SYNCED", None):
        yield f"The sidecar {'/'.join(at.pod)} is {proxy['status']}: it does not run the newest configuration."


def _decision(reason: Reason | None, told: dict[str, Any]) -> Iterator[str]:
    decision = told["decision"]
    wanted = _DECIDED.get(reason) if reason is not None else None
    if reason in _NEEDS_HEADERS:
        yield "Whether it would fail again depends on headers that nobody keeps; send them with `meshctl explain -H`."
        return
    if wanted is None:
        return
    blind = ", asked without its headers and token, which nobody keeps," if reason in _LOOK_AT_HEADERS else ""
    if decision == wanted:
        because = f"{decision}: {told['because']}" if told.get("because") else decision
        status = told.get("status")
        yield f"It still holds: the same request{blind} is answered {status} ({because})."
    elif decision in ("forward", "denied"):
        now = "would be forwarded" if decision == "forward" else verdict(told)
        yield f"It holds no longer: the same request{blind} {now} now."
    else:
        yield f"Now the decision would be: {decision}."
    if reason is Reason.NO_ROUTE:
        lost = [step for step in told.get("steps", ()) if not step["taken"] and step["what"] == "route"]
        for step in lost[:3]:
            yield f"nearest rule {step['source'] or step['name']}: {step['reason']}"
    if reason is Reason.RBAC_DENIED and decision == "denied":
        for row in told.get("authorization", ())[:4]:
            if row["action"] == "ALLOW" and not row["matched"]:
                which = f" rule {row['rule']}" if row["rule"] >= 0 else ""
                yield f"ALLOW {row['policy']}{which} does not match: {row['reason']}"
    if reason is Reason.NO_CLUSTER:
        for one in told.get("destinations", ()):
            if not one["known"]:
                yield f"{one['cluster']}: {one.get('reason', 'not known')}"


def _policy(at: Hop, reason: Reason | None, told: dict[str, Any]) -> Iterator[str]:
    policy, source = told.get("policy", {}), (told.get("route") or {}).get("source") or "the route"
    if reason is Reason.UPSTREAM_TIMEOUT:
        seconds = policy.get("timeoutSeconds")
        yield f"{source} allows {seconds:g} s for all tries together." if seconds else f"{source} has no timeout any more."
    if reason is Reason.PER_TRY_TIMEOUT:
        seconds = (policy.get("retries") or {}).get("perTryTimeoutSeconds")
        yield f"{source} allows {seconds:g} s for each try." if seconds else f"{source} has no perTryTimeout any more."
    if reason is Reason.FAULT_ABORT:
        abort = policy.get("abort")
        yield (
            f"{source} aborts {abort['percent']:g} % with {abort['status']}." if abort else f"{source} injects no abort any more."
        )
    if "FAULT_DELAY" in at.about["reasons"]:
        delay = policy.get("delay")
        yield (
            f"{source} delays {delay['percent']:g} % by {delay['seconds']:g} s."
            if delay
            else f"{source} injects no delay any more."
        )
    if at.about["attempts"] and "RETRY_EXHAUSTED" in at.about["reasons"] and (retries := policy.get("retries")):
        yield f"{source} allows {retries['attempts']} retries, on {', '.join(retries['on'])}."


def _endpoints(reason: Reason | None, cluster: dict[str, Any], asked: tuple[str, dict[str, Any] | None]) -> Iterator[str]:
    name, told = asked
    endpoints = cluster["endpoints"]
    out = [one for one in endpoints if one["health"] != "healthy"]
    if not endpoints:
        yield f"{name} has no endpoint at all now: no ready pod is selected."
    elif out:
        yield f"{len(endpoints) - len(out)} of {len(endpoints)} endpoints take requests."
        for one in out:
            who = one["pod"] or one["workload"] or one["address"]
            yield f"{who} ({one['address']}) is ejected by outlier detection for {one['ejected_for']:.0f} s more."
        if (outlier := cluster.get("outlier")) is not None and outlier.get("panic"):
            yield "So few are healthy that ejections are ignored (panic)."
    else:
        yield f"All {len(endpoints)} endpoints take requests now."
    if reason is Reason.OVERFLOW:
        yield from _limits(cluster)
    if reason in (Reason.CONNECT_FAILURE, Reason.CONNECT_TIMEOUT):
        for one in endpoints:
            if one["cx_connect_fail"]:
                who, failed, made = one["pod"] or one["address"], one["cx_connect_fail"], one["cx_total"]
                yield f"{who}: {failed} connects failed so far, {made} did not."
        yield from _refused(name, told)


def _refused(name: str, told: dict[str, Any] | None) -> Iterator[str]:
    """What ``explain`` knows of TLS with these endpoints."""
    for one in (told or {}).get("destinations", ()):
        if one["cluster"] != name:
            continue
        if one.get("problem"):
            yield f"{one['problem']}."
        tls = one.get("tls", {})
        if tls.get("mode", "plaintext") != "plaintext":
            by = "automatic" if tls.get("source") == "automatic" else f"by {tls.get('source')}"
            yield f"TLS mode {tls['mode']} ({by})."
        for endpoint in one.get("endpoints", ()):
            if endpoint.get("refused"):
                yield f"{endpoint.get('pod') or endpoint['address']}: its certificate would be refused: {endpoint['refused']}"


def _limits(cluster: dict[str, Any]) -> Iterator[str]:
    """Which limits refused; where none says so (the sidecar was started anew), which there are."""
    some = any(cluster["overflow"].get(what) for what in _LIMITS)
    for what, (threshold, name) in _LIMITS.items():
        most, refused = cluster["thresholds"].get(threshold), cluster["overflow"].get(what, 0)
        if refused or (most is not None and not some):
            most_of = "unlimited" if most is None else str(most)
            used = cluster["active"].get(what, 0)
            yield f"{name} is {most_of}: {used} in use now, {refused} refused since the sidecar started."


def _seen_by_caller(at: Hop, caller: dict[str, Any]) -> Iterator[str]:
    """Whether the caller's sidecar still sends requests there."""
    for one in caller.get("destinations", ()):
        for endpoint in one.get("endpoints", ()):
            if (endpoint.get("namespace"), endpoint.get("pod")) != at.pod:
                continue
            if "backInSeconds" in endpoint:
                yield f"The caller's sidecar has ejected this endpoint for {endpoint['backInSeconds']:.0f} s more."
            elif endpoint.get("healthy", True):
                yield "The caller's sidecar still sends requests there" + (
                    "." if one.get("outlierDetection") else ": no outlier detection ejects it."
                )
            return
