"""Admin room: ``/config_dump``, what the proxy runs, by kind, each resource with its version. Pure.

In: what the agent holds. Out: a JSON-able dict. There is no secret in it: ``shown`` covers keys, and what
collectors of traces are asked with, whoever asks for a resource.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from meshproxy.model.delivery import ORDER
from meshproxy.model.security import JwtProvider, Secret, Security
from meshproxy.model.telemetry import Telemetry, Tracing

__all__ = ["COVERED", "config_dump", "select", "shown"]

COVERED = "[redacted]"
# What a JSON Web Key holds besides its public part (RFC 7518, 6.2.2, 6.3.2, 6.4.1).
_PRIVATE = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k"))


class Held(Protocol):
    """A resource as the agent holds it."""

    @property
    def version(self) -> str: ...
    @property
    def value(self) -> Any: ...


def shown(value: Any) -> Any:
    """A resource as plain values for people's eyes: certificates and public keys as they are, what is secret covered."""
    if isinstance(value, Secret):
        value = msgspec.structs.replace(value, key=COVERED if value.key else "")
    elif isinstance(value, Security):
        value = msgspec.structs.replace(value, jwt=tuple(map(_provider, value.jwt)))
    elif isinstance(value, Telemetry):
        value = msgspec.structs.replace(value, tracing=tuple(map(_tracing, value.tracing)))
    return msgspec.to_builtins(value)


def _tracing(tracing: Tracing) -> Tracing:
    """A collector's headers are how it is asked for leave: names are shown, values are not."""
    return msgspec.structs.replace(tracing, exporter_headers=tuple((name, COVERED) for name, _ in tracing.exporter_headers))


def _provider(provider: JwtProvider) -> JwtProvider:
    """A key set may hold the secret of HS256, or by mistake a private key."""
    if not provider.jwks:
        return provider
    try:
        keys = msgspec.json.decode(provider.jwks, type=dict[str, list[dict[str, Any]]])
    except msgspec.DecodeError:  # nobody can tell what it is
        return msgspec.structs.replace(provider, jwks=COVERED)
    if keys.keys() == {"keys"} and all(_PRIVATE.isdisjoint(key) for key in keys["keys"]):
        return provider
    public = [{name: COVERED if name in _PRIVATE else part for name, part in key.items()} for key in keys.get("keys", ())]
    return msgspec.structs.replace(provider, jwks=msgspec.json.encode({"keys": public}).decode())


def config_dump(node: str, version: str, held: Mapping[str, Mapping[str, Held]]) -> dict[str, Any]:
    """``configs``: one entry per kind, in the order of delivery, ``resources`` sorted by name; ``version``: the snapshot's."""
    return {
        "node": node,
        "version": version,
        "configs": [
            {
                "kind": kind,
                "resources": [
                    {"name": name, "version": entry.version, "config": shown(entry.value)}
                    for name, entry in sorted(held.get(kind, {}).items())
                ],
            }
            for kind in ORDER
        ],
    }


def select(dump: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    """Only one kind and/or one resource of a dump; "" for all."""
    return {
        **dump,
        "configs": [
            {**config, "resources": [entry for entry in config["resources"] if not name or entry["name"] == name]}
            for config in dump["configs"]
            if not kind or config["kind"] == kind
        ],
    }
