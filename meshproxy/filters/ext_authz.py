"""Room 4 (filters): CUSTOM policies, judged by an external HTTP authoriser (Envoy: ext_authz, HTTP service). One per provider.

In: a request before its token is looked at, as Istio orders it, so that ``request.auth`` conditions never match here. Out: None
where no rule matches; otherwise an ``Ask``, and then None (200: the request goes on with the authoriser's headers) or the
authoriser's refusal. No answer, or a 5xx, is an error: denied, or let through where the provider fails open.

A header that the authoriser is to set is taken from nobody else: what the client sent under its name stays only if the
authoriser saw it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from meshproxy.filters.chain import Filter
from meshproxy.message.decision import Decision
from meshproxy.message.head import Headers, RequestHead, ResponseHead
from meshproxy.message.ports import InFlight
from meshproxy.message.reason import Reason
from meshproxy.message.verdict import Answer, Ask, Reply, Verdict
from meshproxy.model.security import ExtAuthz
from meshproxy.policy.rbac import Custom
from meshproxy.policy.rbac_match import strings
from meshproxy.policy.replies import local_reply

__all__ = ["ext_authz_filter", "ext_authz_response"]

_PARTIAL = b"x-envoy-auth-partial-body"
_OPENED = b"x-envoy-auth-failure-mode-allowed"
# A connection's and a message's own: never copied from one message to another.
_OWN = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"te", b"trailer", b"upgrade"),
        *(b"content-length", b"host", b"expect", b"date", b"server", b"x-envoy-upstream-service-time"),
    )
)
# The mesh says these of a request, whatever pattern a provider's names have.
_OURS = frozenset((b"x-request-id", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-client-cert"))
_ALWAYS_SENT = frozenset((b"authorization",))  # beside method, path and Host (Envoy: toRequestMatchers)
_ALWAYS_ANSWERED = frozenset((b"path", b"status", b"www-authenticate", b"location"))  # with a denial (Envoy: toClientMatchers)

Names = Callable[[bytes], bool]


def _names(names: Iterable[str], always: frozenset[bytes] = frozenset(), never: frozenset[bytes] = _OWN) -> Names:
    test = strings([name.lower().encode() for name in names if name], "")
    return lambda name: (name in always or test(name)) and name not in never


def ext_authz_filter(custom: Custom, provider: ExtAuthz | None, cluster: Any) -> Filter:
    """``provider`` None: nobody knows it, and ``custom`` denies. ``cluster``: the provider's, live; None: it gives no answer."""
    asks: dict[Decision, Ask] = {}
    if provider is not None:
        question = _question(provider)
        for policy in custom.policies:
            for rule in policy.rules:
                judge = _judge(provider, rule.matched)
                asks[rule.matched] = Ask(
                    cluster,
                    question,
                    judge,
                    timeout=provider.timeout,
                    body=max(0, provider.include_body),
                    partial=provider.allow_partial_body,
                )

    def ext_authz(exchange: InFlight, now: float) -> Verdict:
        decision = custom.ask(exchange)
        if decision is None:
            return None
        if decision.allowed:
            return asks[decision]
        exchange.record.decisions += (decision,)
        return local_reply(Reason.RBAC_DENIED, detail=decision.detail)

    def ext_authz_noting(exchange: InFlight, now: float) -> Verdict:
        exchange.record.decisions += custom.noted(exchange)
        return ext_authz(exchange, now)

    return ext_authz_noting if custom.notes else ext_authz


def _question(provider: ExtAuthz) -> Callable[[InFlight, bytes, bool], RequestHead]:
    added = [(name.lower().encode(), value.encode()) for name, value in provider.include_additional_headers]
    ours = frozenset((_PARTIAL, *(name for name, _ in added)))
    sent = _names(provider.include_request_headers, _ALWAYS_SENT)
    prefix = provider.path_prefix.encode()
    authority = provider.authority.encode()
    buffered = provider.include_body > 0

    def question(exchange: InFlight, body: bytes, partial: bool) -> RequestHead:
        request = exchange.request
        headers = [pair for pair in request.headers if sent(pair[0]) and pair[0] not in ours]
        headers += added
        if buffered:
            headers.append((_PARTIAL, b"true" if partial else b"false"))
        headers.append((b"content-length", b"%d" % len(body)))
        target = prefix + request.target if request.target.startswith(b"/") else prefix or b"/"
        return RequestHead(request.method, target, authority or request.authority, headers, len(body))

    return question


