"""``meshctl get`` and ``describe``: the API's own tables, or the objects as JSON and YAML.

In: types, names, labels. Out: kubectl's columns; with ``-w`` rows as they change. The columns are the server's (``Table``),
so both programs show the same.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from control.cli.errors import CliError
from control.cli.options import AllNamespaces, Context, Files, Kubeconfig, Namespace, Selector, connect, examples

if TYPE_CHECKING:
    from control.cli.refs import Ref
    from control.client.api import Api

__all__ = ["register"]

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
FORMS = ("table", "", "wide", "json", "yaml", "name")


def register(app: typer.Typer) -> None:
    app.command(
        "get",
        epilog=examples("meshctl get pods -A", "meshctl get vs,dr", "meshctl get vs rating -o yaml", "meshctl get pods -w"),
    )(get)
    app.command("describe", epilog=examples("meshctl describe vs rating", "meshctl describe pod/book-service"))(describe)


def get(
    what: Annotated[list[str] | None, typer.Argument(help="TYPE[,TYPE] [NAME…], or TYPE/NAME…")] = None,
    filename: Files = None,
    namespace: Namespace = None,
    all_namespaces: AllNamespaces = False,
    selector: Selector = None,
    field_selector: Annotated[str | None, typer.Option("--field-selector", help="Such as metadata.name=x.")] = None,
    output: Annotated[str, typer.Option("-o", "--output", help="table, wide, json, yaml or name.")] = "table",
    watch: Annotated[bool, typer.Option("-w", "--watch", help="After listing, show every change.")] = False,
    no_headers: Annotated[bool, typer.Option("--no-headers", help="Rows only.")] = False,
    show_labels: Annotated[bool, typer.Option("--show-labels", help="Labels as the last column.")] = False,
    ignore_not_found: Annotated[bool, typer.Option("--ignore-not-found", help="Absent is no error.")] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Show objects."""
    if output not in FORMS:
        raise CliError(f"--output {output}: must be table, wide, json, yaml or name (kubectl knows more)", code=2)
    api = connect(kubeconfig, context)
    space = None if all_namespaces else namespace or api.target.namespace
    refs = _refs(what, filename, namespace or api.target.namespace, space)
    params = {name: value for name, value in (("labelSelector", selector), ("fieldSelector", field_selector)) if value}
    if watch:
        if len(refs) != 1:
            raise CliError("you may only watch a single resource or type of resource at a time", code=2)
        return _watch(api, refs[0], params, output, no_headers, all_namespaces)
    if output in ("json", "yaml", "name"):
        return _objects(api, refs, params, output, ignore_not_found)
    printer = _Printer(output == "wide", no_headers, all_namespaces, show_labels, prefix=len({ref.kind for ref in refs}) > 1)
    missing = 0
    for ref in refs:
        answer = _ask(api, ref, params, ignore_not_found, TABLE)
        if answer is None:
            missing += 1
        else:
            printer.add(ref, answer)
    printer.flush()
    if not printer.any and not missing:
        where = "" if space is None or not refs[0].kind.namespaced else f" in {space} namespace."
        print(f"No resources found{where}", file=sys.stderr)
    return 1 if missing and not ignore_not_found else 0


def _refs(what: list[str] | None, filename: list[str] | None, default: str, space: str | None) -> list[Ref]:
    from control.cli.refs import Ref, documents, named, ref_of

    if filename:
        return [ref_of(document, default) for document in documents([*filename, *(what or ())])]
    refs = named(what or [], default)
    if not refs:
        raise CliError("name a type, such as `meshctl get pods` or `meshctl get vs,dr`", code=2)
    if space is None and any(ref.name for ref in refs):
        raise CliError("a resource cannot be retrieved by name across all namespaces", code=2)
    return refs if space is not None else [Ref(ref.kind, None) for ref in refs]


def _ask(api: Api, ref: Ref, params: dict[str, str], ignore_not_found: bool, accept: str | None = None) -> Any:
    """The answer, or None when a named object is not there (said on stderr)."""
    from control.client.api import ApiError

    try:
        return api.request("GET", ref.path, params={} if ref.name else params, accept=accept)
    except ApiError as refused:
        if refused.code != 404 or not ref.name:
            raise
        if not ignore_not_found:
            print(f"Error from server ({refused.reason}): {refused}", file=sys.stderr)
        return None


def _objects(api: Api, refs: list[Ref], params: dict[str, str], output: str, ignore_not_found: bool) -> int:
    from control.cli.out import as_json, as_yaml

    found: list[dict[str, Any]] = []
    missing = False
    for ref in refs:
        answer = _ask(api, ref, params, ignore_not_found)
        if answer is None:
            missing = True
            continue
        items = [answer] if ref.name else answer["items"]
        for item in items:  # a list leaves them out of its items
            found.append({"apiVersion": ref.kind.api_version, "kind": ref.kind.kind, **item})
    if output == "name":
        for item in found:
            group = item["apiVersion"].rpartition("/")[0]
            print(f"{item['kind'].lower()}{f'.{group}' if group else ''}/{item['metadata']['name']}")
    elif len(refs) == 1 and refs[0].name:
        if found:
            print(as_json(found[0]) if output == "json" else as_yaml(found[0]))
    else:
        whole = {"apiVersion": "v1", "items": found, "kind": "List", "metadata": {"resourceVersion": ""}}
        print(as_json(whole) if output == "json" else as_yaml(whole))
    return 1 if missing and not ignore_not_found else 0


