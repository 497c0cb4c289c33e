"""Flags and environment to one frozen ``Bootstrap``, all errors at once, one line each. No I/O but a look whether files exist.

In: argv without the program's name, and the environment. Out: ``Bootstrap``, or ``BadBootstrap``. A flag beats its variable. No
secret is a setting: what is secret is named by file.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urlsplit

import msgspec

from meshproxy import podenv
from meshproxy.model.cluster import Workload
from meshproxy.policy import format as log_format

__all__ = ["AppPage", "BadBootstrap", "Bootstrap", "parse", "read", "usage"]

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")


class AppPage(NamedTuple):
    """Where the app shows its metrics, over plain HTTP. ``host`` "": on our own address."""

    host: str
    port: int
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """What a sidecar is told at its start. ``config`` set: standalone, without control. Ports may be 0: the kernel chooses.

    ``identity_*``: PEM files, all of them or none. ``concurrency``: worker processes. ``drain_seconds``: how long SIGTERM waits
    for what is in flight. ``access_log``: "" for none, else a path. ``labels``: the workload's, sorted.
    ``app_metrics``: what :15020 shows with our own. ``app_probers``: the app's probes that :15020 relays, by path.
    ``ignored``: flags of Istio's that say nothing to us.
    """

    pod: str
    namespace: str = "default"
    service_account: str = "default"
    ip: str = "127.0.0.1"
    role: str = "sidecar"
    workload_name: str = ""
    cluster_id: str = "Kubernetes"
    labels: tuple[tuple[str, str], ...] = ()
    control: str = ""
    control_ca: Path | None = None
    token_file: Path | None = None
    config: Path | None = None
    identity_cert: Path | None = None
    identity_key: Path | None = None
    identity_roots: Path | None = None
    outbound_port: int = 15001
    admin_port: int = 15000
    health_port: int = 15021
    metrics_port: int = 15020
    admin_bind: str = "127.0.0.1"
    concurrency: int = 1
    drain_seconds: float = 45.0
    log_level: str = "info"
    access_log: str = ""
    access_log_encoding: str = "TEXT"
    access_log_format: str = ""
    app_metrics: AppPage | None = None
    app_probers: tuple[tuple[str, podenv.Prober], ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def node(self) -> str:
        """``pod.namespace``, as ``proxy-status`` names proxies."""
        return f"{self.pod}.{self.namespace}"

    @property
    def workload(self) -> Workload:
        """Our own peer metadata as far as we can tell ourselves; control's, once known, is better (``Snapshot.peer(ip)``)."""
        labels = dict(self.labels)
        name, version = labels.get("app.kubernetes.io/name", ""), labels.get("app.kubernetes.io/version", "")
        workload = self.workload_name or labels.get("service.istio.io/workload-name", "") or self.pod
        return Workload(
            pod=self.pod,
            namespace=self.namespace,
            workload=workload,
            app=labels.get("app", "") or name,
            version=labels.get("version", "") or version,
            canonical_service=labels.get("service.istio.io/canonical-name", "") or name or labels.get("app", "") or workload,
            canonical_revision=labels.get("service.istio.io/canonical-revision", "")
            or version
            or labels.get("version", "")
            or "latest",
            cluster=self.cluster_id,
            service_account=self.service_account,
        )


