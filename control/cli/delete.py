"""``meshctl delete``: by file, by type and name, by label, or all of a type.

In: files or words. Out: ``TYPE "NAME" deleted`` per object; exit 1 when one was not there (unless told to ignore that).
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from control.cli.errors import CliError
from control.cli.options import Context, Files, Kubeconfig, Namespace, Selector, connect, examples

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    app.command(
        "delete",
        epilog=examples("meshctl delete -f virtual-service-v1.yml", "meshctl delete vs rating", "meshctl delete vs --all"),
    )(delete)


def delete(
    what: Annotated[list[str] | None, typer.Argument(help="TYPE NAME…, or TYPE/NAME…")] = None,
    filename: Files = None,
    namespace: Namespace = None,
    selector: Selector = None,
    all_: Annotated[bool, typer.Option("--all", help="Every object of the type in the namespace.")] = False,
    ignore_not_found: Annotated[bool, typer.Option("--ignore-not-found", help="Absent is as good as deleted.")] = False,
    dry_run: Annotated[str, typer.Option("--dry-run", help="none, client or server.")] = "none",
    wait: Annotated[bool, typer.Option("--wait", hidden=True)] = True,
    output: Annotated[str, typer.Option("-o", "--output", help="table (kubectl's lines) or name.")] = "table",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Delete objects."""
    from control.cli.refs import Ref, documents, named, ref_of
    from control.client.api import ApiError

    if dry_run not in ("none", "client", "server"):
        raise CliError(f"--dry-run {dry_run}: must be none, client or server", code=2)
    api = connect(kubeconfig, context)
    space = namespace or api.target.namespace
    targets: list[tuple[str, Ref]] = []
    if filename:
        targets = [(document.source, ref_of(document, space)) for document in documents([*filename, *(what or ())])]
    elif what:
        for ref in named(what, space):
            if ref.name:
                targets.append(("", ref))
            elif selector or all_:
                items = api.request("GET", ref.path, params={"labelSelector": selector} if selector else {})["items"]
                targets += [("", Ref(ref.kind, ref.namespace, item["metadata"]["name"])) for item in items]
            else:
                raise CliError("resource(s) were provided, but no name was specified; give names, -l or --all", code=2)
    else:
        raise CliError("give -f FILE, or a TYPE and names", code=2)
    failed = 0
    for source, ref in targets:
        try:
            method, params = "GET" if dry_run == "client" else "DELETE", {"dryRun": "All"} if dry_run == "server" else {}
            api.request(method, ref.path, params=params)
        except ApiError as refused:
            if refused.code == 404 and ignore_not_found:
                continue
            failed += 1
            where = f'error when deleting "{source}": ' if source else ""
            print(f"Error from server ({refused.reason}): {where}{refused}", file=sys.stderr)
            continue
        suffix = {"client": " (dry run)", "server": " (server dry run)"}.get(dry_run, "")
        print(ref.said if output == "name" else f'{ref.type} "{ref.name}" deleted{suffix}')
    return 1 if failed else 0
