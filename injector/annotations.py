"""The annotations that steer injection: one table of what each may say. Quiet.

In: a pod's annotations. Out: ``Wishes`` (name -> value, read), or ``BadPod`` with every fault: the field's path and what to do. A
wrong one refuses the pod: a sidecar that ignores what was asked of it would be worse than none. Keys that the table does not
know are not ours.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from injector import proxyconfig, quantity
from injector.names import INJECT, OVERRIDES, PROXY_CONFIG, STATUS, TEMPLATES
from injector.settings import BadSettings, Settings

__all__ = ["TABLE", "BadPod", "Wishes", "check_settings", "parse_bool", "read"]

Wishes = Mapping[str, Any]


class BadPod(ValueError):
    """``errors``: one line each, beginning with the field's path."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = tuple(errors)


def _shown(text: str) -> str:
    return f'"{text[:80]}"' + ("…" if len(text) > 80 else "")


_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")


def parse_bool(text: str) -> bool:
    """As Go's ``strconv.ParseBool``."""
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ValueError(f'must be "true" or "false", not {_shown(text)}')


def _text(text: str) -> str:
    return text


def _uint32(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text[:20]) >= 1 << 32:
        raise ValueError(f"must be a whole number from 0 to 4294967295, not {_shown(text)}")
    return int(text)


def _seconds(text: str) -> int:
    if _uint32(text) >= 1 << 31:
        raise ValueError(f"must be at most 2147483647, not {_shown(text)}")
    return int(text)


def _at_least_one(text: str) -> int:
    if _seconds(text) == 0:
        raise ValueError("must be at least 1: Kubernetes takes no 0 here")
    return int(text)


def _port(text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdecimal()) or int(text[:8]) > 65535:
        raise ValueError(f"must be a port from 0 to 65535, not {_shown(text)}")
    return int(text)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text.strip() else []


def _ports(text: str) -> str:
    for part in _split(text):
        if not (part.isascii() and part.isdecimal()) or not 1 <= int(part[:8]) <= 65535:
            raise ValueError(f"must be ports from 1 to 65535, with commas between, not {_shown(text)}: {_shown(part)} is none")
    return ",".join(_split(text))


def _ports_or_all(text: str) -> str:
    return "*" if text.strip() == "*" else _ports(text)


def _ranges(text: str) -> str:
    for part in _split(text):
        hint = ": write /32 or /128 for one address" if "/" not in part else ""
        try:
            if hint:
                raise ValueError
            ipaddress.ip_network(part, strict=False)
        except ValueError:
            raise ValueError(
                f"must be ranges such as 10.0.0.0/8, with commas between, not {_shown(text)}: {_shown(part)} is none{hint}"
            ) from None
    return ",".join(_split(text))


def _ranges_or_all(text: str) -> str:
    return "*" if text.strip() == "*" else _ranges(text)


def _interfaces(text: str) -> str:
    for part in _split(text):
        if not re.fullmatch(r"[A-Za-z0-9_.:+@-]{1,15}", part):
            raise ValueError(f"must be names of network interfaces, with commas between: {_shown(part)} is none")
    return ",".join(_split(text))


def _mode(text: str) -> str:
    if text == "TPROXY":
        raise ValueError(
            "TPROXY is not supported: this sidecar intercepts by REDIRECT; remove the annotation, or NONE for no interception"
        )
    if text not in ("REDIRECT", "NONE"):
        raise ValueError(f"must be REDIRECT or NONE, not {_shown(text)}")
    return text


def _amount(text: str) -> str:
    quantity.read(text)
    return text


def _image(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][-A-Za-z0-9._:/@]{0,300}", text):
        raise ValueError(f"must be the name of an image, not {_shown(text)}")
    return text


