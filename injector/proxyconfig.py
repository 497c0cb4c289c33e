"""``proxy.istio.io/config``: a proxy's own settings, on a pod or for the whole mesh. Quiet.

In: YAML (in an annotation) or an object (in the settings). Out: the object, judged; or ``ValueError``, one line with the path.
It is handed to the sidecar in the variable PROXY_CONFIG. Fields of Istio's that our sidecar has no use for are passed on
unread.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any

from injector.names import Obj
from injector.yamltext import YamlProblem
from injector.yamltext import read as read_yaml

__all__ = ["check", "merged", "read"]

_DURATION = re.compile(r"(\d+(\.\d+)?(h|ms|m|s|us|ns))+")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")


def _concurrency(value: Any) -> str:
    good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 256
    return "" if good else "must be a number of workers from 0 (one for each CPU) to 256"


def _duration(value: Any) -> str:
    return "" if isinstance(value, str) and _DURATION.fullmatch(value) else 'must be a duration such as "45s"'


def _port(value: Any) -> str:
    good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65535
    return "" if good else "must be a port from 0 to 65535"


def _flag(value: Any) -> str:
    return "" if isinstance(value, bool) else "must be true or false"


def _mode(value: Any) -> str:
    if value == "TPROXY":
        return "TPROXY is not supported: this sidecar intercepts by REDIRECT, or not at all with NONE"
    return "" if value in ("REDIRECT", "NONE") else "must be REDIRECT or NONE"


def _variables(value: Any) -> str:
    if not isinstance(value, dict):
        return "must be an object of names and texts"
    for key, text in value.items():
        if not isinstance(key, str) or not _VARIABLE.fullmatch(key):
            return f"{key}: is no name of a variable"
        if not isinstance(text, str):
            return f'{key}: must be a text: put it in quotes, "{str(text).lower() if isinstance(text, bool) else text}"'
    return ""


def _address(value: Any) -> str:
    good = isinstance(value, str) and re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):\d{1,5}", value)
    return "" if good else "must be like istiod.istio-system.svc:15012"


def _image(value: Any) -> str:
    if not isinstance(value, dict) or set(value) - {"imageType"}:
        return "must be an object with imageType"
    return (
        ""
        if value.get("imageType", "") in ("", "default", "debug", "distroless")
        else "imageType: must be default, debug or distroless"
    )


def _tracing(value: Any) -> str:
    if not isinstance(value, dict):
        return "must be an object"
    sampling = value.get("sampling", 0)
    good = isinstance(sampling, int | float) and not isinstance(sampling, bool) and 0 <= sampling <= 100
    return "" if good else "sampling: must be a percentage from 0 to 100"


def _any(value: Any) -> str:
    return ""


_PASSED_ON = """
    availabilityZone binaryPath caCertificatesPem configPath connectTimeout controlPlaneAuthPolicy customConfigFile
    envoyAccessLogService envoyMetricsService envoyMetricsServiceAddress extraStatTags fileFlushInterval
    fileFlushMinSizeKb gatewayTopology meshId parentShutdownDuration privateKeyProvider proxyBootstrapTemplatePath
    proxyHeaders proxyStatsMatcher readinessProbe runtimeValues sds serviceCluster statNameLength statsCompression
    statsdUdpAddress tracingServiceName zipkinAddress"""
_JUDGED: Mapping[str, Callable[[Any], str]] = {
    "concurrency": _concurrency,
    "drainDuration": _duration,
    "terminationDrainDuration": _duration,
    "statusPort": _port,
    "proxyAdminPort": _port,
    "holdApplicationUntilProxyStarts": _flag,
    "interceptionMode": _mode,
    "proxyMetadata": _variables,
    "discoveryAddress": _address,
    "image": _image,
    "tracing": _tracing,
    **dict.fromkeys(_PASSED_ON.split(), _any),
}


def read(text: str) -> Obj:
    """Raises ``ValueError``."""
    try:
        given = read_yaml(text)
    except YamlProblem as problem:
        raise ValueError(f"cannot be read as YAML: {problem}") from None
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ValueError("must be an object such as concurrency: 2")
    return check(given)


def check(given: Obj) -> Obj:
    """``given`` without its nulls. Raises ``ValueError``."""
    for key, value in given.items():
        judge = _JUDGED.get(key)
        if judge is None:
            near = difflib.get_close_matches(str(key), _JUDGED, 1)
            raise ValueError(f"{key}: is no field of a ProxyConfig{f', did you mean {near[0]}?' if near else ''}")
        if value is not None and (problem := judge(value)):
            inner = re.match(r"[-._a-zA-Z0-9]+: ", problem)
            raise ValueError(f"{key}{'.' if inner else ': '}{problem}")
    return {key: value for key, value in given.items() if value is not None}


def merged(base: Obj, over: Obj) -> Obj:
    """The pod's words over the mesh's; their variables add up."""
    both = {**base, **over}
    if base.get("proxyMetadata") and over.get("proxyMetadata"):
        both["proxyMetadata"] = {**base["proxyMetadata"], **over["proxyMetadata"]}
    return both
