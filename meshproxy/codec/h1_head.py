"""Room 3, codec: the quick reading of HTTP/1 heads. Bytes in, a head and its length out, or None.

None means *declined*: incomplete, unusual or wrong, which is not for this file to tell apart. It never refuses; ``h1_guard``
owns that. What it accepts, guard and h11 accept with an equal result (tests/codec/test_oracle.py holds it to that).

How it is quick: most header lines of a mesh come again and again (host, user-agent, accept, content-type, server, ...). A line
that was once read and found good is kept, bounded, as bytes -> (name, value); the next time it is one dictionary lookup. Lines
that may hold secrets, are always new, or are long are never kept.

Lines are cut at LF, which is one byte to look for instead of two, and so carry their CR; a line without one is not taken.
"""

from __future__ import annotations

import re

from meshproxy.codec.h1_rules import TOKEN, VALUE, Start, authority_ok, split_target
from meshproxy.message.head import CHUNKED, UNTIL_CLOSE, Headers, RequestHead, ResponseHead

__all__ = ["recognise_request", "recognise_response"]

_LINE_MAX = 256  # bytes; a longer line is read afresh each time
_LINES_MAX = 4096  # lines kept; when it is full, all go (a flood of new lines costs speed, not memory)
_STARTS_MAX = 1024
_READ_MAX = 2048  # bytes of a read that is taken for one head
_NAMES_MAX = 1024

# What a line means to the framing. PLAIN lines travel; the others are taken up here or make us decline.
_PLAIN, _HOST, _LENGTH, _CODING, _CONNECTION, _DROP, _DECLINE = range(7)

_Line = tuple[int, tuple[bytes, bytes], int]  # meaning, (name, value), number (content length, or 1 for close)

_MEANING = {
    b"host": _HOST,
    b"content-length": _LENGTH,
    b"transfer-encoding": _CODING,
    b"connection": _CONNECTION,
    b"keep-alive": _DROP,
    b"proxy-connection": _DROP,
    b"upgrade": _DECLINE,
    b"http2-settings": _DECLINE,
    b"te": _DECLINE,
    b"expect": _DECLINE,
}

# Names whose values must not outlive their message, and names whose values hardly ever repeat.
_PRIVATE = re.compile(rb"auth|cookie|token|secret|passw|session|api-?key|credential|signature|jwt|client-cert")
_FRESH = frozenset(
    (
        b"x-request-id",
        b"traceparent",
        b"tracestate",
        b"x-b3-traceid",
        b"x-b3-spanid",
        b"x-b3-parentspanid",
        b"b3",
        b"x-ot-span-context",
        b"x-cloud-trace-context",
        b"grpc-trace-bin",
        b"x-correlation-id",
        b"etag",
        b"if-none-match",
        b"location",
        b"referer",
    )
)

_plain: dict[bytes, tuple[bytes, bytes]] = {}
_special: dict[bytes, _Line] = {}
_names: dict[bytes, tuple[bytes, int, bool]] = {}  # name as given -> lower case, meaning, may be kept
_unkept: dict[bytes, bytes] = {}  # of these, the plain ones that are not kept -> lower case
_requests: dict[bytes, Start] = {}
_statuses: dict[bytes, tuple[int, bytes]] = {}

_plain_get = _plain.get  # bound once: these run for every header line (micro_codec: recognise)
_special_get = _special.get
_names_get = _names.get
_unkept_get = _unkept.get
_requests_get = _requests.get
_statuses_get = _statuses.get

