"""TLS blocks: which fields go with which mode, and what is refused because it would not be safe."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from control.resources.check import validate

FILES = "serverCertificate: c, privateKey: k"
HASH, SPKI = "ab" * 32, "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVowMTIzNDU="


def gateway(tls: str, protocol: str = "HTTPS") -> tuple[list[str], list[str]]:
    server = {"port": {"number": 443, "name": "a", "protocol": protocol}, "hosts": ["a.example"], "tls": yaml.safe_load(tls)}
    return judged("Gateway", {"servers": [server]}, "spec.servers[0].tls.")


def rule(tls: str) -> tuple[list[str], list[str]]:
    return judged("DestinationRule", {"host": "a", "trafficPolicy": {"tls": yaml.safe_load(tls)}}, "spec.trafficPolicy.tls.")


def judged(kind: str, spec: dict[str, Any], path: str) -> tuple[list[str], list[str]]:
    verdict = validate({"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": {"name": "x"}, "spec": spec})
    return [str(p).removeprefix(path) for p in verdict.errors], [str(p).removeprefix(path) for p in verdict.warnings]


@pytest.mark.parametrize(
    "tls",
    [
        "{mode: SIMPLE, credentialName: a}",
        "{mode: SIMPLE, credentialNames: [a]}",
        f"{{mode: SIMPLE, {FILES}, minProtocolVersion: TLSV1_2, maxProtocolVersion: TLSV1_3}}",
        f"{{mode: SIMPLE, {FILES}, cipherSuites: [ECDHE-RSA-AES128-GCM-SHA256, AES256-GCM-SHA384]}}",
        f"{{mode: SIMPLE, tlsCertificates: [{{{FILES}}}]}}",
        f"{{mode: MUTUAL, {FILES}, caCertificates: ca, caCrl: crl}}",
        f"{{mode: MUTUAL, {FILES}, caCertCredentialName: ca}}",
        f"{{mode: OPTIONAL_MUTUAL, credentialName: a, verifyCertificateHash: [{HASH}], verifyCertificateSpki: [{SPKI}]}}",
        "{mode: ISTIO_MUTUAL}",
        "{mode: ISTIO_MUTUAL, subjectAltNames: ['spiffe://a/b']}",
    ],
)
def test_what_a_tls_server_may_say(tls: str) -> None:
    assert gateway(tls) == ([], [])


@pytest.mark.parametrize(
    ("tls", "error"),
    [
        ("{mode: SIMPLE}", "serverCertificate: (or credentialName) is required with mode SIMPLE"),
        (f"{{mode: MUTUAL, {FILES}}}", "caCertificates: (or credentialName) is required with mode MUTUAL"),
        (f"{{mode: OPTIONAL_MUTUAL, {FILES}}}", "caCertificates: (or credentialName) is required with mode OPTIONAL_MUTUAL"),
        (
            "{mode: ISTIO_MUTUAL, credentialName: a}",
            "credentialName: must not be given with mode ISTIO_MUTUAL, which uses the mesh's certificates",
        ),
        (
            "{mode: ISTIO_MUTUAL, caCertCredentialName: a}",
            "caCertCredentialName: must not be given with mode ISTIO_MUTUAL, which uses the mesh's certificates",
        ),
        ("{mode: SIMPLE, credentialName: a, credentialNames: [b]}", "credentialNames: does not go with credentialName"),
        (
            "{mode: SIMPLE, credentialNames: [a, b, c]}",
            "credentialNames: may hold two at most: one for RSA, one for ECDSA",
        ),
        (
            f"{{mode: SIMPLE, {FILES}, tlsCertificates: [{{{FILES}}}]}}",
            "tlsCertificates: does not go with serverCertificate and privateKey",
        ),
        ("{mode: SIMPLE, tlsCertificates: [{privateKey: k}]}", "tlsCertificates[0].serverCertificate: is required"),
        (
            "{mode: SIMPLE, credentialName: a, minProtocolVersion: TLSV1_0}",
            "minProtocolVersion: TLSV1_0 is not supported: the oldest version is TLSV1_2",
        ),
        (
            "{mode: SIMPLE, credentialName: a, maxProtocolVersion: TLSV1_1}",
            "maxProtocolVersion: TLSV1_1 is not supported: the oldest version is TLSV1_2",
        ),
        (
            "{mode: SIMPLE, credentialName: a, minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2}",
            "maxProtocolVersion: is below minProtocolVersion",
        ),
        (
            "{mode: MUTUAL, credentialName: a, verifyCertificateHash: [abc]}",
            'verifyCertificateHash[0]: must be a SHA-256 in hex, with or without colons, not "abc"',
        ),
        (
            "{mode: MUTUAL, credentialName: a, verifyCertificateSpki: [abc]}",
            'verifyCertificateSpki[0]: must be the base64 of a SHA-256, not "abc"',
        ),
        ("{mode: MUTUAL, credentialName: a, subjectAltNames: ['']}", "subjectAltNames[0]: must not be empty"),
    ],
)
def test_what_a_tls_server_may_not_say(tls: str, error: str) -> None:
    assert error in gateway(tls)[0]


@pytest.mark.parametrize(
    ("tls", "warning"),
    [
        ("{mode: PASSTHROUGH, credentialName: a}", "credentialName: is not used with mode PASSTHROUGH"),
        (f"{{mode: SIMPLE, credentialName: a, {FILES}}}", "privateKey: is not used: a credentialName is given"),
        ("{mode: SIMPLE, credentialNames: [a, b]}", "credentialNames: only the first is used yet"),
        (
            "{mode: SIMPLE, credentialName: a, subjectAltNames: [b]}",
            "subjectAltNames: is not used with mode SIMPLE, which asks for no client certificate",
        ),
        (
            "{mode: SIMPLE, credentialName: a, cipherSuites: [RC4-SHA]}",
            'cipherSuites[0]: "RC4-SHA" is ignored: it is unknown or not safe',
        ),
        (
            "{mode: SIMPLE, credentialName: a, cipherSuites: [AES128-SHA, AES128-SHA]}",
            'cipherSuites[1]: "AES128-SHA" is given twice',
        ),
        ("{mode: SIMPLE, credentialName: a, httpsRedirect: true}", "httpsRedirect: is for HTTP servers only"),
    ],
)
def test_what_a_tls_server_says_in_vain(tls: str, warning: str) -> None:
    errors, warnings = gateway(tls)
    assert errors == []
    assert warning in warnings


@pytest.mark.parametrize(
    ("tls", "errors"),
    [
        ("{mode: DISABLE}", []),
        ("{mode: ISTIO_MUTUAL, sni: a, subjectAltNames: [b]}", []),
        ("{mode: SIMPLE}", []),
        ("{mode: SIMPLE, caCertificates: ca, caCrl: crl, sni: a}", []),
        ("{mode: SIMPLE, insecureSkipVerify: true}", []),
        ("{mode: MUTUAL, credentialName: a}", []),
        ("{mode: MUTUAL, clientCertificate: c, privateKey: k}", []),
        ("{mode: MUTUAL, clientCertificate: c}", ["privateKey: is required with mode MUTUAL, unless credentialName is given"]),
        ("{mode: SIMPLE, credentialName: a, caCertificates: ca}", ["caCertificates: does not go with credentialName"]),
        ("{mode: SIMPLE, insecureSkipVerify: true, caCertificates: ca}", ["caCertificates: does not go with insecureSkipVerify"]),
        ("{mode: SIMPLE, insecureSkipVerify: true, caCrl: a}", ["caCrl: does not go with insecureSkipVerify"]),
        ("{mode: SIMPLE, subjectAltNames: ['']}", ["subjectAltNames[0]: must not be empty"]),
        (
            "{mode: ISTIO_MUTUAL, credentialName: a}",
            ["credentialName: must not be given with mode ISTIO_MUTUAL, which uses the mesh's certificates"],
        ),
    ],
)
def test_what_a_destination_rule_may_say(tls: str, errors: list[str]) -> None:
    assert rule(tls)[0] == errors


def test_no_message_about_a_secret_shows_what_is_in_it() -> None:
    meta = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
    for broken in ({"data": "hunter2"}, {"data": {"a": "hunter2!"}}, {"data": ["hunter2"]}, {"stringData": {"a": 4711}}):
        verdict = validate({**meta, **broken})
        assert verdict.errors
        assert not any("hunter2" in str(problem) or "4711" in str(problem) for problem in verdict.errors)
