"""What may be asked of an installation: Istio's ``IstioOperator`` spec, as far as it means something here (room ``install``).

In: nothing. Out: structs. ``ignored`` names fields that Istio has and we have not: they are warned of and left out; anything
else that is no field is an error (``--set``) or a warning (files). Fields of ours that Istio has not say so.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec

from control.resources.meta import Part, PortNumber

__all__ = ["Component", "GatewayComponent", "KubernetesSpec", "Known", "Spec", "Values"]

Count = Annotated[int, msgspec.Meta(ge=0, le=1000)]


class Known(Part, frozen=True, kw_only=True):
    """``ignored``: fields that are known and mean nothing here."""

    ignored: ClassVar[tuple[str, ...]] = ()


class Resources(Known, frozen=True, kw_only=True):
    requests: dict[str, Any] = {}
    limits: dict[str, Any] = {}


class ServicePort(Known, frozen=True, kw_only=True):
    """``target_port`` not given: as ``port``."""

    name: str
    port: PortNumber
    target_port: PortNumber | None = None
    node_port: PortNumber | None = None
    protocol: Literal["TCP", "UDP"] = "TCP"
    app_protocol: str = ""


class Service(Known, frozen=True, kw_only=True):
    """A gateway's Service; ``ports`` replace all of the profile's."""

    ignored = (
        "selector",
        "publishNotReadyAddresses",
        "healthCheckNodePort",
        "sessionAffinity",
        "sessionAffinityConfig",
        "clusterIPs",
    )

    type: Literal["LoadBalancer", "NodePort", "ClusterIP"] | None = None
    ports: tuple[ServicePort, ...] = ()
    load_balancer_ip: str = msgspec.field(default="", name="loadBalancerIP")
    load_balancer_source_ranges: tuple[str, ...] = ()
    load_balancer_class: str = ""
    allocate_load_balancer_node_ports: bool | None = None
    external_traffic_policy: Literal["", "Cluster", "Local"] = ""
    internal_traffic_policy: Literal["", "Cluster", "Local"] = ""
    external_ips: tuple[str, ...] = msgspec.field(default=(), name="externalIPs")
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    ip_families: tuple[Literal["IPv4", "IPv6"], ...] = ()
    ip_family_policy: Literal["", "SingleStack", "PreferDualStack", "RequireDualStack"] = ""


class Variable(Known, frozen=True, kw_only=True):
    """``value`` or ``valueFrom``, as in a pod."""

    name: str
    value: str = ""
    value_from: dict[str, Any] | None = None


class Budget(Known, frozen=True, kw_only=True):
    """A PodDisruptionBudget."""

    ignored = ("selector", "unhealthyPodEvictionPolicy")
    exclusive = (("minAvailable", "maxUnavailable"),)

    min_available: int | str | None = None
    max_unavailable: int | str | None = None


class KubernetesSpec(Known, frozen=True, kw_only=True):
    """What of a Deployment, its pods and its Service may be said."""

    ignored = ("hpaSpec", "overlays", "readinessProbe", "securityContext", "strategy", "volumes", "volumeMounts")

    resources: Resources | None = None
    replica_count: Count | None = None
    env: tuple[Variable, ...] = ()
    service: Service | None = None
    service_annotations: dict[str, str] = {}
    pod_annotations: dict[str, str] = {}
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, Any], ...] = ()
    affinity: dict[str, Any] = {}
    priority_class_name: str = ""
    image_pull_policy: Literal["", "Always", "IfNotPresent", "Never"] = ""
    pod_disruption_budget: Budget | None = None


class Component(Known, frozen=True, kw_only=True):
    """``injector`` is ours: Istio has it within ``pilot``."""

    ignored = ("spec", "namespace", "hub", "tag")

    enabled: bool | None = None
    k8s: KubernetesSpec = KubernetesSpec()


class GatewayComponent(Known, frozen=True, kw_only=True):
    """``name`` says which one of the profile it is, or that it is one more."""

    ignored = ("spec", "hub", "tag")

    enabled: bool | None = None
    name: str
    namespace: str = ""
    label: dict[str, str] = {}
    k8s: KubernetesSpec = KubernetesSpec()


class Components(Known, frozen=True, kw_only=True):
    ignored = ("istiodRemote", "ztunnel")

    base: Component = Component()
    pilot: Component = Component()
    injector: Component = Component()
    cni: Component = Component()
    ingress_gateways: tuple[GatewayComponent, ...] = ()
    egress_gateways: tuple[GatewayComponent, ...] = ()


class StartupProbe(Known, frozen=True, kw_only=True):
    enabled: bool = True
    failure_threshold: int = 600


class Proxy(Known, frozen=True, kw_only=True):
    """Of sidecars, where their pods ask for nothing else."""

    ignored = (
        "enableCoreDump", "privileged", "tracer", "lifecycle", "seccompProfile", "excludeIPRanges6", "readinessSuccessThreshold",
        "envoyAccessLogService", "envoyMetricsService", "envoyStatsd", "outlierLogPath", "proxyResources",
    )  # fmt: skip

    image: str = ""  # with a slash in it: the whole reference
    resources: Resources | None = None
    log_level: str = ""
    component_log_level: str = ""
    auto_inject: Literal["", "enabled", "disabled"] = ""
    cluster_domain: str = ""
    include_ip_ranges: str | None = msgspec.field(default=None, name="includeIPRanges")
    exclude_ip_ranges: str | None = msgspec.field(default=None, name="excludeIPRanges")
    include_inbound_ports: str | None = None
    exclude_inbound_ports: str | None = None
    include_outbound_ports: str | None = None
    exclude_outbound_ports: str | None = None
    status_port: int | None = None
    readiness_initial_delay_seconds: int | None = None
    readiness_period_seconds: int | None = None
    readiness_failure_threshold: int | None = None
    startup_probe: StartupProbe | None = None
    hold_application_until_proxy_starts: bool | None = None


class ProxyInit(Known, frozen=True, kw_only=True):
    image: str = ""
    resources: Resources | None = None
    force_apply_iptables: bool = False


class MultiCluster(Known, frozen=True, kw_only=True):
    ignored = ("enabled", "globalDomainSuffix", "includeEnvoyFilter")

    cluster_name: str = ""


class Switch(Known, frozen=True, kw_only=True):
    enabled: bool = True


class Logging(Known, frozen=True, kw_only=True):
    level: str = ""


class Global(Known, frozen=True, kw_only=True):
    """``networkPolicy`` and ``kubernetesVersion`` (of the oldest kubelet: native sidecars) mean here what they say."""

    ignored = (
        "arch", "certSigners", "configCluster", "configValidation", "defaultNodeSelector", "defaultPodDisruptionBudget",
        "defaultResources", "defaultTolerations", "externalIstiod", "ipFamilies", "ipFamilyPolicy", "istiod", "jwtPolicy",
        "logAsJson", "meshNetworks", "mountMtlsCerts", "omitSidecarInjectorConfigMap", "oneNamespace", "operatorManageWebhooks",
        "pilotCertProvider", "platform", "podDNSSearchNamespaces", "remotePilotAddress", "sds", "sts", "tracer", "useMCP",
        "variant", "waypoint", "autoscalingv2API", "resourceScope", "trustBundleName", "nativeNftables",
    )  # fmt: skip

    hub: str = ""
    tag: str = ""
    image_pull_policy: Literal["", "Always", "IfNotPresent", "Never"] = ""
    image_pull_secrets: tuple[str, ...] = ()
    istio_namespace: str = ""
    kubernetes_version: str = ""
    logging: Logging = Logging()
    mesh_id: str = msgspec.field(default="", name="meshID")
    multi_cluster: MultiCluster = MultiCluster()
    network: str = ""
    ca_address: str = ""
    priority_class_name: str = ""
    network_policy: Switch = Switch()
    proxy: Proxy = Proxy()
    proxy_init: ProxyInit = msgspec.field(default=ProxyInit(), name="proxy_init")


class PilotCni(Known, frozen=True, kw_only=True):
    """Whether somebody's CNI plugin writes the rules."""

    ignored = ("provider",)

    enabled: bool = False


