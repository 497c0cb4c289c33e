"""What clusters say of themselves, alone and merged over workers."""

from __future__ import annotations

import msgspec

from meshproxy.cluster.cluster import Cluster
from meshproxy.cluster.status import cluster_status, merged
from meshproxy.model import cluster as model


def made() -> Cluster:
    workload = model.Workload(workload="rating", pod="rating-1")
    config = model.Cluster(
        name="outbound|80||rating",
        outlier=model.Outlier(consecutive_5xx=1, base_ejection=30, max_ejection_percent=50),
        pool=model.ConnectionPool(max_connections=3),
        source="DestinationRule default/rating",
    )
    locality = model.Locality(region="r", zone="z")
    return Cluster(
        config,
        [
            model.Endpoint(address="10.0.0.1", port=80, workload=workload, locality=locality),
            model.Endpoint(address="10.0.0.2", port=80),
        ],
    )


def test_a_cluster() -> None:
    cluster = made()
    cluster.report(cluster.endpoints[0], 200, False, 1.0)
    cluster.report(cluster.endpoints[1], 503, False, 1.0)
    cluster.report(cluster.endpoints[0], 503, False, 1.0)  # refused: 50 % are out
    status = cluster_status(cluster, 11.0)
    assert status["thresholds"]["max_connections"] == 3 and status["thresholds"]["max_retries"] is None
    assert status["outlier"] == {
        "max_ejection_percent": 50,
        "ejected": 1,
        "ejections": 1,
        "ejections_overflow": 1,
        "panic": False,
    }
    one, two = status["endpoints"]
    assert (one["address"], one["workload"], one["pod"], one["locality"]) == ("10.0.0.1:80", "rating", "rating-1", ["r", "z", ""])
    assert (one["health"], one["rq_total"], one["rq_success"], one["rq_error"]) == ("healthy", 2, 1, 1)
    assert (two["health"], two["ejected_for"], two["ejections"]) == ("failed_outlier_check", 20.0, 1)
    assert msgspec.json.decode(msgspec.json.encode(status)) == status


def test_workers_add_up() -> None:
    one, two = made(), made()
    one.report(one.endpoints[0], 200, False, 1.0)
    two.report(two.endpoints[0], 503, False, 2.0)
    one.limits.try_connection()
    two.limits.try_connection()
    two.update(
        two.config,
        [*(model.Endpoint(address=e.address, port=e.port) for e in two.endpoints), model.Endpoint(address="z", port=1)],
    )
    (status,) = merged([[cluster_status(one, 2.0)], [cluster_status(two, 2.0)]])
    assert status["active"]["connections"] == 2 and status["outlier"]["ejections"] == 1
    assert [endpoint["address"] for endpoint in status["endpoints"]] == ["10.0.0.1:80", "10.0.0.2:80", "z:1"]
    first = status["endpoints"][0]
    assert (first["health"], first["ejected_for"], first["rq_total"], first["rq_error"]) == ("failed_outlier_check", 30.0, 2, 1)


def test_no_outlier_detection_says_nothing_of_it() -> None:
    status = cluster_status(Cluster(model.Cluster(name="c")), 0.0)
    assert status["outlier"] is None and merged([[status], [status]])[0]["outlier"] is None
