"""The part of CEL that Telemetry resources may use: filters of access logs, and values of metric tags.

Room: control/resources. In: an expression. Out: the model's ``LogFilter``, or a text in Envoy's command operators; ``ValueError``
(one line) for everything else of CEL, so that nobody believes in a filter that does nothing. As in CEL, a comparison with a
header that is not there is never true, whatever the operator.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from control.resources.values import parse_duration, quote
from meshproxy.model.telemetry import LogCondition, LogFilter

__all__ = ["log_filter", "tag_value"]

MAX_EXPRESSION = 4096
MAX_CLAUSES = 64
MAX_DEPTH = 32

_TOKEN = re.compile(
    r"""\s*(?:("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(\d+(?:\.\d+)?)|([A-Za-z_]\w*)|(&&|\|\||[=!<>]=|[!<>()\[\],.+]))"""
)
_NUMBERS = {"response.code": "status", "request.duration": "duration", "response.duration": "duration"}
_TEXTS = {
    "request.method": "method",
    "request.path": "path",
    "request.url_path": "url_path",
    "request.host": "authority",
    "request.protocol": "protocol",
    "request.useragent": "header:user-agent",
    "request.referer": "header:referer",
    "request.id": "header:x-request-id",
}
_FUNCTIONS = {"startsWith": "prefix", "endsWith": "suffix", "contains": "contains"}
_OPPOSITES = (
    *(("==", "!="), ("<", ">="), (">", "<="), ("present", "absent")),
    *(("prefix", "not-prefix"), ("suffix", "not-suffix"), ("contains", "not-contains")),
)
_NEGATED = dict(_OPPOSITES) | {after: before for before, after in _OPPOSITES}
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_CAN = (
    "use response.code, response.flags, request.duration, request.method, request.path, request.host, request.protocol, "
    "request.useragent or request.headers['name']"
)

# What has an operator of Envoy's that says the same.
_OPERATORS = {
    "connection.requested_server_name": "REQUESTED_SERVER_NAME",
    "connection.tls_version": "DOWNSTREAM_TLS_VERSION",
    "connection.uri_san_local_certificate": "DOWNSTREAM_LOCAL_URI_SAN",
    "connection.uri_san_peer_certificate": "DOWNSTREAM_PEER_URI_SAN",
    "destination.address": "DOWNSTREAM_LOCAL_ADDRESS",
    "destination.port": "DOWNSTREAM_LOCAL_PORT",
    "request.host": "REQ(:AUTHORITY)",
    "request.id": "REQ(X-REQUEST-ID)",
    "request.method": "REQ(:METHOD)",
    "request.path": "REQ(:PATH)",
    "request.protocol": "PROTOCOL",
    "request.referer": "REQ(REFERER)",
    "request.scheme": "REQ(:SCHEME)",
    "request.useragent": "REQ(USER-AGENT)",
    "response.code": "RESPONSE_CODE",
    "response.code_details": "RESPONSE_CODE_DETAILS",
    "source.address": "DOWNSTREAM_REMOTE_ADDRESS",
    "source.port": "DOWNSTREAM_REMOTE_PORT",
    "upstream.address": "UPSTREAM_HOST",
    "xds.cluster_name": "UPSTREAM_CLUSTER",
    "xds.route_name": "ROUTE_NAME",
}
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$&'*+.^_`|~-]+")


class _Condition(NamedTuple):
    field: str
    op: str
    value: str = ""


class _Both(NamedTuple):
    """``all_of``: every part must hold; otherwise any."""

    all_of: bool
    parts: tuple[_Condition | _Both, ...]


class _Token(NamedTuple):
    kind: Literal["text", "number", "name", "sign", "end"]
    text: str
    at: int


class _Operand(NamedTuple):
    """An attribute (``field``), or a literal (``value``)."""

    field: str = ""
    value: str | None = None
    number: bool = False


def log_filter(expression: str) -> LogFilter:
    """What an access log's ``filter.expression`` says."""
    return LogFilter(any_of=_clauses(_Parser(expression).whole()))


def tag_value(expression: str) -> str:
    """A tag's value as text with command operators: literals and attributes, joined by ``+``."""
    return _Parser(expression).value()


def _tokens(text: str) -> list[_Token]:
    if len(text) > MAX_EXPRESSION:
        raise ValueError(f"is longer than {MAX_EXPRESSION} characters")
    found, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"cannot be read from {quote(text[at:].strip(), 30)} on")
        kinds: tuple[Literal["text", "number", "name", "sign"], ...] = ("text", "number", "name", "sign")
        group = match.lastindex or 1
        kind, word = kinds[group - 1], match[group]
        found.append(_Token(kind, re.sub(r"\\(.)", r"\1", word[1:-1]) if kind == "text" else word, match.start(group)))
        at = match.end()
    return [*found, _Token("end", "", len(text))]


