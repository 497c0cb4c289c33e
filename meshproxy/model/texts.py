"""The small languages inside values: Envoy's command operators, RE2's rewrite templates, and the headers nobody may edit.

In: a text. Out: its parts, or ValueError (one line, without a path). Both sides read them here: control refuses at ``apply``
what a proxy could not obey, so that one user's slip never stops everybody's configuration. The proxy compiles the parts.
"""

from __future__ import annotations

import difflib
import re
from typing import NamedTuple

__all__ = ["FRAMING_HEADERS", "OPERATORS", "Operator", "format_parts", "rewrite_parts"]

# The codec alone decides on framing and on the connection: an edit there would let two parties read two messages.
FRAMING_HEADERS = frozenset(
    ("connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")
)

OPERATORS = (
    "BYTES_RECEIVED",
    "BYTES_SENT",
    "CONNECTION_TERMINATION_DETAILS",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_PORT",
    "DOWNSTREAM_HEADER_BYTES_RECEIVED",
    "DOWNSTREAM_HEADER_BYTES_SENT",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_REMOTE_ADDRESS",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_REMOTE_PORT",
    "DOWNSTREAM_TLS_CIPHER",
    "DOWNSTREAM_TLS_VERSION",
    "DOWNSTREAM_WIRE_BYTES_RECEIVED",
    "DOWNSTREAM_WIRE_BYTES_SENT",
    "DURATION",
    "GRPC_STATUS",
    "GRPC_STATUS_NUMBER",
    "HOSTNAME",
    "PATH",
    "PROTOCOL",
    "QUERY_PARAM",
    "REQ",
    "REQUESTED_SERVER_NAME",
    "REQUEST_HEADERS_BYTES",
    "RESP",
    "RESPONSE_CODE",
    "RESPONSE_CODE_DETAILS",
    "RESPONSE_DURATION",
    "RESPONSE_FLAGS",
    "RESPONSE_FLAGS_LONG",
    "RESPONSE_HEADERS_BYTES",
    "RESPONSE_TX_DURATION",
    "ROUTE_NAME",
    "START_TIME",
    "TRACE_ID",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_CLUSTER_RAW",
    "UPSTREAM_HOST",
    "UPSTREAM_LOCAL_ADDRESS",
    "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_LOCAL_PORT",
    "UPSTREAM_LOCAL_URI_SAN",
    "UPSTREAM_PEER_FINGERPRINT_256",
    "UPSTREAM_PEER_SERIAL",
    "UPSTREAM_PEER_SUBJECT",
    "UPSTREAM_PEER_URI_SAN",
    "UPSTREAM_REMOTE_ADDRESS",
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_REMOTE_PORT",
    "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    "UPSTREAM_TLS_CIPHER",
    "UPSTREAM_TLS_VERSION",
    "UPSTREAM_TRANSPORT_FAILURE_REASON",
)

_PSEUDO = {"REQ": (":method", ":path", ":authority", ":scheme"), "RESP": (":status",)}
# Our own grammar, never a user's pattern: %NAME%, %NAME(argument)%, %NAME(argument):length%, %%.
_TOKEN = re.compile(r"%(?:%|([A-Z][A-Z0-9_]*)(?:\(([^)]*)\))?(?::(\d+))?%)")


class Operator(NamedTuple):
    """``%NAME(argument):limit%``. ``headers``: for REQ and RESP the one or two names, lower case. ``limit`` None: whole."""

    name: str
    argument: str | None
    limit: int | None
    headers: tuple[str, ...]


def format_parts(text: str) -> list[str | Operator]:
    """Literals (with ``%%`` undone) and operators in order. Source: Envoy, "Access logging: command operators"."""
    parts: list[str | Operator] = []
    position = 0
    while position < len(text):
        percent = text.find("%", position)
        if percent < 0:
            parts.append(text[position:])
            break
        if percent > position:
            parts.append(text[position:percent])
        match = _TOKEN.match(text, percent)
        if match is None:
            where = text[percent : percent + 20]
            raise ValueError(
                f"a percent sign must be doubled (%%) or delimit an operator such as %PROTOCOL%, not as in {where!r}"
            )
        position = match.end()
        name, argument, limit = match.groups()
        if name is None:
            parts.append("%")
        else:
            parts.append(Operator(name, argument, int(limit) if limit else None, _headers(name, argument)))
    return parts


def _headers(name: str, argument: str | None) -> tuple[str, ...]:
    if name not in OPERATORS:
        near = difflib.get_close_matches(name, OPERATORS, 1)
        hint = f"; did you mean %{near[0]}%?" if near else "; a literal percent sign is written %%"
        raise ValueError(f"unknown or unsupported operator %{name}%{hint}")
    if name not in _PSEUDO:
        _argument(name, argument)
        return ()
    names = tuple(part.strip().lower() for part in (argument or "").split("?"))
    if len(names) > 2 or not all(names):
        raise ValueError(f"%{name}(...)% needs one header name, or two joined by a question mark")
    for one in names:
        if one.startswith(":") and one not in _PSEUDO[name]:
            raise ValueError(f"%{name}({one})%: no such pseudo header: use {', '.join(_PSEUDO[name])}")
    return names


# What stands in the parentheses of GRPC_STATUS and PATH.
_FORMS = {"GRPC_STATUS": ("CAMEL_STRING", "SNAKE_STRING", "NUMBER"), "PATH": ("WQ", "NQ", "ORIG", "PATH", "ORIG_OR_PATH")}


def _argument(name: str, argument: str | None) -> None:
    if name == "QUERY_PARAM":
        if not argument:
            raise ValueError("%QUERY_PARAM(...)% needs the name of a query parameter")
    elif name in _FORMS:
        for part in argument.split(":") if argument is not None else ():
            if part not in _FORMS[name]:
                raise ValueError(f"%{name}({argument})%: must be one of {', '.join(_FORMS[name])}, not {part!r}")
    elif argument is not None and name != "START_TIME":
        raise ValueError(f"%{name}% takes no argument")


def rewrite_parts(text: str, groups: int) -> list[str | int]:
    r"""``/x/\1`` as literals and group numbers; ``\0`` is the whole match, ``\\`` a backslash. ``groups``: how many there are."""
    parts: list[str | int] = []
    literal = ""
    index = 0
    while index < len(text):
        char = text[index]
        if char != "\\":
            literal += char
            index += 1
            continue
        follower = text[index + 1 : index + 2]
        if follower == "\\":
            literal += "\\"
        elif follower.isdigit() and follower.isascii():
            if int(follower) > groups:
                raise ValueError(f"\\{follower} names a group that the regex does not have ({groups} in all)")
            parts += [literal, int(follower)]
            literal = ""
        else:
            raise ValueError(f"a backslash must be followed by a digit or a backslash, not {follower!r}")
        index += 2
    return [*parts, literal]
