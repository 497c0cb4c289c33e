"""Room 3, codec: heads and chunks as bytes. Heads in, bytes out; keeps nothing.

The connection's own headers (host, transfer-encoding, connection, upgrade, te) are put on here; ``content-length`` is in the
head's list already, and is added only if a length is known and the header is not there. Names and values are written as
they are, except that a header which would break the head in two (CR or LF, from a template that took in a client's value) is
left out.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from meshproxy.message.head import CHUNKED, Headers, RequestHead
from meshproxy.message.reason import Reason

__all__ = ["JOIN", "LAST_CHUNK", "fields", "informational", "last_chunk", "put_chunk", "refusal", "request", "status_line"]

LAST_CHUNK = b"0\r\n\r\n"
JOIN = 16384  # bytes of body up to which copying it behind its head is cheaper than a second write

_pair = b": ".join  # (name, value) -> line, in C; b"%b: %b" costs three times that (micro_codec: write)
_lines = b"\r\n".join

_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}
_STATUS_LINES = {(code, phrase): b"HTTP/1.1 %d %b" % (code, phrase) for code, phrase in _PHRASES.items()}
_STATUS_LINES.update({(code, b""): b"HTTP/1.1 %d %b" % (code, phrase) for code, phrase in _PHRASES.items()})
_status_lines_get = _STATUS_LINES.get


def status_line(status: int, phrase: bytes) -> bytes:
    """The status line without its CRLF; an empty phrase becomes the usual one. A phrase with CR or LF is dropped."""
    line = _status_lines_get((status, phrase))
    if line is None:
        line = b"HTTP/1.1 %d %b" % (status, phrase if b"\r" not in phrase and b"\n" not in phrase else b"")
    return line


def _clean(headers: Headers) -> Headers:
    return [(n, v) for n, v in headers if n and not any(bad in part for bad in (b"\r", b"\n", b"\0") for part in (n, v))]


def fields(start: bytes, headers: Headers, tail: bytes) -> bytes:
    """A whole head: start line (or lines), headers, and ``tail``, which holds the codec's own lines and the last CRLF."""
    lines = [*map(_pair, headers)]
    flat = b"".join(lines)  # one more join, so that two searches without a hit tell of any CR or LF
    if b"\n" in flat or b"\r" in flat:
        lines = [*map(_pair, _clean(headers))]
    return _lines((start, *lines, tail))


def request(head: RequestHead, close: bool) -> bytes:
    """A request head in origin form (CONNECT and ``OPTIONS *`` as they are). close: say that the connection ends with it."""
    length = head.length
    tail = b"\r\n"
    if length == CHUNKED:
        tail = b"transfer-encoding: chunked\r\n\r\n"
    if head.upgrade:
        tail = b"connection: upgrade\r\nupgrade: %b\r\n%b" % (head.upgrade, tail)
    elif close:
        tail = b"connection: close\r\n" + tail
    if head.te_trailers:
        tail = b"te: trailers\r\n" + tail
    out = fields(b"%b %b HTTP/1.1\r\nhost: %b" % (head.method, head.target, head.authority), head.headers, tail)
    if length > 0 and b"\r\ncontent-length: " not in out:
        out = out[:-2] + b"content-length: %d\r\n\r\n" % length
    return out


def informational(status: int, headers: Headers) -> bytes:
    """A 1xx head."""
    return fields(status_line(status, b""), headers, b"\r\n")


def refusal(reason: Reason, server_name: bytes) -> bytes:
    """The whole answer to a request that never became one (semantics B4: codec errors)."""
    body = reason.body
    return b"%b\r\ncontent-length: %d\r\ncontent-type: text/plain\r\nserver: %b\r\nconnection: close\r\n\r\n%b" % (
        status_line(reason.status, b""),
        len(body),
        server_name,
        body,
    )


def put_chunk(write: Callable[[bytes], None], before: bytes, data: bytes, end: bool) -> None:
    """Write one chunk behind what was held back; no data makes no chunk, since an empty one would end the body. Large data goes
    out as it is, because two more writes cost less than a copy (micro_codec: 1 MiB)."""
    if not data:
        out = before + LAST_CHUNK if end else before
        if out:
            write(out)
        return
    tail = b"\r\n0\r\n\r\n" if end else b"\r\n"
    if len(data) <= JOIN:
        write(b"%b%x\r\n%b%b" % (before, len(data), data, tail))
    else:
        write(b"%b%x\r\n" % (before, len(data)))
        write(data)
        write(tail)


def last_chunk(trailers: Headers) -> bytes:
    """The end of a chunked body."""
    if not trailers:
        return LAST_CHUNK
    return fields(b"0", trailers, b"\r\n")
