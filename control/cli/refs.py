"""What a command line points at: kinds by any of their names, objects by type and name or by file.

In: words and files. Out: ``Kind``s, ``Ref``s (a path in the API and kubectl's name for it) and documents of files.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control.cli.errors import CliError
from control.resources.kinds import KINDS, Kind, by_kind

__all__ = ["Document", "Ref", "documents", "kinds_of", "named", "ref_of", "texts"]

Obj = dict[str, Any]


@dataclass(frozen=True)
class Ref:
    """One object, or with ``name`` "" a collection, in the API."""

    kind: Kind
    namespace: str | None  # None: cluster-wide
    name: str = ""
    version: str = ""

    @property
    def path(self) -> str:
        from urllib.parse import quote

        group, version = self.kind.group, self.version or self.kind.versions[0]
        parts = ["apis", group, version] if group else ["api", version]
        if self.namespace is not None and self.kind.namespaced:
            parts += ["namespaces", self.namespace]
        parts.append(self.kind.plural)
        if self.name:
            parts.append(self.name)
        return "/" + "/".join(quote(part, safe="") for part in parts)

    @property
    def collection(self) -> str:
        return Ref(self.kind, self.namespace, "", self.version).path

    @property
    def type(self) -> str:
        """``virtualservice.networking.istio.io``; core kinds have no suffix."""
        return f"{self.kind.singular}.{self.kind.group}" if self.kind.group else self.kind.singular

    @property
    def said(self) -> str:
        return f"{self.type}/{self.name}"


@dataclass(frozen=True)
class Document:
    """One object of a file."""

    source: str
    object: Obj


def kinds_of(words: str) -> tuple[Kind, ...]:
    """The kinds meant by ``vs,dr``, ``virtualservices.networking.istio.io``, ``all``, ``istio-io``. Raises ``CliError``."""
    found: list[Kind] = []
    for word in filter(None, words.split(",")):
        short, _, group = word.lower().partition(".")
        matches = [
            kind
            for kind in KINDS
            if short in (kind.plural, kind.singular, *kind.short_names) and (not group or _in_group(kind, group))
        ]
        matches = matches[:1] or [kind for kind in KINDS if word.lower() in kind.categories]
        if not matches:
            raise CliError(f'the server doesn\'t have a resource type "{word}"{_nearest(short)}')
        found += [kind for kind in matches if kind not in found]
    if not found:
        raise CliError("name a type, such as pods or virtualservices", code=2)
    return tuple(found)


def _in_group(kind: Kind, group: str) -> bool:
    """``networking.istio.io``, ``v1.networking.istio.io`` or a beginning of it."""
    version, _, rest = group.partition(".")
    return kind.group.startswith(rest) and bool(rest) if version in kind.versions else kind.group.startswith(group)


def _nearest(word: str) -> str:
    import difflib

    names = [name for kind in KINDS for name in (kind.plural, kind.singular, *kind.short_names)]
    near = difflib.get_close_matches(word, names, 1)
    return f"; did you mean {near[0]}?" if near else ""


def named(words: Sequence[str], namespace: str) -> list[Ref]:
    """``TYPE NAME…``, ``TYPE/NAME…`` or ``TYPE`` alone (collections). Raises ``CliError``."""
    if not words:
        return []
    if any("/" in word for word in words):
        refs = []
        for word in words:
            type_, slash, name = word.partition("/")
            if not slash or not name:
                raise CliError(f"{word}: give every object as TYPE/NAME, or one TYPE and then names", code=2)
            refs += [_at(kind, namespace, name) for kind in kinds_of(type_)]
        return refs
    kinds = kinds_of(words[0])
    names = words[1:] or [""]
    return [_at(kind, namespace, name) for kind in kinds for name in names]


def _at(kind: Kind, namespace: str | None, name: str, version: str = "") -> Ref:
    return Ref(kind, namespace if kind.namespaced else None, name, version)


def ref_of(document: Document, namespace: str) -> Ref:
    """Where a document belongs. Raises ``CliError`` in kubectl's words."""
    value = document.object
    api_version, kind_name = value.get("apiVersion"), value.get("kind")
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(api_version, str) or not isinstance(kind_name, str) or not isinstance(metadata, dict):
        raise CliError(f"{document.source}: apiVersion, kind and metadata must be set")
    try:
        kind = by_kind(api_version, kind_name)
    except KeyError:
        raise CliError(
            f'resource mapping not found for name: "{name}" namespace: "" from "{document.source}": '
            f'no matches for kind "{kind_name}" in version "{api_version}"'
        ) from None
    if not isinstance(name, str) or not name:
        raise CliError(f"{document.source}: metadata.name: must be set")
    return _at(kind, metadata.get("namespace") or namespace, name, api_version.rpartition("/")[2])


def documents(files: Iterable[str]) -> Iterator[Document]:
    """Every object of the files; Lists are opened. Raises ``CliError`` with the file and what is wrong."""
    for name in files:
        for source, text in texts(name):
            for value in _load(source, text):
                items = value.get("items") if str(value.get("kind", "")).endswith("List") else None
                yield from (Document(source, item) for item in (items if isinstance(items, list) else [value]))


def texts(name: str) -> Iterator[tuple[str, str]]:
    """Source and text of a file, of every file of a directory, or of stdin (``-``). Raises ``CliError``."""
    if name == "-":
        yield "STDIN", sys.stdin.read()
        return
    path = Path(name)
    if path.is_dir():
        inside = sorted(entry for entry in path.iterdir() if entry.suffix in (".yml", ".yaml", ".json"))
        if not inside:
            raise CliError(f"{name}: no .yml, .yaml or .json file in this directory")
    else:
        inside = [path]
    for entry in inside:
        try:
            yield str(entry), entry.read_text()
        except FileNotFoundError:
            raise CliError(f'the path "{name}" does not exist') from None
        except (OSError, UnicodeDecodeError) as failure:
            raise CliError(f"{entry}: cannot be read: {failure}") from None


def _load(source: str, text: str) -> Iterator[Obj]:
    from control.yamltext import YamlProblem, documents

    try:
        values = documents(text, aliases=True)
    except YamlProblem as failure:
        raise CliError(f"error parsing {source}: {failure}") from None
    for value in values:
        if value is None:
            continue
        if not isinstance(value, dict):
            raise CliError(f"{source}: holds a {type(value).__name__} where an object with apiVersion and kind should be")
        yield value
