"""``meshctl uninstall``: take the mesh out of a cluster again.

In: a revision. Out: ``TYPE "NAME" deleted`` for each object. Webhooks go first: without the injector behind them no pod could
start. CRDs and the resources written with them, the authority and namespaces stay; ``--purge`` removes all but the namespaces.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from control.cli.errors import CliError
from control.cli.options import Context, Kubeconfig, connect, examples

__all__ = ["register"]

Obj = dict[str, Any]


def register(app: typer.Typer) -> None:
    app.command(
        "uninstall", epilog=examples("meshctl uninstall", "meshctl uninstall --revision canary -y", "meshctl uninstall --purge")
    )(uninstall)


def uninstall(
    revision: Annotated[str, typer.Option("-r", "--revision", help="Only this revision's (the default one's: default).")] = "",
    purge: Annotated[
        bool, typer.Option("--purge", help="All revisions, the CRDs with every resource of theirs, the authority.")
    ] = False,
    skip_confirmation: Annotated[bool, typer.Option("-y", "--skip-confirmation", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Remove the mesh from the cluster."""
    from control.cli.installed import inspect
    from control.client.api import ApiError

    if purge and revision:
        raise CliError("--purge is for all revisions: give it without --revision", code=2)
    api = connect(kubeconfig, context)
    cluster = inspect(api, None)
    if cluster.problem:
        raise CliError(f"{cluster.problem}: `meshctl demo --stop` ends that")
    if not revision and not purge and len(cluster.revisions) > 1:
        raise CliError(f"there are several revisions: {', '.join(cluster.revisions)}: give --revision or --purge", code=2)
    doomed = _doomed(api, revision or (cluster.revisions[0] if cluster.revisions else "default"), purge)
    if not doomed:
        print("nothing of this mesh is in the cluster", file=sys.stderr)
        return 0
    if not skip_confirmation and not dry_run and not _agreed(doomed, purge):
        return 1
    failed = 0
    for obj in doomed:
        try:
            if not dry_run:
                api.request("DELETE", _path(obj), body={"propagationPolicy": "Background"})
        except ApiError as refused:
            if refused.code == 404:
                continue
            failed += 1
            print(f"Error from server ({refused.reason}): {refused}", file=sys.stderr)
            continue
        print(f"{_said(obj)} deleted{' (dry run)' if dry_run else ''}")
    if not purge and not dry_run:
        print(
            "CRDs and the mesh's resources are kept (--purge removes them). Injected pods keep their sidecar until they are",
            file=sys.stderr,
        )
        print("made anew: kubectl rollout restart", file=sys.stderr)
    return 1 if failed else 0


def _path(obj: Obj) -> str:
    from control.cli.installed import path

    return path(obj)


def _said(obj: Obj) -> str:
    from control.cli.installed import said

    word, _, name = said(obj).partition("/")
    return f'{word} "{name}"'


def _agreed(doomed: list[Obj], purge: bool) -> bool:
    what = f"{len(doomed)} objects" + (", among them the CRDs with every resource written with them" if purge else "")
    print(f"This deletes {what}. Proceed? (y/N) ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    print("nothing was deleted", file=sys.stderr)
    return False


def _doomed(api: Any, revision: str, purge: bool) -> list[Obj]:
    """In the order of ``KINDS``. What control made itself has labels of its own."""
    from control.cli.installed import KINDS, survey
    from control.install.plan import PART_OF

    mine = f"app.kubernetes.io/part-of={PART_OF}"
    made = "app.kubernetes.io/managed-by=mesh-control"
    found: list[Obj] = []
    for kind in KINDS:
        if kind == "Namespace" or (kind == "CustomResourceDefinition" and not purge):
            continue
        if kind in ("Secret", "Lease"):
            found += survey(api, kind, made) if purge else []
            continue
        found += survey(api, kind, mine if purge else f"{mine},istio.io/rev={revision}")
        if kind == "ConfigMap" and purge:
            found += survey(api, kind, made)
    return found
