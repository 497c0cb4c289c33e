"""Where nodes are, told to their pods (room ``store/kubernetes``), quiet.

In: Nodes and Pods. Out: pods that carry the topology of their node as annotations, unless they or their labels say it already
(newer clusters copy it to the pod's labels themselves). A Node that changes changes its pods.
"""

from __future__ import annotations

from collections.abc import Iterable

from control.store.api import Obj

__all__ = ["Nodes"]

_TOPOLOGY = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone")
_OLD = {
    "topology.kubernetes.io/region": "failure-domain.beta.kubernetes.io/region",
    "topology.kubernetes.io/zone": "failure-domain.beta.kubernetes.io/zone",
}
Place = tuple[tuple[str, str], ...]


class Nodes:
    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._added: dict[tuple[str, str], Place] = {}  # what we wrote into which pod

    def see(self, node: Obj, *, gone: bool = False) -> bool:
        """True: where the node is has changed."""
        name = node["metadata"]["name"]
        labels = node["metadata"].get("labels") or {}
        found = ((key, labels.get(key) or labels.get(_OLD.get(key, ""))) for key in _TOPOLOGY)
        now = () if gone else tuple((key, str(value)) for key, value in found if value)
        if self._places.get(name, ()) == now:
            return False
        if now:
            self._places[name] = now
        else:
            self._places.pop(name, None)
        return True

    def replace(self, nodes: Iterable[Obj]) -> set[str]:
        """These are all; returns the names of those that changed."""
        given = list(nodes)
        names = {node["metadata"]["name"] for node in given}
        changed = self._places.keys() - names
        for name in changed:
            del self._places[name]
        return changed | {node["metadata"]["name"] for node in given if self.see(node)}

    def place(self, pod: Obj) -> Obj:
        """``pod`` with the place of its node; changes it."""
        meta = pod["metadata"]
        key = (str(meta.get("namespace") or ""), meta["name"])
        notes, labels = dict(meta.get("annotations") or {}), meta.get("labels") or {}
        for name, value in self._added.pop(key, ()):
            if notes.get(name) == value:  # ours of earlier, read back from the copy
                del notes[name]
        node = str((pod.get("spec") or {}).get("nodeName") or "")
        new = tuple(pair for pair in self._places.get(node, ()) if pair[0] not in notes and pair[0] not in labels)
        if new:
            self._added[key] = new
            notes.update(new)
        if notes:
            meta["annotations"] = notes
        else:
            meta.pop("annotations", None)
        return pod

    def forget(self, pod: Obj) -> None:
        meta = pod["metadata"]
        self._added.pop((str(meta.get("namespace") or ""), meta["name"]), None)
