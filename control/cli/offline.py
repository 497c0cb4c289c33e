"""A mesh made of files, for verbs that judge configuration before it is applied: analyze, explain, test.

In: files. Out: objects as a cluster would complete them (pods of Deployments, endpoints of Services), and for any pod of theirs
the very snapshot that its sidecar would run, compiled by the sidecar's own code. Nothing is contacted. Addresses that the files
do not give are made up, from 240.0.0.0/8, which nobody has.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from control.cli.errors import CliError

if TYPE_CHECKING:
    from control.translate.proxy import ProxyId
    from control.translate.snapshot import Snapshot as Translated
    from control.world import World
    from meshproxy.apply import Snapshot

__all__ = ["Decider", "Loaded", "completed", "made_up", "read"]

Obj = dict[str, Any]
MADE_UP = ipaddress.IPv4Network("240.0.0.0/8")
MAX_REPLICAS = 50
# Kinds that make pods from a template; only Deployment is known to the API, the others count for their pods all the same.
_TEMPLATED = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController")
_PREFIXES = ("pod/", "po/", "deployment/", "deploy/", "statefulset/", "sts/", "daemonset/", "ds/")
_TLS_MODE = ("security.istio.io/tlsMode", "istio")
_INJECT = "sidecar.istio.io/inject"
GATEWAYS = {"istio-ingressgateway": "ingressgateway", "istio-egressgateway": "egressgateway"}


@dataclass(frozen=True)
class Loaded:
    """``objects`` have namespaces. ``sources``: the file of each, by kind, namespace and name."""

    objects: tuple[Obj, ...]
    sources: Mapping[tuple[str, str, str], str]


def read(files: Sequence[str], namespace: str = "default") -> Loaded:
    """Every object of the files. Raises ``CliError``; what is in an object is judged later."""
    from control.cli.refs import documents

    objects: list[Obj] = []
    sources: dict[tuple[str, str, str], str] = {}
    for document in documents(files):
        obj = document.object
        if not isinstance(obj, dict):
            raise CliError(f"{document.source}: holds a {type(obj).__name__} where an object should be")
        meta = obj.get("metadata")
        if isinstance(meta, dict) and not meta.get("namespace") and _namespaced(obj):
            obj = {**obj, "metadata": {**meta, "namespace": namespace}}
        objects.append(obj)
        sources[_key(obj)] = document.source  # of an object that is given twice the last counts
    return Loaded(tuple(objects), sources)


def _namespaced(obj: Obj) -> bool:
    from control.resources.kinds import kind_of

    try:
        return kind_of(obj).namespaced
    except KeyError:
        return True


def _key(obj: Obj) -> tuple[str, str, str]:
    meta = obj.get("metadata")
    meta = meta if isinstance(meta, dict) else {}
    return (str(obj.get("kind") or "?"), str(meta.get("namespace") or ""), str(meta.get("name") or "?"))


def made_up(address: str) -> bool:
    """Whether an address (with or without a port) is one of ours."""
    try:
        return ipaddress.IPv4Address(address.partition(":")[0]) in MADE_UP
    except ValueError:
        return False


def completed(objects: Iterable[Obj]) -> list[Obj]:
    """The objects, with what a cluster would add: pods of templates, addresses and readiness, endpoints of Services."""
    given = list(objects)
    addresses = (str(MADE_UP[number]) for number in range(1, MADE_UP.num_addresses))
    pods = [_running(obj, addresses) for obj in given if obj.get("kind") == "Pod" and isinstance(obj.get("metadata"), dict)]
    names = {_key(pod)[1:] for pod in pods}
    for obj in given:
        if obj.get("kind") in _TEMPLATED and isinstance(obj.get("metadata"), dict):
            pods += [_running(pod, addresses) for pod in _from_template(obj) if _key(pod)[1:] not in names]
    others = [obj for obj in given if obj.get("kind") != "Pod"]
    return [*others, *pods, *_slices(others, pods)]


def _from_template(obj: Obj) -> Iterator[Obj]:
    meta, spec = obj["metadata"], obj.get("spec")
    template = spec.get("template") if isinstance(spec, dict) else None
    if not isinstance(spec, dict) or not isinstance(template, dict):
        return
    about = template.get("metadata")
    about = about if isinstance(about, dict) else {}
    wanted = spec.get("replicas", 1)
    count = min(wanted, MAX_REPLICAS) if isinstance(wanted, int) and obj["kind"] != "DaemonSet" else 1
    owner = {"apiVersion": str(obj.get("apiVersion")), "kind": obj["kind"], "name": str(meta.get("name")), "controller": True}
    for number in range(count):
        name = str(meta.get("name")) if count == 1 else f"{meta.get('name')}-{number}"
        made = {**about, "name": name, "namespace": meta.get("namespace"), "ownerReferences": [owner]}
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": template.get("spec") or {}}


def _running(pod: Obj, addresses: Iterator[str]) -> Obj:
    """A pod in a file runs, unless it says itself that it does not; and a sidecar stands beside it, unless it wants none.

    The label is what injection would add.
    """
    labels = pod["metadata"].get("labels")
    labels = dict(labels) if isinstance(labels, dict) else {}
    annotations = pod["metadata"].get("annotations")
    spec = pod.get("spec")
    wish = labels.get(_INJECT) or (annotations.get(_INJECT) if isinstance(annotations, dict) else None)
    if wish != "false" and not (isinstance(spec, dict) and spec.get("hostNetwork")):
        pod = {**pod, "metadata": {**pod["metadata"], "labels": {_TLS_MODE[0]: _TLS_MODE[1], **labels}}}
    status = dict(pod["status"]) if isinstance(pod.get("status"), dict) else {}
    if not status.get("podIP"):
        status["podIP"] = next(addresses)
    if not status.get("conditions"):
        status["conditions"] = [{"type": "Ready", "status": "True"}]
    return {**pod, "status": status}


def _slices(others: list[Obj], pods: list[Obj]) -> list[Obj]:
    """Endpoints of Services whose endpoints the files do not hold, by the rules of control's own controller."""
    from control.sources.slices import SERVICE_NAME, pod_facts, selector_of, wanted_slices

    held = {_key(obj)[1:] for obj in others if obj.get("kind") == "Endpoints"}
    for obj in others:
        if obj.get("kind") == "EndpointSlice" and isinstance(obj.get("metadata"), dict):
            labels = obj["metadata"].get("labels") or {}
            held.add((str(obj["metadata"].get("namespace")), str(labels.get(SERVICE_NAME))))
    facts = [pod_facts(pod) for pod in pods]
    found: list[Obj] = []
    for obj in others:
        if obj.get("kind") != "Service" or _key(obj)[1:] in held or not isinstance(obj.get("metadata"), dict):
            continue
        selector = selector_of(obj)
        if selector is None:
            continue
        namespace = _key(obj)[1]
        picked = [pod for pod in facts if pod.namespace == namespace and selector.items() <= dict(pod.labels).items()]
        found += wanted_slices(obj, picked).values()
    return found


