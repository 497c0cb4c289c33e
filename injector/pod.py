"""How a pod gets its sidecar. Quiet.

In: a pod as it came (perhaps injected before), its namespace, the settings. Out: the pod with the sidecar in it. An earlier
injection is undone first, by what it left in ``sidecar.istio.io/status``, and where the result says nothing new the earlier one
stays as Kubernetes has filled it in meanwhile: so a second run changes nothing. No field of the user's is lost or moved; a
container ``istio-proxy`` of their own is laid over the template's and kept in ``proxy.istio.io/overrides`` for the next time.
"""

from __future__ import annotations

import copy
from typing import Any

import msgspec

from injector import annotations as notes
from injector import probes, scrape, template
from injector.annotations import BadPod, Overrides, Status, Wishes
from injector.merge import covers, merged
from injector.names import (
    APP_PROBERS,
    CANONICAL_NAME,
    CANONICAL_REVISION,
    NETWORK,
    OVERRIDES,
    PROMETHEUS_ENV,
    PROXY,
    STATUS,
    TEMPLATES,
    VALIDATION,
    Obj,
)
from injector.owners import Owner, owner_of
from injector.settings import Settings
from injector.template import Plan

__all__ = ["inject", "stripped"]

_DEFAULT_CONTAINER = ("kubectl.kubernetes.io/default-container", "kubectl.kubernetes.io/default-logs-container")
Lists = dict[str, list[Obj]]


def inject(
    pod: Obj,
    namespace: str,
    settings: Settings,
    owner: Owner | None = None,
    variables: tuple[tuple[str, str], ...] = (),
    path: str = "",
) -> Obj:
    """A new pod. ``owner``: known better than from the pod. Raises ``BadPod``; ``path`` is where the pod stands in its file."""
    wishes = notes.read((pod.get("metadata") or {}).get("annotations") or {}, f"{path}metadata.annotations")
    if not isinstance((pod.get("spec") or {}).get("containers"), list) or not pod["spec"]["containers"]:
        raise BadPod([f"{path}spec.containers: must be a list with a container at least"])
    was = wishes.get(STATUS)
    rules = template.init_container(_plan(pod, namespace, settings, wishes, owner, variables), None)
    bare, own = stripped(pod, wishes, {PROXY} if rules is None else {PROXY, rules["name"]})
    plan = _plan(bare, namespace, settings, wishes, owner, variables)
    if plan.gateway and PROXY not in own:
        raise BadPod([f"{path}spec.containers: a gateway needs a container {PROXY} with the image auto, which is filled in"])
    made = copy.deepcopy(bare)
    spec, metadata = made["spec"], made["metadata"]
    status = Status(revision=settings.revision or "default", **_put_in(spec, plan, own))
    if own and OVERRIDES not in metadata["annotations"]:
        metadata["annotations"][OVERRIDES] = _overrides(own, plan.native)
    _observe(spec, metadata, plan)
    _label(metadata, plan, status)
    if was is not None:
        _keep_defaults(pod, made)
    return made


def _plan(
    bare: Obj, namespace: str, settings: Settings, wishes: Wishes, owner: Owner | None, variables: tuple[tuple[str, str], ...]
) -> Plan:
    gateway = wishes.get(TEMPLATES) == ("gateway",)
    alone = all(one.get("name") == PROXY for one in bare["spec"]["containers"])  # Kubernetes wants one that is no init container
    return Plan(
        metadata=bare.get("metadata") or {},
        spec=bare["spec"],
        wishes=wishes,
        owner=owner or owner_of(bare, namespace),
        settings=settings,
        gateway=gateway,
        native=not (gateway or alone) and bool(wishes.get("sidecar.istio.io/nativeSidecar", settings.native)),
        variables=variables,
    )


