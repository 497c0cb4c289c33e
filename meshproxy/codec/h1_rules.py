"""Room 3, codec: the rules of HTTP/1 that every reading shares, as data and pure functions. Nothing in, nothing kept.

``h1_head`` (quick) and ``h1_guard`` (strict) each apply them in their own way; the tests hold the two together.
RFC 9110 and 9112 are cited at the rule; where the RFCs leave a choice, Envoy's is taken.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from meshproxy.message.reason import Reason

__all__ = [
    "AUTHORITY",
    "BODYLESS",
    "FORBIDDEN_TRAILERS",
    "HOP_BY_HOP",
    "TOKEN",
    "VALUE",
    "WRONG_BYTES",
    "Fault",
    "H1Limits",
    "Start",
    "authority_ok",
    "connection_tokens",
    "may_trail",
    "nominates",
    "split_target",
]

Fault = tuple[Reason, str]  # a refusal: what to answer, and the detail for the access log


@dataclass(frozen=True, slots=True)
class H1Limits:
    """Bounds, in bytes and counts. Defaults: Envoy's (60 KiB of head, 100 headers).

    head: start line, headers and the empty line together; also a block of trailers. headers: header lines of one head.
    pipelined: bytes that wait in the codec behind an unfinished exchange before reading pauses. chunk_line: one chunk-size line
    with its extensions; chunk_extensions: all extensions of one message. informational: 1xx responses before the final one.
    linger: bytes discarded after a refusal or an early answer before the connection closes.
    """

    head: int = 61440
    headers: int = 100
    pipelined: int = 65536
    chunk_line: int = 1024
    chunk_extensions: int = 16384
    informational: int = 32
    linger: int = 262144


TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
# A field value after trimming: visible bytes, SP, HTAB and obs-text; no control byte at all (RFC 9110 section 5.5).
VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")

# Bytes that no head may hold: controls other than HTAB, CR, LF; an LF that no CR precedes; a CR that no LF follows (a CR at the
# very end may still get its LF). RFC 9112 section 2.2: a proxy that mends these hands its peers two readings of one message.
WRONG_BYTES = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?![\n])(?!\Z)")

# host[:port] without userinfo (RFC 9110 section 4.2.4). RFC 3986's reg-name less "*" and ",": both are list or wildcard syntax
# around here and no host has them. The port, if its colon is there, is 1 to 5 digits; its range is checked by ``authority_ok``.
AUTHORITY = re.compile(rb"(?:[A-Za-z0-9._~%!$&'()+;=\-]+|\[[0-9A-Fa-f:.]+(?:%25[A-Za-z0-9._~\-]+)?\])(?::([0-9]{1,5}))?")

HOP_BY_HOP = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"te"))
BODYLESS = frozenset((204, 304))

# RFC 9110 section 6.5.1: what may not come as a trailer because it frames, routes or authenticates. Dropped, not refused.
FORBIDDEN_TRAILERS = HOP_BY_HOP | {
    b"authorization",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"expect",
    b"host",
    b"proxy-authorization",
    b"set-cookie",
    b"trailer",
}
# Headers of these families say who asked and from where; every hop checks or writes them, and it looks at heads only.
_FORBIDDEN_TRAILER_FAMILIES = (b"x-forwarded-", b"x-envoy-")

_MAX_TOKENS = 10  # Envoy: sanitizeConnectionHeader refuses more
_NOT_NOMINABLE = frozenset((b"host", b"content-length", b"transfer-encoding", b"expect", b"authorization", b"set-cookie"))


def connection_tokens(values: list[bytes]) -> list[bytes] | None:
    """The lower-case tokens of all Connection lines, or None when they may not stand: more than ten, not a token, or a name
    whose removal would change framing, routing or trust (RFC 9110 section 7.6.1; Envoy: disallowed nominated header)."""
    tokens = [part.strip(b" \t").lower() for part in b",".join(values).split(b",")]
    tokens = [token for token in tokens if token]
    if len(tokens) > _MAX_TOKENS:
        return None
    for token in tokens:
        if token in _NOT_NOMINABLE or token.startswith(b"x-forwarded-") or not TOKEN.fullmatch(token):
            return None
    return tokens


def may_trail(name: bytes) -> bool:
    """Whether a field may stand behind a body; ``_`` is ``-`` to many an app."""
    return name not in FORBIDDEN_TRAILERS and not name.replace(b"_", b"-").startswith(_FORBIDDEN_TRAILER_FAMILIES)


def nominates(tokens: list[bytes]) -> frozenset[bytes]:
    """The header names that Connection takes away, together with those that never travel further."""
    return HOP_BY_HOP.union(tokens) if tokens else HOP_BY_HOP


# method, target, scheme, authority, absolute
Start = tuple[bytes, bytes, bytes, bytes, bool]

_ABSOLUTE = re.compile(rb"(https?)://([^/?#]*)([^#]*)", re.IGNORECASE)


def authority_ok(authority: bytes) -> bool:
    """Whether a Host value or the authority of a target may stand: host or IP literal, optional port up to 65535."""
    match = AUTHORITY.fullmatch(authority)
    return match is not None and (match[1] is None or int(match[1]) <= 65535)


def split_target(method: bytes, target: bytes) -> Start | None:
    """Origin, absolute, authority and asterisk form (RFC 9112 section 3.2), the fragment cut off; None when it is none of them.

    target: visible ASCII. A path that holds ``%00`` is None too: no server can mean it well.
    """
    if method == b"CONNECT":  # authority form, and only that; the port is obligatory
        match = AUTHORITY.fullmatch(target)
        if match is None or match[1] is None or int(match[1]) > 65535:
            return None
        return method, target, b"", target, False
    scheme = authority = b""
    absolute = False
    if target[:1] == b"/":
        if b"#" in target:
            target = target[: target.index(b"#")]
    elif target == b"*":
        return (method, target, scheme, authority, absolute) if method == b"OPTIONS" else None
    else:
        match = _ABSOLUTE.match(target)
        if match is None or not authority_ok(match[2]):
            return None
        scheme, authority, target = match[1].lower(), match[2], match[3]
        absolute = True
        if not target:
            target = b"*" if method == b"OPTIONS" else b"/"  # RFC 9112 section 3.2.4
        elif target[:1] == b"?":
            target = b"/" + target
    if b"%00" in target and b"%00" in target.partition(b"?")[0]:
        return None
    return method, target, scheme, authority, absolute
