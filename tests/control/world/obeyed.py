"""What translation gives, as the proxy itself reads it."""

from __future__ import annotations

from typing import Any

from control.translate import Snapshot
from meshproxy.apply import compile_snapshot
from meshproxy.cluster.cluster import Cluster as LiveCluster
from meshproxy.model.base import Model
from meshproxy.model.delivery import KINDS


def compiled(snapshot: Snapshot) -> Any:
    """By the proxy's own judgement; raises what it would refuse with."""
    resources: dict[str, dict[str, Model]] = {kind: {} for kind in KINDS}
    for kind, name in snapshot.resources:
        found = snapshot.get(kind, name)
        assert found is not None
        resources[kind][name] = found

    def make(config: Any, endpoints: Any, old: Any) -> LiveCluster:
        return LiveCluster(config, endpoints)

    return compile_snapshot(resources, None, make)
