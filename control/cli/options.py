"""Options that many verbs share, the connection they lead to, and the shape of an example.

In: kubectl's words. Out: Typer annotations, ``connect`` and ``examples``. Importing this costs no HTTP library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from control.cli.errors import CliError

if TYPE_CHECKING:
    from control.client.api import Api

__all__ = [
    "AllNamespaces",
    "Context",
    "Files",
    "Kubeconfig",
    "More",
    "Namespace",
    "Output",
    "Selector",
    "connect",
    "also",
    "examples",
    "opened",
    "seconds",
]

Namespace = Annotated[str | None, typer.Option("-n", "--namespace", help="Namespace; the kubeconfig's (default) if not given.")]
AllNamespaces = Annotated[bool, typer.Option("-A", "--all-namespaces", help="Every namespace.")]
Files = Annotated[list[str] | None, typer.Option("-f", "--filename", help="File, directory, or - for stdin; repeatable.")]
More = Annotated[list[str] | None, typer.Argument(metavar="[FILE]...", help="More files, as `-f *.yaml` hands them over.")]
Selector = Annotated[str | None, typer.Option("-l", "--selector", help="Label selector, such as app=web,tier!=db.")]
Output = Annotated[str, typer.Option("-o", "--output", help="table, json or yaml.")]
Kubeconfig = Annotated[str | None, typer.Option("--kubeconfig", help="Kubeconfig file; else $KUBECONFIG, .mesh/kubeconfig.")]
Context = Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig.")]


opened: list[Api] = []  # the entry closes them when the command has ended


def connect(kubeconfig: str | None = None, context: str | None = None) -> Api:
    """A client for the API that the kubeconfig names; closed when the command ends. Raises ``BadKubeconfig``."""
    import os
    from pathlib import Path

    from control.client.api import Api
    from control.client.kubeconfig import find, load

    target = load(find(kubeconfig, os.environ, Path.cwd()), context)
    api = Api(target, root_namespace=os.environ.get("ISTIO_NAMESPACE") or "istio-system")
    opened.append(api)
    return api


def also(filename: list[str] | None, more: list[str] | None, bare: bool = True) -> list[str]:
    """The files of ``-f`` and those after it: a shell makes ``-f a.yml b.yml`` of ``-f *.yml``. ``bare``: they may stand without
    ``-f``. Raises ``CliError`` when there is none."""
    if not filename and (not bare or not more):
        raise CliError("must specify -f FILE", code=2)
    return [*(filename or ()), *(more or ())]


def examples(*lines: str) -> str:
    """An epilog of example lines, kept apart from each other when help is reflowed."""
    return "\n\n".join(("Examples:", *(f"  {line}" for line in lines)))


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str, option: str) -> float:
    """A Go duration (``30s``, ``1m30s``) or plain seconds. Raises ``CliError`` that names the option."""
    import re

    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise CliError(f"{option} {text}: not a duration; write 30s or 1m30s", code=2)
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