class _Parser:
    def __init__(self, text: str) -> None:
        if not text.strip():
            raise ValueError("must not be empty")
        self._text = text
        self._tokens = _tokens(text)
        self._at = 0
        self._depth = 0

    # -- filters ---------------------------------------------------------------------------------------------------------

    def whole(self) -> _Condition | _Both:
        found = self._any()
        self._end()
        return found

    def _any(self) -> _Condition | _Both:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError(f"is nested more than {MAX_DEPTH} deep")
        parts = [self._all()]
        while self._take("||"):
            parts.append(self._all())
        self._depth -= 1
        return parts[0] if len(parts) == 1 else _Both(False, tuple(parts))

    def _all(self) -> _Condition | _Both:
        parts = [self._one()]
        while self._take("&&"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else _Both(True, tuple(parts))

    def _one(self) -> _Condition | _Both:
        if self._take("!"):
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise ValueError(f"is nested more than {MAX_DEPTH} deep")
            found = _negated(self._one())
            self._depth -= 1
            return found
        if self._take("("):
            found = self._any()
            self._want(")")
            return found
        if self._name() == "has" and self._peek(1).text == "(":
            self._at += 2
            operand = self._operand()
            self._want(")")
            if not operand.field.startswith("header:"):
                raise ValueError("has(...) is for request.headers['name'] only: all other attributes are always there")
            return _Condition(operand.field, "present")
        return self._comparison()

    def _comparison(self) -> _Condition | _Both:
        left = self._operand()
        if left.field and self._take("."):
            name = self._next()
            op = _FUNCTIONS.get(name.text)
            if op is None or name.kind != "name":
                raise ValueError(f"function {quote(name.text)} cannot be used: use startsWith, endsWith or contains")
            self._want("(")
            argument = self._operand()
            self._want(")")
            if argument.value is None or argument.number or left.field in ("status", "duration", "flags"):
                raise ValueError(f"{name.text} needs an attribute that is text, and a text in quotes")
            return _compare(left.field, op, argument.value)
        if self._name() == "in":
            return self._in(left)
        sign = self._next()
        if sign.text not in ("==", "!=", "<", "<=", ">", ">="):
            where = f"not {quote(sign.text)}" if sign.text else "but it ends"
            raise ValueError(f"an attribute must be compared with ==, !=, <, <=, >, >=, in or a function, {where}")
        right, op = self._operand(), sign.text
        if left.value is not None and right.field:
            left, right, op = right, left, _FLIPPED.get(op, op)
        if not left.field or right.value is None:
            raise ValueError("a comparison must be of one attribute with one value")
        if right.number != (left.field in ("status", "duration", "flags")):
            raise ValueError(f"{quote(right.value)} is {'a number' if right.number else 'text'}, and the attribute is not")
        if not right.number and op not in ("==", "!="):
            raise ValueError(f"{op} is for numbers, not for {quote(right.value)}")
        return _compare(left.field, op, right.value)

    def _in(self, left: _Operand) -> _Condition | _Both:
        self._at += 1
        if left.value is not None and not left.number:
            if self._path() != "request.headers":
                raise ValueError("a text can only be looked for in request.headers")
            return _Condition(_header(left.value), "present")
        self._want("[")
        values = [self._operand()]
        while self._take(","):
            values.append(self._operand())
        self._want("]")
        number = left.field in ("status", "duration", "flags")
        if not left.field or any(value.value is None or value.number != number for value in values):
            raise ValueError("in needs an attribute and a list of values such as [500, 503]")
        return _Both(False, tuple(_compare(left.field, "==", value.value or "") for value in values))

    def _operand(self) -> _Operand:
        token = self._peek(0)
        if token.kind in ("text", "number"):
            self._at += 1
            return _Operand(value=token.text, number=token.kind == "number")
        if token.text == "duration" and self._peek(1).text == "(":
            self._at += 2
            given = self._next()
            if given.kind != "text":
                raise ValueError('duration(...) needs a text such as duration("1.5s")')
            self._want(")")
            return _Operand(value=f"{parse_duration(given.text) * 1000:g}", number=True)
        path = self._path()
        if path == "request.headers":
            self._want("[")
            name = self._next()
            self._want("]")
            return _Operand(_header(name.text if name.kind == "text" else ""))
        if path == "response.flags":
            return _Operand("flags")
        found = _NUMBERS.get(path) or _TEXTS.get(path)
        if found is None:
            raise ValueError(f"{quote(path)} cannot be used in a filter: {_CAN}")
        return _Operand(found)

    # -- values ----------------------------------------------------------------------------------------------------------

    def value(self) -> str:
        parts = [self._value()]
        while self._take("+"):
            parts.append(self._value())
        self._end()
        return "".join(parts)

    def _value(self) -> str:
        token = self._peek(0)
        if token.kind in ("text", "number"):
            self._at += 1
            if any(not char.isprintable() for char in token.text):
                raise ValueError("holds a control character")
            return token.text.replace("%", "%%")
        if token.text == "string" and self._peek(1).text == "(":
            self._at += 2
            found = self._value()
            self._want(")")
            return found
        path = self._path()
        if path in ("request.headers", "response.headers"):
            self._want("[")
            name = self._next()
            self._want("]")
            header = _header(name.text if name.kind == "text" else "").removeprefix("header:")
            return f"%{'REQ' if path == 'request.headers' else 'RESP'}({header.upper()})%"
        operator = _OPERATORS.get(path)
        if operator is None:
            raise ValueError(
                f"{quote(path)} cannot be used as a value: use a text in quotes, or one of {', '.join(sorted(_OPERATORS))}, "
                "request.headers['name'], response.headers['name']"
            )
        return f"%{operator}%"

    # -- tokens ----------------------------------------------------------------------------------------------------------

    def _path(self) -> str:
        """A name with its dots, without a function at its end."""
        token = self._next()
        if token.kind != "name":
            raise ValueError(
                f"an attribute is missing at {quote(self._text[token.at :], 30)}" if token.text else "ends too early"
            )
        path = token.text
        while self._peek(0).text == "." and self._peek(1).kind == "name" and self._peek(2).text != "(":
            path += f".{self._peek(1).text}"
            self._at += 2
        return path

    def _peek(self, ahead: int) -> _Token:
        return self._tokens[min(self._at + ahead, len(self._tokens) - 1)]

    def _name(self) -> str:
        token = self._peek(0)
        return token.text if token.kind == "name" else ""

    def _next(self) -> _Token:
        token = self._peek(0)
        self._at += 1
        return token

    def _take(self, sign: str) -> bool:
        token = self._peek(0)
        if token.kind != "sign" or token.text != sign:
            return False
        self._at += 1
        return True

    def _want(self, sign: str) -> None:
        if not self._take(sign):
            raise ValueError(f"{quote(sign)} is missing" + (f" before {quote(self._peek(0).text)}" if self._peek(0).text else ""))

    def _end(self) -> None:
        token = self._peek(0)
        if token.kind != "end":
            raise ValueError(f"cannot be read from {quote(self._text[token.at :], 30)} on")


def _header(name: str) -> str:
    if name in (":method", ":path", ":authority"):
        raise ValueError(f"request.headers[{name!r}] is written request.{ {':authority': 'host'}.get(name, name[1:]) }")
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError(f"{quote(name)} is not a header name" if name else "headers[...] needs a name in quotes")
    return f"header:{name.lower()}"


def _compare(field: str, op: str, value: str) -> _Condition | _Both:
    if field == "flags":
        if value != "0" or op not in ("==", "!=", ">"):
            raise ValueError("response.flags can only be compared with 0: == 0, no flag, or != 0, any flag")
        return _Condition("flags", "absent" if op == "==" else "present")
    if field == "url_path":
        if op == "prefix" and "?" not in value:
            return _Condition("path", "prefix", value)
        if op in ("==", "!="):
            found = _Both(False, (_Condition("path", "==", value), _Condition("path", "prefix", f"{value}?")))
            return found if op == "==" else _negated(found)
        raise ValueError("request.url_path goes with ==, != and startsWith; otherwise use request.path, which has the query")
    return _Condition(field, op, value)


def _negated(found: _Condition | _Both) -> _Condition | _Both:
    if isinstance(found, _Both):
        return _Both(not found.all_of, tuple(_negated(part) for part in found.parts))
    return found._replace(op=_NEGATED[found.op])


def _clauses(found: _Condition | _Both) -> tuple[tuple[LogCondition, ...], ...]:
    """As alternatives, each a list of conditions."""
    if isinstance(found, _Condition):
        one = LogCondition(field=found.field, op=found.op, value=found.value)  # type: ignore[arg-type]
        if found.field.startswith("header:") and found.op in ("!=", "not-prefix", "not-suffix", "not-contains"):
            return ((LogCondition(field=found.field, op="present"), one),)
        return ((one,),)
    parts = [_clauses(part) for part in found.parts]
    if not found.all_of:
        made = tuple(clause for part in parts for clause in part)
    else:
        made = ((),)
        for part in parts:
            made = tuple((*before, *clause) for before in made for clause in part)
            if len(made) > MAX_CLAUSES:
                break
    if len(made) > MAX_CLAUSES:
        raise ValueError(f"has more than {MAX_CLAUSES} alternatives: make it simpler, or use several logs")
    return tuple(dict.fromkeys(tuple(dict.fromkeys(clause)) for clause in made))
