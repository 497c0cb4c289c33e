"""``meshctl label`` and ``annotate``: one patch of metadata each.

In: a type, names, ``key=value`` and ``key-``. Out: kubectl's ``TYPE/NAME labeled``. A value that is there is only replaced
when told so.
"""

from __future__ import annotations

from typing import Annotated

import typer

from control.cli.errors import CliError
from control.cli.options import Context, Kubeconfig, Namespace, Selector, connect, examples

__all__ = ["register"]

Words = Annotated[
    list[str],
    typer.Argument(metavar="TYPE NAME KEY=VALUE...", help="TYPE NAME… or TYPE/NAME…, then KEY=VALUE… or KEY-"),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a value that is there.")]
Everything = Annotated[bool, typer.Option("--all", help="Every object of the type.")]


def register(app: typer.Typer) -> None:
    app.command(
        "label",
        epilog=examples("meshctl label namespace default istio-injection=enabled", "meshctl label pod book-service tier-"),
    )(label)
    app.command("annotate", epilog=examples("meshctl annotate service rating team=books"))(annotate)


def label(
    words: Words,
    namespace: Namespace = None,
    selector: Selector = None,
    overwrite: Overwrite = False,
    all_: Everything = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Set or remove labels."""
    return _change("labels", "label", words, namespace, selector, overwrite, all_, kubeconfig, context)


def annotate(
    words: Words,
    namespace: Namespace = None,
    selector: Selector = None,
    overwrite: Overwrite = False,
    all_: Everything = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Set or remove annotations."""
    return _change("annotations", "annotate", words, namespace, selector, overwrite, all_, kubeconfig, context)


def _change(
    field: str,
    verb: str,
    words: list[str],
    namespace: str | None,
    selector: str | None,
    overwrite: bool,
    everything: bool,
    kubeconfig: str | None,
    context: str | None,
) -> int:
    from control.cli.refs import Ref, named

    changes: dict[str, str | None] = {}
    objects: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key:
            changes[key] = value
        elif word.endswith("-") and len(objects) >= (1 if "/" in (objects or [""])[0] else 2):
            changes[word[:-1]] = None
        else:
            objects.append(word)
    if not changes:
        raise CliError(f"at least one {verb} update is required: KEY=VALUE, or KEY- to remove it", code=2)
    api = connect(kubeconfig, context)
    refs = []
    for ref in named(objects, namespace or api.target.namespace):
        if ref.name:
            refs.append(ref)
        elif selector or everything:
            items = api.request("GET", ref.path, params={"labelSelector": selector} if selector else {})["items"]
            refs += [Ref(ref.kind, ref.namespace, item["metadata"]["name"]) for item in items]
    if not refs:
        raise CliError("one or more resources must be specified as TYPE NAME or TYPE/NAME", code=2)
    for ref in refs:
        there = api.request("GET", ref.path)["metadata"].get(field) or {}
        for key, new in changes.items():
            if new is not None and key in there and there[key] != new and not overwrite:
                raise CliError(f"'{key}' already has a value ({there[key]}), and --overwrite is false")
        patch = {key: new for key, new in changes.items() if there.get(key) != new}
        if patch:
            api.request("PATCH", ref.path, body={"metadata": {field: patch}}, content_type="application/merge-patch+json")
        print(f"{ref.said} {_said(verb, patch)}")
    return 0


def _said(verb: str, patch: dict[str, str | None]) -> str:
    """kubectl's word for what was done."""
    if verb == "annotate":
        return "annotated"
    if not patch:
        return "not labeled"
    return "labeled" if any(new is not None for new in patch.values()) else "unlabeled"
