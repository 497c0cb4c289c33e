"""What every mesh starts with (room ``sources``): namespaces, and a ``default`` ServiceAccount in each.

In: a ``Store``. Out: ``ensure_defaults``, which creates what is missing and changes nothing that is there.
"""

from __future__ import annotations

from contextlib import suppress

from control.resources.kinds import Kind, by_kind
from control.store.api import AlreadyExists, Store

__all__ = ["ensure_defaults"]


async def ensure_defaults(store: Store, root_namespace: str) -> None:
    """Namespaces ``default``, ``kube-system`` and the root namespace; an account ``default`` in every namespace."""
    namespaces, accounts = by_kind("", "Namespace"), by_kind("", "ServiceAccount")
    for name in ("default", "kube-system", root_namespace):
        labels = {"kubernetes.io/metadata.name": name}
        await _create(store, namespaces, {"metadata": {"name": name, "labels": labels}, "status": {"phase": "Active"}})
    for namespace in (await store.list(namespaces))[0]:
        name = namespace["metadata"]["name"]
        await _create(store, accounts, {"metadata": {"name": "default", "namespace": name}})


async def _create(store: Store, kind: Kind, obj: dict[str, object]) -> None:
    with suppress(AlreadyExists):
        await store.create(kind, {"apiVersion": kind.api_version, "kind": kind.kind, **obj})
