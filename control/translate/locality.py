"""Translate, locality: which priority each endpoint has for a client (semantics A1 "Locality").

In: a service's endpoints, the locality settings, the client's place and labels. Out: a priority per endpoint, 0 first,
without gaps (Envoy wants them consecutive). Failover goes by place; ``failoverPriority`` orders by labels instead. Asked only
where outlier detection is on (B1.10).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from control.resources.destination_rule import LocalityLoadBalancerSetting
from control.world.endpoints import WorldEndpoint
from meshproxy.model.cluster import Locality

__all__ = ["priorities"]

_REGION, _ZONE, _SUBZONE = "topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"


def priorities(
    endpoints: Sequence[WorldEndpoint],
    setting: LocalityLoadBalancerSetting | None,
    place: Locality | None,
    labels: Mapping[str, str],
) -> tuple[int, ...]:
    """One priority per endpoint, in the same order."""
    if setting is not None and (setting.enabled is False or setting.distribute):
        return (0,) * len(endpoints)
    if setting is not None and setting.failover_priority:
        ranks = [_by_labels(setting.failover_priority, e, place, labels) for e in endpoints]
    elif place is None:
        return (0,) * len(endpoints)
    else:
        ranks = [_by_place(e.locality, place, setting) for e in endpoints]
    used = {rank: index for index, rank in enumerate(sorted(set(ranks)))}
    return tuple(used[rank] for rank in ranks)


def _by_place(where: Locality | None, place: Locality, setting: LocalityLoadBalancerSetting | None) -> int:
    """0 same subzone, 1 same zone, 2 same region, then the failover region if one is named, then the rest."""
    if where is not None and where.region == place.region:
        if where.zone != place.zone:
            return 2
        return 0 if where.sub_zone == place.sub_zone else 1
    target = next((f.to for f in setting.failover if f.from_ == place.region), None) if setting is not None else None
    return 3 if target is not None and where is not None and where.region == target else 4


def _by_labels(order: Sequence[str], endpoint: WorldEndpoint, place: Locality | None, labels: Mapping[str, str]) -> int:
    """The number of entries not matched, counted from the first mismatch on: an entry only counts if all before it match."""
    theirs = {**_place_labels(endpoint.locality), **dict(endpoint.labels)}
    ours = {**_place_labels(place), **labels}
    for index, entry in enumerate(order):
        key, given, value = entry.partition("=")
        # A label that neither side has counts as equal, as in Istio.
        wanted = value if given else ours.get(key, "")
        if theirs.get(key, "") != wanted:
            return len(order) - index
    return 0


def _place_labels(place: Locality | None) -> dict[str, str]:
    if place is None:
        return {}
    pairs = ((_REGION, place.region), (_ZONE, place.zone), (_SUBZONE, place.sub_zone))
    return {key: value for key, value in pairs if value}
