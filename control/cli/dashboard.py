"""``meshctl dashboard``: the page, opened with a fresh code; or what to point another tool at.

In: the page, or ``prometheus``, ``grafana``, ``jaeger``, ``kiali``. Out: the page's URL (good once, for a minute) on stdout and a
browser that opens it; for a tool, configuration that can be pasted, with this mesh's addresses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from control.cli.errors import CliError
from control.cli.options import Context, Kubeconfig, connect, examples

if TYPE_CHECKING:
    from control.client.api import Api

__all__ = ["register"]

CODE_PATH = "/mesh/v1/dashboard-code"
METRICS_PORT = 15020  # every sidecar's, for Prometheus
MONITOR_PORT = 15014  # control's own


def register(app: typer.Typer) -> None:
    app.command(
        "dashboard",
        epilog=examples(
            "meshctl dashboard",
            "meshctl dashboard --no-open            (only print the URL; it is good once, for a minute)",
            "meshctl dashboard prometheus > prometheus.yml",
            "meshctl dashboard jaeger               (what to put into the MeshConfig)",
        ),
    )(dashboard)


def dashboard(
    tool: Annotated[str, typer.Argument(metavar="[TOOL]", help="prometheus, grafana, jaeger or kiali; none: the page.")] = "",
    no_open: Annotated[bool, typer.Option("--no-open", help="Print the page's URL and open no browser.")] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Open the mesh's page in a browser, or print what to point another tool at."""
    if tool:
        tell = TOOLS.get(tool)
        if tell is None:
            raise CliError(f"{tool}: must be one of {', '.join(TOOLS)}, or nothing for the page", code=2)
        print(tell(connect(kubeconfig, context)), end="")
        return 0
    url: str = connect(kubeconfig, context).request("POST", CODE_PATH)["url"]
    print(url, flush=True)
    if not no_open and not _opens(url):
        from control.cli.out import warn

        warn(["no browser could be opened: open the URL above; it is good once, for a minute"])
    return 0


def _opens(url: str) -> bool:
    """Whether a browser took it. Text browsers are none: they would take over the terminal and run no script."""
    import os
    import sys
    import webbrowser

    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        return webbrowser.open(url)
    except webbrowser.Error:
        return False


def _prometheus(api: Api) -> str:
    import yaml

    targets: dict[str, list[str]] = {}
    control = "127.0.0.1"
    for pod in api.request("GET", "/api/v1/pods")["items"]:
        address, inside = pod.get("status", {}).get("podIP"), pod["spec"].get("containers", ())
        if address and any(container["name"] == "istio-proxy" for container in inside):
            targets.setdefault(pod["metadata"]["namespace"], []).append(f"{address}:{METRICS_PORT}")
        if address and (pod["metadata"].get("labels") or {}).get("app") == "istiod":
            control = address
    sidecars: list[dict[str, Any]] = [
        {"targets": sorted(found), "labels": {"namespace": namespace}} for namespace, found in sorted(targets.items())
    ]
    config = {
        "global": {"scrape_interval": "15s"},
        "scrape_configs": [
            {"job_name": "mesh-sidecars", "metrics_path": "/stats/prometheus", "static_configs": sidecars},
            {"job_name": "mesh-control", "static_configs": [{"targets": [f"{control}:{MONITOR_PORT}"]}]},
        ],
    }
    text: str = yaml.safe_dump(config, sort_keys=False)
    return (
        "# prometheus.yml: what this mesh exposes now; pods that come later are not in it, so print it again then.\n"
        "# prometheus --config.file=prometheus.yml\n" + text
    )


def _grafana(api: Api) -> str:
    return (
        "# A data source for Grafana (provisioning/datasources/mesh.yml). It asks Prometheus, which scrapes the mesh as\n"
        "# `meshctl dashboard prometheus` says. The metrics have Istio's names, so dashboards made for Istio show them.\n"
        "apiVersion: 1\n"
        "datasources:\n"
        "- name: Prometheus\n"
        "  type: prometheus\n"
        "  access: proxy\n"
        "  url: http://127.0.0.1:9090\n"
        "  isDefault: true\n"
    )


def _jaeger(api: Api) -> str:
    return (
        "# Sends the traces to Jaeger's OTLP/HTTP port instead of control's own store. Where there is a MeshConfig already, put\n"
        "# the two blocks into it; else apply this as it is. Jaeger's page is on :16686.\n"
        "apiVersion: v1\n"
        "kind: ConfigMap\n"
        "metadata: {name: istio, namespace: istio-system}\n"
        "data:\n"
        "  mesh: |\n"
        "    extensionProviders:\n"
        "    - name: jaeger\n"
        "      opentelemetry: {service: 127.0.0.1, port: 4318, http: {path: /v1/traces}}\n"
        "    defaultProviders:\n"
        "      tracing: [jaeger]\n"
    )


def _kiali(api: Api) -> str:
    return (
        "# Kiali reads the mesh's metrics from Prometheus (they have the names it asks for) and everything else from a\n"
        "# Kubernetes cluster, so it needs one: without a cluster use `meshctl dashboard`. In Kiali's configuration:\n"
        "external_services:\n"
        "  prometheus: {url: http://127.0.0.1:9090}\n"
        "  tracing: {enabled: true, provider: jaeger, internal_url: http://127.0.0.1:16685}\n"
    )


TOOLS: dict[str, Callable[[Api], str]] = {"prometheus": _prometheus, "grafana": _grafana, "jaeger": _jaeger, "kiali": _kiali}
