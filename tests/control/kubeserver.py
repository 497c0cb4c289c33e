"""For tests: something that behaves as a cluster's API server does, and misbehaves when it is told to.

Every kind of object is served that is asked for, but for those in ``missing``. ``faults`` are taken one per request that they
match: answer with a status, answer late, fall silent, cut the connection. Watches can be cut, ended with an error event, or left
half open: connected, and dead. Nothing here validates or defaults.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml
from aiohttp import web

from control.resources.kinds import KINDS, Kind
from control.store.api import AlreadyExists, Conflict, Gone, NotFound, StoreError
from control.store.base import BaseStore
from control.store.memory import MemoryStore

Obj = dict[str, Any]
_CLUSTER = ("namespaces", "nodes", "mutatingwebhookconfigurations", "validatingwebhookconfigurations")


@dataclass
class Fault:
    """``path`` is part of the path and query; ``method`` "": any. ``code`` 0: no answer for as long as ``hold`` is not set."""

    path: str
    code: int = 500
    method: str = ""
    reason: str = ""
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    hold: asyncio.Event | None = None


@dataclass(eq=False)
class Watching:
    path: str
    response: web.StreamResponse
    task: asyncio.Task[Any]
    silent: bool = False
    said: list[bytes] = field(default_factory=list)


def status(code: int, reason: str, message: str, details: Obj | None = None) -> Obj:
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason}
    return {**body, "code": code, "details": details or {}}


class KubeServer:
    """``async with KubeServer() as server``. ``requests``: method and path with query, in order. ``tls``: None is plain HTTP."""

    def __init__(self, store: BaseStore | None = None, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self.store: Any = store or MemoryStore()
        self.host = host
        self.tls = tls
        self.port = 0
        self.faults: list[Fault] = []
        self.missing: set[str] = set()
        self.requests: list[str] = []
        self.asked: list[tuple[str, str]] = []  # the same, behind who asked
        self.watches: list[Watching] = []
        self.reviews: Callable[[Obj], Obj] = lambda spec: {"authenticated": False}
        self.tokens: Callable[[str, str, Obj], str | None] = lambda namespace, account, spec: None  # None: not allowed
        self.carried: list[dict[str, str]] = []  # headers that went on to it
        self.behind = ""  # where the Service istiod leads to: the URL of a control
        self.page_expiry = 0  # continue tokens to refuse with 410
        self._pages: dict[str, tuple[list[Obj], int]] = {}
        self._kinds: dict[tuple[str, str], Kind] = {(kind.group, kind.plural): kind for kind in KINDS}
        self._news = asyncio.Event()
        self._runner: web.AppRunner | None = None

    # -- life ------------------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    def kubeconfig(self, path: Path) -> Path:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": {"token": "control"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }
        path.write_text(yaml.safe_dump(config))
        return path

    async def start(self) -> None:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{rest:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        sock = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((self.host, self.port))
        self.port = sock.getsockname()[1]
        await web.SockSite(self._runner, sock, ssl_context=self.tls).start()

    async def stop(self) -> None:
        """The store stays: ``start`` again is an API server that was away."""
        for one in list(self.watches):
            one.task.cancel()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> KubeServer:
        opened = getattr(self.store, "open", None)
        if opened is not None:
            await opened()
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        await self.store.close()

    # -- what tests do with it -------------------------------------------------------------------------------------------

    def kind(self, group: str, plural: str, kind: str = "", version: str = "v1") -> Kind:
        found = self._kinds.get((group, plural))
        if found is None:
            cased = kind or plural[:-1].capitalize()
            found = Kind(group, (version,), cased, plural, plural[:-1], (), plural not in _CLUSTER, dict, ())
            self._kinds[group, plural] = found
        return found

    async def until_asked(self, what: str, times: int = 1) -> None:
        """Until so many requests whose line holds ``what`` have come."""
        await self.until(lambda: sum(what in line for line in self.requests) >= times)

    async def until(self, holds: Callable[[], Any]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                news = self._news
                await news.wait()

    def note(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def watching(self, plural: str) -> list[Watching]:
        return [one for one in self.watches if one.path.endswith("/" + plural)]

    def cut(self, plural: str) -> None:
        """End the connections of these watches without a word."""
        for one in self.watching(plural):
            one.task.cancel()

    async def tell(self, plural: str, event: Obj) -> None:
        """Say something of the test's own on these watches."""
        for one in self.watching(plural):
            await one.response.write(json.dumps(event).encode() + b"\n")

    # -- answering -------------------------------------------------------------------------------------------------------

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        line = f"{request.method} {request.path_qs}"
        self.requests.append(line)
        self.asked.append((request.headers.get("User-Agent", ""), line))
        self.note()
        for fault in self.faults:
            if fault.path in request.path_qs and fault.method in ("", request.method) and fault.times:
                fault.times -= 1
                if fault.hold is not None:
                    await fault.hold.wait()
                if fault.code:
                    said = status(fault.code, fault.reason, f"a fault of code {fault.code}")
                    return web.json_response(said, status=fault.code, headers=fault.headers)
                break
        if request.path == "/version":
            return web.json_response({"major": "1", "minor": "33", "gitVersion": "v1.33.1"})
        if request.path.startswith("/mesh/"):
            return web.json_response(status(403, "Forbidden", 'forbidden: User "u" cannot get path'), status=403)
        if "/services/https:istiod:15012/proxy/" in request.path:
            return await self._proxy(request)
        parts = request.path.strip("/").split("/")
        if parts[0] == "api":
            group, version, rest = "", parts[1], parts[2:]
        elif parts[0] == "apis" and len(parts) > 3:
            group, version, rest = parts[1], parts[2], parts[3:]
        else:
            return web.json_response(status(404, "NotFound", "the server could not find the requested resource"), status=404)
        namespace = None
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        if rest[0] == "tokenreviews":
            spec = (await request.json())["spec"]
            review = {"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": spec, "status": self.reviews(spec)}
            return web.json_response(review, status=201)
        if rest[0] == "serviceaccounts" and rest[2:] == ["token"]:
            made = self.tokens(namespace or "", rest[1], (await request.json())["spec"])
            if made is None:
                return web.json_response(status(403, "Forbidden", f"{rest[1]}/token is forbidden"), status=403)
            return web.json_response({"kind": "TokenRequest", "status": {"token": made}}, status=201)
        kind = self.kind(group, rest[0], version=version)
        if rest[0] in self.missing or f"{rest[0]}.{version}" in self.missing or version not in kind.versions:
            return web.json_response(status(404, "NotFound", "the server could not find the requested resource"), status=404)
        try:
            if len(rest) == 1 and request.method == "GET":
                if request.query.get("watch") in ("1", "true"):
                    return await self._watch(request, kind, namespace)
                return await self._list(request, kind, namespace)
            return await self._write(request, kind, namespace, rest[1:])
        except AlreadyExists as error:
            return web.json_response(status(409, "AlreadyExists", str(error)), status=409)
        except Conflict as error:
            return web.json_response(status(409, "Conflict", str(error)), status=409)
        except NotFound as error:
            return web.json_response(status(404, "NotFound", str(error)), status=404)
        except Gone as error:
            return web.json_response(status(410, "Expired", str(error)), status=410)
        except StoreError as error:
            return web.json_response(status(422, "Invalid", str(error)), status=422)

    async def _proxy(self, request: web.Request) -> web.Response:
        """As an API server does: its own credentials stay with it, the service's certificate is not looked at."""
        path = request.path_qs.partition("/proxy")[2]
        headers = {name: value for name, value in request.headers.items() if name.lower() not in ("authorization", "host")}
        self.carried.append(headers)
        async with httpx.AsyncClient(base_url=self.behind, verify=False, trust_env=False) as client:
            answer = await client.request(request.method, path, content=await request.read(), headers=headers)
        kept = {"Content-Type": answer.headers.get("content-type", "application/json")}
        return web.Response(body=answer.content, status=answer.status_code, headers=kept)

    async def _list(self, request: web.Request, kind: Kind, namespace: str | None) -> web.Response:
        token, limit = request.query.get("continue", ""), int(request.query.get("limit") or 0)
        if token:
            if self.page_expiry or token not in self._pages:
                self.page_expiry = max(0, self.page_expiry - 1)
                return web.json_response(status(410, "Expired", "The provided continue parameter is too old"), status=410)
            objs, version = self._pages.pop(token)
        else:
            found, version = await self.store.list(kind, namespace)
            objs = [obj for obj in found if _chosen(obj, request.query.get("fieldSelector", ""))]
        meta: Obj = {"resourceVersion": str(version)}
        if limit and len(objs) > limit:
            meta["continue"] = base64.b64encode(f"{len(self.requests)}".encode()).decode()
            self._pages[meta["continue"]] = (objs[limit:], version)
            objs = objs[:limit]
        items = [{key: value for key, value in obj.items() if key not in ("apiVersion", "kind")} for obj in objs]
        return web.json_response({"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": meta, "items": items})

    async def _watch(self, request: web.Request, kind: Kind, namespace: str | None) -> web.StreamResponse:
        since = int(request.query.get("resourceVersion") or 0)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        task = asyncio.current_task()
        assert task is not None
        one = Watching(request.path, response, task)
        self.watches.append(one)
        self.note()
        chosen = request.query.get("fieldSelector", "")
        events = self.store.watch(since, kind, namespace)
        try:
            async for event in events:
                if one.silent:
                    await asyncio.Event().wait()
                if _chosen(event.object, chosen):
                    await response.write(json.dumps({"type": event.type, "object": event.object}).encode() + b"\n")
        except Gone as error:
            said = {"type": "ERROR", "object": status(410, "Expired", str(error))}
            await response.write(json.dumps(said).encode() + b"\n")
        except asyncio.CancelledError:
            if request.transport is not None:
                request.transport.abort()
            raise
        finally:
            self.watches.remove(one)
            self.note()
            await events.aclose()
        return response

    async def _write(self, request: web.Request, kind: Kind, namespace: str | None, rest: list[str]) -> web.Response:
        name = rest[0] if rest else ""
        part = rest[1] if len(rest) > 1 else ""
        if request.method == "GET":
            return web.json_response(await self.store.get(kind, namespace, name))
        body = json.loads(await request.read() or b"null")
        if request.method == "POST":
            body["metadata"] = {**body.get("metadata", {}), **({"namespace": namespace} if namespace else {})}
            body |= {"apiVersion": kind.api_version, "kind": kind.kind}
            return web.json_response(await self.store.create(kind, body), status=201)
        if request.method == "PUT":
            if part == "status":
                there = await self.store.get(kind, namespace, name)
                body = {**there, "status": body.get("status"), "metadata": body["metadata"]}
            elif kind.is_mesh:  # a status is written as such, or not at all
                there = await self.store.get(kind, namespace, name)
                body = {key: value for key, value in body.items() if key != "status"}
                body |= {"status": there["status"]} if "status" in there else {}
            return web.json_response(await self.store.update(kind, body))
        if request.method == "PATCH":
            for attempt in range(9):
                there = await self.store.get(kind, namespace, name)
                wanted = (body.get("metadata") or {}).get("resourceVersion") if isinstance(body, dict) else None
                if wanted and wanted != there["metadata"]["resourceVersion"]:
                    raise Conflict("the object has been modified")
                patch = {"status": body.get("status")} if part == "status" else body
                try:
                    merged = _merge(there, patch) if isinstance(patch, dict) else _json_patch(there, patch)
                    return web.json_response(await self.store.update(kind, merged))
                except Conflict:
                    if attempt == 8:
                        raise
        if request.method == "DELETE":
            bound = (body or {}).get("preconditions") or {}
            there = await self.store.get(kind, namespace, name)
            if bound.get("uid") not in (None, there["metadata"]["uid"]):
                raise Conflict("the uid in the precondition is another one")
            expected = int(bound["resourceVersion"]) if "resourceVersion" in bound else None
            return web.json_response(await self.store.delete(kind, namespace, name, expected))
        return web.json_response(status(405, "MethodNotAllowed", "no"), status=405)


def _chosen(obj: Obj, fields: str) -> bool:
    for term in filter(None, fields.split(",")):
        name, negative = (term.split("!=")[0], True) if "!=" in term else (term.split("=")[0], False)
        value: Any = obj
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if ((value or "") == term.rpartition("=")[2]) is negative:
            return False
    return True


def _merge(there: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(there) if isinstance(there, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged


def _json_patch(there: Obj, patch: list[Obj]) -> Obj:
    merged: Obj = json.loads(json.dumps(there))
    for step in patch:
        *path, last = step["path"].strip("/").split("/")
        at: Any = merged
        for part in path:
            at = at[int(part)] if isinstance(at, list) else at.setdefault(part.replace("~1", "/").replace("~0", "~"), {})
        key: Any = int(last) if isinstance(at, list) else last.replace("~1", "/").replace("~0", "~")
        if step["op"] == "test":
            if at[key] != step["value"]:
                raise StoreError("the test of a patch does not hold")
        elif step["op"] == "remove":
            del at[key]
        else:
            at[key] = step["value"]
    return merged
