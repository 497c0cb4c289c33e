"""Explanations, who may come in: mutual TLS at the door, end-user tokens, authorisation policies.

In: the probe (an exchange that only looks), the caller. Out: facts in plain JSON types, and the refusal if there is one. Every
verdict is the very filter's or the vault's; the words are of ``policy.jwt_explain`` and ``policy.rbac_explain``.
"""

from __future__ import annotations

from typing import Any

from meshproxy.apply import CompiledListener, Snapshot
from meshproxy.explain.destination import trusting
from meshproxy.explain.request import Caller
from meshproxy.filters.authn import authn_filter, token_refused
from meshproxy.message.secured import Secured, TlsFault
from meshproxy.message.token import TokenFault
from meshproxy.message.verdict import Reply
from meshproxy.policy.jwt_explain import assume_token, explain_tokens
from meshproxy.policy.rbac_explain import explain_policies
from meshproxy.policy.routes import Step

__all__ = ["Entry", "authorize", "enter", "token_steps"]

MISUNDERSTOOD = "a TLS handshake where only plaintext is spoken"


class Entry:
    """How a connection comes in. ``listener``: by what its requests are judged. ``told``: facts; ``refused``: why it does not."""

    __slots__ = ("listener", "refused", "secured", "told")

    def __init__(self, listener: CompiledListener, secured: Secured | None, told: dict[str, Any], refused: str = "") -> None:
        self.listener = listener
        self.secured = secured
        self.told = told
        self.refused = refused
        if refused:
            told["refused"] = refused


def enter(snapshot: Snapshot, listener: CompiledListener, caller: Caller, host: str, scheme: bytes, wall: float) -> Entry:
    """``host``: of the request, in lower case and without a port: the server name that a client of a gateway asks for."""
    if listener.direction == "inbound":
        return _sidecar(snapshot, listener, caller, wall)
    if listener.direction == "gateway" and listener.model.tls:
        return _gateway(snapshot, listener, caller, host, scheme, wall)
    if listener.direction == "gateway" and caller.principal:
        return Entry(listener, None, {"mode": "none", "refused": MISUNDERSTOOD}, MISUNDERSTOOD)
    return Entry(listener, None, {})


def _sidecar(snapshot: Snapshot, listener: CompiledListener, caller: Caller, wall: float) -> Entry:
    """``listener.doorway``'s judgement, for a caller that is imagined."""
    model = listener.model
    told: dict[str, Any] = {
        "mode": model.mtls,
        "source": model.mtls_source or "the default",
    }
    secured = caller.secured()
    if secured is None:
        return Entry(listener, None, told, TlsFault.PLAINTEXT.value if model.mtls == "STRICT" else "")
    if model.mtls == "DISABLE":
        return Entry(listener, None, told, MISUNDERSTOOD)
    return Entry(listener, secured, told, _distrust(snapshot, secured, wall))


def _gateway(snapshot: Snapshot, listener: CompiledListener, caller: Caller, host: str, scheme: bytes, wall: float) -> Entry:
    if scheme == b"http":
        return Entry(listener, None, {"mode": "TLS"}, TlsFault.NOT_TLS.value)
    server = listener.server_of(host)
    if server is None:
        return Entry(listener, None, {"mode": "TLS"}, TlsFault.UNKNOWN_NAME.value)
    told: dict[str, Any] = {"mode": server.mode, "source": server.source}
    secured = caller.secured(host)
    if secured is not None and server.mode != "ISTIO_MUTUAL":
        secured = None  # a certificate of the mesh says nothing here
    if secured is None:
        if server.mode == "ISTIO_MUTUAL":
            return Entry(listener.served[server.route], None, told, TlsFault.NO_CERTIFICATE.value)
        if server.mode == "MUTUAL":
            told["demands"] = "a client certificate under its own authority; taken as shown"
        secured = Secured(None, sni=host)
        return Entry(listener.served[server.route], secured, told)
    return Entry(listener.served[server.route], secured, told, _distrust(snapshot, secured, wall))


def _distrust(snapshot: Snapshot, secured: Secured, wall: float) -> str:
    assert secured.peer is not None
    fault = trusting(snapshot)[0].judge(secured.peer, wall)
    return fault.value if fault is not None else ""


def token_steps(snapshot: Snapshot, probe: Any, caller: Caller, wall: float) -> tuple[list[Step], Reply | None]:
    """What becomes of the request's tokens; the probe's request is as the next filter would see it."""
    verifier = snapshot.guard.verifier
    if verifier is None:
        if caller.claims is not None:
            words = "no RequestAuthentication is for this workload: nobody reads tokens here"
            return [Step("token", "verdict", "", False, words)], None
        return [], None
    if caller.claims is None:
        steps = explain_tokens(verifier, probe.request, wall)
        probe.record.wall = wall
        probe.record.started = 0.0
        verdict = authn_filter(verifier, False)(probe, 0.0)
        return steps, verdict if isinstance(verdict, Reply) else None
    steps, outcome = assume_token(verifier, caller.claims, wall)
    if isinstance(outcome, TokenFault):
        return steps, token_refused(probe.request, outcome, probe.request.target)
    probe.request.token = outcome.token
    probe.request.headers += outcome.headers
    return steps, None


class Authorisation:
    """``rules``: every rule of every policy. ``asks``: authorisers that would be asked, and are taken to allow."""

    __slots__ = ("asks", "denial", "reason", "rules", "tokens")

    def __init__(self) -> None:
        self.rules: list[dict[str, Any]] = []
        self.asks: list[str] = []
        self.tokens: list[Step] = []
        self.denial: Reply | None = None
        self.reason = ""


def authorize(snapshot: Snapshot, probe: Any, caller: Caller, wall: float) -> Authorisation:
    """The walk of an inbound or gateway listener: authorisers, tokens, rules, in this order."""
    guard = snapshot.guard
    found = Authorisation()
    custom = [policy for policy in guard.policies if policy.action == "CUSTOM"]
    others = [policy for policy in guard.policies if policy.action != "CUSTOM"]
    # CUSTOM is judged before tokens are known, as on the way of a request.
    found.rules = [rule._asdict() for rule in explain_policies(custom, probe)]
    for provider, stage in zip(sorted({policy.provider for policy in custom}), guard.ext_authz, strict=True):
        verdict = stage.filter(probe, 0.0)
        if isinstance(verdict, Reply):
            found.denial = verdict
            break
        if verdict is not None:
            found.asks.append(provider)
    if found.denial is None:
        found.tokens, found.denial = token_steps(snapshot, probe, caller, wall)
    if found.denial is not None and found.tokens:
        found.reason = found.tokens[-1].reason
        return found  # who is refused for a token never meets the rules
    found.rules += [rule._asdict() for rule in explain_policies(others, probe)]
    if found.denial is None and guard.authz is not None:
        verdict = guard.authz.filter(probe, 0.0)
        found.denial = verdict if isinstance(verdict, Reply) else None
    decisions = probe.record.decisions
    if decisions and (found.denial is not None or decisions[-1].rule >= 0):
        found.reason = decisions[-1].reason
    return found
