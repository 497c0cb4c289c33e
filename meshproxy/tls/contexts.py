"""Room 2, TLS, loud: making OpenSSL's contexts out of PEM. A key is never on a disk in the clear: it goes in through memory.

In: PEM bytes. Out: ``ssl.SSLContext``. Raises ``Unusable`` with one line that holds no secret. TLS 1.2 is the minimum. A context
that verifies its clients gives no tickets: a resumed session would not show its certificate to today's roots.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable
from typing import Literal

__all__ = ["CIPHERS", "MESH_BYTES_ALPN", "MESH_CLIENT_ALPN", "MESH_SERVER_ALPN", "Unusable", "client_context", "server_context"]

# TLS 1.2; Istio's list (semantics A3) without those that have no forward secrecy. TLS 1.3 has its own.
CIPHERS = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
)
MESH_SERVER_ALPN = ("istio-http/1.1", "istio-http/1.0", "istio-peer-exchange", "istio")  # the first that both have is taken
MESH_CLIENT_ALPN = ("istio-http/1.1", "istio", "http/1.1")
MESH_BYTES_ALPN = ("istio-peer-exchange", "istio")  # a client whose bytes are not HTTP
_VERSIONS = {"TLSV1_2": ssl.TLSVersion.TLSv1_2, "TLSV1_3": ssl.TLSVersion.TLSv1_3}
Verify = Literal["none", "optional", "required"]
_VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


class Unusable(Exception):
    """This certificate, key, root or list cannot be used."""


def server_context(
    certificate: bytes,
    key: bytes,
    *,
    verify: Verify = "none",
    roots: Iterable[bytes] = (),
    crl: bytes = b"",
    alpn: Iterable[str] = ("http/1.1",),
    least: str = "TLSV1_2",
    most: str = "TLSV1_3",
    ciphers: Iterable[str] = CIPHERS,
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _common(context, least, most, ciphers, alpn)
    _chain(context, certificate, key)
    if verify != "none":
        _roots(context, roots, crl)
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
    context.verify_mode = _VERIFY[verify]
    return context


def client_context(
    certificate: bytes = b"",
    key: bytes = b"",
    *,
    roots: Iterable[bytes] | None = (),
    crl: bytes = b"",
    alpn: Iterable[str] = ("http/1.1",),
    check_name: bool = False,
    verify: bool = True,
) -> ssl.SSLContext:
    """``roots`` None: the system's. ``check_name``: the session's ``server_hostname`` must be in the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _common(context, "TLSV1_2", "TLSV1_3", CIPHERS, alpn)
    if certificate:
        _chain(context, certificate, key)
    context.check_hostname = check_name and verify
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    if not verify:
        return context
    if roots is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _roots(context, roots, crl)
    return context


def _common(context: ssl.SSLContext, least: str, most: str, ciphers: Iterable[str], alpn: Iterable[str]) -> None:
    context.minimum_version, context.maximum_version = _VERSIONS[least], _VERSIONS[most]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        context.set_ciphers(":".join(ciphers) or ":".join(CIPHERS))
    except ssl.SSLError:
        raise Unusable("ciphers: OpenSSL knows none of them") from None
    if protocols := list(alpn):
        context.set_alpn_protocols(protocols)


def _chain(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """OpenSSL's loader wants files; these have no name on any disk and end with this call."""
    try:
        with _Memory(certificate) as chain, _Memory(key) as private:
            context.load_cert_chain(chain.path, private.path, password=b"")  # or it would ask the terminal
    except ssl.SSLError as error:
        raise Unusable(f"certificate and key: {_words(error)}") from None
    except (OSError, ValueError) as error:
        raise Unusable(f"certificate and key: {type(error).__name__}") from None


def _roots(context: ssl.SSLContext, roots: Iterable[bytes], crl: bytes) -> None:
    found = [root for root in roots if root.strip()]
    if not found:
        raise Unusable("there is no root to verify by")
    for root in found:
        try:
            context.load_verify_locations(cadata=root.decode("ascii"))
        except (ssl.SSLError, UnicodeDecodeError, ValueError):
            raise Unusable("root: not a PEM certificate") from None
    if crl.strip():
        try:
            with _Memory(crl) as listed:
                context.load_verify_locations(cafile=listed.path)
        except (ssl.SSLError, OSError):
            raise Unusable("revocation list: not a PEM list") from None
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def _words(error: ssl.SSLError) -> str:
    return (error.reason or "unreadable").lower().replace("_", " ")


class _Memory:
    """A file that is only in memory (memfd_create(2)); nobody else can open it, and no disk has seen it."""

    __slots__ = ("_fd", "path")

    def __init__(self, content: bytes) -> None:
        self._fd = os.memfd_create("tls", os.MFD_CLOEXEC)
        self.path = f"/proc/self/fd/{self._fd}"
        view = memoryview(content)
        while view:
            view = view[os.write(self._fd, view) :]

    def __enter__(self) -> _Memory:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
