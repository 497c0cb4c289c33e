"""The rules of interception, and how to come to them from what is there: data in, iptables-restore's text out. Quiet.

In: ``Settings``, and what iptables-save printed. Out: ``Table``s as they should be and as they are, whether these are the same,
and the one text that turns one into the other. iptables-restore takes each table whole or not at all, and with --noflush
leaves alone what the text does not name; naming a chain empties it.

The chains and their order are Istio's (REDIRECT). Rules of ours in the kernel's own chains are known by where they jump to;
those that jump to RETURN, for -c and -k, only by being what would be written.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_network
from typing import NamedTuple

from meshproxy.capture.settings import Range, Settings

__all__ = ["FAMILIES", "Table", "found", "same", "spoken", "transition", "wanted"]

FAMILIES = (4, 6)
INBOUND, OUTPUT, REDIRECT, IN_REDIRECT, DROP = (
    "ISTIO_INBOUND",
    "ISTIO_OUTPUT",
    "ISTIO_REDIRECT",
    "ISTIO_IN_REDIRECT",
    "ISTIO_DROP",
)
_OURS = "ISTIO_"
_MARK = {4: "127.0.0.6/32", 6: "::6/128"}  # where the sidecar calls the app from


class Table(NamedTuple):
    """Of one table what is ours: our chains, and our rules in the kernel's chains, ``(chain, rule)``. ``first``: the rules that
    stand before all others of their chain."""

    chains: Mapping[str, tuple[str, ...]] = {}
    jumps: tuple[tuple[str, str], ...] = ()
    first: tuple[tuple[str, str], ...] = ()

    @property
    def empty(self) -> bool:
        return not (self.chains or self.jumps or self.first)


def wanted(settings: Settings, family: int) -> dict[str, Table]:
    """The rules for IPv4 (4) or IPv6 (6), by table."""
    chains = {
        INBOUND: tuple(_inbound(settings)),
        REDIRECT: (f"-p tcp -j REDIRECT --to-ports {settings.outbound}",),
        IN_REDIRECT: (f"-p tcp -j REDIRECT --to-ports {settings.inbound}",),
        OUTPUT: tuple(_output(settings, family)),
    }
    jumps = []
    for name in settings.closed_interfaces:
        jumps += [("PREROUTING", f"-i {name} -j RETURN"), ("OUTPUT", f"-o {name} -j RETURN")]
    if settings.inbound_ports != ():
        jumps.append(("PREROUTING", f"-p tcp -j {INBOUND}"))
    jumps.append(("OUTPUT", f"-j {OUTPUT}"))
    tables = {"nat": Table(chains, tuple(jumps), tuple(_virtual(settings, family)))}
    if settings.drop_invalid:
        drop = (("PREROUTING", f"-m conntrack --ctstate INVALID -j {DROP}"),)
        tables["mangle"] = Table({DROP: ("-j DROP",)}, drop)
    return tables


def _inbound(settings: Settings) -> Iterator[str]:
    yield f"-p tcp --dport {settings.tunnel} -j RETURN"
    if settings.inbound_ports is None:
        for port in settings.closed_inbound_ports:
            yield f"-p tcp --dport {port} -j RETURN"
        yield f"-p tcp -j {IN_REDIRECT}"
    else:
        for port in settings.inbound_ports:
            yield f"-p tcp --dport {port} -j {IN_REDIRECT}"


def _output(settings: Settings, family: int) -> Iterator[str]:
    loopback = str(settings.loopback) if family == 4 else "::1/128"
    for port in settings.closed_outbound_ports:
        yield f"-p tcp --dport {port} -j RETURN"
        yield f"-p udp --dport {port} -j RETURN"
    yield f"-o lo -s {_MARK[family]} -j RETURN"  # the sidecar to its app
    for kind, ids in (("uid", settings.uids), ("gid", settings.gids)):
        for one in ids:
            # An app that calls itself by its service: the sidecar's outbound side to its inbound side.
            other = f"! -d {loopback} -p tcp ! --dport {settings.tunnel}"
            yield f"-o lo {other} -m owner --{kind}-owner {one} -j {IN_REDIRECT}"
            # An app that calls itself by its pod's address does not need us, unless loopback is asked for by name.
            if not any(each.is_loopback for each in settings.ranges or ()):
                yield f"-o lo -m owner ! --{kind}-owner {one} -j RETURN"
            yield f"-m owner --{kind}-owner {one} -j RETURN"  # the sidecar itself: no loops
    for one in settings.closed_groups:
        yield f"-m owner --gid-owner {one} -j RETURN"
    if settings.groups is not None:
        yield "".join(f"-m owner ! --gid-owner {one} " for one in settings.groups) + "-j RETURN"
    yield f"-d {loopback} -j RETURN"
    for network in _of(settings.closed_ranges, family):
        yield f"{_towards(network)}-j RETURN"
    for port in settings.outbound_ports:
        yield f"-p tcp --dport {port} -j {REDIRECT}"
    if settings.ranges is None:
        yield f"-j {REDIRECT}"
    else:
        for network in _of(settings.ranges, family):
            yield f"{_towards(network)}-j {REDIRECT}"


def _virtual(settings: Settings, family: int) -> Iterator[tuple[str, str]]:
    """Istio inserts each of these before the one before it; this is what comes of it."""
    if settings.ranges is None:
        captured = [f"-i {name} -j {REDIRECT}" for name in settings.virtual]
    else:
        ranges = _of(settings.ranges, family)
        captured = [f"-i {name} {_towards(network)}-j {REDIRECT}" for network in ranges for name in settings.virtual]
    returned = [f"-i {name} -j RETURN" for name in settings.virtual]
    for rule in (*reversed(captured), *reversed(returned)):
        yield "PREROUTING", rule


def _of(ranges: Iterable[Range], family: int) -> list[Range]:
    return [network for network in ranges if network.version == family]


def _towards(network: Range) -> str:
    return f"-d {network} " if network.prefixlen else ""  # iptables keeps no condition that is none


def found(saved: str, tables: Mapping[str, Table] | None = None) -> dict[str, Table]:
    """What of ours iptables-save shows. ``tables``: what would be written, by which rules without a name of ours are known."""
    found: dict[str, Table] = {}
    table = ""
    chains: dict[str, list[str]] = {}
    jumps: list[tuple[str, str]] = []
    known: set[tuple[str, frozenset[tuple[str, ...]]]] = set()
    for line in saved.splitlines():
        if line.startswith("*"):
            table, chains, jumps = line[1:].strip(), {}, []
            ours = (tables or {}).get(table, Table())
            known = {(chain, _meaning(rule)) for chain, rule in (*ours.jumps, *ours.first)}
        elif line.startswith(":") and line[1:].startswith(_OURS):
            chains[line[1:].split()[0]] = []
        elif line.startswith("-A "):
            _, chain, rule = (*line.split(None, 2), "")[:3]
            if chain in chains:
                chains[chain].append(rule)
            elif _target(rule).startswith(_OURS) or (chain, _meaning(rule)) in known:
                jumps.append((chain, rule))
        elif line.strip() == "COMMIT":
            one = Table({name: tuple(rules) for name, rules in chains.items()}, tuple(jumps))
            if not one.empty:
                found[table] = one
    return found


def _words(rule: str) -> list[str]:
    try:
        return shlex.split(rule)
    except ValueError:  # somebody's comment
        return rule.split()


def _target(rule: str) -> str:
    words = _words(rule)
    for word in ("-j", "-g"):
        if word in words[:-1]:
            return words[words.index(word) + 1]
    return ""


def _meaning(rule: str) -> frozenset[tuple[str, ...]]:
    """A rule without the order of its conditions and what iptables adds to it."""
    parts: set[tuple[str, ...]] = set()
    words = _words(rule)
    at = 0
    while at < len(words):
        part = ["!"] if words[at] == "!" else []
        at += len(part)
        if at < len(words):
            part.append(words[at])
            at += 1
        while at < len(words) and words[at] != "!" and not words[at].startswith("-"):
            part.append(words[at])
            at += 1
        if part in (["-m", "tcp"], ["-m", "udp"]):  # -p says it
            continue
        if part[:-1] in (["-d"], ["-s"], ["!", "-d"], ["!", "-s"]):
            with contextlib.suppress(ValueError):
                part[-1] = str(ip_network(part[-1], strict=False))
        parts.add(tuple(part))
    return frozenset(parts)


def same(there: Mapping[str, Table], tables: Mapping[str, Table]) -> bool:
    """Whether what is there does what is wanted: the same rules in the same order in each chain."""

    def shape(all_tables: Mapping[str, Table]) -> object:
        shapes = {}
        for name, table in all_tables.items():
            chains = {chain: [_meaning(rule) for rule in rules] for chain, rules in table.chains.items()}
            jumps: dict[str, list[object]] = {}
            for chain, rule in (*table.first, *table.jumps):
                jumps.setdefault(chain, []).append(_meaning(rule))
            shapes[name] = (chains, jumps)
        return shapes

    return shape(there) == shape(tables)


def transition(there: Mapping[str, Table], tables: Mapping[str, Table]) -> str:
    """iptables-restore's text, for --noflush, from the one to the other; "" where neither has anything."""
    lines: list[str] = []
    for name in dict.fromkeys((*tables, *there)):
        old, new = there.get(name, Table()), tables.get(name, Table())
        lines.append(f"*{name}")
        lines += [f":{chain} - [0:0]" for chain in dict.fromkeys((*new.chains, *old.chains))]
        lines += [f"-D {chain} {rule}" for chain, rule in (*old.first, *old.jumps)]
        lines += [f"-I {chain} 1 {rule}" for chain, rule in reversed(new.first)]
        lines += [f"-A {chain} {rule}" for chain, rules in new.chains.items() for rule in rules]
        lines += [f"-A {chain} {rule}" for chain, rule in new.jumps]
        lines += [f"-X {chain}" for chain in old.chains if chain not in new.chains]
        lines.append("COMMIT")
    return "".join(line + "\n" for line in lines)


def spoken(there: Mapping[str, Table], tables: Mapping[str, Table]) -> str:
    """The first thing that is otherwise than wanted, for people."""
    for name in dict.fromkeys((*tables, *there)):
        old, new = there.get(name, Table()), tables.get(name, Table())
        has = [(chain, rule) for chain, rules in old.chains.items() for rule in rules] + [*old.first, *old.jumps]
        must = [(chain, rule) for chain, rules in new.chains.items() for rule in rules] + [*new.first, *new.jumps]
        known = {(chain, _meaning(rule)) for chain, rule in must}
        for chain, rule in has:
            if (chain, _meaning(rule)) not in known:
                return f"{name} has `-A {chain} {rule}`"
        known = {(chain, _meaning(rule)) for chain, rule in has}
        for chain, rule in must:
            if (chain, _meaning(rule)) not in known:
                return f"{name} lacks `-A {chain} {rule}`"
    return "their order is another"
