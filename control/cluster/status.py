"""What analysis finds, written into the objects that it is about (room ``cluster``); the leader's work.

In: findings, the mesh's objects. Out: ``status.conditions`` (type ``PassedValidation``), ``status.validationMessages`` and
``status.observedGeneration``, in Istio's words, by the status subresource: only where they differ, so many a second, bound to the
version that was looked at. What others write into a status stays. Nothing waits for it and nothing follows from it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from control.analyze.codes import CODES
from control.analyze.finding import Finding
from control.resources.kinds import Kind, by_kind
from control.store.api import Store
from control.store.kubernetes.client import MERGE, ApiServer, Refused, Unreachable
from control.store.kubernetes.reflector import Place

__all__ = ["CONDITION", "StatusWriter", "wanted_status"]

log = logging.getLogger("mesh.control.cluster")
CONDITION = "PassedValidation"
DOCUMENTATION = "https://istio.io/latest/docs/reference/config/analysis/"
MOST = 20  # messages of one object
PAUSE = 0.1  # seconds between writes
REST = 5.0  # seconds between looks, and ten times what a look takes
RETRY = 30.0
NAMESPACE = by_kind("", "Namespace")
Obj = dict[str, Any]
Subject = tuple[str, str, str]


def wanted_status(obj: Obj, findings: Iterable[Finding], wall: float) -> Obj | None:
    """The object's status as it should be; None: it is so already."""
    before = obj.get("status")
    before = before if isinstance(before, dict) else {}
    messages = [_message(finding) for finding in list(findings)[:MOST]]
    worst = any(message["level"] == "ERROR" for message in messages)
    generation = obj["metadata"].get("generation", 0)
    conditions = before.get("conditions")
    conditions = [one for one in conditions if isinstance(one, dict)] if isinstance(conditions, list) else []
    old: Obj = next((one for one in conditions if one.get("type") == CONDITION), {})
    text = f"{len(messages)} message{'s' if len(messages) > 1 else ''} of analysis" if messages else "nothing was found"
    new = {"type": CONDITION, "status": "False" if worst else "True", "message": text, "observedGeneration": generation}
    if old and all(old.get(key) == value for key, value in new.items()):
        unchanged = before.get("validationMessages", []) == messages and before.get("observedGeneration") == generation
        if unchanged:
            return None
    flipped = old.get("status") != new["status"]
    stamp = datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    new["lastTransitionTime"] = stamp if flipped else old.get("lastTransitionTime", stamp)
    others = [one for one in conditions if one.get("type") != CONDITION]
    # An empty list, not none: in a merge patch that would be needed to remove the old one, and it says that somebody looked.
    return {"conditions": [*others, new], "validationMessages": messages, "observedGeneration": generation}


def _message(finding: Finding) -> Obj:
    known = CODES[finding.code]
    url = {"documentationUrl": f"{DOCUMENTATION}{finding.code.lower()}/"} if finding.code.startswith("IST") else {}
    where = f"{finding.path}: " if finding.path else ""
    return {
        "type": {"name": known.name, "code": finding.code},
        "level": finding.level.upper(),
        **url,
        "message": where + finding.message,
    }


class StatusWriter:
    """``analyse()`` gives all findings of now; ``steady`` is a clock for durations."""

    def __init__(
        self,
        api: ApiServer,
        store: Store,
        analyse: Callable[[], Awaitable[Iterable[Finding]]],
        *,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self._api = api
        self._store = store
        self._analyse = analyse
        self._wall = wall
        self._steady = steady
        self._sleep = sleep
        self._without: set[Kind] = set()  # kinds whose CRD has no status

    async def run(self) -> None:
        """For as long as we lead."""
        looked = -1
        while True:
            version = (await self._store.list(NAMESPACE))[1]
            if version != looked:
                took = await self._pass()
                looked = version
                await self._sleep(max(REST, 10 * took))
            else:
                await self._sleep(REST)

    async def _pass(self) -> float:
        began = self._steady()
        try:
            by_subject = _grouped(await self._analyse())
        except Exception:  # a fault of ours in a check must not end the leader
            log.exception("analysis failed")
            return RETRY / 10
        took = self._steady() - began
        stored, _ = await self._store.snapshot()
        for kind, obj in stored:
            if not kind.is_mesh or kind in self._without:
                continue
            meta = obj["metadata"]
            found = by_subject.get((kind.kind, str(meta.get("namespace") or ""), meta["name"]), ())
            status = wanted_status(obj, found, self._wall())
            if status is None:
                continue
            if not await self._write(kind, obj, status):
                return RETRY / 10
            await self._sleep(PAUSE)
        return took

    async def _write(self, kind: Kind, obj: Obj, status: Obj) -> bool:
        """False: the API server wants to be left alone."""
        meta = obj["metadata"]
        version = str(obj.get("apiVersion", "")).rpartition("/")[2] or kind.versions[0]
        path = Place(kind=kind, namespace=str(meta.get("namespace") or "")).path(version) + f"/{meta['name']}/status"
        body = {"metadata": {"resourceVersion": meta.get("resourceVersion")}, "status": status}
        try:
            await self._api.send("PATCH", path, body, content_type=MERGE)
        except Refused as refused:
            if refused.code in (409, 422):  # it has changed: there will be another look
                return True
            if refused.code == 404:
                return await self._missing(kind, path)
            log.warning("status of %s %s/%s: %s", kind.kind, meta.get("namespace", ""), meta["name"], refused)
            return False
        except Unreachable as problem:
            log.info("status: %s", problem)
            return False
        return True

    async def _missing(self, kind: Kind, path: str) -> bool:
        """Gone meanwhile, or of a kind whose CRD has no status subresource."""
        try:
            await self._api.get(path.removesuffix("/status"))
        except (Refused, Unreachable):
            return True
        self._without.add(kind)
        log.warning("%s: its CRD has no status subresource: install the mesh's CRDs to see there what is wrong", kind.resource)
        return True


def _grouped(findings: Iterable[Finding]) -> Mapping[Subject, list[Finding]]:
    found: dict[Subject, list[Finding]] = {}
    for one in findings:
        found.setdefault((one.kind, one.namespace, one.name), []).append(one)
    return found
