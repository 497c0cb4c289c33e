"""Refusals in Kubernetes' words: every error that the API answers is one Status object.

Room: control/serve/kube. In: what went wrong. Out: ``ApiError`` (raised inside the API), Starlette responses and exception
handlers. The wording, reasons and codes are those of k8s.io/apimachinery ``api/errors``, because kubectl prints them and
scripts match on them. Nothing here knows resources or stores, so the authentication middleware uses it as well.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

__all__ = [
    "ApiError",
    "Cause",
    "already_exists",
    "bad_request",
    "conflict",
    "expired",
    "forbidden",
    "handlers",
    "internal",
    "invalid",
    "method_not_allowed",
    "no_such_path",
    "not_acceptable",
    "not_found",
    "qualified",
    "response",
    "status",
    "success",
    "too_large",
    "unauthorized",
    "unavailable",
    "unsupported_media",
]

log = logging.getLogger("mesh.kube")


class Cause(NamedTuple):
    """One field that is wrong: ``field`` is its path, ``reason`` one of Kubernetes' FieldValue… words."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"


def status(code: int, reason: str, message: str, details: dict[str, Any] | None = None) -> dict[str, Any]:
    """A failure Status object as a JSON dict."""
    body: dict[str, Any] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
    }
    if details:
        body["details"] = details
    body["code"] = code
    return body


def success(details: dict[str, Any]) -> dict[str, Any]:
    """The Status that a finished deletion answers."""
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


class ApiError(Exception):
    """A refusal to be answered as it stands. ``body`` is the Status object."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.body = status(code, reason, message, details)
        self.headers = headers


def response(error: ApiError) -> Response:
    """The HTTP answer for a refusal."""
    return Response(json.dumps(error.body).encode() + b"\n", error.code, headers=error.headers, media_type="application/json")


def qualified(plural: str, group: str) -> str:
    """``virtualservices.networking.istio.io``; core kinds go without a group."""
    return f"{plural}.{group}" if group else plural


def _details(group: str, kind: str, name: str) -> dict[str, Any]:
    pairs = (("name", name), ("group", group), ("kind", kind))
    return {key: value for key, value in pairs if value}


def not_found(plural: str, group: str, name: str) -> ApiError:
    message = f'{qualified(plural, group)} "{name}" not found'
    return ApiError(404, "NotFound", message, _details(group, plural, name))


def already_exists(plural: str, group: str, name: str) -> ApiError:
    message = f'{qualified(plural, group)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, _details(group, plural, name))


def conflict(plural: str, group: str, name: str, why: str | None = None) -> ApiError:
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {qualified(plural, group)} "{name}": {why}'
    return ApiError(409, "Conflict", message, _details(group, plural, name))


def forbidden(plural: str, group: str, name: str, why: str) -> ApiError:
    named = f'{qualified(plural, group)} "{name}" is forbidden' if name else "forbidden"
    return ApiError(403, "Forbidden", f"{named}: {why}", _details(group, plural, name))


def invalid(kind: str, group: str, name: str, causes: Iterable[Cause]) -> ApiError:
    """422 with one cause per field; kubectl prints ``The KIND "NAME" is invalid: FIELD: MESSAGE``."""
    listed = tuple(causes)
    lines = [f"{cause.field}: {cause.message}" if cause.field else cause.message for cause in listed]
    said = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
    details = _details(group, kind, name)
    details["causes"] = [
        {"reason": cause.reason, "message": cause.message, **({"field": cause.field} if cause.field else {})} for cause in listed
    ]
    return ApiError(422, "Invalid", f'{qualified(kind, group)} "{name}" is invalid: {said}', details)


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def unauthorized(message: str = "Unauthorized") -> ApiError:
    return ApiError(401, "Unauthorized", message, headers={"WWW-Authenticate": "Bearer"})


def expired(message: str) -> ApiError:
    """410: the asked resourceVersion or continue token is no longer kept; the client lists again."""
    return ApiError(410, "Expired", message)


def method_not_allowed(message: str = "the server does not allow this method on the requested resource") -> ApiError:
    return ApiError(405, "MethodNotAllowed", message)


def no_such_path() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def not_acceptable(accepted: Iterable[str]) -> ApiError:
    offered = ", ".join(accepted)
    return ApiError(406, "NotAcceptable", f"only the following media types are accepted: {offered}")


def unsupported_media(accepted: Iterable[str], why: str | None = None) -> ApiError:
    message = why or ("the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted))
    return ApiError(415, "UnsupportedMediaType", message)


def too_large(limit: int) -> ApiError:
    """``limit`` in bytes."""
    return ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


def unavailable(message: str) -> ApiError:
    return ApiError(503, "ServiceUnavailable", message, {"retryAfterSeconds": 1}, {"Retry-After": "1"})


def internal(error: BaseException) -> ApiError:
    """The barrier: log what happened under an id, and give the caller the id and nothing else."""
    mark = secrets.token_hex(4)
    log.error("internal error %s", mark, exc_info=error)
    message = f"Internal error occurred: this is a fault of the mesh; its log has the details under {mark}"
    details = {"causes": [{"message": f"id {mark}"}]}
    return ApiError(500, "InternalError", message, details)


def handlers() -> dict[Any, Callable[[Request, Exception], Awaitable[Response]]]:
    """Exception handlers for the composed Starlette app, so that no path answers anything but a Status."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return response(error)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 404:
            return response(no_such_path())
        if error.status_code == 405:
            return response(method_not_allowed())
        return response(ApiError(error.status_code, "BadRequest", str(error.detail)))

    async def failed(request: Request, error: Exception) -> Response:
        return response(internal(error))

    return {ApiError: refused, HTTPException: http, Exception: failed}
