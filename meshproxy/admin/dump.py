"""Admin room: ``/config_dump``, what the proxy runs, by kind, each resource with its version. Pure.

In: what the agent holds. Out: a JSON-able dict. There is no secret in it: resources carry none, and the settings name files only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from meshproxy.model.delivery import ORDER

__all__ = ["config_dump", "select"]


class Held(Protocol):
    """A resource as the agent holds it."""

    @property
    def version(self) -> str: ...
    @property
    def value(self) -> Any: ...


def config_dump(node: str, version: str, held: Mapping[str, Mapping[str, Held]]) -> dict[str, Any]:
    """``configs``: one entry per kind, in the order of delivery, ``resources`` sorted by name; ``version``: the snapshot's."""
    return {
        "node": node,
        "version": version,
        "configs": [
            {
                "kind": kind,
                "resources": [
                    {"name": name, "version": entry.version, "config": msgspec.to_builtins(entry.value)}
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
