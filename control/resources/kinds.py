"""The table of kinds: what the API calls them, which struct they decode to, what ``kubectl get`` prints.

Room: control/resources. Kinds are singletons, compared by identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from control.resources import (
    core,
    destination_rule,
    gateway,
    proxy_config,
    security,
    service_entry,
    sidecar,
    telemetry,
    virtual_service,
    workload_entry,
    workload_group,
)
from control.resources.columns import AGE, NAME, TABLES, Column

__all__ = ["KINDS", "Column", "Kind", "by_kind", "by_plural", "kind_of"]

NETWORKING = "networking.istio.io"
SECURITY = "security.istio.io"
TELEMETRY = "telemetry.istio.io"
EXTENSIONS = "extensions.istio.io"


@dataclass(frozen=True, eq=False)
class Kind:
    """``group`` "" is core. ``versions`` are those served, the first preferred; they all have the same shape."""

    group: str
    versions: tuple[str, ...]
    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...]
    namespaced: bool
    struct: type
    columns: tuple[Column, ...]
    categories: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """The preferred apiVersion."""
        return f"{self.group}/{self.versions[0]}" if self.group else self.versions[0]

    @property
    def resource(self) -> str:
        """``virtualservices.networking.istio.io``; core kinds: the plural."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def is_mesh(self) -> bool:
        """An Istio kind: strictly checked. The others are Kubernetes' own, read leniently."""
        return self.group.endswith("istio.io")

    def __repr__(self) -> str:
        return f"<Kind {self.kind}.{self.group or 'core'}>"


def _kind(
    group: str,
    versions: str,
    struct: type,
    plural: str,
    short: str = "",
    namespaced: bool = True,
    categories: tuple[str, ...] = (),
) -> Kind:
    name = struct.__name__
    return Kind(
        group=group,
        versions=tuple(versions.split()),
        kind=name,
        plural=plural,
        singular=name.lower(),
        short_names=tuple(short.split()),
        namespaced=namespaced,
        struct=struct,
        columns=TABLES.get(name, (NAME, AGE)),
        categories=categories,
    )


_NET = "v1 v1beta1 v1alpha3"
_ISTIO = ("istio-io", "networking-istio-io")
_SEC = ("istio-io", "security-istio-io")

KINDS: tuple[Kind, ...] = (
    _kind("", "v1", core.Namespace, "namespaces", "ns", namespaced=False),
    _kind("", "v1", core.Service, "services", "svc", categories=("all",)),
    _kind("", "v1", core.Pod, "pods", "po", categories=("all",)),
    _kind("", "v1", core.Endpoints, "endpoints", "ep"),
    _kind("", "v1", core.ServiceAccount, "serviceaccounts", "sa"),
    _kind("", "v1", core.Secret, "secrets"),
    _kind("", "v1", core.ConfigMap, "configmaps", "cm"),
    _kind("", "v1", core.Event, "events", "ev"),
    _kind("discovery.k8s.io", "v1", core.EndpointSlice, "endpointslices"),
    _kind("apps", "v1", core.Deployment, "deployments", "deploy", categories=("all",)),
    _kind(NETWORKING, _NET, virtual_service.VirtualService, "virtualservices", "vs", categories=_ISTIO),
    _kind(NETWORKING, _NET, destination_rule.DestinationRule, "destinationrules", "dr", categories=_ISTIO),
    _kind(NETWORKING, _NET, gateway.Gateway, "gateways", "gw", categories=_ISTIO),
    _kind(NETWORKING, _NET, service_entry.ServiceEntry, "serviceentries", "se", categories=_ISTIO),
    _kind(NETWORKING, _NET, sidecar.Sidecar, "sidecars", categories=_ISTIO),
    _kind(NETWORKING, _NET, workload_entry.WorkloadEntry, "workloadentries", "we", categories=_ISTIO),
    _kind(NETWORKING, _NET, workload_group.WorkloadGroup, "workloadgroups", "wg", categories=_ISTIO),
    _kind(NETWORKING, "v1beta1", proxy_config.ProxyConfig, "proxyconfigs", categories=_ISTIO),
    _kind(NETWORKING, "v1alpha3", proxy_config.EnvoyFilter, "envoyfilters", categories=_ISTIO),
    _kind(SECURITY, "v1 v1beta1", security.PeerAuthentication, "peerauthentications", "pa", categories=_SEC),
    _kind(SECURITY, "v1 v1beta1", security.RequestAuthentication, "requestauthentications", "ra", categories=_SEC),
    _kind(SECURITY, "v1 v1beta1", security.AuthorizationPolicy, "authorizationpolicies", "ap", categories=_SEC),
    _kind(
        TELEMETRY, "v1 v1alpha1", telemetry.Telemetry, "telemetries", "telemetry", categories=("istio-io", "telemetry-istio-io")
    ),
    _kind(EXTENSIONS, "v1alpha1", proxy_config.WasmPlugin, "wasmplugins", categories=("istio-io", "extensions-istio-io")),
)

_PLURALS = {(k.group, k.plural): k for k in KINDS}
_KINDS = {(k.group, k.kind): k for k in KINDS}


def by_plural(group: str, plural: str) -> Kind:
    """Raises KeyError with a one-line message."""
    found = _PLURALS.get((group, plural))
    if found is None:
        raise KeyError(f"no resource {plural!r} in group {group or 'core'!r}")
    return found


def by_kind(group_or_api_version: str, kind: str) -> Kind:
    """Takes a group (``networking.istio.io``, "" for core) or an apiVersion (``v1``, ``networking.istio.io/v1``).

    Raises KeyError with a one-line message when the group has no such kind or does not serve that version.
    """
    group, slash, version = group_or_api_version.partition("/")
    if not slash and (group, kind) not in _KINDS:
        group, version = "", group
    found = _KINDS.get((group, kind))
    if found is None:
        raise KeyError(f'no kind "{kind}" in apiVersion "{group_or_api_version}"')
    if version and version not in found.versions:
        served = ", ".join(f"{group}/{v}" if group else v for v in found.versions)
        raise KeyError(f'no kind "{kind}" in apiVersion "{group_or_api_version}"; it is served as {served}')
    return found


def kind_of(obj: Mapping[str, Any]) -> Kind:
    """The kind of an object, by its apiVersion and kind. Raises KeyError with a one-line message."""
    version, kind = obj.get("apiVersion"), obj.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str) or not version or not kind:
        raise KeyError("apiVersion and kind must be given, as text")
    return by_kind(version, kind)
