"""Which pods run, at which addresses, as plain values: the demo's table and its objects. Pure.

In: base address, port, state directory. Out: ``Addresses``, ``PodPlan``s and the objects that the mesh is seeded with.
Assumes Linux, where all of 127.0.0.0/8 is loopback.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from control.demo.netns.layout import APP, SERVICES, SIDECAR, Layout

__all__ = [
    "ADMIN",
    "APP_PORT",
    "CONTROL_METRICS",
    "CONTROL_PORT",
    "DEFAULT_BASE",
    "DEFAULT_PORT",
    "HEALTH",
    "INBOUND",
    "METRICS",
    "OUTBOUND",
    "SERVICE_PORT",
    "SIDECAR_PORTS",
    "SYSTEM",
    "Addresses",
    "BadPlan",
    "ContainerPlan",
    "PodPlan",
    "Probe",
    "Sidecar",
    "app_environment",
    "captured",
    "control_pod",
    "demo_pods",
    "gateway_pod",
    "injected",
    "pod_object",
    "python",
    "seeds",
    "sidecar",
]

DEFAULT_BASE, DEFAULT_PORT = "127.1.0.0", 8080
SERVICE_PORT, APP_PORT = 8080, 9080
ADMIN, OUTBOUND, METRICS, HEALTH = SIDECAR_PORTS = 15000, 15001, 15020, 15021
INBOUND = 15006  # of the sidecar where connections are intercepted
CONTROL_PORT, CONTROL_METRICS = 15012, 15014
SYSTEM = "istio-system"
HTTPS_PORT = 443
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
GATEWAY_ACCOUNT = "istio-ingressgateway-service-account"  # Istio's name: who comes in from outside is told from the workloads


class BadPlan(ValueError):
    """An option that cannot be; one line that names it."""


@dataclass(frozen=True)
class Addresses:
    """Where everything lives. The default base keeps control and user traffic on 127.0.0.1; any other base moves them along.

    With another base control is BASE.20, and user traffic is on the gateway's own address unless a port was asked for by name.
    ``netns``: pods have networks of their own, and addresses that are no loopback ones: 10.X.Y for 127.X.Y.
    """

    base: str
    port: int = DEFAULT_PORT
    port_given: bool = False
    netns: bool = False

    def __post_init__(self) -> None:
        try:
            address = ipaddress.IPv4Address(self.base)
        except ValueError:
            raise BadPlan(f"--base {self.base}: not an IPv4 address; for example --base 127.2.0.0") from None
        ours = address.is_loopback and self.base != "127.0.0.0"
        also = ""
        if self.netns:
            also = ", or a private network such as 192.168.77.0"
            ours = ours or (address.is_private and not address.is_loopback and address not in SERVICES and int(address) > 0)
        if not ours or int(address) & 0xFF:
            raise BadPlan(f"--base {self.base}: must be 127.X.Y.0 other than 127.0.0.0{also}; for example --base 127.2.0.0")
        if not 0 < self.port < 65536:
            raise BadPlan(f"--port {self.port}: must be between 1 and 65535")

    @property
    def layout(self) -> Layout:
        """Of the pods' network, when they have one."""
        first, rest = self.base.split(".", 1)
        return Layout(f"10.{rest}" if first == "127" else self.base)

    def pod(self, number: int) -> str:
        return self.layout.address(number) if self.netns else str(ipaddress.IPv4Address(self.base) + number)

    @property
    def is_default(self) -> bool:
        return self.base == DEFAULT_BASE

    @property
    def control(self) -> str:
        return "127.0.0.1" if self.is_default and not self.netns else self.pod(20)

    @property
    def gateway(self) -> str:
        return self.pod(10)

    @property
    def https_port(self) -> int:
        """Where Gateways of port 443 are opened: as far from it as the port of plain traffic is from 80 (8080: 8443)."""
        return min(self.port + HTTPS_PORT - 80, 65535)

    @property
    def user_traffic(self) -> str:
        return "127.0.0.1" if self.is_default or self.port_given else self.gateway


@dataclass(frozen=True)
class Probe:
    """Readiness: a TCP connect, or a GET answered below 400 when ``path`` is set."""

    host: str
    port: int
    path: str = ""
    space: str = ""  # the network namespace to ask in


@dataclass(frozen=True)
class ContainerPlan:
    name: str
    image: str
    argv: tuple[str, ...]
    probe: Probe
    env: Mapping[str, str] = field(default_factory=dict)
    first: float = 0.5  # seconds before the first restart: long enough for a person to see 1/2
    backoff: float = 1.0  # seconds before the second in a row; doubled each time up to 30
    ports: tuple[int, ...] = ()
    user: int = 0  # 0: as the launcher


@dataclass(frozen=True)
class PodPlan:
    name: str
    ip: str
    containers: tuple[ContainerPlan, ...]
    namespace: str = "default"
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    service_account: str = "default"
    intercepted: bool = False  # iptables sends its connections through its sidecar


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """This interpreter; -P keeps a ``control/`` folder of the user's directory from being imported instead of ours."""
    return (sys.executable, "-P", "-m", module, *arguments)


