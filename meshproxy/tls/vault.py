"""Room 2, TLS, loud in files: what is secret and what is believed. One per process; it gives out contexts, never keys.

In: our identity, and the trust and credentials of each snapshot. Out: a context per kind of connection, or the ``TlsFault`` that
its connections end with; and judgement of peers that OpenSSL has verified. Contexts are made when they are first asked for and
kept while what they are made of stays. Open connections keep theirs; what ends them is ``judge``.

Fails closed: without roots, a certificate or a usable credential there is no context. A file that has become unreadable is the
exception: the last good one stays, for it may be half written.
"""

from __future__ import annotations

import hashlib
import logging
import os
import ssl
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from meshproxy.message.secured import Peer, TlsFault
from meshproxy.model.security import ClientTls, Secret, ServerTls, Trust
from meshproxy.tls.contexts import (
    CIPHERS,
    MESH_BYTES_ALPN,
    MESH_CLIENT_ALPN,
    MESH_SERVER_ALPN,
    Unusable,
    Verify,
    client_context,
    server_context,
)
from meshproxy.tls.identity import Identity
from meshproxy.tls.peer import carries
from meshproxy.tls.tally import Tally

__all__ = ["Vault"]

log = logging.getLogger("meshproxy")
_KEPT = 512  # contexts of gateways and origins
_VERIFY: dict[str, Verify] = {"SIMPLE": "none", "MUTUAL": "required", "OPTIONAL_MUTUAL": "optional", "ISTIO_MUTUAL": "required"}


class _Kept(NamedTuple):
    stamp: tuple[Any, ...]  # what the context was made of: secrets, and the states of files
    made: ssl.SSLContext | TlsFault


class _Mesh(NamedTuple):
    """Our own certificate at work: a sidecar's door, calling for HTTP and for bytes, and a gateway's ISTIO_MUTUAL door."""

    door: ssl.SSLContext
    call: ssl.SSLContext
    bytes_call: ssl.SSLContext
    gateway: ssl.SSLContext