class Pilot(Known, frozen=True, kw_only=True):
    """Of ``env`` only ``ENABLE_NATIVE_SIDECARS`` has a meaning of its own; the rest goes to control as it is."""

    ignored = (
        "autoscaleEnabled", "autoscaleMin", "autoscaleMax", "autoscaleBehavior", "configMap", "cpu", "memory", "deploymentLabels",
        "enabled", "extraContainerArgs", "image", "ipFamilies", "ipFamilyPolicy", "jwksResolverExtraRootCA",
        "keepaliveMaxServerConnectionAge", "podLabels", "rollingMaxSurge", "rollingMaxUnavailable", "seccompProfile",
        "serviceAccountAnnotations", "serviceAnnotations", "taint", "topologySpreadConstraints", "trustedZtunnelNamespace",
        "volumeMounts", "volumes", "hub", "tag", "variant", "envVarFrom", "crlConfigMapName",
    )  # fmt: skip

    replica_count: Count | None = None
    resources: Resources | None = None
    env: dict[str, str] = {}
    trace_sampling: float | None = None
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, Any], ...] = ()
    affinity: dict[str, Any] = {}
    pod_annotations: dict[str, str] = {}
    cni: PilotCni = PilotCni()


class InjectorWebhook(Known, frozen=True, kw_only=True):
    ignored = ("templates", "defaultTemplates", "reinvocationPolicy", "injectionURL", "injectionCABundle", "useLegacySelectors")

    enable_namespaces_by_default: bool = False
    rewrite_app_http_probe: bool = msgspec.field(default=True, name="rewriteAppHTTPProbe")
    never_inject_selector: tuple[dict[str, Any], ...] = ()
    always_inject_selector: tuple[dict[str, Any], ...] = ()
    injected_annotations: dict[str, str] = {}


