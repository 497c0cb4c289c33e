"""Shares of requests, and the answer of an abort."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.message.reason import Reason
from meshproxy.model.route import Abort, Delay, Fault
from meshproxy.policy.fault import MILLION, CompiledFault, parts_per_million
from meshproxy.policy.invalid import Invalid


@pytest.mark.parametrize(
    ("percent", "share"),
    [(0.0, 0), (0.0001, 1), (0.00009, 0), (0.00019, 1), (50.0, 500_000), (33.3333, 333_333), (100.0, 1_000_000)],
)
def test_precision(percent: float, share: int) -> None:
    assert parts_per_million(percent, "p") == share


@given(st.floats(0, 1, exclude_max=True))
def test_never_and_always(draw: float) -> None:
    never = CompiledFault(Fault(delay=Delay(seconds=1, percent=0), abort=Abort(percent=0, status=500)), "f")
    always = CompiledFault(Fault(delay=Delay(seconds=1, percent=100), abort=Abort(percent=100, status=500)), "f")
    assert not never.delays(draw) and not never.aborts(draw)
    assert always.delays(draw) and always.aborts(draw)


def test_a_share_is_met() -> None:
    fault = CompiledFault(Fault(abort=Abort(percent=0.5, status=500)), "f")
    dice = random.Random(3)
    assert 450 < sum(fault.aborts(dice.random()) for _ in range(100_000)) < 550
    assert fault.aborts((fault.abort_share - 1) / MILLION) and not fault.aborts(fault.abort_share / MILLION)


def test_replies() -> None:
    reply = CompiledFault(Fault(abort=Abort(percent=1, status=418)), "f").reply()
    assert (reply.head.status, reply.body, reply.reason, reply.detail) == (
        418,
        b"fault filter abort",
        Reason.FAULT_ABORT,
        "fault_filter_abort",
    )
    assert reply.head.headers == [(b"content-length", b"18"), (b"content-type", b"text/plain")]
    grpc = CompiledFault(Fault(abort=Abort(percent=1, grpc_status=14)), "f").reply()
    assert (grpc.head.status, grpc.body) == (200, b"")
    assert (b"grpc-status", b"14") in grpc.head.headers and (b"content-type", b"application/grpc") in grpc.head.headers


@pytest.mark.parametrize(
    ("fault", "path"),
    [
        (Fault(delay=Delay(seconds=1, percent=101)), "f.delay.percent"),
        (Fault(delay=Delay(seconds=0, percent=1)), "f.delay.seconds"),
        (Fault(abort=Abort(percent=-1, status=500)), "f.abort.percent"),
        (Fault(abort=Abort(percent=1)), "f.abort"),
        (Fault(abort=Abort(percent=1, status=500, grpc_status=1)), "f.abort"),
        (Fault(abort=Abort(percent=1, status=600)), "f.abort.status"),
        (Fault(abort=Abort(percent=1, grpc_status=17)), "f.abort.grpc_status"),
    ],
)
def test_bad_faults(fault: Fault, path: str) -> None:
    with pytest.raises(Invalid) as caught:
        CompiledFault(fault, "f")
    assert caught.value.path == path
