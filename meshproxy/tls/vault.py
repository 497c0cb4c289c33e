"""Room 2, TLS: what is secret, and what is believed. One per process."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from meshproxy.message.secured import Peer, TlsFault
from meshproxy.model.security import ClientTls, Secret, ServerTls, Trust
from meshproxy.tls.identity import Identity

__all__ = ["Vault"]


class Vault:
    """Contexts are made when they are first asked for; open connections keep the one they began with."""

    def identify(self, identity: Identity) -> None:
        """A new certificate of our own, for connections from now on."""

    def configure(self, trust: Trust | None, secrets: Mapping[str, Secret]) -> None:
        """The trust and the credentials of a snapshot."""

    def mesh_server(self) -> ssl.SSLContext | TlsFault:
        return TlsFault.NO_IDENTITY

    def mesh_client(self) -> ssl.SSLContext | TlsFault:
        return TlsFault.NO_IDENTITY

    def server(self, chain: ServerTls) -> ssl.SSLContext | TlsFault:
        return TlsFault.NO_CREDENTIAL

    def client(self, tls: ClientTls) -> ssl.SSLContext | TlsFault:
        return TlsFault.NO_CREDENTIAL

    def judge(self, peer: Peer, wall: float, allowed: frozenset[str] | None = None) -> TlsFault | None:
        """Why a verified peer of the mesh is refused all the same; None: it is welcome."""
        return TlsFault.UNTRUSTED
