"""The sidecar's own identity (room ``agent``, loud): asks control for a certificate, and for the next one in time.

In: where control is, and ``take(identity)``, called with each certificate that is in force from then on. Out:
``Enrolment.run()``, which ends only by cancellation, and ``Enrolment.status``. ``renewal`` says when; this file does it.

Every request has a key of its own, which stays in the memory of this process and of its workers: no file, log, page or error
ever holds it. Whatever fails, the certificate at hand stays in force until it ends.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from meshproxy.agent.certificates import BadCertificate, Certificate, belongs, moment, new_request, read_certificates
from meshproxy.agent.client import AgentConfig
from meshproxy.agent.http import Connection, ControlProblem, Target, read_token
from meshproxy.agent.renewal import Renewal, Standing
from meshproxy.model.base import decode, encode
from meshproxy.model.delivery import SignedCertificate, SigningRequest
from meshproxy.model.security import Trust
from meshproxy.tls.identity import Identity

__all__ = ["Enrolment", "EnrolmentStatus"]

log = logging.getLogger("meshproxy.identity")
_PATH = "/mesh/v1/certificate"
_LOOK = 60.0  # seconds after which the clock is looked at again: wall time may jump
_SAY = 60.0  # seconds before the same failure is told once more


@dataclass(slots=True)
class EnrolmentStatus:
    """What the pages and metrics show. ``last_error``: why the last request failed, or ""."""

    renewals: int = 0
    failures: int = 0
    last_error: str = ""


class Enrolment:
    """``identity``: what is in force, or None. ``asked``: set when the first request has ended, well or not."""

    def __init__(
        self,
        config: AgentConfig,
        take: Callable[[Identity], None],
        *,
        clock: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """``clock()`` is wall time; ``draw()`` is uniform in [0, 1). Raises ``ValueError`` for a bad URL of control."""
        self._config = config
        self._target = Target.parse(config.control, config.ca_file)
        self._take = take
        self._clock = clock
        self._renewal = Renewal(draw)
        self._roots: tuple[str, ...] = ()
        self._woken = asyncio.Event()
        self._said = ("", 0.0)  # the last failure told, and when
        self._ended = False  # that our certificate has ended was told
        self.asked = asyncio.Event()
        self.identity: Identity | None = None
        self.status = EnrolmentStatus()

    def roots(self) -> tuple[str, ...]:
        """What the mesh trusts, as far as we were told; control's own certificate may stand under it too."""
        return self._roots

    def trusted(self, trust: Trust) -> None:
        """The configuration's trust; a request may be due at once."""
        self._roots = trust.roots or self._roots
        if self._renewal.trusted(trust):
            if self._renewal.revoked and self._renewal.held is not None:
                log.error("our identity %s is revoked: peers refuse us until that is undone", self._renewal.held.uri)
            self._woken.set()

    def reached(self) -> None:
        """Control is heard again."""
        self._renewal.reached()
        self._woken.set()

    async def run(self) -> None:
        while True:
            self._woken.clear()
            now = self._clock()
            self._tell_end(now)
            due = self._renewal.due(now)
            if due.when <= now:
                await self._ask(due.why)
                self.asked.set()
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(min(due.when - now, _LOOK)):
                    await self._woken.wait()

    async def _ask(self, why: str) -> None:
        """One request; what came of it is in the state, and nothing is raised."""
        try:
            identity, leaf = await self._enrol()
            self._take(identity)
        except ControlProblem as problem:
            self._failed(str(problem), problem.status)
        except BadCertificate as bad:
            self._failed(f"{self._target.authority}: its answer {bad}", -1)
        except ValueError as error:  # the data path cannot use it
            self._failed(f"the new certificate cannot be used: {error}", -1)
        except Exception as bug:
            log.exception("asking for a certificate failed")
            self._failed(f"internal error: {type(bug).__name__}", -1)
        else:
            self._taken(identity, leaf, why)

    async def _enrol(self) -> tuple[Identity, Certificate]:
        config = self._config
        token = read_token(config.token_file)
        key, request = new_request()
        body = encode(SigningRequest(csr=request.decode("ascii")))
        try:
            async with asyncio.timeout(config.connect_timeout * 2):
                connection = await Connection.open(self._target, config.connect_timeout, self._roots)
                try:
                    answer = await connection.request("POST", _PATH, token, body)
                finally:
                    await connection.close()
        except TimeoutError:
            raise ControlProblem(f"{self._target.authority}: did not answer in time") from None
        try:
            signed = decode(answer, SignedCertificate)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadCertificate(f"is not understood: {error}") from None
        leaf = self._checked(signed, key)
        self._roots = signed.roots
        roots = tuple(root.encode() for root in signed.roots)
        return Identity(signed.certificate.encode(), key, roots, signed.issuer, leaf.not_after, leaf.uri), leaf

    def _checked(self, signed: SignedCertificate, key: bytes) -> Certificate:
        """Its leaf. Believe no certificate that peers would not: it would take the place of one that works."""
        chain = signed.certificate.encode()
        (leaf, *_) = read_certificates(chain)
        if not belongs(chain, key):
            raise BadCertificate("holds a certificate for another key than ours")
        if leaf.uri != signed.identity or not leaf.uri:
            raise BadCertificate(f"says that we are {signed.identity!r}, but its certificate is for {leaf.uri!r}")
        if not signed.roots:
            raise BadCertificate("holds no root to trust")
        for root in signed.roots:
            read_certificates(root.encode())
        if leaf.not_after <= self._clock():
            raise BadCertificate(f"holds a certificate that ended at {moment(leaf.not_after)}: compare the clocks")
        return leaf

    def _taken(self, identity: Identity, leaf: Certificate, why: str) -> None:
        now = self._clock()
        again = self.identity is not None
        self.identity = identity
        self._renewal.taken(Standing(leaf.serial, identity.uri, identity.issuer, now, leaf.not_after), now)
        self._said = ("", 0.0)
        self._ended = False
        self.status.renewals += again
        self.status.last_error = ""
        reason = f" ({why})" if again else ""
        log.info("certificate of %s: serial %s, until %s%s", identity.uri, leaf.serial, moment(leaf.not_after), reason)

    def _failed(self, problem: str, status: int) -> None:
        now = self._clock()
        self.status.failures += 1
        self.status.last_error = problem
        wait = self._renewal.failed(status, now)
        text, last = self._said
        if problem == text and now - last < _SAY:
            return
        self._said = (problem, now)
        held = self._renewal.held
        what = "no certificate" if held is None else f"certificate not renewed, the old one lasts until {moment(held.expires)}"
        if self._renewal.refused:
            log.error("%s: control refuses us our identity: %s; next try in %.0f s", what, problem, wait)
        else:
            log.warning("%s: %s; next try in %.2f s", what, problem, wait)

    def _tell_end(self, now: float) -> None:
        held = self._renewal.held
        if held is not None and held.expires <= now and not self._ended:
            self._ended = True
            log.error("our certificate ended at %s: no mutual TLS until control gives another", moment(held.expires))
