"""Who calls the control service. The lowest room of control: ``ca`` proves an identity, ``serve`` acts on it.

In: nothing. Out: ``Admin``, ``ProxyIdentity``, ``Refused`` and the ``Authenticator`` seam between them. Assumes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Admin", "Authenticator", "Caller", "ProxyIdentity", "Refused"]


@dataclass(frozen=True, slots=True)
class Admin:
    """A person or program that may use the whole API."""


@dataclass(frozen=True, slots=True)
class ProxyIdentity:
    """A sidecar, as its token says. ``expires`` is wall time, seconds since 1970."""

    namespace: str
    pod: str
    service_account: str
    expires: float

    @property
    def name(self) -> str:
        return f"{self.namespace}/{self.pod}"


Caller = Admin | ProxyIdentity


@dataclass(frozen=True, slots=True)
class Refused:
    """A token that proves nothing; ``why`` never quotes the token."""

    why: str


class Authenticator(Protocol):
    def judge(self, token: str, now: float) -> Caller | Refused:
        """The caller behind a bearer token at wall time ``now``."""
        ...
