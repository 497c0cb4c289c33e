"""What is shown of certificates, own and given: ``/certs``, the question ``secrets``, a line of ``/server_info``. Quiet but for
cryptography; a key is never read here.

In: the identity in force, the mesh's trust, the secrets of the configuration, the wall time. Out: plain values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any, NamedTuple, cast

from meshproxy.agent.certificates import BadCertificate, Certificate, moment, read_certificates
from meshproxy.apply import trust_of
from meshproxy.model.base import Model
from meshproxy.model.security import Secret, Trust
from meshproxy.tls.identity import Identity

__all__ = ["Credentials"]

_DAY = 86_400.0
_CHAIN, _CA = "Cert Chain", "CA"  # as istioctl calls them


class Credentials(NamedTuple):
    """``problem``: why there is no newer identity, or ""."""

    identity: Identity | None
    trust: Trust | None
    secrets: Mapping[str, Secret]
    problem: str = ""

    @classmethod
    def of(cls, identity: Identity | None, resources: Mapping[str, Mapping[str, Model]], problem: str = "") -> Credentials:
        return cls(identity, trust_of(resources), cast("Mapping[str, Secret]", resources.get("secret", {})), problem)

    @property
    def _roots(self) -> tuple[bytes, ...]:
        """The configuration's, once there is one."""
        if self.trust is not None and self.trust.roots:
            return tuple(root.encode() for root in self.trust.roots)
        return self.identity.roots if self.identity is not None else ()

    def page(self, now: float) -> dict[str, Any]:
        """``/certs``, in Envoy's shape."""
        chain = (self.identity.certificate,) if self.identity is not None else ()
        entries = [{"name": "default", "ca_cert": _details(self._roots, now), "cert_chain": _details(chain, now)}]
        for name, secret in sorted(self.secrets.items()):
            cas, chains = ([text.encode()] if text else [] for text in (secret.ca, secret.certificate))
            entry: dict[str, Any] = {"name": name, "ca_cert": _details(cas, now), "cert_chain": _details(chains, now)}
            entries.append({**entry, "error": secret.error} if secret.error else entry)
        return {"certificates": entries}

    def rows(self, now: float) -> list[dict[str, Any]]:
        """For ``meshctl proxy-config secret``: one row per credential, a chain by its leaf."""
        own = self.identity.certificate if self.identity is not None else b""
        rows = [_row("default", _CHAIN, own, now, self.problem)]
        rows += [_row("ROOTCA", _CA, root, now, "") for root in self._roots]
        for name, secret in sorted(self.secrets.items()):
            if secret.certificate or not secret.ca:
                rows.append(_row(name, _CHAIN, secret.certificate.encode(), now, secret.error))
            if secret.ca:
                rows.append(_row(name, _CA, secret.ca.encode(), now, secret.error))
        return rows

    def line(self) -> dict[str, Any]:
        """For ``/server_info``."""
        held = self.identity
        if held is None:
            return {"uri": "", "expires": "", "last_error": self.problem}
        return {"uri": held.uri, "expires": moment(held.expires), "last_error": self.problem}


def _row(name: str, kind: str, pem: bytes, now: float, error: str) -> dict[str, Any]:
    """ACTIVE: it can be used. WARMING: it is not there, or cannot be used; ``error`` says why."""
    row = {"name": name, "type": kind, "status": "WARMING", "valid": False, "serial": "", "notAfter": "", "notBefore": ""}
    if pem:
        try:
            (leaf, *_) = read_certificates(pem)
        except BadCertificate as bad:
            error = error or str(bad)
        else:
            row |= {"serial": leaf.serial, "notAfter": moment(leaf.not_after), "notBefore": moment(leaf.not_before)}
            row |= {"status": "ACTIVE", "valid": leaf.not_before <= now < leaf.not_after}
    return {**row, "error": error} if error else row


def _details(pems: Iterable[bytes], now: float) -> list[dict[str, Any]]:
    return [_detail(one, now) for pem in pems for one in _readable(pem)]


def _readable(pem: bytes) -> Iterator[Certificate]:
    try:
        yield from read_certificates(pem)
    except BadCertificate:
        return


def _detail(one: Certificate, now: float) -> dict[str, Any]:
    return {
        "path": "<inline>",
        "serial_number": one.serial,
        "subject_alt_names": [{_sort(name): name} for name in one.names],
        "days_until_expiration": str(max(0, int((one.not_after - now) / _DAY))),
        "valid_from": moment(one.not_before),
        "expiration_time": moment(one.not_after),
    }


def _sort(name: str) -> str:
    if "://" in name:
        return "uri"
    try:
        ip_address(name)
    except ValueError:
        return "dns"
    return "ip_address"