@dataclass
class Decider:
    """What proxies of a mesh made of files would decide. ``notes`` of the last one: what translation could not do as written."""

    world: World
    snapshots: dict[ProxyId, tuple[Snapshot, Translated]] = field(default_factory=dict)

    @classmethod
    def of(cls, loaded: Loaded) -> Decider:
        """Raises ``CliError`` with every invalid object, a line each: a decision from half of the files would mislead."""
        from control.analyze.scene import known
        from control.translate.standalone import files_world

        problems = list(_invalid(loaded))
        if problems:
            raise CliError("\nerror: ".join(problems))
        world = files_world(obj for obj in completed(loaded.objects) if known(obj))
        for problem in world.problems:
            raise CliError(f"{problem.kind} {problem.namespace}/{problem.name}: {problem.message}")
        return cls(world)

    def proxy(self, who: str, namespace: str, option: str = "--from") -> ProxyId:
        """The sidecar beside a pod, or a pod of a workload, of this name; ``gateway``: one that opens every Gateway.

        Raises ``CliError`` that names those there are.
        """
        from control.translate.proxy import proxy_of_pod
        from control.translate.standalone import files_proxy

        word = next((who.removeprefix(prefix) for prefix in _PREFIXES if who.startswith(prefix)), who)
        space, _, name = word.rpartition("/") if "/" in word else (namespace, "", word)
        pods = self.world.pods
        places = [(space, name)]
        if "." in name and "/" not in word:  # istioctl's POD.NAMESPACE
            places.append((name.rpartition(".")[2], name.rpartition(".")[0]))
        for place in places:
            if place in pods:
                return proxy_of_pod(pods[place])
            same = [pod for key, pod in sorted(pods.items()) if key[0] == place[0] and pod.workload.workload == place[1]]
            if same:
                return proxy_of_pod(same[0])
        if name in GATEWAYS and self.world.config.gateways:
            labels = {"istio": GATEWAYS[name], "app": name}.items()
            gateway = files_proxy(namespace="istio-system", labels=labels)
            return _renamed(gateway, name, every=False)
        if name == "gateway" and self.world.config.gateways:
            return _renamed(files_proxy(namespace=space), name, every=True)
        there = ", ".join(f"{key[0]}/{key[1]}" for key in sorted(pods)[:8]) or "no pods and no Deployments"
        raise CliError(f"{option} {who}: there is no such pod in the files; they hold {there}")

    def gateway(self, name: str, namespace: str) -> ProxyId:
        """A pod that the Gateway ``[namespace/]name`` selects, whether the files hold one or not. Raises ``CliError``."""
        from control.translate.standalone import files_proxy

        space, _, short = name.rpartition("/")
        found = self.world.get("Gateway", space or namespace, short)
        if found is None:
            there = ", ".join(f"{one.metadata.namespace}/{one.metadata.name}" for one in self.world.all("Gateway")) or "none"
            raise CliError(f'there is no Gateway "{name}" in the files; they hold {there}')
        selector = found.spec.selector
        for _, pod in sorted(self.world.pods.items()) if selector else ():
            if selector.items() <= dict(pod.labels).items():
                return self.proxy(f"{pod.namespace}/{pod.name}", pod.namespace)
        proxy = files_proxy(namespace=found.metadata.namespace, labels=selector.items())
        return _renamed(proxy, short, every=False)

    def client(self, namespace: str, labels: Mapping[str, str]) -> ProxyId:
        """A sidecar of no pod in particular."""
        from control.translate.standalone import files_proxy

        return files_proxy(namespace=namespace, labels=labels.items(), gateway=False)

    def decide(self, proxy: ProxyId, request: Mapping[str, Any], listener: str | None = None) -> dict[str, Any]:
        """The decision, as ``Explanation.as_dict`` gives it. Raises ``CliError``."""
        import time

        from meshproxy.explain import explain, listener_for

        snapshot, translated = self._snapshot(proxy)
        if not snapshot.listeners:
            raise CliError(f"{proxy.namespace}/{proxy.pod} listens nowhere: no Gateway of the files selects it")
        try:
            wanted = listener or ""
            name = wanted if wanted not in ("", "inbound") else self._opened_for(proxy, request, snapshot)
            told = explain(snapshot, name or listener_for(snapshot, request, wanted), request, wall=time.time()).as_dict()
        except (KeyError, ValueError) as wrong:
            raise CliError(str(wrong.args[0])) from None
        for destination in told.get("destinations", ()):
            for endpoint in destination.get("endpoints", ()):
                endpoint.pop("activeRequests", None)  # nothing runs
        account = f"{self.world.mesh.trust_domain}/ns/{proxy.namespace}/sa/{proxy.service_account}"
        told["own"] = {"address": proxy.ip, "principal": account if proxy.role == "gateway" or _takes_tls(proxy) else ""}
        about = told.get("route", {}).get("source", "").partition(".match[")[0]
        notes = [str(problem) for problem in translated.problems if about and problem.source.startswith(about)]
        if notes:
            told["notes"] = notes
        return told

    def ask(self, namespace: str, pod: str, request: Mapping[str, Any], listener: str) -> dict[str, Any]:
        """As ``decide``, of a pod (``callee.Ask``)."""
        return self.decide(self.proxy(f"{namespace}/{pod}", namespace), request, listener)

    def _opened_for(self, proxy: ProxyId, request: Mapping[str, Any], snapshot: Snapshot) -> str:
        """At a gateway users write a Gateway's port; its Service may lead to another one, where the pod listens."""
        if proxy.role != "gateway":
            return ""
        from control.translate.servers import gateways_of, listens_on
        from meshproxy.explain import request_from
        from meshproxy.policy.routes import port_of

        head, config = request_from(request), self.world.config
        asked = port_of(head.authority, 443 if head.scheme == b"https" else 80)
        for gateway in gateways_of(config, proxy):
            for server in gateway.spec.servers:
                place = listens_on(config, proxy, server)
                if server.port.number == asked:
                    for name, one in snapshot.listeners.items():
                        if (one.model.bind, one.port) == place:
                            return name
        return ""

    def _snapshot(self, proxy: ProxyId) -> tuple[Snapshot, Translated]:
        known = self.snapshots.get(proxy)
        if known is not None:
            return known
        from control.translate.snapshot import Snapshot as Whole
        from control.translate.snapshot import diff
        from control.translate.standalone import translate_files
        from control.translate.trust import trust_layer
        from meshproxy.agent.state import Candidate, State, load
        from meshproxy.apply import Refused, compile_snapshot
        from meshproxy.cluster.cluster import Cluster
        from meshproxy.model.security import Trust

        translated = translate_files(self.world, proxy)
        whole = Whole((*translated.layers, trust_layer(Trust(), self.world.mesh)))
        judged = load(State(), diff(None, whole).set, translated.version)
        if not isinstance(judged, Candidate):
            raise CliError(f"the sidecar would refuse this configuration: {judged[0].kind} {judged[0].name}: {judged[0].error}")
        try:
            compiled = compile_snapshot(
                judged.resources, None, lambda model, endpoints, _: Cluster(model, endpoints), judged.version
            )
        except Refused as refused:
            raise CliError(f"the sidecar would refuse this configuration: {refused}") from None
        self.snapshots[proxy] = compiled, translated
        return compiled, translated


def _takes_tls(proxy: ProxyId) -> bool:
    """Whether a sidecar stands beside the pod; one of no pod at all (``client``) is a sidecar."""
    return proxy.pod == "standalone" or _TLS_MODE in proxy.labels


def _renamed(proxy: ProxyId, name: str, every: bool) -> ProxyId:
    import msgspec

    return msgspec.structs.replace(proxy, pod=name, every_gateway=every)


def _invalid(loaded: Loaded) -> Iterator[str]:
    from control.analyze import Scene
    from control.analyze.schema import validation

    for finding in validation(Scene.of(loaded.objects)):
        if finding.level == "Error":
            source = loaded.sources.get((finding.kind, finding.namespace, finding.name), "")
            path = f"{finding.path}: " if finding.path else ""
            yield f"{source}: {finding.subject}: {path}{finding.message}"
