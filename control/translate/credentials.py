"""Translate, credentials: Kubernetes Secrets as the proxies that use them get them, and nobody else.

In: what a proxy's clusters and servers need, the world's Secrets, the time of day. Out: a layer of that proxy's own, never
shared. A Secret that is missing or unusable becomes one that says why: whoever needs it is refused, everything else goes on.
Texts name keys of the Secret, never what is in them.
"""

from __future__ import annotations

import base64
import binascii
import warnings
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.utils import CryptographyDeprecationWarning

from control.resources import core
from control.translate.snapshot import Entry, Key, Layer, Problem, entry, make_layer
from control.world import World
from meshproxy.model.security import Secret

__all__ = ["CA_SUFFIX", "Credential", "Need", "credential", "secret_layer", "sources_of"]

CA_SUFFIX = "-cacert"
# Istio's names, the older ones first: they win where a Secret has both.
_PAIRS = (("cert", "key"), ("tls.crt", "tls.key"))
_CAS = ("cacert", "ca.crt")
_CRLS = ("crl", "ca.crl")

Objects = tuple["core.Secret | None", ...]


class Need(NamedTuple):
    """``name`` is the Secret's ``namespace/name``. ``pair``: a certificate with its key; ``ca``: whom to believe. ``source`` says
    who needs it. ``refused``: why this proxy may not have it.
    """

    name: str
    source: str
    pair: bool = False
    ca: bool = False
    refused: str = ""


class Credential(NamedTuple):
    """What is in a Secret. ``error``: it cannot be used. ``expires``: Unix seconds; 0.0 without a certificate."""

    certificate: str = ""
    key: str = ""
    ca: str = ""
    crl: str = ""
    expires: float = 0.0
    error: str = ""

    def __repr__(self) -> str:
        return f"Credential(expires={self.expires}, error={self.error!r})"


class _Unusable(Exception):
    """One line that names a key of the Secret."""


def sources_of(world: World, needs: Iterable[Need]) -> Objects:
    """The objects that ``secret_layer`` reads: equal by identity means an equal layer, but for the time of day."""
    found: list[core.Secret | None] = []
    for need in needs:
        namespace, _, name = need.name.partition("/")
        found += [world.get("Secret", namespace, name), world.get("Secret", namespace, name + CA_SUFFIX)]
    return tuple(found)


def secret_layer(needs: tuple[Need, ...], objects: Objects, wall: float) -> tuple[Layer, float]:
    """``objects``: of ``sources_of``. Also returns when the next certificate ends (Unix seconds; 0.0: none does)."""
    entries: dict[Key, Entry] = {}
    problems: list[Problem] = []
    ends: list[float] = []
    for number, need in enumerate(needs):
        own, apart = objects[2 * number : 2 * number + 2]
        found = _for(need, own, apart)
        if not found.error and 0 < found.expires <= wall:
            ended = datetime.fromtimestamp(found.expires, UTC)
            found = Credential(error=f"its certificate expired at {ended:%Y-%m-%dT%H:%M:%SZ}")
        elif found.expires:
            ends.append(found.expires)
        if found.error:
            problems.append(Problem(need.source, f"Secret {need.name}: {found.error}"))
        elif need.pair and not found.certificate:
            problems.append(Problem(need.source, f"Secret {need.name}: holds no certificate with a key (tls.crt and tls.key)"))
        elif need.ca and not found.ca:
            problems.append(Problem(need.source, f"Secret {need.name}: holds no CA certificate (ca.crt)"))
        one = Secret(name=need.name, certificate=found.certificate, key=found.key, ca=found.ca, crl=found.crl, error=found.error)
        entries[("secret", need.name)] = entry("secret", one)
    return make_layer("secrets", entries, problems), min(ends, default=0.0)


def _for(need: Need, own: core.Secret | None, apart: core.Secret | None) -> Credential:
    """``apart``: the Secret ``<name>-cacert``, whose CA counts before the one beside the certificate."""
    if need.refused:
        return Credential(error=need.refused)
    if own is None and apart is None:
        return Credential(error="there is no such Secret")
    found = credential(own) if own is not None else Credential()
    if apart is not None and not found.error:
        other = credential(apart)
        if other.error or other.ca:
            found = found._replace(ca=other.ca, crl=other.crl or found.crl, error=other.error and f"{CA_SUFFIX}: {other.error}")
    return Credential(error=found.error) if found.error else found


def credential(secret: core.Secret) -> Credential:
    """The certificate, key and CA of a Secret of type kubernetes.io/tls or generic."""
    try:
        data = _data(secret)
        pair = next((names for names in _PAIRS if all(name in data for name in names)), None)
        if pair is None:
            pair = next((names for names in _PAIRS if any(name in data for name in names)), None)
        certificate = key = b""
        expires = 0.0
        if pair is not None:
            certificate, key = (data.get(name, b"") for name in pair)
            expires = _check_pair(pair, certificate, key)
        ca_name = next((name for name in _CAS if name in data), "")
        crl_name = next((name for name in _CRLS if name in data), "")
        ca, crl = data.get(ca_name, b""), data.get(crl_name, b"")
        if ca_name:
            _certificates(ca_name, ca)
        if crl_name:
            _check_crl(crl_name, crl)
        if not certificate and not ca:
            raise _Unusable("holds neither a certificate (tls.crt and tls.key) nor a CA (ca.crt)")
        return Credential(certificate.decode(), key.decode(), ca.decode(), crl.decode(), expires)
    except _Unusable as why:
        return Credential(error=str(why))
    except UnicodeDecodeError:  # beside its PEM
        return Credential(error="holds bytes that are not text")


def _data(secret: core.Secret) -> Mapping[str, bytes]:
    found: dict[str, bytes] = {}
    for name, text in (secret.data or {}).items():
        try:
            found[name] = base64.b64decode(text.replace("\n", ""), validate=True)
        except (binascii.Error, ValueError):
            raise _Unusable(f"{name} is not base64") from None
    found.update((name, text.encode()) for name, text in (secret.string_data or {}).items())
    return {name: value for name, value in found.items() if value.strip()}


def _check_pair(names: tuple[str, str], certificate: bytes, key: bytes) -> float:
    """When the certificate ends. Raises ``_Unusable``."""
    for name, value in zip(names, (certificate, key), strict=True):
        if not value:
            raise _Unusable(f"{name} is missing")
    leaf = _certificates(names[0], certificate)[0]
    try:
        private = load_pem_private_key(key, None)
    except TypeError:
        raise _Unusable(f"{names[1]} is encrypted; give the key without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _Unusable(f"{names[1]} is not a private key in PEM") from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        own = leaf.public_key().public_bytes(*form)
    except (ValueError, UnsupportedAlgorithm):
        raise _Unusable(f"{names[0]} has a key of a kind that is not supported") from None
    if private.public_key().public_bytes(*form) != own:
        raise _Unusable(f"{names[1]} does not belong to {names[0]}")
    return leaf.not_valid_after_utc.timestamp()


def _certificates(name: str, value: bytes) -> list[x509.Certificate]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)  # a serial number of 0
            return x509.load_pem_x509_certificates(value)
    except ValueError:
        raise _Unusable(f"{name} is not a certificate in PEM") from None


def _check_crl(name: str, value: bytes) -> None:
    try:
        x509.load_pem_x509_crl(value)
    except ValueError:
        raise _Unusable(f"{name} is not a revocation list in PEM") from None
