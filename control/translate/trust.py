"""Translate, trust: the layer of a snapshot that says whom the mesh believes. Pure.

In: what the certificate authority says (roots, issuer, revocations) and the mesh's settings (trust domain, aliases). Out: a layer
of one resource, ``trust/mesh``, the same for every proxy.
"""

from __future__ import annotations

import msgspec

from control.translate.snapshot import Layer, entry, make_layer
from control.world.mesh import MeshSettings
from meshproxy.model.security import Trust

__all__ = ["trust_layer"]


def trust_layer(trust: Trust, mesh: MeshSettings) -> Layer:
    whole = msgspec.structs.replace(trust, domain=mesh.trust_domain, aliases=mesh.trust_domain_aliases)
    return make_layer("trust", {("trust", whole.name): entry("trust", whole)})
