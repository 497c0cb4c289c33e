"""Analysis, mutual TLS: PeerAuthentications that hide each other, clients that speak otherwise than servers demand, and who is
turned away. Codes IST0101 (Secrets of TLS origination), IST0113, MESH0015, MESH0019, MESH0023.

In: a scene. Out: findings. Semantics A3, B7: the oldest of a scope counts; a sidecar stands where the label tlsMode says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from control.analyze.finding import Finding, Subject, found
from control.analyze.policies import subject
from control.analyze.scene import Scene
from control.analyze.walk import inbound_ports
from control.resources.destination_rule import ClientTLSSettings, DestinationRule, TrafficPolicy
from control.resources.security import PeerAuthenticationSpec
from control.translate.inbound import target_port
from control.translate.peers import mtls_mode
from control.world import MeshService, PodInfo
from control.world.endpoints import TLS_MODE_LABEL
from control.world.security import Scoped

__all__ = ["credentials", "destination_rules", "duplicates", "turned_away"]

_SHOWN = 3


def duplicates(scene: Scene) -> Iterator[Finding]:
    for _, space in sorted(scene.config.security.items()):
        wide = [one for one in space.peers if not one.labels]  # oldest first
        for one in wide[1:]:
            yield _ignored(one, wide[0], "speaks for the whole of the namespace already")
        narrow = [one for one in space.peers if one.labels]
        for position, one in enumerate(narrow):
            pods = {pod.name for pod in scene.pods(dict(one.labels), one.namespace)}
            for other in narrow[:position]:
                shared = sorted(pods & {pod.name for pod in scene.pods(dict(other.labels), other.namespace)})
                if shared:
                    yield _ignored(one, other, f"selects pod {shared[0]} too")
                    break


def _ignored(one: Scoped, other: Scoped, why: str) -> Finding:
    message = f"PeerAuthentication {other.namespace}/{other.name} {why}, and the oldest counts: this one is ignored there."
    return found("MESH0019", subject(one), "spec.selector" if one.labels else "", message)


# -- DestinationRules ----------------------------------------------------------------------------------------------------


class _Block(NamedTuple):
    """A ``tls`` block, for whom it is. ``port``: None for every port of the service."""

    path: str
    tls: ClientTLSSettings
    port: int | None
    labels: Mapping[str, str]


def destination_rules(scene: Scene) -> Iterator[Finding]:
    for rule in scene.all("DestinationRule"):
        for block in _blocks(rule):
            for service in scene.rules_of(rule):
                finding = _conflict(scene, rule, block, service)
                if finding is not None:
                    yield finding
                    break


def credentials(scene: Scene) -> Iterator[Finding]:
    """Secrets of TLS origination. Which pods call as gateways is not looked at, and files seldom hold Secrets."""
    known = {(one.metadata.namespace, one.metadata.name) for one in scene.all("Secret")}
    for rule in scene.all("DestinationRule"):
        space, selector = rule.metadata.namespace, rule.spec.workload_selector
        for block in _blocks(rule):
            name, path = block.tls.credential_name, block.path.removesuffix("mode") + "credentialName"
            if not name or block.tls.mode not in ("SIMPLE", "MUTUAL"):
                continue
            if selector is None or not selector.match_labels:
                message = (
                    f'only gateways get it, and sidecars cannot connect (503): give the rule a workloadSelector, and "{name}" is '
                    f"sent to the pods of {space} that it selects."
                )
                yield found("MESH0023", Subject.of(rule), path, message)
            elif scene.live and (space, name) not in known:
                message = f'Referenced credentialName not found: "{name}"; make a Secret of that name in namespace {space}'
                yield found("IST0101", Subject.of(rule), path, message)


def _blocks(rule: DestinationRule) -> Iterator[_Block]:
    policies: list[tuple[str, TrafficPolicy | None, Mapping[str, str]]] = [("spec.trafficPolicy", rule.spec.traffic_policy, {})]
    policies += [(f"spec.subsets[{i}].trafficPolicy", one.traffic_policy, one.labels) for i, one in enumerate(rule.spec.subsets)]
    for path, policy, labels in policies:
        if policy is None:
            continue
        if policy.tls is not None:
            yield _Block(f"{path}.tls.mode", policy.tls, None, labels)
        for index, setting in enumerate(policy.port_level_settings):
            if setting.tls is not None and setting.port is not None:
                yield _Block(f"{path}.portLevelSettings[{index}].tls.mode", setting.tls, setting.port.number, labels)


def _conflict(scene: Scene, rule: DestinationRule, block: _Block, service: MeshService) -> Finding | None:
    """The first pod of the service with which such a client cannot speak."""
    if not service.selector:
        return None
    for pod in scene.pods({**dict(service.selector), **block.labels}, service.namespace):
        sidecar = (TLS_MODE_LABEL, "istio") in pod.labels
        for port in service.ports:
            target = target_port(port, pod.ports)
            if target is None or not port.http or block.port not in (None, port.number):
                continue
            mode, source = mtls_mode(scene.config, pod.namespace, dict(pod.labels), target)
            said = f"{pod.namespace}/{pod.name} port {target}"
            if block.tls.mode != "ISTIO_MUTUAL" and mode == "STRICT" and sidecar:
                message = (
                    f"{block.tls.mode} towards {service.host}, but {said} demands the mesh's mutual TLS ({source}): connections "
                    "are refused. Use ISTIO_MUTUAL, or leave tls out."
                )
                return found("IST0113", Subject.of(rule), block.path, message)
            if block.tls.mode == "ISTIO_MUTUAL" and (mode == "DISABLE" or not sidecar):
                why = f"mutual TLS is switched off for {said} ({source})" if sidecar else f"no sidecar stands beside {said}"
                message = f"ISTIO_MUTUAL towards {service.host}, but {why}: its connections fail. Leave tls out."
                return found("IST0113", Subject.of(rule), block.path, message)
    return None


# -- STRICT --------------------------------------------------------------------------------------------------------------


def turned_away(scene: Scene) -> Iterator[Finding]:
    """Callers that STRICT has refused (of a mesh), and pods that could not call because they have no sidecar."""
    refused: dict[Subject, dict[str, str]] = {}
    for row in scene.facts.callers:
        for listener in row["listeners"]:
            if listener["mtls"] != "STRICT":
                continue
            about = _source(listener["source"]) or Subject("Pod", row["namespace"], row["pod"])
            for caller in listener["callers"]:
                if caller["how"] == "refused":
                    who = f"{caller['namespace']}/{caller['workload']}" if caller["workload"] else caller["source"]
                    refused.setdefault(about, {})[who] = f"{row['namespace']}/{row['workload']}"
    for about, callers in sorted(refused.items()):
        names = sorted(callers)
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        message = (
            f"STRICT refuses {', '.join(names[:_SHOWN])}{more}, who called {callers[names[0]]} in plaintext "
            "(meshctl x mtls report). Give the caller a sidecar, or go back to PERMISSIVE there."
        )
        yield found("MESH0015", about, "", message)
    for _, space in sorted(scene.config.security.items()):
        for one in space.peers:
            if isinstance(one.spec, PeerAuthenticationSpec) and one.spec.mtls is not None and one.spec.mtls.mode == "STRICT":
                yield from _strangers(scene, one)


def _source(text: str) -> Subject | None:
    kind, _, rest = text.partition(" ")
    space, slash, name = rest.partition(" ")[0].partition("/")
    return Subject(kind, space, name) if slash and kind == "PeerAuthentication" else None


def _strangers(scene: Scene, one: Scoped) -> Iterator[Finding]:
    """Pods of the policy's own namespace that would call in plaintext; which do, only a mesh can tell."""
    everywhere = one.namespace == scene.mesh.root_namespace and not one.labels
    served = [pod for pod in scene.pods(dict(one.labels), None if everywhere else one.namespace) if inbound_ports(scene, pod)]
    bare = [pod for pod in scene.pods({}, None if everywhere else one.namespace) if _bare(pod)]
    if served and bare:
        names = ", ".join(f"{pod.namespace}/{pod.name}" for pod in bare[:_SHOWN])
        more = f" and {len(bare) - _SHOWN} more" if len(bare) > _SHOWN else ""
        message = f"STRICT shuts out callers without a sidecar, such as {names}{more}: if they call here, they are refused."
        level: Literal["Info"] = "Info"
        yield found("MESH0015", subject(one), "spec.mtls.mode", message, level)


def _bare(pod: PodInfo) -> bool:
    return pod.role != "gateway" and (TLS_MODE_LABEL, "istio") not in pod.labels
