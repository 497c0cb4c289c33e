"""get, list and the start of a watch.

Room: control/serve/kube. In: a target and parameters. Out: responses.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from control.serve.kube import status
from control.serve.kube.context import Context, Target, answer, fetch
from control.serve.kube.params import Params, params
from control.serve.kube.selectors import Selector, fields, labels
from control.serve.kube.stream import Stream
from control.serve.kube.table import dress, listing, one
from control.serve.kube.watch import Watch

__all__ = ["chosen", "get", "list_or_watch"]

Obj = dict[str, Any]


async def get(context: Context, at: Target, request: Request) -> Response:
    form = dress(request.headers.get("accept", ""))
    asked = params(request)
    obj = await fetch(context, at)
    shown = one(obj, at.kind, at.version, form, asked.include, context.clock())
    return answer(shown, as_yaml=form.as_yaml)


def chosen(at: Target, asked: Params) -> tuple[Selector, Selector]:
    """The two selectors of a request; a selector that does not parse is a 400."""
    return labels(asked.label_selector), fields(asked.field_selector, at.kind.kind)


async def list_or_watch(context: Context, at: Target, request: Request) -> Response:
    form = dress(request.headers.get("accept", ""))
    asked = params(request)
    selectors = chosen(at, asked)

    def wanted(obj: Obj) -> bool:
        return all(selector.matches(obj) for selector in selectors)

    if asked.watch:
        watch = Watch(
            context.store, at.kind, at.version, at.namespace, wanted, selectors, asked, form._replace(as_yaml=False),
            context.clock, context.stopping,
        )  # fmt: skip
        return Stream(watch.lines(), media_type="application/json", headers={"Cache-Control": "no-cache, private"})
    if asked.match and asked.match not in ("Exact", "NotOlderThan"):
        raise status.bad_request(f'resourceVersionMatch: Unsupported value: "{asked.match[:40]}"')
    if asked.match and not asked.version:
        raise status.bad_request("resourceVersionMatch is forbidden unless resourceVersion is provided")
    objs, version, start = await _moment(context, at, asked)
    matching = [obj for obj in objs if wanted(obj)]
    meta: Obj = {"resourceVersion": str(version)}
    page = matching[start:]
    if asked.limit and len(page) > asked.limit:
        context.pages.keep(_page_key(at, version), objs)
        page = page[: asked.limit]
        meta["continue"] = _token(version, start + asked.limit, asked)
        if all(selector.empty for selector in selectors):
            meta["remainingItemCount"] = len(matching) - start - asked.limit
    shown = listing(page, at.kind, at.version, form, asked.include, context.clock(), meta)
    return answer(shown, as_yaml=form.as_yaml)


def _page_key(at: Target, version: int) -> tuple[Any, ...]:
    return (at.kind.resource, at.namespace, version)


async def _moment(context: Context, at: Target, asked: Params) -> tuple[list[Obj], int, int]:
    """The objects, the version they are of, and where the asked page starts."""
    if asked.token:
        version, start = _read_token(asked)
        kept = context.pages.find(_page_key(at, version))
        if kept is None:
            raise status.expired(
                "The provided continue parameter is too old to display a consistent list result. "
                "You must start a new list without the continue parameter."
            )
        return kept, version, start
    objs, current = await context.store.list(at.kind, at.namespace)
    least = int(asked.version or 0)
    if least > current:
        raise status.ApiError(
            504, "Timeout", f"Too large resource version: {least}, current: {current}",
            {"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}], "retryAfterSeconds": 1},
        )  # fmt: skip
    if asked.match == "Exact" and least != current:
        kept = context.pages.find(_page_key(at, least))
        if kept is None:
            raise status.expired(f"The resourceVersion for the provided list is too old: {least} ({current})")
        return kept, least, 0
    return objs, current, 0


def _token(version: int, start: int, asked: Params) -> str:
    # The selectors are part of the token: its place counts objects that they chose.
    value = json.dumps([version, start, asked.label_selector, asked.field_selector])
    return base64.urlsafe_b64encode(value.encode()).decode().rstrip("=")


def _read_token(asked: Params) -> tuple[int, int]:
    try:
        padded = asked.token + "=" * (-len(asked.token) % 4)
        version, start, by_label, by_field = json.loads(base64.urlsafe_b64decode(padded.encode()))
        if type(version) is not int or type(start) is not int or start < 0:
            raise ValueError
    except (ValueError, TypeError, RecursionError):
        raise status.bad_request("continue key is not valid: start a new list without it") from None
    if (by_label, by_field) != (asked.label_selector, asked.field_selector):
        raise status.bad_request("continue key is not valid: its list was made with other selectors")
    return version, start
