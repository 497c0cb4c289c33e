"""Configuration from a file instead of control: read at the start, on SIGHUP, and when the file changes. Loud.

In: a JSON file ``{"resources": [delivery.Resource, ...]}`` or a directory of such files. Out: ``install(candidate)``; a bad
file is one line in the log and the last good configuration stays.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from meshproxy.agent.state import Candidate, State, load
from meshproxy.model.delivery import Nack, Resource

__all__ = ["FileSource"]

log = logging.getLogger("meshproxy.config")
_POLL = 0.5  # seconds between looks at the files
_AGAIN = 5.0  # seconds after which files that could not be obeyed are tried again: a port may have become free


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    resources: list[Resource]


class FileSource:
    """``problem``: one line while the files as they are cannot be obeyed, else ""."""

    def __init__(self, path: Path, state: State, install: Callable[[Candidate], Iterable[Nack]]) -> None:
        self._path = path
        self._state = state
        self._install = install
        self._seen: tuple[tuple[str, int, int, int], ...] = ()
        self.problem = ""

    async def run(self) -> None:
        """Watch until cancelled."""
        waited = 0.0
        while True:
            if self._marks() != self._seen or (self.problem and waited >= _AGAIN):
                self.load()
                waited = 0.0
            await asyncio.sleep(_POLL)
            waited += _POLL

    def load(self) -> None:
        """Read the files now."""
        self._seen = self._marks()
        try:
            problem = self._load()
        except Exception:
            log.exception("bug in reading %s", self._path)
            problem = f"{self._path}: internal error; the last good configuration stays"
        if problem and problem != self.problem:
            log.error("%s", problem)
        self.problem = problem

    def _files(self) -> list[Path]:
        return sorted(self._path.glob("*.json")) if self._path.is_dir() else [self._path]

    def _marks(self) -> tuple[tuple[str, int, int, int], ...]:
        marks = []
        for path in self._files():
            try:
                stat = path.stat()
            except OSError:
                continue
            marks.append((path.name, stat.st_mtime_ns, stat.st_ino, stat.st_size))
        return tuple(marks)

    def _load(self) -> str:
        resources: list[Resource] = []
        digest = hashlib.sha256()
        for path in self._files():
            try:
                data = path.read_bytes()
                resources += msgspec.json.decode(data, type=_Document).resources
            except OSError as error:
                return f"{path}: {error.strerror}; the last good configuration stays"
            except (msgspec.DecodeError, RecursionError) as error:
                return f"{path}: {error}; the last good configuration stays"
            digest.update(data)
        version = digest.hexdigest()[:16]
        if version == self._state.version and not self.problem:
            return ""  # it runs already
        judged = load(self._state, resources, version)
        nacks = tuple(self._install(judged)) if isinstance(judged, Candidate) else judged
        if nacks:
            return f"{self._path}: {nacks[0].kind} {nacks[0].name}: {nacks[0].error}; the last good configuration stays"
        assert isinstance(judged, Candidate)
        self._state.commit(judged)
        return ""