class Base(Known, frozen=True, kw_only=True):
    """``enableCRDTemplates`` false: the CRDs are somebody else's business."""

    ignored = ("enableIstioConfigCRDs", "excludedCRDs", "validationCABundle", "validationURL")

    enable_crd_templates: bool = msgspec.field(default=True, name="enableCRDTemplates")


class GatewayValues(Known, frozen=True, kw_only=True):
    """The older place of what ``components`` says of the two gateways with these names."""

    ignored = (
        "autoscaleEnabled", "autoscaleMin", "autoscaleMax", "customService", "externalTrafficPolicy", "gatewayType",
        "injectionTemplate", "ipFamilies", "ipFamilyPolicy", "labels", "memory", "cpu", "name", "namespace", "runAsRoot",
        "rollingMaxSurge", "rollingMaxUnavailable", "secretVolumes", "configVolumes", "additionalContainers", "zvpn",
        "podAntiAffinityLabelSelector", "podAntiAffinityTermLabelSelector", "ingressPorts", "externalIPs",
    )  # fmt: skip

    type: Literal["LoadBalancer", "NodePort", "ClusterIP"] | None = None
    ports: tuple[ServicePort, ...] = ()
    load_balancer_ip: str = msgspec.field(default="", name="loadBalancerIP")
    load_balancer_source_ranges: tuple[str, ...] = ()
    service_annotations: dict[str, str] = {}
    pod_annotations: dict[str, str] = {}
    resources: Resources | None = None
    replica_count: Count | None = None
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, Any], ...] = ()
    env: dict[str, str] = {}


class Gateways(Known, frozen=True, kw_only=True):
    ignored = ("securityContext", "seccompProfile")

    ingress: GatewayValues = msgspec.field(default=GatewayValues(), name="istio-ingressgateway")
    egress: GatewayValues = msgspec.field(default=GatewayValues(), name="istio-egressgateway")


class Values(Known, frozen=True, kw_only=True):
    ignored = (
        "cni", "istio_cni", "telemetry", "ztunnel", "experimental", "gatewayClasses", "defaultRevision", "revisionTags",
        "ownerName", "compatibilityVersion", "platform", "istiodRemote", "clusterResources",
    )  # fmt: skip

    global_: Global = msgspec.field(default=Global(), name="global")
    pilot: Pilot = Pilot()
    sidecar_injector_webhook: InjectorWebhook = InjectorWebhook()
    base: Base = Base()
    gateways: Gateways = Gateways()
    mesh_config: dict[str, Any] = {}
    revision: str = ""


class Spec(Known, frozen=True, kw_only=True):
    """``meshConfig`` goes before ``values.meshConfig``, ``hub`` before ``values.global.hub``, and so on."""

    ignored = ("addonComponents", "compatibilityVersion", "installPackagePath", "unvalidatedValues", "defaultRevision")

    profile: Literal["minimal", "default", "demo"] = "default"
    hub: str = ""
    tag: str = ""
    revision: str = ""
    namespace: str = ""
    mesh_config: dict[str, Any] = {}
    components: Components = Components()
    values: Values = Values()
