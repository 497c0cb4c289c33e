"""Room 3, codec: heads that ``h1_head`` declined and ``h1_guard`` let through, parsed by h11 (the only file that calls it).

In: the bytes of one whole, checked head. Out: a RequestHead or ResponseHead in the same form as ``h1_head``'s, or a Fault when
h11 refuses after all. HTTP/1.0, Expect, Upgrade, CONNECT, TE and 1xx come this way; about 100 us each.
"""

from __future__ import annotations

import h11

from meshproxy.codec.h1_rules import BODYLESS, Fault, connection_tokens, nominates, split_target
from meshproxy.message.head import CHUNKED, UNTIL_CLOSE, Headers, RequestHead, ResponseHead
from meshproxy.message.reason import Reason

__all__ = ["read_request", "read_response"]

_LARGE = 1 << 20  # h11's own bound on an incomplete head; the guard's is stricter


def read_request(head: bytes) -> RequestHead | Fault:
    """A checked request head through h11."""
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=_LARGE)
    try:
        parser.receive_data(head)
        event = parser.next_event()
    except h11.RemoteProtocolError as error:
        return Reason.BAD_REQUEST, f"http1.codec_error: {error}"
    if not isinstance(event, h11.Request):
        return Reason.BAD_REQUEST, "http1.codec_error"
    return _request(bytes(event.method), bytes(event.target), bytes(event.http_version), _pairs(event.headers))


def _pairs(headers: h11._headers.Headers) -> Headers:
    return [(bytes(name), bytes(value)) for name, value in headers]


def _request(method: bytes, target: bytes, version: bytes, pairs: Headers) -> RequestHead | Fault:
    start = split_target(method, target)
    tokens = connection_tokens([value for name, value in pairs if name == b"connection"])
    if start is None or tokens is None:
        return Reason.BAD_REQUEST, "http1.codec_error"
    _, path, scheme, authority, absolute = start
    modern = version != b"1.0"
    length = 0
    upgrade = b""
    expect = te_trailers = False
    drop = nominates(tokens)
    headers = []
    for name, value in pairs:
        if name == b"host":
            if not absolute and method != b"CONNECT":
                authority = value
            continue
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            length = CHUNKED
        elif name == b"te":
            te_trailers = te_trailers or _wants_trailers(value)
        elif name == b"upgrade":
            if not upgrade:
                upgrade = value
        elif name == b"expect":
            if not modern:  # RFC 9110 section 10.1.1: ignored from a 1.0 client
                continue
            expect = expect or value.lower() == b"100-continue"
        elif name == b"http2-settings":
            continue  # belongs to h2c, which is never upgraded to here
        if name not in drop:
            headers.append((name, value))
    if not modern or b"upgrade" not in tokens or _names_h2c(upgrade):
        upgrade = b""
    close = b"close" in tokens or (not modern and b"keep-alive" not in tokens)
    return RequestHead(
        method, path, authority, headers, length, 11 if modern else 10, scheme, absolute, upgrade, expect, close, te_trailers
    )


def _wants_trailers(value: bytes) -> bool:
    return any(part.partition(b";")[0].strip(b" \t").lower() == b"trailers" for part in value.split(b","))


def _names_h2c(upgrade: bytes) -> bool:
    """h2c through a proxy that only copies bytes would hide every later request from policy (request tunnelling)."""
    return any(part.strip(b" \t").lower() in (b"h2c", b"h2") for part in upgrade.split(b","))


def read_response(head: bytes, method: bytes) -> ResponseHead | Fault:
    """A checked response head through h11. method: of the request it answers. A 1xx comes back as a head with that status."""
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LARGE)
    # h11 wants to have sent the request itself; a stand-in with an upgrade allows it to see a 101.
    ask = [(b"host", b"x"), (b"connection", b"upgrade"), (b"upgrade", b"x")]
    parser.send(h11.Request(method=method or b"GET", target=b"x:1" if method == b"CONNECT" else b"/", headers=ask))
    parser.send(h11.EndOfMessage())
    try:
        parser.receive_data(head)
        event = parser.next_event()
    except h11.RemoteProtocolError as error:
        return Reason.BAD_REQUEST, f"http1.codec_error: {error}"
    if not isinstance(event, h11.Response | h11.InformationalResponse):
        return Reason.BAD_REQUEST, "http1.codec_error"
    return _response(event.status_code, bytes(event.reason), bytes(event.http_version), _pairs(event.headers), method)


def _response(status: int, phrase: bytes, version: bytes, pairs: Headers, method: bytes) -> ResponseHead | Fault:
    tokens = connection_tokens([value for name, value in pairs if name == b"connection"])
    if tokens is None:
        return Reason.BAD_REQUEST, "http1.codec_error"
    modern = version != b"1.0"
    length = UNTIL_CLOSE
    upgrade = b""
    drop = nominates(tokens)
    headers = []
    for name, value in pairs:
        if name == b"content-length":
            length = int(value)
            if status < 200 or status == 204:
                continue  # guard let a zero pass; it may not be sent on (RFC 9110 section 8.6)
        elif name == b"transfer-encoding":
            length = CHUNKED
        elif name == b"upgrade":
            upgrade = value
        if name not in drop:
            headers.append((name, value))
    if status < 200 or status in BODYLESS or method == b"HEAD":
        length = 0
    elif method == b"CONNECT" and status < 300:
        length = 0  # a tunnel follows; RFC 9110 section 9.3.6 has Content-Length and Transfer-Encoding ignored
        headers = [pair for pair in headers if pair[0] != b"content-length"]
    close = b"close" in tokens or (not modern and b"keep-alive" not in tokens)
    return ResponseHead(status, headers, length, phrase, 11 if modern else 10, upgrade if status == 101 else b"", close)
