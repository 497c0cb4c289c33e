"""Room: policy. What a rule may ask of a request: every field of Source and Operation, every ``when`` key, as conditions.

In: ``model.security`` structs. Out: ``Field``s: a test over the request in flight, its words, and what the request has there,
so that explain asks the same code. What a peer says of itself counts only over the mesh's own mutual TLS; on plaintext its
identity is empty, so that positive fields fail and negated ones hold (semantics B6.6). Claims are the verified token's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from meshproxy.message.head import joined
from meshproxy.message.ports import InFlight
from meshproxy.policy.invalid import Invalid
from meshproxy.policy.matchers import claim_at
from meshproxy.policy.rbac_match import address_of, addresses, glob, paths, ports, strings

if TYPE_CHECKING:
    from meshproxy.model.security import Condition, Operation, Source, Trust

__all__ = ["Field", "Test", "condition_field", "operation_fields", "source_fields"]

Test = Callable[[InFlight], bool]
Show = Callable[[InFlight], str]

_UNSHOWN = frozenset((b"authorization", b"proxy-authorization", b"cookie"))


class Field(NamedTuple):
    """One condition: ``words`` ("methods is one of GET, HEAD"), its test, and what the request has there, for people."""

    words: str
    holds: Test
    actual: Show


# -- what the request has


def _principal(exchange: InFlight) -> str:
    secured = exchange.secured
    return secured.peer.principal if secured is not None and secured.mesh and secured.peer is not None else ""


def _domain(exchange: InFlight) -> str:
    secured = exchange.secured
    return secured.peer.domain if secured is not None and secured.mesh and secured.peer is not None else ""


def _namespace(exchange: InFlight) -> str:
    secured = exchange.secured
    return secured.peer.namespace if secured is not None and secured.mesh and secured.peer is not None else ""


def _account(exchange: InFlight) -> str:
    secured = exchange.secured
    if secured is None or not secured.mesh or secured.peer is None or not secured.peer.namespace:
        return ""
    return f"{secured.peer.namespace}/{secured.peer.account}"


def _source_ip(exchange: InFlight) -> str:
    return exchange.source


def _remote_ip(exchange: InFlight) -> str:
    """The client's address: at the mesh's edge the direct peer's, in a sidecar the last one that x-forwarded-for names (Envoy:
    use_remote_address, xff_num_trusted_hops 0); the direct peer's where it names none.
    """
    if exchange.listener.direction == "gateway":
        return exchange.source
    for name, value in reversed(exchange.request.headers):
        if name == b"x-forwarded-for":
            last = value.rpartition(b",")[2].strip().decode("latin-1")
            return last if address_of(last) is not None else exchange.source
    return exchange.source


def _destination_ip(exchange: InFlight) -> str:
    local = exchange.local
    return local[0] if local is not None else ""


def _port(exchange: InFlight) -> int:
    """The listener's; where that takes connections for any port, the one that this was meant for."""
    port: int = exchange.listener.port
    return port or (exchange.local[1] if exchange.local is not None else 0)


def _sni(exchange: InFlight) -> str:
    """Also of TLS that is passed through as it is, which only a relay sees."""
    secured = exchange.secured
    name: str = secured.sni if secured is not None else getattr(exchange, "sni", "")
    return name


def _method(exchange: InFlight) -> bytes:
    return exchange.request.method


def _host(exchange: InFlight) -> bytes:
    return exchange.request.authority.lower()


def _path(exchange: InFlight) -> bytes:
    target = exchange.request.target
    return target if b"?" not in target else target.partition(b"?")[0]


def _audiences(exchange: InFlight) -> tuple[str, ...]:
    token = exchange.request.token
    return token.audiences if token is not None else ()


def _presenter(exchange: InFlight) -> str:
    token = exchange.request.token
    return token.presenter if token is not None else ""


# -- conditions


def _show(value: Any) -> str:
    if value is None or value == "" or value == b"" or value == ():
        return "absent"
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return f'"{value}"' if isinstance(value, str) else str(value)


def _words(name: str, values: tuple[str, ...], negated: bool) -> str:
    shown = ", ".join(values[:8]) + (f" and {len(values) - 8} more" if len(values) > 8 else "")
    verb = ("is none of " if len(values) > 1 else "is not ") if negated else ("is one of " if len(values) > 1 else "is ")
    return f"{name} {verb}{shown}"


def _field(name: str, values: tuple[str, ...], negated: bool, holds: Test, actual: Show) -> Field:
    return Field(_words(name, values, negated), (lambda exchange: not holds(exchange)) if negated else holds, actual)


Read = Callable[[InFlight], Any]
Make = Callable[[tuple[str, ...], str], tuple[Test, Show]]  # values, path


def _over(read: Read, compile: Callable[[tuple[str, ...], str], Callable[[Any], bool]]) -> Make:
    """Tests of one value that the request has once."""

    def make(values: tuple[str, ...], path: str) -> tuple[Test, Show]:
        test = compile(values, path)
        return (lambda exchange: test(read(exchange))), (lambda exchange: _show(read(exchange)))

    return make


