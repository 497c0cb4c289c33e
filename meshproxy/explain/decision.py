"""Explanations, the decision itself: what becomes of a request, by the code that decides it, with every reason in words.

In: a snapshot, a listener's name and a request (a ``RequestHead`` or a small mapping). Out: ``Explanation`` (``as_dict`` is
JSON-able; attributes for programs). Nothing is sent and nothing counted: the filters that run are the ones that only look.
Used by ``meshctl explain`` and ``meshctl test``, live and from files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshproxy.apply import CompiledListener, Snapshot
from meshproxy.explain.destination import destination, recorded, text, trusting
from meshproxy.explain.guard import authorize, enter
from meshproxy.explain.model import Explanation
from meshproxy.explain.request import Caller, caller_from, chain_at, chain_named, request_from, secrets_of, without
from meshproxy.explain.stream import explain_stream, is_stream
from meshproxy.filters.cors import cors
from meshproxy.message.head import Headers, RequestHead, first
from meshproxy.message.reason import Reason
from meshproxy.message.verdict import Reply
from meshproxy.model.route import Forward
from meshproxy.policy.compiled import DIRECT, FORWARD, REDIRECT, CompiledRoute
from meshproxy.policy.fault import MILLION
from meshproxy.policy.routes import Step

__all__ = ["Explanation", "explain"]

_KINDS = {FORWARD: "forward", REDIRECT: "redirect", DIRECT: "direct response"}
_MAX_LOSERS = 20  # virtual hosts that lost, listed one by one; the rest are counted


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
        self.precise = lambda: 0
        self.compiled: Any = None  # what identity made of the route, where the request's headers ask for it
        self.choice: Any = None
        self.cors_origin = b""
        self.vouched: Headers = []
        self.record = recorded(listener, request)

    def route(self) -> CompiledRoute | None:
        return self.listener.choose(self.request)

    def clear_route(self) -> None:
        return None


def explain(
    snapshot: Snapshot,
    listener: str,
    request: RequestHead | Mapping[str, Any],
    source: str = "127.0.0.1",
    now: float | None = None,
    wall: float = 0.0,
) -> Explanation:
    """The decision for one request.

    ``source``: the peer's address (a mapping may name it itself); ``now``: the loop's clock, for what is left of ejections;
    ``wall``: Unix seconds, for tokens. Raises KeyError when there is no such listener, ValueError when the request is none.
    """
    compiled = snapshot.listeners.get(listener) or chain_named(snapshot, listener)
    if compiled is None:
        raise KeyError(f"no listener {listener!r}; there are {', '.join(sorted(snapshot.listeners)) or 'none'}")
    if not isinstance(request, RequestHead) and is_stream(request):
        return explain_stream(snapshot, compiled, request, source, now, wall)
    if isinstance(request, RequestHead):
        head, caller = request.copy(), Caller(source)
    else:
        head, caller = request_from(request), caller_from(request, source, trusting(snapshot)[1])
    compiled = chain_at(compiled, head)
    secrets = secrets_of(snapshot, head)
    found = _explained(snapshot, compiled, head, caller, now, wall)
    return Explanation(*(without(part, secrets) for part in found)) if secrets else found


def _explained(
    snapshot: Snapshot, compiled: CompiledListener, head: RequestHead, caller: Caller, now: float | None, wall: float
) -> Explanation:
    asked = head.target
    host = text(head.authority).rpartition("@")[2].partition(":")[0].lower()
    entry = enter(snapshot, compiled, caller, host, head.scheme, wall)
    compiled = entry.listener
    probe = _Probe(compiled, head, caller.source)
    probe.secured = entry.secured

    def told(decision: str, status: int | None, answer: dict[str, Any] | None = None, **more: Any) -> Explanation:
        about = {"source": caller.source, "principal": caller.principal} if compiled.direction != "outbound" else {}
        return Explanation(
            compiled.name,
            snapshot.version,
            _request(head, asked),
            decision,
            status,
            answer=answer,
            caller=about,
            mtls=entry.told,
            **more,
        )

    if entry.refused:
        return told("not let in", None)
    verdict = compiled.chain[0](probe, 0.0)  # identity: what matching looks at
    if isinstance(verdict, Reply):
        return told("refused", verdict.head.status, _reply(verdict))
    came = head.copy()
    guarded: dict[str, Any] = {}
    if compiled.direction == "gateway" and isinstance(preflight := cors(probe, 0.0), Reply):
        return told("preflight", preflight.head.status, _reply(preflight), steps=_trim(compiled.explain(head)))
    if compiled.direction != "outbound":
        judged = authorize(snapshot, probe, caller, wall)
        probe.clear_route()
        guarded = {"authorization": judged.rules, "asks": judged.asks, "tokens": judged.tokens, "because": judged.reason}
        if judged.denial is not None:
            return told("denied", judged.denial.head.status, _reply(judged.denial), **guarded)
    steps = _trim(compiled.explain(head))
    route = compiled.choose(head)
    if route is None:
        return told("no route", 404, _early(Reason.NO_ROUTE), steps=steps, **guarded)
    about = {"name": route.name, "source": route.model.source, "kind": _KINDS[route.kind]}
    policy = _policy(probe.compiled or route, head)
    decision, status, answer = _outcome(route, probe, compiled)
    destinations = [destination(snapshot, compiled, route, choice, head, came, now) for choice in route.choices if choice.name]
    if decision == "forward":
        decision, status, answer = _upstream(destinations)
    return told(decision, status, answer, route=about, destinations=destinations, policy=policy, steps=steps, **guarded)


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
        told["body"] = text(reason.body)
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


def _request(head: RequestHead, asked: bytes) -> dict[str, Any]:
    told = {"method": text(head.method), "authority": text(head.authority), "path": text(head.target)}
    if head.scheme == b"https":
        told["scheme"] = "https"
    if head.target != asked:
        told["pathAsGiven"] = text(asked)
    return told


def _reply(reply: Reply) -> dict[str, Any]:
    headers = {text(name): text(value) for name, value in reply.head.headers}
    told: dict[str, Any] = {"status": reply.head.status, "headers": headers, "detail": reply.detail}
    if reply.body:
        told["body"] = text(reply.body)
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
