"""Bearer tokens (room ``ca``): one admin token, and join tokens that let a sidecar fetch its own configuration.

In: a directory, a token, the wall time. Out: ``Tokens`` with ``judge`` (an ``identity.Authenticator``) and ``issue``.
A join token is a JWT, HS256 under a key of this mesh, with ns, pod, sa, aud, iat and exp. Assumes that the directory belongs to
this process alone. No token and no key is in a repr, a message or a log.
"""

from __future__ import annotations

import hmac
import secrets
from pathlib import Path
from typing import Any

import jwt

from control.files import FileProblem, read_private, write_private
from control.identity import Admin, Caller, ProxyIdentity, Refused

__all__ = ["AUDIENCE", "DEFAULT_TTL", "MAX_TTL", "Tokens"]

AUDIENCE = "mesh-control"
DEFAULT_TTL = 24 * 3600.0
MAX_TTL = 366 * 24 * 3600.0
MAX_TOKEN = 8192  # bytes; ours have some 300
# The library would read the clock for exp; the time is an argument here, so its check is off and ours is below.
_OPTIONS: Any = {
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
    "require": ["exp", "aud", "ns", "pod", "sa"],
}


class Tokens:
    """Makes and judges tokens; knows nothing of HTTP."""

    def __init__(self, admin_token: str, key: bytes) -> None:
        self._admin = admin_token.encode()
        self._key = key

    def __repr__(self) -> str:
        return "Tokens()"

    @classmethod
    def open(cls, directory: Path) -> Tokens:
        """Load ``admin.token`` and ``join.key`` from ``directory``, making what is missing (mode 0600).

        Raises ``FileProblem`` for a file that is unreadable, too short or open to others.
        """
        admin = _load(directory / "admin.token", lambda: secrets.token_urlsafe(32).encode()).strip()
        key = _load(directory / "join.key", lambda: secrets.token_bytes(32))
        if not admin.isascii() or not admin.decode("ascii").isprintable() or b" " in admin:
            raise FileProblem(f"{directory / 'admin.token'}: is not a token: remove it to have a new one made")
        return cls(admin.decode("ascii"), key)

    @property
    def admin_token(self) -> str:
        """For the kubeconfig; keep it out of logs."""
        return self._admin.decode()

    def issue(self, namespace: str, pod: str, service_account: str, now: float, ttl: float = DEFAULT_TTL) -> str:
        """A join token for one pod, good for ``ttl`` seconds from wall time ``now``. Raises ``ValueError`` for a bad ttl."""
        if not 0 < ttl <= MAX_TTL:
            raise ValueError(f"must be more than 0 and at most {MAX_TTL:.0f} seconds")
        claims = {"aud": AUDIENCE, "iat": int(now), "exp": int(now + ttl), "ns": namespace, "pod": pod, "sa": service_account}
        return jwt.encode(claims, self._key, algorithm="HS256")

    def judge(self, token: str, now: float) -> Caller | Refused:
        """Who holds ``token`` at wall time ``now``."""
        if len(token) > MAX_TOKEN or not token.isascii():
            return Refused("the bearer token is malformed")
        if hmac.compare_digest(token.encode(), self._admin):
            return Admin()
        try:
            claims = jwt.decode(token, self._key, algorithms=["HS256"], audience=AUDIENCE, options=_OPTIONS)
        except jwt.InvalidTokenError:
            return Refused("the bearer token is not one of this mesh")  # the same words whatever was wrong with it
        expires, names = claims["exp"], (claims["ns"], claims["pod"], claims["sa"])
        if not isinstance(expires, int | float) or not all(isinstance(name, str) and name for name in names):
            return Refused("the bearer token is malformed")
        if expires <= now:
            return Refused("the bearer token has expired")
        return ProxyIdentity(*names, expires=float(expires))


def _load(path: Path, make: Any) -> bytes:
    if not path.exists():
        write_private(path, make())
    data = read_private(path)
    if len(data) < 32:
        raise FileProblem(f"{path}: is too short to be a secret: remove it to have a new one made")
    return data
