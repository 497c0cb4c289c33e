"""Room 3, codec: the strict reading. Every head that ``h1_head`` declined comes here, and every refusal is made here.

In: the bytes of one head (or of what has arrived of it). Out: None, or a Fault: the reason and a detail for the access log.
Sans-io, keeps nothing. A response's faults use the same table; the client codec turns them into UPSTREAM_PROTOCOL_ERROR.
Assumes nothing about the bytes. What it lets through, h11 parses (``h1_strange``), and may still refuse.
"""

from __future__ import annotations

import re

from meshproxy.codec.h1_rules import TOKEN, VALUE, WRONG_BYTES, Fault, H1Limits, authority_ok, connection_tokens, split_target
from meshproxy.message.head import Headers
from meshproxy.message.reason import Reason

__all__ = ["check_partial", "check_partial_response", "check_request", "check_response", "read_trailers"]

_BAD = Reason.BAD_REQUEST

_VERSION = re.compile(rb"HTTP/[0-9]{1,3}(?:\.[0-9]{1,3})?")
_VISIBLE = re.compile(rb"[\x21-\x7e]+")
_STATUS_LINE = re.compile(rb"HTTP/(1\.[01]) ([1-9][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")
_DIGITS = re.compile(rb"[0-9]{1,18}")

_TOO_LARGE: Fault = (Reason.HEADERS_TOO_LARGE, "request_headers_too_large")
_TOO_MANY: Fault = (Reason.HEADERS_TOO_LARGE, "too_many_headers")


def check_partial(data: bytes | bytearray, start: int, limits: H1Limits) -> Fault | None:
    """Judge a head that has not ended yet, so that a wrong one is answered without waiting for an end that may never come.

    start: how far an earlier call has looked. Bytes and size are judged in the order in which they arrive, so the answer does
    not depend on how the head was cut into reads.
    """
    if start == 0 and data[:1] and (data[0] <= 0x20 or data[0] >= 0x7F) and data[0] != 0x0D:
        return _BAD, "http1.invalid_start"  # a TLS client hello, for one
    if WRONG_BYTES.search(data, start - 1 if start else 0, limits.head):
        return _BAD, "http1.invalid_characters"
    if len(data) > limits.head:
        return _TOO_LARGE
    return None


def _lines(head: bytes) -> list[bytes]:
    return head[:-4].split(b"\r\n")


def _read_fields(lines: list[bytes]) -> Headers | Fault:
    """Header lines as (lower-case name, trimmed value); a Fault for the first that is not one."""
    fields = []
    for line in lines:
        if line[:1] in (b" ", b"\t"):
            return _BAD, "http1.obs_fold"  # RFC 9112 section 5.2
        name, colon, value = line.partition(b":")
        if not colon or TOKEN.fullmatch(name) is None:  # takes empty names and space before the colon too
            return _BAD, "http1.invalid_header_name"
        value = value.strip(b" \t")
        if VALUE.fullmatch(value) is None:
            return _BAD, "http1.invalid_header_value"
        fields.append((name.lower(), value))
    return fields


def _check_framing(fields: Headers, version: bytes) -> Fault | None:
    """Content-Length and Transfer-Encoding (RFC 9112 section 6): each at most once, never both, nothing but ``chunked``."""
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    if lengths and codings:
        return _BAD, "http1.content_length_and_transfer_encoding"
    if codings:
        if version == b"1.0":
            return _BAD, "http1.transfer_encoding_on_http_1_0"
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            return Reason.NOT_IMPLEMENTED, "http1.invalid_transfer_encoding"
    if lengths and (len(lengths) > 1 or _DIGITS.fullmatch(lengths[0]) is None):
        return _BAD, "http1.invalid_content_length"
    options = [value for name, value in fields if name == b"connection"]
    if options and connection_tokens(options) is None:
        return _BAD, "http1.connection_header_rejected"
    return None


def check_request(head: bytes, limits: H1Limits) -> Fault | None:
    """Judge a whole request head (its empty line included)."""
    fault = check_partial(head, 0, limits)
    if fault is not None:
        return fault
    lines = _lines(head)
    parts = lines[0].split(b" ")
    if len(parts) != 3 or TOKEN.fullmatch(parts[0]) is None or _VISIBLE.fullmatch(parts[1]) is None:
        return _BAD, "http1.invalid_request_line"
    method, target, protocol = parts
    if _VERSION.fullmatch(protocol) is None:
        return _BAD, "http1.invalid_request_line"
    if protocol not in (b"HTTP/1.1", b"HTTP/1.0"):
        return Reason.VERSION_NOT_SUPPORTED, "http1.version_not_supported"
    version = protocol[5:]
    if len(lines) - 1 > limits.headers:
        return _TOO_MANY
    fields = _read_fields(lines[1:])
    if isinstance(fields, tuple):
        return fields
    start = split_target(method, target)
    if start is None:
        return _BAD, "http1.invalid_url"
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) > 1 or (not hosts and version == b"1.1"):  # RFC 9112 section 3.2
        return _BAD, "http1.missing_or_repeated_host"
    if hosts and not authority_ok(hosts[0]):
        return _BAD, "http1.invalid_authority"
    fault = _check_framing(fields, version)
    if fault is not None:
        return fault
    if method == b"CONNECT" and any(name in (b"content-length", b"transfer-encoding") for name, _ in fields):
        return _BAD, "http1.connect_with_body"  # RFC 9110 section 9.3.6
    return None


def check_partial_response(data: bytes | bytearray, start: int, limits: H1Limits) -> Fault | None:
    """``check_partial`` for a response: one that does not begin as HTTP (an SSH banner, for one) may never end."""
    if start < 5 and data[:5] != b"HTTP/"[: len(data)]:
        return _BAD, "http1.invalid_status_line"
    return check_partial(data, start, limits)


def check_response(head: bytes, limits: H1Limits) -> Fault | None:
    """Judge a whole response head (its empty line included). HEADERS_TOO_LARGE stands for its size only, not for the count."""
    fault = check_partial_response(head, 0, limits)
    if fault is not None:
        return fault
    lines = _lines(head)
    match = _STATUS_LINE.fullmatch(lines[0])
    if match is None:
        return _BAD, "http1.invalid_status_line"
    if len(lines) - 1 > limits.headers:
        return _BAD, "http1.too_many_headers"
    fields = _read_fields(lines[1:])
    if isinstance(fields, tuple):
        return fields
    fault = _check_framing(fields, match[1])
    if fault is not None:
        return fault
    status = int(match[2])
    if status < 200 or status == 204:  # RFC 9112 section 6.1, RFC 9110 section 8.6; Envoy refuses both too
        for name, value in fields:
            if name == b"transfer-encoding":
                return _BAD, "http1.transfer_encoding_not_allowed"
            if name == b"content-length" and int(value):
                return _BAD, "http1.content_length_not_allowed"
    return None


def read_trailers(block: bytes, limits: H1Limits) -> Headers | Fault:
    """Trailer lines (``block`` ends with the empty line's CRLF; just CRLF when there are none), by the rules of headers."""
    if block == b"\r\n":
        return []
    if len(block) > limits.head:
        return _TOO_LARGE
    if WRONG_BYTES.search(block):
        return _BAD, "http1.invalid_characters"
    lines = _lines(block)
    if len(lines) > limits.headers:
        return _TOO_MANY
    return _read_fields(lines)
