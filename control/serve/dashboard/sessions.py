"""Who looks at the page (dashboard): codes that are good once and for a minute, and the sessions that they become.

In: a ``Person`` whose token the door of :15012 has judged; the wall time. Out: a code; for a code, a session. Everything is in
memory, by digest only, bounded, and gone when control stops. A session never outlives the token behind it, nor its revocation.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import NamedTuple

from control.identity import Person, Role

__all__ = ["CODE_LIFE", "SESSION_LIFE", "Session", "Sessions"]

CODE_LIFE = 60.0
SESSION_LIFE = 8 * 3600.0
MAX_CODES = 64
MAX_SESSIONS = 64
MAX_SECRET = 128  # characters; ours have 43


@dataclass(frozen=True, slots=True)
class Session:
    name: str
    role: Role
    token: str  # the id of the token behind it
    expires: float


class _Code(NamedTuple):
    person: Person
    expires: float


class Sessions:
    """Times are wall time in seconds."""

    def __init__(self) -> None:
        self._codes: dict[bytes, _Code] = {}
        self._sessions: dict[bytes, Session] = {}

    def __repr__(self) -> str:
        return f"Sessions({len(self._sessions)})"

    def code(self, person: Person, now: float) -> tuple[str, float]:
        """A new code and when it ends."""
        self._sweep(now)
        while len(self._codes) >= MAX_CODES:
            del self._codes[next(iter(self._codes))]
        code = secrets.token_urlsafe(32)
        expires = min(now + CODE_LIFE, person.expires)
        self._codes[_digest(code)] = _Code(person, expires)
        return code, expires

    def sign_in(self, code: str, now: float) -> tuple[str, Session] | None:
        """The cookie's value and the session; None for a code that is unknown, used or too old. It is used up in any case."""
        self._sweep(now)
        found = self._codes.pop(_digest(code), None)
        if found is None or found.expires <= now:
            return None
        while len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        cookie = secrets.token_urlsafe(32)
        person = found.person
        session = Session(person.name, person.role, person.token, min(now + SESSION_LIFE, person.expires))
        self._sessions[_digest(cookie)] = session
        return cookie, session

    def find(self, cookie: str, now: float) -> Session | None:
        session = self._sessions.get(_digest(cookie))
        return session if session is not None and now < session.expires else None

    def sign_out(self, cookie: str) -> None:
        self._sessions.pop(_digest(cookie), None)

    def revoked(self, token: str) -> None:
        """End what began with the token of this id."""
        self._codes = {key: code for key, code in self._codes.items() if code.person.token != token}
        self._sessions = {key: session for key, session in self._sessions.items() if session.token != token}

    def _sweep(self, now: float) -> None:
        self._codes = {key: code for key, code in self._codes.items() if now < code.expires}
        self._sessions = {key: session for key, session in self._sessions.items() if now < session.expires}


def _digest(secret: str) -> bytes:
    """Compared by digest, so that the time a look-up takes says nothing about the secret."""
    return hashlib.sha256(secret[:MAX_SECRET].encode("utf-8", "replace")).digest()
