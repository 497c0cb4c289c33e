"""When a sidecar's doors close after a stop, and when it goes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.bootstrap import Bootstrap
from meshproxy.ending import Plan, Seen, Step, listening_ports, plan_of, step


def plan(asked: bool = False, **told: Any) -> Plan:
    return plan_of(Bootstrap(pod="web", **told), asked)


POD = {"termination_seconds": 5.0}


@pytest.mark.parametrize(
    ("made", "elapsed", "connections", "app", "expected"),
    [
        (plan(), 0, 0, True, Step.EXIT),  # without a pod nobody lingers
        (plan(), 0, 1, True, Step.CLOSE),
        (plan(), 44, 1, False, Step.CLOSE),
        (plan(), 45, 1, False, Step.EXIT),
        (plan(**POD), 0, 0, False, Step.OPEN),
        (plan(**POD), 4.9, 0, False, Step.OPEN),
        (plan(**POD), 5, 0, False, Step.EXIT),
        (plan(**POD), 5, 1, False, Step.CLOSE),
        (plan(**POD), 5, 0, True, Step.OPEN),  # the app is still there
        (plan(**POD), 45, 1, True, Step.EXIT),
        (plan(**POD, role="gateway"), 5, 0, True, Step.EXIT),  # a gateway has no app
        (plan(**POD, role="gateway"), 4, 0, False, Step.OPEN),
        (plan(termination_seconds=60.0), 50, 0, False, Step.OPEN),  # as long as it is told, whatever the cap
        (plan(termination_seconds=60.0), 60, 1, True, Step.EXIT),
        (plan(**POD, native=True), 0, 0, True, Step.EXIT),  # the app has gone before us
        (plan(**POD, native=True), 0, 1, True, Step.CLOSE),
        (plan(True, **POD), 0, 0, True, Step.EXIT),  # the app itself said so
        (plan(**POD, exit_on_zero=True, minimum_drain=7.0), 6, 0, False, Step.OPEN),
        (plan(**POD, exit_on_zero=True, minimum_drain=7.0), 7, 0, True, Step.EXIT),
        (plan(**POD, exit_on_zero=True, minimum_drain=7.0), 3600, 1, False, Step.OPEN),
    ],
)
def test_steps(made: Plan, elapsed: float, connections: int, app: bool, expected: Step) -> None:
    assert step(made, elapsed, Seen(connections, app)) is expected


PLANS = st.builds(
    lambda **told: plan_of(SimpleNamespace(**told)),
    role=st.sampled_from(["sidecar", "gateway"]),
    drain_seconds=st.floats(0, 100),
    termination_seconds=st.floats(0, 100),
    exit_on_zero=st.booleans(),
    minimum_drain=st.floats(0, 100),
    native=st.booleans(),
)


@given(PLANS, st.lists(st.tuples(st.floats(0, 30), st.integers(0, 2), st.booleans()), max_size=20))
def test_it_ends_in_time_and_never_before_it_may(made: Plan, story: list[tuple[float, int, bool]]) -> None:
    elapsed = 0.0
    for pause, connections, app in story:
        elapsed += pause
        told = step(made, elapsed, Seen(connections, app))
        if elapsed < min(made.linger, made.cap):
            assert told is Step.OPEN
        if told is Step.EXIT:
            assert not connections or elapsed >= made.cap
    assert step(made, made.cap, Seen(1, True)) is Step.EXIT
    assert step(made, made.linger, Seen(0, False)) is Step.EXIT


TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0000000000000000 100 0 0 10 0
   1: 0100007F:3A98 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1337        0 2 1 0000000000000000 100 0 0 10 0
   2: 0100007F:9C40 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0000000000000000 100 0 0 10 0
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000
"""


def test_who_listens() -> None:
    assert listening_ports([TCP, TCP6]) == {8080, 15000, 80}
    assert listening_ports(["", "sl\n", "sl\nnonsense\n"]) == set()
