"""What ``mesh-init`` is told: istio-iptables' arguments and variables, every value judged, all errors at once. Quiet.

In: argv without the program's name, the environment, the machine's group names. Out: ``Settings``, or ``BadSettings``. A flag
beats its variable, an empty variable is none. No text of the user's reaches a rule as it is: ports and ids become numbers, ranges
networks, and names of interfaces hold nothing that iptables could read as more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, NamedTuple

__all__ = ["FLAGS", "BadSettings", "Flag", "Range", "Settings", "parse", "usage"]

Range = IPv4Network | IPv6Network
_LOOPBACK = IPv4Network("127.0.0.1/32")


class BadSettings(Exception):
    """``errors``: one line each, starting with the flag or the variable."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = tuple(errors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``inbound_ports`` and ``ranges``: None stands for all of them. ``virtual``: interfaces behind which machines live whose
    traffic is outbound. ``groups``: whose traffic is captured, None for everybody's. ``notes``: what was said and says nothing
    to us."""

    outbound: int = 15001
    inbound: int = 15006
    tunnel: int = 15008
    uids: tuple[int, ...] = (1337,)
    gids: tuple[int, ...] = (1337,)
    inbound_ports: tuple[int, ...] | None = ()
    closed_inbound_ports: tuple[int, ...] = ()
    ranges: tuple[Range, ...] | None = ()
    closed_ranges: tuple[Range, ...] = ()
    outbound_ports: tuple[int, ...] = ()
    closed_outbound_ports: tuple[int, ...] = ()
    closed_interfaces: tuple[str, ...] = ()
    virtual: tuple[str, ...] = ()
    groups: tuple[int, ...] | None = None
    closed_groups: tuple[int, ...] = ()
    loopback: IPv4Network = _LOOPBACK
    drop_invalid: bool = False
    probe_port: int = 15002
    probe_timeout: float = 5.0
    dry_run: bool = False
    clean: bool = False
    force: bool = False
    skip: bool = False
    validate: bool = False
    debug: bool = False
    help: bool = False
    notes: tuple[str, ...] = ()


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:57] + "...")


def _parts(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(","))) if text.strip() else []


def _number(text: str, least: int, most: int) -> int | None:
    known = text.isascii() and text.isdecimal() and len(text) <= 10 and least <= int(text) <= most
    return int(text) if known else None


def _port(text: str) -> int:
    found = _number(text.strip(), 1, 65535)
    if found is None:
        raise ValueError(f"must be a port from 1 to 65535, not {_shown(text)}")
    return found


def _ports(text: str) -> tuple[int, ...]:
    found = []
    for part in _parts(text):
        if (port := _number(part, 1, 65535)) is None:
            hint = "; * stands alone, for all ports" if "*" in part else ""
            raise ValueError(f"must be ports from 1 to 65535, with commas between: {_shown(part)} is none{hint}")
        found.append(port)
    return tuple(dict.fromkeys(found))


def _ports_or_all(text: str) -> tuple[int, ...] | None:
    return None if text.strip() == "*" else _ports(text)


def _ranges(text: str) -> tuple[Range, ...]:
    found = []
    for part in _parts(text):
        try:
            if "/" not in part:
                raise ValueError
            if "%" in part:  # a zone is no part of a range
                raise ValueError
            found.append(ip_network(part, strict=False))
        except ValueError:
            hint = "; write /32 or /128 for one address" if part and "/" not in part and "*" not in part else ""
            hint = "; * stands alone, for all addresses" if "*" in part else hint
            raise ValueError(f"must be ranges such as 10.0.0.0/8, with commas between: {_shown(part)} is none{hint}") from None
    return tuple(dict.fromkeys(found))


def _ranges_or_all(text: str) -> tuple[Range, ...] | None:
    return None if text.strip() == "*" else _ranges(text)


def _closed_ranges(text: str) -> tuple[Range, ...]:
    if text.strip() == "*":
        raise ValueError("must not be *: nothing would be intercepted; leave out the ranges that are (-i) instead")
    return _ranges(text)


def _interfaces(text: str) -> tuple[str, ...]:
    for part in _parts(text):
        if not re.fullmatch(r"[A-Za-z0-9_.:@][A-Za-z0-9_.:@-]{0,13}(?:[A-Za-z0-9_.:@-]|\+)?", part):
            raise ValueError(f"must be names of network interfaces, with commas between: {_shown(part)} is none")
    return tuple(_parts(text))


def _ids(text: str) -> tuple[int, ...]:
    found = []
    for part in _parts(text):
        if (one := _number(part, 0, (1 << 32) - 2)) is None:
            raise ValueError(f"must be ids, with commas between: {_shown(part)} is none")
        found.append(one)
    if not found:
        raise ValueError("must name one id at least")
    return tuple(dict.fromkeys(found))


def _loopback(text: str) -> IPv4Network:
    try:
        found = IPv4Network(text.strip(), strict=False)
    except ValueError:
        found = IPv4Network("0.0.0.0/0")
    if not found.is_loopback:
        raise ValueError(f"must be a range within 127.0.0.0/8, not {_shown(text)}")
    return found


_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")


def _bool(text: str) -> bool:
    if text not in (*_TRUE, *_FALSE):
        raise ValueError(f"must be true or false, not {_shown(text)}")
    return text in _TRUE


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3}


def _seconds(text: str) -> float:
    parts = re.findall(r"(\d{1,9}(?:\.\d{1,9})?)(ms|h|m|s)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"must be a duration such as 5s, not {_shown(text)}")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _mode(text: str) -> str:
    if text == "TPROXY":
        raise ValueError("TPROXY is not supported: this sidecar intercepts by REDIRECT")
    if text not in ("REDIRECT", ""):
        raise ValueError(f"must be REDIRECT, not {_shown(text)}")
    return text


def _level(text: str) -> bool:
    """Whether anybody wants to be told everything: ``default:info,iptables:debug``."""
    return any(part.rpartition(":")[2] in ("debug", "trace") for part in text.split(","))


class Flag(NamedTuple):
    """``field`` "": said and without meaning here, for the reason ``why``. ``refused``: it cannot be had at all."""

    long: str
    short: str
    field: str
    judge: Callable[[str], Any]
    help: str
    switch: bool = False
    why: str = ""
    refused: bool = False

    @property
    def variable(self) -> str:
        return self.long.upper().replace("-", "_")


def _void(text: str) -> None:
    return None


_TPROXY_ONLY = "it is for TPROXY, and this sidecar intercepts by REDIRECT"
_NO_DNS = "names are not captured: apps go on asking the cluster's own DNS"
_ON_ITS_OWN = "it works in the network namespace that it was started in"

FLAGS: tuple[Flag, ...] = (
    Flag("envoy-port", "p", "outbound", _port, "port of the sidecar for outbound connections (15001)"),
    Flag("inbound-capture-port", "z", "inbound", _port, "port of the sidecar for inbound connections (15006)"),
    Flag("inbound-tunnel-port", "e", "tunnel", _port, "inbound port that goes past these rules (15008)"),
    Flag("proxy-uid", "u", "uids", _ids, "the sidecar's user, whose own connections are left alone (1337)"),
    Flag("proxy-gid", "g", "gids", _ids, "the sidecar's group (as -u)"),
    Flag("istio-inbound-interception-mode", "m", "", _mode, "REDIRECT"),
    Flag("istio-inbound-ports", "b", "inbound_ports", _ports_or_all, "inbound ports that are captured; * all, none by default"),
    Flag("istio-local-exclude-ports", "d", "closed_inbound_ports", _ports, "inbound ports that are not; only with -b *"),
    Flag("istio-service-cidr", "i", "ranges", _ranges_or_all, "destinations that are captured; * all, none by default"),
    Flag("istio-service-exclude-cidr", "x", "closed_ranges", _closed_ranges, "destinations that are not"),
    Flag("istio-outbound-ports", "q", "outbound_ports", _ports, "outbound ports that are captured wherever they lead"),
    Flag("istio-local-outbound-ports-exclude", "o", "closed_outbound_ports", _ports, "outbound ports that are not captured"),
    Flag("istio-exclude-interfaces", "c", "closed_interfaces", _interfaces, "interfaces whose traffic is left alone"),
    Flag("kube-virt-interfaces", "k", "virtual", _interfaces, "interfaces of virtual machines, whose traffic is outbound"),
    Flag("dry-run", "n", "dry_run", _bool, "print the rules, as iptables-restore reads them, and change nothing", True),
    Flag("clean", "", "clean", _bool, "remove the rules (--cleanup-only); with the -c and -k they were made with", True),
    Flag("cleanup-only", "", "clean", _bool, "", True),
    Flag("force-apply", "", "force", _bool, "replace rules that are there and differ (--reconcile)", True),
    Flag("reconcile", "", "force", _bool, "", True),
    Flag("skip-rule-apply", "", "skip", _bool, "write no rules (a CNI plugin did)", True),
    Flag("run-validation", "", "validate", _bool, "see whether connections are intercepted; 126 if not", True),
    Flag("iptables-probe-port", "", "probe_port", _port, "port that the validation calls (15002)"),
    Flag("probe-timeout", "", "probe_timeout", _seconds, "how long it waits (5s)"),
    Flag("drop-invalid", "", "drop_invalid", _bool, "drop packets that belong to no connection", True),
    Flag("log_output_level", "", "debug", _level, "debug: say every rule (default:info)"),
    # What Istio's program knows and this one has no use for.
    Flag("native-nftables", "", "", _bool, "", True, "the rules are written by iptables, over nftables where that is there"),
    Flag("dual-stack", "", "", _bool, "", True),  # IPv6 is always intercepted where it is on
    Flag("restore-format", "f", "", _bool, "", True),
    Flag("iptables-trace-logging", "", "", _bool, "", True, "packets are not logged"),
    Flag("istio-inbound-tproxy-mark", "t", "", _void, "", False, _TPROXY_ONLY),
    Flag("istio-inbound-tproxy-route-table", "r", "", _void, "", False, _TPROXY_ONLY),
    Flag("redirect-dns", "", "", _bool, "", True, _NO_DNS),
    Flag("capture-all-dns", "", "", _bool, "", True, _NO_DNS),
    Flag("log_as_json", "", "", _bool, "", True),
    Flag("log_caller", "", "", _void, ""),
    Flag("log_stacktrace_level", "", "", _void, ""),
    Flag("log_target", "", "", _void, ""),
    Flag("network-namespace", "", "", _void, "", False, _ON_ITS_OWN, True),
    Flag("cni-mode", "", "", _bool, "", True, _ON_ITS_OWN, True),
    Flag("host-nsenter-exec", "", "", _bool, "", True, _ON_ITS_OWN, True),
    Flag("help", "h", "help", _bool, "", True),
)
_BY_LONG = {flag.long: flag for flag in FLAGS}
_BY_SHORT = {flag.short: flag for flag in FLAGS if flag.short}


def usage() -> str:
    lines = [
        "usage: mesh-init [istio-iptables] [FLAG ...]",
        "",
        "Lets iptables send this network namespace's TCP connections through the sidecar. Each flag has a variable of its name",
        "(--istio-inbound-ports: ISTIO_INBOUND_PORTS). DNS is not captured.",
        "",
    ]
    for flag in FLAGS:
        if flag.help:
            name = f"-{flag.short}, --{flag.long}" if flag.short else f"    --{flag.long}"
            lines.append(f"  {name:<42} {flag.help}")
    return "\n".join(lines)


def parse(argv: Sequence[str], environ: Mapping[str, str], group: Callable[[str], int | None] = lambda name: None) -> Settings:
    """``group``: the id of a group's name. Raises ``BadSettings``."""
    errors: list[str] = []
    said = _from_environment(environ)
    said |= _from_words(argv, errors)
    fields: dict[str, Any] = {}
    notes: list[str] = []
    for flag in FLAGS:
        if flag.long not in said:
            continue
        where, text = said[flag.long]
        try:
            value = flag.judge(text)
        except ValueError as bad:
            errors.append(f"{where}: {bad}")
            continue
        if flag.refused and value is not False:
            errors.append(f"{where}: is not supported: {flag.why}")
        elif flag.why and value is not False:
            notes.append(f"{where} is ignored: {flag.why}")
        elif flag.field:
            fields[flag.field] = fields.get(flag.field, False) or value if flag.field in ("clean", "force") else value
    fields.setdefault("uids", (1337,))
    fields.setdefault("gids", fields["uids"])
    _only_variables(environ, group, fields, notes, errors)
    if not errors:
        errors += _together(fields)
    if errors and not fields.get("help"):
        raise BadSettings(errors)
    return Settings(**fields, notes=tuple(notes))


