"""Translate, TLS towards others: what a DestinationRule's ``tls`` block, or its absence, makes of a cluster.

In: mesh settings, a service's port and subset, the block in force. Out: ``ClientTls`` or None (plaintext). Whether an endpoint
takes mutual TLS is the endpoint's own fact, so a cluster in the mesh is ``AUTO`` whoever stands behind it at the moment.
"""

from __future__ import annotations

from control.resources.destination_rule import ClientTLSSettings
from control.translate.credentials import Need
from control.world.mesh import MeshSettings
from control.world.services import MeshService
from meshproxy.model.security import ClientTls

__all__ = ["client_need", "client_tls", "mesh_sni"]

NO_SELECTOR = "a sidecar gets it only by a DestinationRule with workloadSelector"


def mesh_sni(port: int, subset: str, host: str) -> str:
    """The server name under which one sidecar greets another (semantics A3, Client SNI)."""
    return f"outbound_.{port}_.{subset}_.{host}"


def client_tls(
    mesh: MeshSettings, service: MeshService, port: int, subset: str, block: ClientTLSSettings | None, secrets: str
) -> ClientTls | None:
    """``secrets``: the namespace in which ``credentialName`` is looked up."""
    if block is None:
        if service.external or service.resolution == "PASSTHROUGH" or not mesh.enable_auto_mtls:
            return None
        return ClientTls(mode="AUTO", sni=mesh_sni(port, subset, service.host))
    if block.mode == "DISABLE":
        return None
    if block.mode == "ISTIO_MUTUAL":
        return ClientTls(
            mode="ISTIO_MUTUAL",
            sni=block.sni or mesh_sni(port, subset, service.host),
            sans=tuple(sorted(block.subject_alt_names)),
        )
    mutual = block.mode == "MUTUAL"
    return ClientTls(
        mode=block.mode,
        sni=block.sni or ("" if service.host.startswith("*") else service.host),
        sans=tuple(sorted(block.subject_alt_names or service.sans)),
        secret=f"{secrets}/{block.credential_name}" if block.credential_name else "",
        certificate_file=block.client_certificate if mutual else "",
        key_file=block.private_key if mutual else "",
        ca_file=block.ca_certificates,
        crl_file=block.ca_crl,
        insecure_skip_verify=bool(block.insecure_skip_verify),
    )


def client_need(tls: ClientTls | None, source: str, allowed: bool) -> Need | None:
    """The Secret that a cluster cannot do without. Not ``allowed``: it is not sent, and the cluster's connections are refused."""
    if tls is None or not tls.secret:
        return None
    return Need(tls.secret, f"{source} tls.credentialName", pair=tls.mode == "MUTUAL", refused="" if allowed else NO_SELECTOR)
