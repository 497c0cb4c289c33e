"""Room: policy. Path normalisation, so that what is matched is what is forwarded (semantics B8.7).

In: a request target (origin form). Out: ``normaliser(mode)``, a function from target to the target to forward, or None:
refuse with 400. Assumes the codec has let no control character or space through. The query is never touched, except that a
fragment is cut off. Decoding happens once: ``%2530`` stays as it is. Rules: Envoy's ``CanonicalizationUtil`` (Chromium's URL
canonicaliser).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

__all__ = ["Mode", "Normalise", "normaliser"]

Mode = Literal["NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"]
Normalise = Callable[[bytes], bytes | None]

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPED = frozenset([*range(0x21), *b'"<>`{}', *range(0x7F, 0x100)])  # to be percent-encoded in a path
_HEX = frozenset(b"0123456789abcdefABCDEF")
# Bytes that alone never make a path worth a second look. "." is among them: "/." is looked for separately.
_CLEAN = bytes(sorted(set(range(0x100)) - _ESCAPED - set(b"%\\#")))


def normaliser(mode: Mode) -> Normalise:
    """The function for a mode. A clean target comes back as the same object (0.3 us); None means 400."""
    if mode == "NONE":
        return _without_fragment
    if mode == "BASE":
        return _base
    if mode == "MERGE_SLASHES":
        return _merge
    return _decode_and_merge


def _without_fragment(target: bytes) -> bytes | None:
    return target.partition(b"#")[0] if b"#" in target else target


def _base(target: bytes) -> bytes | None:
    # Hot (benchmarks/micro_policy.py "normalise clean"): one C pass and one substring search for nearly every request.
    if not target.translate(None, _CLEAN) and b"/." not in target:
        return target
    return _normalise(target, False, False)


def _merge(target: bytes) -> bytes | None:
    if not target.translate(None, _CLEAN) and b"/." not in target and b"//" not in target:
        return target
    return _normalise(target, False, True)


def _decode_and_merge(target: bytes) -> bytes | None:
    if not target.translate(None, _CLEAN) and b"/." not in target and b"//" not in target:
        return target
    return _normalise(target, True, True)


def _normalise(target: bytes, decode_slashes: bool, merge: bool) -> bytes | None:
    if not target.startswith(b"/"):
        return target  # "*" and authority form have no path
    target = target.partition(b"#")[0]
    path, mark, query = target.partition(b"?")
    decoded = _unescape(path, decode_slashes)
    if decoded is None:
        return None
    path = _dots(decoded)
    if merge:
        while b"//" in path:
            path = path.replace(b"//", b"/")
    return path + mark + query


def _unescape(path: bytes, slashes: bool) -> bytes | None:
    """Decode unreserved ``%xx`` (and encoded slashes if asked), turn backslashes, encode what may not stand bare."""
    if b"%" not in path:
        out = path.replace(b"\\", b"/")
        return b"".join(b"%%%02X" % c if c in _ESCAPED else bytes((c,)) for c in out) if _bare(out) else out
    result = bytearray()
    index, size = 0, len(path)
    while index < size:
        char = path[index]
        if char == 0x25:  # %
            pair = path[index + 1 : index + 3]
            if len(pair) == 2 and pair[0] in _HEX and pair[1] in _HEX:
                value = int(pair, 16)
                if value == 0:
                    return None
                if value in _UNRESERVED:
                    result.append(value)
                elif slashes and value in b"/\\":
                    result.append(0x2F)
                else:
                    result += path[index : index + 3]
                index += 3
                continue
            result.append(char)  # not an escape: passed on unchanged, as browsers and Envoy do
        elif char == 0x5C:
            result.append(0x2F)
        elif char in _ESCAPED:
            result += b"%%%02X" % char
        else:
            result.append(char)
        index += 1
    return bytes(result)


def _bare(path: bytes) -> bool:
    return any(char in _ESCAPED for char in path)


def _dots(path: bytes) -> bytes:
    """Resolve ``.`` and ``..`` segments (RFC 3986 section 5.2.4); above the root is the root; empty segments count."""
    if b"/." not in path:
        return path
    segments = path.split(b"/")[1:]
    last = len(segments) - 1
    out: list[bytes] = []
    for index, segment in enumerate(segments):
        if segment == b"." or segment == b"..":
            if segment == b".." and out:
                out.pop()
            if index == last:
                out.append(b"")  # "/a/b/.." is the directory "/a/"
        else:
            out.append(segment)
    return b"/" + b"/".join(out)
