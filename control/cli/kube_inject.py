"""``meshctl kube-inject``: put the sidecar into what files describe, as the webhook would on a cluster.

In: files or stdin. Out: the same stream with sidecars, on stdout or in a file. Documents that get none stay byte for byte as
they were; those that do are written anew, in their fields' order, with the comments above them but not those inside. Nothing
is printed when a document is refused: what stands behind a pipe must not apply half of it.
"""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

import typer

from control.cli.errors import CliError
from control.cli.options import Context, Files, Kubeconfig, More, Namespace, also, examples

if TYPE_CHECKING:
    from injector.settings import Settings

__all__ = ["cluster_settings", "register"]

SETTINGS_MAP, MESH_MAP, ROOT = "istio-sidecar-injector", "istio", "istio-system"
PATIENCE = 5.0  # seconds for a cluster that may not be there
_MARK = re.compile(r"^---(?=\s|\Z)", re.MULTILINE)
_HEAD = re.compile(r"\A(?:(?:---[ \t]*)?(?:#[^\n]*)?\r?\n|%[^\n]*\n)*")
_DIRECTIVE = re.compile(r"\A(?:[ \t]*(?:#[^\n]*)?\r?\n)*%")

Output = Annotated[str | None, typer.Option("-o", "--output", help="File to write to, instead of stdout.")]
ValuesFile = Annotated[str | None, typer.Option("--valuesFile", help="The injector's settings in a file, not the cluster's.")]
MeshFile = Annotated[str | None, typer.Option("--meshConfigFile", help="The MeshConfig in a file, not the cluster's.")]
ValuesMap = Annotated[str | None, typer.Option("--injectConfigMapName", help=f"ConfigMap of the settings ({SETTINGS_MAP}).")]
MeshMap = Annotated[str | None, typer.Option("--meshConfigMapName", help=f"ConfigMap of the MeshConfig ({MESH_MAP}).")]
Root = Annotated[str | None, typer.Option("-i", "--istioNamespace", help=f"The mesh's namespace ({ROOT}).")]
Revision = Annotated[str | None, typer.Option("-r", "--revision", help="The revision whose settings are used.")]


def register(app: typer.Typer) -> None:
    app.command(
        "kube-inject",
        epilog=examples(
            "meshctl kube-inject -f service-book.yml | kubectl apply -f -",
            "kubectl get deploy book -o yaml | meshctl kube-inject -f - -o injected.yml",
        ),
    )(kube_inject)


