"""What was taken back, for all replicas (room ``cluster``): a ConfigMap in front of the ledger of each.

In: revocations at one replica, and the ConfigMap as others have written it. Out: ``ClusterLedger``, a ``Ledger`` whose
revocations are durable in the ConfigMap before they are acknowledged; ``adopt`` takes over what others wrote. The certificates
that were issued are known to the replica that issued them, in its own file: they end by themselves.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable
from pathlib import Path

import msgspec

from control.ca.database import REMEMBERED
from control.ca.ledger import Ledger, Row
from control.cluster.names import REVOCATIONS
from control.files import FileProblem

__all__ = ["REVOCATIONS", "ClusterLedger", "Revoked", "read", "written"]

KEY = "revocations"
LONGEST = 90 * 86400.0  # a certificate of another replica's: how long it may still last
MOST = 900_000  # bytes of the ConfigMap; the cluster takes 1 MiB


class _Serial(msgspec.Struct, frozen=True, array_like=True):
    identity: str
    pod: str
    key: str
    at: float
    expires: float


class Revoked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Identities with the time of their revocation; serials with what is known of them."""

    identities: dict[str, float] = {}
    serials: dict[str, _Serial] = {}


Edit = Callable[[Revoked], Revoked]


def read(data: dict[str, bytes] | None) -> Revoked:
    """Raises ``FileProblem``: what was revoked must not come back because it cannot be read."""
    if not data or KEY not in data:
        return Revoked()
    try:
        return msgspec.json.decode(gzip.decompress(base64.b64decode(data[KEY])), type=Revoked)
    except (ValueError, OSError, EOFError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FileProblem(f"ConfigMap {REVOCATIONS}: is damaged: restore it, for it knows what is revoked") from error


def written(revoked: Revoked) -> dict[str, bytes]:
    packed = base64.b64encode(gzip.compress(msgspec.json.encode(revoked), mtime=0))
    if len(packed) > MOST:
        raise FileProblem(f"ConfigMap {REVOCATIONS}: is full: revoke identities instead of their certificates")
    return {KEY: packed}


class ClusterLedger(Ledger):
    """``edit`` changes the ConfigMap, durably, and gives what is in it then; it runs in the authority's thread and raises
    ``FileProblem``.
    """

    def __init__(self, path: Path, edit: Callable[[Edit], Revoked]) -> None:
        super().__init__(path)
        self._edit = edit

    def adopt(self, revoked: Revoked) -> bool:
        """From now on this is what is revoked; False: it was that already."""
        serials, identities = self.revoked_serials(), self.revoked_identities()
        if serials.keys() == revoked.serials.keys() and identities.keys() == revoked.identities.keys():
            return False
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("DELETE FROM revoked_serials")
        self._db.execute("DELETE FROM revoked_identities")
        rows = [(serial, one.identity, one.pod, one.key, one.at, one.expires) for serial, one in revoked.serials.items()]
        self._db.executemany("INSERT INTO revoked_serials VALUES (?, ?, ?, ?, ?, ?)", rows)
        self._db.executemany("INSERT INTO revoked_identities VALUES (?, ?)", list(revoked.identities.items()))
        self._db.execute("COMMIT")
        return True

    def find(self, serial: str) -> Row | None:
        """One that another replica issued can be revoked as well: of that only the serial is known."""
        found = super().find(serial)
        return found or Row(serial, "", "", "", "", "", 0.0, 0.0)

    def revoke_serial(self, row: Row, now: float) -> None:
        pod = f"{row.namespace}/{row.pod}" if row.pod else ""
        entry = _Serial(row.identity, pod, row.key, now, row.expires or now + LONGEST)
        self.adopt(self._edit(lambda was: _fresh(was, now, serials={**was.serials, row.serial: entry})))

    def revoke_identity(self, identity: str, now: float) -> None:
        self.adopt(self._edit(lambda was: _fresh(was, now, identities={identity: now, **was.identities})))

    def restore(self, identity: str) -> bool:
        there = identity in self.revoked_identities()
        without = lambda was: Revoked({one: at for one, at in was.identities.items() if one != identity}, was.serials)  # noqa: E731
        self.adopt(self._edit(without))
        return there

    def prune(self, now: float) -> bool:
        """Only of what was issued here: the ConfigMap is tidied when it is written."""
        self._db.execute("DELETE FROM issued WHERE expires < ?", (now,))
        return False


def _fresh(
    was: Revoked, now: float, *, identities: dict[str, float] | None = None, serials: dict[str, _Serial] | None = None
) -> Revoked:
    kept = was.serials if serials is None else serials
    return Revoked(
        was.identities if identities is None else identities,
        {serial: one for serial, one in kept.items() if one.expires >= now - REMEMBERED},
    )
