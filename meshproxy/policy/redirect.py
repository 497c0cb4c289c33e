"""Room: policy. Redirects: the Location that a request is sent to (Envoy: ``RouteEntryImplBase::newUri``).

In: ``model.route.Redirect``. Out: ``compile_redirect`` -> a function from request, wire scheme and asked-for port to a
``Reply``. The query is kept, unless the new path has one of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from meshproxy.message.head import RequestHead, first
from meshproxy.message.verdict import Reply
from meshproxy.model.route import Redirect
from meshproxy.policy.invalid import Invalid
from meshproxy.policy.replies import plain_reply
from meshproxy.policy.rewrite import PathEdit, encoded, prefix_edit

__all__ = ["compile_redirect"]

_CODES = (301, 302, 303, 307, 308)
_DEFAULT = {b"http": 80, b"https": 443}


def _cut_port(authority: bytes) -> tuple[bytes, bytes]:
    host, colon, port = authority.rpartition(b":")
    if colon and port.isdigit() and (b":" not in host or host.endswith(b"]")):
        return host, port
    return authority, b""


def compile_redirect(model: Redirect, path: str) -> Callable[[RequestHead, bytes, int], Reply]:
    """Raises ``Invalid`` for another code, port or path than HTTP knows."""
    if model.code not in _CODES:
        raise Invalid(path + ".code", f"must be one of {', '.join(map(str, _CODES))}, not {model.code}")
    if model.port is not None and not 0 < model.port < 65536:
        raise Invalid(path + ".port", f"must be between 1 and 65535, not {model.port}")
    if model.port is not None and model.derive_port is not None:
        raise Invalid(path, "give only one of port and derive_port")
    if model.path is not None and model.prefix_rewrite is not None:
        raise Invalid(path, "give only one of path and prefix_rewrite")
    code, port, derived = model.code, model.port, model.derive_port == "FROM_REQUEST_PORT"
    scheme_to = encoded(model.scheme).lower() if model.scheme else b""
    host_to = encoded(model.authority) if model.authority else b""
    path_to = _path_edit(model)

    def host_and_port(request: RequestHead, old_scheme: bytes, new_scheme: bytes, asked: int) -> bytes:
        host, given = _cut_port(host_to or request.authority)
        if port is not None:
            return b"%b:%d" % (host, port)
        if derived:
            # The default port is left out, but only when it was derived (semantics A1).
            return host if asked == _DEFAULT.get(new_scheme) else b"%b:%d" % (host, asked)
        if not given:
            return host
        default = b"%d" % _DEFAULT.get(old_scheme, 0)
        if not host_to and new_scheme != old_scheme and given == default:
            return host  # http://a:80 -> https://a, not https://a:80
        return host + b":" + given

    def reply(request: RequestHead, wire_scheme: bytes, asked: int) -> Reply:
        old_scheme = request.scheme or first(request.headers, b"x-forwarded-proto") or wire_scheme
        scheme = scheme_to or old_scheme
        location = scheme + b"://" + host_and_port(request, old_scheme, scheme, asked) + path_to(request.target)
        return plain_reply(code, b"", [(b"location", location)])

    return reply


def _path_edit(model: Redirect) -> PathEdit:
    edit: PathEdit
    if model.prefix_rewrite is not None:
        edit = prefix_edit(*model.prefix_rewrite)
    elif model.path is not None:
        whole = encoded(model.path, keep=b"#")
        whole = whole if whole.startswith(b"/") else b"/" + whole
        edit = lambda given: whole  # noqa: E731
    else:
        edit = lambda given: given  # noqa: E731

    def new_target(target: bytes) -> bytes:
        given, mark, query = target.partition(b"?")
        new, hash_mark, fragment = edit(given if given.startswith(b"/") else b"/").partition(b"#")
        return (new if b"?" in new else new + mark + query) + hash_mark + fragment

    return new_target