@dataclass(frozen=True)
class Sidecar:
    """What every sidecar of one mesh is told: where control is and whom to trust."""

    control: str  # URL
    ca: Path
    tokens: Path  # directory; one file per pod

    def token_file(self, namespace: str, pod: str) -> Path:
        return self.tokens / f"{namespace}.{pod}.token"


def sidecar(
    at: Sidecar,
    pod: str,
    ip: str,
    *,
    namespace: str = "default",
    labels: Mapping[str, str] | None = None,
    role: str = "sidecar",
    service_account: str = "default",
) -> ContainerPlan:
    """The istio-proxy container."""
    arguments = [
        *("--pod", pod, "--namespace", namespace, "--service-account", service_account, "--role", role),
        *("--ip", ip),
        *("--control", at.control, "--control-ca", str(at.ca), "--token-file", str(at.token_file(namespace, pod))),
        *("--drain-seconds", "3"),
        *("--access-log", "/dev/stdout"),  # as Istio's demo profile; the container's log is bounded
    ]
    if labels:
        arguments += ["--workload-labels", ",".join(f"{key}={value}" for key, value in labels.items())]
    return ContainerPlan(
        name="istio-proxy",
        image="meshproxy",
        argv=python("meshproxy", *arguments),
        probe=Probe(ip, HEALTH, "/healthz/ready"),
        ports=(METRICS,),
    )


def injected(labels: Mapping[str, str]) -> dict[str, str]:
    """A pod's labels with those that injection adds, as Istio's: whose it is, and that a sidecar there takes mutual TLS."""
    name = labels.get("app.kubernetes.io/name") or labels.get("app", "")
    version = labels.get("app.kubernetes.io/version") or labels.get("version") or "latest"
    return {
        **labels,
        "security.istio.io/tlsMode": labels.get("security.istio.io/tlsMode", "istio"),
        **({"service.istio.io/canonical-name": labels.get("service.istio.io/canonical-name", name)} if name else {}),
        "service.istio.io/canonical-revision": labels.get("service.istio.io/canonical-revision", version),
    }


def app_environment(ip: str, pod: str, namespace: str, port: int = APP_PORT) -> dict[str, str]:
    """What a program in the mesh is told: where to listen, and the sidecar as its proxy."""
    proxy = f"http://{ip}:{OUTBOUND}"
    return {
        "HOST": ip,
        "PORT": str(port),
        # Both spellings: some programs read only one, and an inherited other one would win.
        **dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"), proxy),
        **dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1"),
        "POD_NAME": pod,
        "POD_NAMESPACE": namespace,
        "INSTANCE_IP": ip,
    }


def control_pod(addresses: Addresses, state: Path) -> PodPlan:
    arguments = (
        *("serve", "--state", str(state), "--bind", addresses.control, "--port", str(CONTROL_PORT)),
        *("--metrics-port", str(CONTROL_METRICS), "--logs", str(state / "logs")),
        *("--demo-jwks", str(state / "jwks.json")),
        *("--trace-sampling", "100", "--access-log", "/dev/stdout"),  # as Istio's demo profile; a MeshConfig overrides both
    )
    container = ContainerPlan(
        name="discovery",
        image="mesh-control",
        argv=python("control", *arguments),
        probe=Probe(addresses.control, CONTROL_PORT),
        backoff=0.5,
        ports=(CONTROL_PORT, CONTROL_METRICS),
    )
    return PodPlan("control", addresses.control, (container,), namespace=SYSTEM, labels={"app": "istiod"})


def gateway_pod(addresses: Addresses, at: Sidecar) -> PodPlan:
    name, labels = "istio-ingressgateway", {"app": "istio-ingressgateway", "istio": "ingressgateway"}
    proxy = sidecar(at, name, addresses.gateway, namespace=SYSTEM, labels=labels, role="gateway", service_account=GATEWAY_ACCOUNT)
    at_which = addresses.gateway if addresses.netns else addresses.user_traffic
    traffic = f"{at_which}:{addresses.port}"
    # Gateways of port 80, as Istio's examples write them, and of the very port that users see, come out at one place.
    places = {80: traffic, HTTPS_PORT: f"{at_which}:{addresses.https_port}", addresses.port: traffic}
    bind = {"mesh.dev/gateway-bind": ",".join(f"{port}={place}" for port, place in sorted(places.items()))}
    if addresses.netns:
        proxy = replace(proxy, user=SIDECAR)
    return PodPlan(
        name, addresses.gateway, (proxy,), namespace=SYSTEM, labels=labels, annotations=bind, service_account=GATEWAY_ACCOUNT
    )


