"""What TLS blocks must keep besides their shape: servers of Gateways, clients of DestinationRules.

Room: control/resources. In: a block, its path. Out: errors and warnings, after Istio's own validation.
"""

from __future__ import annotations

import base64
import binascii
import re

from control.resources.destination_rule import ClientTLSSettings
from control.resources.gateway import CIPHER_SUITES, ServerTLSSettings
from control.resources.report import Report
from control.resources.values import quote

__all__ = ["client_tls", "server_tls"]

_OLD = ("TLSV1_0", "TLSV1_1")
_VERIFYING = ("MUTUAL", "OPTIONAL_MUTUAL")
_HASH = re.compile(r"[0-9a-fA-F]{2}(:?[0-9a-fA-F]{2}){31}\Z")


def server_tls(report: Report, path: str, tls: ServerTLSSettings) -> None:
    """The block of a TLS server."""
    if tls.credential_name and tls.credential_names:
        report.error(f"{path}.credentialNames", "does not go with credentialName")
    if tls.tls_certificates and (tls.server_certificate or tls.private_key):
        report.error(f"{path}.tlsCertificates", "does not go with serverCertificate and privateKey")
    for name, several in (("credentialNames", tls.credential_names), ("tlsCertificates", tls.tls_certificates)):
        if len(several) > 2:
            report.error(f"{path}.{name}", "may hold two at most: one for RSA, one for ECDSA")
        elif len(several) == 2:
            report.warn(f"{path}.{name}", "only the first is used yet")
    _certificates(report, path, tls)
    _clients(report, path, tls)
    _versions(report, path, tls)


def _certificates(report: Report, path: str, tls: ServerTLSSettings) -> None:
    """Where the server's certificate and the clients' authorities come from."""
    files = {"serverCertificate": tls.server_certificate, "privateKey": tls.private_key, "caCertificates": tls.ca_certificates}
    named = {"credentialName": tls.credential_name, "credentialNames": tls.credential_names}
    if tls.mode == "ISTIO_MUTUAL":
        others = {"caCertCredentialName": tls.ca_cert_credential_name, "tlsCertificates": tls.tls_certificates}
        for name, value in {**files, **named, **others}.items():
            if value:
                report.error(f"{path}.{name}", "must not be given with mode ISTIO_MUTUAL, which uses the mesh's certificates")
        return
    if tls.mode in ("PASSTHROUGH", "AUTO_PASSTHROUGH"):
        for name, value in {**files, **named, "caCrl": tls.ca_crl}.items():
            if value:
                report.warn(f"{path}.{name}", f"is not used with mode {tls.mode}")
        return
    if any(named.values()):
        for name, value in files.items():
            if value:
                report.warn(f"{path}.{name}", "is not used: a credentialName is given")
        return
    if tls.tls_certificates:
        for i, pair in enumerate(tls.tls_certificates):
            for name, text in (("serverCertificate", pair.server_certificate), ("privateKey", pair.private_key)):
                if not text:
                    report.error(f"{path}.tlsCertificates[{i}].{name}", "is required")
    else:
        for name in ("serverCertificate", "privateKey"):
            if not files[name]:
                report.error(f"{path}.{name}", f"(or credentialName) is required with mode {tls.mode}")
    ca = tls.ca_certificates or any(pair.ca_certificates for pair in tls.tls_certificates)
    if tls.mode in _VERIFYING and not ca and not tls.ca_cert_credential_name:
        report.error(f"{path}.caCertificates", f"(or credentialName) is required with mode {tls.mode}")


def _clients(report: Report, path: str, tls: ServerTLSSettings) -> None:
    """What is asked of the certificates that clients show."""
    given = {
        "subjectAltNames": tls.subject_alt_names,
        "verifyCertificateSpki": tls.verify_certificate_spki,
        "verifyCertificateHash": tls.verify_certificate_hash,
    }
    if tls.mode not in (*_VERIFYING, "ISTIO_MUTUAL"):
        for name, value in {**given, "caCertCredentialName": tls.ca_cert_credential_name}.items():
            if value:
                report.warn(f"{path}.{name}", f"is not used with mode {tls.mode}, which asks for no client certificate")
    _names(report, path, tls.subject_alt_names)
    for i, text in enumerate(tls.verify_certificate_spki):
        if not _is_digest(text):
            report.error(f"{path}.verifyCertificateSpki[{i}]", f"must be the base64 of a SHA-256, not {quote(text)}")
    for i, text in enumerate(tls.verify_certificate_hash):
        if _HASH.match(text) is None:
            report.error(
                f"{path}.verifyCertificateHash[{i}]", f"must be a SHA-256 in hex, with or without colons, not {quote(text)}"
            )


def _versions(report: Report, path: str, tls: ServerTLSSettings) -> None:
    for name, version in (("minProtocolVersion", tls.min_protocol_version), ("maxProtocolVersion", tls.max_protocol_version)):
        if version in _OLD:
            report.error(f"{path}.{name}", f"{version} is not supported: the oldest version is TLSV1_2")
    if tls.min_protocol_version == "TLSV1_3" and tls.max_protocol_version == "TLSV1_2":
        report.error(f"{path}.maxProtocolVersion", "is below minProtocolVersion")
    seen: set[str] = set()
    for i, suite in enumerate(tls.cipher_suites):
        if suite in seen:
            report.warn(f"{path}.cipherSuites[{i}]", f"{quote(suite)} is given twice")
        elif suite not in CIPHER_SUITES:
            report.warn(f"{path}.cipherSuites[{i}]", f"{quote(suite)} is ignored: it is unknown or not safe")
        seen.add(suite)


def _is_digest(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 32
    except (binascii.Error, ValueError):
        return False


def _names(report: Report, path: str, names: tuple[str, ...]) -> None:
    for i, name in enumerate(names):
        if not name:
            report.error(f"{path}.subjectAltNames[{i}]", "must not be empty")


def client_tls(report: Report, path: str, tls: ClientTLSSettings) -> None:
    """The block of a DestinationRule."""
    given = {
        "clientCertificate": tls.client_certificate,
        "privateKey": tls.private_key,
        "caCertificates": tls.ca_certificates,
    }
    files = [name for name, value in given.items() if value]
    _names(report, path, tls.subject_alt_names)
    if tls.insecure_skip_verify:
        for name, value in (("caCertificates", tls.ca_certificates), ("caCrl", tls.ca_crl)):
            if value:
                report.error(f"{path}.{name}", "does not go with insecureSkipVerify")
    if tls.mode == "ISTIO_MUTUAL":
        for name in files + (["credentialName"] if tls.credential_name else []):
            report.error(f"{path}.{name}", "must not be given with mode ISTIO_MUTUAL, which uses the mesh's certificates")
    elif tls.credential_name:
        for name in files:
            report.error(f"{path}.{name}", "does not go with credentialName")
    elif tls.mode == "MUTUAL":
        for name in ("clientCertificate", "privateKey"):
            if name not in files:
                report.error(f"{path}.{name}", "is required with mode MUTUAL, unless credentialName is given")
