"""What will be installed, settled (room ``install``).

In: ``operator.Spec``. Out: ``Plan``: every name, image and number that manifests need, and what to warn of; or
``BadOptions``. Where Istio has two places for one thing, ``components`` goes before ``values``, and what the profile says
under both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import msgspec
import yaml

from control.cluster.names import CERTIFICATE, INJECTOR, LEASE, named, validator
from control.install import operator
from control.install.overlay import BadOptions
from control.resources.mesh_config import MESH_CONFIG, read_mesh_config
from control.resources.report import Report
from control.resources.values import check_labels, is_dns_label, is_dns_subdomain, quote

__all__ = ["PART_OF", "VERSION", "Gateway", "Plan", "Work", "settle"]

VERSION = version("pymesh")
PART_OF = "pymesh"  # by this label an installation of ours is known
NATIVE = "ENABLE_NATIVE_SIDECARS"
Obj = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a Deployment and its pods are told. ``budget``: of the PodDisruptionBudget."""

    replicas: int = 1
    resources: Obj = field(default_factory=dict)
    env: tuple[Obj, ...] = ()
    pod_annotations: dict[str, str] = field(default_factory=dict)
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[Obj, ...] = ()
    affinity: Obj = field(default_factory=dict)
    priority_class: str = ""
    pull_policy: str = ""
    budget: Obj = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """``role``: ingressgateway or egressgateway. ``service``: the spec without its selector."""

    name: str
    namespace: str
    role: str
    labels: dict[str, str]
    work: Work
    service: Obj
    service_annotations: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """``revision`` "": the default one. ``warnings``: for the user, one line each."""

    profile: str
    namespace: str
    revision: str
    image: str
    pull_secrets: tuple[str, ...]
    mesh: Obj
    injector: Obj  # its settings
    control_work: Work
    injector_work: Work
    gateways: tuple[Gateway, ...]
    trace_sampling: float | None
    crds: bool
    network_policy: bool
    everywhere: bool  # pods of all namespaces that say nothing
    warnings: tuple[str, ...]
    validating_policy: str = "Ignore"

    @property
    def rev(self) -> str:
        """As the label ``istio.io/rev`` has it."""
        return self.revision or "default"

    def named(self, name: str) -> str:
        """Names of one revision are apart from those of another."""
        return named(name, self.revision)

    @property
    def control_name(self) -> str:
        return self.named("istiod")

    @property
    def injector_name(self) -> str:
        return self.named(INJECTOR)

    @property
    def mesh_map(self) -> str:
        return self.named(MESH_CONFIG)

    @property
    def own_names(self) -> dict[str, str]:
        """What control calls its objects, as ``--revision`` has it: name -> name."""
        shared = (MESH_CONFIG, INJECTOR, CERTIFICATE, LEASE, validator(self.namespace))
        return {name: self.named(name) for name in shared}

    def labels(self, component: str) -> dict[str, str]:
        return {
            "app.kubernetes.io/name": component,
            "app.kubernetes.io/part-of": PART_OF,
            "app.kubernetes.io/managed-by": "meshctl",
            "app.kubernetes.io/version": VERSION,
            "istio.io/rev": self.rev,
        }


def settle(spec: operator.Spec) -> Plan:
    """Raises ``BadOptions``."""
    values, components = spec.values, spec.components
    shared = values.global_
    faults: list[str] = []
    warnings: list[str] = []
    namespace = spec.namespace or shared.istio_namespace or "istio-system"
    revision = spec.revision or values.revision
    revision = "" if revision == "default" else revision
    hub, tag = spec.hub or shared.hub or "pymesh", spec.tag or shared.tag or VERSION
    name = shared.proxy.image or "mesh"
    image = name if "/" in name else f"{hub.rstrip('/')}/{name}:{tag}"
    if not is_dns_label(namespace):
        faults.append(f"namespace: must be a namespace's name, not {quote(namespace)}")
    if revision and (not is_dns_label(revision) or len(revision) > 40):
        faults.append(f"revision: must be lower case letters, digits and dashes, at most 40, not {quote(revision)}")
    if not re.fullmatch(r"[A-Za-z0-9][-A-Za-z0-9._:/@]{0,300}", image):
        faults.append(f"hub, tag: must make an image's name, not {quote(image)}")
    for what in ("base", "pilot", "injector"):
        if getattr(components, what).enabled is False:
            faults.append(f"components.{what}.enabled: a mesh cannot be without it")
    if components.cni.enabled:
        faults.append("components.cni.enabled: there is no CNI plugin here; values.pilot.cni.enabled=true says that there is one")
    mesh = _mesh({**values.mesh_config, **spec.mesh_config}, faults, warnings)
    gateways = _gateways(spec, namespace, faults)
    if faults:
        raise BadOptions(faults)
    return Plan(
        profile=spec.profile,
        namespace=namespace,
        revision=revision,
        image=image,
        pull_secrets=shared.image_pull_secrets,
        mesh=mesh,
        injector=_settings(spec, namespace, revision, hub, tag, name),
        control_work=_work(components.pilot.k8s, spec, values.pilot, pilot=True),
        injector_work=_work(components.injector.k8s, spec, None),
        gateways=gateways,
        trace_sampling=values.pilot.trace_sampling,
        crds=values.base.enable_crd_templates,
        network_policy=shared.network_policy.enabled,
        everywhere=values.sidecar_injector_webhook.enable_namespaces_by_default,
        warnings=tuple(warnings),
    )


