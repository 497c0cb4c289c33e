"""What Kubernetes and an injector tell a sidecar, in Istio's forms, to our settings. Quiet.

In: ``proxy sidecar|router …`` on the command line, the variables PROXY_CONFIG, ISTIO_CPU_LIMIT and ISTIO_KUBE_APP_PROBERS, the
downward API's file of labels. Out: texts for ``bootstrap``'s own settings, and the app's probes. So a pod that was made for
Istio's proxy works with ours. Errors are ``ValueError``, one line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec

__all__ = [
    "LABELS_FILE",
    "ROOT_FILE",
    "TOKEN_FILE",
    "InPod",
    "Prober",
    "in_a_pod",
    "labels",
    "probers",
    "proxy_config",
    "seconds",
]

LABELS_FILE = "/etc/istio/pod/labels"
ROOT_FILE = "/var/run/secrets/istio/root-cert.pem"
TOKEN_FILE = "/var/run/secrets/tokens/istio-token"

# Admin is for who is in the pod, health and metrics for everybody; requests are awaited as long as Istio's proxy lives on.
_IN_A_POD = {"admin_bind": "127.0.0.1", "status_bind": "::", "prometheus_port": "15090", "termination_seconds": "5"}
_ROLES = {"sidecar": "sidecar", "router": "gateway"}
_LEVELS = ("debug", "info", "warning", "error", "critical")
_SPOKEN = {"trace": "debug", "warn": "warning", "off": "critical", "none": "critical", "fatal": "critical"}


class InPod(NamedTuple):
    """``ours``: the arguments that are ours. ``defaults``: field -> where it was said, and the text. ``ignored``: flags of
    Istio's that say nothing to us."""

    ours: tuple[str, ...] = ()
    defaults: Mapping[str, tuple[str, str]] = {}
    labels: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


def in_a_pod(
    argv: Sequence[str],
    environ: Mapping[str, str],
    known: Container[str],
    exists: Callable[[Path], bool],
    read_text: Callable[[Path], str],
) -> InPod:
    """``argv``: ``proxy sidecar|router …``. ``known``: our own flags. Where no control is named, its files are not."""
    rest = list(reversed(argv[1:]))
    role = rest.pop() if rest and not rest[-1].startswith("-") else "sidecar"
    if role not in _ROLES:
        return InPod(errors=(f"proxy: must be proxy sidecar or proxy router, not proxy {role}",))
    ours, ignored, level = _sorted_out(rest, known)
    errors: list[str] = []
    defaults: dict[str, tuple[str, str]] = {"role": ("proxy", _ROLES[role])}
    defaults |= {field: ("proxy", text) for field, text in _IN_A_POD.items()}
    if level:
        defaults["log_level"] = ("--proxyLogLevel", level)
    try:
        defaults |= {field: ("PROXY_CONFIG", text) for field, text in proxy_config(environ).items()}
    except ValueError as bad:
        errors.append(f"PROXY_CONFIG: {bad}")
    if any(word.partition("=")[0] == "--control" for word in ours) or environ.get("MESH_CONTROL") or environ.get("CA_ADDR"):
        defaults["control_ca"] = ("--control-ca", ROOT_FILE)
        defaults["token_file"] = ("--token-file", TOKEN_FILE)
    found: tuple[tuple[str, str], ...] = ()
    if exists(Path(LABELS_FILE)):
        try:
            found = labels(read_text(Path(LABELS_FILE)))
        except (OSError, ValueError) as bad:
            errors.append(f"{LABELS_FILE}: {bad}")
    return InPod(tuple(ours), defaults, found, tuple(ignored), tuple(errors))


def _sorted_out(rest: list[str], known: Container[str]) -> tuple[list[str], list[str], str]:
    """Our arguments, Istio's flags, and the level of the log: one program does the work of two, so the more talkative counts."""
    ours: list[str] = []
    ignored: list[str] = []
    levels: list[str] = []
    while rest:
        word = rest.pop()
        flag, equals, value = word.partition("=")
        taken = [word]
        if not equals and rest and not rest[-1].startswith("--"):
            value = rest.pop()
            taken.append(value)
        if flag in known:
            ours += taken
        elif flag in ("--proxyLogLevel", "--log_output_level"):
            levels += _level(value)
        else:
            ignored.append(flag)
    return ours, ignored, min(levels, key=_LEVELS.index) if levels else ""


def _level(text: str) -> list[str]:
    """``info``, or ``default:info,dns:debug``, of which the default counts."""
    for part in text.split(","):
        scope, colon, level = part.strip().rpartition(":")
        if not colon or scope in ("default", "all"):
            level = _SPOKEN.get(level.lower(), level.lower())
            return [level] if level in _LEVELS else []
    return []


