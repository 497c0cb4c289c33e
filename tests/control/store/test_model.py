"""Random histories against a plain dict: the store never differs from it, and a watcher that began anywhere rebuilds it."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from control.resources.kinds import by_kind
from control.store.api import AlreadyExists, Conflict, NotFound
from control.store.memory import MemoryStore
from control.store.sqlite import SqliteStore

KINDS = (by_kind("", "Service"), by_kind("networking.istio.io", "VirtualService"), by_kind("", "Namespace"))

kinds = st.sampled_from(KINDS)
namespaces = st.sampled_from(["a", "b"])
names = st.sampled_from(["x", "y"])
values = st.integers(0, 3)


class StoreMachine(RuleBasedStateMachine):
    """``model`` maps (kind, namespace, name) to (value, version); ``log`` holds every change that was acknowledged."""

    durable = False

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.model: dict[tuple[Any, str, str], tuple[int, int]] = {}
        self.log: list[tuple[str, str, int]] = []
        self.folder = tempfile.TemporaryDirectory()
        self.store: Any = None

    @initialize()
    def begin(self) -> None:
        self.store = self._make()
        self.do(self.store.open())

    def _make(self) -> Any:
        return SqliteStore(Path(self.folder.name) / "mesh.db") if self.durable else MemoryStore()

    def do(self, call: Any) -> Any:
        return self.loop.run_until_complete(call)

    def key(self, kind: Any, namespace: str, name: str) -> tuple[Any, str, str]:
        return kind, namespace if kind.namespaced else "", name

    def obj(self, kind: Any, namespace: str, name: str, value: int) -> dict[str, Any]:
        meta = {"name": name, "namespace": namespace}
        return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta, "spec": {"value": value}}

    @rule(kind=kinds, namespace=namespaces, name=names, value=values)
    def create(self, kind: Any, namespace: str, name: str, value: int) -> None:
        key = self.key(kind, namespace, name)
        try:
            made = self.do(self.store.create(kind, self.obj(kind, namespace, name, value)))
        except AlreadyExists:
            assert key in self.model
            return
        assert key not in self.model
        self.note("ADDED", key, value, int(made["metadata"]["resourceVersion"]))

    @rule(kind=kinds, namespace=namespaces, name=names, value=values, stale=st.booleans())
    def update(self, kind: Any, namespace: str, name: str, value: int, stale: bool) -> None:
        key = self.key(kind, namespace, name)
        version = self.model.get(key, (0, 1))[1]
        expected = version - 1 if stale else version
        try:
            made = self.do(self.store.update(kind, self.obj(kind, namespace, name, value), expected))
        except NotFound:
            assert key not in self.model
            return
        except Conflict:
            assert stale
            return
        assert not stale
        if self.model[key][0] == value:
            assert int(made["metadata"]["resourceVersion"]) == version
        else:
            self.note("MODIFIED", key, value, int(made["metadata"]["resourceVersion"]))

    @rule(kind=kinds, namespace=namespaces, name=names)
    def delete(self, kind: Any, namespace: str, name: str) -> None:
        key = self.key(kind, namespace, name)
        try:
            self.do(self.store.delete(kind, namespace, name))
        except NotFound:
            assert key not in self.model
            return
        del self.model[key]
        self.log.append(("DELETED", name, self.last() + 1))

    @precondition(lambda self: self.durable)
    @rule()
    def reopen(self) -> None:
        self.do(self.store.close())
        self.store = self._make()
        self.do(self.store.open())
        self.log = []  # history is of one life; the version is not
        self.since = self.store.version

    since = 1

    def last(self) -> int:
        return self.log[-1][2] if self.log else self.since

    def note(self, type: str, key: tuple[Any, str, str], value: int, version: int) -> None:
        assert version == self.last() + 1, "versions are consecutive"
        self.model[key] = (value, version)
        self.log.append((type, key[2], version))

    @invariant()
    def equals_the_model(self) -> None:
        if self.store is None:
            return
        found, version = self.do(self.store.snapshot())
        seen = {}
        for kind, obj in found:
            meta = obj["metadata"]
            seen[kind, meta.get("namespace", ""), meta["name"]] = (obj["spec"]["value"], int(meta["resourceVersion"]))
        assert seen == self.model
        assert version == self.last()

    @precondition(lambda self: self.log)
    @rule(data=st.data())
    def watch(self, data: Any) -> None:
        start = data.draw(st.integers(0, len(self.log) - 1))

        async def replay() -> list[tuple[str, str, int]]:
            events = self.store.watch(self.log[start][2] - 1)
            told = [await anext(events) for _ in range(len(self.log) - start)]
            await events.aclose()
            return [(e.type, e.object["metadata"]["name"], e.version) for e in told]

        assert self.do(replay()) == self.log[start:]

    def teardown(self) -> None:
        if self.store is not None:
            self.do(self.store.close())
        self.loop.close()
        self.folder.cleanup()


class DurableMachine(StoreMachine):
    durable = True


TestMemory = StoreMachine.TestCase
TestMemory.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestSqlite = DurableMachine.TestCase
TestSqlite.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
