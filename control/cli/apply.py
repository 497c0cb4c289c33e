"""``meshctl apply`` and ``diff``: files to objects, with kubectl's three-way merge and kubectl's words.

In: files. Out: ``… created|configured|unchanged`` per object; exit 1 when any was refused (the others are applied all the
same).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from control.cli.errors import CliError
from control.cli.options import Context, Files, Kubeconfig, More, Namespace, also, connect, examples

if TYPE_CHECKING:
    from control.cli.refs import Document, Ref
    from control.client.api import Api

__all__ = ["register"]

MERGE_PATCH = "application/merge-patch+json"
DryRun = Annotated[str, typer.Option("--dry-run", help="none, client (send nothing) or server (judge, store nothing).")]
Validate = Annotated[str, typer.Option("--validate", help="strict, warn or ignore: what an unknown field is.")]


def register(app: typer.Typer) -> None:
    app.command(
        "apply",
        epilog=examples("meshctl apply -f virtual-service-v1.yml", "cat rules.yml | meshctl apply -f - --dry-run=server"),
    )(apply)
    app.command("diff", epilog=examples("meshctl diff -f virtual-service-v1.yml"))(diff)


def apply(
    more: More = None,
    filename: Files = None,
    namespace: Namespace = None,
    dry_run: DryRun = "none",
    validate: Validate = "strict",
    output: Annotated[str, typer.Option("-o", "--output", help="table (kubectl's lines), name, json or yaml.")] = "table",
    server_side: Annotated[bool, typer.Option("--server-side", hidden=True)] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Make objects be as files say."""
    from control.cli.out import as_json, as_yaml
    from control.cli.refs import documents
    from control.client.api import ApiError

    if server_side:
        raise CliError("--server-side is not supported; plain apply merges on the client, as kubectl does by default")
    if dry_run not in ("none", "client", "server"):
        raise CliError(f"--dry-run {dry_run}: must be none, client or server", code=2)
    if validate not in ("strict", "warn", "ignore", "true", "false"):
        raise CliError(f"--validate {validate}: must be strict, warn or ignore", code=2)
    if output not in ("table", "name", "json", "yaml"):
        raise CliError(f"--output {output}: must be table, name, json or yaml", code=2)
    files = also(filename, more, bare=False)
    api = connect(kubeconfig, context)
    strictness = {"true": "Strict", "false": "Ignore"}.get(validate, validate.capitalize())
    failed, results = 0, []
    found = list(documents(files))
    if not found:
        raise CliError("no objects passed to apply")
    for document in found:
        try:
            ref, verb, result = _apply(api, document, namespace or api.target.namespace, dry_run, strictness)
        except ApiError as refused:
            failed += 1
            line = f'error when applying "{document.source}": {refused}'
            print(f"Error from server ({refused.reason}): {line}", file=sys.stderr)
            continue
        except CliError as problem:
            failed += 1
            print(problem.line, file=sys.stderr)
            continue
        results.append(result)
        suffix = {"client": " (dry run)", "server": " (server dry run)"}.get(dry_run, "")
        if output == "table":
            print(f"{ref.said} {verb}{suffix}")
        elif output == "name":
            print(ref.said)
    if output in ("json", "yaml") and results:
        whole = results[0] if len(results) == 1 else {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": results}
        print(as_json(whole) if output == "json" else as_yaml(whole))
    return 1 if failed else 0


def _apply(api: Api, document: Document, namespace: str, dry_run: str, strictness: str) -> tuple[Ref, str, Any]:
    from control.cli.merge import LAST_APPLIED, last_applied, three_way, with_last_applied
    from control.cli.out import warn
    from control.cli.refs import ref_of
    from control.client.api import ApiError

    ref = ref_of(document, namespace)
    if ref.namespace is not None:
        document.object["metadata"].setdefault("namespace", ref.namespace)
    wanted = with_last_applied(document.object)
    params = {"fieldManager": "kubectl-client-side-apply", "fieldValidation": strictness}
    if dry_run == "server":
        params["dryRun"] = "All"
    try:
        live = api.request("GET", ref.path)
    except ApiError as refused:
        if refused.code != 404:
            raise
        if dry_run == "client":
            return ref, "created", wanted
        made, warnings = api.exchange("POST", ref.collection, params=params, body=wanted)
        warn(warnings)
        return ref, "created", made
    before = last_applied(live)
    if before is None and dry_run != "client":
        warn([f"resource {ref.kind.plural}/{ref.name} was not made by apply; the annotation {LAST_APPLIED} is added now"])
    patch = three_way(before, wanted, live)
    patch.pop("status", None)
    if not patch:
        return ref, "unchanged", live
    if dry_run == "client":
        return ref, "configured", wanted
    changed, warnings = api.exchange("PATCH", ref.path, params=params, body=patch, content_type=MERGE_PATCH)
    warn(warnings)
    same = changed["metadata"].get("resourceVersion") == live["metadata"].get("resourceVersion") and dry_run == "none"
    return ref, "unchanged" if same else "configured", changed


def diff(
    more: More = None,
    filename: Files = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Show what apply would change; exit 1 when there is a difference."""
    import difflib

    from control.cli.out import as_yaml
    from control.cli.refs import documents, ref_of
    from control.client.api import ApiError

    files = also(filename, more, bare=False)
    api = connect(kubeconfig, context)
    differs = False
    for document in documents(files):
        ref = ref_of(document, namespace or api.target.namespace)
        try:
            live = api.request("GET", ref.path)
        except ApiError as refused:
            if refused.code != 404:
                raise CliError(str(refused), code=2) from None
            live = None
        _, _, merged = _apply(api, document, namespace or api.target.namespace, "server", "Strict")
        before, after = ([] if value is None else as_yaml(_shown(value)).splitlines(True) for value in (live, merged))
        lines = list(difflib.unified_diff(before, after, f"live/{ref.said}", f"merged/{ref.said}"))
        differs = differs or bool(lines)
        sys.stdout.writelines(line if line.endswith("\n") else f"{line}\n" for line in lines)
    return 1 if differs else 0


def _shown(value: dict[str, Any]) -> dict[str, Any]:
    """Without what the server alone writes, and without the annotation that repeats the object."""
    from control.cli.merge import LAST_APPLIED

    metadata = {
        key: part
        for key, part in value["metadata"].items()
        if key not in ("resourceVersion", "generation", "managedFields", "uid", "creationTimestamp")
    }
    annotations = {key: part for key, part in (metadata.get("annotations") or {}).items() if key != LAST_APPLIED}
    metadata.pop("annotations", None)
    if annotations:
        metadata["annotations"] = annotations
    return {**{key: part for key, part in value.items() if key != "status"}, "metadata": metadata}
