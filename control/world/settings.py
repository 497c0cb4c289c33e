"""World, settings: the users' MeshConfig laid over the settings that control was started with.

In: the ConfigMap's text. Out: ``MeshSettings``, or the fault: then the last good settings stay (configuration fails static).
The trust domain is never taken from here while control runs: every certificate in the mesh names it, and a change under way
would make sidecars strangers to each other. ``trust_domain_at_start`` is for the moment before anybody is given one.
"""

from __future__ import annotations

from typing import Any

import msgspec

from control.resources.mesh_config import EnvoyExtAuthzHttp, MeshConfig, Provider, read_mesh_config
from control.resources.report import Report
from control.resources.values import parse_duration
from control.world.mesh import DEFAULT_RETRY, AuthzProvider, MeshSettings
from control.world.reporting import reporting
from control.world.retries import retry_of
from meshproxy.model.security import ExtAuthz

__all__ = ["mesh_settings", "trust_domain_at_start"]


def mesh_settings(base: MeshSettings, text: str) -> MeshSettings:
    """``base`` with what the text says. Raises ValueError, one line with the path, when it cannot be used."""
    config, providers = _read(text)
    changes: dict[str, Any] = {
        "trust_domain_aliases": tuple(dict.fromkeys((*base.trust_domain_aliases, *config.trust_domain_aliases))),
        "authorisers": tuple(_authoriser(provider) for provider in providers),
        "reporting": reporting(base.reporting, config, providers),
    }
    if config.outbound_traffic_policy is not None:
        changes["outbound_policy"] = config.outbound_traffic_policy.mode
    if config.protocol_detection_timeout:
        changes["detection_timeout"] = parse_duration(config.protocol_detection_timeout)
    if config.proxy_listen_port:
        changes["outbound_port"] = config.proxy_listen_port
    if config.proxy_inbound_listen_port:
        changes["inbound_port"] = config.proxy_inbound_listen_port
    if config.enable_auto_mtls is not None:
        changes["enable_auto_mtls"] = config.enable_auto_mtls
    if config.path_normalization is not None:
        given = config.path_normalization.normalization
        changes["path_normalization"] = "BASE" if given == "DEFAULT" else given
    if config.default_http_retry_policy is not None:
        changes["default_retry"] = retry_of(config.default_http_retry_policy, DEFAULT_RETRY)
    return msgspec.structs.replace(base, **changes)


def trust_domain_at_start(text: str) -> str:
    """The trust domain that the text asks for, "" when it asks for none or cannot be used."""
    try:
        return _read(text)[0].trust_domain
    except ValueError:
        return ""


def _read(text: str) -> tuple[MeshConfig, tuple[Provider, ...]]:
    report = Report()
    found = read_mesh_config(text, report)
    if report.errors:
        raise ValueError(str(report.errors[0]))
    return found


def _authoriser(provider: Provider) -> AuthzProvider:
    http = provider.http
    if http is None:
        return AuthzProvider(name=provider.name, unusable=f"is {provider.kind}, which cannot be asked: use envoyExtAuthzHttp")
    namespace, _, host = http.service.lower().rpartition("/")
    return AuthzProvider(name=provider.name, namespace=namespace, host=host, port=http.port, ask=_ask(provider.name, http, host))


def _ask(name: str, http: EnvoyExtAuthzHttp, host: str) -> ExtAuthz:
    body = http.include_request_body_in_check
    return ExtAuthz(
        name=name,
        cluster="",
        authority=host,
        timeout=parse_duration(http.timeout) if http.timeout else 600.0,
        path_prefix=http.path_prefix,
        fail_open=http.fail_open,
        status_on_error=int(http.status_on_error) if http.status_on_error else 403,
        include_request_headers=_lower(http.include_request_headers_in_check or http.include_headers_in_check),
        include_additional_headers=tuple(
            sorted((key.lower(), value) for key, value in http.include_additional_headers_in_check.items())
        ),
        include_body=body.max_request_bytes if body is not None else 0,
        allow_partial_body=body is not None and body.allow_partial_message,
        headers_to_upstream_on_allow=_lower(http.headers_to_upstream_on_allow),
        headers_to_downstream_on_deny=_lower(http.headers_to_downstream_on_deny),
        headers_to_downstream_on_allow=_lower(http.headers_to_downstream_on_allow),
    )


def _lower(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name.lower() for name in names)
