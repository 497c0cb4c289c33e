"""Where the API is and how to be let in: reading kubeconfig files as kubectl does.

In: an explicit path, ``$KUBECONFIG`` (a path list: the first value of each entry wins), ``.mesh/kubeconfig`` of the working
directory, ``~/.kube/config``; in that order. Out: one frozen ``Target``. Secrets never show in a repr.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

__all__ = ["BadKubeconfig", "Target", "find", "load"]


class BadKubeconfig(Exception):
    """No usable kubeconfig; the message is one line that says what to do."""


@dataclass(frozen=True)
class Target:
    """An API server and the credentials for it."""

    server: str
    namespace: str
    source: str  # the file this came from
    token: str = field(default="", repr=False)
    ca: str = field(default="", repr=False)  # PEM
    client_cert: str = ""  # paths of PEM files
    client_key: str = ""
    insecure: bool = False

    def ssl_context(self) -> ssl.SSLContext:
        """A context that trusts exactly the kubeconfig's CA (the system's when it names none)."""
        context = ssl.create_default_context(cadata=self.ca or None)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.client_cert:
            context.load_cert_chain(self.client_cert, self.client_key or None)
        return context


def find(explicit: str | None, environ: Mapping[str, str], cwd: Path) -> tuple[Path, ...]:
    """The files to read, in order of precedence. Raises ``BadKubeconfig`` when there is none."""
    if explicit:
        if not Path(explicit).is_file():
            raise BadKubeconfig(f"--kubeconfig {explicit}: no such file")
        return (Path(explicit),)
    if environ.get("KUBECONFIG"):
        named = [Path(part) for part in environ["KUBECONFIG"].split(os.pathsep) if part]
        there = tuple(path for path in named if path.is_file())
        if not there:
            raise BadKubeconfig(f"KUBECONFIG={environ['KUBECONFIG']}: no such file; start a mesh with `meshctl demo`")
        return there
    home = Path(environ.get("HOME", "/")) / ".kube" / "config"
    for path in (cwd / ".mesh" / "kubeconfig", home):
        if path.is_file():
            return (path,)
    raise BadKubeconfig("no kubeconfig: set KUBECONFIG, pass --kubeconfig FILE, or start a mesh here with `meshctl demo`")


def load(paths: Iterable[Path], context: str | None = None) -> Target:
    """Read the current (or the named) context. Raises ``BadKubeconfig`` with the file and the field."""
    named: dict[str, dict[str, tuple[Path, dict[str, Any]]]] = {"clusters": {}, "users": {}, "contexts": {}}
    current = context
    first: Path | None = None
    for path in paths:
        document = _document(path)
        first = first or path
        current = current or document.get("current-context")
        for section, entries in named.items():
            for entry in document.get(section) or ():
                entries.setdefault(entry.get("name"), (path, entry.get(section[:-1]) or {}))
    if first is None:
        raise BadKubeconfig("no kubeconfig file was named")
    if not current or current not in named["contexts"]:
        raise BadKubeconfig(f"{first}: context {current!r} is not there; contexts: {', '.join(named['contexts']) or 'none'}")
    chosen = named["contexts"][current][1]
    try:
        at, cluster = named["clusters"][chosen["cluster"]]
        user_at, user = named["users"].get(chosen.get("user", ""), (first, {}))
        server = str(cluster["server"]).rstrip("/")
    except KeyError as missing:
        raise BadKubeconfig(f"{first}: context {current!r}: {missing} is missing") from None
    if "exec" in user or "auth-provider" in user:
        raise BadKubeconfig(f"{user_at}: exec credentials are not supported; use a token or client certificate files")
    return Target(
        server=server,
        namespace=chosen.get("namespace") or "default",
        source=str(first),
        token=_text(user, "token", "tokenFile", user_at),
        ca=_pem(cluster, "certificate-authority", at),
        client_cert=_path(user, "client-certificate", user_at),
        client_key=_path(user, "client-key", user_at),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
    )


def _document(path: Path) -> dict[str, Any]:
    try:
        document = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as failure:
        raise BadKubeconfig(f"{path}: {' '.join(str(failure).split())}") from None
    if not isinstance(document, dict):
        raise BadKubeconfig(f"{path}: not a kubeconfig")
    return document


def _text(user: dict[str, Any], key: str, file_key: str, at: Path) -> str:
    if user.get(key):
        return str(user[key])
    if user.get(file_key):
        return (at.parent / str(user[file_key])).read_text().strip()
    return ""


def _pem(cluster: dict[str, Any], key: str, at: Path) -> str:
    if cluster.get(f"{key}-data"):
        try:
            return base64.b64decode(cluster[f"{key}-data"]).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise BadKubeconfig(f"{at}: clusters: {key}-data is not base64 of PEM") from None
    if cluster.get(key):
        return (at.parent / str(cluster[key])).read_text()
    return ""


def _path(user: dict[str, Any], key: str, at: Path) -> str:
    if user.get(f"{key}-data"):
        raise BadKubeconfig(f"{at}: users: {key}-data is not supported; write it to a file and name that in {key}")
    return str(at.parent / user[key]) if user.get(key) else ""