def _mesh(given: Obj, faults: list[str], warnings: list[str]) -> Obj:
    mesh = dict(given)
    default = mesh.get("defaultConfig")
    if isinstance(default, dict) and isinstance(default.get("proxyMetadata"), dict):
        told = {key: _word(value) for key, value in default["proxyMetadata"].items()}
        mesh["defaultConfig"] = {**default, "proxyMetadata": told}
    report = Report()
    read_mesh_config(yaml.safe_dump(mesh), report)
    for problems, lines in ((report.errors, faults), (report.warnings, warnings)):
        for problem in problems:
            if not problem.message.startswith("is read when control starts"):  # it does so just now
                lines.append(str(problem).replace("data.mesh", "meshConfig", 1))
    return mesh


def _word(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, (int, float)) else value


def _plain(part: msgspec.Struct) -> Obj:
    """As Kubernetes writes it, without what was not given."""
    found = msgspec.to_builtins(part)
    assert isinstance(found, dict)
    return found


def _resources(*given: operator.Resources | None) -> Obj:
    """The first that says something."""
    found = next((one for one in given if one is not None), None)
    if found is None:
        return {}
    parts = (("requests", found.requests), ("limits", found.limits))
    return {kind: {name: str(amount) for name, amount in amounts.items()} for kind, amounts in parts if amounts}


def _work(
    k8s: operator.KubernetesSpec, spec: operator.Spec, older: operator.Pilot | operator.GatewayValues | None, pilot: bool = False
) -> Work:
    """``older``: the place in ``values``, where the profile's numbers are too."""
    replicas = k8s.replica_count if k8s.replica_count is not None or older is None else older.replica_count
    env = {one.name: _plain(one) for one in k8s.env}
    for name, value in (older.env if older is not None else {}).items():
        if name != NATIVE:
            env.setdefault(name, {"name": name, "value": value})
    budget = k8s.pod_disruption_budget
    return Work(
        replicas=1 if replicas is None else replicas,
        resources=_resources(k8s.resources, older.resources if older is not None else None),
        env=tuple(env[name] for name in sorted(env)),
        pod_annotations={**(older.pod_annotations if older is not None else {}), **k8s.pod_annotations},
        node_selector={**(older.node_selector if older is not None else {}), **k8s.node_selector},
        tolerations=k8s.tolerations or (older.tolerations if older is not None else ()),
        affinity=k8s.affinity or (older.affinity if isinstance(older, operator.Pilot) else {}),
        priority_class=k8s.priority_class_name or spec.values.global_.priority_class_name,
        pull_policy=k8s.image_pull_policy or spec.values.global_.image_pull_policy,
        budget=_plain(budget) if budget is not None else {"maxUnavailable": 1},
    )


def _gateways(spec: operator.Spec, root: str, faults: list[str]) -> tuple[Gateway, ...]:
    found: list[Gateway] = []
    older = {"istio-ingressgateway": spec.values.gateways.ingress, "istio-egressgateway": spec.values.gateways.egress}
    for where, role, given in (
        ("ingressGateways", "ingressgateway", spec.components.ingress_gateways),
        ("egressGateways", "egressgateway", spec.components.egress_gateways),
    ):
        for i, one in enumerate(given):
            if not one.enabled:
                continue
            at = f"components.{where}[{i}]"
            namespace = one.namespace or root
            if not is_dns_label(one.name) or len(one.name) > 45:
                faults.append(f"{at}.name: must be lower case letters, digits and dashes, at most 45, not {quote(one.name)}")
            if not is_dns_subdomain(namespace) or not is_dns_label(namespace):
                faults.append(f"{at}.namespace: must be a namespace's name, not {quote(namespace)}")
            if any(known.name == one.name and known.namespace == namespace for known in found):
                faults.append(f"{at}.name: there is another gateway {namespace}/{one.name}")
            labels = one.label or {"app": one.name if one.name not in older else f"istio-{role}", "istio": role}
            try:
                check_labels(labels)
            except ValueError as bad:
                faults.append(f"{at}.label: {bad}")
            values = older.get(one.name, operator.GatewayValues())
            service = _service(one.k8s.service or operator.Service(), values)
            if not service["ports"]:
                faults.append(f"{at}.k8s.service.ports: a gateway of your own needs ports")
            work = _work(one.k8s, spec, values)
            annotations = {**values.service_annotations, **one.k8s.service_annotations}
            found.append(
                Gateway(
                    name=one.name,
                    namespace=namespace,
                    role=role,
                    labels=labels,
                    work=work,
                    service=service,
                    service_annotations=annotations,
                )
            )
    return tuple(found)


