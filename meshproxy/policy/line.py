"""Room: policy. A line of the access log in one function, written for its format: ``policy.format``'s text of a record, quicker.

In: a format text. Out: a function from ``ExchangeRecord`` to bytes, byte for byte what ``policy.format.compile`` makes. Hot:
every request that is logged pays for it (benchmarks/micro_telemetry.py "access log line"). Three things make it quick:

- no call per operator: the function's source is put together from the expressions of this file. Nothing of a user's format
  becomes source; its literals go into a template, its names are constants beside it.
- the headers that the format asks for are found in one pass.
- neighbours that say the same for many requests (how it ended; which endpoint; which connection) are remembered together, by what
  they are made of. What is remembered is bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from meshproxy.message.record import ExchangeRecord
from meshproxy.model.texts import Operator
from meshproxy.policy.format import Formatter, fill_in, find, operator, parts_of
from meshproxy.policy.jwt_places import without_params

__all__ = ["compile_line"]

_REMEMBERED = 1024  # texts per group of neighbours
_FEW = 2  # headers that are looked for one by one; more are found in one pass

_INTEGERS = {
    "BYTES_RECEIVED": "record.body_received",
    "BYTES_SENT": "record.body_sent",
    "DOWNSTREAM_HEADER_BYTES_RECEIVED": "record.request_size - record.body_received",
    "DOWNSTREAM_HEADER_BYTES_SENT": "record.response_size - record.body_sent",
    "DOWNSTREAM_WIRE_BYTES_RECEIVED": "record.request_size",
    "DOWNSTREAM_WIRE_BYTES_SENT": "record.response_size",
    "DURATION": "int((record.ended - record.started) * 1000 + 1e-6)",  # format._milliseconds
    "REQUEST_HEADERS_BYTES": "record.request_size - record.body_received",
    "RESPONSE_CODE": "record.status",
    "RESPONSE_HEADERS_BYTES": "record.response_size - record.body_sent",
    "UPSTREAM_REQUEST_ATTEMPT_COUNT": "record.attempts",
}
_ENDPOINT = "None if record.endpoint is None else (record.endpoint.address, record.endpoint.port)"
# Operator -> what its value is made of, by what these change with: neighbours of one kind are remembered together, neighbours of
# two kinds are not, or there would be a text for every connection of a client with every one to an endpoint.
_MADE_OF: dict[str, dict[str, str]] = {
    "the end": {
        "CONNECTION_TERMINATION_DETAILS": "record.termination",
        "PROTOCOL": "record.protocol",
        "RESPONSE_CODE": "record.status",
        "RESPONSE_CODE_DETAILS": "record.detail",
        "RESPONSE_FLAGS": "record.flags",
        "RESPONSE_FLAGS_LONG": "record.flags",
        "UPSTREAM_TRANSPORT_FAILURE_REASON": "record.transport_failure",
    },
    "upstream": {
        "ROUTE_NAME": "record.route_name",
        "UPSTREAM_CLUSTER": "record.cluster_name",
        "UPSTREAM_CLUSTER_RAW": "record.cluster_name",
        **{f"UPSTREAM_{name}": _ENDPOINT for name in ("HOST", "REMOTE_ADDRESS", "REMOTE_ADDRESS_WITHOUT_PORT", "REMOTE_PORT")},
        **{f"UPSTREAM_LOCAL_{name}": "record.upstream_local" for name in ("ADDRESS", "ADDRESS_WITHOUT_PORT", "PORT")},
    },
    "downstream": {
        "REQUESTED_SERVER_NAME": "record.sni",
        **{
            f"DOWNSTREAM_{side}_{name}": f"record.downstream_{'local' if side == 'LOCAL' else 'remote'}"
            for side in ("LOCAL", "REMOTE", "DIRECT_REMOTE")
            for name in ("ADDRESS", "ADDRESS_WITHOUT_PORT", "PORT")
        },
    },
}
_KINDS = {name: kind for kind, names in _MADE_OF.items() for name in names}
_PSEUDO = {":method": "record.method", ":path": "record.path", ":authority": "record.authority", "host": "record.authority"}
_ALWAYS_THE_SAME = frozenset(("HOSTNAME",))  # goes with any neighbour

_NO_RECORD: ExchangeRecord = None  # type: ignore[assignment]  # what is always the same asks nothing of it


def compile_line(text: str, path: str = "", empty: bytes = b"-", hostname: str = "") -> Formatter:
    """``empty`` stands for a missing value, ``hostname`` for %HOSTNAME%. Raises ``policy.invalid.Invalid`` at ``path``."""
    parts = parts_of(text, path)
    writer = _Writer(parts, empty, hostname)
    for run in _runs(parts):
        writer.add(run)
    return writer.function()


def _kind(part: str | Operator) -> str:
    """ "": of no kind; of always the same: "any"."""
    if isinstance(part, str) or part.name in _ALWAYS_THE_SAME:
        return "any"
    return _KINDS.get(part.name, "")


def _runs(parts: list[str | Operator]) -> list[list[str | Operator]]:
    """Neighbours that are remembered together, with the literals between them; everything else is alone."""
    runs: list[list[str | Operator]] = []
    kind = ""
    for part in parts:
        its = _kind(part)
        if runs and its and kind and (its == kind or "any" in (its, kind)):
            runs[-1].append(part)
            kind = its if kind == "any" else kind
        else:
            runs.append([part])
            kind = its
    return runs


class _Writer:
    """Collects a function's template, statements, values and constants."""

    def __init__(self, parts: list[str | Operator], empty: bytes, hostname: str) -> None:
        self._empty = empty
        self._hostname = hostname
        self._template = b""
        self._statements: list[str] = []
        self._values: list[str] = []
        self._constants: dict[str, Any] = {"E": empty, "find": find, "without_params": without_params}
        self._seek = {"REQ": self._sought(parts, "REQ", "request"), "RESP": self._sought(parts, "RESP", "response")}

    def _sought(self, parts: list[str | Operator], name: str, of: str) -> str:
        """How one header is looked up; for many there are statements before, that find all of them."""
        wanted = {
            header.encode() for part in parts if isinstance(part, Operator) and part.name == name for header in part.headers
        }
        if len(wanted) <= _FEW:
            return f"find(record.{of}_headers, %s)"
        self._constants[f"wanted_{of}"] = frozenset(wanted)
        self._statements += [
            f"{of} = {{}}",
            f"for name, value in record.{of}_headers:",
            f"    if name in wanted_{of} and name not in {of}:",
            f"        {of}[name] = value",
            f"{of}_get = {of}.get",
        ]
        return f"{of}_get(%s)"

    def add(self, run: list[str | Operator]) -> None:
        operators = [part for part in run if isinstance(part, Operator)]
        made_of = dict.fromkeys(_MADE_OF[_KINDS[one.name]][one.name] for one in operators if one.name in _KINDS)
        if made_of and (len(operators) > 1 or operators[0].name not in _INTEGERS):
            self._remembered(run, tuple(made_of))
            return
        for part in run:
            if isinstance(part, str):
                self._template += part.replace("%", "%%").encode()
            elif part.name in _ALWAYS_THE_SAME:
                self._template += fill_in([part], self._empty, self._hostname)(_NO_RECORD).replace(b"%", b"%%")
            else:
                self._alone(part)

    def _remembered(self, run: list[str | Operator], made_of: tuple[str, ...]) -> None:
        number = len(self._values)
        self._constants[f"known_{number}"], self._constants[f"make_{number}"] = _memory(fill_in(run, self._empty, self._hostname))
        key = made_of[0] if len(made_of) == 1 else f"({', '.join(made_of)})"
        self._statements += [
            f"key = {key}",
            f"text_{number} = known_{number}(key)",
            f"if text_{number} is None:",
            f"    text_{number} = make_{number}(key, record)",
        ]
        self._value("%b", f"text_{number}")

    def _alone(self, part: Operator) -> None:
        if part.limit is None and part.name in _INTEGERS:
            self._value("%d", _INTEGERS[part.name])
            return
        number = len(self._values)
        if part.limit is None and part.headers and ":scheme" not in part.headers:
            found = [self._header(part.name, header, f"name_{number}_{place}") for place, header in enumerate(part.headers)]
        else:
            self._constants[f"read_{number}"] = operator(part, self._hostname)
            found = [f"read_{number}(record)"]
        *first, last = found
        value = (
            last.removesuffix(" or None") + " or E" if last.endswith(" or None") else f"E if (value := {last}) is None else value"
        )
        for expression in reversed(first):
            value = f"({value}) if (value := {expression}) is None else value"
        self._value("%b", f"({value})")

    def _header(self, name: str, header: str, constant: str) -> str:
        """An expression for what one header says; None: it is not there. As ``format``'s."""
        if name == "REQ" and header in _PSEUDO:
            return f"{_PSEUDO[header]} or None"
        if header == ":status":
            return 'b"%d" % record.status'
        self._constants[constant] = header.encode()
        sought = self._seek[name] % constant
        if name == "REQ" and header == "x-envoy-original-path":
            shown = "without_params(value, record.hidden_params)"
            return f"value if (value := {sought}) is None or not record.hidden_params else {shown}"
        return sought

    def _value(self, place: str, expression: str) -> None:
        self._template += place.encode()
        self._values.append(expression)

    def function(self) -> Formatter:
        """The line's function."""
        self._constants["template"] = self._template
        statements = [*self._statements, f"return template % ({''.join(f'{value}, ' for value in self._values)})"]
        source = "def line(record):\n" + "".join(f"    {line}\n" for line in statements)
        exec(compile(source, "<access log format>", "exec"), self._constants)  # of this file's texts only, see above
        return cast(Formatter, self._constants["line"])


def _memory(make: Formatter) -> tuple[Callable[[Any], bytes | None], Callable[[Any, ExchangeRecord], bytes]]:
    """(what is remembered under a key, how it is made and remembered)."""
    known: dict[Any, bytes] = {}

    def remember(key: Any, record: ExchangeRecord) -> bytes:
        if len(known) >= _REMEMBERED:
            known.clear()
        known[key] = text = make(record)
        return text

    return known.get, remember
