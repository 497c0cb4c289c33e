"""The benchmark of telemetry works, and its ratios are what their names say."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from benchmarks.seeing import ratios


def test_ratios_are_taken_within_a_round() -> None:
    """A machine that is twice as slow in one round changes nothing."""

    def rows(cost: float) -> list[dict[str, dict[str, float]]]:
        return [{"c32": {"cpu_us": cost * slow}, "open": {"cpu_us": cost * slow * 2}} for slow in (1, 2, 1)]

    costs = {"nothing": 40.0, "metrics": 41.0, "traces": 44.0, "log": 50.0, "Envoy": 80.0, "Envoy log": 100.0}
    found = ratios({name: rows(cost) for name, cost in costs.items()}).values()
    for which in zip(*found, strict=True):
        assert which == pytest.approx((1.0, 0.1, 0.1, 0.25, 0.25, 0.5, 0.5, 0.25))


@pytest.mark.slow
@pytest.mark.system("wrk", "nginx", "taskset")
@pytest.mark.timeout(300)
def test_a_quick_run_logs_and_traces_what_it_should() -> None:
    """It ends with an error unless every request was logged and 1 % became spans. Envoy is in ``make bench`` only."""
    number = os.getpid()
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.seeing", "--quick", "--only=nothing", "--only=log"],
        capture_output=True,
        text=True,
        env={**os.environ, "BENCH_NETWORK": f"127.{100 + number % 100}.{number // 100 % 250}"},
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "the access log too, more than nothing" in run.stdout
