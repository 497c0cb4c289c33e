"""``meshctl exec``, ``attach`` and ``port-forward``: the API's one line on why not, and what to do instead.

In: the words kubectl takes. Out: exit 1 with the pod's address, which can be reached directly.
"""

from __future__ import annotations

from typing import Annotated

import typer

from control.cli.errors import CliError
from control.cli.options import Context, Kubeconfig, Namespace, connect

__all__ = ["register"]

Words = Annotated[list[str], typer.Argument(metavar="POD", help="POD or pod/POD; what follows is not looked at.")]


def register(app: typer.Typer) -> None:
    anything = {"ignore_unknown_options": True, "allow_extra_args": True}
    for name, verb in (("exec", exec_), ("attach", attach), ("port-forward", port_forward)):
        app.command(name, hidden=True, context_settings=anything)(verb)


def exec_(words: Words, namespace: Namespace = None, kubeconfig: Kubeconfig = None, context: Context = None) -> int:
    """Not offered: pods are processes of this machine."""
    return _refused("exec", words, namespace, kubeconfig, context)


def attach(words: Words, namespace: Namespace = None, kubeconfig: Kubeconfig = None, context: Context = None) -> int:
    """Not offered: see logs -f."""
    return _refused("attach", words, namespace, kubeconfig, context)


def port_forward(words: Words, namespace: Namespace = None, kubeconfig: Kubeconfig = None, context: Context = None) -> int:
    """Not offered: a pod's address is reached directly."""
    return _refused("portforward", words, namespace, kubeconfig, context)


def _refused(sub: str, words: list[str], namespace: str | None, kubeconfig: str | None, context: str | None) -> int:
    from urllib.parse import quote

    pod = next((word for word in words if not word.startswith("-")), "")
    kind, slash, name = pod.partition("/")
    if not pod or (slash and kind not in ("pod", "pods", "po")):
        raise CliError(f"{pod or ' '.join(words)}: name a pod, as POD or pod/POD", code=2)
    api = connect(kubeconfig, context)
    space = quote(namespace or api.target.namespace, safe="")
    api.request("GET", f"/api/v1/namespaces/{space}/pods/{quote(name if slash else pod, safe='')}/{sub}")
    return 1
