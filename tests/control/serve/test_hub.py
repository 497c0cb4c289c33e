"""All sidecars together, without a socket: who is concerned, who is done, who asked what. Translation is a stand-in."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from control.identity import ProxyIdentity
from control.resources.kinds import by_kind
from control.serve.debounce import Debounce
from control.serve.hub import Hub, NotAnswered
from control.serve.keeper import Keeper
from control.serve.metrics import Metrics
from control.serve.session import Session
from control.store.api import Gone
from control.store.memory import MemoryStore
from control.tasks import cancel, spawn
from control.translate import ProxyId, Snapshot
from control.translate.snapshot import entry, make_layer
from control.world import MeshSettings, World
from meshproxy.model.cluster import Cluster
from meshproxy.model.delivery import Ack, Answer, FromControl, Nack, Push, Query

POD, CONFIG_MAP = by_kind("", "Pod"), by_kind("", "ConfigMap")
Obj = dict[str, Any]


def pod(name: str, color: str = "red", namespace: str = "default") -> Obj:
    meta = {"name": name, "namespace": namespace, "labels": {"color": color}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [{"name": "app"}]}}


def by_color(world: World, proxy: ProxyId) -> Snapshot:
    """Each sidecar runs one cluster, named by its own colour."""
    color = dict(proxy.labels)["color"]
    if color == "broken":
        raise KeyError("a bug in translation")
    return Snapshot((make_layer("outbound", {("cluster", color): entry("cluster", Cluster(name=color))}),))


def identity(name: str) -> ProxyIdentity:
    return ProxyIdentity("default", name, "default", 1e12)


def hub() -> Hub:
    return Hub(by_color, Metrics(), clock=lambda: 0.0, wall=lambda: 0.0)


def take(session: Session) -> list[Any]:
    """The messages that would be written now."""
    import msgspec

    wire = b"".join(session.outgoing(0.0))
    return [msgspec.json.decode(line, type=FromControl) for line in wire.splitlines()]


def push_of(session: Session) -> Push:
    (message,) = take(session)
    assert isinstance(message, Push)
    return message


def accept(session: Session) -> None:
    push = push_of(session)
    assert session.answered(Ack(nonce=push.nonce, version=push.version), 0.0) == "accepted"


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)


def test_only_the_concerned_get_a_push() -> None:
    async def story() -> None:
        subject = hub()
        await subject.publish(World.of([pod("a"), pod("b")]), 5, 0.0)
        a, b = subject.connect(identity("a"), ""), subject.connect(identity("b"), "")
        accept(a)
        accept(b)
        await subject.publish(World.of([pod("a", "blue"), pod("b")]), 6, 0.0)
        assert subject.distribution(6) == (("default/a",), ("default/b",), {})
        assert take(b) == []
        change = push_of(a)
        assert ([r.name for r in change.set], change.removed) == (["blue"], (("cluster", "red"),))
        refusal = Nack(kind="cluster", name="blue", error="no")
        a.answered(Ack(nonce=change.nonce, version=a.plan.running.version if a.plan.running else "", nacks=(refusal,)), 0.0)
        assert subject.distribution(6).errors == {"default/a": "cluster blue: no"}
        assert [row["status"] for row in subject.report()] == ["ERROR", "SYNCED"]

    run(story())


def test_a_sidecar_without_a_pod_or_a_translation_keeps_what_it_has() -> None:
    async def story() -> None:
        subject = hub()
        early = subject.connect(identity("a"), "")
        assert early.problem == "control has not read its store yet"
        await subject.publish(World.of([pod("b", "broken")]), 1, 0.0)
        late = subject.connect(identity("b"), "")
        assert (early.problem, late.problem) == (
            "there is no Pod default/a",
            "its configuration could not be computed: KeyError",
        )
        assert take(early) == take(late) == []
        assert subject.distribution(1) == (
            ("default/b",),  # nobody waits for a sidecar whose Pod is gone
            (),
            {"default/a": early.problem, "default/b": late.problem},
        )
        await subject.publish(World.of([pod("a"), pod("b")]), 2, 0.0)
        accept(early)
        accept(late)
        assert subject.distribution(2).pending == ()

    run(story())


def test_one_that_runs_it_already_is_left_alone() -> None:
    async def story() -> None:
        subject = hub()
        await subject.publish(World.of([pod("a")]), 5, 0.0)
        version = by_color(World.empty(), ProxyId(namespace="default", pod="a", labels=(("color", "red"),))).version
        session = subject.connect(identity("a"), version)
        assert take(session) == []
        assert subject.distribution(5).done == ("default/a",)

    run(story())


def test_the_newest_stream_counts() -> None:
    async def story() -> None:
        subject = hub()
        await subject.publish(World.of([pod("a")]), 1, 0.0)
        first = subject.connect(identity("a"), "")
        second = subject.connect(identity("a"), "")
        assert first.closing
        assert subject.session("default", "a") is second
        subject.disconnect(first)  # its end comes later and takes nothing away
        assert subject.session("default", "a") is second
        subject.disconnect(second)
        assert subject.count == 0
        subject.close()
        assert subject.connect(identity("a"), "").closing

    run(story())


def test_questions() -> None:
    async def story() -> None:
        subject = hub()
        session = subject.connect(identity("a"), "")
        asking = spawn(subject.ask("default", "a", "dump", {"x": "1"}, 5.0), "ask")
        await session.wake.wait()
        (query,) = take(session)
        assert isinstance(query, Query)
        assert not subject.answered(identity("b"), Answer(id=query.id)), "a stranger's answer"
        assert subject.answered(identity("a"), Answer(id=query.id))
        assert (await asking).ok
        assert not subject.answered(identity("a"), Answer(id=query.id)), "nobody waits any more"
        with pytest.raises(NotAnswered, match=r"did not answer within 0.01 s"):
            await subject.ask("default", "a", "dump", {}, 0.01)
        with pytest.raises(NotAnswered, match="is not connected"):
            await subject.ask("default", "b", "dump", {}, 5.0)
        asking = spawn(subject.ask("default", "a", "dump", {}, 5.0), "ask")
        await asyncio.sleep(0)
        subject.disconnect(session)
        (gone,) = await asyncio.gather(asking, return_exceptions=True)
        assert str(gone) == "sidecar default/a went away"

    run(story())


def test_questions_are_bounded() -> None:
    async def story() -> None:
        subject = hub()
        session = subject.connect(identity("a"), "")
        assert [session.ask(Query(id=f"{number}", verb="dump")) for number in range(66)].count(True) == 64

    run(story())


class Forgetful(MemoryStore):
    """Its history is gone at the first watch, as after a long pause."""

    forgets = 1

    def watch(self, since: int, *rest: Any) -> Any:
        if self.forgets:
            self.forgets -= 1
            return _gone()
        return super().watch(since, *rest)


async def _gone() -> Any:
    raise Gone("history since then is compacted")
    yield


def test_the_keeper_follows_the_store_and_survives_lost_history() -> None:
    async def story() -> None:
        store = Forgetful()
        await store.open()
        await store.create(POD, pod("a"))
        subject = hub()
        keeper = Keeper(store, subject, MeshSettings(), Debounce(0.0, 0.0), Metrics())
        await keeper.start()
        session = subject.connect(identity("a"), "")
        accept(session)
        made = await store.create(POD, pod("b"))  # before it watches: only a new reading can find this
        task = spawn(keeper.run(), "keeper")
        version = int(made["metadata"]["resourceVersion"])
        async with asyncio.timeout(5):
            while subject.version < version:
                await asyncio.sleep(0)
            changed = await store.get(POD, "default", "a")
            changed["metadata"]["labels"]["color"] = "blue"
            changed = await store.update(POD, changed)
            session.wake.clear()
            while not (messages := take(session)):
                await session.wake.wait()
                session.wake.clear()
            assert [resource.name for resource in messages[0].set] == ["blue"]
            assert subject.version == int(changed["metadata"]["resourceVersion"])
        await cancel(task)
        await store.close()

    run(story())
