"""``meshctl dashboard``: the page, opened with a fresh code; the tools are in ``dashboard_tools``.

In: the command line. Out: the page's URL (good once, for a minute) on stdout and a browser that opens it.
"""

from __future__ import annotations

from typing import Annotated

import typer

from control.cli.errors import CliError
from control.cli.options import Context, Kubeconfig, connect, examples

__all__ = ["register"]

CODE_PATH = "/mesh/v1/dashboard-code"
TOOLS = ("prometheus", "grafana", "jaeger", "kiali")


def register(app: typer.Typer) -> None:
    app.command(
        "dashboard",
        epilog=examples(
            "meshctl dashboard",
            "meshctl dashboard --no-open            (only print the URL; it is good once, for a minute)",
            "meshctl dashboard grafana              (opens it where it runs; else says what to point it at the mesh)",
            "meshctl dashboard prometheus > prometheus.yml",
            "meshctl dashboard prometheus --rules > mesh.rules.yml",
            "meshctl dashboard grafana --export grafana   (dashboards and all that Grafana needs to find them)",
            "meshctl dashboard jaeger --print       (what to put into the MeshConfig)",
        ),
    )(dashboard)


def dashboard(
    tool: Annotated[str, typer.Argument(metavar="[TOOL]", help="prometheus, grafana, jaeger or kiali; none: the page.")] = "",
    no_open: Annotated[bool, typer.Option("--no-open", help="Print the URL and open no browser.")] = False,
    url: Annotated[str, typer.Option("--url", metavar="URL", help="Where the tool is, if not where it is usually found.")] = "",
    config: Annotated[
        bool, typer.Option("--print", help="Print what to point the tool at the mesh, whether it runs or not.")
    ] = False,
    kubernetes: Annotated[bool, typer.Option("--kubernetes", help="prometheus: its configuration inside a cluster.")] = False,
    rules: Annotated[bool, typer.Option("--rules", help="prometheus: print alert and recording rules.")] = False,
    export: Annotated[
        str, typer.Option("--export", metavar="DIR", help="prometheus, grafana: write all their files there.")
    ] = "",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Open the mesh's page in a browser; or a tool that runs beside the mesh, or print what to point it at the mesh."""
    if tool and tool not in TOOLS:
        raise CliError(f"{tool}: must be one of {', '.join(TOOLS)}, or nothing for the page", code=2)
    if tool:
        from control.cli.dashboard_tools import Wanted, run

        wanted = Wanted(tool, url, no_open, config, kubernetes, rules, export)
        return run(wanted, lambda: connect(kubeconfig, context), _opens)
    if url or config or kubernetes or rules or export:
        raise CliError("these options are for a tool: meshctl dashboard prometheus, for example", code=2)
    page: str = connect(kubeconfig, context).request("POST", CODE_PATH)["url"]
    print(page, flush=True)
    if not no_open and not _opens(page):
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
