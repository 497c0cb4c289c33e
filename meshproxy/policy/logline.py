"""Room: policy. Istio's default access log line, read back: the other way round from ``format.ISTIO_DEFAULT``.

In: a line. Out: an object with the keys and types of Istio's JSON access log (``telemetry.accesslog.JSON_FIELDS``), or None when
the line is something else. The format escapes nothing, so that a caller could put quotes into what he says of himself: fields
that only the proxy writes are found from both ends, and what is doubtful stays in the user agent. Linear in the line.
"""

from __future__ import annotations

import re

__all__ = ["FIELDS", "parse"]

FIELDS = (
    *("start_time", "method", "path", "protocol", "response_code", "response_flags", "response_code_details"),
    *("connection_termination_details", "upstream_transport_failure_reason", "bytes_received", "bytes_sent", "duration"),
    *("upstream_service_time", "x_forwarded_for", "user_agent", "request_id", "authority", "upstream_host", "upstream_cluster"),
    *("upstream_local_address", "downstream_local_address", "downstream_remote_address", "requested_server_name", "route_name"),
)
_HEAD = re.compile(r'\[([^\]\s]*)\] "(\S*) (\S*) (HTTP/[0-9.]+|-)" ([0-9]+) ([A-Z,]+|-) (\S+) (\S+) "')
_NUMBERS = re.compile(r'" ([0-9]+) ([0-9]+) ([0-9]+) (\S+) "')
_INTEGERS = frozenset(("response_code", "bytes_received", "bytes_sent", "duration"))


def parse(line: str) -> dict[str, str | int | None] | None:
    """``-`` is None, as in JSON."""
    line = line.rstrip("\r\n")
    head = _HEAD.match(line)
    numbers = _NUMBERS.search(line, head.end() - 1) if head is not None else None
    if head is None or numbers is None:
        return None
    quoted, mark, rest = line[numbers.end() :].rpartition('" ')
    words = rest.split(" ", 5)
    texts = quoted.split('" "')
    if not mark or len(words) != 6 or len(texts) < 5:
        return None
    failure = line[head.end() : numbers.start()]
    agent = '" "'.join(texts[1:-3])
    found = (*head.groups(), failure, *numbers.groups(), texts[0], agent, *texts[-3:], *words)
    return {name: _value(name, text) for name, text in zip(FIELDS, found, strict=True)}


def _value(name: str, text: str) -> str | int | None:
    if text == "-":
        return None
    return int(text) if name in _INTEGERS else text