class BadBootstrap(Exception):
    """``errors``: one line each, starting with the flag."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = tuple(errors)


class _Bad(ValueError):
    """A value that cannot be; the message says what it must be."""


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise _Bad(f"must be an IP address, not {text!r}") from None


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise _Bad(f"must be a port from 0 to 65535, not {text!r}")
    return int(text)


def _workers(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise _Bad(f"must be a number of processes from 1 to 256, not {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86_400:
        raise _Bad(f"must be seconds from 0 to 86400, not {text!r}")
    return value


def _one_of(*words: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        for word in words:
            if text.lower() == word.lower():
                return word
        raise _Bad(f"must be {', '.join(words[:-1])} or {words[-1]}, not {text!r}")

    return check


def _labels(text: str) -> tuple[tuple[str, str], ...]:
    pairs = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise _Bad(f"must be like app=rating,version=v1; {part!r} has no key or no '='")
        pairs[key] = value
    return tuple(sorted(pairs.items()))


def _name(text: str) -> str:
    if not text or len(text) > 253 or any(not (c.isalnum() or c in "-._") for c in text):
        raise _Bad(f"must be a Kubernetes name (letters, digits, '-', '.'), not {text!r}")
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
        raise _Bad("must hold no user or password: a token goes in a file, --token-file")
    if not good or parts.query or parts.fragment:
        raise _Bad("must be like https://127.0.0.1:15012, without a path or query")
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
        raise _Bad("must hold no user or password: what is asked is on this machine")
    if not good or parts.fragment or not text.isascii() or " " in text:
        raise _Bad(f"must be like http://127.0.0.1:9090/metrics, not {text!r}")
    path = (parts.path or "/metrics") + (f"?{parts.query}" if parts.query else "")
    return AppPage(parts.hostname or "", parts.port or 80, path)


def _annotated(text: str) -> AppPage | None:
    try:
        told = msgspec.json.decode(text, type=dict[str, str])
    except msgspec.DecodeError:
        raise _Bad('must be like {"scrape": "true", "port": "9090", "path": "/metrics"}') from None
    if told.get("scrape") == "false":  # as Istio's agent: a port alone is as good as asked
        return None
    path = told.get("path") or "/metrics"
    if not path.startswith("/") or not path.isascii() or " " in path:
        raise _Bad(f"path: must start with a slash and hold no blanks, not {path!r}")
    return AppPage("", _port(told.get("port") or "80"), path)


def _log_file(text: str) -> str:
    if text and not text.startswith("/"):
        raise _Bad(f"must be an absolute path such as /dev/stdout, not {text!r}")
    return text


def _text(text: str) -> str:
    return text


def _probers(text: str) -> tuple[tuple[str, podenv.Prober], ...]:
    try:
        return podenv.probers(text)
    except ValueError as bad:
        raise _Bad(str(bad)) from None


class _Setting(NamedTuple):
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
    _Setting("pod", ("POD_NAME",), _name, "NAME", "our pod's name"),
    _Setting("namespace", ("POD_NAMESPACE",), _name, "NAME", "our pod's namespace (default)"),
    _Setting("service_account", ("SERVICE_ACCOUNT",), _name, "NAME", "our service account (default)"),
    _Setting("ip", ("INSTANCE_IP",), _address, "IP", "own address; every listener binds to it by default (127.0.0.1)"),
    _Setting("role", ("MESH_ROLE",), _one_of("sidecar", "gateway"), "ROLE", "sidecar or gateway (sidecar)"),
    _Setting("labels", ("MESH_WORKLOAD_LABELS",), _labels, "K=V,...", "our workload's labels"),
    _Setting("workload_name", ("ISTIO_META_WORKLOAD_NAME",), _text, "NAME", "our workload's name (the pod's)"),
    _Setting("cluster_id", ("ISTIO_META_CLUSTER_ID",), _text, "NAME", "our cluster's name (Kubernetes)"),
    _Setting("control", ("MESH_CONTROL", "CA_ADDR"), _url, "URL", "the control service, https://host:15012"),
    _Setting("control_ca", ("MESH_CONTROL_CA",), Path, "FILE", "the mesh root that control's certificate is under"),
    _Setting("token_file", ("MESH_TOKEN_FILE",), Path, "FILE", "our join token"),
    _Setting("config", ("MESH_CONFIG",), Path, "FILE|DIR", "standalone: read the configuration here instead of asking control"),
    _Setting("identity_cert", ("MESH_IDENTITY_CERT",), Path, "FILE", "standalone: our certificate chain, PEM, leaf first"),
    _Setting("identity_key", ("MESH_IDENTITY_KEY",), Path, "FILE", "standalone: its private key, PEM"),
    _Setting("identity_roots", ("MESH_IDENTITY_ROOTS",), Path, "FILE", "standalone: the roots that we trust, PEM"),
    _Setting("outbound_port", ("MESH_OUTBOUND_PORT",), _port, "PORT", "outbound proxy (15001)"),
    _Setting("admin_port", ("MESH_ADMIN_PORT",), _port, "PORT", "admin (15000)"),
    _Setting("health_port", ("MESH_HEALTH_PORT",), _port, "PORT", "health (15021)"),
    _Setting("metrics_port", ("MESH_METRICS_PORT",), _port, "PORT", "metrics (15020)"),
    _Setting("admin_bind", ("MESH_ADMIN_BIND",), _address, "IP", "where admin, health and metrics listen (own address)"),
    _Setting("concurrency", ("MESH_CONCURRENCY",), _workers, "N", "worker processes (1)"),
    _Setting("drain_seconds", ("MESH_DRAIN_SECONDS",), _seconds, "SECONDS", "how long a stop waits for requests in flight (45)"),
    _Setting("log_level", ("MESH_LOG_LEVEL",), _one_of(*LOG_LEVELS), "LEVEL", f"{', '.join(LOG_LEVELS)} (info)"),
    _Setting("access_log", ("MESH_ACCESS_LOG",), _log_file, "PATH", "write an access log, for example to /dev/stdout (off)"),
    _Setting("access_log_encoding", ("MESH_ACCESS_LOG_ENCODING",), _one_of("TEXT", "JSON"), "TEXT|JSON", "its encoding (TEXT)"),
    _Setting(
        "app_metrics",
        ("MESH_APP_METRICS", "ISTIO_PROMETHEUS_ANNOTATIONS"),
        _app_page,
        "URL",
        "the app's own metrics, to be shown with ours (none)",
    ),
    _Setting("app_probers", ("ISTIO_KUBE_APP_PROBERS",), _probers, "JSON", "the app's own probes, relayed on the metrics port"),
    _Setting("access_log_format", ("MESH_ACCESS_LOG_FORMAT",), _text, "TEXT", "its format: Envoy's operators (Istio's)"),
)
_IDENTITY = ("identity_cert", "identity_key", "identity_roots")
_BY_FLAG = {setting.flag: setting for setting in SETTINGS}


def usage() -> str:
    """The text of ``--help``."""
    rows = [(f"{setting.flag} {setting.meta}", setting.variables[0], setting.help) for setting in SETTINGS]
    wide = max(len(row[0]) for row in rows)
    lines = [f"  {flag:{wide}}  {text} [{variable}]" for flag, variable, text in rows]
    return "\n".join(
        [
            "usage: meshproxy [FLAG VALUE]...   the sidecar; each flag has a variable, shown in brackets",
            "       meshproxy proxy sidecar|router [FLAG VALUE]...   the same in a pod made for Istio: its flags are accepted",
            "",
            *lines,
            "",
            "examples:",
            "  meshproxy --pod book --control https://127.0.0.1:15012 --control-ca root.pem --token-file book.token",
            "  meshproxy --pod edge --role gateway --config mesh.json",
            "",
        ]
    )


def parse(
    argv: Sequence[str],
    environ: Mapping[str, str],
    exists: Callable[[Path], bool] = Path.exists,
    read_text: Callable[[Path], str] = Path.read_text,
) -> Bootstrap:
    """Read the settings. ``read_text``: for the pod's labels only. Raises ``BadBootstrap`` with every error found."""
    errors: list[str] = []
    values: dict[str, Any] = {}
    given = _environment(environ)
    if argv and argv[0] == "proxy":
        told = podenv.in_a_pod(argv, environ, set(_BY_FLAG), exists, read_text)
        given = {**told.defaults, **given}
        argv, values["ignored"] = told.ours, told.ignored
        errors += told.errors
        if "labels" not in given:
            values["labels"] = told.labels
    given.update(_flags(argv, errors))
    for setting in SETTINGS:
        source, text = given.get(setting.field, ("", ""))
        if source and (text or setting.read is _text):
            try:
                values[setting.field] = setting.read(text)
            except _Bad as bad:
                errors.append(f"{source}: {bad}")
        elif source.startswith("--"):
            errors.append(f"{source}: must not be empty")
    if "admin_bind" not in values and "ip" in values:
        values["admin_bind"] = values["ip"]
    _cross_check(values, given, errors, exists)
    if errors:
        raise BadBootstrap(errors)
    return Bootstrap(**values)


