"""The world: an immutable, indexed picture of every object the mesh knows. Start reading at ``world``."""

from control.world.config import Config, HostedVirtualService
from control.world.endpoints import WorldEndpoint
from control.world.mesh import DEFAULT_RETRY, MeshSettings
from control.world.pods import PodInfo
from control.world.services import MeshService, ServicePort
from control.world.world import World, WorldProblem

__all__ = [
    "DEFAULT_RETRY",
    "Config",
    "HostedVirtualService",
    "MeshService",
    "MeshSettings",
    "PodInfo",
    "ServicePort",
    "World",
    "WorldEndpoint",
    "WorldProblem",
]
