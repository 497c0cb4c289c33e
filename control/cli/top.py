"""``meshctl top``: who calls whom by which route, how often, how well and how fast; services, workloads, sidecars.

In: a kind of table. Out: on a terminal a table that renews itself until ``q`` or Ctrl-C, elsewhere one table; JSON and YAML are
the API's own. The numbers are what sidecars report to control every five seconds.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from control.cli.errors import CliError
from control.cli.options import AllNamespaces, Context, Kubeconfig, Namespace, connect, examples, seconds

__all__ = ["register"]

KINDS = {
    "routes": ("route", "routes"),
    "services": ("service", "services", "svc"),
    "workloads": ("workload", "workloads", "deploy", "deployments"),
    "pods": ("pod", "pods", "po"),
}


def register(app: typer.Typer) -> None:
    lines = (
        "meshctl top                                  (routes of every namespace, live; q ends it)",
        "meshctl top routes --from book-service --sort p99",
        "meshctl top services --window 5m --once",
        "meshctl top pods                             (CPU and memory of sidecars)",
    )
    app.command("top", epilog=examples(*lines))(top)


def top(
    what: Annotated[str, typer.Argument(metavar="[routes|services|workloads|pods]", help="What a row is.")] = "routes",
    namespace: Namespace = None,
    everywhere: AllNamespaces = False,
    source: Annotated[str | None, typer.Option("--from", help="Only calls of this workload: NAME or NAME.NAMESPACE.")] = None,
    target: Annotated[str | None, typer.Option("--to", help="Only calls to this service or workload.")] = None,
    sort: Annotated[str, typer.Option("--sort", help="rps, success, p50, p95, p99 or name; for pods cpu, memory or name.")] = "",
    window: Annotated[str, typer.Option("--window", help="Count over the last 60s, 5m, … (5s to 1h).")] = "60s",
    once: Annotated[bool, typer.Option("--once", help="One table, and the end; so it is without a terminal.")] = False,
    watch: Annotated[
        bool, typer.Option("-w", "--watch", help="Go on with new numbers without a terminal, too: table after table.")
    ] = False,
    interval: Annotated[str, typer.Option("--interval", help="Time between two tables.")] = "2s",
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many rows.")] = 50,
    output: Annotated[str, typer.Option("-o", "--output", help="table, wide, json or yaml.")] = "table",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Show what the mesh does now: rate, success and latency of routes, services and workloads; what sidecars take."""
    from control.cli.out import choose
    from control.cli.top_table import SORTS, Table

    kind = next((name for name, words in KINDS.items() if what.lower() in words), None)
    if kind is None:
        raise CliError(f"{what}: top shows {', '.join(KINDS)}", code=2)
    sort = sort or ("name" if kind == "pods" else "rps")
    if sort not in SORTS[kind]:
        raise CliError(f"--sort {sort}: must be {', '.join(SORTS[kind])} for {kind}", code=2)
    if once and watch:
        raise CliError("--once and --watch: give one of them", code=2)
    if kind == "pods" and (given := "--from" if source else "--to" if target else ""):
        raise CliError(f"{given}: is for calls; `top pods` is about sidecars", code=2)
    query: dict[str, str | int | bool] = {}
    if kind != "pods":
        span = seconds(window, "--window")
        if not 5 <= span <= 3600:
            raise CliError(f"--window {window}: must be from 5s to 1h", code=2)
        query["window"] = f"{span:g}"
    if namespace and not everywhere:
        query["namespace"] = namespace
    query.update({name: text for name, text in (("from", source), ("to", target)) if text})
    pause = seconds(interval, "--interval")
    if pause < 0.5:
        raise CliError(f"--interval {interval}: must be 0.5s at least", code=2)
    table = Table(kind, sort, output == "wide", limit, bool(query.keys() - {"window"}))
    api = connect(kubeconfig, context)

    def found() -> dict[str, Any]:
        answer: dict[str, Any] = api.request("GET", f"/mesh/v1/top/{kind}", params=query)
        answer["rows"] = table.sorted(answer["rows"])
        return answer

    live = not once and (watch or (sys.stdin.isatty() and sys.stdout.isatty()))
    if output in ("json", "yaml") or not live:
        _once(found(), table, "table" if output == "wide" else output, choose)
        return 0
    if output not in ("table", "wide", ""):
        raise CliError(f"--output {output}: must be table, wide, json or yaml", code=2)
    if sys.stdin.isatty() and sys.stdout.isatty():
        from control.cli.top_live import live as show

        show(found, table, pause)
        return 0
    import time

    while True:
        _once(found(), table, "table", choose)
        print(flush=True)
        time.sleep(pause)


def _once(answer: dict[str, Any], table: Any, output: str, choose: Any) -> None:
    choose(output, answer, lambda: print("\n".join(table.lines(answer))))