def _environment(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Field -> (where from, text). An empty variable is as good as none."""
    found = {}
    for setting in SETTINGS:
        for variable in setting.variables:
            if environ.get(variable):
                found[setting.field] = (variable, environ[variable])
                break
    return found


def _flags(argv: Sequence[str], errors: list[str]) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    rest = list(reversed(argv))
    while rest:
        flag, equals, text = rest.pop().partition("=")
        setting = _BY_FLAG.get(flag)
        if setting is None:
            near = difflib.get_close_matches(flag, _BY_FLAG, 1)
            hint = f"; did you mean {near[0]}?" if near else "; see meshproxy --help"
            errors.append(f"{flag}: no such flag{hint}")
            if not equals and rest and not rest[-1].startswith("--"):
                rest.pop()  # most likely its value
            continue
        if not equals:
            if not rest or rest[-1].startswith("--"):
                errors.append(f"{flag}: needs a value, {setting.meta}")
                continue
            text = rest.pop()
        if setting.field in found:
            errors.append(f"{flag}: given twice")
        found[setting.field] = (flag, text)
    return found


def _cross_check(
    values: dict[str, Any], given: Mapping[str, tuple[str, str]], errors: list[str], exists: Callable[[Path], bool]
) -> None:
    """What no setting can tell alone. ``given`` is what was said, right or wrong, so that one mistake is told once."""
    if "pod" not in given:
        errors.append("--pod: is required (or POD_NAME)")
    if "config" in given and "control" in given:
        errors.append("--config: cannot go with --control: a proxy is either standalone or asks control")
    elif "config" not in given and "control" not in given:
        errors.append("--control: is required (or --config FILE to run without a control service)")
    elif "control" in given:
        errors += [
            f"{flag}: is required with --control"
            for field, flag in (("control_ca", "--control-ca"), ("token_file", "--token-file"))
            if field not in given
        ]
    own = [field for field in _IDENTITY if field in given]
    if "control" in given:
        errors += [f"{_flag(field)}: cannot go with --control: control gives the identity" for field in own]
    elif own:
        others = " and ".join(map(_flag, own))
        errors += [f"{_flag(field)}: is required with {others}" for field in _IDENTITY if field not in given]
    for field in ("control_ca", "token_file", "config", *_IDENTITY):
        if field in values and not exists(values[field]):
            errors.append(f"{given[field][0]}: {values[field]}: no such file")
    ports: dict[int, str] = {}
    for field, default in (("outbound_port", 15001), ("admin_port", 15000), ("health_port", 15021), ("metrics_port", 15020)):
        port = values.get(field, default)
        other = ports.setdefault(port, field) if port else field
        if other != field:
            errors.append(f"{_flag(field)}: {port} is {_flag(other)} already")
    app = values.get("app_metrics")
    if app is not None and app.port == values.get("metrics_port", 15020) and app.host in ("", values.get("ip", "127.0.0.1")):
        errors.append(f"{given['app_metrics'][0]}: {app.port} is our own --metrics-port: we would ask ourselves")
    if text := values.get("access_log_format"):
        if values.get("access_log_encoding") == "JSON":
            errors.append("--access-log-format: is for the encoding TEXT; JSON has fields of its own")
        try:
            log_format.compile(text)
        except ValueError as bad:
            errors.append(f"--access-log-format: {bad}")


def _flag(field: str) -> str:
    return next(setting.flag for setting in SETTINGS if setting.field == field)


def read(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> Bootstrap:
    """For ``__main__``: parse; on ``--help`` print and exit 0, on errors print one line each on stderr and exit 2."""
    argv = sys.argv[1:] if argv is None else argv
    if "--help" in argv or "-h" in argv:
        _exit(sys.stdout.write(usage()) and 0)
    try:
        return parse(argv, os.environ if environ is None else environ)
    except BadBootstrap as bad:
        for line in bad.errors:
            sys.stderr.write(f"meshproxy: {line}\n")
        _exit(2)


def _exit(code: int) -> NoReturn:
    raise SystemExit(code)
