"""Policy room: outlier detection (Envoy), Istio's circuit breaker per host. Pure; the clock comes in as ``now``.

In: results of requests, one by one, at response time, and a sweep every ``interval``. Out: hosts marked ejected. There is no
half-open state and no probe: a host comes back whole at the first sweep after its time, and only there.

Source of behaviour: semantics B1; Envoy ``upstream/outlier_detection_impl.cc``. Counters are per host and per proxy. What the
host never saw (overflow, no healthy host, fault abort, a client that went away) must not be reported at all.

Assumes: one thread; hosts are told to ``forget`` when they leave; ``hosts`` is kept at the number of hosts in the cluster.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from meshproxy.model.cluster import Outlier

__all__ = ["HostHealth", "OutlierDetector"]

Cause = Literal["5xx", "gateway", "local"]

MAX_EJECTION = 300.0  # seconds; Envoy's max_ejection_time default, raised to the base when that is longer (B1.6)

_OK, _ERROR, _GATEWAY = 0, 1, 2
_TABLE_SIZE = 1000  # statuses 0..999


class HostHealth:
    """One host's outlier state. ``since``: when the present ejection began; ``multiplier``: of the next ejection's time."""

    __slots__ = ("ejected", "ejections", "gateway_run", "local_run", "multiplier", "run", "since")

    def __init__(self) -> None:
        self.ejected = False
        self.since = 0.0
        self.multiplier = 0
        self.ejections = 0
        self.run = 0  # consecutive errors
        self.gateway_run = 0
        self.local_run = 0

    def reset_runs(self) -> None:
        self.run = 0
        self.gateway_run = 0
        self.local_run = 0


class OutlierDetector:
    """A cluster's detector. ``ejected``: hosts out now; ``overflows``: ejections refused by ``max_ejection_percent``.

    ``detected``: consecutive-error verdicts by cause, whether enforced or not. ``ejections``: enforced, in total.
    """

    __slots__ = ("_config", "_longest", "_table", "detected", "ejected", "ejections", "hosts", "overflows")

    def __init__(self, config: Outlier, hosts: int = 0) -> None:
        self.hosts = hosts
        self.ejected = 0
        self.ejections = 0
        self.overflows = 0
        self.detected: dict[Cause, int] = {"5xx": 0, "gateway": 0, "local": 0}
        self.update(config)

    def update(self, config: Outlier) -> None:
        """Take a new configuration; hosts that are out stay out until a sweep finds their (newly reckoned) time over."""
        self._config = config
        self._longest = max(MAX_EJECTION, config.base_ejection)
        codes = set(config.error_codes) if config.error_codes else set(range(500, 600))
        self._table = bytes(
            (_GATEWAY if status in (502, 503, 504) else _ERROR) if status in codes else _OK for status in range(_TABLE_SIZE)
        )

    def is_error(self, status: int) -> bool:
        """Does this status count against a host?"""
        return not 0 <= status < _TABLE_SIZE or self._table[status] != _OK

    def report(self, host: HostHealth, status: int, local: bool, now: float) -> bool:
        """Count one result; True when it ejected the host, now.

        status: the HTTP status, for gRPC the one its grpc-status maps to, for a local-origin failure (connect failure, reset:
        503; timeout: 504) the mapped one. local: it is such a failure. A status that no HTTP has counts as an error.
        """
        config = self._config
        if local and config.split_local:  # it has a run of its own, and leaves the others alone
            host.local_run += 1
            return host.local_run == config.consecutive_local and self._detect(host, "local", now)
        if local:  # error_codes choose among what a host answered; a host that did not answer failed
            kind = _GATEWAY if status in (502, 503, 504) else _ERROR
        else:
            host.local_run = 0
            kind = self._table[status] if 0 <= status < _TABLE_SIZE else _ERROR
        if kind == _OK:
            host.run = 0
            host.gateway_run = 0
            return False
        out = False
        if kind == _GATEWAY:
            host.gateway_run += 1
            if host.gateway_run == config.consecutive_gateway:
                out = self._detect(host, "gateway", now)
        else:
            host.gateway_run = 0
        host.run += 1
        if host.run == config.consecutive_5xx:
            out = self._detect(host, "5xx", now) or out
        return out

    def _detect(self, host: HostHealth, cause: Cause, now: float) -> bool:
        """A run is complete. Its counter starts again, also when the ejection is refused; a host already out stays as it is."""
        if host.ejected:
            return False
        self.detected[cause] += 1
        if cause == "gateway":
            host.gateway_run = 0
        elif cause == "local":
            host.local_run = 0
        else:
            host.run = 0
        config = self._config
        if 100 * (self.ejected + 1) > config.max_ejection_percent * self.hosts:  # B1.5, in whole numbers
            self.overflows += 1
            return False
        host.ejected = True
        host.since = now
        host.ejections += 1
        if host.multiplier * config.base_ejection < self._longest + config.base_ejection:
            host.multiplier += 1
        self.ejected += 1
        self.ejections += 1
        return True

    def ejection_time(self, host: HostHealth) -> float:
        """Seconds that the host's present ejection lasts at least."""
        return min(self._config.base_ejection * host.multiplier, self._longest)

    def sweep(self, hosts: Iterable[HostHealth], now: float) -> bool:
        """Every ``interval``: bring back who has served its time, let multipliers of the healthy fall. True if any came back."""
        changed = False
        for host in hosts:
            if not host.ejected:
                if host.multiplier:
                    host.multiplier -= 1
            elif now - host.since >= self.ejection_time(host):
                self.restore(host)
                changed = True
        return changed

    def restore(self, host: HostHealth) -> None:
        """Bring one host back, whole, with its runs at 0. The multiplier stays."""
        if host.ejected:
            host.ejected = False
            host.reset_runs()
            self.ejected -= 1

    def forget(self, host: HostHealth) -> None:
        """The host left the cluster."""
        if host.ejected:
            self.ejected -= 1