class _Config(msgspec.Struct, rename="camel"):
    """Of PROXY_CONFIG what we obey."""

    concurrency: int | None = None
    drain_duration: str = ""
    termination_drain_duration: str = ""
    status_port: int | None = None
    proxy_admin_port: int | None = None


def proxy_config(environ: Mapping[str, str]) -> dict[str, str]:
    """Field of the bootstrap -> text. ``concurrency: 0`` means a worker for each CPU of the container's limit."""
    text = environ.get("PROXY_CONFIG", "").strip()
    if not text:
        return {}
    try:
        given = msgspec.json.decode(text, type=_Config)
    except msgspec.DecodeError as error:
        raise ValueError(f"must be a ProxyConfig as JSON: {error}") from None
    found: dict[str, str] = {}
    workers = given.concurrency
    if workers == 0:
        limit = environ.get("ISTIO_CPU_LIMIT", "")
        workers = int(limit) if limit.isdecimal() and int(limit) else 1
    for field, value in (
        ("concurrency", workers),
        ("metrics_port", given.status_port or None),
        ("admin_port", given.proxy_admin_port or None),
        ("drain_seconds", _duration("drainDuration", given.drain_duration)),
        ("termination_seconds", _duration("terminationDrainDuration", given.termination_drain_duration)),
    ):
        if value is not None:
            found[field] = str(value)
    return found


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def _duration(field: str, text: str) -> float | None:
    try:
        return seconds(text) if text else None
    except ValueError as bad:
        raise ValueError(f"{field}: {bad}") from None


def seconds(text: str) -> float:
    """Go's way to write a duration."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|h|m|s)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"must be a duration such as 45s, not {text!r}")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


class Header(msgspec.Struct, frozen=True):
    name: str
    value: str = ""


Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class HttpGet(msgspec.Struct, frozen=True, rename="camel"):
    port: Port
    path: str | None = "/"
    scheme: Literal["HTTP", "HTTPS", ""] = "HTTP"
    host: str = ""
    http_headers: tuple[Header, ...] | None = ()


class TcpSocket(msgspec.Struct, frozen=True):
    port: Port
    host: str = ""


class Grpc(msgspec.Struct, frozen=True):
    port: Port
    service: str | None = ""


class Prober(msgspec.Struct, frozen=True, rename="camel"):
    """A probe of the app as its author wrote it; exactly one of the three is there. ``host`` names nobody else to dial: who is
    probed is the app in this pod."""

    http_get: HttpGet | None = None
    tcp_socket: TcpSocket | None = None
    grpc: Grpc | None = None
    timeout_seconds: int = 1


_PROBED = re.compile(r"/app-health/[^/?#\s]+/(livez|readyz|startupz)|/app-lifecycle/[^/?#\s]+/(prestopz|poststartz)")


def probers(text: str) -> tuple[tuple[str, Prober], ...]:
    """Path on the agent (``/app-health/web/readyz``) -> what the kubelet would have asked."""
    try:
        given = msgspec.json.decode(text, type=dict[str, Prober])
    except msgspec.DecodeError as error:
        raise ValueError(f"must be probes as the injector writes them: {error}") from None
    for path, one in given.items():
        if _PROBED.fullmatch(path) is None:
            raise ValueError(
                f"{path[:100]!r}: must be like /app-health/web/readyz (livez, startupz) or /app-lifecycle/web/prestopz"
            )
        if sum(kind is not None for kind in (one.http_get, one.tcp_socket, one.grpc)) != 1:
            raise ValueError(f"{path}: must be one of httpGet, tcpSocket and grpc")
    return tuple(sorted(given.items()))


_LINE = re.compile(r'([^="\s]+)="((?:[^"\\\n]|\\.)*)"')
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)")
_NAMED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def labels(text: str) -> tuple[tuple[str, str], ...]:
    """The downward API's file: ``key="value"`` a line, the value with Go's escapes."""
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        read = _LINE.fullmatch(line.strip())
        if read is None:
            raise ValueError(f'line {number}: must be like app="web", not {line[:80]!r}')
        found[read[1]] = _ESCAPE.sub(_unescaped, read[2])
    return tuple(sorted(found.items()))


def _unescaped(found: re.Match[str]) -> str:
    word: str = found[1]
    if word[0] in "xuU" and len(word) > 1:
        return chr(int(word[1:], 16)) if int(word[1:], 16) < 0x110000 else "\ufffd"
    if word.isdecimal() and len(word) == 3:
        return chr(int(word, 8))
    return _NAMED.get(word, word)
