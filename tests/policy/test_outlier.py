"""Outlier detection, point by point of semantics B1, and as a state machine over a fake clock."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from meshproxy.model.cluster import Outlier
from meshproxy.policy.outlier import HostHealth, OutlierDetector


def made(hosts: int = 1, **config: object) -> tuple[OutlierDetector, list[HostHealth]]:
    config.setdefault("max_ejection_percent", 100)
    return OutlierDetector(Outlier(**config), hosts), [HostHealth() for _ in range(hosts)]  # type: ignore[arg-type]


def fail(detector: OutlierDetector, host: HostHealth, *statuses: int, now: float = 0.0, local: bool = False) -> list[bool]:
    return [detector.report(host, status, local, now) for status in statuses]


def test_ejects_at_once_when_the_run_is_complete() -> None:
    detector, (host,) = made(consecutive_5xx=3)
    assert fail(detector, host, 500, 503, 504) == [False, False, True]
    assert host.ejected and detector.ejected == 1


@pytest.mark.parametrize("status", [200, 301, 404, 499])
def test_one_good_answer_ends_the_run(status: int) -> None:
    detector, (host,) = made(consecutive_5xx=2, consecutive_gateway=2)
    assert fail(detector, host, 503, status, 503) == [False] * 3


def test_a_plain_500_ends_the_gateway_run_but_not_the_other() -> None:
    detector, (host,) = made(consecutive_5xx=4, consecutive_gateway=2)
    assert fail(detector, host, 502, 500, 503) == [False] * 3
    assert fail(detector, host, 504) == [True]
    assert detector.detected == {"5xx": 0, "gateway": 1, "local": 0}


@pytest.mark.parametrize("config", [{"consecutive_5xx": 0}, {"consecutive_5xx": 0, "consecutive_gateway": 0}])
def test_zero_is_off(config: dict[str, int]) -> None:
    detector, (host,) = made(**config)
    assert not any(fail(detector, host, *[503] * 50))


def test_local_failures_count_as_their_status_unless_split() -> None:
    detector, (host,) = made(consecutive_5xx=3)
    assert fail(detector, host, 503, local=True) + fail(detector, host, 500) + fail(detector, host, 504, local=True) == [
        False,
        False,
        True,
    ]


def test_split_local_failures_have_a_run_of_their_own() -> None:
    detector, (host,) = made(consecutive_5xx=2, split_local=True, consecutive_local=3)
    assert fail(detector, host, 503, 503, local=True) == [False, False]
    assert fail(detector, host, 503) == [False]  # an answer: the connection works
    assert fail(detector, host, 503, 503, 503, local=True) == [False, False, True]


def test_error_codes_replace_what_counts_but_a_dead_host_still_fails() -> None:
    detector, (host,) = made(consecutive_5xx=2, error_codes=(429, 503))
    assert fail(detector, host, 429, 500, 429) == [False] * 3  # 500 is a good answer now
    assert fail(detector, host, 503) == [True]
    other = HostHealth()
    assert fail(detector, other, 504, 503, local=True) == [False, False]  # refused: 100 % of one host is out
    assert detector.overflows == 1


def test_istios_default_percentage_never_ejects_one_of_few() -> None:
    detector, hosts = made(9, consecutive_5xx=1, max_ejection_percent=10)
    assert not any(fail(detector, hosts[0], *[500] * 5))
    assert (detector.overflows, detector.detected["5xx"]) == (5, 5)  # each run is detected anew
    detector.hosts = 10
    assert fail(detector, hosts[0], 500) == [True]
    assert fail(detector, hosts[1], 500) == [False]


@pytest.mark.parametrize(("hosts", "percent", "most"), [(3, 34, 1), (3, 66, 1), (3, 67, 2), (2, 50, 1), (4, 100, 4), (3, 0, 0)])
def test_admission(hosts: int, percent: int, most: int) -> None:
    detector, all_hosts = made(hosts, consecutive_5xx=1, max_ejection_percent=percent)
    for host in all_hosts:
        fail(detector, host, 500)
    assert detector.ejected == most and detector.overflows == hosts - most


def test_comes_back_only_on_a_sweep_and_whole() -> None:
    detector, (host,) = made(consecutive_5xx=2, base_ejection=30)
    fail(detector, host, 500, 500, now=5.0)
    assert not detector.sweep([host], 34.9) and host.ejected
    assert not detector.report(host, 200, False, 36.0) and host.ejected  # an answer that was on its way brings nobody back
    assert detector.sweep([host], 40.0) and not host.ejected
    assert fail(detector, host, 500, now=41.0) == [False]  # the run starts at 0


def test_results_of_an_ejected_host_eject_nobody() -> None:
    detector, (host,) = made(consecutive_5xx=1)
    assert fail(detector, host, 500, 500, 500) == [True, False, False]
    assert detector.ejections == 1


def test_the_time_grows_with_each_ejection_and_shrinks_with_each_good_interval() -> None:
    detector, (host,) = made(consecutive_5xx=1, base_ejection=10)
    now = 0.0
    for times in (1, 2, 3):
        fail(detector, host, 500, now=now)
        assert detector.ejection_time(host) == 10 * times
        now += 10 * times
        assert detector.sweep([host], now)
    detector.sweep([host], now + 1)  # healthy interval: 3 -> 2
    detector.sweep([host], now + 2)  # 2 -> 1
    fail(detector, host, 500, now=now + 3)
    assert detector.ejection_time(host) == 20


@pytest.mark.parametrize(("base", "longest"), [(120, 300), (30, 300), (600, 600)])
def test_the_time_is_bounded(base: float, longest: float) -> None:
    detector, (host,) = made(consecutive_5xx=1, base_ejection=base)
    now = 0.0
    for _ in range(30):
        fail(detector, host, 500, now=now)
        assert detector.ejection_time(host) <= longest
        now += detector.ejection_time(host)
        assert detector.sweep([host], now)
    assert detector.ejection_time(host) == longest


def test_who_leaves_makes_room() -> None:
    detector, hosts = made(2, consecutive_5xx=1, max_ejection_percent=50)
    fail(detector, hosts[0], 500)
    assert fail(detector, hosts[1], 500) == [False]
    detector.forget(hosts[0])
    assert detector.ejected == 0 and fail(detector, hosts[1], 500) == [True]


@settings(max_examples=60, stateful_step_count=40)
class OutlierMachine(RuleBasedStateMachine):
    """Random results, sweeps, comings and goings; checked against what B1 promises."""

    @initialize(
        percent=st.integers(0, 100),
        run=st.integers(1, 3),
        gateway=st.integers(0, 2),
        split=st.booleans(),
        hosts=st.integers(1, 6),
    )
    def begin(self, percent: int, run: int, gateway: int, split: bool, hosts: int) -> None:
        self.config = Outlier(
            consecutive_5xx=run,
            consecutive_gateway=gateway,
            consecutive_local=2,
            split_local=split,
            max_ejection_percent=percent,
            base_ejection=3,
            interval=1,
        )
        self.detector = OutlierDetector(self.config, hosts)
        self.hosts = [HostHealth() for _ in range(hosts)]
        self.now = 0.0
        self.out_since: dict[int, float] = {}

    @rule(which=st.integers(0, 5), status=st.sampled_from([200, 404, 500, 502, 503, 504]), local=st.booleans())
    def result(self, which: int, status: int, local: bool) -> None:
        host = self.hosts[which % len(self.hosts)]
        local = local and status >= 503
        was = host.ejected
        ejected = self.detector.report(host, status, local, self.now)
        assert ejected == (host.ejected and not was), "report tells of an ejection exactly when there is one"
        assert host.ejected >= was, "a result brings nobody back"
        if ejected:
            assert status >= 500
            assert 100 * self.detector.ejected <= self.config.max_ejection_percent * len(self.hosts)
            self.out_since[id(host)] = self.now

    @rule(seconds=st.floats(0.1, 5))
    def sweep(self, seconds: float) -> None:
        self.now += seconds
        before = [host.ejected for host in self.hosts]
        changed = self.detector.sweep(self.hosts, self.now)
        assert changed == (before != [host.ejected for host in self.hosts])
        for host, was in zip(self.hosts, before, strict=True):
            if was and not host.ejected:
                assert self.now - self.out_since.pop(id(host)) >= self.config.base_ejection
                assert (host.run, host.gateway_run, host.local_run) == (0, 0, 0)

    @rule()
    def arrive(self) -> None:
        self.hosts.append(HostHealth())
        self.detector.hosts = len(self.hosts)

    @rule(which=st.integers(0, 5))
    def leave(self, which: int) -> None:
        if len(self.hosts) > 1:
            host = self.hosts.pop(which % len(self.hosts))
            self.detector.forget(host)
            self.detector.hosts = len(self.hosts)

    @invariant()
    def the_count_is_right(self) -> None:
        if hasattr(self, "detector"):
            assert self.detector.ejected == sum(host.ejected for host in self.hosts)

    def teardown(self) -> None:
        if hasattr(self, "detector"):
            for _ in range(2):
                self.now += 1000
                self.detector.sweep(self.hosts, self.now)
            assert self.detector.ejected == 0, "every ejection ends"


TestOutlierMachine = OutlierMachine.TestCase