def _one_of(*words: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be {', '.join(words[:-1])} or {words[-1]}, not {_shown(text)}")
        return text

    return check


_proxy_level = _one_of("trace", "debug", "info", "warning", "warn", "error", "critical", "off")


def _component_levels(text: str) -> str:
    for part in _split(text):
        name, colon, level = part.partition(":")
        if not colon or not name:
            raise ValueError(f"must be like misc:error,rbac:debug, not {_shown(text)}")
        _proxy_level(level)
    return ",".join(_split(text))


_agent_level = _one_of("none", "error", "warn", "info", "debug")


def _agent_levels(text: str) -> str:
    if not _split(text):
        raise ValueError("must be like default:info, not empty")
    for part in _split(text):
        _agent_level(part.rpartition(":")[2])
    return ",".join(_split(text))


def _object_name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", text):
        raise ValueError(f"must be the name of a ConfigMap, not {_shown(text)}")
    return text


def _json(text: str, example: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise ValueError(f"must be JSON such as {example}") from None


_VOLUME = '{"certs": {"secret": {"secretName": "certs"}}}'
_MOUNT = '{"certs": {"mountPath": "/etc/certs", "readOnly": true}}'


def _named(text: str, example: str, field: str) -> tuple[dict[str, Any], ...]:
    """An object of objects by name, or a list of objects with names."""
    given = _json(text, example)
    if isinstance(given, dict):
        given = [{"name": key, **value} if isinstance(value, dict) else None for key, value in given.items()]
    if not isinstance(given, list) or not all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in given):
        raise ValueError(f"must be JSON such as {example}")
    for one in given:
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", one["name"]):
            raise ValueError(f"{_shown(one['name'])} is no name of a volume: small letters, digits and '-'")
        if field and not (isinstance(one.get(field), str) and one[field]):
            raise ValueError(f"{one['name']}: needs {field}")
    return tuple(given)


def _volumes(text: str) -> tuple[dict[str, Any], ...]:
    return _named(text, _VOLUME, "")


def _mounts(text: str) -> tuple[dict[str, Any], ...]:
    return _named(text, _MOUNT, "mountPath")


def _templates(text: str) -> tuple[str, ...]:
    names = tuple(_split(text))
    for name in names:
        if name in ("grpc-agent", "grpc-simple"):
            raise ValueError(
                f"the template {name} is not supported: proxyless gRPC needs an xDS server, which this mesh has not; "
                "use sidecar (the default)"
            )
        if name not in ("sidecar", "gateway"):
            raise ValueError(f"there is no template {_shown(name)}: sidecar and gateway are what there is")
    if len(set(names)) != 1:
        raise ValueError("must name one template, sidecar or gateway")
    return names


class Status(msgspec.Struct, frozen=True, rename="camel"):
    """What an earlier injection put in, by name."""

    init_containers: tuple[str, ...] | None = None
    containers: tuple[str, ...] | None = None
    volumes: tuple[str, ...] | None = None
    image_pull_secrets: tuple[str, ...] | None = None
    revision: str | None = None


def _status(text: str) -> Status:
    try:
        return msgspec.json.decode(text, type=Status)
    except (msgspec.DecodeError, RecursionError):
        raise ValueError("is not what an injector wrote: remove it, nobody else may set it") from None


class Overrides(msgspec.Struct, frozen=True, rename="camel"):
    """Containers of the user's own that were merged over the template's."""

    containers: tuple[dict[str, Any], ...] | None = None
    init_containers: tuple[dict[str, Any], ...] | None = None


def _overrides(text: str) -> Overrides:
    example = '{"containers": [{"name": "istio-proxy", "resources": {}}]}'
    try:
        found = msgspec.json.decode(text, type=Overrides)
    except (msgspec.DecodeError, RecursionError):
        raise ValueError(f"must be JSON such as {example}") from None
    if not all(isinstance(one.get("name"), str) for one in (*(found.containers or ()), *(found.init_containers or ()))):
        raise ValueError(f"every container needs a name, as in {example}")
    return found


TABLE: Mapping[str, Callable[[str], Any]] = {
    "sidecar.istio.io/proxyCPU": _amount,
    "sidecar.istio.io/proxyCPULimit": _amount,
    "sidecar.istio.io/proxyMemory": _amount,
    "sidecar.istio.io/proxyMemoryLimit": _amount,
    "sidecar.istio.io/proxyImage": _image,
    "sidecar.istio.io/proxyImageType": _one_of("default", "debug", "distroless"),
    "sidecar.istio.io/interceptionMode": _mode,
    "sidecar.istio.io/bootstrapOverride": _object_name,
    "sidecar.istio.io/capNetBindService": parse_bool,
    "sidecar.istio.io/userVolume": _volumes,
    "sidecar.istio.io/userVolumeMount": _mounts,
    "sidecar.istio.io/logLevel": _proxy_level,
    "sidecar.istio.io/componentLogLevel": _component_levels,
    "sidecar.istio.io/agentLogLevel": _agent_levels,
    "sidecar.istio.io/nativeSidecar": parse_bool,
    "sidecar.istio.io/rewriteAppHTTPProbers": parse_bool,
    "sidecar.istio.io/statsInclusionPrefixes": _text,
    "sidecar.istio.io/statsInclusionSuffixes": _text,
    "sidecar.istio.io/statsInclusionRegexps": _text,
    "sidecar.istio.io/statsHistogramBuckets": _text,
    "sidecar.istio.io/statsCompression": parse_bool,
    "sidecar.istio.io/extraStatTags": _text,
    STATUS: _status,
    "status.sidecar.istio.io/port": _port,
    "readiness.status.sidecar.istio.io/initialDelaySeconds": _seconds,
    "readiness.status.sidecar.istio.io/periodSeconds": _at_least_one,
    "readiness.status.sidecar.istio.io/failureThreshold": _at_least_one,
    "readiness.status.sidecar.istio.io/applicationPorts": _ports,
    "traffic.sidecar.istio.io/includeOutboundIPRanges": _ranges_or_all,
    "traffic.sidecar.istio.io/excludeOutboundIPRanges": _ranges,
    "traffic.sidecar.istio.io/includeInboundPorts": _ports_or_all,
    "traffic.sidecar.istio.io/excludeInboundPorts": _ports,
    "traffic.sidecar.istio.io/includeOutboundPorts": _ports,
    "traffic.sidecar.istio.io/excludeOutboundPorts": _ports,
    "traffic.sidecar.istio.io/excludeInterfaces": _interfaces,
    "traffic.sidecar.istio.io/kubevirtInterfaces": _interfaces,
    "istio.io/reroute-virtual-interfaces": _interfaces,
    PROXY_CONFIG: proxyconfig.read,
    OVERRIDES: _overrides,
    TEMPLATES: _templates,
    "prometheus.istio.io/merge-metrics": parse_bool,
    "istio.io/rev": _text,
    INJECT: _text,  # judged by ``decide``
}


def read(annotations: Mapping[str, Any], path: str = "metadata.annotations") -> Wishes:
    """Raises ``BadPod``."""
    found: dict[str, Any] = {}
    errors: list[str] = []
    for name, text in annotations.items():
        reader = TABLE.get(name)
        if reader is None or text is None:
            continue
        try:
            if not isinstance(text, str):
                raise ValueError("must be a text: put it in quotes")
            found[name] = reader(text)
        except ValueError as bad:
            errors.append(f"{path}[{name}]: {bad}")
    for most, least in (
        ("sidecar.istio.io/proxyCPULimit", "sidecar.istio.io/proxyCPU"),
        ("sidecar.istio.io/proxyMemoryLimit", "sidecar.istio.io/proxyMemory"),
    ):
        if most in found and least in found and quantity.read(found[most]) < quantity.read(found[least]):
            errors.append(f"{path}[{most}]: must be at least {least}, which is {found[least]}, not {found[most]}")
    if errors:
        raise BadPod(errors)
    return found


def check_settings(settings: Settings) -> Settings:
    """The same forms in the settings. Raises ``BadSettings``."""
    for field, text, reader in (
        ("logLevel", settings.proxy.log_level, _proxy_level),
        ("componentLogLevel", settings.proxy.component_log_level, _component_levels),
        ("agentLogLevel", settings.proxy.agent_log_level, _agent_levels),
        ("includeOutboundIPRanges", settings.proxy.include_outbound_ip_ranges, _ranges_or_all),
        ("excludeOutboundIPRanges", settings.proxy.exclude_outbound_ip_ranges, _ranges),
        ("includeInboundPorts", settings.proxy.include_inbound_ports, _ports_or_all),
        ("excludeInboundPorts", settings.proxy.exclude_inbound_ports, _ports),
        ("includeOutboundPorts", settings.proxy.include_outbound_ports, _ports),
        ("excludeOutboundPorts", settings.proxy.exclude_outbound_ports, _ports),
    ):
        try:
            reader(text)
        except ValueError as bad:
            raise BadSettings(f"values.proxy.{field}: {bad}") from None
    try:
        proxyconfig.check(settings.proxy_config)
    except ValueError as bad:
        raise BadSettings(f"values.proxyConfig.{bad}") from None
    return settings
