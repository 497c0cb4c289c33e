"""The other side of a call: what the destination's sidecar would do with the request that the caller's would send.

In: the caller's explanation, the request, and how a sidecar is asked. Out: the destination's explanations, one per workload, as
``callees`` of the caller's. Nothing is decided here: the second question is put to the same code as the first, with the caller's
identity, as it would come in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

__all__ = ["As", "Ask", "add_callees", "verdict"]

_MOST = 4  # workloads that are asked
# (namespace, pod, request, listener) -> the explanation; raises ``CliError``
Ask = Callable[[str, str, dict[str, Any], str], dict[str, Any]]


class As(NamedTuple):
    """Another caller than the real one, where given."""

    principal: str = ""
    source: str = ""
    plaintext: bool = False
    claims: dict[str, Any] | None = None

    def into(self, request: dict[str, Any]) -> dict[str, Any]:
        """The request as this caller sends it to a door."""
        given = {"source": self.source, "claims": self.claims, "principal": self.principal}
        request = {**request, **{key: value for key, value in given.items() if value}}
        return {**request, "principal": ""} if self.plaintext else request


def add_callees(told: dict[str, Any], request: Mapping[str, Any], who: As, ask: Ask) -> None:
    """Ask one pod of each destination workload, and put what it says into ``told["callees"]``."""
    from control.cli.errors import CliError

    if told["decision"] != "forward" or told["listener"].startswith(("inbound", "virtualInbound")):
        return
    found: list[dict[str, Any]] = []
    for number, (destination, endpoint) in enumerate(_chosen(told)):
        if number >= _MOST:
            told.setdefault("notes", []).append(f"only {_MOST} of the destinations' workloads were asked")
            break
        asked = _as_it_arrives(told, request, who, destination, endpoint)
        about: dict[str, Any] = {"namespace": endpoint["namespace"], "pod": endpoint["pod"]}
        port = endpoint["address"].rpartition(":")[2]
        try:
            about["told"] = ask(endpoint["namespace"], endpoint["pod"], asked, f"inbound|{port}")
        except CliError as problem:
            about["problem"] = str(problem)
        found.append(about)
    if found:
        told["callees"] = found


def verdict(told: Mapping[str, Any]) -> str:
    """What a callee does with the request, in words: "lets it in", or how it refuses."""
    decision, status = told["decision"], told.get("status")
    if decision == "not let in":
        return f"refuses the connection: {told['mtls']['refused']}"
    if decision == "denied":
        body = told.get("answer", {}).get("body", "")
        return f"answers {status}" + (f" {body!r}" if body else "") if status else "resets the connection"
    return f"answers {status}" if status else "lets it in"


def _chosen(told: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """A healthy endpoint of each workload, with its destination."""
    seen: set[tuple[str, str]] = set()
    for destination in told.get("destinations", ()):
        endpoints = [one for one in destination.get("endpoints", ()) if one.get("pod")]
        for endpoint in sorted(endpoints, key=lambda one: not one.get("healthy", True)):
            key = (endpoint["namespace"], endpoint.get("workload") or endpoint["pod"])
            if key not in seen and "refused" not in endpoint:
                seen.add(key)
                yield destination, endpoint


def _as_it_arrives(
    told: Mapping[str, Any], request: Mapping[str, Any], who: As, destination: Mapping[str, Any], endpoint: Mapping[str, Any]
) -> dict[str, Any]:
    """The request behind the caller's sidecar: rewritten, by the caller's address and, over mutual TLS, its identity."""
    forwarded, own = destination.get("forwarded", {}), told.get("own", {})
    if str(request.get("url", "")).startswith("tcp://"):
        principal = own.get("principal", "") if endpoint.get("tls") == "mutual TLS" else ""
        bytes_ = {"url": f"tcp://{endpoint['address']}", "source": own.get("address", ""), "principal": principal}
        return who.into({key: value for key, value in bytes_.items() if value})
    gone = {name.lower() for name in forwarded.get("headersRemoved", ())}
    headers: dict[str, Any] = {
        name: value for name, value in dict(request["headers"]).items() if name.lower() not in gone | {"host"}
    }
    headers.update(forwarded.get("headersSet", {}))
    arriving = {
        "method": request["method"],
        "authority": forwarded.get("authority", told["request"]["authority"]),
        "path": _told_again(forwarded.get("path", told["request"]["path"]), str(request.get("url", ""))),
        "headers": headers,
        "source": own.get("address", ""),
        "principal": own.get("principal", "") if endpoint.get("tls") == "mutual TLS" else "",
    }
    if told["listener"].startswith("gateway"):
        arriving["headers"] = {**headers, "x-forwarded-for": told.get("caller", {}).get("source", "")}
        return arriving
    arriving = {key: value for key, value in arriving.items() if value != ""}
    return who.into(arriving)


def _told_again(path: str, url: str) -> str:
    """The path with the token that explanations do not show."""
    shown = "access_token=***"
    if shown not in path:
        return path
    given = next((part for part in url.partition("?")[2].split("&") if part.startswith("access_token=")), "")
    return path.replace(shown, given)