def _any_of(read: Callable[[InFlight], tuple[str, ...]]) -> Make:
    """Tests of a value that the request may have several times."""

    def make(values: tuple[str, ...], path: str) -> tuple[Test, Show]:
        test = strings(values, path)
        return (lambda exchange: any(map(test, read(exchange)))), (lambda exchange: _show(", ".join(read(exchange))))

    return make


def _bytes(values: tuple[str, ...], path: str) -> Callable[[bytes], bool]:
    return strings([value.encode() for value in values], path)


def _hosts(values: tuple[str, ...], path: str) -> Callable[[bytes], bool]:
    return strings([value.lower().encode() for value in values], path)


def _ports(values: tuple[str, ...], path: str) -> Callable[[int], bool]:
    return ports(values, path).__contains__


def _accounts(values: tuple[str, ...], path: str) -> Callable[[str], bool]:
    for index, value in enumerate(values):
        if "*" in value or value.count("/") != 1 or not all(value.split("/")):
            raise Invalid(f"{path}[{index}]", f'must be "namespace/name" without wildcards, not "{value}"')
    return strings(values, path)


def _domains(trust: Trust) -> tuple[str, ...]:
    return (trust.domain, *trust.aliases)


def _aliased(trust: Trust) -> Callable[[tuple[str, ...], str], Callable[[str], bool]]:
    """Principals, where any name of this mesh's trust domain stands for all of them (Istio: trustdomain.Bundle).

    ``cluster.local`` is a pointer to the mesh's own trust domain, whatever that is called.
    """
    ours = _domains(trust)

    def compile(values: tuple[str, ...], path: str) -> Callable[[str], bool]:
        strings(values, path)  # errors under the values' own numbers
        wanted: list[str] = []
        for value in values:
            domain, slash, rest = value.partition("/")
            named = domain in ours or domain == "cluster.local" or (domain.startswith("*") and _ends_one(domain[1:], ours))
            wanted.append(value)
            if slash and named:
                wanted += [f"{other}/{rest}" for other in ours]
        return strings(wanted, path)

    return compile


def _ends_one(suffix: str, domains: tuple[str, ...]) -> bool:
    return any(domain.endswith(suffix) for domain in domains)


def _trust_domains(trust: Trust) -> Callable[[tuple[str, ...], str], Callable[[str], bool]]:
    ours = _domains(trust)

    def compile(values: tuple[str, ...], path: str) -> Callable[[str], bool]:
        test = strings(values, path)
        if not any(map(test, ours)) and "cluster.local" not in values:
            return test
        return lambda value: test(value) or value in ours

    return compile


def _request_principals(values: tuple[str, ...], path: str) -> tuple[Test, Show]:
    """``iss/sub``, split at the last slash; wildcards as Istio's requestPrincipalGenerator reads them."""
    strings(values, path)
    pairs = tuple(_issuer_subject(value) for value in values)

    def holds(exchange: InFlight) -> bool:
        token = exchange.request.token
        if token is None or not token.principal:
            return False
        issuer, subject = token.issuer, token.subject
        for by, of in pairs:  # noqa: SIM110  a generator inside any() costs more than the tests
            if by(issuer) and of(subject):
                return True
        return False

    return holds, lambda exchange: _show(exchange.request.token.principal if exchange.request.token is not None else None)


def _issuer_subject(value: str) -> tuple[Callable[[str], bool], Callable[[str], bool]]:
    issuer, slash, subject = value.rpartition("/")
    if value == "*":
        return bool, bool
    if value.startswith("*"):
        return (strings([issuer], "") if slash else bool), (strings([_literal(subject)], "") if slash else strings([value], ""))
    if value.endswith("*"):
        return (strings([issuer], "") if slash else strings([value], "")), (strings([subject], "") if slash else bool)
    return strings([issuer or value], ""), (strings([subject], "") if slash and subject else _never)


def _literal(text: str) -> str:
    return text or "*"


def _never(value: str) -> bool:
    return False


def _header(name: bytes) -> Make:
    def make(values: tuple[str, ...], path: str) -> tuple[Test, Show]:
        test = _bytes(values, path)
        if "*" in values:
            test = _present
        shown = name not in _UNSHOWN

        def holds(exchange: InFlight) -> bool:
            value = _header_value(exchange, name)
            return value is not None and test(value)

        def actual(exchange: InFlight) -> str:
            value = _header_value(exchange, name)
            return "absent" if value is None else _show(value) if shown else "not shown"

        return holds, actual

    return make


def _present(value: bytes) -> bool:
    return True


def _header_value(exchange: InFlight, name: bytes) -> bytes | None:
    if name in (b"host", b":authority"):
        return exchange.request.authority
    if name == b":method":
        return exchange.request.method
    if name == b":path":
        return exchange.request.target
    return joined(exchange.request.headers, name)


