"""``meshctl explain METHOD URL --from POD``: the decision that a sidecar would take for a request, and why not another.

In: a request. Out: the decision in words, or as JSON or YAML. A running sidecar is asked through control, so that endpoints show
their state; with ``-f`` files are translated and compiled as for a sidecar and the same code is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from control.cli.errors import CliError
from control.cli.options import Context, Files, Kubeconfig, Namespace, Output, connect, examples

if TYPE_CHECKING:
    from control.client.api import Api

__all__ = ["header_list", "register"]


def register(app: typer.Typer) -> None:
    app.command(
        "explain",
        epilog=examples(
            "meshctl explain GET http://rating:8080/rate/1 --from book-service",
            "meshctl explain http://rating:8080/rate/1 --from book-service -H 'x-user: jo'",
            "meshctl explain GET http://127.0.0.1:8080/book/1 --from istio-ingressgateway.istio-system",
            "meshctl explain GET http://rating:8080/rate/1 --from book-service -f manifests/    (before anything is applied)",
        ),
    )(explain)


def explain(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[METHOD] URL", help="The request; GET if no method is given. With -f, more files may follow."),
    ],
    source: Annotated[
        str, typer.Option("--from", help="Who sends it: POD, POD.NAMESPACE, NAMESPACE/POD; with -f a Deployment too, or gateway.")
    ],
    header: Annotated[list[str] | None, typer.Option("-H", "--header", help="'name: value'; repeatable.")] = None,
    filename: Files = None,
    listener: Annotated[
        str | None, typer.Option("--listener", help="Ask this listener, such as 'inbound|8080', instead of the usual one.")
    ] = None,
    namespace: Namespace = None,
    output: Output = "table",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Say what a sidecar would do with a request: rule, destinations, endpoints, retries, timeouts, and why not the others."""
    from control.cli.decision import lines
    from control.cli.out import choose

    words, more = _apart(words) if filename else (words, [])
    if len(words) > 2:
        raise CliError(f"{' '.join(words[2:])}: give one METHOD and one URL; quote a URL that holds blanks", code=2)
    method, url = words if len(words) == 2 else ("GET", words[0])
    if filename:
        filename = [*filename, *more]
        who, told = _from_files(filename, source, namespace or "default", method, url, header or (), listener)
    else:
        who, told = _from_mesh(connect(kubeconfig, context), source, namespace, method, url, header or (), listener)
    choose(output, told, lambda: print("\n".join(lines(told, who))))
    return 0


def _apart(words: list[str]) -> tuple[list[str], list[str]]:
    """The request, and the files that ``-f a.yml b.yml`` left among its words, before or after it."""
    from pathlib import Path

    files = [word for word in words if "://" not in word and (word.endswith((".yml", ".yaml", ".json")) or Path(word).exists())]
    return [word for word in words if word not in files], files


def header_list(given: Sequence[str], option: str = "-H") -> dict[str, list[str]]:
    """``name: value`` lines as a mapping. Raises ``CliError``."""
    found: dict[str, list[str]] = {}
    for line in given:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise CliError(f"{option} {line}: must be 'name: value'", code=2)
        found.setdefault(name.strip(), []).append(value.strip())
    return found


def _from_files(
    files: Sequence[str], source: str, namespace: str, method: str, url: str, header: Sequence[str], listener: str | None
) -> tuple[str, dict[str, Any]]:
    from control.cli.offline import Decider, read

    decider = Decider.of(read(files, namespace))
    proxy = decider.proxy(source, namespace)
    told = decider.decide(proxy, {"method": method, "url": url, "headers": header_list(header)}, listener)
    return f"{proxy.namespace}/{proxy.pod}, by the files", told


def _from_mesh(
    api: Api, source: str, namespace: str | None, method: str, url: str, header: Sequence[str], listener: str | None
) -> tuple[str, dict[str, Any]]:
    from urllib.parse import quote, urlencode

    from control.cli.proxies import pod_name
    from control.client.api import ApiError

    space, name = pod_name(source, namespace or api.target.namespace)
    lines = [f"{key}: {value}" for key, values in header_list(header).items() for value in values]
    asked = [("verb", "explain"), ("method", method), ("url", url), *(("header", line) for line in lines)]
    if listener:
        asked.append(("listener", listener))
    query = urlencode(asked)

    def ask(space: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = api.request("GET", f"/mesh/v1/proxies/{quote(space)}/{quote(name)}/query?{query}")
        return found

    try:
        return f"{space}/{name}", ask(space, name)
    except ApiError as refused:
        if refused.code == 422:
            raise CliError(str(refused)) from None
        if refused.code != 404:
            raise
    # Nobody of that name in this namespace; a name that only one sidecar has anywhere needs no namespace.
    same = [one for one in api.request("GET", "/mesh/v1/proxies")["proxies"] if one["name"] == name]
    if len(same) != 1 or namespace is not None:
        raise CliError(f"no sidecar {space}/{name} is connected; `meshctl proxy-status` lists those that are")
    return f"{same[0]['namespace']}/{name}", ask(same[0]["namespace"], name)