def kube_inject(
    more: More = None,
    filename: Files = None,
    output: Output = None,
    namespace: Namespace = None,
    values_file: ValuesFile = None,
    mesh_config_file: MeshFile = None,
    inject_config_map: ValuesMap = None,
    mesh_config_map: MeshMap = None,
    istio_namespace: Root = None,
    revision: Revision = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Put the sidecar into files: pods, and all that makes pods."""
    from control.cli.out import warn
    from control.cli.refs import texts

    files = also(filename, more, bare=False)
    home = "default"  # of what names no namespace
    if values_file is not None:
        settings = _from_files(values_file, mesh_config_file, istio_namespace, revision)
    else:
        asked = bool(inject_config_map or mesh_config_map or istio_namespace or revision or kubeconfig or context)
        suffix = f"-{revision}" if revision and revision != "default" else ""
        names = (inject_config_map or SETTINGS_MAP + suffix, mesh_config_map or MESH_MAP + suffix)
        settings, note, home = cluster_settings(names, istio_namespace or ROOT, kubeconfig, context, mesh_config_file, asked)
        warn([note] if note else [])
    done: list[str] = []
    refused: list[str] = []
    for name in files:
        for source, text in texts(name):
            parts, notes, errors = _stream(source, text, namespace or home, settings)
            for note in notes:
                print(note, file=sys.stderr)
            refused += errors
            if done and parts and not _MARK.match(parts[0]):
                done.append("---\n")
            done += parts
    if refused:
        raise CliError("\nerror: ".join(refused))
    whole = "".join(done)
    if output is None or output == "-":
        sys.stdout.write(whole)
        return 0
    try:
        with open(output, "w", encoding="utf-8", newline="") as file:
            file.write(whole)
    except OSError as failure:
        raise CliError(f"{output}: cannot be written: {failure.strerror}") from None
    return 0


def _stream(source: str, text: str, namespace: str, settings: Settings) -> tuple[list[str], list[str], list[str]]:
    """The parts of the text, what to tell, and what is refused."""
    from control.yamltext import YamlProblem, documents
    from injector.annotations import BadPod
    from injector.manifest import into

    parts: list[str] = []
    notes: list[str] = []
    errors: list[str] = []
    for chunk in _chunks(text):
        try:
            values = documents(chunk, aliases=True)
            found = [into(_plain(value), namespace, settings) for value in values]
        except YamlProblem as problem:
            errors.append(f"error parsing {source}: {problem}")
            continue
        except BadPod as bad:
            errors += [f"{source}: {line}" for line in bad.errors]
            continue
        notes += [note for one in found for note in one.notes]
        changed = any(one.changed for one in found)
        parts.append(_written(chunk, [one.object for one in found if one.object is not None]) if changed else chunk)
        if not parts[-1].endswith("\n") and parts[-1]:
            parts[-1] += "\n"
    return parts, notes, errors


def _chunks(text: str) -> list[str]:
    """The documents of a stream with all that stands around them: together they are the text."""
    starts = sorted({0, *(found.start() for found in _MARK.finditer(text)), len(text)})
    parts = [text[begin:end] for begin, end in pairwise(starts)]
    joined: list[str] = []
    for part in parts:
        if joined and _DIRECTIVE.match(joined[-1]) and not _MARK.search(joined[-1]):
            joined[-1] += part  # %YAML belongs to the document that follows
        else:
            joined.append(part)
    return joined


def _plain(value: Any) -> Any:
    """As JSON: an alias becomes its value, a key a text."""
    import msgspec

    return msgspec.json.decode(msgspec.json.encode(value))


def _written(chunk: str, values: list[Any]) -> str:
    from control.cli.out import as_json, as_yaml

    values = [_plain(value) for value in values]  # what stands in it twice is written twice
    found = _HEAD.match(chunk)
    head = found[0] if found is not None else ""
    if chunk[len(head) :].lstrip().startswith("{"):
        return head + "\n---\n".join(as_json(value, sort=False) for value in values) + "\n"
    if not head and _MARK.match(chunk):  # the document begins on the line of the mark
        head = "---\n"
    return head + "\n---\n".join(as_yaml(value, sort=False) for value in values) + "\n"


def _from_files(values: str, mesh: str | None, root: str | None, revision: str | None) -> Settings:
    import msgspec

    settings = _judged(_file(values), _file(mesh) if mesh else "", values)
    changes = {"root_namespace": root, "revision": revision}
    return msgspec.structs.replace(settings, **{key: value for key, value in changes.items() if value})


def _file(name: str) -> str:
    try:
        with open(name, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        raise CliError(f'the path "{name}" does not exist') from None
    except (OSError, UnicodeDecodeError) as failure:
        raise CliError(f"{name}: cannot be read: {failure}") from None


def _judged(values: str, mesh: str, source: str) -> Settings:
    from injector.annotations import check_settings
    from injector.settings import BadSettings, Settings, with_mesh

    try:
        settings = Settings.read(values)
        return check_settings(with_mesh(settings, mesh) if mesh else settings)
    except BadSettings as bad:
        raise CliError(f"{source}: {bad}") from None


def cluster_settings(
    names: tuple[str, str], root: str, kubeconfig: str | None, context: str | None, mesh_file: str | None, asked: bool
) -> tuple[Settings, str, str]:
    """What the cluster's injector uses, a note when defaults stand in for it (``asked``: then that is an error), and the
    kubeconfig's namespace."""
    import os
    from pathlib import Path

    from control.cli.options import opened
    from control.client.api import Api, ApiError, Unreachable
    from control.client.kubeconfig import BadKubeconfig, find, load

    mesh = _file(mesh_file) if mesh_file else ""
    home = "default"
    try:
        api = Api(load(find(kubeconfig, os.environ, Path.cwd()), context), timeout=PATIENCE)
        home = api.target.namespace
        opened.append(api)
        values = _data(api, root, names[0], "values")
        mesh = mesh or _data(api, root, names[1], "mesh", needed=False)
    except (BadKubeconfig, Unreachable, ApiError) as failure:
        if asked:
            raise
        why = f"no ConfigMap {names[0]} in {root}" if isinstance(failure, ApiError) and failure.code == 404 else str(failure)
        return _judged("", mesh, mesh_file or "defaults"), f"injecting with default settings: {why}", home
    return _judged(values, mesh, f"configmap/{names[0]}"), "", home


def _data(api: Any, namespace: str, name: str, key: str, needed: bool = True) -> str:
    from control.client.api import ApiError

    try:
        found = api.request("GET", f"/api/v1/namespaces/{namespace}/configmaps/{name}")
    except ApiError as refused:
        if refused.code == 404 and not needed:
            return ""
        raise
    return str((found.get("data") or {}).get(key) or "")
