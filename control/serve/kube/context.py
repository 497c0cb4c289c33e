"""What every verb of the API needs: the store, the clock, and which resource a path names.

Room: control/serve/kube. In: path segments. Out: ``Target``; ``Context`` is made once per service.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.responses import Response

from control.resources.kinds import Kind, by_plural
from control.serve.kube import status
from control.serve.kube.table import encode
from control.store.api import NotFound, Store

__all__ = ["Context", "Pages", "Target", "answer", "fetch", "target", "warn"]

Obj = dict[str, Any]


class Pages:
    """Lists that clients are paging through, so that all pages show one moment. A page asked too late is a 410, as in
    Kubernetes when its history is compacted."""

    def __init__(self, room: int = 16) -> None:
        self._kept: OrderedDict[tuple[Any, ...], list[Obj]] = OrderedDict()
        self._room = room

    def keep(self, key: tuple[Any, ...], objs: list[Obj]) -> None:
        self._kept[key] = objs
        self._kept.move_to_end(key)
        while len(self._kept) > self._room:
            self._kept.popitem(last=False)

    def find(self, key: tuple[Any, ...]) -> list[Obj] | None:
        return self._kept.get(key)


@dataclass
class Context:
    """``clock``: wall time in Unix seconds. ``stopping`` set: watches and followed logs end."""

    store: Store
    logs_dir: Path | None
    clock: Callable[[], float]
    stopping: asyncio.Event
    pages: Pages = field(default_factory=Pages)
    judged: Callable[[Kind, bool], None] = lambda kind, good: None  # told of every object that somebody wanted to store


@dataclass(frozen=True)
class Target:
    """What a path names. ``namespace`` None: all of them, or a kind that has none. ``name`` "": the collection."""

    kind: Kind
    version: str
    namespace: str | None
    name: str
    sub: str

    @property
    def api_version(self) -> str:
        return f"{self.kind.group}/{self.version}" if self.kind.group else self.version

    def missing(self, name: str | None = None) -> status.ApiError:
        return status.not_found(self.kind.plural, self.kind.group, self.name if name is None else name)


def target(group: str, version: str, rest: str) -> Target:
    """Read ``namespaces/NS/PLURAL/NAME/SUB`` and its shorter forms. 404 for anything else."""
    parts = rest.rstrip("/").split("/")
    namespace: str | None = None
    if not all(parts):
        raise status.no_such_path()
    of_namespace = not group and (len(parts) < 3 or (len(parts) == 3 and parts[2] in ("status", "finalize")))
    if parts[0] == "namespaces" and not of_namespace:
        namespace, parts = (parts[1:2] or [""])[0], parts[2:]
        if not parts:
            raise status.no_such_path()
    try:
        kind = by_plural(group, parts[0])
    except KeyError:
        raise status.no_such_path() from None
    if version not in kind.versions or len(parts) > 4:
        raise status.no_such_path()
    name = parts[1] if len(parts) > 1 else ""
    if kind.namespaced and name and namespace is None:
        raise status.no_such_path()
    if not kind.namespaced and namespace is not None:
        raise status.no_such_path()
    return Target(kind, version, namespace, name, "/".join(parts[2:]))


async def fetch(context: Context, at: Target) -> Obj:
    """The stored object, or Kubernetes' 404."""
    try:
        return await context.store.get(at.kind, at.namespace, at.name)
    except NotFound:
        raise at.missing() from None


def warn(lines: list[str]) -> list[tuple[str, str]]:
    """``Warning`` headers (RFC 7234, section 5.5) that kubectl prints as ``Warning: …``. At most 50, the rest counted."""
    shown = list(dict.fromkeys(lines))
    if len(shown) > 50:
        shown = [*shown[:49], f"and {len(shown) - 49} more warnings"]
    headers = []
    for line in shown:
        plain = "".join(char if char.isprintable() else " " for char in line)[:1000]
        quoted = plain.replace("\\", "\\\\").replace('"', '\\"')
        headers.append(("warning", f'299 - "{quoted}"'.encode().decode("latin-1")))
    return headers


def answer(document: Obj, code: int = 200, warnings: list[str] | None = None, *, as_yaml: bool = False) -> Response:
    media = "application/yaml" if as_yaml else "application/json"
    made = Response(encode(document, as_yaml), code, media_type=media)
    made.headers["Cache-Control"] = "no-cache, private"
    for name, value in warn(warnings or []):
        made.headers.append(name, value)
    return made
