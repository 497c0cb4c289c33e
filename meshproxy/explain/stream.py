"""Explanations of connections: what becomes of one below HTTP, by the chain, the policies and the route that would decide it.

In: a snapshot, a listener (or one of its chains), ``tcp://host:port`` and who calls. Out: an ``Explanation`` without status: a
connection that goes nowhere is reset. Nothing is sent and nothing counted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

from meshproxy.apply import CompiledListener, Snapshot, trust_of
from meshproxy.compiled import route_of
from meshproxy.explain.destination import destination, trusting
from meshproxy.explain.guard import enter
from meshproxy.explain.model import Explanation
from meshproxy.explain.request import caller_from
from meshproxy.message.head import RequestHead
from meshproxy.model.security import Security, Trust
from meshproxy.policy.rbac import compile_policies
from meshproxy.policy.rbac_explain import explain_policies
from meshproxy.policy.rbac_match import address_of
from meshproxy.policy.routes import Step
from meshproxy.policy.tcp_routes import names

__all__ = ["explain_stream", "is_stream"]

_NOWHERE = "0.0.0.0"  # for a name whose address is not known here


class _Probe:
    """A connection that only looks (``InFlight``, as far as policies for bytes ask)."""

    def __init__(self, listener: CompiledListener, source: str, address: str, port: int, secured: Any, sni: str) -> None:
        self.listener = listener
        self.source = source
        self.local = (address, port)
        self.secured = secured
        self.sni = sni
        self.request = RequestHead(b"", b"", b"", [])


def is_stream(given: Mapping[str, Any]) -> bool:
    return str(given.get("url") or "").startswith("tcp://")


def explain_stream(
    snapshot: Snapshot, compiled: CompiledListener, given: Mapping[str, Any], source: str, now: float | None, wall: float
) -> Explanation:
    """Raises ValueError, one line."""
    host, port = _destination(str(given["url"]))
    sni = str(given.get("sni") or "").lower()
    caller = caller_from(given, source, trusting(snapshot)[1])
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    request = {"method": "open", "scheme": "tcp", "authority": shown, "path": f" (server name {sni})" if sni else ""}
    chain, address, steps = _chain(compiled, host, port, _services(snapshot))

    def told(listener: CompiledListener, decision: str, **more: Any) -> Explanation:
        about = {"source": caller.source, "principal": caller.principal} if listener.direction != "outbound" else {}
        return Explanation(listener.name, snapshot.version, request, decision, None, caller=about, steps=steps, **more)

    if chain is None:
        return told(compiled, "no route")
    ends = compiled.direction == "gateway" and bool(compiled.model.tls) and not compiled.passes_through(chain, sni, address)
    entry = enter(snapshot, compiled, caller, sni, b"", wall) if ends else enter(snapshot, chain, caller, host, b"", wall)
    if entry.refused:
        return told(chain, "not let in", mtls=entry.told)
    if ends:
        chain = entry.listener
    if chain.protocol == "HTTP":
        if ends:
            raise ValueError(f"sni: TLS for {sni or 'no name'} ends here and has HTTP in it: ask for https://{sni or shown}/")
        raise ValueError(f"url: {shown} is a port of HTTP ({chain.name}): ask for http://{shown}/")
    guarded: dict[str, Any] = {"mtls": entry.told}
    if chain.direction != "outbound":
        probe = _Probe(chain, caller.source, address, port, entry.secured, sni)
        guarded["authorization"] = [rule._asdict() for rule in explain_policies(_policies(snapshot), probe)]  # type: ignore[arg-type]
        for decision in chain.admit(probe) if chain.admit is not None else ():
            if not decision.allowed and not decision.dry_run:
                return told(chain, "denied", because=decision.reason, **guarded)
    assert chain.streams is not None
    chosen = chain.streams.choose(sni, address)
    if chosen is None:
        steps.append(Step("route", "", "", False, "no route of the chain takes this server name and address"))
        return told(chain, "no route", **guarded)
    route = route_of(chosen, chain.name)
    steps.append(Step("route", route.name, route.model.source, True, "the first that takes this server name and address"))
    head = RequestHead(b"", b"", shown.encode(), [])
    destinations = [destination(snapshot, chain, route, choice, head, head, now) for choice in route.choices]
    for one in destinations:
        one.pop("forwarded", None)
    decision_made = "forward"
    if not any(one["known"] for one in destinations):
        decision_made = "no cluster"
    elif all("reason" in one for one in destinations):
        decision_made = "no healthy upstream"
    about = {"name": route.name, "source": route.model.source, "kind": "bytes"}
    return told(chain, decision_made, route=about, destinations=destinations, **guarded)


def _destination(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    if not parts.hostname or not port:
        raise ValueError(f'url: must be "tcp://host:port", not {url!r}')
    return parts.hostname, port


def _chain(
    compiled: CompiledListener, host: str, port: int, services: Collection[str]
) -> tuple[CompiledListener | None, str, list[Step]]:
    """The chain, the address that it is asked by, and why."""
    address = str(found) if (found := address_of(host)) is not None else _NOWHERE
    if compiled.streams is not None:  # it is one itself
        return compiled, address, []
    if compiled.chains is None:
        reason = "it takes no intercepted connections, and a service of bytes by its name (CONNECT) neither"
        return None, address, [Step("listener", compiled.name, "", False, reason)]
    if address == _NOWHERE and compiled.direction == "outbound":
        for name, model in compiled.chains.models.items():
            if model.port == port and model.hosts and names(model.hosts, "hosts")(host.lower()):
                first = next((place for place in model.addresses if address_of(place) is not None), _NOWHERE)
                step = Step("listener", name, "", True, f'"{host}" is a name of this chain')
                return compiled.chains.by_name[name], first, [step]
    chain = compiled.chains.find(address, port)
    if chain is None:
        return None, address, [Step("listener", compiled.name, "", False, f"no chain takes {host} and port {port}")]
    reason = f"the most specific chain for {host}, port {port}"
    if address == _NOWHERE and compiled.direction == "outbound":
        reason += "; no chain has this name, so it is taken as an address that nobody knows"
        if host.lower() in services:
            reason += f" (a service has it, but none of bytes at port {port} that is reached by name: ask by its address)"
    return chain, address, [Step("listener", chain.name, "", True, reason)]


def _services(snapshot: Snapshot) -> frozenset[str]:
    """The names that the services of our clusters go by."""
    known = (cluster.service for cluster in snapshot.clusters.values() if cluster.service is not None)
    return frozenset(name for one in known for name in (one.host, one.name, f"{one.name}.{one.namespace}"))


def _policies(snapshot: Snapshot) -> Any:
    model = snapshot.resources.get("security", {}).get("workload")
    return compile_policies(model.policies, trust_of(snapshot.resources) or Trust(), True) if isinstance(model, Security) else ()