def stripped(pod: Obj, wishes: Wishes, ours: set[str]) -> tuple[Obj, dict[str, Obj]]:
    """The pod before any injection, with metadata, labels and annotations; and the user's own containers that are to be named as
    ``ours``."""
    bare = copy.deepcopy(pod)
    metadata = bare["metadata"] = bare.get("metadata") or {}
    for field in ("labels", "annotations"):
        metadata[field] = metadata.get(field) or {}
    spec = bare["spec"]
    was: Status | None = wishes.get(STATUS)
    own: dict[str, Obj] = {}
    kept: Overrides | None = wishes.get(OVERRIDES)
    if kept is not None:
        own = {one["name"]: one for one in (*(kept.init_containers or ()), *(kept.containers or ()))}
    if was is None:
        for field in ("initContainers", "containers"):
            for one in spec.get(field) or ():
                if one.get("name") in ours:
                    own.setdefault(one["name"], copy.deepcopy(one))
    else:
        _undo(bare, was)
    gone = ours if was is None else {*ours, *(was.containers or ()), *(was.init_containers or ())}
    for field in ("initContainers", "containers"):
        if spec.get(field):
            spec[field] = [one for one in spec[field] if one.get("name") not in gone]
            if not spec[field] and field == "initContainers":
                del spec[field]
    return bare, own


def _undo(bare: Obj, was: Status) -> None:
    spec, metadata = bare["spec"], bare["metadata"]
    everyone = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    sidecar: Obj = next((one for one in everyone if one.get("name") == PROXY), {})
    env = {one.get("name"): one.get("value") for one in sidecar.get("env") or ()}
    if env.get(APP_PROBERS):
        probes.restore(spec, env[APP_PROBERS])
    port = _status_port(env.get("PROXY_CONFIG"))
    scrape.restore(metadata["annotations"], env.get(PROMETHEUS_ENV), port)
    for field, names in (("volumes", was.volumes), ("imagePullSecrets", was.image_pull_secrets)):
        if spec.get(field) and names:
            spec[field] = [one for one in spec[field] if one.get("name") not in names]
            if not spec[field]:
                del spec[field]
    if metadata["annotations"].get("istio.io/rev") == was.revision:
        del metadata["annotations"]["istio.io/rev"]
    del metadata["annotations"][STATUS]


def _status_port(config: Any) -> int:
    try:
        return int(msgspec.json.decode(config)["statusPort"])
    except (msgspec.DecodeError, TypeError, KeyError, ValueError):
        return 15020


def _put_in(spec: Obj, plan: Plan, own: dict[str, Obj]) -> dict[str, tuple[str, ...]]:
    """Changes ``spec``. Returns what was added, for the status."""
    uid = ((own.get(PROXY) or {}).get("securityContext") or {}).get("runAsUser")
    init = template.init_container(plan, uid if isinstance(uid, int) and uid > 0 else None)
    proxy = _laid_over(template.proxy_container(plan), own.get(PROXY))
    if init is not None:
        init = _laid_over(init, own.get(init["name"]))
    before: list[Obj] = spec.get("initContainers") or []
    apps: list[Obj] = spec.get("containers") or []
    rules = [] if init is None else [init]
    if plan.native:
        # the rules, then the sidecar, so that the app's own init containers are in the mesh already
        inits, containers = [*rules, proxy, *before], apps
    else:
        # the rules last, so that the app's init containers reach the network; but whether a CNI plugin wrote them is asked first
        first = init is not None and init["name"] == VALIDATION
        inits = [*rules, *before] if first else [*before, *rules]
        containers = [proxy, *apps] if plan.hold and not plan.gateway else [*apps, proxy]
    if inits:
        spec["initContainers"] = inits
    spec["containers"] = containers
    added: dict[str, tuple[str, ...]] = {
        "init_containers": (*(one["name"] for one in rules), *((PROXY,) if plan.native else ())),
        "containers": () if plan.native else (PROXY,),
    }
    secrets = [{"name": name} for name in plan.settings.image_pull_secrets]
    for field, key, extra in (
        ("volumes", "volumes", template.volumes(plan)),
        ("imagePullSecrets", "image_pull_secrets", secrets),
    ):
        there = {one.get("name") for one in spec.get(field) or ()}
        new = [one for one in extra if one["name"] not in there]
        if new:
            spec[field] = [*(spec.get(field) or ()), *new]
        added[key] = tuple(one["name"] for one in new)
    return added


