"""What control calls its own objects in a cluster (room ``cluster``), quiet: for who writes them and who makes manifests.

In: nothing. Out: names, each with who has it.
"""

from __future__ import annotations

__all__ = ["CACERTS", "CA_SECRET", "CERTIFICATE", "INJECTOR", "LEASE", "REVOCATIONS", "ROOTS", "named", "validator"]

CA_SECRET = "istio-ca-secret"  # Secret: the authority
CACERTS = "cacerts"  # Secret: the user's own authority
CERTIFICATE = "istio-sidecar-injector-certs"  # Secret: the webhooks' certificate
LEASE = "istio-leader"  # Lease: which replica leads
REVOCATIONS = "istio-ca-revocations"  # ConfigMap: what was taken back
ROOTS = "istio-ca-root-cert"  # ConfigMap in every namespace: whom to believe
INJECTOR = "istio-sidecar-injector"  # Service, and MutatingWebhookConfiguration


def named(name: str, revision: str) -> str:
    """Control of a revision ("": the default one) has objects of its own beside the others, but for those that all must share:
    the authority, what was revoked, the roots."""
    return f"{name}-{revision}" if revision and revision != "default" else name


def validator(root_namespace: str) -> str:
    """The ValidatingWebhookConfiguration."""
    return f"istio-validator-{root_namespace}"
