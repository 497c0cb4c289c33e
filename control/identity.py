"""Who calls the control service, and how a workload is named. The lowest room: ``ca`` proves an identity, ``serve`` acts on it.

In: nothing. Out: ``Person``, ``ProxyIdentity``, ``Refused``, ``Unjudged`` and the ``Authenticator`` seam between them;
``spiffe_uri``. Assumes nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = [
    "ROLES",
    "Authenticator",
    "Caller",
    "Judgement",
    "Person",
    "ProxyIdentity",
    "Refused",
    "Role",
    "Unjudged",
    "spiffe_uri",
]

Role = Literal["view", "edit", "admin"]
ROLES: tuple[Role, ...] = ("view", "edit", "admin")


@dataclass(frozen=True, slots=True)
class Person:
    """A person or program that uses the API. ``token``: the id of the token, for people; ``expires``: wall time, or infinity."""

    name: str
    role: Role
    token: str
    expires: float


@dataclass(frozen=True, slots=True)
class ProxyIdentity:
    """A sidecar, as its token says. ``expires`` is wall time, seconds since 1970; ``token`` is the token's id."""

    namespace: str
    pod: str
    service_account: str
    expires: float
    token: str = ""

    @property
    def name(self) -> str:
        return f"{self.namespace}/{self.pod}"


Caller = Person | ProxyIdentity


@dataclass(frozen=True, slots=True)
class Refused:
    """A token that proves nothing; ``why`` never quotes the token."""

    why: str


@dataclass(frozen=True, slots=True)
class Unjudged:
    """Nobody could say whose token it is: whoever knows cannot be asked now. Not let in, and told to come back."""

    why: str


Judgement = Caller | Refused | Unjudged


class Authenticator(Protocol):
    def judge(self, token: str, now: float) -> Judgement | Awaitable[Judgement]:
        """The caller behind a bearer token at wall time ``now``."""
        ...


def spiffe_uri(domain: str, namespace: str, account: str) -> str:
    """The identity of a service account, as certificates carry it. Whether the names are any is not looked at."""
    return f"spiffe://{domain}/ns/{namespace}/sa/{account}"