def _laid_over(made: Obj, own: Obj | None) -> Obj:
    if own is None:
        return made
    over = {key: value for key, value in own.items() if not (key == "image" and value in ("auto", ""))}
    result: Obj = merged(made, over)
    return result


def _overrides(own: dict[str, Obj], native: bool) -> str:
    inits = tuple(one for name, one in own.items() if name != PROXY)
    proxies = tuple(one for name, one in own.items() if name == PROXY)
    kept: dict[str, Any] = {"containers": proxies, "initContainers": inits}
    return msgspec.json.encode({key: value for key, value in kept.items() if value}).decode()


def _observe(spec: Obj, metadata: Obj, plan: Plan) -> None:
    """Probes and metrics of the app go through the agent."""
    everyone = [*(spec.get("initContainers") or ()), *spec["containers"]]
    sidecar = next(one for one in everyone if one.get("name") == PROXY)
    port, wishes = plan.status_port, plan.wishes
    if not port:
        return
    if not plan.gateway and wishes.get("sidecar.istio.io/rewriteAppHTTPProbers", plan.settings.rewrite_app_http_probe):
        found = probes.rewrite(spec, port)
        if found:
            value = msgspec.json.encode(found, order="sorted").decode()
            sidecar["env"] = merged(sidecar["env"], [{"name": APP_PROBERS, "value": value}], "env")
    if wishes.get("prometheus.istio.io/merge-metrics", plan.settings.enable_prometheus_merge):
        said = scrape.point_to_agent(metadata["annotations"], port)
        if said:
            sidecar["env"] = merged(sidecar["env"], [{"name": PROMETHEUS_ENV, "value": said}], "env")


def _label(metadata: Obj, plan: Plan, status: Status) -> None:
    labels, annotations = metadata["labels"], metadata["annotations"]
    if not plan.gateway:
        labels.setdefault("security.istio.io/tlsMode", "istio")
    name = template.canonical_name(labels, plan.owner)
    if name:
        labels.setdefault(CANONICAL_NAME, name)
    labels.setdefault(CANONICAL_REVISION, template.canonical_revision(labels))
    if plan.network:
        labels.setdefault(NETWORK, plan.network)
    for key, value in plan.settings.injected_annotations.items():
        annotations.setdefault(key, value)
    annotations.setdefault("istio.io/rev", plan.settings.revision or "default")
    if not plan.gateway and plan.mode != "NONE":
        # Control reads there which ports iptables leaves alone, and it does not know these settings.
        proxy = plan.settings.proxy
        for key, said, usual in (
            ("excludeInboundPorts", proxy.exclude_inbound_ports, ""),
            ("includeInboundPorts", proxy.include_inbound_ports, "*"),
        ):
            if said != usual:
                annotations.setdefault(f"traffic.sidecar.istio.io/{key}", said)
    if plan.apps:
        for key in _DEFAULT_CONTAINER:
            annotations.setdefault(key, plan.apps[0])
    annotations[STATUS] = msgspec.json.encode(
        {key: list(value) if isinstance(value, tuple) else value for key, value in msgspec.to_builtins(status).items()}
    ).decode()


def _keep_defaults(pod: Obj, made: Obj) -> None:
    """Where the earlier injection says the same, leave it as Kubernetes has filled it in: ``made`` is changed."""
    there, spec = pod.get("spec") or {}, made["spec"]
    for field in ("initContainers", "containers", "volumes"):
        old = {one.get("name"): one for one in there.get(field) or ()}
        spec_list = spec.get(field) or []
        for index, one in enumerate(spec_list):
            if one.get("name") in old and covers(old[one["name"]], one, ""):
                spec_list[index] = copy.deepcopy(old[one["name"]])