def _judge(provider: ExtAuthz, matched: Decision) -> Callable[[InFlight, Answer | None], Verdict]:
    """What an answer means for a request that ``matched`` asked about."""
    seen = _names(provider.include_request_headers, _ALWAYS_SENT)
    up = _names(provider.headers_to_upstream_on_allow, never=_OWN | _OURS)
    down = _names(provider.headers_to_downstream_on_allow)
    listed = provider.headers_to_downstream_on_deny
    refused = _names(listed or ("*",), _ALWAYS_ANSWERED)
    status_on_error = provider.status_on_error
    asked = f"{matched.reason}, and the authoriser {provider.name}"
    detail = Reason.EXT_AUTHZ_DENIED.detail

    def decision(allowed: bool, words: str, result: str, detail: str = "") -> Decision:
        return Decision(allowed, "CUSTOM", matched.policy, matched.rule, f"{asked} {words}", result=result, detail=detail)

    yes = decision(True, "allowed it", "allowed")
    no = decision(False, "denied it", "denied", detail)
    lost = decision(False, "gave no answer", "error", Reason.EXT_AUTHZ_ERROR.detail)
    opened = decision(True, "gave no answer, but fails open", "failure_mode_allowed")

    def judge(exchange: InFlight, answer: Answer | None) -> Verdict:
        record = exchange.record
        if answer is None or answer.status >= 500:
            if not provider.fail_open:
                record.decisions += (lost,)
                return Reply(_empty(status_on_error), b"", Reason.EXT_AUTHZ_ERROR)
            record.decisions += (opened,)
            _put(exchange, [(_OPENED, b"true")])
            return None
        if answer.status != 200:
            record.decisions += (no,)
            return _refusal(answer, refused)
        record.decisions += (yes,)
        _put(exchange, [pair for pair in answer.headers if up(pair[0])])
        vouched = [pair for pair in answer.headers if down(pair[0])]
        if vouched:
            exchange.vouched = vouched
        return None

    def forged(name: bytes) -> bool:
        """A client's header that an app would take for the authoriser's; ``x_user`` is ``x-user`` to some (``spellings``)."""
        same = name.replace(b"_", b"-")
        return same == _OPENED or ((up(name) or up(same)) and not seen(name))

    def _put(exchange: InFlight, given: Headers) -> None:
        names = {name for name, _ in given}
        headers = exchange.request.headers
        kept = [pair for pair in headers if pair[0] not in names and not forged(pair[0])]
        if given or len(kept) != len(headers):
            headers[:] = kept + given
            exchange.clear_route()

    return judge


def _empty(status: int) -> ResponseHead:
    return ResponseHead(status, [] if status < 200 or status in (204, 304) else [(b"content-length", b"0")])


def _refusal(answer: Answer, passed: Names) -> Reply:
    body = answer.body
    headers = [pair for pair in answer.headers if passed(pair[0])]
    head = _empty(answer.status)
    if answer.status in (204, 304):
        body = b""
    elif body:
        head.headers = [(b"content-length", b"%d" % len(body))]
        if not any(name == b"content-type" for name, _ in headers):
            headers.append((b"content-type", b"text/plain"))
    head.headers += headers
    head.length = len(body)
    return Reply(head, body, Reason.EXT_AUTHZ_DENIED)


def ext_authz_response(exchange: InFlight, head: ResponseHead) -> None:
    """The response hook: the authoriser's headers for the client. Cookies are added, others overwritten."""
    vouched: Headers | None = getattr(exchange, "vouched", None)
    if vouched is None:
        return
    names = {name for name, _ in vouched if name != b"set-cookie"}
    head.headers[:] = [pair for pair in head.headers if pair[0] not in names]
    head.headers += vouched
