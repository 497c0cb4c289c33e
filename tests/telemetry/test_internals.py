"""The proxy's own state as metrics."""

from __future__ import annotations

from meshproxy.cluster.cluster import Cluster
from meshproxy.message.head import RequestHead
from meshproxy.model import cluster as model
from meshproxy.telemetry.exposition import stats
from meshproxy.telemetry.family import merged
from meshproxy.telemetry.internals import cluster_families, process_families


def test_a_clusters_state() -> None:
    outlier = model.Outlier(consecutive_5xx=1, max_ejection_percent=50, min_health_percent=80)
    hosts = [model.Endpoint(address="h", port=port) for port in (1, 2)]
    pool = model.ConnectionPool(max_connections=2, max_pending_requests=0)
    budget = model.RetryBudget(percent=0.0, min_concurrency=1)
    cluster = Cluster(model.Cluster(name="c", outlier=outlier, pool=pool, retry_budget=budget), hosts)
    for endpoint in cluster.endpoints:
        cluster.report(endpoint, 503, False, 0.0)
    cluster.endpoints[0].cx_total, cluster.endpoints[1].cx_connect_fail = 3, 1
    cluster.limits.try_connection()
    cluster.limits.try_pending()
    cluster.limits.try_retry()
    cluster.limits.retried += 2
    idle = Cluster(model.Cluster(name="idle"), hosts)
    found = dict(stats(cluster_families([cluster, idle])))
    assert found == {
        "cluster.c.upstream_cx_active": 1,
        "cluster.c.upstream_rq_active": 0,
        "cluster.c.upstream_rq_pending_active": 0,
        "cluster.c.upstream_rq_retry_active": 1,
        "cluster.c.upstream_cx_overflow": 0,
        "cluster.c.upstream_rq_pending_overflow": 1,
        "cluster.c.upstream_rq_overflow": 0,
        "cluster.c.upstream_rq_retry": 2,
        "cluster.c.upstream_rq_retry_overflow": 0,
        "cluster.c.upstream_cx_none_healthy": 0,
        "cluster.c.upstream_rq_total": 2,
        "cluster.c.upstream_cx_total": 3,
        "cluster.c.upstream_cx_connect_fail": 1,
        "cluster.c.circuit_breakers.default.cx_open": 0,
        "cluster.c.circuit_breakers.default.rq_pending_open": 1,
        "cluster.c.circuit_breakers.default.rq_open": 0,
        "cluster.c.circuit_breakers.default.rq_retry_open": 1,
        "cluster.c.circuit_breakers.default.rq_retry_max": 1,
        "cluster.c.membership_total": 2,
        "cluster.c.membership_healthy": 1,
        "cluster.c.lb_healthy_panic": 1,
        "cluster.c.outlier_detection.ejections_active": 1,
        "cluster.c.outlier_detection.ejections_enforced_total": 1,
        "cluster.c.outlier_detection.ejections_overflow": 1,
    }


def test_counters_do_not_fall_when_endpoints_leave() -> None:
    cluster = Cluster(model.Cluster(name="c"), [model.Endpoint(address="h", port=1)])
    cluster.report(cluster.endpoints[0], 200, False, 0.0)
    cluster.endpoints[0].cx_total, cluster.endpoints[0].cx_connect_fail = 2, 1
    cluster.update(cluster.config, [])
    found = dict(stats(cluster_families([cluster])))
    names = ("upstream_rq_total", "upstream_cx_total", "upstream_cx_connect_fail")
    assert [found[f"cluster.c.{name}"] for name in names] == [1, 2, 1]


def test_a_cluster_without_hosts_that_was_asked_is_shown() -> None:
    cluster = Cluster(model.Cluster(name="c"))
    cluster.pick(RequestHead(b"GET", b"/", b"a", []), "", (), 0.0, lambda: 0.0)
    assert dict(stats(cluster_families([cluster])))["cluster.c.upstream_cx_none_healthy"] == 1


def test_workers_that_disagree_are_shown_at_their_worst() -> None:
    outlier = model.Outlier(consecutive_5xx=1, max_ejection_percent=100)
    hosts = [model.Endpoint(address="h", port=port) for port in (1, 2)]
    workers = [Cluster(model.Cluster(name="c", outlier=outlier), hosts) for _ in range(2)]
    for worker, status in zip(workers, (200, 503), strict=True):
        worker.report(worker.endpoints[0], status, False, 0.0)
    found = dict(stats(merged([cluster_families([worker]) for worker in workers])))
    names = ("membership_total", "membership_healthy", "outlier_detection.ejections_active", "upstream_rq_total")
    assert [found[f"cluster.c.{name}"] for name in names] == [2, 1, 1, 2]


def test_what_the_process_takes() -> None:
    memory, cpu = process_families()
    assert memory.rows[0].value > 1_000_000 and cpu.rows[0].value > 0
