"""Translate, standalone: resource files straight into one proxy, with no pods and no control service.

In: plain objects, as read from files. Out: a world, a made-up proxy, and the document that ``meshproxy --config`` reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from control.translate.proxy import ProxyId
from control.translate.snapshot import Snapshot, diff
from control.translate.translator import Translator
from control.world import MeshSettings, World
from meshproxy.model.base import encode
from meshproxy.model.delivery import Resource

__all__ = ["ConfigFile", "config_file", "files_proxy", "files_world", "translate_files"]


class ConfigFile(msgspec.Struct, frozen=True):
    """What ``meshproxy --config FILE`` reads."""

    resources: tuple[Resource, ...] = ()


def files_world(objs: Iterable[dict[str, Any]], mesh: MeshSettings | None = None, *, namespace: str = "default") -> World:
    """A world of objects from files. Objects without a namespace are put into ``namespace``.

    What cannot be used is in ``World.problems``; the caller decides whether that is an error.
    """
    placed = []
    for obj in objs:
        meta = obj.get("metadata")
        if isinstance(meta, dict) and not meta.get("namespace"):
            obj = {**obj, "metadata": {**meta, "namespace": namespace}}
        placed.append(obj)
    return World.of(placed, mesh)


def files_proxy(
    *,
    namespace: str = "default",
    ip: str = "127.0.0.1",
    labels: Iterable[tuple[str, str]] = (),
    gateway: bool = True,
    outbound: bool = False,
    gateway_bind: Iterable[tuple[int, str, int]] = (),
) -> ProxyId:
    """A proxy that no pod stands behind. ``gateway``: it opens every Gateway of the files, whatever that selects."""
    return ProxyId(
        namespace=namespace,
        pod="standalone",
        ip=ip,
        role="gateway" if gateway else "sidecar",
        labels=tuple(sorted(labels)),
        gateway_bind=tuple(gateway_bind),
        every_gateway=gateway,
        outbound=outbound,
    )


def translate_files(world: World, proxy: ProxyId) -> Snapshot:
    return Translator().translate(world, proxy)


def config_file(snapshot: Snapshot) -> bytes:
    """The snapshot as the document for ``meshproxy --config``; equal snapshots give equal bytes."""
    return encode(ConfigFile(resources=diff(None, snapshot).set))
