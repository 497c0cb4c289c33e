"""The certificate authority at work (room ``ca``): signs for callers, takes back, says whom to trust.

In: proven callers and their requests, commands of an admin. Out: signed certificates, the current ``Trust``, and a call of
``changed`` after every change of it, so that sidecars hear at once. Signing and the ledger's disk are in one thread of their own:
the event loop that streams configuration never waits for either.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cryptography.hazmat.primitives import hashes, serialization

from control.ca.authority import Authority
from control.ca.issuer import PublicKey, pem
from control.ca.ledger import Ledger, Row
from control.ca.request import Forbidden, public_key, spiffe
from control.files import FileProblem
from control.identity import ProxyIdentity
from meshproxy.model.delivery import SignedCertificate
from meshproxy.model.security import Trust

__all__ = ["DEFAULT_CERT_TTL", "MAX_CERT_TTL", "MIN_CERT_TTL", "WARN", "CertificateAuthority", "Ended", "TooMany"]

log = logging.getLogger("mesh.control.ca")
DEFAULT_CERT_TTL = 24 * 3600.0
MIN_CERT_TTL = 2.0  # for tests and demonstrations
MAX_CERT_TTL = 90 * 24 * 3600.0  # Istio's
MAX_REVOKED = 10_000  # serials; every sidecar holds them
PRUNE = 60.0  # seconds
DAY = 86400.0
WARN = 90 * DAY  # before the end of an authority, from when on it is told
T = TypeVar("T")


class Ended(Exception):
    """The authority itself has expired: nothing it signed would be believed."""


class TooMany(Exception):
    """More revoked certificates than every sidecar should have to hold."""


class CertificateAuthority:
    """``domain()`` is the trust domain of now, ``ttl`` the seconds that a workload's certificate lives."""

    def __init__(
        self,
        authority: Authority,
        ledger: Ledger,
        domain: Callable[[], str],
        ttl: float = DEFAULT_CERT_TTL,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.authority = authority
        self.ledger = ledger
        self.changed: Callable[[], Awaitable[None]] = _nobody
        self._changes = self._told = 0  # how many there were, and how many of them everybody was told
        self.domain = domain
        self.ttl = ttl
        self._wall = wall
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ca")
        ledger.prune(wall())
        self._read_revoked()

    async def close(self) -> None:
        """Finishes what has begun."""
        await self.off_loop(self.ledger.close)
        self._thread.shutdown()

    async def off_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # -- signing ---------------------------------------------------------------------------------------------------------

    def identity(self, caller: ProxyIdentity) -> str:
        return spiffe(self.domain(), caller.namespace, caller.service_account)

    async def sign(self, caller: ProxyIdentity, csr: str) -> SignedCertificate:
        """Raises ``request.BadRequest``, ``request.Forbidden`` or ``Ended``."""
        identity = self.identity(caller)
        return await self.off_loop(lambda: self._sign(caller, identity, csr))

    def _sign(self, caller: ProxyIdentity, identity: str, csr: str) -> SignedCertificate:
        now = self._wall()
        key = public_key(csr, identity)
        key_id = _key_id(key)
        refused = self.ledger.refused(identity, key_id)
        if refused:
            raise Forbidden(refused)
        issuer, roots, root_id = self.authority.issuer, self.authority.roots, self.authority.root_id
        if issuer.expires <= now:
            raise Ended("the mesh's certificate authority has expired: start control with --ca-dir and a newer one")
        made = issuer.issue_workload(key, identity, now, self.ttl)
        self.ledger.record(Row(made.serial, identity, caller.namespace, caller.pod, root_id, key_id, now, made.expires))
        return SignedCertificate(
            certificate=made.chain.decode("ascii"),
            roots=tuple(pem(root).decode("ascii") for root in roots),
            issuer=root_id,
            expires=made.expires,
            identity=identity,
        )

    # -- trust -----------------------------------------------------------------------------------------------------------

    def trust(self) -> Trust:
        """Whom the mesh believes now, but for domain and aliases, which are the mesh's settings."""
        return Trust(
            roots=tuple(pem(root).decode("ascii") for root in self.authority.roots),
            issuer=self.authority.root_id,
            revoked_serials=tuple(sorted(self.revoked_serials)),
            revoked_identities=tuple(sorted(self.revoked_identities)),
        )

    def _read_revoked(self) -> None:
        self.revoked_serials = self.ledger.revoked_serials()
        self.revoked_identities = self.ledger.revoked_identities()

    async def revoke_serial(self, row: Row) -> None:
        """Returns once it is durable and on its way to every sidecar. Raises ``TooMany``."""
        if len(self.revoked_serials) >= MAX_REVOKED:
            raise TooMany(f"{MAX_REVOKED} certificates are revoked already: revoke the identity instead")
        await self._change(lambda: self.ledger.revoke_serial(row, self._wall()))

    async def revoke_identity(self, identity: str) -> None:
        await self._change(lambda: self.ledger.revoke_identity(identity, self._wall()))

    async def restore(self, identity: str) -> bool:
        """False: it was not revoked."""
        return await self._change(lambda: self.ledger.restore(identity))

    async def tidy(self) -> None:
        """Forget what has expired."""
        if await self.off_loop(lambda: self.ledger.prune(self._wall())):
            await self._change(lambda: None)

    async def step(self, work: Callable[[Authority], T]) -> T:
        """One step of a rotation, where nothing is signed meanwhile."""
        return await self._change(lambda: work(self.authority))

    async def _change(self, work: Callable[[], T]) -> T:
        def do() -> T:
            done = work()
            self._read_revoked()
            return done

        done = await self.off_loop(do)
        self._changes += 1
        await self.tell()
        return done

    async def tell(self) -> None:
        """Tell everybody about the last change, unless that has been done. What fails here is to be called again."""
        if self._told < (change := self._changes):
            await self.changed()
            self._told = max(self._told, change)  # not of a later one, which was made meanwhile and may have failed to be told

    async def run(self) -> None:
        """Tidy for ever, and say once a day that the authority's end is near."""
        said = 0.0
        while True:
            now = self._wall()
            if self.authority.expires - now < WARN and now - said > DAY:
                said = now
                days = (self.authority.expires - now) / DAY
                log.warning("the mesh's certificate authority ends in %.0f days: run `meshctl ca rotate`", days)
            await asyncio.sleep(PRUNE)
            try:
                await self.tell()
                await self.tidy()
            except (sqlite3.Error, FileProblem) as error:  # a full disk, say
                log.warning("the certificate authority could not tidy up: %s", error)


async def _nobody() -> None:
    """Nobody listens yet."""


def _key_id(key: PublicKey) -> str:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize().hex()
