"""Translate, route actions: the parts of an HTTP rule that say what happens, one function per block.

In: blocks of ``HTTPRoute``. Out: model structs. Semantics A1 (headers, CORS, rewrite, redirect, mirror), A2 (retries, faults).
Each takes ``note``, called with a path and a message for what cannot be honoured.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

import msgspec

from control.resources import virtual_service as api
from control.resources.values import parse_duration
from control.world.retries import retry_of
from meshproxy.model import match
from meshproxy.model import route as model

__all__ = ["Note", "cors", "direct_response", "fault", "header_ops", "percent_of", "redirect", "retry", "rewrite"]

Note = Callable[[str, str], None]

_GRPC_NAMES = (
    "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED RESOURCE_EXHAUSTED "
    "FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS UNAUTHENTICATED"
)
_GRPC = tuple(_GRPC_NAMES.split())  # a name's place is its number


def retry(given: api.HTTPRetry | None, default: model.Retry | None, *, hashed: bool) -> model.Retry | None:
    """Absent: the mesh default. ``hashed``: a retry may go to the same host again."""
    if given is None:
        if default is None or not hashed:
            return default
        return msgspec.structs.replace(default, avoid_previous_hosts=False)
    return retry_of(given, default, hashed=hashed)


def percent_of(value: float) -> float:
    """Istio keeps 0.0001 steps and cuts off the rest (value x 10000 per million)."""
    return int(value * 10000 + 1e-9) / 10000


def fault(given: api.HTTPFaultInjection | None, note: Note) -> model.Fault | None:
    """Without a percentage a fault never happens (semantics A2)."""
    if given is None:
        return None
    delay = abort = None
    if given.delay is not None:
        share = given.delay.percentage.value if given.delay.percentage is not None else float(max(given.delay.percent, 0))
        if given.delay.exponential_delay is not None:
            note("fault.delay.exponentialDelay", "accepted but not honoured")
        elif given.delay.fixed_delay is not None and percent_of(share) > 0:
            delay = model.Delay(seconds=parse_duration(given.delay.fixed_delay), percent=percent_of(share))
    if given.abort is not None and given.abort.percentage is not None and percent_of(given.abort.percentage.value) > 0:
        abort = _abort(given.abort, percent_of(given.abort.percentage.value), note)
    return model.Fault(delay=delay, abort=abort) if delay is not None or abort is not None else None


def _abort(given: api.Abort, share: float, note: Note) -> model.Abort | None:
    if given.http_status is not None:
        return model.Abort(percent=share, status=given.http_status)
    if given.grpc_status is not None:
        text = given.grpc_status.strip().upper()
        if text.isdigit():
            return model.Abort(percent=share, grpc_status=int(text))
        if text in _GRPC:
            return model.Abort(percent=share, grpc_status=_GRPC.index(text))
        note("fault.abort.grpcStatus", f"no gRPC status {given.grpc_status!r}; the abort is left out")
    elif given.http2_error is not None:
        note("fault.abort.http2Error", "accepted but not honoured")
    return None


def cors(given: api.CorsPolicy | None) -> model.Cors | None:
    if given is None:
        return None
    origins = [_origin(test) for test in given.allow_origins]
    origins += [_origin(api.StringMatch(exact=origin)) for origin in given.allow_origin if not given.allow_origins]
    return model.Cors(
        allow_origins=tuple(o for o in origins if o is not None),
        allow_methods=given.allow_methods,
        allow_headers=given.allow_headers,
        expose_headers=given.expose_headers,
        max_age=int(parse_duration(given.max_age)) if given.max_age else None,
        allow_credentials=given.allow_credentials,
        forward_unmatched_preflights=given.unmatched_preflights != "IGNORE",
    )


def _origin(test: api.StringMatch) -> match.StringMatch | None:
    if test.exact == "*" or test.regex == "*":  # Envoy takes an exact "*" for any origin
        return match.StringMatch(kind="regex", value=".*")
    if test.exact is not None:
        return match.StringMatch(kind="exact", value=test.exact)
    if test.prefix is not None:
        return match.StringMatch(kind="prefix", value=test.prefix)
    return match.StringMatch(kind="regex", value=test.regex) if test.regex is not None else None


def header_ops(given: api.HeaderOperations | None, note: Note, path: str, *, request: bool) -> model.HeaderOps | None:
    """Names lower case and sorted. Of pseudo headers and Host only ``request.set`` of the authority is possible."""
    if given is None:
        return None
    setting: dict[str, str] = {}
    for name, value in sorted(given.set.items()):
        key = name.lower()
        if key in ("host", ":authority") and request:
            setting["host"] = value
        elif not _protected(key, note, f"{path}.set[{name}]"):
            setting[key] = value
    adding = [(n.lower(), v) for n, v in sorted(given.add.items()) if not _protected(n.lower(), note, f"{path}.add[{n}]")]
    removing = sorted({n.lower() for n in given.remove if not _protected(n.lower(), note, f"{path}.remove")})
    if not (setting or adding or removing):
        return None
    return model.HeaderOps(set=tuple(sorted(setting.items())), add=tuple(adding), remove=tuple(removing))


def _protected(name: str, note: Note, path: str) -> bool:
    if name.startswith(":") or name == "host":
        note(path, "this header cannot be changed here; left out")
        return True
    return False


def rewrite(given: api.HTTPRewrite | None, uri: api.StringMatch | None) -> model.Rewrite | None:
    """What ``uri`` replaces depends on how the path was matched: the prefix, or the whole path (semantics A1)."""
    if given is None:
        return None
    authority = given.authority or None
    if given.uri_regex_rewrite is not None:
        regex = given.uri_regex_rewrite
        return model.Rewrite(regex=model.RegexRewrite(match=regex.match, rewrite=regex.rewrite), authority=authority)
    if not given.uri:
        return model.Rewrite(authority=authority) if authority else None
    if uri is not None and (uri.exact is not None or (uri.regex is not None and uri.regex != "*")):
        return model.Rewrite(path=given.uri, authority=authority)
    # No path condition is the prefix "/", as in Envoy.
    return model.Rewrite(prefix=(_prefix(uri), given.uri), authority=authority)


def _prefix(uri: api.StringMatch | None) -> str:
    return uri.prefix if uri is not None and uri.prefix else "/"


def redirect(given: api.HTTPRedirect, uri: api.StringMatch | None) -> model.Redirect:
    return model.Redirect(
        code=given.redirect_code or 301,
        path=given.uri or None,
        prefix_rewrite=(_prefix(uri), given.prefix_rewrite) if given.prefix_rewrite else None,
        authority=given.authority or None,
        scheme=given.scheme or None,
        port=given.port,
        derive_port=given.derive_port,
    )


def direct_response(given: api.HTTPDirectResponse) -> model.DirectResponse:
    body = b""
    if given.body is not None and given.body.string is not None:
        body = given.body.string.encode()
    elif given.body is not None and given.body.bytes is not None:
        body = base64.b64decode(given.body.bytes)
    return model.DirectResponse(status=given.status, body=body)
