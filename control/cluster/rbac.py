"""What control may do in a cluster (room ``cluster``), quiet: data for whoever makes the manifests.

In: nothing. Out: rules in the form of RBAC manifests. A test holds them to what control really asks of an API server, so a verb
that is missing here fails there. All replicas have one account; what only the leader does is marked so. RBAC cannot bind
``create`` to a name, and a list only to one in its field selector, which control's lists and watches of single objects have.
"""

from __future__ import annotations

from typing import NamedTuple

from control.cluster.names import CA_SECRET, CACERTS, CERTIFICATE, INJECTOR, LEASE, REVOCATIONS, ROOTS, validator
from control.resources.kinds import KINDS
from control.resources.mesh_config import MESH_CONFIG

__all__ = ["PEOPLE", "Rule", "cluster_rules", "gateway_rules", "people_rules", "root_rules"]

READ = ("get", "list", "watch")
PEOPLE = ("mesh-view", "mesh-edit", "mesh-admin")  # accounts of the root namespace; see ``reviews``


class Rule(NamedTuple):
    """``names`` empty: any."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    names: tuple[str, ...] = ()
    why: str = ""

    def manifest(self) -> dict[str, list[str]]:
        named = {"resourceNames": list(self.names)} if self.names else {}
        return {"apiGroups": [self.group], "resources": list(self.resources), "verbs": list(self.verbs), **named}


def cluster_rules(root_namespace: str) -> tuple[Rule, ...]:
    """For a ClusterRole of control's account."""
    by_group: dict[str, list[str]] = {}
    for kind in KINDS:
        if kind.is_mesh:
            by_group.setdefault(kind.group, []).append(kind.plural)
    webhooks = "admissionregistration.k8s.io"
    return (
        Rule("", ("namespaces", "nodes", "pods", "serviceaccounts", "services"), READ, why="what there is"),
        Rule("discovery.k8s.io", ("endpointslices",), READ, why="who is ready behind a service"),
        *(Rule(group, tuple(plurals), READ, why="the mesh's own resources") for group, plurals in by_group.items()),
        *(
            Rule(group, tuple(f"{plural}/status" for plural in plurals), ("patch",), why="leader: what analysis finds")
            for group, plurals in by_group.items()
        ),
        Rule("authentication.k8s.io", ("tokenreviews",), ("create",), why="who calls"),
        Rule("", ("configmaps",), ("create",), why="leader: the roots of every namespace; all: revocations"),
        Rule("", ("configmaps",), (*READ, "update"), (ROOTS,), "leader: the roots of every namespace"),
        Rule(webhooks, ("mutatingwebhookconfigurations",), (*READ, "patch"), (INJECTOR,), "leader: caBundle"),
        Rule(
            webhooks,
            ("validatingwebhookconfigurations",),
            (*READ, "patch"),
            (validator(root_namespace),),
            "leader: caBundle",
        ),
    )


def root_rules() -> tuple[Rule, ...]:
    """For a Role in the root namespace, of control's account."""
    leases = "coordination.k8s.io"
    return (
        *gateway_rules(),
        Rule("", ("secrets",), READ, (CA_SECRET, CACERTS, CERTIFICATE), "the authority; leader: the webhooks' certificate"),
        Rule("", ("secrets",), ("create",), why="leader: the first authority, the webhooks' certificate"),
        Rule("", ("secrets",), ("update",), (CA_SECRET, CERTIFICATE), "rotations; leader: the webhooks' certificate"),
        Rule("", ("configmaps",), READ, (MESH_CONFIG, REVOCATIONS), "settings; what was taken back"),
        Rule("", ("configmaps",), ("update",), (REVOCATIONS,), "what was taken back"),
        Rule(leases, ("leases",), ("create",), why="who leads"),
        Rule(leases, ("leases",), ("get", "update"), (LEASE,), "who leads"),
    )


def gateway_rules() -> tuple[Rule, ...]:
    """For a Role in every namespace where a gateway runs, bound to control's account; other Secrets are none of its business."""
    return (Rule("", ("secrets",), ("list", "watch"), why="credentials that Gateways name"),)


def people_rules(account: str) -> tuple[Rule, ...]:
    """For a Role in the root namespace, for people who are to have the role of ``account`` (one of ``PEOPLE``) with meshctl."""
    return (
        Rule("", ("serviceaccounts/token",), ("create",), (account,), "a token of that role"),
        Rule("", ("services/proxy",), ("get", "create", "delete"), ("https:istiod:15012",), "the way to control"),
    )
