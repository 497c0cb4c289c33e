"""Cluster room: what a live cluster says of itself, as plain values, for the admin pages, ``meshctl`` and other processes.

In: live clusters. Out: JSON-able dicts; ``merged`` adds up what several workers of one pod say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshproxy.cluster.cluster import Cluster
    from meshproxy.cluster.endpoint import Endpoint

__all__ = ["cluster_status", "merged"]

Status = dict[str, Any]


def cluster_status(cluster: Cluster, now: float) -> Status:
    """One cluster. ``now``: the loop's clock, for the seconds that an ejection still lasts at least."""
    limits, pool, outlier = cluster.limits, cluster.config.pool, cluster.config.outlier
    detector = cluster.detector
    return {
        "name": cluster.name,
        "type": cluster.config.type,
        "policy": cluster.config.lb.policy,
        "source": cluster.config.source,
        "thresholds": {
            "max_connections": pool.max_connections,
            "max_pending_requests": pool.max_pending_requests,
            "max_requests": pool.max_requests,
            "max_retries": pool.max_retries,
        },
        "active": {
            "connections": limits.connections,
            "pending": limits.pending,
            "requests": limits.requests,
            "retries": limits.retries,
        },
        "overflow": {
            "connections": limits.connection_overflow,
            "pending": limits.pending_overflow,
            "requests": limits.request_overflow,
            "retries": limits.retry_overflow,
        },
        "outlier": None
        if outlier is None or detector is None
        else {
            "max_ejection_percent": outlier.max_ejection_percent,
            "ejected": detector.ejected,
            "ejections": detector.ejections,
            "ejections_overflow": detector.overflows,
            "panic": cluster.panic,
        },
        "endpoints": [_endpoint_status(cluster, endpoint, now) for endpoint in cluster.members()],
    }


def _endpoint_status(cluster: Cluster, endpoint: Endpoint, now: float) -> Status:
    health, workload, locality = endpoint.health, endpoint.workload, endpoint.locality
    detector = cluster.detector
    left = 0.0
    if health.ejected and detector is not None:
        left = max(0.0, health.since + detector.ejection_time(health) - now)
    return {
        "address": endpoint.label.decode(),
        "workload": workload.workload if workload is not None else "",
        "pod": workload.pod if workload is not None else "",
        "locality": [locality.region, locality.zone, locality.sub_zone] if locality is not None else ["", "", ""],
        "weight": endpoint.weight,
        "priority": endpoint.priority,
        "health": "failed_outlier_check" if health.ejected else "healthy",
        "ejections": health.ejections,
        "ejected_for": round(left, 3),
        "rq_active": endpoint.active,
        "rq_total": endpoint.rq_total,
        "rq_success": endpoint.rq_success,
        "rq_error": endpoint.rq_error,
        "cx_active": endpoint.lines + (endpoint.pool.total if endpoint.pool is not None else 0),
        "cx_total": endpoint.cx_total,
        "cx_connect_fail": endpoint.cx_connect_fail,
    }


def merged(workers: Sequence[Iterable[Status]]) -> list[Status]:
    """The statuses of several workers as one: counts are added; a host is ejected when any worker has ejected it."""
    found: dict[str, Status] = {}
    for worker in workers:
        for status in worker:
            found[status["name"]] = _joined(found[status["name"]], status) if status["name"] in found else status
    return list(found.values())


_ADDED = ("rq_active", "rq_total", "rq_success", "rq_error", "cx_active", "cx_total", "cx_connect_fail", "ejections")


def _joined(one: Status, other: Status) -> Status:
    outlier = one["outlier"]
    if outlier is not None and other["outlier"] is not None:
        theirs = other["outlier"]
        outlier = {
            **outlier,
            "ejected": max(outlier["ejected"], theirs["ejected"]),
            "ejections": outlier["ejections"] + theirs["ejections"],
            "ejections_overflow": outlier["ejections_overflow"] + theirs["ejections_overflow"],
            "panic": outlier["panic"] or theirs["panic"],
        }
    endpoints = {endpoint["address"]: endpoint for endpoint in one["endpoints"]}
    for endpoint in other["endpoints"]:
        mine = endpoints.get(endpoint["address"])
        if mine is None:
            endpoints[endpoint["address"]] = endpoint
            continue
        worse = max(mine, endpoint, key=lambda status: (status["health"] != "healthy", status["ejected_for"]))
        sums = {name: mine[name] + endpoint[name] for name in _ADDED}
        endpoints[endpoint["address"]] = {**mine, "health": worse["health"], "ejected_for": worse["ejected_for"], **sums}
    return {
        **one,
        "active": {name: count + other["active"][name] for name, count in one["active"].items()},
        "overflow": {name: count + other["overflow"][name] for name, count in one["overflow"].items()},
        "outlier": outlier,
        "endpoints": list(endpoints.values()),
    }