def _service(given: operator.Service, older: operator.GatewayValues) -> Obj:
    ports = []
    for port in given.ports or older.ports:
        made = _plain(port)
        ports.append({**made, "targetPort": made.get("targetPort", made["port"]), "protocol": port.protocol})
    made = {"type": given.type or older.type or "LoadBalancer"} | _plain(given) | {"ports": ports}
    if older.load_balancer_ip:
        made.setdefault("loadBalancerIP", older.load_balancer_ip)
    if older.load_balancer_source_ranges:
        made.setdefault("loadBalancerSourceRanges", list(older.load_balancer_source_ranges))
    return made


def _settings(spec: operator.Spec, namespace: str, revision: str, hub: str, tag: str, image: str) -> Obj:
    """The injector's, as its ConfigMap has them; what is not said is its own default."""
    values = spec.values
    shared, proxy, init, hook = values.global_, values.global_.proxy, values.global_.proxy_init, values.sidecar_injector_webhook
    told: Obj = {
        "policy": proxy.auto_inject or None,
        "neverInjectSelector": list(hook.never_inject_selector) or None,
        "alwaysInjectSelector": list(hook.always_inject_selector) or None,
        "injectedAnnotations": hook.injected_annotations or None,
        "rewriteAppHTTPProbe": None if hook.rewrite_app_http_probe else False,
        "revision": revision or "default",
        "rootNamespace": namespace,
        "hub": hub,
        "image": image,
        "tag": tag,
        "imagePullPolicy": shared.image_pull_policy or None,
        "imagePullSecrets": list(shared.image_pull_secrets) or None,
        "nativeSidecars": values.pilot.env.get(NATIVE),
        "kubernetesVersion": shared.kubernetes_version or None,
        "clusterDomain": proxy.cluster_domain or None,
        "clusterName": shared.multi_cluster.cluster_name or None,
        "network": shared.network or None,
        "meshID": shared.mesh_id or None,
        "caAddress": shared.ca_address or None,
        "cni": {"enabled": True} if values.pilot.cni.enabled else None,
    }
    told["proxy"] = _given(
        {
            "resources": _resources(proxy.resources) or None,
            "logLevel": proxy.log_level or None,
            "componentLogLevel": proxy.component_log_level or None,
            "agentLogLevel": shared.logging.level or None,
            "includeOutboundIPRanges": proxy.include_ip_ranges,
            "excludeOutboundIPRanges": proxy.exclude_ip_ranges,
            "includeInboundPorts": proxy.include_inbound_ports,
            "excludeInboundPorts": proxy.exclude_inbound_ports,
            "includeOutboundPorts": proxy.include_outbound_ports,
            "excludeOutboundPorts": proxy.exclude_outbound_ports,
            "statusPort": proxy.status_port,
            "readinessInitialDelaySeconds": proxy.readiness_initial_delay_seconds,
            "readinessPeriodSeconds": proxy.readiness_period_seconds,
            "readinessFailureThreshold": proxy.readiness_failure_threshold,
            "startupProbe": None if proxy.startup_probe is None else proxy.startup_probe.enabled,
            "startupFailureThreshold": None if proxy.startup_probe is None else proxy.startup_probe.failure_threshold,
            "holdApplicationUntilProxyStarts": proxy.hold_application_until_proxy_starts,
        }
    )
    told["init"] = _given(
        {
            "image": init.image or None,
            "resources": _resources(init.resources) or None,
            "forceApply": init.force_apply_iptables or None,
        }
    )
    return {name: value for name, value in _given(told).items() if value != {}}


def _given(tree: Obj) -> Obj:
    return {name: value for name, value in tree.items() if value is not None}