_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e]+) HTTP/1\.1\r")
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([2-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?\r")
_DIGITS = re.compile(rb"[0-9]{1,18}")
# With letters and digits, what ids, tokens and credentials are made of; all are legal in a value.
_SOFT = b"-._~+/= ,;:\"'()*?&%@!$"
_BLANK = 32


def _learn_name(raw: bytes) -> tuple[bytes, int, bool] | None:
    if TOKEN.fullmatch(raw) is None:
        return None
    name = raw.lower()
    known = (name, _MEANING.get(name, _PLAIN), name not in _FRESH and _PRIVATE.search(name) is None)
    if len(raw) <= 64:
        if len(_names) >= _NAMES_MAX:
            _names.clear()
            _unkept.clear()
        _names[raw] = known
        if known[1] == _PLAIN and not known[2]:
            _unkept[raw] = name
    return known


def _learn(line: bytes) -> _Line | None:
    """Read one header line, its CR included, that is not kept (yet). None: not a line this file takes."""
    raw, colon, value = line.partition(b":")
    known = _names_get(raw) or _learn_name(raw)
    if known is None or not colon or value[-1:] != b"\r":
        return None
    name, meaning, keep = known
    value = value[:-1].strip(b" \t")  # RFC 9112 section 5.1
    if VALUE.fullmatch(value) is None:
        return None
    pair = (name, value)
    if meaning == _PLAIN:
        if keep and len(line) <= _LINE_MAX:
            if len(_plain) >= _LINES_MAX:
                _plain.clear()
            _plain[line] = pair
        return _PLAIN, pair, 0
    number = 0
    if meaning == _HOST:
        if not authority_ok(value):
            return None
    elif meaning == _LENGTH:
        if _DIGITS.fullmatch(value) is None:
            return None
        number = int(value)
    elif meaning == _CODING:
        if value.lower() != b"chunked":
            return None
    elif meaning == _CONNECTION:
        option = value.lower()
        if option == b"close":
            number = 1
        elif option != b"keep-alive":
            return None
    elif meaning == _DECLINE:
        return None
    read = (meaning, pair, number)
    if len(line) <= _LINE_MAX:
        if len(_special) >= _LINES_MAX:
            _special.clear()
        _special[line] = read
    return read


def _learn_request(line: bytes) -> Start | None:
    match = _REQUEST_LINE.fullmatch(line)
    if match is None or match[1] == b"CONNECT":
        return None
    start = split_target(match[1], match[2])
    if start is not None and len(line) <= _LINE_MAX and b"?" not in line:  # a query is seldom the same, and may be private
        if len(_requests) >= _STARTS_MAX:
            _requests.clear()
        _requests[line] = start
    return start


def _learn_status(line: bytes) -> tuple[int, bytes] | None:
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        return None
    start = int(match[1]), match[2] or b""
    if len(line) <= _LINE_MAX:
        if len(_statuses) >= _STARTS_MAX:
            _statuses.clear()
        _statuses[line] = start
    return start


def recognise_request(data: bytes, head_max: int, count_max: int) -> tuple[RequestHead, int] | None:
    """A plain HTTP/1.1 request head at the start of ``data`` and where it ends; None when declined.

    head_max: bytes of head with its empty line; count_max: header lines.
    """
    head = data
    # Mostly the read is the head, and looking for its end can be spared. Not in a long read: many pipelined heads would each
    # have all that follow cut into lines.
    if len(data) > _READ_MAX or not data.endswith(b"\r\n\r\n"):
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = data[: end + 4]
    size = len(head)
    lines = head.split(b"\n")
    if size > head_max or len(lines) > count_max + 3:
        return _behind(data, size, head_max, count_max)
    line = lines[0]
    start = _requests_get(line) or _learn_request(line)
    if start is None:
        return None
    method, target, scheme, authority, absolute = start
    host = None
    length: int | None = None
    close = False
    headers: Headers = []
    append = headers.append
    for line in lines[1:-2]:
        pair = _plain_get(line)
        if pair is not None:
            append(pair)
            continue
        read = _special_get(line)
        if read is None:
            raw, _, value = line.partition(b": ")
            name = _unkept_get(raw)  # ids, tokens: new each time or not to be kept, but of plain characters
            if name is not None and value[-1:] == b"\r":
                value = value[:-1]
                if value.translate(None, _SOFT).isalnum() and value[0] != _BLANK != value[-1]:
                    append((name, value))
                    continue
            read = _learn(line)
            if read is None:
                return _behind(data, size, head_max, count_max)
        meaning, pair, number = read
        if meaning == _HOST:
            if host is not None:
                return None
            host = pair[1]
        elif meaning == _PLAIN:
            append(pair)
        elif meaning == _LENGTH:
            if length is not None:
                return None
            length = number
            append(pair)
        elif meaning == _CODING:
            if length is not None:
                return None
            length = CHUNKED
        elif meaning == _CONNECTION and number:
            close = True
    if host is None:
        return None
    return RequestHead(
        method, target, authority if absolute else host, headers, length or 0, 11, scheme, absolute, b"", False, close, False
    ), size


def _behind(data: bytes, size: int, head_max: int, count_max: int) -> tuple[RequestHead, int] | None:
    """A read that ends like a head may hold several (pipelined): then the first is read by itself."""
    end = data.find(b"\r\n\r\n") + 4
    return recognise_request(data[:end], head_max, count_max) if end < size else None


def recognise_response(data: bytes, method: bytes, head_max: int, count_max: int) -> tuple[ResponseHead, int] | None:
    """A plain, final HTTP/1.1 response head at the start of ``data`` and where it ends; None when declined.

    method: of the request it answers (HEAD has no body; CONNECT is declined).
    """
    end = data.find(b"\r\n\r\n") + 4
    if end < 4 or end > head_max:
        return None
    lines = data[:end].split(b"\n")
    if len(lines) > count_max + 3:
        return None
    line = lines[0]
    start = _statuses_get(line) or _learn_status(line)
    if start is None:
        return None
    status, phrase = start
    length: int | None = None
    close = False
    headers: Headers = []
    append = headers.append
    for line in lines[1:-2]:
        pair = _plain_get(line)
        if pair is not None:
            append(pair)
            continue
        read = _special_get(line) or _learn(line)
        if read is None:
            return None
        meaning, pair, number = read
        if meaning == _PLAIN:
            append(pair)
        elif meaning == _LENGTH:
            if length is not None:
                return None
            length = number
            append(pair)
        elif meaning == _CODING:
            if length is not None:
                return None
            length = CHUNKED
        elif meaning == _CONNECTION:
            if number:
                close = True
        elif meaning == _HOST:
            return None
    # RFC 9112 section 6.3, rules 1 and 2: no body whatever the headers say
    if status == 204:
        if length is not None:
            return None
        length = 0
    elif status == 304 or method == b"HEAD":
        length = 0
    elif method == b"CONNECT":
        return None
    elif length is None:
        length = UNTIL_CLOSE
    return ResponseHead(status, headers, length, phrase, 11, b"", close), end
