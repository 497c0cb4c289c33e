"""Explanations, what is asked: a request as people describe it, who sends it, and at which listener it comes in.

In: a small mapping. Out: ``RequestHead``, ``Caller``, a listener's name; ``ValueError``, one line, for what cannot be meant. The
tokens of a request are found (``secrets_of``) so that they can be taken out of whatever is told (``without``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

from meshproxy.apply import CompiledListener, Snapshot
from meshproxy.message.head import Headers, RequestHead
from meshproxy.message.secured import Peer, Secured
from meshproxy.model.security import Trust
from meshproxy.policy.routes import port_of

__all__ = [
    "Caller",
    "caller_from",
    "chain_at",
    "chain_named",
    "listener_for",
    "principal_of",
    "request_from",
    "secrets_of",
    "without",
]

_KNOWN = ("method", "url", "path", "authority", "headers", "source", "principal", "claims", "sni")
_CREDENTIALS = (b"authorization", b"proxy-authorization")
_SHOWN = "***"
_FOREVER = float("inf")  # an imagined certificate does not end


class Caller(NamedTuple):
    """Who asks. ``principal``: its identity over the mesh's mutual TLS, without ``spiffe://``; "": it comes in plaintext.

    ``claims``: of a token that is taken as verified, without looking at any; None: the request's own tokens are judged.
    """

    source: str = "127.0.0.1"
    principal: str = ""
    claims: Mapping[str, Any] | None = None

    def secured(self, sni: str = "") -> Secured | None:
        if not self.principal:
            return None
        return Secured(Peer(identity=f"spiffe://{self.principal}", expires=_FOREVER), sni=sni, mesh=True)


def caller_from(given: Mapping[str, Any], source: str, trust: Trust) -> Caller:
    """``principal`` may be short: ``namespace/account`` is one of this mesh."""
    claims = given.get("claims")
    if claims is not None and not isinstance(claims, Mapping):
        raise ValueError('claims: must be a mapping, such as {"iss": "https://issuer", "sub": "jo"}')
    principal = principal_of(str(given.get("principal") or ""), trust.domain)
    return Caller(str(given.get("source") or source), principal, claims)


def principal_of(text: str, domain: str) -> str:
    """``default/web``, ``spiffe://d/ns/default/sa/web`` -> ``d/ns/default/sa/web``; "" stays. Raises ``ValueError``."""
    text = text.removeprefix("spiffe://")
    parts = text.split("/")
    if len(parts) == 2 and all(parts):
        return f"{domain}/ns/{parts[0]}/sa/{parts[1]}"
    if text and not Peer(identity=f"spiffe://{text}").namespace:
        raise ValueError(f"principal: must be NAMESPACE/ACCOUNT or DOMAIN/ns/NAMESPACE/sa/ACCOUNT, not {text!r}")
    return text


def request_from(given: Mapping[str, Any]) -> RequestHead:
    """``{"method", "url" or "path" and "authority", "headers": {name: value or [values]}}`` as the codec would hand it on. What
    says who asks is for ``caller_from``.

    Raises ValueError, one line, for a URL that is none or a name that is unknown.
    """
    unknown = set(given) - set(_KNOWN)
    if unknown:
        raise ValueError(f"{min(unknown)}: unknown; a request has {', '.join(_KNOWN)}")
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


def listener_for(snapshot: Snapshot, request: Mapping[str, Any], wanted: str = "") -> str:
    """Where a request is meant to come in when nobody says: at a gateway the listener of the URL's port, else its only one; a
    sidecar's outbound listener. 80 and 443 may be other ports inside (a Service's ``targetPort``): the only one that speaks the
    scheme. ``wanted`` "inbound": a sidecar's door for others instead. Raises ValueError, one line, when that leaves a choice.
    """
    doors = (
        "inbound"
        if wanted == "inbound" and "gateway" not in {one.direction for one in snapshot.listeners.values()}
        else "gateway"
    )
    there = sorted(name for name, one in snapshot.listeners.items() if one.direction == doors)
    if there:
        url = str(request.get("url") or "")
        head = request_from({**request, "url": "http" + url[3:]} if url.startswith("tcp://") else request)
        port = port_of(head.authority, 443 if head.scheme == b"https" else 80)
        same = [name for name in there if snapshot.listeners[name].port == port]
        if not same and port in (80, 443):
            same = [name for name in there if bool(snapshot.listeners[name].model.tls) == (head.scheme == b"https")]
        if len(same) == 1:
            return same[0]
    outbound = sorted(name for name, one in snapshot.listeners.items() if one.direction == "outbound")
    if outbound and wanted != "inbound":
        return "outbound" if "outbound" in outbound else outbound[0]
    if len(there) == 1:
        return there[0]
    known = ", ".join(there or sorted(snapshot.listeners)) or "none"
    if wanted and not there:
        raise ValueError(f"no listener {wanted!r}; there are {known}")
    raise ValueError(f"listener: say which one is meant, with --listener; there are {known}")


def chain_named(snapshot: Snapshot, name: str) -> CompiledListener | None:
    """A chain, by its own name."""
    for listener in snapshot.listeners.values():
        if listener.chains is not None and name in listener.chains.by_name:
            return listener.chains.by_name[name]
    return None


def chain_at(listener: CompiledListener, request: RequestHead) -> CompiledListener:
    """Where others come in by chains, the one for the request's port: by that it is judged. Raises ValueError, one line."""
    if listener.chains is None or listener.direction != "inbound":
        return listener
    port = port_of(request.authority, 443 if request.scheme == b"https" else 80)
    found = listener.chains.find("0.0.0.0", port)
    if found is None or found.protocol == "TCP":
        raise ValueError(f"url: port {port} takes no HTTP here; ask for tcp://host:{port}")
    return found


def secrets_of(snapshot: Snapshot, request: RequestHead) -> frozenset[str]:
    """Every credential in a request that is to be shown to nobody."""
    found = {value.rpartition(b" ")[2] for name, value in request.headers if name in _CREDENTIALS}
    for part in request.target.partition(b"?")[2].split(b"&"):
        name, _, value = part.partition(b"=")
        if name == b"access_token":
            found.add(value)
    verifier = snapshot.guard.verifier
    if verifier is not None:
        for _, text in verifier.extract(request.copy()):
            found |= {text, *(part for part in request.target.split(b"&") if unquote_to_bytes(part).endswith(b"=" + text))}
    return frozenset(text.decode("utf-8", "backslashreplace") for text in found if len(text) > 3)


def without(value: Any, secrets: Iterable[str]) -> Any:
    """The value with every secret taken out of its texts, keys included."""
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, _SHOWN)
        return value
    if isinstance(value, Mapping):
        return {without(key, secrets): without(one, secrets) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        found = [without(one, secrets) for one in value]
        return value._make(found) if hasattr(value, "_make") else found
    return value
