"""Cluster room: a live cluster. It picks endpoints, hears how they did, and survives configuration while its name stays.

In: a ``model.Cluster``, its ``model.Endpoint``s, and later ones of both; requests to pick for; results. Out: endpoints, and
from ``update`` and ``sweep`` the endpoints that are gone, whose connections the upstream room closes.

Assumes: one thread. Judgement is in ``policy`` (balancers, priorities, outlier detection, limits); this file holds the state
together. A retired cluster goes on picking: a request that began on an older snapshot ends on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING

from meshproxy.cluster.endpoint import Endpoint
from meshproxy.cluster.hashing import Hasher
from meshproxy.cluster.original import Originals, is_address
from meshproxy.policy.balance import Picker, picker
from meshproxy.policy.limits import Limits
from meshproxy.policy.outlier import OutlierDetector
from meshproxy.policy.priority import spread
from meshproxy.policy.ring import Points

if TYPE_CHECKING:
    from meshproxy.message.head import RequestHead
    from meshproxy.message.ports import Dice
    from meshproxy.model.cluster import Cluster as Config
    from meshproxy.model.cluster import Endpoint as EndpointConfig
    from meshproxy.model.cluster import Service

__all__ = ["Cluster"]

REPICKS = 5  # Istio's hostSelectionRetryMaxAttempts


class Cluster:
    """``endpoints``: in the order given. ``retired``: taken out of the configuration, kept only for requests in flight.

    ``detector``: None when outlier detection is off. ``no_healthy``: picks that found nobody (503 UH).
    ``passthrough``: an intercepted connection goes on to where it was meant to go (``original``).
    ``hashed``: picks go by a key; ask ``hash_key`` first if the cookie matters. ``identities``: who its endpoints may be over
    the mesh's mutual TLS; set by whoever installs a configuration.
    """

    __slots__ = (
        "_hasher",
        "_levels",
        "_next_sweep",
        "_originals",
        "_past",
        "_past_connects",
        "_past_refusals",
        "_pickers",
        "_plain",
        "_points",
        "_source",
        "config",
        "detector",
        "endpoints",
        "hashed",
        "identities",
        "limits",
        "name",
        "no_healthy",
        "panic",
        "passthrough",
        "retired",
        "service",
        "workers",
    )

    def __init__(self, config: Config, endpoints: Iterable[EndpointConfig] = (), workers: int = 1) -> None:
        """workers: processes that share the limits. Raises ValueError, one line, for what cannot be balanced."""
        self.name = config.name
        self.workers = workers
        self.retired = False
        self.no_healthy = 0
        self.panic = False
        self.identities: frozenset[str] = frozenset()
        self.endpoints: tuple[Endpoint, ...] = ()
        self.limits = Limits(config.pool, config.retry_budget, workers)
        self.detector: OutlierDetector | None = None
        self._past = 0
        self._past_connects = 0
        self._past_refusals = 0
        self._next_sweep = inf
        self._points = Points()
        self._originals = Originals()
        self._pickers: dict[int, Picker[Endpoint]] = {}
        self._levels: tuple[tuple[int, Picker[Endpoint]], ...] = ()
        self._plain: Picker[Endpoint] | None = None
        self._source: tuple[EndpointConfig, ...] | None = None
        self._install(config)
        self._members(tuple(endpoints))

    # -- configuration ------------------------------------------------------------------------------------------------

    def update(self, config: Config, endpoints: Iterable[EndpointConfig]) -> list[Endpoint]:
        """Take a new configuration under the same name; returns the endpoints that are gone (with their pools in hand).

        An endpoint of the same address and port stays the same object. Limits' use, cursors and ejections stay.
        """
        self.retired = False
        changed = config is not self.config and config != self.config
        if changed:
            self._install(config)
        wanted = tuple(endpoints)
        if not changed and wanted == self._source:
            return []
        return self._members(wanted)

    def retire(self) -> tuple[Endpoint, ...]:
        """The cluster left the configuration. Returns all endpoints, for their pools to be drained; it goes on picking them."""
        self.retired = True
        return self.members()

    def _install(self, config: Config) -> None:
        lb, old = config.lb, getattr(self, "config", None)
        self.config = config
        self.service: Service | None = config.service
        if old is None or old.lb != lb:
            self._pickers = {}  # another balancer starts afresh
        self._hasher = Hasher(lb.hash) if lb.policy == "RING_HASH" and lb.hash is not None else None
        self.hashed = self._hasher is not None
        self.passthrough = config.type == "PASSTHROUGH" or lb.policy == "PASSTHROUGH"
        self.limits.update(config.pool, config.retry_budget, self.workers)
        if config.outlier is None:
            if self.detector is not None:
                for endpoint in self.endpoints:
                    self.detector.restore(endpoint.health)
            self.detector = None
            self._next_sweep = inf
        elif self.detector is None:
            for endpoint in self.endpoints:
                endpoint.health.multiplier = 0
                endpoint.health.reset_runs()
            self.detector = OutlierDetector(config.outlier, len(self.endpoints))
            self._next_sweep = -inf  # the first sweep only sets the time of the next
        else:
            self.detector.update(config.outlier)
            if old is not None and old.outlier is not None and old.outlier.interval != config.outlier.interval:
                self._next_sweep = -inf

    def _members(self, wanted: tuple[EndpointConfig, ...]) -> list[Endpoint]:
        known = {endpoint.key: endpoint for endpoint in self.endpoints}
        members: dict[tuple[str, int], Endpoint] = {}
        for given in wanted:
            key = (given.address, given.port)
            if key in members:
                continue  # the first one of an address wins
            endpoint = known.pop(key, None) or Endpoint(given.address, given.port)
            endpoint.adopt(given)
            members[key] = endpoint
        for endpoint in known.values():
            endpoint.live = False
            self._gone(endpoint)
            if self.detector is not None:
                self.detector.forget(endpoint.health)
        self.endpoints = tuple(members.values())
        self._source = wanted
        if self.detector is not None:
            self.detector.hosts = len(members)
        self._rebalance()
        return list(known.values())

    def _rebalance(self) -> None:
        """Health or membership changed: who may be picked now, and how the load spreads over priorities."""
        lb = self.config.lb
        tiers: dict[int, list[Endpoint]] = {}
        for endpoint in self.endpoints:
            tiers.setdefault(endpoint.priority, []).append(endpoint)
        order = sorted(tiers)
        healthy = [[endpoint for endpoint in tiers[tier] if not endpoint.health.ejected] for tier in order]
        outlier = self.config.outlier
        counts = [(len(tiers[tier]), len(well)) for tier, well in zip(order, healthy, strict=True)]
        load, panic = spread(counts, outlier.min_health_percent if outlier is not None else 0)
        self.panic = any(panic)
        if lb.policy == "RING_HASH":
            self._points.keep({endpoint.label for endpoint in self.endpoints})
        policy = "ROUND_ROBIN" if lb.policy == "PASSTHROUGH" else lb.policy
        pickers: dict[int, Picker[Endpoint]] = {}
        levels, upto = [], 0
        for place, tier in enumerate(order):
            hosts = tiers[tier] if panic[place] else healthy[place]
            before = self._pickers.get(tier)
            total = sum(endpoint.weight for endpoint in tiers[tier])
            pickers[tier] = picker(policy, hosts, lb.choice_count, lb.ring_size, self._points, before, total)
            if load[place]:
                upto += load[place]
                levels.append((upto, pickers[tier]))
        self._pickers = pickers
        self._levels = tuple(levels)
        simple = len(levels) == 1 and not levels[0][1].hashed
        # PASSTHROUGH looks at the request; anything but a single tier of a plain balancer takes the long way.
        self._plain = levels[0][1] if simple and lb.policy != "PASSTHROUGH" and self.config.type != "PASSTHROUGH" else None

    # -- requests -----------------------------------------------------------------------------------------------------

    def hash_key(self, request: RequestHead, source: str, dice: Dice) -> tuple[int | None, bytes | None]:
        """(key for ``pick``, value of a ``set-cookie`` header for the response or None); (None, None) when not ``hashed``."""
        return self._hasher.key(request, source, dice) if self._hasher is not None else (None, None)

    def pick(
        self,
        request: RequestHead,
        source: str,
        tried: tuple[Endpoint, ...],
        now: float,
        dice: Dice,
        key: int | None = None,
    ) -> Endpoint | None:
        """The endpoint for one try; None: no healthy one (503 UH).

        tried: the endpoints of earlier tries, to be avoided up to 5 times (empty when the route does not avoid them). key: from
        ``hash_key``; asked here when it is None. Hot: see the rows "pick" of benchmarks/micro_cluster.py.
        """
        plain = self._plain
        if plain is not None and not tried:
            endpoint = plain.pick(dice, None)
        else:
            endpoint = self._pick(request, source, tried, now, dice, key)
        if endpoint is None:
            self.no_healthy += 1
        return endpoint

    def _pick(
        self,
        request: RequestHead,
        source: str,
        tried: tuple[Endpoint, ...],
        now: float,
        dice: Dice,
        key: int | None,
    ) -> Endpoint | None:
        config = self.config
        if config.type == "PASSTHROUGH" or (config.lb.policy == "PASSTHROUGH" and is_address(request.authority)):
            return self._originals.find(request, now)
        levels = self._levels
        if not levels:
            return None
        hasher = self._hasher
        if hasher is not None:
            if key is None:
                key, _ = hasher.key(request, source, dice)
            tried = ()  # A1: under a hash, retries do not look at previous hosts
        endpoint: Endpoint | None = None
        for _ in range(1 + REPICKS if tried else 1):
            level = levels[0][1]
            if len(levels) > 1:
                place = dice() * 100 if key is None else key % 100
                level = next(found for upto, found in levels if place < upto)
            endpoint = level.pick(dice, key)
            if endpoint is None or endpoint not in tried:
                break
        return endpoint

    def original(self, destination: tuple[str, int] | None, now: float) -> Endpoint | None:
        """The endpoint at an intercepted connection's destination; None: too many others are in use."""
        endpoint = self._originals.at(destination, now) if destination is not None else None
        if endpoint is None:
            self.no_healthy += 1
        return endpoint

    def report(self, endpoint: Endpoint, status: int, local: bool, now: float) -> None:
        """How one try ended, once per try that reached the endpoint or failed to.

        status: HTTP (gRPC: mapped); for a failure without an answer 503, for a timeout 504, with ``local`` True. Overflow, a
        client that went away and other ends that say nothing about the host are not reported.
        """
        endpoint.rq_total += 1
        if status < 500 and not local:
            endpoint.rq_success += 1
        else:
            endpoint.rq_error += 1
        detector = self.detector
        if detector is not None and endpoint.live and detector.report(endpoint.health, status, local, now):
            self._rebalance()

    def sweep(self, now: float) -> list[Endpoint]:
        """To be called often (the timer's grain is added to ejection times): un-ejects whose time is over, on every ``interval``.

        Returns passthrough endpoints that nobody has used for a while, whose pools can be closed.
        """
        detector, outlier = self.detector, self.config.outlier
        if detector is not None and outlier is not None and now >= self._next_sweep:
            if self._next_sweep == -inf:
                self._next_sweep = now + outlier.interval
            else:
                late = (now - self._next_sweep) % outlier.interval  # stay on the beat, whatever was missed
                self._next_sweep = now - late + outlier.interval
                if detector.sweep((endpoint.health for endpoint in self.endpoints), now):
                    self._rebalance()
        gone = self._originals.sweep(now)
        for endpoint in gone:
            self._gone(endpoint)
        return gone

    def _gone(self, endpoint: Endpoint) -> None:
        """Keep what it counted: totals never fall."""
        self._past += endpoint.rq_total
        self._past_connects += endpoint.cx_total
        self._past_refusals += endpoint.cx_connect_fail

    def members(self) -> tuple[Endpoint, ...]:
        """All endpoints there are, with those that a passthrough cluster found on its way."""
        return self.endpoints + self._originals.all()

    @property
    def tries(self) -> int:
        """Results reported, those of endpoints that have left included."""
        return self._past + sum(endpoint.rq_total for endpoint in self.members())

    @property
    def connects(self) -> int:
        """Connections opened, ever."""
        return self._past_connects + sum(endpoint.cx_total for endpoint in self.members())

    @property
    def connect_failures(self) -> int:
        """Dials and handshakes that failed, ever."""
        return self._past_refusals + sum(endpoint.cx_connect_fail for endpoint in self.members())

    @property
    def used(self) -> bool:
        """Has any request ever come this way?"""
        limits = self.limits
        return bool(self.tries or self.no_healthy or limits.requests or limits.pending or limits.pending_overflow)

    def __repr__(self) -> str:
        return f"Cluster({self.name}, {len(self.endpoints)} endpoints{', retired' if self.retired else ''})"