class _Printer:
    """Collects tables of one shape and prints them as kubectl does."""

    def __init__(self, wide: bool, no_headers: bool, namespaces: bool, labels: bool, prefix: bool) -> None:
        self._wide, self._no_headers, self._namespaces, self._labels, self._prefix = wide, no_headers, namespaces, labels, prefix
        self._header: list[str] = []
        self._rows: list[list[str]] = []
        self._kind: object = None
        self.any = False

    def add(self, ref: Ref, table: dict[str, Any]) -> None:
        if table.get("kind") != "Table":
            raise CliError("the server does not answer with tables; use -o json or -o yaml")
        header, rows = self._cells(ref, table)
        if not rows:
            return
        if self._kind is not None and self._kind is not ref.kind:
            self.flush()
            print()
        self._kind, self._header, self.any = ref.kind, header, True
        self._rows += rows

    def _cells(self, ref: Ref, table: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
        shown = [at for at, column in enumerate(table.get("columnDefinitions") or ()) if self._wide or not column.get("priority")]
        spaces = self._namespaces and ref.kind.namespaced
        header = [table["columnDefinitions"][at]["name"].upper() for at in shown]
        header = [*(["NAMESPACE"] if spaces else []), *header, *(["LABELS"] if self._labels else [])]
        rows = []
        for row in table.get("rows") or ():
            metadata = row.get("object", {}).get("metadata", {})
            cells = ["" if row["cells"][at] is None else str(row["cells"][at]) for at in shown]
            if self._prefix and cells:
                cells[0] = f"{ref.type}/{cells[0]}"
            labels = ",".join(f"{key}={value}" for key, value in sorted((metadata.get("labels") or {}).items())) or "<none>"
            rows.append([*([metadata.get("namespace", "")] if spaces else []), *cells, *([labels] if self._labels else [])])
        return header, rows

    def flush(self) -> None:
        from control.cli.out import columns

        if self._rows:
            print(columns(self._rows if self._no_headers else [self._header, *self._rows]), flush=True)
        self._rows = []


def _watch(api: Api, ref: Ref, params: dict[str, str], output: str, no_headers: bool, namespaces: bool) -> int:
    """The list, then one line per change; ends with the server's stream or Ctrl-C."""
    from control.cli.out import as_json, as_yaml, columns
    from control.cli.refs import Ref as At

    if ref.name:
        params = {**params, "fieldSelector": f"metadata.name={ref.name}"}
    collection = At(ref.kind, ref.namespace)
    objects = output in ("json", "yaml", "name")
    accept = None if objects else TABLE
    printer = _Printer(output == "wide", no_headers, namespaces, False, False)
    widths: list[int] = []

    def show(shown: dict[str, Any]) -> None:
        nonlocal widths
        if objects:
            name = shown["metadata"]["name"]
            print(name if output == "name" else as_json(shown) if output == "json" else f"{as_yaml(shown)}\n---")
        else:
            header, rows = printer._cells(collection, shown)
            fresh = not widths
            body = ([] if no_headers or not fresh else [header]) + rows
            # The first rows decide the widths; later ones are padded to them, as kubectl's are.
            widths = widths or [max(len(row[at]) for row in [header, *rows]) for at in range(len(header))]
            padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in body]
            print(columns(padded))
        sys.stdout.flush()

    listed = api.request("GET", collection.path, params=params, accept=accept)
    for item in listed["items"] if objects else [listed] if listed.get("rows") else []:
        show(item)
    version = listed["metadata"]["resourceVersion"]
    more: dict[str, str | int | bool] = {**params, "watch": "true", "resourceVersion": version, "allowWatchBookmarks": "false"}
    with api.stream(collection.path, params=more, accept=accept) as lines:
        for event in _events(lines):
            show(event)
    return 0


def _events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if not line:
            continue
        event = json.loads(line)
        if event["type"] == "ERROR":
            raise CliError(event["object"].get("message", "the watch was ended by the server"))
        if event["type"] != "BOOKMARK":
            yield event["object"]


