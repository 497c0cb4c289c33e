"""What stands under everything that is asked (room ``install``): the three profiles, as trees of ``operator.Spec``.

In: a name. Out: a fresh tree. ``minimal`` is control and injector, ``default`` adds the ingress gateway, ``demo`` an egress
gateway, every trace, an access log, and little memory.
"""

from __future__ import annotations

from typing import Any

__all__ = ["PROFILES", "profile"]

PROFILES = ("minimal", "default", "demo")
Tree = dict[str, Any]
LIMITS = {"cpu": "2000m", "memory": "1024Mi"}


def _asked(cpu: str, memory: str) -> Tree:
    return {"requests": {"cpu": cpu, "memory": memory}}


def _ports(*more: tuple[str, int], status: bool = True) -> list[Tree]:
    found: list[Tree] = [{"name": "status-port", "port": 15021, "targetPort": 15021}] if status else []
    found += [{"name": "http2", "port": 80, "targetPort": 8080}, {"name": "https", "port": 443, "targetPort": 8443}]
    return found + [{"name": name, "port": port, "targetPort": port} for name, port in more]


def profile(name: str) -> Tree:
    demo = name == "demo"
    gateway = _asked("10m", "64Mi") if demo else {**_asked("100m", "128Mi"), "limits": dict(LIMITS)}
    tls = (("tls", 15443),) if demo else ()
    tcp = (("tcp", 31400),) if demo else ()
    replicas = 1 if demo else 2
    sizes = {
        "pilot": _asked("10m", "128Mi") if demo else _asked("200m", "512Mi"),
        "injector": _asked("10m", "64Mi") if demo else _asked("50m", "96Mi"),
    }
    # in the places that go behind the others: what a user says in ``components`` counts before it, and in ``values`` replaces it
    tree: Tree = {
        "profile": name,
        "components": {
            "injector": {"k8s": {"replicaCount": replicas, "resources": sizes["injector"]}},
            "ingressGateways": [{"name": "istio-ingressgateway", "enabled": name != "minimal"}],
            "egressGateways": [{"name": "istio-egressgateway", "enabled": demo}],
        },
        "values": {
            "global": {
                "proxy": {"resources": {**_asked(*(("10m", "64Mi") if demo else ("100m", "128Mi"))), "limits": dict(LIMITS)}}
            },
            "pilot": {"replicaCount": replicas, "resources": sizes["pilot"]},
            "gateways": {
                "istio-ingressgateway": {
                    "replicaCount": 1,
                    "resources": gateway,
                    "type": "LoadBalancer",
                    "ports": _ports(*tcp, *tls),
                },
                "istio-egressgateway": {
                    "replicaCount": 1,
                    "resources": gateway,
                    "type": "ClusterIP",
                    "ports": _ports(*tls, status=False),
                },
            },
        },
    }
    if demo:
        tree["meshConfig"] = {"accessLogFile": "/dev/stdout"}
        tree["values"]["pilot"]["traceSampling"] = 100.0
    return tree
