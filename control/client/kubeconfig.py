"""Where the API is and how to be let in: reading kubeconfig files as kubectl does.

In: an explicit path, ``$KUBECONFIG`` (a path list: the first value of each entry wins), ``.mesh/kubeconfig`` of the working
directory, ``~/.kube/config``; in that order. Out: one frozen ``Target``. Secrets never show in a repr.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from control.client.credentials import NoCredentials, decoded, from_program

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
    client_pem: str = field(default="", repr=False)  # certificate and key in place of the paths
    insecure: bool = False

    def ssl_context(self) -> ssl.SSLContext:
        """A context that trusts exactly the kubeconfig's CA (the system's when it names none)."""
        context = ssl.create_default_context(cadata=self.ca or None)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.client_pem:
            with tempfile.TemporaryDirectory(prefix="meshctl-") as directory:  # the ssl module loads from files only
                path = Path(directory, "client.pem")
                path.touch(mode=0o600)
                path.write_text(self.client_pem)
                context.load_cert_chain(path)
        elif self.client_cert:
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
    if "auth-provider" in user:
        raise BadKubeconfig(f"{user_at}: auth-provider is not supported; Kubernetes has replaced it by exec")
    token, client_pem = _text(user, "token", "tokenFile", user_at), ""
    try:
        if isinstance(user.get("exec"), dict):
            made = from_program(user["exec"])
            token, client_pem = made.token, f"{made.certificate}\n{made.key}" if made.certificate else ""
        elif user.get("client-certificate-data") or user.get("client-key-data"):
            client_pem = "\n".join(_either(user, name, user_at) for name in ("client-certificate", "client-key"))
    except NoCredentials as problem:
        raise BadKubeconfig(f"{user_at}: users: {problem}") from None
    return Target(
        server=server,
        namespace=chosen.get("namespace") or "default",
        source=str(first),
        token=token,
        ca=_pem(cluster, "certificate-authority", at),
        client_cert="" if client_pem else _path(user, "client-certificate", user_at),
        client_key="" if client_pem else _path(user, "client-key", user_at),
        client_pem=client_pem,
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


def _either(user: dict[str, Any], name: str, at: Path) -> str:
    path = _path(user, name, at)
    return decoded(user, name) or (Path(path).read_text() if path else "")


def _path(user: dict[str, Any], key: str, at: Path) -> str:
    return str(at.parent / user[key]) if user.get(key) else ""
