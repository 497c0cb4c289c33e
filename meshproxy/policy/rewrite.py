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
from meshproxy.policy.invalid import Invalid
from meshproxy.policy.matchers import MAX_PATTERN, MAX_PROGRAM

__all__ = ["PathEdit", "check_path", "compile_rewrite", "prefix_edit"]

PathEdit = Callable[[bytes], bytes]  # path without query -> path


def check_path(value: str, path: str) -> bytes:
    """A replacement fit for a request line: no white space, control character or fragment. Raises ``Invalid``."""
    if any(ord(char) <= 0x20 or ord(char) >= 0x7F or char == "#" for char in value):
        raise Invalid(path, f"{value!r} holds a character that a path cannot: percent-encode it")
    return value.encode()


def _rooted(path: bytes) -> bytes:
    return path if path.startswith(b"/") else b"/" + path


def prefix_edit(matched: str, replacement: str, path: str) -> PathEdit:
    """Replace the matched prefix; a path that does not have it (another case apart) stays as it is."""
    old, new = matched.encode().lower(), check_path(replacement, path)
    size = len(old)

    def edit(given: bytes) -> bytes:
        if given[:size].lower() != old:
            return given
        return _rooted(new + given[size:])

    return edit


def _regex_edit(pattern: str, rewrite: str, path: str) -> PathEdit:
    options = re2.Options()
    options.log_errors = False
    try:
        if len(pattern) > MAX_PATTERN:
            raise Invalid(path + ".match", f"regex is longer than {MAX_PATTERN} characters: make it smaller")
        compiled = re2.compile(pattern.encode(), options)
    except re2.error as error:
        cause = error.args[0].decode("utf-8", "replace") if error.args else ""
        raise Invalid(path + ".match", f"bad regex {pattern!r}: {cause} (RE2 syntax)") from None
    if compiled.programsize > MAX_PROGRAM:
        raise Invalid(path + ".match", f"regex {pattern!r} is too large ({compiled.programsize} > {MAX_PROGRAM})")
    parts = _template(rewrite, compiled.groups, path + ".rewrite")

    def expand(match: re2._Match[bytes]) -> bytes:
        return b"".join([part if isinstance(part, bytes) else (match.group(part) or b"") for part in parts])

    def edit(given: bytes) -> bytes:
        return _rooted(compiled.sub(expand, given))

    return edit


def _template(rewrite: str, groups: int, path: str) -> list[bytes | int]:
    r"""``/x/\1`` as literals and group numbers; ``\0`` is the whole match, ``\\`` a backslash (RE2's rewrite syntax)."""
    parts: list[bytes | int] = []
    literal = ""
    index = 0
    while index < len(rewrite):
        char = rewrite[index]
        if char != "\\":
            literal += char
            index += 1
            continue
        follower = rewrite[index + 1 : index + 2]
        if follower == "\\":
            literal += "\\"
        elif follower.isdigit() and follower.isascii():
            if int(follower) > groups:
                raise Invalid(path, f"\\{follower} names a group that the regex does not have ({groups} in all)")
            parts += [check_path(literal, path), int(follower)]
            literal = ""
        else:
            raise Invalid(path, f"a backslash must be followed by a digit or a backslash, not {follower!r}")
        index += 2
    return [*parts, check_path(literal, path)]


def compile_rewrite(model: Rewrite, path: str) -> Callable[[RequestHead], None] | None:
    """The edit of a rewrite. Raises ``Invalid``."""
    if sum(part is not None for part in (model.prefix, model.path, model.regex)) > 1:
        raise Invalid(path, "give only one of prefix, path and regex")
    edit: PathEdit | None = None
    if model.prefix is not None:
        edit = prefix_edit(model.prefix[0], model.prefix[1], path + ".prefix")
    elif model.path is not None:
        whole = _rooted(check_path(model.path, path + ".path"))
        edit = lambda given: whole  # noqa: E731
    elif model.regex is not None:
        edit = _regex_edit(model.regex.match, model.regex.rewrite, path + ".regex")
    authority = check_path(model.authority, path + ".authority") if model.authority else b""
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
