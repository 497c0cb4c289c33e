"""The sidecar's own identity from PEM files, for a sidecar without control (room ``agent``, loud).

In: three paths, and ``take(identity)``. Out: ``IdentityFiles.load()``, at the start and whenever wanted, and ``run()``, which
watches the files. Files that do not fit together are one line in ``problem`` and the log, and the identity at hand stays.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from meshproxy.agent.certificates import BadCertificate, anchor, belongs, moment, read_certificates
from meshproxy.tls.identity import Identity

__all__ = ["IdentityFiles"]

log = logging.getLogger("meshproxy.identity")
_POLL = 1.0  # seconds between looks at the files


class IdentityFiles:
    """``identity``: what is in force, or None. ``problem``: one line while the files as they are cannot be used, else "".

    ``loads``: how often files were taken; ``failures``: how often they could not be.
    """

    def __init__(
        self,
        certificate: Path,
        key: Path,
        roots: Path,
        take: Callable[[Identity], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``clock()`` is wall time."""
        self._certificate, self._key, self._roots = certificate, key, roots
        self._take = take
        self._clock = clock
        self._seen: tuple[tuple[int, int, int] | None, ...] = ()
        self.identity: Identity | None = None
        self.problem = ""
        self.loads = 0
        self.failures = 0

    async def run(self) -> None:
        """Watch until cancelled. Files that change are taken once they rest: they are replaced one after the other."""
        before = self._marks()
        while True:
            await asyncio.sleep(_POLL)
            marks = self._marks()
            if marks != self._seen and marks == before:
                self.load()
            before = marks

    def load(self) -> None:
        """Read the files now."""
        self._seen = self._marks()
        try:
            identity = self._read()
            if identity != self.identity:
                self._take(identity)
        except BadCertificate as bad:
            problem = str(bad)
        except ValueError as error:  # the data path cannot use it
            problem = f"{self._certificate}: {error}"
        except Exception:
            log.exception("bug in reading %s", self._certificate)
            problem = f"{self._certificate}: internal error"
        else:
            self.problem = ""
            if identity != self.identity:
                self.identity = identity
                self.loads += 1
                self._tell(identity)
            return
        self.failures += 1
        if problem != self.problem:
            log.error("%s%s", problem, "; the identity stays as it was" if self.identity is not None else "")
        self.problem = problem

    def _tell(self, identity: Identity) -> None:
        log.info("certificate of %s: until %s", identity.uri, moment(identity.expires))
        if identity.expires <= self._clock():
            log.error("%s: has ended at %s: peers refuse us", self._certificate, moment(identity.expires))
        elif not identity.issuer:
            log.warning("%s: does not stand under a root of %s", self._certificate, self._roots)

    def _read(self) -> Identity:
        """Raises ``BadCertificate`` with everything that is wrong."""
        found: dict[Path, bytes] = {}
        problems = []
        for path in (self._certificate, self._key, self._roots):
            try:
                found[path] = path.read_bytes()
                if path != self._key:
                    read_certificates(found[path])
            except OSError as error:
                problems.append(f"{path}: {error.strerror}")
            except BadCertificate as bad:
                problems.append(f"{path}: {bad}")
        if problems:
            raise BadCertificate("; ".join(problems))
        chain, roots = found[self._certificate], found[self._roots]
        (leaf, *_) = read_certificates(chain)
        try:
            ours = belongs(chain, found[self._key])
        except BadCertificate as bad:
            raise BadCertificate(f"{self._key}: {bad}") from None
        now = self._clock()
        if not ours:
            raise BadCertificate(f"{self._key}: is not the key of {self._certificate}")
        if not leaf.uri:
            raise BadCertificate(f"{self._certificate}: names no spiffe:// identity")
        if leaf.not_after <= now and self.identity is not None and self.identity.expires > now:
            raise BadCertificate(f"{self._certificate}: ended at {moment(leaf.not_after)}")
        return Identity(chain, found[self._key], (roots,), anchor(chain, [roots]), leaf.not_after, leaf.uri)

    def _marks(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_mark(path) for path in (self._certificate, self._key, self._roots))


def _mark(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return (stat.st_mtime_ns, stat.st_ino, stat.st_size)
