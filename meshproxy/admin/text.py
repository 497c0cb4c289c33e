"""Admin room: answers as the text that people who know Envoy expect. Pure: plain values in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["clusters_text", "listeners_text", "number", "stats_text"]

_UNLIMITED = 2**32 - 1


def clusters_text(clusters: Iterable[dict[str, Any]]) -> Iterator[str]:
    """``/clusters``: ``NAME::ADDRESS::KEY::VALUE`` lines, as Envoy's, from ``cluster.status.cluster_status``."""
    for cluster in clusters:
        name = cluster["name"]
        for key, envoy in (
            ("max_connections", "max_connections"),
            ("max_pending_requests", "max_pending_requests"),
            ("max_requests", "max_requests"),
            ("max_retries", "max_retries"),
        ):
            limit = cluster["thresholds"][key]
            yield f"{name}::default_priority::{envoy}::{_UNLIMITED if limit is None else limit}\n"
        outlier = cluster["outlier"]
        if outlier is not None:
            yield f"{name}::outlier::max_ejection_percent::{outlier['max_ejection_percent']}\n"
            yield f"{name}::outlier::ejections_active::{outlier['ejected']}\n"
            yield f"{name}::outlier::ejections_enforced_total::{outlier['ejections']}\n"
            yield f"{name}::outlier::ejections_overflow::{outlier['ejections_overflow']}\n"
            yield f"{name}::outlier::panic::{str(outlier['panic']).lower()}\n"
        for endpoint in cluster["endpoints"]:
            yield _endpoint_text(f"{name}::{endpoint['address']}::", endpoint)


def _endpoint_text(prefix: str, endpoint: dict[str, Any]) -> str:
    region, zone, sub_zone = endpoint["locality"]
    rows = {
        **{key: endpoint[key] for key in ("cx_active", "cx_connect_fail", "cx_total")},
        **{key: endpoint[key] for key in ("rq_active", "rq_error", "rq_success", "rq_total")},
        "hostname": endpoint["pod"],
        "health_flags": "healthy" if endpoint["health"] == "healthy" else f"/{endpoint['health']}",
        "ejections": endpoint["ejections"],
        "ejected_for": f"{endpoint['ejected_for']:g}",
        "weight": endpoint["weight"],
        "region": region,
        "zone": zone,
        "sub_zone": sub_zone,
        "priority": endpoint["priority"],
    }
    return "".join(f"{prefix}{key}::{value}\n" for key, value in rows.items())


def listeners_text(listeners: Iterable[dict[str, Any]]) -> str:
    """``/listeners``: ``NAME::ADDRESS`` lines."""
    return "".join(f"{listener['name']}::{listener['address']}\n" for listener in listeners)


def number(value: float) -> int | float:
    """Counts are whole."""
    return int(value) if value == int(value) else value


def stats_text(rows: Iterable[tuple[str, float]]) -> str:
    """``/stats``: ``name: value`` lines."""
    return "".join(f"{name}: {number(value)}\n" for name, value in rows)
