"""Pushes to the full set of resources (room ``agent``). Pure: no clock, no socket, no log.

In: ``delivery.Push``. Out: a ``Candidate`` (the whole new state, unchanged resources are the very same objects) or the reasons
for refusing it. The caller compiles the candidate and then commits it, so that a push is taken whole or not at all, and the last
good state stays. ``receive`` does the three steps and makes the ``Ack``. ``load`` is the same door for standalone files.

Refused: a kind's resource that does not decode (the error ends in the field's path), a body that differs from its version, a
name that differs from the body's, a name given twice. A refused push as a whole (kind ``push``) tells control to send a full one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, cast

import msgspec

from meshproxy.model.base import Model, fingerprint
from meshproxy.model.delivery import KINDS, ORDER, Ack, Kind, Nack, Push, Resource

__all__ = ["Candidate", "Held", "Resources", "State", "load", "receive"]


class Held(NamedTuple):
    """A resource that the proxy has, with the version of its bytes."""

    version: str
    value: Model


Resources = Mapping[str, Mapping[str, Model]]  # kind -> name -> struct


class Candidate(NamedTuple):
    """What the proxy would run. ``resources`` has every kind; ``changed`` names what differs from the state before."""

    version: str
    held: Mapping[str, Mapping[str, Held]]
    changed: frozenset[tuple[Kind, str]]

    @property
    def resources(self) -> Resources:
        return {kind: {name: held.value for name, held in items.items()} for kind, items in self.held.items()}


_EMPTY: Mapping[str, Mapping[str, Held]] = MappingProxyType({kind: MappingProxyType({}) for kind in ORDER})
_decoders = {kind: msgspec.json.Decoder(type_) for kind, type_ in KINDS.items()}


class State:
    """The last good configuration. ``version`` is empty until there is one."""

    def __init__(self) -> None:
        self.version = ""
        self.held = _EMPTY

    @property
    def resources(self) -> Resources:
        return Candidate(self.version, self.held, frozenset()).resources

    def judge(self, push: Push) -> Candidate | tuple[Nack, ...]:
        """What ``push`` would make of this state, or why not. Changes nothing."""
        if not push.full and not self.version:
            return (Nack(kind="push", name="", error="a change came before any full state: send a full push"),)
        nacks: list[Nack] = []
        seen: set[tuple[str, str]] = set()
        changed: set[tuple[Kind, str]] = set()
        new: dict[str, dict[str, Held]] = {kind: {} if push.full else dict(self.held[kind]) for kind in ORDER}
        for kind, name in push.removed:
            if push.full:
                nacks.append(Nack(kind=kind, name=name, error="removed: a full push removes nothing by name"))
            elif new[kind].pop(name, None) is None:
                nacks.append(Nack(kind="push", name="", error=f"removed: there is no {kind} {name!r} here: send a full push"))
            seen.add((kind, name))
            changed.add((kind, name))
        for resource in push.set:
            key = (resource.kind, resource.name)
            if key in seen:
                nacks.append(Nack(kind=resource.kind, name=resource.name, error="is given twice in one push"))
                continue
            seen.add(key)
            old = self.held[resource.kind].get(resource.name)
            held = old if old is not None and old.version == resource.version else _read(resource)
            if isinstance(held, Nack):
                nacks.append(held)
                continue
            new[resource.kind][resource.name] = held
            if held is not old:
                changed.add(key)
        if nacks:
            return tuple(nacks)
        if push.full:
            changed.update((kind, name) for kind in ORDER for name in self.held[kind] if name not in new[kind])
        same: dict[str, Mapping[str, Held]] = {
            kind: new[kind] if any(kind == other for other, _ in changed) else self.held[kind] for kind in ORDER
        }
        return Candidate(push.version, same, frozenset(changed))

    def commit(self, candidate: Candidate) -> None:
        """Run ``candidate`` from now on."""
        self.version = candidate.version
        self.held = candidate.held


def receive(state: State, push: Push, install: Callable[[Candidate], Iterable[Nack]]) -> Ack:
    """Judge ``push``, let ``install`` compile and start it, commit it; or keep what runs and say why.

    ``install`` returns what it cannot obey (nothing: it runs now) and must change nothing when it returns any.
    """
    judged = state.judge(push)
    nacks: Sequence[Nack] = tuple(install(judged)) if isinstance(judged, Candidate) else judged
    if not nacks:
        state.commit(cast(Candidate, judged))
    return Ack(nonce=push.nonce, version=state.version, nacks=tuple(nacks))


def load(state: State, resources: Iterable[Resource], version: str) -> Candidate | tuple[Nack, ...]:
    """The whole configuration from a file, judged by the same rules as a full push."""
    return state.judge(Push(nonce="", version=version, full=True, set=tuple(resources)))


def _read(resource: Resource) -> Held | Nack:
    body = bytes(resource.body)
    problem = ""
    if fingerprint(body) != resource.version:
        problem = f"version: is {resource.version}, but the body's is {fingerprint(body)}"
    else:
        try:
            value = _decoders[resource.kind].decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:  # ValidationError is a DecodeError
            problem = str(error) or type(error).__name__
        else:
            name = getattr(value, "name", "")
            if name == resource.name:
                return Held(resource.version, value)
            problem = f"name: is {name!r} in the body - at `$.name`"
    return Nack(kind=resource.kind, name=resource.name, error=" ".join(problem.split()))
