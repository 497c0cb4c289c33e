"""What happened to a pod, as v1 Events, for ``kubectl describe pod`` and ``get events``.

In: ``add``. Out: ``write`` sends what is new. Loud. One object per container and reason: a repetition raises its count, so that
a pod that crashes for a week has as many Events as one that crashed twice.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from control.client.api import ApiError, AsyncApi, Unreachable

__all__ = ["COMPONENT", "Events", "now"]

COMPONENT = "kubelet"
_MERGE = "application/merge-patch+json"


def now() -> str:
    """RFC 3339, as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Events:
    def __init__(self, namespace: str, pod: str) -> None:
        self._namespace = namespace
        self._pod = pod
        self._said: dict[str, dict[str, Any]] = {}  # by name
        self._new: dict[str, None] = {}

    def add(self, container: str, type: str, reason: str, message: str) -> None:
        """``type``: Normal or Warning."""
        name = f"{self._pod}.{container}.{reason.lower()}"
        said = self._said.setdefault(name, {"type": type, "reason": reason, "firstTimestamp": now(), "count": 0})
        said |= {"message": message, "lastTimestamp": now(), "count": said["count"] + 1, "container": container}
        self._new[name] = None

    async def write(self, api: AsyncApi, uid: str) -> None:
        """Send what is new, as about the pod with ``uid``. Raises ``Unreachable``; what is refused is dropped."""
        collection = f"/api/v1/namespaces/{self._namespace}/events"
        while self._new:
            name = next(iter(self._new))
            del self._new[name]  # first: what is added while we wait is new again
            body = self._object(name, uid)
            try:
                await self._put(api, collection, name, body)
            except ApiError:
                continue
            except Unreachable:
                self._new[name] = None
                raise

    async def _put(self, api: AsyncApi, collection: str, name: str, body: dict[str, Any]) -> None:
        try:
            await api.request("PATCH", f"{collection}/{name}", body=body, content_type=_MERGE)
        except ApiError as refused:
            if refused.code != 404:
                raise
            await api.request("POST", collection, body=body)

    def _object(self, name: str, uid: str) -> dict[str, Any]:
        said = dict(self._said[name])
        about = {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": self._namespace,
            "name": self._pod,
            "uid": uid,
            "fieldPath": f"spec.containers{{{said.pop('container')}}}",
        }
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": self._namespace},
            "involvedObject": about,
            "source": {"component": COMPONENT, "host": "localhost"},
            **said,
        }
