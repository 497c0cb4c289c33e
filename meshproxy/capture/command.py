"""``mesh-init``: read what was asked, look at what is there, change what differs, say so. Loud.

Exit codes: 0 done, 1 it could not be done, 2 bad arguments, 126 a validation that failed (as Istio's).
"""

from __future__ import annotations

import grp
import os
import sys
from collections.abc import Sequence

from meshproxy.capture import lo, rules
from meshproxy.capture.settings import BadSettings, Settings, parse, usage
from meshproxy.capture.tables import Backend, Cannot, Tables, apply, detect
from meshproxy.capture.validate import probe

__all__ = ["main"]

_NOT_VALID = 126


def main(argv: Sequence[str] | None = None) -> int:
    """The ``mesh-init`` command, and ``meshproxy init``."""
    try:
        settings = parse(sys.argv[1:] if argv is None else argv, os.environ, _group)
    except BadSettings as bad:
        for line in bad.errors:
            _say(line)
        return 2
    if settings.help:
        print(usage())
        return 0
    for note in settings.notes:
        _say(note)
    try:
        if settings.dry_run:
            sys.stdout.write(_dry(settings))
            return 0
        if settings.clean:
            return _clean(settings)
        if not settings.skip:
            _write(settings)
        return _validate(settings) if settings.validate else 0
    except Cannot as no:
        _say(str(no))
        return 1


def _group(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def _say(line: str) -> None:
    print(f"mesh-init: {line}", file=sys.stderr, flush=True)


def _loud(settings: Settings) -> None:
    if settings.debug:
        _say(f"settings: {settings}")


def _dry(settings: Settings) -> str:
    """Both families' rules, for ``iptables-restore --noflush`` and ``ip6tables-restore --noflush``."""
    made = []
    for family, program in zip(rules.FAMILIES, ("iptables", "ip6tables"), strict=True):
        there: Tables = {}
        tables = rules.wanted(settings, family)
        made.append(f"# {program}-restore --noflush\n{rules.transition(there, tables)}")
    return "".join(made)


def _families() -> list[Backend]:
    """IPv6 only where it is on; that its tables cannot be had matters only to a pod that can be reached or reach out by it."""
    found = [detect(4)]
    on, needed = lo.addresses()
    if on:
        try:
            found.append(detect(6, like=found[0].kind))
        except Cannot as no:
            if needed:
                raise
            _say(f"IPv6 is not intercepted, and this pod has no IPv6 address: {no}")
    return found


def _write(settings: Settings) -> None:
    _loud(settings)
    changes: list[tuple[Backend, Tables, Tables]] = []
    backends = _families()
    for backend in backends:
        tables = rules.wanted(settings, backend.family)
        there = rules.found(backend.saved(), tables)
        if rules.same(there, tables):
            continue
        if there and not settings.force:
            what = rules.spoken(there, tables)
            raise Cannot(
                f"other rules are there already (IPv{backend.family}): {what}; --force-apply replaces them, --clean removes"
            )
        changes.append((backend, there, tables))
    added = any(backend.family == 6 for backend in backends) and lo.have()
    try:
        apply(changes, _say if settings.debug else lambda line: None)
    except Cannot:
        if added:
            lo.drop()
        raise
    names = " and ".join(f"IPv{backend.family}" for backend in backends)
    how = f" by iptables{backends[0].kind}" if backends[0].kind else ""
    _say(f"{names}: connections are intercepted{how}" if changes else f"{names}: connections are intercepted already")


def _clean(settings: Settings) -> int:
    _loud(settings)
    changes: list[tuple[Backend, Tables, Tables]] = []
    for backend in _families():
        there = rules.found(backend.saved(), rules.wanted(settings, backend.family))
        if there:
            changes.append((backend, there, {}))
    apply(changes, _say if settings.debug else lambda line: None)
    if lo.addresses()[0]:
        lo.drop()
    _say("the rules were removed" if changes else "there were no rules")
    return 0


def _validate(settings: Settings) -> int:
    """As the sidecar's user by a connection; as any other, whose connections take another way, by reading the rules."""
    if os.geteuid() in settings.uids or os.getegid() in settings.gids:
        problem = probe(settings)
    else:
        problem = ""
        for backend in _families():
            tables = rules.wanted(settings, backend.family)
            there = rules.found(backend.saved(), tables)
            if not rules.same(there, tables):
                problem = problem or f"IPv{backend.family}: {rules.spoken(there, tables)}"
    if problem:
        cni = "where a CNI plugin does it, it was not ready when this pod started: delete the pod"
        _say(f"connections are not intercepted: {problem}; {cni}")
        return _NOT_VALID
    _say("connections are intercepted")
    return 0
