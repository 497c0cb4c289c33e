"""The sidecar's settings, one row each: flag, variables, how a text of them is read, and its help. No I/O.

In: a setting's text. Out: its value, or ``Bad``, whose message says what it must be.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from meshproxy import podenv

__all__ = ["LOG_LEVELS", "SETTINGS", "AppPage", "Bad", "Setting", "as_is"]

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")


class AppPage(NamedTuple):
    """Where the app shows its metrics, over plain HTTP. ``host`` "": on our own address."""

    host: str
    port: int
    path: str


class Bad(ValueError):
    """A value that cannot be; the message says what it must be."""


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise Bad(f"must be an IP address, not {text!r}") from None


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise Bad(f"must be a port from 0 to 65535, not {text!r}")
    return int(text)


def _workers(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise Bad(f"must be a number of processes from 1 to 256, not {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86_400:
        raise Bad(f"must be seconds from 0 to 86400, not {text!r}")
    return value


def _duration(text: str) -> float:
    try:
        return podenv.seconds(text) if text[-1:].isalpha() else _seconds(text)
    except ValueError as bad:
        raise Bad(str(bad)) from None


def _one_of(*words: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        for word in words:
            if text.lower() == word.lower():
                return word
        raise Bad(f"must be {', '.join(words[:-1])} or {words[-1]}, not {text!r}")

    return check


def _labels(text: str) -> tuple[tuple[str, str], ...]:
    pairs = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise Bad(f"must be like app=rating,version=v1; {part!r} has no key or no '='")
        pairs[key] = value
    return tuple(sorted(pairs.items()))


def _name(text: str) -> str:
    if not text or len(text) > 253 or any(not (c.isalnum() or c in "-._") for c in text):
        raise Bad(f"must be a Kubernetes name (letters, digits, '-', '.'), not {text!r}")
    return text


def _url(text: str) -> str:
    if "://" not in text:  # as Istio writes CA_ADDR
        text = f"https://{text}"
    parts = urlsplit(text)
    try:
        good = parts.scheme == "https" and parts.hostname and parts.port != 0 and parts.path in ("", "/")
    except ValueError:  # a port that is no number
        good = False
    if parts.username or parts.password:
        raise Bad("must hold no user or password: a token goes in a file, --token-file")
    if not good or parts.query or parts.fragment:
        raise Bad("must be like https://127.0.0.1:15012, without a path or query")
    return text


def _app_page(text: str) -> AppPage | None:
    """A URL, or the pod's ``prometheus.io/...`` annotations as Istio's injector writes them: JSON with scrape, port and path."""
    if text.startswith("{"):
        return _annotated(text)
    parts = urlsplit(text)
    try:
        good = parts.scheme == "http" and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if parts.username or parts.password:
        raise Bad("must hold no user or password: what is asked is on this machine")
    if not good or parts.fragment or not text.isascii() or " " in text:
        raise Bad(f"must be like http://127.0.0.1:9090/metrics, not {text!r}")
    path = (parts.path or "/metrics") + (f"?{parts.query}" if parts.query else "")
    return AppPage(parts.hostname or "", parts.port or 80, path)


def _annotated(text: str) -> AppPage | None:
    try:
        told = msgspec.json.decode(text, type=dict[str, str])
    except msgspec.DecodeError:
        raise Bad('must be like {"scrape": "true", "port": "9090", "path": "/metrics"}') from None
    if told.get("scrape") == "false":  # as Istio's agent: a port alone is as good as asked
        return None
    path = told.get("path") or "/metrics"
    if not path.startswith("/") or not path.isascii() or " " in path:
        raise Bad(f"path: must start with a slash and hold no blanks, not {path!r}")
    return AppPage("", _port(told.get("port") or "80"), path)


def _log_file(text: str) -> str:
    if text and not text.startswith("/"):
        raise Bad(f"must be an absolute path such as /dev/stdout, not {text!r}")
    return text


def as_is(text: str) -> str:
    return text


def _yes(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise Bad(f"must be true or false, not {text!r}")
    return text.lower() in ("true", "1")


def _probers(text: str) -> tuple[tuple[str, podenv.Prober], ...]:
    try:
        return podenv.probers(text)
    except ValueError as bad:
        raise Bad(str(bad)) from None


class Setting(NamedTuple):
    """One row: the field, its environment variables (the first set one counts), how it is read, and its help."""

    field: str
    variables: tuple[str, ...]
    read: Callable[[str], Any]
    meta: str
    help: str

    @property
    def flag(self) -> str:
        return "--workload-labels" if self.field == "labels" else "--" + self.field.replace("_", "-")


SETTINGS = (
    Setting("pod", ("POD_NAME",), _name, "NAME", "our pod's name"),
    Setting("namespace", ("POD_NAMESPACE",), _name, "NAME", "our pod's namespace (default)"),
    Setting("service_account", ("SERVICE_ACCOUNT",), _name, "NAME", "our service account (default)"),
    Setting("ip", ("INSTANCE_IP",), _address, "IP", "own address; every listener binds to it by default (127.0.0.1)"),
    Setting("role", ("MESH_ROLE",), _one_of("sidecar", "gateway"), "ROLE", "sidecar or gateway (sidecar)"),
    Setting("labels", ("MESH_WORKLOAD_LABELS",), _labels, "K=V,...", "our workload's labels"),
    Setting("workload_name", ("ISTIO_META_WORKLOAD_NAME",), as_is, "NAME", "our workload's name (the pod's)"),
    Setting("cluster_id", ("ISTIO_META_CLUSTER_ID",), as_is, "NAME", "our cluster's name (Kubernetes)"),
    Setting("control", ("MESH_CONTROL", "CA_ADDR"), _url, "URL", "the control service, https://host:15012"),
    Setting("control_ca", ("MESH_CONTROL_CA",), Path, "FILE", "the mesh root that control's certificate is under"),
    Setting("token_file", ("MESH_TOKEN_FILE",), Path, "FILE", "our join token"),
    Setting("config", ("MESH_CONFIG",), Path, "FILE|DIR", "standalone: read the configuration here instead of asking control"),
    Setting("identity_cert", ("MESH_IDENTITY_CERT",), Path, "FILE", "standalone: our certificate chain, PEM, leaf first"),
    Setting("identity_key", ("MESH_IDENTITY_KEY",), Path, "FILE", "standalone: its private key, PEM"),
    Setting("identity_roots", ("MESH_IDENTITY_ROOTS",), Path, "FILE", "standalone: the roots that we trust, PEM"),
    Setting("outbound_port", ("MESH_OUTBOUND_PORT",), _port, "PORT", "outbound proxy (15001)"),
    Setting("admin_port", ("MESH_ADMIN_PORT",), _port, "PORT", "admin (15000)"),
    Setting("health_port", ("MESH_HEALTH_PORT",), _port, "PORT", "health (15021)"),
    Setting("metrics_port", ("MESH_METRICS_PORT",), _port, "PORT", "metrics (15020)"),
    Setting(
        "prometheus_port", ("MESH_PROMETHEUS_PORT",), _port, "PORT", "metrics once more, as Envoy has them (none; in a pod 15090)"
    ),
    Setting("admin_bind", ("MESH_ADMIN_BIND",), _address, "IP", "where admin listens (own address; in a pod its loopback)"),
    Setting(
        "status_bind", ("MESH_STATUS_BIND",), _address, "IP", "where health and metrics listen (as admin; in a pod everywhere)"
    ),
    Setting("concurrency", ("MESH_CONCURRENCY",), _workers, "N", "worker processes (1)"),
    Setting("drain_seconds", ("MESH_DRAIN_SECONDS",), _seconds, "SECONDS", "how long a stop waits for requests in flight (45)"),
    Setting(
        "termination_seconds",
        ("MESH_TERMINATION_SECONDS", "TERMINATION_DRAIN_DURATION_SECONDS"),
        _seconds,
        "SECONDS",
        "a stop leaves doors open, till the app is gone (0: no; in a pod 5)",
    ),
    Setting(
        "exit_on_zero",
        ("MESH_EXIT_ON_ZERO", "EXIT_ON_ZERO_ACTIVE_CONNECTIONS"),
        _yes,
        "BOOL",
        "a stop waits for the last connection, however long, instead (false)",
    ),
    Setting(
        "minimum_drain", ("MESH_MINIMUM_DRAIN", "MINIMUM_DRAIN_DURATION"), _duration, "SECONDS", "but for so long in any case (5)"
    ),
    Setting("native", ("MESH_NATIVE_SIDECAR",), _yes, "BOOL", "we are stopped after the app: nobody waits for it (false)"),
    Setting("log_level", ("MESH_LOG_LEVEL",), _one_of(*LOG_LEVELS), "LEVEL", f"{', '.join(LOG_LEVELS)} (info)"),
    Setting("access_log", ("MESH_ACCESS_LOG",), _log_file, "PATH", "write an access log, for example to /dev/stdout (off)"),
    Setting("access_log_encoding", ("MESH_ACCESS_LOG_ENCODING",), _one_of("TEXT", "JSON"), "TEXT|JSON", "its encoding (TEXT)"),
    Setting(
        "app_metrics",
        ("MESH_APP_METRICS", "ISTIO_PROMETHEUS_ANNOTATIONS"),
        _app_page,
        "URL",
        "the app's own metrics, to be shown with ours (none)",
    ),
    Setting("app_probers", ("ISTIO_KUBE_APP_PROBERS",), _probers, "JSON", "the app's own probes, relayed on the metrics port"),
    Setting("access_log_format", ("MESH_ACCESS_LOG_FORMAT",), as_is, "TEXT", "its format: Envoy's operators (Istio's)"),
)
