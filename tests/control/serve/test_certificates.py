"""How often one pod may ask."""

from __future__ import annotations

from control.serve.certificates import BURST, MAX_BUCKETS, _Buckets

A, B = ("default", "a"), ("default", "b")


def test_a_pod_that_asks_in_a_loop_waits_and_others_do_not() -> None:
    now = [0.0]
    buckets = _Buckets(lambda: now[0])
    assert [buckets.take(A) for _ in range(int(BURST))] == [0.0] * int(BURST)
    assert buckets.take(A) == 1.0
    assert buckets.take(B) == 0.0
    now[0] = 0.75
    assert buckets.take(A) == 0.25
    now[0] = 1.0
    assert (buckets.take(A), buckets.take(A)) == (0.0, 1.0)
    now[0] = 1000.0
    assert [buckets.take(A) for _ in range(int(BURST))] == [0.0] * int(BURST)  # no more than that is saved up
    assert buckets.take(A) > 0


def test_pods_that_asked_long_ago_are_forgotten() -> None:
    now = [0.0]
    buckets = _Buckets(lambda: now[0])
    for number in range(MAX_BUCKETS):
        buckets.take(("default", str(number)))
    now[0] = 2.0
    buckets.take(A)
    assert len(buckets._left) == 1
