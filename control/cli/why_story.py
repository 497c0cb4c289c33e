"""The story of a failed request (``meshctl why``): where, what that means, what made it so, whether it still holds, what to do.

In: the hops, the one where it began, and the present state of that sidecar. Out: ``Story``, plain lines. Pure: whatever was asked
of the mesh is in ``State``. Nothing is decided here: what would happen now is ``explain``'s word, what happened the sidecar's.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from control.cli.why_hops import Hop, reason_of
from control.cli.why_now import holds
from control.cli.why_reasons import ADVICE, APP, CONFIGURED, TLS, TOKENS, UNTRACED, Advice
from meshproxy.message.reason import Reason
from meshproxy.message.token import TokenFault

__all__ = ["State", "Story", "fate", "story"]

_CATCH_ALL = ("PassthroughCluster", "BlackHoleCluster", "InboundPassthroughCluster")


_EARLIER = 4  # endpoints whose last failure is told
_WORD = re.compile(r"\{(\w+)\}")


class State(NamedTuple):
    """How it is now at the sidecar where it failed. ``told``: what ``explain`` says of the same request; ``caller``: of the call
    that led there, by the caller's sidecar; ``cluster``: the destination's live state; ``proxy``: its row of proxy-status.
    ``problem``: why there is none of this. ``before``: earlier failures at the same destination, newest first."""

    told: dict[str, Any] | None = None
    caller: dict[str, Any] | None = None
    cluster: dict[str, Any] | None = None
    proxy: dict[str, Any] | None = None
    problem: str = ""
    before: Sequence[dict[str, Any]] = ()


class Story(NamedTuple):
    where: str
    why: list[str]
    config: list[str]
    now: list[str]
    do: list[str]


def story(at: Hop, above: Hop | None, state: State) -> Story:
    """``at``: where it began; ``above``: the hop that called it, if one is known."""
    about, reason = at.about, reason_of(at.about)
    advice = _advice(about, reason)
    words = _Words(at, above, state)
    do = [text for line in advice.do if (text := words.fill(line))]
    if reason in (Reason.TOKEN_REFUSED, Reason.TOKEN_AUDIENCE) and (fault := _fault(about)) is not None:
        do = [*TOKENS[fault], *do]
    for name in ("FAULT_DELAY", "RETRY_EXHAUSTED"):
        if name in about["reasons"]:
            do += [text for line in ADVICE[Reason[name]].do if (text := words.fill(line))]
    return Story(
        where=_where(at, reason),
        why=[*_why(at, above, reason, advice), *_before(reason, state.before)],
        config=list(_config(at, state)),
        now=list(holds(at, reason, state.told, state.caller, state.cluster, state.proxy, state.problem)),
        do=list(dict.fromkeys(do))[:5],
    )


def fate(hop: Hop, begun_here: bool) -> str:
    """A hop in a few words."""
    about, reason = hop.about, reason_of(hop.about)
    flags = ",".join(about["flags"])
    if begun_here and reason is None and about["detail"] == "via_upstream":
        return f"{_answerer(hop)} answered so itself"
    if reason is None:
        return f"passed on what {_answerer(hop)} answered" + (f" ({flags})" if flags else "")
    return f"{flags or '-'} {about['detail']}"


# -- where


def _answerer(hop: Hop) -> str:
    about = hop.about
    if hop.inbound:
        return "its app"
    return str(about["target"].get("pod") or about["service"] or about["endpoint"] or "the destination")


def _where(at: Hop, reason: Reason | None) -> str:
    about, pod = at.about, "/".join(at.pod)
    role = "gateway" if about["direction"] == "gateway" else "sidecar"
    if reason is None and about["detail"] == "via_upstream":
        if at.inbound:
            return f"the app of {pod}{_version(about['target'])}, at {about['endpoint']}"
        target = about["target"].get("pod", "")
        if target:
            return f"{about['target'].get('namespace', '')}/{target}{_version(about['target'])}, at {about['endpoint']}"
        return f"{_destination(about)}, at {about['endpoint']}"
    if at.inbound:
        place = "on the way to its app" if about["endpoint"] else "where the request came in, before its app heard of it"
    elif about["cluster"]:
        place = f"on the way to {_destination(about)}"
    elif about["service"]:
        place = f"on a request for {about['service']}"
    else:
        place = "before it had chosen a destination"
    return f"the {role} of {pod}, {place}" if role == "sidecar" else f"the gateway {pod}, {place}"


def _destination(about: dict[str, Any]) -> str:
    service = about["service"] or (about["authority"] if about["cluster"] in _CATCH_ALL else "")
    parts = about["cluster"].split("|")
    subset = f" subset {parts[2]}" if len(parts) == 4 and parts[2] else ""
    return f"{service or (parts[3] if len(parts) == 4 and parts[3] else about['cluster'])}{subset}"


def _version(who: dict[str, str]) -> str:
    return f" ({who['version']})" if who.get("version") else ""


# -- why


def _advice(about: dict[str, Any], reason: Reason | None) -> Advice:
    if reason is Reason.CONNECT_FAILURE and "TLS" in about["transport"]:
        return TLS
    if reason is not None:
        return ADVICE[reason]
    return {"via_upstream": APP, "direct_response": CONFIGURED}.get(about["detail"], UNTRACED)


def _why(at: Hop, above: Hop | None, reason: Reason | None, advice: Advice) -> Iterator[str]:
    about = at.about
    if reason is None and about["detail"] == "via_upstream" and not at.inbound:
        silent = (
            "its own sidecar remembers no failure of it" if about["upstream_mtls"] else "it has no sidecar that could tell more"
        )
        yield f"It was answered there, and passed on by {at.pod[1]}; {silent}."
    else:
        yield advice.means
    code = f"status {about['status'] or 'none'}" + (f", gRPC status {about['grpc']}" if about["grpc"] not in ("", "0") else "")
    flags = f", response flag {','.join(about['flags'])}" if about["flags"] else ""
    yield f"{code}{flags}, detail {about['detail']}"
    if about["transport"]:
        who = ", ".join(filter(None, (about["endpoint"], about["target"].get("pod"))))
        yield f"The last try failed with: {about['transport']}" + (f" ({who})" if who else "")
    if about["attempts"] > 1:
        last = about["target"].get("pod") or about["endpoint"] or "nobody"
        yield f"{about['attempts']} tries were made; the last went to {last}."
    if reason in (Reason.UPSTREAM_TIMEOUT, Reason.PER_TRY_TIMEOUT, Reason.DOWNSTREAM_GONE, Reason.STREAM_IDLE_TIMEOUT):
        heard = about["first_byte_ms"]
        yield f"That was after {took(about['ms'])}; " + (
            f"the first byte of a response had come after {took(heard)}."
            if heard is not None
            else "nothing had been heard by then."
        )
    for one in about["decisions"]:
        if not one["allowed"] and not one["dry_run"]:
            yield f"Decided by: {one['reason']}."
    caller = about["caller"].get("principal", "").removeprefix("spiffe://")
    if reason in (Reason.RBAC_DENIED, Reason.EXT_AUTHZ_DENIED):
        yield (
            f"The caller was {caller} over mutual TLS."
            if caller
            else f"The caller was {about['remote'] or 'unknown'}, in plaintext."
        )
    if (fault := _fault(about)) is not None:
        yield f"{fault.value}."
    if reason is not Reason.RETRY_EXHAUSTED and "RETRY_EXHAUSTED" in about["reasons"]:
        yield ADVICE[Reason.RETRY_EXHAUSTED].means
    if about["detail"] == "via_upstream" and "OVERFLOW" in about["reasons"]:
        yield "Another try was due, but maxRetries or the retry budget allowed none."
    if "FAULT_DELAY" in about["reasons"] and reason is not Reason.FAULT_DELAY:
        yield ADVICE[Reason.FAULT_DELAY].means
    if above is not None and "RETRY_EXHAUSTED" in above.about["reasons"]:
        yield f"{above.pod[1]}'s sidecar tried {above.about['attempts']} times in all, and had no retry left."
    if at.inbound and above is None and about["caller"].get("pod"):
        who = about["caller"]["pod"]
        yield f"{who}'s sidecar remembers no failure of it, so another try most likely succeeded; the client saw nothing."


def _before(reason: Reason | None, before: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What endpoints were ejected for: the last failure of each."""
    if reason is not Reason.NO_HEALTHY_UPSTREAM:
        return
    seen: set[str] = set()
    for one in before:
        who = one["target"].get("pod") or one["endpoint"]
        if who and who not in seen and (one["status"] >= 500 or one["transport"]) and len(seen) < _EARLIER:
            seen.add(who)
            at = datetime.fromtimestamp(one["at"]).strftime("%H:%M:%S")
            flags = f" {','.join(one['flags'])}" if one["flags"] else ""
            yield f"{who} had failed before, at {at}: {one['status']}{flags} {one['transport'] or one['detail']}"


