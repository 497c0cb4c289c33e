"""A request in flight as policies see it, made of what a test wants to say."""

from __future__ import annotations

from typing import Any

from meshproxy.message.decision import Decision
from meshproxy.message.head import RequestHead
from meshproxy.message.secured import Peer, Secured
from meshproxy.message.token import Token
from meshproxy.model.security import Policy, Rule, Trust
from meshproxy.policy.rbac import Judge, compile_policies


class Listener:
    def __init__(self, port: int, direction: str) -> None:
        self.port = port
        self.direction = direction


class Flight:
    """``identity``: of a peer over the mesh's mutual TLS; None: plaintext."""

    def __init__(
        self,
        path: str = "/",
        *,
        method: str = "GET",
        host: str = "books:8080",
        headers: dict[str, str] | None = None,
        identity: str | None = None,
        mesh: bool = True,
        sni: str = "",
        claims: dict[str, Any] | None = None,
        source: str = "10.1.2.3",
        local: str = "10.9.9.9",
        port: int = 8080,
        direction: str = "inbound",
    ) -> None:
        pairs = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
        self.request = RequestHead(method.encode(), path.encode(), host.encode(), pairs)
        if claims is not None:
            audience = claims.get("aud", ())
            self.request.token = Token(
                claims.get("iss", ""),
                claims.get("sub", ""),
                claims,
                audiences=(audience,) if isinstance(audience, str) else tuple(audience),
                presenter=claims.get("azp", ""),
            )
        self.secured = Secured(Peer(identity=identity), sni=sni, mesh=mesh) if identity is not None else None
        if identity is None and sni:
            self.secured = Secured(None, sni=sni)
        self.source = source
        self.local = (local, 15006)
        self.remote = (source, 40000)
        self.listener = Listener(port, direction)


BOOKS = "spiffe://cluster.local/ns/default/sa/books"


def judge(*policies: Policy, trust: Trust | None = None) -> Judge:
    return Judge(compile_policies(policies, trust or Trust()))


def decide(flight: Any, *policies: Policy, trust: Trust | None = None) -> Decision:
    return judge(*policies, trust=trust).judge(flight)


def matches(rule: Rule, flight: Any, trust: Trust | None = None) -> bool:
    """Whether a rule holds, asked of an ALLOW policy of its own."""
    return decide(flight, Policy(name="default/p", rules=(rule,)), trust=trust).allowed
