"""What is put into a pod: the sidecar, the gateway's proxy, the init container and their volumes. Quiet.

In: ``Plan``: a pod freed of an earlier injection, what it wishes, whose it is, the settings. Out: containers and volumes as
Kubernetes' objects, section F of the field. The names, paths and variables are Istio's, so that what people know about its pods
holds here; the programs are ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from injector import proxyconfig
from injector.annotations import Wishes
from injector.names import CLUSTER, INIT, NETWORK, PROXY, VALIDATION, Obj
from injector.owners import Owner
from injector.settings import Settings

__all__ = ["Plan", "init_container", "proxy_container", "volumes"]

UID = 1337
HEALTH, AGENT = 15021, 15020
OUTBOUND, INBOUND, PROMETHEUS = 15001, 15006, 15090
TOKEN_LIFE = 43200


@dataclass(frozen=True, kw_only=True)
class Plan:
    """``native``: the sidecar is an init container that goes on. ``variables``: what the webhook's path adds."""

    metadata: Obj
    spec: Obj
    wishes: Wishes
    owner: Owner
    settings: Settings
    gateway: bool = False
    native: bool = False
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def config(self) -> Obj:
        return proxyconfig.merged(self.settings.proxy_config, self.wishes.get("proxy.istio.io/config", {}))

    @property
    def status_port(self) -> int:
        """Of the agent; 0: nobody probes."""
        default = self.config.get("statusPort", self.settings.proxy.status_port)
        return int(self.wishes.get("status.sidecar.istio.io/port", default))

    @property
    def mode(self) -> str:
        default = self.config.get("interceptionMode", self.settings.proxy.interception_mode)
        return str(self.wishes.get("sidecar.istio.io/interceptionMode", default))

    @property
    def hold(self) -> bool:
        default = self.settings.proxy.hold_application_until_proxy_starts
        return bool(self.config.get("holdApplicationUntilProxyStarts", default))

    @property
    def network(self) -> str:
        labels = self.metadata.get("labels") or {}
        return labels.get(NETWORK) or dict(self.variables).get("ISTIO_META_NETWORK") or self.settings.network

    @property
    def cluster(self) -> str:
        labels = self.metadata.get("labels") or {}
        return labels.get(CLUSTER) or dict(self.variables).get("ISTIO_META_CLUSTER_ID") or self.settings.cluster_name

    @property
    def image(self) -> str:
        return str(self.wishes.get("sidecar.istio.io/proxyImage", self.settings.proxy_image))

    @property
    def apps(self) -> list[str]:
        return [str(one.get("name")) for one in self.spec.get("containers") or () if one.get("name") != PROXY]

    def traffic(self, name: str, default: str) -> str:
        return str(self.wishes.get(f"traffic.sidecar.istio.io/{name}", default))