def demo_pods(addresses: Addresses, at: Sidecar) -> tuple[PodPlan, ...]:
    """The three workloads of the article."""

    def workload(number: int, pod: str, app: str, version: str, module: str, env: Mapping[str, str]) -> PodPlan:
        ip = addresses.pod(number)
        labels = injected({"app.kubernetes.io/name": app, "app.kubernetes.io/version": version})
        program = ContainerPlan(
            name=app,
            image=f"{app}:{version}",
            argv=python(f"control.demo.apps.{module}"),
            env={**app_environment(ip, pod, "default"), **env},
            probe=Probe(ip, APP_PORT, "/health"),
            ports=(SERVICE_PORT,),
            user=APP if addresses.netns else 0,
        )
        return PodPlan(
            pod,
            ip,
            (program, sidecar(at, pod, ip, labels=labels)),
            labels=labels,
            annotations={"mesh.dev/inbound-ports": f"{SERVICE_PORT}:{APP_PORT}"},
        )

    pods = (
        workload(1, "book-service", "book-service", "v1.0.0", "book", {}),
        workload(2, "rating-service-v1", "rating-service", "v1.0.0", "rating", {"RATING": "1"}),
        workload(3, "rating-service-v2", "rating-service", "v2.0.0", "rating", {"RATING": "3"}),
    )
    return tuple(map(captured, pods)) if addresses.netns else pods


def captured(plan: PodPlan) -> PodPlan:
    """The same pod where iptables knows of the sidecar and the program does not: no proxy, no port of the sidecar's."""

    def within(one: ContainerPlan) -> ContainerPlan:
        env = {name: "" if name.lower() in _PROXIES else value for name, value in one.env.items()}
        if one.name == "istio-proxy":
            return replace(one, env={**env, "ISTIO_META_INTERCEPTION_MODE": "REDIRECT"}, user=SIDECAR)
        return replace(one, env=env, ports=(one.probe.port,))

    annotations = {name: value for name, value in plan.annotations.items() if name != "mesh.dev/inbound-ports"}
    annotations["sidecar.istio.io/interceptionMode"] = "REDIRECT"
    return replace(plan, containers=tuple(map(within, plan.containers)), annotations=annotations, intercepted=True)


def pod_object(plan: PodPlan) -> dict[str, Any]:
    """The Pod without its status."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": plan.name,
            "namespace": plan.namespace,
            "labels": dict(plan.labels),
            "annotations": dict(plan.annotations),
        },
        "spec": {
            "serviceAccountName": plan.service_account,
            "nodeName": "localhost",
            "restartPolicy": "Always",
            "containers": [
                {
                    "name": container.name,
                    "image": container.image,
                    "ports": [{"containerPort": port, "protocol": "TCP"} for port in container.ports],
                }
                for container in plan.containers
            ],
        },
    }


def _service(name: str, namespace: str, selector: Mapping[str, str], ports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": dict(selector), "ports": list(ports), "type": "ClusterIP"},
    }


def seeds(addresses: Addresses) -> tuple[tuple[str, dict[str, Any]], ...]:
    """(collection path, object) of everything the demo creates when it is absent, in order.

    The ingress route lives in istio-system: the user's namespace holds only what the user applies.
    """
    # Without interception the port of the service is the sidecar's; with it the app's own.
    target = APP_PORT if addresses.netns else SERVICE_PORT
    http = {"name": "http", "port": SERVICE_PORT, "targetPort": target, "protocol": "TCP"}
    ingress = _service(
        "istio-ingressgateway",
        SYSTEM,
        {"istio": "ingressgateway"},
        # The port of the outside in the place where kubectl shows such ports: 80:8080/TCP.
        [{"name": "http2", "port": 80, "targetPort": addresses.port, "nodePort": addresses.port, "protocol": "TCP"}],
    )
    ingress["spec"] |= {"type": "LoadBalancer", "externalIPs": [addresses.user_traffic]}
    gateway = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "book-gateway", "namespace": SYSTEM},
        "spec": {
            "selector": {"istio": "ingressgateway"},
            "servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}],
        },
    }
    route = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "book-ingress", "namespace": SYSTEM},
        "spec": {
            "hosts": ["*"],
            "gateways": ["book-gateway"],
            "http": [
                {"route": [{"destination": {"host": "book-service.default.svc.cluster.local", "port": {"number": SERVICE_PORT}}}]}
            ],
        },
    }
    core, istio = "/api/v1/namespaces", "/apis/networking.istio.io/v1/namespaces"
    return (
        *((core, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}) for name in ("default", SYSTEM)),
        (f"{core}/default/services", _service("book-service", "default", {"app.kubernetes.io/name": "book-service"}, [http])),
        (f"{core}/default/services", _service("rating", "default", {"app.kubernetes.io/name": "rating-service"}, [http])),
        (f"{core}/{SYSTEM}/services", ingress),
        (f"{istio}/{SYSTEM}/gateways", gateway),
        (f"{istio}/{SYSTEM}/virtualservices", route),
    )