def _claim(keys: tuple[str, ...]) -> Make:
    def values_of(exchange: InFlight) -> Any:
        token = exchange.request.token
        return claim_at(token.claims, keys) if token is not None else None

    def make(values: tuple[str, ...], path: str) -> tuple[Test, Show]:
        test = strings(values, path)

        def holds(exchange: InFlight) -> bool:
            found = values_of(exchange)
            if type(found) is str:
                return test(found)
            if type(found) is list:
                for one in found:
                    if type(one) is str and test(one):
                        return True
            return False

        return holds, lambda exchange: _show(values_of(exchange))

    return make


# -- Source, Operation, when


def _pair(name: str, make: Make, given: tuple[str, ...], nots: tuple[str, ...], path: str, own: str) -> Iterator[Field]:
    if given:
        yield _field(name, given, False, *make(given, f"{path}.{own}"))
    if nots:
        yield _field(name, nots, True, *make(nots, f"{path}.not_{own}"))


def source_fields(source: Source, trust: Trust, path: str) -> tuple[Field, ...]:
    """The conditions of one ``source``, cheap ones first; all must hold."""
    pairs: tuple[tuple[str, Make, str], ...] = (
        ("namespaces", _over(_namespace, glob), "namespaces"),
        ("principals", _over(_principal, _aliased(trust)), "principals"),
        ("serviceAccounts", _over(_account, _accounts), "service_accounts"),
        ("trustDomains", _over(_domain, _trust_domains(trust)), "trust_domains"),
        ("requestPrincipals", _request_principals, "request_principals"),
        ("ipBlocks", _over(_source_ip, addresses), "ip_blocks"),
        ("remoteIpBlocks", _over(_remote_ip, addresses), "remote_ip_blocks"),
    )
    return _fields(source, pairs, path)


_OPERATION: tuple[tuple[str, Make, str], ...] = (
    ("methods", _over(_method, _bytes), "methods"),
    ("ports", _over(_port, _ports), "ports"),
    ("paths", _over(_path, paths), "paths"),
    ("hosts", _over(_host, _hosts), "hosts"),
)


def operation_fields(operation: Operation, path: str) -> tuple[Field, ...]:
    """The conditions of one ``operation``, cheap ones first; all must hold."""
    return _fields(operation, _OPERATION, path)


def _fields(model: Any, pairs: tuple[tuple[str, Make, str], ...], path: str) -> tuple[Field, ...]:
    found: list[Field] = []
    for name, make, own in pairs:
        found += _pair(name, make, getattr(model, own), getattr(model, "not_" + own), path, own)
    return tuple(found)


_KEYS: dict[str, Callable[[Trust], Make]] = {
    "source.ip": lambda trust: _over(_source_ip, addresses),
    "remote.ip": lambda trust: _over(_remote_ip, addresses),
    "source.namespace": lambda trust: _over(_namespace, glob),
    "source.serviceAccount": lambda trust: _over(_account, _accounts),
    "source.trustDomain": lambda trust: _over(_domain, _trust_domains(trust)),
    "source.principal": lambda trust: _over(_principal, _aliased(trust)),
    "request.auth.principal": lambda trust: _request_principals,
    "request.auth.audiences": lambda trust: _any_of(_audiences),
    "request.auth.presenter": lambda trust: _over(_presenter, strings),
    "destination.ip": lambda trust: _over(_destination_ip, addresses),
    "destination.port": lambda trust: _over(_port, _ports),
    "connection.sni": lambda trust: _over(_sni, strings),
}


def condition_field(condition: Condition, trust: Trust, blind: bool, path: str) -> tuple[Field, ...]:
    """The conditions of one ``when`` entry. ``blind``: what a key holds that cannot be known here (True where a match denies)."""
    key = condition.key
    if not condition.values and not condition.not_values:
        raise Invalid(path, "needs values or notValues")
    if key.startswith("experimental.envoy.filters."):
        words = f"{key} cannot be known in this proxy: taken as {'matching' if blind else 'not matching'}"
        return (Field(words, lambda exchange: blind, lambda exchange: "unknown"),)
    maker = _KEYS.get(key)
    if maker is not None:
        make = maker(trust)
    elif key.startswith("request.headers"):
        names = _brackets(key.removeprefix("request.headers"), path)
        if len(names) != 1:
            raise Invalid(path + ".key", f'must be request.headers[name], not "{key}"')
        make = _header(names[0].lower().encode())
    elif key.startswith("request.auth.claims"):
        make = _claim(_brackets(key.removeprefix("request.auth.claims"), path))
    else:
        raise Invalid(path + ".key", f'"{key}" is unknown')
    return tuple(_pair(key, make, condition.values, condition.not_values, path, "values"))


def _brackets(text: str, path: str) -> tuple[str, ...]:
    """``[a][b]`` -> ("a", "b")."""
    if not (text.startswith("[") and text.endswith("]")):
        raise Invalid(path + ".key", f'"{text}" must be a name in brackets')
    names = tuple(text[1:-1].split("]["))
    if any(not name or "[" in name or "]" in name for name in names):
        raise Invalid(path + ".key", f'"{text}" must be names in brackets')
    return names
