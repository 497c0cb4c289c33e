"""How a tapped request reads on a terminal: one line, and its headers below it where they were asked for. Pure.

In: the ``event`` of ``control.serve.taps``, decoded. Out: text without anything that could steer a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

__all__ = ["lines", "plain", "took"]

_ARROW = {"inbound": "in ", "outbound": "out", "gateway": "gw "}


def lines(pod: str, event: Mapping[str, Any], *, width: int, wide: bool, headers: bool) -> Iterator[str]:
    """``pod``: NAMESPACE/NAME. ``width``: of the column of pods; 0: there is only one."""
    space, _, name = pod.partition("/")
    flags = ",".join(event["flags"])
    detail = event["detail"] if event["detail"] != "via_upstream" else ""
    failure = event["failure"]
    words = [
        datetime.fromtimestamp(event["time"]).strftime("%H:%M:%S.%f")[:-3],
        *([f"{name}.{space}".ljust(width)] if width else []),
        _ARROW.get(event["direction"], event["direction"]),
        f"{_source(event, space)} → {_target(event, space)}",
        f"{event['method']} {event['authority']}{event['path']}",
        str(event["status"] or "-"),
        *([flags] if flags else []),
        *([detail] if detail else []),
        *([f"({failure})"] if failure else []),
        took(event["duration_ms"]),
        {"mtls": "mTLS", "tls": "TLS", "none": "plaintext"}.get(event["mtls"], event["mtls"]),
        *([f"tries={event['tries']}"] if event["tries"] > 1 else []),
        *([f"grpc-status={event['grpc_status']}"] if event["grpc_status"] else []),
        *([f"id={event['request_id']}"] if event["request_id"] else []),
    ]
    if wide:
        words += [f"{key}={value}" for key, value in _more(event) if value not in ("", None)]
    yield plain(" ".join(words))
    if headers:
        for mark, which in ((">", "request_headers"), ("<", "response_headers")):
            yield from (plain(f"  {mark} {key}: {value}") for key, value in event[which])


def _more(event: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "cluster", event["cluster"]
    yield "route", event["route"].replace(" ", "_")
    yield "service", event["destination_service"]
    yield "from", event["source_principal"] or event["source_address"]
    yield "to", event["destination_principal"]
    yield "protocol", event["protocol"]
    yield "upstream", None if event["upstream_ms"] is None else took(event["upstream_ms"])
    yield "received", f"{event['bytes_received']}B"
    yield "sent", f"{event['bytes_sent']}B"
    yield "trace", event["trace_id"]


def _source(event: Mapping[str, Any], space: str) -> str:
    return _short(event["source"], space) or event["source_address"].rpartition(":")[0] or "unknown"


def _target(event: Mapping[str, Any], space: str) -> str:
    """Who answered, or who should have."""
    who = _short(event["destination"], space) or event["destination_service"] or event["cluster"]
    return " ".join(part for part in (who, event["endpoint"]) if part) or "nobody"


def _short(name: str, space: str) -> str:
    """A workload, without the namespace that is the pod's own."""
    return name.removesuffix(f".{space}")


def took(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.2f}s" if milliseconds >= 10_000 else f"{milliseconds:.1f}ms"


def plain(text: str) -> str:
    """What others sent must not steer a terminal."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)