def describe(
    what: Annotated[list[str] | None, typer.Argument(help="TYPE NAME…, or TYPE/NAME…")] = None,
    filename: Files = None,
    namespace: Namespace = None,
    selector: Selector = None,
    output: Annotated[str, typer.Option("-o", "--output", help="table (text to read), json or yaml.")] = "table",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Show everything about objects, to be read."""
    from control.cli.out import choose

    api = connect(kubeconfig, context)
    space = namespace or api.target.namespace
    found: list[dict[str, Any]] = []
    for ref in _refs(what, filename, space, space):
        answer = api.request("GET", ref.path, params={"labelSelector": selector} if selector and not ref.name else {})
        items = [answer] if ref.name else answer["items"]
        found += [{"apiVersion": ref.kind.api_version, "kind": ref.kind.kind, **item} for item in items]
    if not found:
        print(f"No resources found in {space} namespace.", file=sys.stderr)
        return 0
    choose(output, found[0] if len(found) == 1 else found, lambda: print("\n\n\n".join(_described(item) for item in found)))
    return 0


def _described(item: dict[str, Any]) -> str:
    """As kubectl describes a custom resource: the well-known first, then the rest by key; values of neighbours aligned."""
    from control.cli.merge import LAST_APPLIED

    metadata = dict(item["metadata"])
    lines: list[tuple[str, str | None]] = [("Name:", metadata.pop("name")), ("Namespace:", metadata.pop("namespace", ""))]
    for key, mark in (("labels", "="), ("annotations", ": ")):
        found = {name: value for name, value in (metadata.pop(key, None) or {}).items() if name != LAST_APPLIED}
        pairs = [f"{name}{mark}{value}" for name, value in sorted(found.items())] or ["<none>"]
        lines += [(f"{key.capitalize()}:" if not at else "", pair.rstrip()) for at, pair in enumerate(pairs)]
    lines += [("API Version:", item["apiVersion"]), ("Kind:", item["kind"])]
    rest = {key: value for key, value in item.items() if key not in ("apiVersion", "kind", "metadata")}
    metadata.pop("managedFields", None)
    if "." in item["apiVersion"].partition("/")[0]:
        lines += _tree({"metadata": metadata, **rest}, 0)
    else:  # kubectl has a page of its own for these; ours is an outline
        lines += _outline({**metadata, **rest}, 0)
    lines.append(("Events:", "<none>"))
    return "\n".join(_aligned(lines))


def _aligned(lines: list[tuple[str, str | None]]) -> Iterator[str]:
    """Lines with a value, as long as they follow each other, have their values in one column."""
    for valued, group in itertools.groupby(lines, key=lambda line: line[1] is not None):
        run = list(group)
        wide = max(len(title) for title, _ in run) + 2
        for title, value in run:
            yield f"{title:<{wide}}{value}".rstrip() if valued else title


def _tree(value: Any, depth: int) -> list[tuple[str, str | None]]:
    pad = "  " * depth
    lines: list[tuple[str, str | None]] = []
    for key, part in sorted(value.items()) if isinstance(value, dict) else enumerate(value):
        title = f"{pad}{_title(key)}:" if isinstance(key, str) else ""
        if isinstance(part, dict | list):
            if title:
                lines.append((title, None))
            lines += _tree(part, depth + isinstance(key, str))  # items stand where their list stands
        else:
            said = str(part).lower() if isinstance(part, bool) else str(part)
            lines.append((title, said) if title else (f"{pad}{said}", None))
    return lines


def _outline(value: dict[str, Any], depth: int) -> list[tuple[str, str | None]]:
    """As ``_tree``, for core kinds: items of lists stand under their name or type, or after a dash."""
    pad = "  " * depth
    lines: list[tuple[str, str | None]] = []
    for key, part in value.items():
        title = f"{pad}{_title(key, plain=True)}:"
        parts = part if isinstance(part, list) else []
        if isinstance(part, dict) and part:
            lines += [(title, None), *_outline(part, depth + 1)]
        elif any(isinstance(one, dict) for one in parts):
            lines.append((title, None))
            for one in parts:
                lines += _item(one, depth + 1)
        elif isinstance(part, dict | list):
            lines.append((title, ", ".join(str(one) for one in parts) or "<none>"))
        else:
            lines.append((title, str(part).lower() if isinstance(part, bool) else str(part)))
    return lines


def _item(one: Any, depth: int) -> list[tuple[str, str | None]]:
    pad = "  " * depth
    if not isinstance(one, dict) or (len(one) == 1 and not isinstance(next(iter(one.values())), dict | list)):
        return [(f"{pad}- {', '.join(str(part) for part in one.values()) if isinstance(one, dict) else one}", None)]
    for key in ("name", "type"):
        if isinstance(one.get(key), str):
            rest = {other: part for other, part in one.items() if other != key}
            return [(f"{pad}{one[key]}:", None), *_outline(rest, depth + 1)]
    lines = _outline(one, depth + 1) or [(f"{pad}  ", None)]
    return [(f"{pad}- {lines[0][0].lstrip()}", lines[0][1]), *lines[1:]]


def _title(key: str, plain: bool = False) -> str:
    """``perTryTimeout`` is shown as ``Per Try Timeout``, ``podIPs`` with kubectl's splits; ``plain``: as ``Pod IPs``."""
    import re

    if not re.fullmatch(r"[A-Za-z0-9]+", key):
        return key
    if plain:
        words = re.findall(r"[A-Z]{2,}s?(?![a-z])|[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", key)
        return " ".join(word.upper() if word in ("uid", "ip", "id") else word[:1].upper() + word[1:] for word in words)
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+|[0-9]+", key)
    return " ".join(word.upper() if word.upper() in ("API", "URL", "UID") else word[:1].upper() + word[1:] for word in words)
