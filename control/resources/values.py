"""The values that appear in many resources: durations, regexes, hosts, ports, labels, names.

Room: control/resources. In: text from a user. Out: the parsed value, or ValueError with a one-line reason that can follow a
field's path. Hosts, labels and names follow RFC 1123 and Kubernetes; durations Go's ``time.ParseDuration``; regexes are RE2.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from typing import Any

import re2

__all__ = [
    "MAX_REGEX",
    "check_base64",
    "check_fqdn",
    "check_host",
    "check_label_key",
    "check_label_value",
    "check_labels",
    "check_regex",
    "check_subnet",
    "compile_regex",
    "host_covers",
    "is_dns_label",
    "is_dns_subdomain",
    "is_ip",
    "parse_duration",
    "quote",
]

MAX_REGEX = 1024  # bytes, as Istio
_REGEX_MEMORY = 4 << 20  # for the compiled program; beyond it RE2 refuses the pattern

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_HOST_LABEL = re.compile(r"[a-zA-Z0-9_]([-a-zA-Z0-9_]*[a-zA-Z0-9_])?\Z")
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?\Z")


def quote(value: object, limit: int = 60) -> str:
    """A user's value for a message: quoted, on one line, not longer than ``limit``."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else "?" for c in text)
    return f'"{text if len(text) <= limit else text[: limit - 3] + "..."}"'


def parse_duration(text: str) -> float:
    """Seconds. Raises ValueError unless ``text`` is a Go duration (1.5s, 100ms, 1h30m, 0) that is not negative."""
    if text in ("0", "+0"):
        return 0.0
    rest = text.removeprefix("+")
    total, at = 0.0, 0
    while at < len(rest):
        part = _DURATION_PART.match(rest, at)
        if part is None:
            break
        total += float(part[1]) * _UNITS[part[2]]
        at = part.end()
    if at == 0 or at < len(rest):
        if rest.startswith("-"):
            raise ValueError(f"must not be negative, not {quote(text)}")
        hint = f'; a unit is missing, such as "{rest}s"' if rest.replace(".", "", 1).isdigit() else ""
        raise ValueError(f'must be a duration such as "1.5s", "100ms" or "1h30m", not {quote(text)}{hint}')
    if total > 315_576_000_000:  # 10,000 years, the limit of google.protobuf.Duration
        raise ValueError(f"is too long: {quote(text)}")
    return total


def compile_regex(pattern: str) -> Any:
    """The compiled RE2 expression. Raises ValueError when it is empty, too large or not RE2."""
    if not pattern:
        raise ValueError("must not be empty")
    if len(pattern.encode()) > MAX_REGEX:
        raise ValueError(f"is too large: a regex has at most {MAX_REGEX} bytes")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _REGEX_MEMORY
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"is not a valid RE2 regex: {quote(pattern)}: {text}") from None


def check_regex(pattern: str) -> None:
    """Raises ValueError like ``compile_regex``."""
    compile_regex(pattern)


def check_base64(text: str) -> None:
    """Raises ValueError unless ``text`` is standard base64. The message never shows the text: it may be a secret."""
    try:
        base64.b64decode(text.replace("\n", ""), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("must be base64") from None


def is_dns_label(text: str) -> bool:
    """RFC 1123 label: lower case, digits, dashes, 1 to 63."""
    return 0 < len(text) <= 63 and _LABEL.match(text) is not None


def is_dns_subdomain(text: str) -> bool:
    """RFC 1123 subdomain: labels joined by dots, up to 253."""
    return 0 < len(text) <= 253 and all(_LABEL.match(part) for part in text.split("."))


def is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def check_subnet(text: str) -> None:
    """Raises ValueError unless ``text`` is an IP address or a CIDR block."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f'must be an IP address or a block such as "10.0.0.0/8", not {quote(text)}') from None


def _check_labels_of(host: str, labels: list[str]) -> None:
    for label in labels:
        if not label or len(label) > 63 or not _HOST_LABEL.match(label):
            why = "has an empty part" if not label else f"part {quote(label)} is not letters, digits and dashes"
            raise ValueError(f"must be a host name, not {quote(host)}: {why}")


def check_fqdn(host: str) -> None:
    """Raises ValueError unless ``host`` is a DNS name (a trailing dot is fine); an IP address is not one."""
    name = host.removesuffix(".")
    if not name:
        raise ValueError("must not be empty")
    if len(name) > 255:
        raise ValueError("is longer than 255 characters")
    labels = name.split(".")
    _check_labels_of(host, labels)
    if len(labels) > 1 and labels[-1].isdigit():
        raise ValueError(f"must be a host name, not {quote(host)}: the last part may not be a number")


def check_host(host: str) -> None:
    """Like ``check_fqdn``, but ``*`` and a leading ``*.`` or ``*-`` are allowed."""
    if host == "*":
        return
    if host.startswith("*"):
        rest = host[1:].removeprefix("-") if host.startswith("*-") else host[1:].removeprefix(".")
        check_fqdn(rest)
        return
    if "*" in host:
        raise ValueError(f'"*" may only stand at the beginning, not as in {quote(host)}')
    check_fqdn(host)


def host_covers(wide: str, narrow: str) -> bool:
    """Whether every host that ``narrow`` means is meant by ``wide`` too."""
    if wide.startswith("*"):
        return narrow.removeprefix("*").endswith(wide[1:]) and (narrow.startswith("*") or len(narrow) >= len(wide))
    return wide == narrow


def check_label_key(key: str) -> None:
    """Raises ValueError unless ``key`` is a Kubernetes qualified name: ``[prefix/]name``."""
    prefix, slash, name = key.rpartition("/")
    if slash and not is_dns_subdomain(prefix):
        raise ValueError(f"key {quote(key)}: the part before / must be a DNS name")
    if not name or len(name) > 63 or not _LABEL_NAME.match(name):
        raise ValueError(f"key {quote(key)} must be at most 63 letters, digits, - _ . and begin and end with a letter or digit")


def check_label_value(value: str) -> None:
    """Raises ValueError unless ``value`` may be a Kubernetes label value; empty is fine."""
    if value and (len(value) > 63 or not _LABEL_NAME.match(value)):
        raise ValueError(
            f"label value {quote(value)} must be at most 63 letters, digits, - _ . and begin and end with a letter or digit"
        )


def check_labels(labels: dict[str, str]) -> None:
    """Raises ValueError for the first bad key or value."""
    for key, value in labels.items():
        check_label_key(key)
        check_label_value(value)
