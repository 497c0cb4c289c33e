"""``meshctl version``: ours, and the mesh's when one answers.

In: nothing. Out: two lines; a mesh that does not answer is no error, it is said.
"""

from __future__ import annotations

from typing import Annotated

import typer

from control.cli.options import Context, Kubeconfig, Output, connect, examples

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    app.command("version", epilog=examples("meshctl version", "meshctl version --client -o json"))(version)


def version(
    client: Annotated[bool, typer.Option("--client", help="Only this program's version.")] = False,
    output: Output = "table",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Show versions."""
    from importlib.metadata import version as installed

    from control.cli.out import choose

    said: dict[str, object] = {"client": installed("pymesh")}
    if not client:
        from control.client.api import ApiError, Unreachable
        from control.client.kubeconfig import BadKubeconfig

        try:
            api = connect(kubeconfig, context)
            said["server"] = api.request("GET", "/version").get("gitVersion", "unknown")
            said["proxies"] = len(_proxies(api.request("GET", "/mesh/v1/proxies")))
        except (ApiError, Unreachable, BadKubeconfig) as failure:
            said["serverError"] = str(failure)
    words = {"client": "client version", "server": "control version", "proxies": "proxies connected", "serverError": "no mesh"}
    choose(output, said, lambda: print("\n".join(f"{words[key]}: {value}" for key, value in said.items())))
    return 0


def _proxies(answer: object) -> list[object]:
    return list(answer.get("proxies", ())) if isinstance(answer, dict) else list(answer) if isinstance(answer, list) else []
