"""Where a tool runs (``meshctl dashboard TOOL``): as a Service of the mesh or cluster, or on this machine at its usual port.

In: the tool, the API. Out: ``Found``, the URL to open and what there is to say of it; None. Who answers is asked who it is: on
port 3000 anything may run. Questions go past proxies of the environment, and wait a second at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import httpx

    from control.client.api import Api

__all__ = ["TOOLS", "Found", "Tool", "asked", "find"]

PATIENCE = 1.0
Judge = Callable[["httpx.Client", str], bool]


class Found(NamedTuple):
    """``url`` is to be opened, ``base`` for other tools. ``hint``: one line, or empty."""

    url: str
    base: str
    hint: str = ""


class Tool(NamedTuple):
    """``services``: names that a Service of it goes by; ``paths``: where below its address it may be."""

    title: str
    port: int
    services: tuple[str, ...]
    judge: Judge
    paths: tuple[str, ...] = ("",)

    @property
    def usual(self) -> str:
        """Where it is on a machine of its own."""
        return f"http://127.0.0.1:{self.port}"


def _json(client: httpx.Client, url: str) -> Any:
    """Decoded, None when it is none."""
    answer = client.get(url)
    try:
        return answer.json() if answer.status_code == 200 else None
    except ValueError:
        return None


def _prometheus(client: httpx.Client, base: str) -> bool:
    told = _json(client, f"{base}/api/v1/query?query=1")
    return isinstance(told, dict) and told.get("status") == "success"


def _grafana(client: httpx.Client, base: str) -> bool:
    told = _json(client, f"{base}/api/health")
    return isinstance(told, dict) and "database" in told


def _jaeger(client: httpx.Client, base: str) -> bool:
    told = _json(client, f"{base}/api/services")
    return isinstance(told, dict) and "data" in told and "errors" in told


def _kiali(client: httpx.Client, base: str) -> bool:
    answer = client.get(f"{base}/", follow_redirects=True)
    return answer.status_code == 200 and "kiali" in answer.text.lower()


TOOLS = {
    "prometheus": Tool("Prometheus", 9090, ("prometheus", "prometheus-server", "prometheus-operated"), _prometheus),
    "grafana": Tool("Grafana", 3000, ("grafana",), _grafana),
    "jaeger": Tool("Jaeger", 16686, ("jaeger-query", "tracing", "jaeger"), _jaeger, ("", "/jaeger")),
    "kiali": Tool("Kiali", 20001, ("kiali",), _kiali, ("/kiali", "")),
}


def find(name: str, api: Api, said: Callable[[str], None]) -> Found | None:
    """The first that answers as ``name``: what the mesh knows comes before this machine. ``said`` hears of a Service that is
    there and not to be reached from here."""
    tool = TOOLS[name]
    unreached = ""
    for service, addresses in _services(tool, api):
        found = next((found for address in addresses if (found := asked(name, address)) is not None), None)
        if found is not None:
            return found
        unreached = unreached or service
    found = asked(name, tool.usual)
    if found is None and unreached:
        namespace, _, plain = unreached.partition("/")
        said(f"Service {unreached} does not answer from here; where it runs on a cluster, and then this again:")
        said(f"  kubectl port-forward -n {namespace} service/{plain} {tool.port}")
    return found


def _services(tool: Tool, api: Api) -> Iterator[tuple[str, list[str]]]:
    """Namespace/name of each, and the URLs at which its pods, then itself, may answer."""
    for service in api.request("GET", "/api/v1/services")["items"]:
        meta, spec = service["metadata"], service.get("spec") or {}
        if meta["name"] not in tool.services:
            continue
        namespace, ports = meta["namespace"], spec.get("ports") or []
        path = f"/api/v1/namespaces/{namespace}/endpoints"
        subsets = [
            subset
            for one in api.request("GET", path)["items"]
            if one["metadata"]["name"] == meta["name"]
            for subset in one.get("subsets") or ()
        ]
        found = [
            _url(address["ip"], port["port"])
            for subset in subsets
            for address in subset.get("addresses") or ()
            for port in _likely(subset.get("ports") or (), tool.port)
        ]
        address = spec.get("clusterIP") or ""
        if address not in ("", "None"):
            found += [_url(address, port["port"]) for port in _likely(ports, tool.port)]
        yield f"{namespace}/{meta['name']}", found[:4]


def _likely(ports: Iterable[dict[str, Any]], usual: int) -> list[dict[str, Any]]:
    """The port of the page first."""
    return sorted(ports, key=lambda port: (port["port"] != usual, not str(port.get("name", "")).startswith("http")))[:2]


def _url(address: str, port: int) -> str:
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def asked(name: str, address: str) -> Found | None:
    """What answers at ``address``, where it is that tool."""
    import httpx

    tool = TOOLS[name]
    with httpx.Client(timeout=PATIENCE, trust_env=False) as client:
        for path in tool.paths:
            base = address.rstrip("/")
            base = base if path and base.endswith(path) else base + path
            try:
                if tool.judge(client, base):
                    return _with_hint(name, client, base)
            except (httpx.HTTPError, httpx.InvalidURL):
                continue
    return None


def _with_hint(name: str, client: httpx.Client, base: str) -> Found:
    """Whether it knows of the mesh already."""
    if name == "prometheus":
        told = _json(client, f"{base}/api/v1/query?query=count(mesh_uptime_seconds)")
        scrapes = bool(told and (told.get("data") or {}).get("result"))
        return Found(base, base, "" if scrapes else "it does not scrape this mesh: meshctl dashboard prometheus --print says how")
    if name == "grafana":
        status = client.get(f"{base}/api/dashboards/uid/mesh-overview").status_code
        if status == 200:
            return Found(f"{base}/d/mesh-overview", base)
        hint = "the mesh's dashboards are not in it: meshctl dashboard grafana --export DIR writes them" if status == 404 else ""
        return Found(base, base, hint)
    if name == "jaeger":
        told = _json(client, f"{base}/api/services")
        knows = bool(told and told.get("data"))
        return Found(base, base, "" if knows else "it has no traces: meshctl dashboard jaeger --print says where to send them")
    return Found(base, base)
