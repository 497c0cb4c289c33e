"""How long translation takes at scale: 1,000 services x 10 endpoints, 1,000 proxies.

Run: ``python benchmarks/translate_scale.py [--services 1000] [--endpoints 10] [--namespaces 10]``.
Prints milliseconds per step and the memory of the process. One proxy per service; proxies of one namespace share a scope.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import resource
import statistics
import time
from typing import Any, NamedTuple

from control.resources.kinds import Kind, kind_of
from control.translate import Snapshot, Translator, diff, proxy_of
from control.world import World

Obj = dict[str, Any]


class Event(NamedTuple):
    type: str
    kind: Kind
    object: Obj


def objects(services: int, endpoints: int, namespaces: int) -> list[Obj]:
    found: list[Obj] = []
    for n in range(services):
        namespace, name = f"ns-{n % namespaces}", f"service-{n}"
        labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/version": "v1.0.0"}
        found.append(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {"selector": {"app.kubernetes.io/name": name}, "ports": [{"name": "http", "port": 8080}]},
            }
        )
        places = []
        for k in range(endpoints):
            ip = f"10.{n // 250}.{n % 250}.{k + 1}"
            pod = f"{name}-{k}"
            found.append(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {
                        "name": pod,
                        "namespace": namespace,
                        "labels": labels,
                        "annotations": {"mesh.dev/inbound-ports": "8080:9080"},
                    },
                    "spec": {"containers": [{"name": "app", "image": "app"}]},
                    "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]},
                }
            )
            places.append({"addresses": [ip], "conditions": {"ready": True}, "targetRef": {"kind": "Pod", "name": pod}})
        found.append(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": f"{name}-1",
                    "namespace": namespace,
                    "labels": {"kubernetes.io/service-name": name},
                },
                "addressType": "IPv4",
                "ports": [{"name": "http", "port": 8080}],
                "endpoints": places,
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--namespaces", type=int, default=10)
    args = parser.parse_args()
    objs = objects(args.services, args.endpoints, args.namespaces)
    slices = [o for o in objs if o["kind"] == "EndpointSlice"]
    gc.freeze()
    result: dict[str, Any] = {"services": args.services, "endpoints": args.endpoints, "namespaces": args.namespaces}

    start = time.perf_counter()
    world = World.of(objs)
    result["world_of_ms"] = _ms(start)

    translator = Translator()
    names = [(f"ns-{n % args.namespaces}", f"service-{n}-0") for n in range(args.services)]

    def everyone(world: World) -> dict[tuple[str, str], Snapshot]:
        found = {}
        for name in names:
            proxy = proxy_of(world, *name)
            assert proxy is not None
            found[name] = translator.translate(world, proxy)
        return found

    start = time.perf_counter()
    snapshots = everyone(world)
    result["first_translation_ms"] = _ms(start)
    result["resources_per_proxy"] = len(next(iter(snapshots.values())).resources)

    def step(event_obj: Obj, repeat_key: str) -> None:
        nonlocal world, snapshots
        start = time.perf_counter()
        world = world.apply([Event("MODIFIED", kind_of(event_obj), event_obj)])
        applied = _ms(start)
        now = everyone(world)
        translated = _ms(start)
        sent = sum(bool(diff(snapshots[name], now[name])) for name in names)
        total = _ms(start)
        snapshots = now
        result.setdefault(repeat_key, []).append((applied, translated, total, sent))

    for n in range(9):
        changed = copy.deepcopy(slices[(n * 37) % len(slices)])
        changed["endpoints"][n % args.endpoints]["conditions"]["ready"] = False
        step(changed, "endpoint_change")
    for n in range(5):
        vs = {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "v", "namespace": "ns-0"},
            "spec": {
                "hosts": ["service-0"],
                "http": [{"timeout": f"{n + 1}s", "route": [{"destination": {"host": "service-0"}}]}],
            },
        }
        step(vs, "virtual_service_change")
    for key in ("endpoint_change", "virtual_service_change"):
        rows = result.pop(key)
        for index, part in enumerate(("apply_ms", "apply_translate_ms", "apply_translate_diff_ms", "proxies_told")):
            result[f"{key}_{part}"] = round(statistics.median(row[index] for row in rows), 1)
    result["max_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(result, indent=2))


def _ms(start: float) -> float:
    return round((time.perf_counter() - start) * 1000, 1)


if __name__ == "__main__":
    main()