def _fault(about: dict[str, Any]) -> TokenFault | None:
    return next((fault for fault in TokenFault if fault.detail == about["detail"]), None)


# -- what made it so


def _config(at: Hop, state: State) -> Iterator[str]:
    about = at.about
    if not at.inbound:
        if about["source"]:
            yield f"route: {about['source']}" + (f" ({about['route']})" if about["route"] else "")
        elif about["cluster"] in _CATCH_ALL or about["route"] in ("allow_any", "block_all"):
            yield f"route: {about['route']} (no service of the mesh has the host {about['authority']!r})"
        elif about["cluster"]:
            yield "route: the service's own (no VirtualService speaks for this host here)"
    if about["cluster"] and about["direction"] != "inbound":
        rule = rule_of(about, state)
        yield f"destination: {about['cluster']}" + (f" ({rule})" if rule else " (no DestinationRule)")
    for one in about["decisions"]:
        if one["policy"] and not one["dry_run"]:
            which = f" rule {one['rule']}" if one["rule"] >= 0 else ""
            yield f"policy: {one['action']} AuthorizationPolicy {one['policy']}{which}"
    for name in dict.fromkeys(row["policy"] for row in _unmatched(about, state)):
        yield f"policy: ALLOW AuthorizationPolicy {name} (none of its rules matches)"
    if state.caller is not None and at.inbound and reason_of(about) is None and about["status"] >= 500:
        retries = state.caller.get("policy", {}).get("retries")
        on = ", ".join(retries["on"]) if retries else ""
        source = (state.caller.get("route") or {}).get("source") or "the default"
        yield (
            f"retries of the caller: {retries['attempts']} on {on} ({source})"
            if retries
            else f"retries of the caller: none ({source})"
        )


