"""The questions that dashboards ask Prometheus (tools), in one place so that all mean the same by a failure.

In: label matchers and the labels to group by. Out: PromQL. A failed request is a 5xx, or a gRPC status that is the server's
fault; clients that went away (code 0) and 4xx are none. A share is 0, not nothing, where there is traffic and no such request.
"""

from __future__ import annotations

__all__ = ["WINDOW", "errors", "mutual", "quantile", "rare", "rate", "requests", "success", "total"]

WINDOW = "$__rate_interval"
MUTUAL = 'connection_security_policy="mutual_tls"'
FINE = 'response_code!~"5..", grpc_response_status!~"2|4|12|13|14|15"'


def _and(first: str, second: str) -> str:
    return ", ".join(part for part in (first, second) if part)


def _sum(by: str, inner: str) -> str:
    return f"sum by ({by}) ({inner})" if by else f"sum({inner})"


def rate(metric: str, where: str = "", by: str = "") -> str:
    chosen = f"{{{where}}}" if where else ""
    return _sum(by, f"rate({metric}{chosen}[{WINDOW}])")


def rare(metric: str, where: str, by: str, label: str) -> str:
    """The rate of a counter that has no series before the first event: until then 0, with ``label`` "none"."""
    none = f'label_replace(vector(0), "{label}", "none", "", "")'
    return f"{rate(metric, where, by)} or ({none} unless on () {metric}{{{where}}})"


def total(metric: str, where: str = "", by: str = "") -> str:
    """Of a gauge."""
    return _sum(by, f"{metric}{{{where}}}" if where else metric)


def requests(where: str = "", by: str = "") -> str:
    return rate("istio_requests_total", where, by)


def success(where: str = "", by: str = "") -> str:
    """Share of requests that did not fail; nothing without traffic."""
    every = requests(where, by)
    return f"({requests(_and(where, FINE), by)} or 0 * {every}) / ({every} > 0)"


def errors(where: str = "", by: str = "") -> str:
    return f"1 - {success(where, by)}"


def mutual(where: str = "", by: str = "") -> str:
    """Share of requests over mutual TLS. Only destinations can tell."""
    known = _and('reporter="destination"', where)
    every = requests(known, by)
    return f"({requests(_and(known, MUTUAL), by)} or 0 * {every}) / ({every} > 0)"


def quantile(share: float, metric: str, where: str = "", by: str = "") -> str:
    return f"histogram_quantile({share:g}, {rate(f'{metric}_bucket', where, _and(by, 'le'))})"