class Vault:
    """``tally``: what happened to handshakes, for metrics and log."""

    def __init__(self) -> None:
        self.tally = Tally()
        self._identity: Identity | None = None
        self._trust: Trust | None = None
        self._secrets: Mapping[str, Secret] = {}
        self._mesh: _Mesh | TlsFault = TlsFault.NO_IDENTITY
        self._kept: dict[ServerTls | ClientTls | tuple[ClientTls, str], _Kept] = {}
        self._domain = "cluster.local"
        self._domains: frozenset[str] = frozenset()
        self._revoked_serials: frozenset[str] = frozenset()
        self._revoked: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Vault({self._identity!r})"

    # -- what it is given

    @property
    def identity(self) -> Identity | None:
        return self._identity

    @property
    def trust(self) -> Trust | None:
        return self._trust

    def identify(self, identity: Identity) -> None:
        """A new certificate of our own, for connections from now on. ``ValueError``: it cannot be used, the old one stays."""
        try:
            mesh = self._contexts(identity, self._trust)
        except Unusable as why:
            raise ValueError(str(why)) from None
        self._identity = identity
        self._mesh = mesh
        self._believe()

    @staticmethod
    def check(trust: Trust) -> str:
        """Why this trust cannot be obeyed, with the field's path; "": it can."""
        for index, root in enumerate(trust.roots):
            try:
                client_context(roots=(root.encode(),))
            except Unusable as why:
                return f"roots[{index}]: {why}"
        return ""

    def configure(self, trust: Trust | None, secrets: Mapping[str, Secret]) -> None:
        """The trust and the credentials of a snapshot. Assumes that ``check`` had nothing against it."""
        roots = _roots_of(self._identity, self._trust)
        self._trust = trust
        self._believe()
        self._secrets = secrets
        if self._identity is not None and roots != _roots_of(self._identity, trust):
            try:
                self._mesh = self._contexts(self._identity, trust)
            except Unusable as why:
                log.error("TLS: our own certificate or the mesh's roots cannot be used: %s", why)
                self._mesh = TlsFault.NO_IDENTITY

    def _believe(self) -> None:
        """What ``judge`` looks at. Until control has spoken, the mesh is the trust domain of our own certificate."""
        trust = self._trust
        if trust is None:
            own = self._identity.uri if self._identity is not None else ""
            trust = Trust(domain=own.removeprefix("spiffe://").partition("/")[0])
        self._domain = trust.domain
        self._domains = frozenset((trust.domain, *trust.aliases))
        self._revoked_serials = frozenset(serial.lower().lstrip("0") or "0" for serial in trust.revoked_serials)
        self._revoked = frozenset(map(self._canonical, trust.revoked_identities))

    # -- what it gives

    def mesh_server(self) -> ssl.SSLContext | TlsFault:
        """Mutual TLS of the mesh, to be called."""
        mesh = self._mesh
        return mesh if isinstance(mesh, TlsFault) else mesh.door

    def mesh_client(self, raw: bool = False) -> ssl.SSLContext | TlsFault:
        """Mutual TLS of the mesh, to call. Names are not OpenSSL's business: see ``judge``. raw: for bytes that are not HTTP."""
        mesh = self._mesh
        if isinstance(mesh, TlsFault):
            return mesh
        return mesh.bytes_call if raw else mesh.call

    def server(self, chain: ServerTls) -> ssl.SSLContext | TlsFault:
        """One TLS server of a gateway."""
        if chain.mode == "ISTIO_MUTUAL":
            mesh = self._mesh
            return mesh if isinstance(mesh, TlsFault) else mesh.gateway
        return self._lookup(chain, chain, self._gateway)

    def client(self, tls: ClientTls) -> ssl.SSLContext | TlsFault:
        """TLS origination; AUTO and ISTIO_MUTUAL are the mesh's. With ``tls.sans`` the caller checks the names (``carries``)."""
        if tls.mode in ("AUTO", "ISTIO_MUTUAL"):
            return self.mesh_client()
        return self._lookup(tls, tls, self._origin)

    def raw_client(self, tls: ClientTls) -> ssl.SSLContext | TlsFault:
        """The same for bytes that are not HTTP: none is offered as a protocol."""
        if tls.mode in ("AUTO", "ISTIO_MUTUAL"):
            return self.mesh_client(True)
        return self._lookup((tls, "raw"), tls, lambda wanted: self._origin(wanted, ()))

    # -- judgement of verified peers

    def judge(self, peer: Peer, wall: float, allowed: frozenset[str] | None = None) -> TlsFault | None:
        """Why a verified peer of the mesh is refused all the same; None: it is welcome. ``wall``: Unix seconds.

        Asked once per connection, and again for open ones whenever the trust has changed.
        """
        identity = self._canonical(peer.identity)
        # First, because an open connection may have outlived its certificate, and is cut for this reason only.
        if peer.serial in self._revoked_serials or identity in self._revoked:
            return TlsFault.REVOKED
        if peer.expires <= wall:
            return TlsFault.EXPIRED
        if not peer.domain:
            return TlsFault.WRONG_IDENTITY
        if peer.domain not in self._domains:
            return TlsFault.FOREIGN_DOMAIN
        if allowed is None or peer.identity in allowed or identity in allowed:
            return None
        return None if identity in map(self._canonical, allowed) else TlsFault.WRONG_IDENTITY

    def admit(self, peer: Peer | None, certificate: bytes | None, chain: ServerTls, wall: float) -> TlsFault | None:
        """The same for a client of a gateway. ``certificate``: the client's, DER."""
        if chain.mode == "SIMPLE":
            return None
        if peer is None or certificate is None:
            return None if chain.mode == "OPTIONAL_MUTUAL" else TlsFault.NO_CERTIFICATE
        if chain.mode == "ISTIO_MUTUAL":
            fault = self.judge(peer, wall)
            if fault is not None:
                return fault
        elif peer.expires <= wall:
            return TlsFault.EXPIRED
        if chain.sans and not carries(peer, chain.sans):
            return TlsFault.WRONG_IDENTITY
        # Either list may let it in when both are given (Envoy: verify_certificate_spki, verify_certificate_hash).
        if not chain.spki_hashes and not chain.certificate_hashes:
            return None
        known = {known.replace(":", "").lower() for known in chain.certificate_hashes}
        if peer.digest in known or (chain.spki_hashes and _spki_hash(certificate) in chain.spki_hashes):
            return None
        return TlsFault.WRONG_IDENTITY

    def _canonical(self, identity: str) -> str:
        """With our trust domain in place of an alias."""
        domain, slash, rest = identity.removeprefix("spiffe://").partition("/")
        return f"spiffe://{self._domain}{slash}{rest}" if domain in self._domains else identity

    # -- making

    def _contexts(self, identity: Identity, trust: Trust | None) -> _Mesh:
        """Raises ``Unusable``."""
        certificate, key, roots = identity.certificate, identity.key, _roots_of(identity, trust)
        door = server_context(certificate, key, verify="required", roots=roots, alpn=MESH_SERVER_ALPN)
        call = client_context(certificate, key, roots=roots, alpn=MESH_CLIENT_ALPN)
        raw = client_context(certificate, key, roots=roots, alpn=MESH_BYTES_ALPN)
        both = (*MESH_SERVER_ALPN, "http/1.1")
        return _Mesh(door, call, raw, server_context(certificate, key, verify="required", roots=roots, alpn=both))

    def _lookup(self, key: Any, wanted: Any, make: Callable[[Any], ssl.SSLContext]) -> ssl.SSLContext | TlsFault:
        """The context kept for this, unless what it was made of has changed."""
        stamp = self._stamp(wanted)
        kept = self._kept.get(key)
        if kept is not None and kept.stamp == stamp:
            return kept.made
        made: ssl.SSLContext | TlsFault
        try:
            made = make(wanted)
        except Unusable as why:
            name = getattr(wanted, "source", "") or wanted.secret or wanted.certificate_file or wanted.ca_file
            files_only = not wanted.secret and not getattr(wanted, "ca_secret", "")
            good = kept is not None and files_only and not isinstance(kept.made, TlsFault)
            log.warning("TLS: %s: %s%s", name, why, "; the last good one stays" if good else "; its connections are refused")
            made = kept.made if kept is not None and good else TlsFault.NO_CREDENTIAL
        if kept is None and len(self._kept) >= _KEPT:
            del self._kept[next(iter(self._kept))]  # the oldest
        self._kept[key] = _Kept(stamp, made)
        return made

    def _stamp(self, wanted: Any) -> tuple[Any, ...]:
        secrets = (self._secrets.get(wanted.secret), self._secrets.get(getattr(wanted, "ca_secret", "")))
        files = (wanted.certificate_file, wanted.key_file, wanted.ca_file, wanted.crl_file)
        return (*secrets, *(_state(path) for path in files if path))

    def _gateway(self, chain: ServerTls) -> ssl.SSLContext:
        """Raises ``Unusable``."""
        secret = self._secret(chain.secret)
        certificate = _content(secret.certificate if secret is not None else "", chain.certificate_file, "certificate")
        key = _content(secret.key if secret is not None else "", chain.key_file, "key")
        if not certificate or not key:
            raise Unusable("there is no certificate with a key")
        verify = _VERIFY[chain.mode]
        trusted = self._secret(chain.ca_secret) or secret
        return server_context(
            certificate,
            key,
            verify=verify,
            roots=(_content(trusted.ca if trusted is not None else "", chain.ca_file, "ca"),),
            crl=_content(trusted.crl if trusted is not None else "", chain.crl_file, "crl"),
            least=chain.min_version,
            most=chain.max_version,
            ciphers=chain.ciphers or CIPHERS,
        )

    def _origin(self, tls: ClientTls, alpn: tuple[str, ...] = ("http/1.1",)) -> ssl.SSLContext:
        """Raises ``Unusable``."""
        secret = self._secret(tls.secret)
        certificate = key = b""
        if tls.mode == "MUTUAL":
            certificate = _content(secret.certificate if secret is not None else "", tls.certificate_file, "certificate")
            key = _content(secret.key if secret is not None else "", tls.key_file, "key")
            if not certificate or not key:
                raise Unusable("there is no certificate with a key")
        ca = _content(secret.ca if secret is not None else "", tls.ca_file, "ca")
        crl = _content(secret.crl if secret is not None else "", tls.crl_file, "crl")
        roots = (ca,) if ca else None
        return client_context(
            certificate, key, roots=roots, crl=crl, alpn=alpn, check_name=not tls.sans, verify=not tls.insecure_skip_verify
        )

    def _secret(self, name: str) -> Secret | None:
        """Raises ``Unusable`` when it is named and not here, or not good."""
        if not name:
            return None
        secret = self._secrets.get(name)
        if secret is None:
            raise Unusable(f"secret {name}: not found")
        if secret.error:
            raise Unusable(f"secret {name}: {secret.error}")
        return secret


def _roots_of(identity: Identity | None, trust: Trust | None) -> tuple[bytes, ...]:
    """Whom the mesh believes: what control says now, else what came with our certificate."""
    if trust is not None and trust.roots:
        return tuple(root.encode() for root in trust.roots)
    return identity.roots if identity is not None else ()


def _content(text: str, path: str, what: str) -> bytes:
    if not path:
        return text.encode()
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise Unusable(f"{what} {path}: {error.strerror}") from None


def _state(path: str) -> tuple[int, int, int]:
    """Changes when the file does. A look costs little beside a handshake, so no one has to watch files."""
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _spki_hash(certificate: bytes) -> str:
    """Base64 SHA-256 of the SubjectPublicKeyInfo. The library is only loaded where a gateway asks for this."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = x509.load_der_x509_certificate(certificate).public_key()
    info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return b64encode(hashlib.sha256(info).digest()).decode()