def init_container(plan: Plan, uid: int | None) -> Obj | None:
    """Writes the interception's rules, or with a CNI plugin looks whether it did. ``uid``: the user's own for the sidecar."""
    if plan.gateway or plan.mode == "NONE":
        return None
    settings, proxy = plan.settings, plan.settings.proxy
    closed = plan.traffic("excludeInboundPorts", proxy.exclude_inbound_ports).split(",")
    ports = dict.fromkeys([str(PROMETHEUS), str(HEALTH), str(plan.status_port), *closed])
    arguments = ["istio-iptables", "-p", str(OUTBOUND), "-z", str(INBOUND), "-u", str(uid or UID), "-m", plan.mode]
    arguments += ["-i", plan.traffic("includeOutboundIPRanges", proxy.include_outbound_ip_ranges)]
    arguments += ["-x", plan.traffic("excludeOutboundIPRanges", proxy.exclude_outbound_ip_ranges)]
    arguments += ["-b", plan.traffic("includeInboundPorts", proxy.include_inbound_ports)]
    arguments += ["-d", ",".join(port for port in ports if port not in ("", "0"))]
    virtual = plan.wishes.get("istio.io/reroute-virtual-interfaces", plan.traffic("kubevirtInterfaces", ""))
    for flag, value in (
        ("-q", plan.traffic("includeOutboundPorts", proxy.include_outbound_ports)),
        ("-o", plan.traffic("excludeOutboundPorts", proxy.exclude_outbound_ports)),
        ("-k", virtual),
        ("-c", plan.traffic("excludeInterfaces", "")),
    ):
        arguments += [flag, value] if value else []
    arguments.append("--log_output_level=" + plan.wishes.get("sidecar.istio.io/agentLogLevel", proxy.agent_log_level))
    if settings.cni.enabled:
        arguments += ["--run-validation", "--skip-rule-apply"]
    elif settings.init.force_apply:
        arguments.append("--force-apply")
    root = not settings.cni.enabled
    user = 0 if root else uid or UID
    made: Obj = {
        "name": INIT if root else VALIDATION,
        "image": settings.init.image or plan.image,
        "command": ["mesh-init"],
        "args": arguments,
        "env": [{"name": key, "value": value} for key, value in sorted(plan.config.get("proxyMetadata", {}).items())],
        "resources": _resources(settings.init.resources) if settings.init.resources else _wished_resources(plan),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]} if root else {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": not root,
            "runAsGroup": user,
            "runAsNonRoot": not root,
            "runAsUser": user,
        },
    }
    return _pulled(made, settings)


def proxy_container(plan: Plan) -> Obj:
    """The sidecar, or the gateway's proxy."""
    settings, wishes, proxy = plan.settings, plan.wishes, plan.settings.proxy
    made: Obj = {
        "name": PROXY,
        "image": plan.image,
        "command": ["meshproxy"],
        "args": [
            "proxy",
            "router" if plan.gateway else "sidecar",
            "--domain",
            f"$(POD_NAMESPACE).svc.{settings.cluster_domain}",
            "--proxyLogLevel=" + wishes.get("sidecar.istio.io/logLevel", proxy.log_level),
            "--proxyComponentLogLevel=" + wishes.get("sidecar.istio.io/componentLogLevel", proxy.component_log_level),
            "--log_output_level=" + wishes.get("sidecar.istio.io/agentLogLevel", proxy.agent_log_level),
        ],
        "ports": [{"containerPort": PROMETHEUS, "name": "http-envoy-prom", "protocol": "TCP"}],
        "env": list(_env(plan)),
        "resources": _wished_resources(plan),
        "securityContext": _security(plan),
        "volumeMounts": list(_mounts(plan)),
    }
    if plan.status_port:
        ready = {"path": "/healthz/ready", "port": HEALTH}
        made["readinessProbe"] = {
            "httpGet": ready,
            "initialDelaySeconds": _readiness(plan, "initialDelaySeconds", proxy.readiness_initial_delay_seconds),
            "periodSeconds": _readiness(plan, "periodSeconds", proxy.readiness_period_seconds),
            "timeoutSeconds": 3,
            "failureThreshold": _readiness(plan, "failureThreshold", proxy.readiness_failure_threshold),
        }
        if proxy.startup_probe and not plan.gateway:
            made["startupProbe"] = {
                "httpGet": ready,
                "periodSeconds": 1,
                "timeoutSeconds": 3,
                "failureThreshold": proxy.startup_failure_threshold,
            }
    if plan.native:
        made["restartPolicy"] = "Always"
        drain = ["meshproxy", "request", f"--debug-port={plan.status_port or AGENT}", "POST", "drain"]
        made["lifecycle"] = {"preStop": {"exec": {"command": drain}}}
    elif plan.hold and not plan.gateway:
        made["lifecycle"] = {"postStart": {"exec": {"command": ["meshproxy", "wait"]}}}
    return _pulled(made, settings)


def _readiness(plan: Plan, name: str, default: int) -> int:
    return int(plan.wishes.get(f"readiness.status.sidecar.istio.io/{name}", default))


