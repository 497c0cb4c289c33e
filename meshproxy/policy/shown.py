"""Room: policy. What of a request may be shown to a person who watches it: everything but what would let him be somebody else.

In: header names and values, request targets. Out: the same as text, with what is secret replaced. It errs on the safe side: a
name that sounds like a credential hides its value, and so does a value that looks like a JSON Web Token, wherever it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

__all__ = ["REDACTED", "header_values", "secret_name", "shown_target"]

REDACTED = "[redacted]"
_HIDDEN = REDACTED.encode()
_LONGEST = 2048  # bytes of a value
_SOUNDS = (
    *("auth", "cookie", "token", "secret", "passw", "passphrase", "credential", "apikey", "jwt", "session", "signature"),
    *("csrf", "xsrf", "assertion", "samlresponse", "samlrequest", "bearer", "otp", "private"),
)
_WORDS = frozenset(
    ("key", "sig", "pwd", "pass", "pin", "code", "state", "nonce", "sid", "sso", "payload", "claims", "ticket", "hmac")
)
_PLAIN = frozenset((":authority", "authority", "authors", "author"))
# Our own patterns, linear in the input. A token's header is JSON: its base64 begins with `eyJ`, unless there is white space.
_TOKEN = re.compile(
    rb"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,4}"
    rb"|(?<![A-Za-z0-9_-])e(?:yA|wo|w0|wk)[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*){0,3}"
)
_SCHEME = re.compile(rb"(?i)\b(bearer|basic|digest|negotiate|apikey)(?: |%20|\+)[!-~]+")
_SPLIT = re.compile(r"[^a-z0-9]+")


def secret_name(name: str) -> bool:
    """Whether a header or parameter of this name holds, by the sound of it, a credential."""
    plain = name.lower()
    if plain in _PLAIN:
        return False
    squeezed = _SPLIT.sub("", plain)
    return any(part in squeezed for part in _SOUNDS) or not _WORDS.isdisjoint(_SPLIT.split(plain))


def shown_target(target: bytes) -> bytes:
    """A request target, or a URL in a header: values of parameters that hold credentials, user information and tokens are out."""
    path, mark, query = target.partition(b"?")
    if mark:
        query = b"&".join(_parameter(part) for part in query.split(b"&"))
    scheme, slashes, rest = path.partition(b"://")
    if slashes and b"@" in (place := rest.partition(b"/")[0]):
        path = scheme + slashes + _HIDDEN + rest[place.rindex(b"@") :]
    return _TOKEN.sub(_HIDDEN, path + mark + query)


def _parameter(part: bytes) -> bytes:
    name, equals, _ = part.partition(b"=")
    if equals and secret_name(unquote_to_bytes(name.replace(b"+", b" ")).decode("utf-8", "replace")):
        return name + equals + _HIDDEN
    return part


def header_values(headers: Iterable[tuple[bytes, bytes]], values: bool, limit: int) -> tuple[tuple[str, str], ...]:
    """Names with values as far as they may be shown. ``values`` False: with none. ``limit``: headers, then no more."""
    found: list[tuple[str, str]] = []
    for name, value in headers:
        if len(found) == limit:
            break
        text = name[:256].decode("utf-8", "backslashreplace")
        found.append((text, _value(text, value) if values else REDACTED))
    return tuple(found)


def _value(name: str, value: bytes) -> str:
    if secret_name(name):
        return REDACTED
    if b"?" in value or b"://" in value or b"=" in value:
        value = b";".join(shown_target(part) for part in value.split(b";"))
    value = _SCHEME.sub(_HIDDEN, _TOKEN.sub(_HIDDEN, value))
    return value[:_LONGEST].decode("utf-8", "backslashreplace")
