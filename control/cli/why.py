"""``meshctl why REQUEST-ID|last-503``: why a request failed: where, what that means, what made it so, whether it still holds.

In: a request's id, or which of the failed ones (``last-503``, ``last-5xx``, ``last-failed``). Out: the story in words, or all
that it is made of as JSON. Sidecars remember their last failures by themselves, so no access log has to be on; logs and traces
are named where they have the request too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from control.cli.errors import CliError
from control.cli.options import AllNamespaces, Context, Kubeconfig, Namespace, Output, connect, examples, seconds

if TYPE_CHECKING:
    from control.client.api import Api

__all__ = ["register"]

_LAST = re.compile(r"last(?:-(\d{3}|[1-5]xx|failed|failure))?", re.IGNORECASE)


def register(app: typer.Typer) -> None:
    lines = (
        "meshctl why last-503                         (the newest request that was answered 503, anywhere)",
        "meshctl why last-failed --pod book-service --since 5m",
        "meshctl why 82f3b6db-a11c-9c58-a6b6-2bad83f059e2    (its x-request-id, or its trace's id)",
    )
    app.command("why", epilog=examples(*lines))(why)


def why(
    which: Annotated[
        str,
        typer.Argument(
            metavar="REQUEST-ID|last-503", help="An x-request-id, a trace's id, or last-STATUS, last-5xx, last-failed."
        ),
    ],
    pod: Annotated[
        str | None, typer.Option("--pod", help="Only what this sidecar saw: POD, POD.NAMESPACE or NAMESPACE/POD.")
    ] = None,
    source: Annotated[str | None, typer.Option("--from", help="Only requests that this pod's app sent.")] = None,
    since: Annotated[str | None, typer.Option("--since", help="Only the last 5m, 1h, ….")] = None,
    namespace: Namespace = None,
    everywhere: AllNamespaces = False,
    output: Output = "table",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Tell why a request failed: at which hop, what its response flag means, which configuration made it so, what to do.

    Every sidecar remembers its last 256 failures and 256 refusals. What succeeded is in an access log or a trace, or nowhere.
    """
    from control.cli.out import choose
    from control.cli.proxies import pod_name
    from control.cli.why_find import Finder
    from control.cli.why_text import lines

    if pod and source:
        raise CliError("--pod and --from: give one of them", code=2)
    query: dict[str, str | int | bool] = {}
    last = _LAST.fullmatch(which)
    if last is not None:
        query.update(status=(last[1] or "failed").lower().replace("failure", "failed"), limit=1)
    elif which.lower().startswith("last-"):
        raise CliError(f"{which}: must be last-503 (any status), last-5xx, last-4xx or last-failed", code=2)
    else:
        query["id"] = which
    if since:
        query["since"] = f"{seconds(since, '--since'):g}"
    api = connect(kubeconfig, context)
    if pod or source:
        query["namespace"], query["pod"] = pod_name(pod or source or "", namespace or api.target.namespace)
        _connected(api, str(query["namespace"]), str(query["pod"]))
    elif namespace and not everywhere:
        query["namespace"] = namespace
    if source:
        query["direction"] = "outbound"
    found = Finder(api).find(query, which)
    choose(output, found, lambda: print("\n".join(lines(found))))
    return 0


def _connected(api: Api, namespace: str, pod: str) -> None:
    proxies = api.request("GET", "/mesh/v1/proxies")["proxies"]
    if (namespace, pod) not in [(one["namespace"], one["name"]) for one in proxies]:
        raise CliError(f"no sidecar {namespace}/{pod} is connected; `meshctl proxy-status` lists those that are")