def _pulled(made: Obj, settings: Settings) -> Obj:
    if settings.image_pull_policy:
        made["imagePullPolicy"] = settings.image_pull_policy
    return made


def _resources(given: Any) -> Obj:
    return {
        kind: {name: str(amount) for name, amount in sorted(amounts.items())}
        for kind, amounts in (("requests", given.requests), ("limits", given.limits))
        if amounts
    }


def _wished_resources(plan: Plan) -> Obj:
    """Any annotation replaces the whole block, so that an old limit never stands beside a new request."""
    found: Obj = {}
    for kind, suffix in (("requests", ""), ("limits", "Limit")):
        for name, word in (("cpu", "proxyCPU"), ("memory", "proxyMemory")):
            amount = plan.wishes.get(f"sidecar.istio.io/{word}{suffix}")
            if amount is not None:
                found.setdefault(kind, {})[name] = amount
    return found or _resources(plan.settings.proxy.resources)


def _security(plan: Plan) -> Obj:
    """Port 80 and others below 1024 need root here: a capability is lost when another user starts."""
    low = plan.wishes.get("sidecar.istio.io/capNetBindService", False)
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]} if low else {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "runAsGroup": UID,
        "runAsNonRoot": not low,
        "runAsUser": 0 if low else UID,
    }


def _field(name: str, path: str) -> Obj:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _limit(name: str, resource: str) -> Obj:
    return {"name": name, "valueFrom": {"resourceFieldRef": {"resource": resource}}}


_LABELLED = ("ISTIO_META_CLUSTER_ID", "ISTIO_META_NETWORK")  # which the pod's own labels may say better


def _env(plan: Plan) -> Iterator[Obj]:
    """Each name once; what the path and the proxy's metadata say comes last and counts."""
    found: dict[str, Obj] = {}
    for one in _own_env(plan):
        found[one["name"]] = one
    for key, value in (
        *sorted(plan.settings.proxy.env.items()),
        *sorted(plan.config.get("proxyMetadata", {}).items()),
        *sorted(pair for pair in plan.variables if pair[0] not in _LABELLED),
    ):
        found.pop(key, None)
        found[key] = {"name": key, "value": value}
    yield from found.values()


def _own_env(plan: Plan) -> Iterator[Obj]:
    settings, config, owner = plan.settings, plan.config, plan.owner
    revision = f"-{settings.revision}" if settings.revision and settings.revision != "default" else ""
    address = settings.ca_address or config.get("discoveryAddress") or f"istiod{revision}.{settings.root_namespace}.svc:15012"
    yield {"name": "PILOT_CERT_PROVIDER", "value": "istiod"}
    yield {"name": "CA_ADDR", "value": address}
    yield _field("POD_NAME", "metadata.name")
    yield _field("POD_NAMESPACE", "metadata.namespace")
    yield _field("INSTANCE_IP", "status.podIP")
    yield _field("SERVICE_ACCOUNT", "spec.serviceAccountName")
    yield _field("HOST_IP", "status.hostIP")
    yield _limit("ISTIO_CPU_LIMIT", "limits.cpu")
    yield {"name": "PROXY_CONFIG", "value": _json({**config, "statusPort": plan.status_port} if plan.status_port else config)}
    yield {"name": "ISTIO_META_POD_PORTS", "value": _json(_ports(plan.spec))}
    yield {"name": "ISTIO_META_APP_CONTAINERS", "value": ",".join(plan.apps)}
    yield _limit("GOMEMLIMIT", "limits.memory")
    yield {"name": "ISTIO_META_CLUSTER_ID", "value": plan.cluster}
    yield _field("ISTIO_META_NODE_NAME", "spec.nodeName")
    yield {"name": "ISTIO_META_INTERCEPTION_MODE", "value": "NONE" if plan.gateway else plan.mode}
    if plan.network:
        yield {"name": "ISTIO_META_NETWORK", "value": plan.network}
    if owner.name:
        yield {"name": "ISTIO_META_WORKLOAD_NAME", "value": owner.name}
        yield {"name": "ISTIO_META_OWNER", "value": owner.reference}
    if "sidecar.istio.io/bootstrapOverride" in plan.wishes:
        yield {"name": "ISTIO_BOOTSTRAP_OVERRIDE", "value": "/etc/istio/custom-bootstrap/custom_bootstrap.json"}
    if mesh := settings.mesh_id or settings.trust_domain:
        yield {"name": "ISTIO_META_MESH_ID", "value": mesh}
    yield {"name": "TRUST_DOMAIN", "value": settings.trust_domain or "cluster.local"}
    if plan.native:  # ours: the kubelet stops it after the app, so its end waits for nobody
        yield {"name": "MESH_NATIVE_SIDECAR", "value": "true"}


