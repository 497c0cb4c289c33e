"""Single objects of the cluster that control keeps itself (room ``cluster``): read, made, replaced, under optimistic concurrency.

In: an ``ApiServer`` and where the object is. Out: ``Owned``: ``read``, ``write`` (with the version that was read: ``Changed``
when somebody else wrote meanwhile), and base64 to and from bytes for Secrets. Data is in no message.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Literal

from control.store.kubernetes.client import ApiServer, Refused

__all__ = ["Changed", "Owned"]

Obj = dict[str, Any]
_LABELS = {"app.kubernetes.io/managed-by": "mesh-control"}


class Changed(Exception):
    """Somebody else has written the object since it was read."""


class Owned:
    """One Secret or ConfigMap. ``version`` of the object as it was read or written last, "" while there is none."""

    def __init__(
        self, api: ApiServer, kind: Literal["Secret", "ConfigMap"], namespace: str, name: str, type_: str = "Opaque"
    ) -> None:
        self._api = api
        self._kind = kind
        self._collection = f"/api/v1/namespaces/{namespace}/{kind.lower()}s"
        self._meta: Obj = {"name": name, "namespace": namespace, "labels": _LABELS}
        self._type = type_
        self.path = f"{self._collection}/{name}"
        self.version = ""

    async def read(self) -> dict[str, bytes] | None:
        """Its data; None: there is none. Raises ``Refused`` or ``Unreachable``."""
        try:
            found = await self._api.get(self.path)
        except Refused as refused:
            if refused.code == 404:
                self.version = ""
                return None
            raise
        return self.take(found)

    def take(self, obj: Obj) -> dict[str, bytes]:
        """Data of an object that was read elsewhere; from now on ``write`` replaces that one."""
        meta = obj["metadata"]
        self.version = str(meta["resourceVersion"])
        # What others wrote beside the data stays, and a Secret's type cannot be changed.
        self._meta = {key: meta[key] for key in ("name", "namespace", "labels", "annotations", "ownerReferences") if key in meta}
        self._type = str(obj.get("type") or self._type)
        data = obj.get("data") or {}
        if self._kind == "ConfigMap":
            return {name: value.encode() for name, value in data.items()}
        return {name: _bytes(value) for name, value in data.items()}

    async def write(self, data: Mapping[str, bytes]) -> None:
        """Make it or replace it. Raises ``Changed``, ``Refused``, ``Unreachable``."""
        plain = self._kind == "ConfigMap"
        said = {name: value.decode() if plain else base64.b64encode(value).decode() for name, value in data.items()}
        body: Obj = {"apiVersion": "v1", "kind": self._kind, "metadata": dict(self._meta), "data": said}
        if not plain:
            body["type"] = self._type
        try:
            if not self.version:
                made = await self._api.send("POST", self._collection, body)
            else:
                body["metadata"]["resourceVersion"] = self.version
                made = await self._api.send("PUT", self.path, body)
        except Refused as refused:
            if refused.code in (404, 409):
                raise Changed(f"{self.path} was changed meanwhile") from refused
            raise
        self.version = str(made["metadata"]["resourceVersion"])


def _bytes(text: Any) -> bytes:
    try:
        return base64.b64decode(text)
    except (binascii.Error, TypeError, ValueError):
        return b""
