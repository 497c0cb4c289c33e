"""Bearer tokens (room ``ca``): for people and programs by role, and join tokens by which a sidecar gets its own configuration.

In: a directory, a token, the wall time. Out: ``Tokens`` with ``judge`` (an ``identity.Authenticator``), ``issue``, ``grant`` and
``revoke``. All but one are JWTs, HS256 under a key of this mesh, with jti, aud, iat and exp; a join token has ns, pod and sa, the
other kind sub and role. The one is the admin token of the state directory's kubeconfig: who can read that file owns the mesh.
Assumes that the directory belongs to this process alone. No token and no key is in a repr, a message or a log.
"""

from __future__ import annotations

import hmac
import secrets
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import jwt

from control.ca.token_book import TokenBook, TokenRow
from control.files import FileProblem, read_private, write_private
from control.identity import ROLES, Caller, Person, ProxyIdentity, Refused, Role

__all__ = ["API_AUDIENCE", "AUDIENCE", "BOOTSTRAP", "DEFAULT_TTL", "MAX_TTL", "NewToken", "Tokens"]

AUDIENCE = "mesh-control"  # of join tokens
API_AUDIENCE = "mesh-api"
BOOTSTRAP = "bootstrap"  # the id of the kubeconfig's own token
DEFAULT_TTL = 24 * 3600.0
MAX_TTL = 366 * 24 * 3600.0
MAX_TOKEN = 8192  # bytes; ours have some 300
# The library would read the clock for exp; the time is an argument here, so its check is off and ours is below.
_OPTIONS: Any = {"verify_exp": False, "verify_iat": False, "verify_nbf": False, "require": ["exp", "aud", "jti"]}


class NewToken(NamedTuple):
    """A new token and what is known of it."""

    token: str
    id: str
    expires: float

    def __repr__(self) -> str:
        return f"NewToken(id={self.id!r})"


class Tokens:
    """Makes and judges tokens; knows nothing of HTTP."""

    def __init__(self, directory: Path, admin_token: str, key: bytes, book: TokenBook) -> None:
        self._directory = directory
        self._admin = admin_token.encode()
        self._key = key
        self._book = book

    def __repr__(self) -> str:
        return "Tokens()"

    @classmethod
    def open(cls, directory: Path) -> Tokens:
        """Load ``admin.token``, ``join.key`` and ``tokens.db`` from ``directory``, making what is missing (mode 0600).

        Raises ``FileProblem`` for a file that is unreadable, too short or open to others.
        """
        admin = _load(directory / "admin.token", _new_admin).strip()
        key = _load(directory / "join.key", lambda: secrets.token_bytes(32))
        if not admin.isascii() or not admin.decode("ascii").isprintable() or b" " in admin:
            raise FileProblem(f"{directory / 'admin.token'}: is not a token: remove it to have a new one made")
        return cls(directory, admin.decode("ascii"), key, TokenBook(directory / "tokens.db"))

    def close(self) -> None:
        self._book.close()

    @property
    def admin_token(self) -> str:
        """For the kubeconfig; keep it out of logs."""
        return self._admin.decode()

    def issue(self, namespace: str, pod: str, service_account: str, now: float, ttl: float = DEFAULT_TTL) -> NewToken:
        """A join token for one pod, good for ``ttl`` seconds from wall time ``now``. Raises ``ValueError`` for a bad ttl."""
        claims = {"aud": AUDIENCE, "ns": namespace, "pod": pod, "sa": service_account}
        return self._make(claims, f"{namespace}/{pod}", "sidecar", now, ttl)

    def grant(self, name: str, role: Role, now: float, ttl: float = DEFAULT_TTL) -> NewToken:
        """A token for a person or a program. Raises ``ValueError`` for a bad ttl."""
        return self._make({"aud": API_AUDIENCE, "sub": name, "role": role}, name, role, now, ttl)

    def _make(self, claims: dict[str, Any], holder: str, role: str, now: float, ttl: float) -> NewToken:
        if not 0 < ttl <= MAX_TTL:
            raise ValueError(f"must be more than 0 and at most {MAX_TTL:.0f} seconds")
        made = secrets.token_hex(6)
        token = jwt.encode({**claims, "jti": made, "iat": int(now), "exp": now + ttl}, self._key, algorithm="HS256")
        self._book.add(TokenRow(made, holder, role, now, now + ttl), now)
        return NewToken(token, made, now + ttl)

    def revoke(self, token: str, now: float) -> TokenRow | None:
        """Take back the token of this id; None: there is none. The kubeconfig's own gets a successor (``admin_token``)."""
        if token != BOOTSTRAP:
            return self._book.revoke(token, now)
        made = _new_admin()
        write_private(self._directory / "admin.token", made)
        self._admin = made
        return self._bootstrap(now)

    def rows(self, now: float) -> list[TokenRow]:
        """Every token that is out, the kubeconfig's own first."""
        return [self._bootstrap(None), *self._book.rows(now)]

    def _bootstrap(self, revoked: float | None) -> TokenRow:
        created = (self._directory / "admin.token").stat().st_mtime
        return TokenRow(BOOTSTRAP, "mesh-admin", "admin", created, inf, revoked)

    def judge(self, token: str, now: float) -> Caller | Refused:
        """Who holds ``token`` at wall time ``now``."""
        if len(token) > MAX_TOKEN or not token.isascii():
            return Refused("the bearer token is malformed")
        if hmac.compare_digest(token.encode(), self._admin):
            return Person("mesh-admin", "admin", BOOTSTRAP, inf)
        try:
            claims = jwt.decode(token, self._key, algorithms=["HS256"], audience=[AUDIENCE, API_AUDIENCE], options=_OPTIONS)
        except jwt.InvalidTokenError:
            return Refused("the bearer token is not one of this mesh")  # the same words whatever was wrong with it
        expires, made, audience = claims["exp"], claims["jti"], claims["aud"]
        for_sidecar = audience == AUDIENCE
        names = [claims.get(name, "") for name in (("ns", "pod", "sa") if for_sidecar else ("sub", "role"))]
        texts = (made, audience, *names)
        if type(expires) not in (int, float) or not all(isinstance(text, str) and text for text in texts):
            return Refused("the bearer token is malformed")
        if expires <= now:
            return Refused("the bearer token has expired")
        if self._book.is_revoked(made):
            return Refused("the bearer token was revoked")
        if for_sidecar:
            return ProxyIdentity(names[0], names[1], names[2], float(expires), made)
        role = next((role for role in ROLES if role == names[1]), None)
        return Person(names[0], role, made, float(expires)) if role is not None else Refused("the bearer token is malformed")


def _new_admin() -> bytes:
    return secrets.token_urlsafe(32).encode()


def _load(path: Path, make: Any) -> bytes:
    if not path.exists():
        write_private(path, make())
    data = read_private(path)
    if len(data) < 32:
        raise FileProblem(f"{path}: is too short to be a secret: remove it to have a new one made")
    return data
