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
from pathlib import Path
from typing import Any, NoReturn

from meshproxy import podenv
from meshproxy.model.cluster import Workload
from meshproxy.policy import format as log_format
from meshproxy.settings import SETTINGS, AppPage, Bad, as_is

__all__ = ["SETTINGS", "AppPage", "BadBootstrap", "Bootstrap", "parse", "read", "usage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """What a sidecar is told at its start. ``config`` set: standalone, without control. Ports may be 0: the kernel chooses.

    ``identity_*``: PEM files, all of them or none. ``concurrency``: worker processes. ``drain_seconds``: how long SIGTERM waits
    for what is in flight; the four below it: ``ending.Plan``. ``access_log``: "" for none, else a path.
    ``labels``: the workload's, sorted. ``app_metrics``: what :15020 shows with our own. ``app_probers``: the app's probes that
    :15020 relays, by path.
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
    prometheus_port: int | None = None
    admin_bind: str = "127.0.0.1"
    status_bind: str = "127.0.0.1"
    concurrency: int = 1
    drain_seconds: float = 45.0
    termination_seconds: float = 0.0
    exit_on_zero: bool = False
    minimum_drain: float = 5.0
    native: bool = False
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


_USUAL = {"outbound_port": 15001, "admin_port": 15000, "health_port": 15021, "metrics_port": 15020}
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
            "       meshproxy wait [--timeoutSeconds N]...   returns when the sidecar here is ready (a postStart hook)",
            "       meshproxy request [--debug-port PORT] METHOD PATH   asks the sidecar here (POST drain: a preStop hook)",
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
        if source and (text or setting.read is as_is):
            try:
                values[setting.field] = setting.read(text)
            except Bad as bad:
                errors.append(f"{source}: {bad}")
        elif source.startswith("--"):
            errors.append(f"{source}: must not be empty")
    if "admin_bind" not in values and "ip" in values:
        values["admin_bind"] = values["ip"]
    if "status_bind" not in values and "admin_bind" in values:
        values["status_bind"] = values["admin_bind"]
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
    for field in ("outbound_port", "admin_port", "health_port", "metrics_port", "prometheus_port"):
        port = values.get(field, _USUAL.get(field))
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
