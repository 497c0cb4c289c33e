"""Room: policy. Rewriting a request's path and authority before it is forwarded.

In: ``model.route.Rewrite``. Out: ``compile_rewrite`` -> a function that edits a ``RequestHead`` in place, or None. The query
is kept; ``x-envoy-original-path`` holds the target before a path rewrite (Envoy). Assumes the route matched, so that a prefix
is there to replace (in whatever case the match allowed).
"""

from __future__ import annotations

from collections.abc import Callable

import re2

from meshproxy.message.head import RequestHead, replace
from meshproxy.model.route import Rewrite
from meshproxy.model.texts import rewrite_parts
from meshproxy.policy.invalid import Invalid
from meshproxy.policy.matchers import MAX_MEMORY, MAX_PATTERN

__all__ = ["PathEdit", "compile_rewrite", "encoded", "prefix_edit"]

PathEdit = Callable[[bytes], bytes]  # path without query -> path


def encoded(value: str, keep: bytes = b"") -> bytes:
    """A replacement fit for a request line: white space, control and non-ASCII characters and ``#`` are percent-encoded.

    ``keep``: characters to leave alone all the same (a Location may have a fragment).
    """
    bad = frozenset([*range(0x21), *range(0x7F, 0x100), 0x23]) - frozenset(keep)
    return b"".join(b"%%%02X" % byte if byte in bad else bytes((byte,)) for byte in value.encode())


def _rooted(path: bytes) -> bytes:
    return path if path.startswith(b"/") else b"/" + path


def prefix_edit(matched: str, replacement: str) -> PathEdit:
    """Replace the matched prefix; a path that does not have it (another case apart) stays as it is."""
    old, new = matched.encode().lower(), encoded(replacement)
    size = len(old)

    def edit(given: bytes) -> bytes:
        if given[:size].lower() != old:
            return given
        return _rooted(new + given[size:])

    return edit


def _regex_edit(pattern: str, rewrite: str, path: str) -> PathEdit:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MAX_MEMORY
    try:
        if len(pattern) > MAX_PATTERN:
            raise Invalid(path + ".match", f"regex is longer than {MAX_PATTERN} characters: make it smaller")
        compiled = re2.compile(pattern.encode(), options)
    except re2.error as error:
        cause = error.args[0].decode("utf-8", "replace") if error.args else ""
        raise Invalid(path + ".match", f"bad regex {pattern!r}: {cause} (RE2 syntax)") from None
    try:
        parts = [encoded(part) if isinstance(part, str) else part for part in rewrite_parts(rewrite, compiled.groups)]
    except ValueError as error:
        raise Invalid(path + ".rewrite", str(error)) from None

    def expand(match: re2._Match[bytes]) -> bytes:
        return b"".join([part if isinstance(part, bytes) else (match.group(part) or b"") for part in parts])

    def edit(given: bytes) -> bytes:
        return _rooted(compiled.sub(expand, given))

    return edit


def compile_rewrite(model: Rewrite, path: str) -> Callable[[RequestHead], None] | None:
    """The edit of a rewrite. Raises ``Invalid``."""
    if sum(part is not None for part in (model.prefix, model.path, model.regex)) > 1:
        raise Invalid(path, "give only one of prefix, path and regex")
    edit: PathEdit | None = None
    if model.prefix is not None:
        edit = prefix_edit(*model.prefix)
    elif model.path is not None:
        whole = _rooted(encoded(model.path))
        edit = lambda given: whole  # noqa: E731
    elif model.regex is not None:
        edit = _regex_edit(model.regex.match, model.regex.rewrite, path + ".regex")
    authority = encoded(model.authority) if model.authority else b""
    if edit is None and not authority:
        return None
    change = edit

    def rewrite(request: RequestHead) -> None:
        if change is not None:
            target = request.target
            given, mark, query = target.partition(b"?")
            edited = change(given)
            if edited != given:
                replace(request.headers, b"x-envoy-original-path", target)
                # A replacement with a query of its own takes the request's query behind it.
                request.target = edited + (b"&" if mark and b"?" in edited else mark) + query
        if authority:
            request.authority = authority

    return rewrite
