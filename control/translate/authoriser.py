"""Translate, authorisers: the external services that policies of action CUSTOM ask (MeshConfig extensionProviders).

In: the world's ``Config``, a client's namespace, a provider's name. Out: how to ask it and the service behind it, or why it
cannot be asked; then the policy stays and denies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from control.translate.cluster import cluster_name
from control.world.config import Config
from control.world.mesh import AuthzProvider
from control.world.services import MeshService, nearest_visible
from meshproxy.model.security import ExtAuthz

__all__ = ["Authoriser", "authoriser", "authoriser_services"]


@dataclass(frozen=True, slots=True)
class Authoriser:
    """A provider as one namespace sees it: ``ask`` and its service, or ``unusable``."""

    ask: ExtAuthz | None
    service: MeshService | None
    unusable: str = ""


def authoriser(config: Config, namespace: str, name: str) -> Authoriser:
    found = next((provider for provider in config.mesh.authorisers if provider.name == name), None)
    if found is None:
        return Authoriser(None, None, f'the mesh has no extension provider "{name}"')
    return _seen(config, namespace, found)


def authoriser_services(config: Config, namespace: str) -> Iterator[MeshService]:
    """The services of all providers that ``namespace`` may call: a sidecar there may need their clusters any time."""
    for provider in config.mesh.authorisers:
        service = _seen(config, namespace, provider).service
        if service is not None:
            yield service


def _seen(config: Config, namespace: str, provider: AuthzProvider) -> Authoriser:
    what = f'extension provider "{provider.name}"'
    if provider.ask is None:
        return Authoriser(None, None, f"{what} {provider.unusable}")
    service = nearest_visible(config.services.get(provider.host, ()), namespace)
    if service is None or provider.namespace not in ("", service.namespace):
        return Authoriser(None, None, f"{what}: there is no service {provider.host} for namespace {namespace}")
    port = service.port(provider.port)
    if port is None or not port.http:
        return Authoriser(None, None, f"{what}: service {provider.host} has no HTTP port {provider.port}")
    return Authoriser(msgspec.structs.replace(provider.ask, cluster=cluster_name(provider.port, "", service.host)), service)
