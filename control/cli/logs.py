"""``meshctl logs``: a container's output, as the API serves it.

In: a pod. Out: its lines; with ``-f`` as they come.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from control.cli.errors import CliError
from control.cli.options import Context, Kubeconfig, Namespace, connect, examples, seconds

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    app.command(
        "logs",
        epilog=examples("meshctl logs rating-service-v2 -c rating-service", "meshctl logs book-service -f --tail=10"),
    )(logs)


def logs(
    pod: Annotated[str, typer.Argument(metavar="POD", help="POD or pod/POD")],
    container_word: Annotated[str | None, typer.Argument(metavar="[CONTAINER]")] = None,
    container: Annotated[str | None, typer.Option("-c", "--container", help="Which container; the first if not given.")] = None,
    namespace: Namespace = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as lines come.")] = False,
    tail: Annotated[int, typer.Option("--tail", help="Only the last N lines.")] = -1,
    since: Annotated[str | None, typer.Option("--since", help="Only lines newer than this, such as 5m.")] = None,
    previous: Annotated[bool, typer.Option("-p", "--previous", help="The run before the last restart.")] = False,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="The time of every line.")] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Print a container's log."""
    kind, slash, name = pod.partition("/")
    if slash and kind not in ("pod", "pods", "po"):
        raise CliError(f"{pod}: logs are kept of pods; write pod/NAME", code=2)
    name = name if slash else pod
    api = connect(kubeconfig, context)
    path = f"/api/v1/namespaces/{namespace or api.target.namespace}/pods/{name}"
    chosen = container or container_word
    if chosen is None:
        names = [one["name"] for one in api.request("GET", path).get("spec", {}).get("containers") or ()]
        chosen = names[0] if names else None
        if len(names) > 1:
            print(f'Defaulted container "{chosen}" out of: {", ".join(names)}', file=sys.stderr)
    params: dict[str, str | int | bool] = {"container": chosen} if chosen else {}
    if tail >= 0:
        params["tailLines"] = tail
    if since:
        params["sinceSeconds"] = int(seconds(since, "--since"))
    for option, on in (("follow", follow), ("previous", previous), ("timestamps", timestamps)):
        if on:
            params[option] = "true"
    with api.stream(f"{path}/log", params=params) as lines:
        for line in lines:
            print(line, flush=follow)
    return 0
