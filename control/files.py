"""Private files, written so that a crash leaves the old one or the new one, never half of either.

In: a path and bytes. Out: ``write_private`` and ``read_private``; ``FileProblem`` with one line that says what to do.
Assumes a POSIX file system.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

__all__ = ["FileProblem", "read_private", "write_private"]


class FileProblem(Exception):
    """A state file cannot be used; the message is one line with the path and the remedy."""


def write_private(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace ``path`` by ``data`` atomically and durably; the file never exists with wider permissions than ``mode``.

    Raises ``FileProblem`` when that cannot be done (no space, no right, a directory of that name); the old file then stays.
    """
    try:
        _replace(path, data, mode)
        sync_directory(path.parent)
    except OSError as error:
        raise FileProblem(f"{path}: cannot be written: {error.strerror}") from error


def _replace(path: Path, data: bytes, mode: int) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp creates 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def sync_directory(path: Path) -> None:
    """A rename is durable only once the directory that holds it is."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_private(path: Path) -> bytes:
    """The bytes of a secret file. Raises ``FileProblem`` when unreadable, empty, or open to other users."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read()
    except OSError as error:
        raise FileProblem(f"{path}: cannot be read: {error.strerror}") from error
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid not in (os.geteuid(), 0):
        raise FileProblem(f"{path}: belongs to another user (uid {status.st_uid}), who may know it: remove it, or `chown` it")
    if mode & 0o077:
        raise FileProblem(f"{path}: is open to other users (mode {mode:04o}): run `chmod 600 {path}`")
    if not data:
        raise FileProblem(f"{path}: is empty: restore it from a backup, or remove it to have a new one made")
    return data
