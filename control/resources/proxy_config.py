"""ProxyConfig (networking.istio.io), and the two Envoy-specific kinds that are taken but mean nothing here.

Room: control/resources. EnvoyFilter and WasmPlugin keep their spec as it is: their content is Envoy's, not ours.
"""

from __future__ import annotations

from typing import Any, Literal

from control.resources.meta import Int32, Part, Resource, WorkloadSelector

__all__ = ["EnvoyFilter", "ProxyConfig", "ProxyConfigSpec", "ProxyImage", "WasmPlugin"]


class ProxyImage(Part, frozen=True, kw_only=True):
    image_type: Literal["", "default", "debug", "distroless"] = ""


class ProxyConfigSpec(Part, frozen=True, kw_only=True):
    selector: WorkloadSelector | None = None
    concurrency: Int32 | None = None
    environment_variables: dict[str, str] = {}
    image: ProxyImage | None = None


class ProxyConfig(Resource, frozen=True, kw_only=True):
    """Settings of the proxies themselves."""

    spec: ProxyConfigSpec = ProxyConfigSpec()


class EnvoyFilter(Resource, frozen=True, kw_only=True):
    """Patches to Envoy's own configuration: accepted, stored, not honoured."""

    spec: dict[str, Any] = {}


class WasmPlugin(Resource, frozen=True, kw_only=True):
    """A WebAssembly filter for Envoy: accepted, stored, not honoured."""

    spec: dict[str, Any] = {}