def _from_environment(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    found = {flag.long: (flag.variable, environ[flag.variable]) for flag in FLAGS if environ.get(flag.variable)}
    found.pop("help", None)
    if environ.get("INVALID_DROP"):
        found.setdefault("drop-invalid", ("INVALID_DROP", environ["INVALID_DROP"]))
    if environ.get("ISTIO_META_DNS_CAPTURE"):
        found.setdefault("redirect-dns", ("ISTIO_META_DNS_CAPTURE", environ["ISTIO_META_DNS_CAPTURE"]))
    return found


def _from_words(argv: Sequence[str], errors: list[str]) -> dict[str, tuple[str, str]]:
    """As Go's flags are read: ``-p 1``, ``-p1``, ``-p=1``, ``--port 1``, ``--port=1``; a switch takes a value only by ``=``."""
    found: dict[str, tuple[str, str]] = {}
    words = list(reversed(argv))
    if words and words[-1] == "istio-iptables":  # the name of Istio's program, where its arguments were taken over whole
        words.pop()
    while words:
        word = words.pop()
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            flag, where, more = _BY_LONG.get(name), f"--{name}", value if equals else None
        elif word.startswith("-") and len(word) > 1:
            flag, where = _BY_SHORT.get(word[1]), word[:2]
            more = word[2:].removeprefix("=") if len(word) > 2 else None
        else:
            errors.append(f"{_shown(word)}: is no flag (mesh-init --help lists them)")
            continue
        if flag is None:
            errors.append(f"{_shown(where)}: there is no such flag (mesh-init --help lists them)")
            continue
        if more is None:
            if flag.switch:
                more = "true"
            elif not words:
                errors.append(f"{where}: needs a value")
                continue
            else:
                more = words.pop()
        found[flag.long] = (where, more)
    return found


def _only_variables(
    environ: Mapping[str, str], group: Callable[[str], int | None], fields: dict[str, Any], notes: list[str], errors: list[str]
) -> None:
    """What Istio takes from the environment alone."""

    def groups(text: str) -> tuple[int, ...]:
        found = []
        for part in _parts(text):
            number = _number(part, 0, (1 << 32) - 2)
            number = group(part) if number is None else number
            if number is None:
                raise ValueError(f"must be groups' names or ids, with commas between: {_shown(part)} is none")
            found.append(number)
        if len(found) > 64:
            raise ValueError(f"must be 64 groups at most, not {len(found)}")
        return tuple(dict.fromkeys(found))

    for name, field, judge in (
        ("ISTIO_OUTBOUND_OWNER_GROUPS", "groups", lambda text: None if text.strip() == "*" else groups(text)),
        ("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", "closed_groups", groups),
        ("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", "loopback", _loopback),
    ):
        if text := environ.get(name, ""):
            try:
                fields[field] = judge(text)
            except ValueError as bad:
                errors.append(f"{name}: {bad}")
    if fields.get("groups") is not None and fields.get("closed_groups"):
        errors.append("ISTIO_OUTBOUND_OWNER_GROUPS, ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE: only one of them may be set")


def _together(fields: Mapping[str, Any]) -> list[str]:
    """What is wrong though each value is right."""
    found = []
    outbound, inbound = fields.get("outbound", 15001), fields.get("inbound", 15006)
    if outbound == inbound:
        found.append(f"-p, -z: must differ: the sidecar knows by the port ({outbound}) which way a connection goes")
    if fields.get("clean") and (fields.get("skip") or fields.get("validate")):
        found.append("--clean: cannot be had with --skip-rule-apply or --run-validation")
    return found
