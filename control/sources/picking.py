"""Which pods a selector picks, and which selectors pick a pod, without looking at all of them (room ``sources``). Pure.

In: ``PodFacts`` and selectors. Out: ``PodIndex.matching`` and ``SelectorIndex.matching``. Both file things under single labels: a
pod under each of its labels, a selector under its first; what the file gives is then checked whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from control.sources.slices import PodFacts

__all__ = ["PodIndex", "SelectorIndex"]

Name = tuple[str, str]  # namespace, name
Label = tuple[str, str, str]  # namespace, key, value


class PodIndex:
    def __init__(self) -> None:
        self._pods: dict[Name, PodFacts] = {}
        self._by_label: dict[Label, dict[str, PodFacts]] = {}

    def put(self, name: Name, pod: PodFacts | None) -> PodFacts | None:
        """Set or (None) remove a pod; returns the facts before."""
        before = self._pods.pop(name, None)
        if before is not None:
            for key, value in before.labels:
                filed = self._by_label[name[0], key, value]
                del filed[name[1]]
                if not filed:
                    del self._by_label[name[0], key, value]
        if pod is not None:
            self._pods[name] = pod
            for key, value in pod.labels:
                self._by_label.setdefault((name[0], key, value), {})[name[1]] = pod
        return before

    def matching(self, namespace: str, selector: Mapping[str, str]) -> Iterable[PodFacts]:
        """The pods of ``namespace`` with all of the selector's labels; none for an empty selector."""
        filed = [self._by_label.get((namespace, key, value), {}) for key, value in selector.items()]
        smallest = min(filed, key=len, default={})
        return [pod for pod in smallest.values() if selector.items() <= pod.labels]


class SelectorIndex:
    def __init__(self) -> None:
        self._selectors: dict[Name, dict[str, str]] = {}
        self._by_label: dict[Label, dict[Name, None]] = {}

    def put(self, name: Name, selector: dict[str, str] | None) -> None:
        """Set or (None) remove the selector of a service."""
        before = self._selectors.pop(name, None)
        if before is not None:
            del self._by_label[name[0], *min(before.items())][name]
        if selector:
            self._selectors[name] = selector
            self._by_label.setdefault((name[0], *min(selector.items())), {})[name] = None

    def matching(self, pod: PodFacts) -> Iterable[Name]:
        """The services whose selector picks ``pod``."""
        return [
            name
            for key, value in pod.labels
            for name in self._by_label.get((pod.namespace, key, value), ())
            if self._selectors[name].items() <= pod.labels
        ]
