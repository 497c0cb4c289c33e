"""What TLS says about a connection, as every room reads it: who the peer is, and how the connection was asked for.

In: facts that the tls room has checked. Out: ``Peer`` and ``Secured``, made once per connection and shared by its requests.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshproxy.model.cluster import Workload

__all__ = ["Peer", "Secured", "TlsFault"]


class TlsFault(Enum):
    """Why a connection was refused or failed, for log and metrics; each has its own words."""

    NO_CERTIFICATE = "the peer sent no certificate"
    EXPIRED = "the peer's certificate has expired"
    NOT_YET_VALID = "the peer's certificate is not valid yet"
    UNTRUSTED = "the peer's certificate is not under a root that is trusted here"
    WRONG_IDENTITY = "the peer is not who it should be"
    FOREIGN_DOMAIN = "the peer's trust domain is not of this mesh"
    REVOKED = "the peer's certificate or identity is revoked"
    PLAINTEXT = "plaintext where mutual TLS is demanded"
    NOT_TLS = "plaintext where TLS is demanded"
    NOT_MESH = "TLS that is not the mesh's own (no istio ALPN)"
    UNKNOWN_NAME = "no server here has the name that was asked for"
    NO_IDENTITY = "this proxy has no certificate of its own yet"
    NO_CREDENTIAL = "the credential for this connection is missing or unusable"
    PROTOCOL = "the TLS handshake failed"
    TIMEOUT = "the TLS handshake took too long"
    CLOSED = "the peer closed within the TLS handshake"
    REFUSED = "the peer refused us"


class Peer:
    """The other side of a mutually authenticated connection.

    identity: SPIFFE URI or "". principal: the same without ``spiffe://``, as policies write it. domain, namespace, account: its
    parts, "" when it is no SPIFFE identity. serial: lower-case hex. digest: SHA-256 of the certificate, hex. subject: RFC 4514
    text. uris, names: its URI and DNS alternative names. expires: Unix seconds. xfcc: this peer's element for
    ``x-forwarded-client-cert`` without ``By``.
    """

    __slots__ = (
        "account",
        "digest",
        "domain",
        "expires",
        "identity",
        "names",
        "namespace",
        "principal",
        "serial",
        "subject",
        "uris",
        "xfcc",
    )

    def __init__(
        self,
        *,
        identity: str = "",
        serial: str = "",
        digest: str = "",
        subject: str = "",
        uris: tuple[str, ...] = (),
        names: tuple[str, ...] = (),
        expires: float = 0.0,
    ) -> None:
        self.identity = identity
        self.principal = identity.removeprefix("spiffe://")
        parts = self.principal.split("/")
        spiffe = len(parts) == 5 and parts[1] == "ns" and parts[3] == "sa" and all(parts)
        self.domain, self.namespace, self.account = (parts[0], parts[2], parts[4]) if spiffe else ("", "", "")
        self.serial = serial
        self.digest = digest
        self.subject = subject
        self.uris = uris
        self.names = names
        self.expires = expires
        self.xfcc = f'Hash={digest};Subject="{subject}";URI={identity}'.encode()


class Secured:
    """A TLS connection. ``peer`` None: the client showed no certificate (one-way TLS). ``version``: ``TLSv1.3``.

    ``mesh``: both sides are of this mesh (mutual TLS with its identities), so that what the peer says of itself is believed.
    ``local``: the SPIFFE URI of our own certificate, "" when it has none. ``xfcc``: the whole element that this hop adds to
    ``x-forwarded-client-cert``, b"" without a client certificate. ``who``: the peer's identity, "" when there is none.
    ``workload``: what the peer said of itself, once it has and if it may; set by who read its metadata.
    ``told``: which words of our own metadata went out here, so that they are said once a connection.
    """

    __slots__ = ("alpn", "cipher", "local", "mesh", "peer", "sni", "told", "version", "who", "workload", "xfcc")

    def __init__(
        self,
        peer: Peer | None,
        sni: str = "",
        alpn: str = "",
        version: str = "",
        cipher: str = "",
        mesh: bool = False,
        local: str = "",
    ) -> None:
        self.peer = peer
        self.sni = sni
        self.alpn = alpn
        self.version = version
        self.cipher = cipher
        self.mesh = mesh
        self.local = local
        by = f"By={local};".encode() if local else b""
        self.xfcc = by + peer.xfcc if peer is not None else b""
        self.who = peer.identity if peer is not None else ""
        self.workload: Workload | None = None
        self.told: bytes | None = None

    def tells(self, workload: Workload | None) -> None:
        """Take what the peer says of itself: only within the mesh, and only of a workload in the namespace that it has proved."""
        peer = self.peer
        if workload is not None and self.mesh and peer is not None and workload.namespace == peer.namespace:
            self.workload = workload