def _json(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def _ports(spec: Obj) -> list[Obj]:
    return [
        {"containerPort": port.get("containerPort"), "protocol": port.get("protocol") or "TCP"}
        | ({"name": port["name"]} if port.get("name") else {})
        for container in spec.get("containers") or ()
        if container.get("name") != PROXY
        for port in container.get("ports") or ()
    ]


def _mounts(plan: Plan) -> Iterator[Obj]:
    for name, path in (
        ("workload-socket", "/var/run/secrets/workload-spiffe-uds"),
        ("credential-socket", "/var/run/secrets/credential-uds"),
        ("workload-certs", "/var/run/secrets/workload-spiffe-credentials"),
        ("istiod-ca-cert", "/var/run/secrets/istio"),
        ("istio-ca-crl", "/var/run/secrets/istio/crl"),
        ("istio-data", "/var/lib/istio/data"),
        ("istio-envoy", "/etc/istio/proxy"),
        ("istio-token", "/var/run/secrets/tokens"),
        ("istio-podinfo", "/etc/istio/pod"),
    ):
        yield {"mountPath": path, "name": name}
    if "sidecar.istio.io/bootstrapOverride" in plan.wishes:
        yield {"mountPath": "/etc/istio/custom-bootstrap", "name": "custom-bootstrap-volume"}
    yield from plan.wishes.get("sidecar.istio.io/userVolumeMount", ())


def volumes(plan: Plan) -> list[Obj]:
    """All that the mounts need. The user's own of the same name stays, and ours is not added."""
    names = ("labels", "annotations")
    items = [{"path": name, "fieldRef": {"fieldPath": f"metadata.{name}"}} for name in names]
    token = {"path": "istio-token", "expirationSeconds": TOKEN_LIFE, "audience": "istio-ca"}
    found: list[Obj] = [
        {"name": "workload-socket", "emptyDir": {}},
        {"name": "credential-socket", "emptyDir": {}},
        {"name": "workload-certs", "emptyDir": {}},
        {"name": "istio-envoy", "emptyDir": {"medium": "Memory"}},
        {"name": "istio-data", "emptyDir": {}},
        {"name": "istio-podinfo", "downwardAPI": {"items": items}},
        {"name": "istio-token", "projected": {"sources": [{"serviceAccountToken": token}]}},
        {"name": "istiod-ca-cert", "configMap": {"name": "istio-ca-root-cert"}},
        {"name": "istio-ca-crl", "configMap": {"name": "istio-ca-crl", "optional": True}},
    ]
    if override := plan.wishes.get("sidecar.istio.io/bootstrapOverride"):
        found.append({"name": "custom-bootstrap-volume", "configMap": {"name": override}})
    found += plan.wishes.get("sidecar.istio.io/userVolume", ())
    return found


def canonical_name(labels: Obj, owner: Owner) -> str:
    """As a label may be written: 63 characters, ending in a letter or digit."""
    name = labels.get("app.kubernetes.io/name") or labels.get("app") or owner.name
    return re.sub(r"[^A-Za-z0-9]+$", "", str(name)[:63])


def canonical_revision(labels: Obj) -> str:
    return str(labels.get("app.kubernetes.io/version") or labels.get("version") or "latest")
