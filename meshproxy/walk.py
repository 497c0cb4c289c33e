"""The walk: which filters the requests of a listener pass, in which order. That order is behaviour; it stands in three tables.

In: a listener, its route tables, the workload's policies compiled. Out: ``walk``: filters, each with its response hook. Assumes
that everything was compiled before: nothing here can be refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from meshproxy.filters.authn import authn_filter, veil_filter
from meshproxy.filters.chain import Filter, Hook
from meshproxy.filters.cors import cors, cors_response
from meshproxy.filters.fault import fault_abort, fault_delay
from meshproxy.filters.identity import gateway_identity, identity_response, sidecar_identity
from meshproxy.filters.misdirected import misdirected
from meshproxy.filters.route import route_filter, route_response
from meshproxy.filters.tracing import trace_route, tracing_filter
from meshproxy.message.decision import Decision
from meshproxy.model.listener import Listener
from meshproxy.model.security import ServerTls
from meshproxy.policy.context import CompiledTracing
from meshproxy.policy.jwt import Verifier
from meshproxy.policy.rbac import CompiledPolicy
from meshproxy.policy.routes import RouteTable

__all__ = ["Guard", "ServerOf", "Stage", "Tables", "walk"]

Tables = tuple[RouteTable, ...]
ServerOf = Callable[[str], ServerTls | None]  # a server name -> the gateway's TLS server that it means


class Stage(NamedTuple):
    """A filter and, where it has one, its response hook."""

    filter: Filter
    hook: Hook | None = None


class Guard(NamedTuple):
    """The workload's policies, compiled; each None where there is none. In force on its inbound and gateway listeners."""

    verifier: Verifier | None = None
    policies: tuple[CompiledPolicy, ...] = ()
    ext_authz: tuple[Stage, ...] = ()  # one for each provider of CUSTOM policies
    authz: Stage | None = None
    vouches: bool = False  # a claim or an authoriser's word may become a header
    tracing: tuple[CompiledTracing, ...] = ()
    admit: Callable[[Any], tuple[Decision, ...]] | None = None  # what the policies say of a connection of bytes


# -- the walk, as tables (an absent policy is an absent filter). identity stands first, before cors, because it settles what a
# route is chosen by (path, scheme), and cors asks for the route.


def inbound(listener: Listener, tables: Tables, guard: Guard, server_of: ServerOf) -> tuple[Stage | None, ...]:
    tracing, noted = _tracing(guard, "SERVER")
    return (
        Stage(sidecar_identity(listener.path_normalization), identity_response if listener.mtls != "DISABLE" else None),
        _veil(guard),
        _traced(tracing),
        *guard.ext_authz,
        _authn(guard, False),
        guard.authz,
        Stage(cors, cors_response) if any(table.has_cors for table in tables) else None,
        noted,
        Stage(fault_delay) if any(table.has_fault for table in tables) else None,
        Stage(fault_abort) if any(table.has_fault for table in tables) else None,
        _route(listener.port, tables),
    )


def outbound(
    listener: Listener, tables: Tables, guard: Guard, server_of: ServerOf, tunnels: bool = True
) -> tuple[Stage | None, ...]:
    """``tunnels``: CONNECT is for us; what was intercepted is for whom it was meant for."""
    tracing, noted = _tracing(guard, "CLIENT")
    return (
        Stage(sidecar_identity(listener.path_normalization, tunnels=tunnels, tracing=tracing)),
        Stage(cors, cors_response) if any(table.has_cors for table in tables) else None,
        noted,
        Stage(fault_delay) if any(table.has_fault for table in tables) else None,
        Stage(fault_abort) if any(table.has_fault for table in tables) else None,
        _route(None, tables),
    )


def gateway(listener: Listener, tables: Tables, guard: Guard, server_of: ServerOf) -> tuple[Stage | None, ...]:
    tracing, noted = _tracing(guard, "CLIENT")
    return (
        Stage(gateway_identity(listener.path_normalization)),
        _veil(guard),
        _traced(tracing),
        Stage(misdirected(server_of)) if len(listener.tls) > 1 else None,
        Stage(cors, cors_response) if any(table.has_cors for table in tables) else None,
        *guard.ext_authz,
        _authn(guard, any(table.has_cors for table in tables)),
        guard.authz,
        noted,
        Stage(fault_delay) if any(table.has_fault for table in tables) else None,
        Stage(fault_abort) if any(table.has_fault for table in tables) else None,
        _route(listener.port, tables, b"https" if listener.tls else b"http"),
    )


def _tracing(guard: Guard, mode: str) -> tuple[CompiledTracing | None, Stage | None]:
    """The traces that this direction takes part in, and who notes their route later."""
    for one in guard.tracing:
        if one.model.mode in (mode, "CLIENT_AND_SERVER"):
            return one, Stage(trace_route) if one.report else None
    return None, None


def _traced(tracing: CompiledTracing | None) -> Stage | None:
    return Stage(tracing_filter(tracing)) if tracing is not None else None


def _veil(guard: Guard) -> Stage | None:
    params = guard.verifier.places.params if guard.verifier is not None else None
    return Stage(veil_filter(params)) if params else None


def _authn(guard: Guard, chosen_before: bool) -> Stage | None:
    return Stage(authn_filter(guard.verifier, chosen_before)) if guard.verifier is not None else None


def _route(port: int | None, tables: Tables, scheme: bytes = b"http") -> Stage:
    return Stage(route_filter(port, scheme), route_response if any(table.has_response_ops for table in tables) else None)


_WALKS = {"inbound": inbound, "outbound": outbound, "gateway": gateway}


def walk(listener: Listener, tables: Tables, guard: Guard, server_of: ServerOf, intercepted: bool = False) -> tuple[Stage, ...]:
    """What a request at this listener passes, in order."""
    if intercepted and listener.direction == "outbound":
        return tuple(stage for stage in outbound(listener, tables, guard, server_of, False) if stage is not None)
    return tuple(stage for stage in _WALKS[listener.direction](listener, tables, guard, server_of) if stage is not None)
