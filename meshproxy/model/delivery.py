"""How configuration travels: named resources with versions, pushes and their answers (after Envoy's delta xDS).

control -> proxy: one JSON document per line, each a ``FromControl``. proxy -> control: POST of ``Ack`` and ``Answer``.
Kinds arrive in the order of ``ORDER`` within one push, so that a cluster is known before the route that needs it; a proxy
applies a push as one snapshot or refuses it whole.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from meshproxy.model.base import Model
from meshproxy.model.cluster import Cluster, Endpoints
from meshproxy.model.listener import Listener
from meshproxy.model.route import RouteConfig
from meshproxy.model.security import Secret, Security, Trust
from meshproxy.model.telemetry import Telemetry

__all__ = [
    "KINDS",
    "ORDER",
    "Ack",
    "Answer",
    "FromControl",
    "Hello",
    "Kind",
    "Nack",
    "Push",
    "Query",
    "Resource",
    "SignedCertificate",
    "SigningRequest",
]

Kind = Literal["trust", "secret", "cluster", "endpoints", "security", "telemetry", "route", "listener"]
ORDER: tuple[Kind, ...] = ("trust", "secret", "cluster", "endpoints", "security", "telemetry", "route", "listener")
KINDS: dict[str, type[Model]] = {
    "trust": Trust,
    "secret": Secret,
    "cluster": Cluster,
    "endpoints": Endpoints,
    "security": Security,
    "telemetry": Telemetry,
    "route": RouteConfig,
    "listener": Listener,
}


class Resource(Model, frozen=True):
    """``body`` is the canonical JSON of the resource itself (decode with ``KINDS[kind]``); ``version`` its fingerprint."""

    kind: Kind
    name: str
    version: str
    body: msgspec.Raw


class Push(Model, frozen=True, tag="push"):
    """``full``: the state is exactly ``set``; otherwise a change. ``removed`` holds (kind, name)."""

    nonce: str
    version: str  # of the whole snapshot
    full: bool = False
    set: tuple[Resource, ...] = ()
    removed: tuple[tuple[Kind, str], ...] = ()


class Query(Model, frozen=True, tag="query"):
    """A question on the stream (``dump``, ``explain``, ``clusters``, ``stats``); the proxy POSTs an ``Answer``."""

    id: str
    verb: str
    args: dict[str, Any] = {}


class Hello(Model, frozen=True, tag="hello"):
    """First line of a stream, and the keep-alive every few seconds (``beat`` counts)."""

    control: str
    beat: int = 0


FromControl = Push | Query | Hello


class Nack(Model, frozen=True):
    kind: Kind | Literal["push"]
    name: str
    error: str  # one line, ends in the field's path


class Ack(Model, frozen=True):
    """The answer to a push: ``nacks`` empty means accepted whole; ``version`` is what the proxy runs now."""

    nonce: str
    version: str
    nacks: tuple[Nack, ...] = ()


class Answer(Model, frozen=True):
    id: str
    ok: bool = True
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""


class SigningRequest(Model, frozen=True):
    """``POST /mesh/v1/certificate``: a PEM PKCS#10 request. The names in it must be the caller's own identity, or none."""

    csr: str


class SignedCertificate(Model, frozen=True):
    """``certificate``: PEM chain, leaf first, without the root. ``issuer``: as in ``Trust``. ``expires``: Unix seconds.

    ``roots``: what to trust until the first ``Trust`` resource comes.
    """

    certificate: str
    roots: tuple[str, ...]
    issuer: str
    expires: float
    identity: str