def _unmatched(about: dict[str, Any], state: State) -> list[dict[str, Any]]:
    """The ALLOW policies of a workload that let nobody like this in, as they are now."""
    denied = [one for one in about["decisions"] if not one["allowed"] and not one["dry_run"]]
    if not any(one["action"] == "ALLOW" and not one["policy"] for one in denied) or state.told is None:
        return []
    rows = state.told.get("authorization", ())
    return [row for row in rows if row["action"] == "ALLOW" and not row["matched"] and not row["dry_run"]]


def rule_of(about: dict[str, Any], state: State) -> str:
    """The DestinationRule of the failed request's cluster, as it is now."""
    if state.cluster is not None:
        return str(state.cluster.get("source") or "")
    found = [one for one in (state.told or {}).get("destinations", ()) if one["cluster"] == about["cluster"]]
    return str(found[0].get("source") or "") if found else ""


# -- what to do


class _Words(dict[str, str]):
    """What the braces of advice stand for; "" is not known."""

    def __init__(self, at: Hop, above: Hop | None, state: State) -> None:
        about, target = at.about, at.about["target"]
        pod = "/".join(at.pod)
        owner = at.pod if at.inbound else (target.get("namespace", ""), target.get("pod", ""))
        url = f"http://{about['authority']}{about['path']}" if about["authority"] else ""
        request = f"{shlex.quote(about['method'])} {shlex.quote(url)}" if url and about["method"] else ""
        asked = f"meshctl explain {request}" if request else ""
        principal = about["caller"].get("principal", "").removeprefix("spiffe://")
        side = f"--at {pod}" if at.inbound else f"--from {pod}"
        named = [one["policy"] for one in about["decisions"] if not one["allowed"] and one["policy"] and not one["dry_run"]]
        policy = next(iter([*named, *(row["policy"] for row in _unmatched(about, state))]), "")
        source = about["source"]
        rule = rule_of(about, state)
        super().__init__(
            pod=pod,
            ns=at.pod[0],
            name=at.pod[1],
            host=about["authority"],
            curl=_curl(about),
            cluster=about["cluster"],
            service_ns=_namespace(about["service"]),
            target="/".join(owner) if all(owner) else "",
            target_ns=owner[0],
            target_pod=owner[1],
            trace=about["trace_id"],
            detail=about["detail"],
            took=took(about["ms"]),
            explain=f"{asked} {side}" if asked else "",
            explain_as=f"{asked} {side}" + (f" --as {shlex.quote(principal)}" if principal else " --plaintext") if asked else "",
            show_source=_show(source),
            show_rule=_show(rule),
            show_policy=f"kubectl get authorizationpolicy -n {policy.replace('/', ' ', 1)} -o yaml" if policy else "",
            rule_hint="connectionPool.tcp.connectTimeout says how long it may take." if rule else "",
            retry_hint=self._retry(about, state),
        )

    @staticmethod
    def _retry(about: dict[str, Any], state: State) -> str:
        """A retry would have hidden a server's error."""
        if about["status"] < 500 or state.caller is None:
            return ""
        retries = state.caller.get("policy", {}).get("retries")
        on = set(retries["on"]) if retries else set()
        if on & {"5xx", str(about["status"])} or (on & {"gateway-error"} and about["status"] in (502, 503, 504)):
            return ""
        return f'A retry could hide it: `retries` with `retryOn: "{about["status"]}"` in a VirtualService.'

    def fill(self, line: str) -> str:
        """The line, or "" where a word of it is not known."""
        if not all(self[name] for name in _WORD.findall(line)):
            return ""
        return _WORD.sub(lambda found: self[found[1]], line)


def _curl(about: dict[str, Any]) -> str:
    """The same request to the endpoint itself."""
    if not about["endpoint"] or not about["path"].startswith("/"):
        return ""
    method = "" if about["method"] == "GET" else f"-X {shlex.quote(about['method'])} "
    return f"curl -i {method}{shlex.quote('http://' + about['endpoint'] + about['path'])}"


def _show(source: str) -> str:
    """``VirtualService default/rating http[0]`` -> the command that shows it."""
    kind, _, rest = source.partition(" ")
    namespace, slash, name = rest.partition(" ")[0].partition("/")
    return f"kubectl get {kind.lower()} {name} -n {namespace} -o yaml" if slash else ""


def _namespace(host: str) -> str:
    parts = host.split(".")
    return parts[1] if len(parts) > 2 and parts[2] == "svc" else ""


def took(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.2f} s" if milliseconds >= 1000 else f"{milliseconds:.1f} ms"
