"""Query parameters of an API call, read once into one frozen value.

Room: control/serve/kube. In: a Starlette request. Out: ``Params``. A parameter that does not parse is a 400 in one line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from starlette.requests import Request

from control.serve.kube import status

__all__ = ["Params", "Validation", "flag", "number", "params"]

Validation = Literal["Ignore", "Warn", "Strict"]


@dataclass(frozen=True)
class Params:
    """``version``/``match``: resourceVersion and resourceVersionMatch; ``timeout`` in seconds; 0 and "" are not given."""

    watch: bool
    dry_run: bool
    validation: Validation
    label_selector: str
    field_selector: str
    limit: int
    token: str
    version: str
    match: str
    timeout: int
    bookmarks: bool
    initial: bool
    include: str


def flag(request: Request, name: str) -> bool:
    value = request.query_params.get(name, "")
    if value.lower() in ("", "false", "0", "f"):
        return False
    if value.lower() in ("true", "1", "t"):
        return True
    raise status.bad_request(f"query parameter {name} must be true or false, not {value[:40]!r}")


def number(request: Request, name: str) -> int | None:
    """A non-negative integer, or None when it is not given."""
    value = request.query_params.get(name, "")
    if not value:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise status.bad_request(f"query parameter {name} must be a whole number, 0 or more, not {value[:40]!r}")
    return int(value)


def params(request: Request) -> Params:
    """All the parameters that the verbs understand. Unknown ones (pretty, fieldManager, …) are ignored as in Kubernetes."""
    query = request.query_params
    dry = query.getlist("dryRun")
    if any(value not in ("", "All") for value in dry):
        raise status.bad_request(f'dryRun: Unsupported value: "{dry[0][:40]}": supported values: "All"')
    validation = query.get("fieldValidation", "") or "Warn"
    if validation not in ("Ignore", "Warn", "Strict"):
        raise status.bad_request(
            f'fieldValidation: Unsupported value: "{validation[:40]}": supported values: "", "Ignore", "Strict", "Warn"'
        )
    include = query.get("includeObject", "") or "Metadata"
    if include not in ("None", "Metadata", "Object"):
        raise status.bad_request(f'includeObject: unrecognized value "{include[:40]}"')
    version = query.get("resourceVersion", "")
    if version and not (version.isascii() and version.isdigit() and len(version) <= 18):
        raise status.bad_request(f"invalid resource version {version[:40]!r}: it must be a number")
    return Params(
        watch=flag(request, "watch"),
        dry_run="All" in dry,
        validation=validation,  # type: ignore[arg-type]
        label_selector=query.get("labelSelector", ""),
        field_selector=query.get("fieldSelector", ""),
        limit=number(request, "limit") or 0,
        token=query.get("continue", ""),
        version=version,
        match=query.get("resourceVersionMatch", ""),
        timeout=number(request, "timeoutSeconds") or 0,
        bookmarks=flag(request, "allowWatchBookmarks"),
        initial=flag(request, "sendInitialEvents"),
        include=include,
    )
