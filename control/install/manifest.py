"""All objects of an installation, in the order in which they can be applied (room ``install``).

In: ``Plan``. Out: ``objects``, and ``text``: one YAML stream. From an empty cluster one ``kubectl apply -f -`` suffices:
namespaces, CRDs, accounts, settings, control, injector; then the webhooks, before gateways: a gateway's pod that was made
without the injector would stay a container with the image ``auto`` for ever, while one that the injector cannot answer for
yet is tried again.
"""

from __future__ import annotations

from typing import Any

import yaml

from control.install import access, config, crds, gateways, network, webhooks, workloads
from control.install.plan import Plan

__all__ = ["objects", "text"]

Obj = dict[str, Any]
# The C dumper writes the same five times faster.
_Base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def objects(plan: Plan) -> list[Obj]:
    found = [config.namespace(plan, name) for name in sorted({plan.namespace, *(one.namespace for one in plan.gateways)})]
    if plan.crds:
        found += crds.definitions(crd_labels(plan))
    found += access.access(plan)
    found += config.maps(plan)
    if plan.network_policy:
        found += network.policies(plan)
    found += workloads.control(plan)
    found += workloads.injector(plan)
    found += [webhooks.mutating(plan), webhooks.validating(plan)]
    for gateway in plan.gateways:
        found += gateways.gateway(plan, gateway)
    return found


def crd_labels(plan: Plan) -> dict[str, str]:
    """Of no revision: all have the same."""
    return {name: value for name, value in plan.labels("pymesh-crds").items() if name != "istio.io/rev"}


class _Dumper(_Base):  # type: ignore[misc]
    """Every value is written where it stands, and what has lines is a block."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: Any, data: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


_Dumper.add_representer(str, _text)


def text(found: list[Obj]) -> str:
    dumped: str = yaml.dump_all(found, Dumper=_Dumper, sort_keys=False, explicit_start=True, width=1 << 20, allow_unicode=True)
    return dumped
