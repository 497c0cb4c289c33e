"""Room 2, TLS, quiet: who is on the other side, from the certificate that OpenSSL has verified.

In: the answer of ``SSLObject.getpeercert`` and the certificate itself. Out: ``message.secured.Peer``. Assumes that the chain was
verified; what the names in it are worth is judged by the vault.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import Iterable, Mapping
from typing import Any

from meshproxy.message.secured import Peer

__all__ = ["carries", "read_peer"]

# OpenSSL's short names where they differ from the long ones that Python tells (crypto/objects/objects.txt).
_SHORT = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "generationQualifier": "generationQualifier",
    "givenName": "GN",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "street",
    "surname": "SN",
    "userId": "UID",
}
# SPIFFE-ID section 2: no query, no fragment, no escapes, no segments that are only dots; policies compare these texts as such.
_SPIFFE = re.compile(r"spiffe://[A-Za-z0-9._-]{1,255}(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+)*")
_ESCAPED = frozenset(',+"\\<>;')


def read_peer(facts: Mapping[str, Any], der: bytes) -> Peer:
    """``facts``: ``getpeercert()``; ``der``: ``getpeercert(True)``."""
    names: dict[str, list[str]] = {}
    for kind, value in facts.get("subjectAltName", ()):
        names.setdefault(kind, []).append(value)
    uris = tuple(uri for uri in names.get("URI", ()) if _plain(uri))
    # An X.509-SVID has exactly one URI (SPIFFE X509-SVID section 2): with a second one nobody can say who this is.
    identity = uris[0] if len(names.get("URI", ())) == 1 and uris and _SPIFFE.fullmatch(uris[0]) else ""
    return Peer(
        identity=identity,
        serial=facts.get("serialNumber", "").lower().lstrip("0") or "0",
        digest=hashlib.sha256(der).hexdigest(),
        subject=_subject(facts.get("subject", ())),
        uris=uris,
        names=tuple(name for name in names.get("DNS", ()) if _plain(name)),
        expires=float(ssl.cert_time_to_seconds(facts["notAfter"])),
    )


def carries(peer: Peer, wanted: Iterable[str]) -> bool:
    """Whether the certificate has one of these names: a URI or DNS name as it is written, or a DNS name under its ``*.``."""
    for name in wanted:
        if name in peer.uris:
            return True
        folded = name.lower()
        parent = folded.partition(".")[2]
        for own in peer.names:
            own = own.lower()
            if own == folded or (own.startswith("*.") and parent and own[2:] == parent):
                return True
    return False


def _plain(name: str) -> bool:
    """Nothing in it that could leave the header or the log line where it is written."""
    return name.isascii() and name.isprintable() and not any(mark in name for mark in ' ",;\\')


def _subject(names: Iterable[Iterable[tuple[str, str]]]) -> str:
    """RFC 4514, most specific first, as OpenSSL's XN_FLAG_RFC2253 prints it and Envoy puts it into headers."""
    parts = ["+".join(f"{_SHORT.get(kind, kind)}={_escaped(value)}" for kind, value in one) for one in names]
    return ",".join(reversed(parts))


def _escaped(value: str) -> str:
    out: list[str] = []
    last = len(value) - 1
    for index, mark in enumerate(value):
        if mark in _ESCAPED or (mark == " " and index in (0, last)) or (mark == "#" and index == 0):
            out.append("\\" + mark)
        elif mark < " " or mark > "~":
            out.extend(f"\\{byte:02X}" for byte in mark.encode("utf-8", "surrogatepass"))
        else:
            out.append(mark)
    return "".join(out)
