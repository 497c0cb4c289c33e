"""People's side of the mesh API (room ``serve``): proxy status, questions to sidecars, distribution.

In: requests of people. Out: routes under ``/mesh/v1``. Answers are JSON; refusals are Kubernetes Status objects.
"""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from control.resources.kinds import by_plural
from control.serve.hub import Hub, NotAnswered
from control.serve.kube.status import ApiError, bad_request, not_found
from control.serve.stream import read_body
from control.store.api import NotFound, Store

__all__ = ["routes"]

VERBS = ("dump", "clusters", "explain", "stats", "listeners", "routes", "secrets", "callers", "info")
ASK_TIMEOUT = 5.0
MAX_QUESTION = 1 << 20  # bytes


def routes(hub: Hub, store: Store) -> list[Route]:
    """The routes for people and their programs."""

    async def proxies(request: Request) -> Response:
        return JSONResponse({"proxies": hub.report(), "worldVersion": str(hub.version)})

    async def query(request: Request) -> Response:
        """By GET with everything in the URL, or by POST with ``{"verb": …, "args": {…}}``, where there may be a token in it."""
        namespace, pod = request.path_params["namespace"], request.path_params["pod"]
        args: dict[str, Any] = {}
        if request.method == "POST":
            asked = await _asked(request)
            verb, args = asked.verb, asked.args
        else:
            for key, value in request.query_params.multi_items():
                known = args.get(key)
                args[key] = value if known is None else [*known, value] if isinstance(known, list) else [known, value]
            verb = args.pop("verb", "")
        if verb not in VERBS:
            raise bad_request(f"verb: must be one of {', '.join(VERBS)}, not {verb!r}")
        if "header" in args and request.method == "GET":
            args["headers"] = _headers(args.pop("header"))
        try:
            answer = await hub.ask(namespace, pod, verb, args, ASK_TIMEOUT)
        except NotAnswered as error:
            if not error.connected:
                raise ApiError(404, "NotFound", f"{error}: see /mesh/v1/proxies for those that are") from error
            raise ApiError(504, "Timeout", str(error)) from error
        if not answer.ok:
            raise ApiError(422, "Invalid", f"sidecar {namespace}/{pod}: {answer.error}")
        return Response(bytes(answer.result), media_type="application/json")

    async def distribution(request: Request) -> Response:
        version = await _version(store, request)
        found = hub.distribution(version)
        body = {
            "resourceVersion": str(version),
            "worldVersion": str(hub.version),
            "pending": list(found.pending),
            "done": list(found.done),
            "errors": found.errors,
        }
        return JSONResponse(body)

    return [
        Route("/mesh/v1/proxies", proxies, methods=["GET"]),
        Route("/mesh/v1/proxies/{namespace}/{pod}/query", query, methods=["GET", "POST"]),
        Route("/mesh/v1/distribution", distribution, methods=["GET"]),
    ]


class _Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    verb: str
    args: dict[str, Any] = {}


async def _asked(request: Request) -> _Asked:
    try:
        return msgspec.json.decode(await read_body(request, MAX_QUESTION), type=_Asked)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"the body is not a question: {error}") from error


def _headers(given: str | list[str]) -> dict[str, list[str]]:
    """``header=name: value``, repeated, as the sidecar wants them: a mapping."""
    found: dict[str, list[str]] = {}
    for line in given if isinstance(given, list) else [given]:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise bad_request(f"header: must be `name: value`, not {line!r}")
        found.setdefault(name.strip(), []).append(value.strip())
    return found


async def _version(store: Store, request: Request) -> int:
    """The store version that is asked about: given, or else the named object's own."""
    given = request.query_params.get("resourceVersion", "")
    if given:
        if not (given.isascii() and given.isdigit() and len(given) <= 18):
            raise bad_request(f"resourceVersion: must be a number, not {given[:40]!r}")
        version: int | None = int(given)
    else:
        version = None
    group, plural = request.query_params.get("group", ""), request.query_params.get("plural", "")
    namespace, name = request.query_params.get("namespace", ""), request.query_params.get("name", "")
    if version is not None and not (plural and name):
        return version
    if not plural or not name:
        raise bad_request("give resourceVersion, or plural and name (and group, namespace) of one object")
    try:
        kind = by_plural(group, plural)
    except LookupError as error:
        raise bad_request(f"plural: {plural!r} is not known in group {group!r}") from error
    try:
        return await store.version_of(kind, namespace or None, name, version)
    except NotFound as error:
        raise not_found(plural, group, name) from error
