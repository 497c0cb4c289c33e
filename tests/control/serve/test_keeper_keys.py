"""Key sets and the world: policies say what is needed, and what was fetched becomes configuration without a store's change."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from control.identity import ProxyIdentity
from control.resources.kinds import by_kind
from control.serve.debounce import Debounce
from control.serve.hub import Hub
from control.serve.keeper import Keeper
from control.serve.metrics import Metrics
from control.serve.session import Session
from control.sources.fetching import FetchProblem
from control.sources.jwks import Jwks
from control.store.memory import MemoryStore
from control.tasks import cancel, spawn
from control.translate import Translator
from control.world import MeshSettings, World
from control.world.security import KeysAt, keys_at
from meshproxy.model.delivery import Ack
from meshproxy.model.security import Security

POD, REQUEST = by_kind("", "Pod"), by_kind("security.istio.io", "RequestAuthentication")
URI = "http://issuer/jwks"


def pod(name: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [{"name": "app", "image": "app"}]}}


def authentication(name: str = "r", uri: str = URI) -> dict[str, Any]:
    meta = {"name": name, "namespace": "default"}
    spec = {"jwtRules": [{"issuer": "me", "jwksUri": uri}]}
    return {"apiVersion": REQUEST.api_version, "kind": "RequestAuthentication", "metadata": meta, "spec": spec}


async def until(session: Session, jwks: str) -> None:
    """Takes pushes, as a sidecar does, until it holds this key set."""
    while True:
        session.wake.clear()
        wanted = session.plan.wanted
        found = wanted.get("security", "workload") if wanted is not None else None
        if isinstance(found, Security) and found.jwt[0].jwks == jwks:
            return
        order = session.plan.next(0.0)
        if order is not None:
            session.plan.answer(Ack(nonce=order.nonce, version=order.target.version))
        await session.wake.wait()


def test_fetched_keys_reach_sidecars(tmp_path: Path) -> None:
    async def story() -> None:
        gate: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def fetch(at: KeysAt) -> str:
            assert at.uri == URI
            return await gate

        store = MemoryStore()
        await store.open()
        await store.create(POD, pod("a"))
        hub = Hub(Translator().translate, Metrics(), clock=lambda: 0.0, wall=lambda: 0.0)
        jwks = Jwks(tmp_path / "k.json", fetch, wall=lambda: 0.0)
        keeper = Keeper(store, hub, MeshSettings(), Debounce(0.0, 0.0), Metrics(), want=jwks.want, tried=jwks.tried, patience=0.0)
        jwks.changed = keeper.keys
        keeper.keys(jwks.load())
        await keeper.start()
        session = hub.connect(ProxyIdentity("default", "a", "default", 1e12), "")
        tasks = [spawn(keeper.run(), "keeper"), spawn(jwks.run(), "jwks")]
        made = await store.create(REQUEST, authentication())
        await until(session, "")  # until its keys are there its tokens are refused
        version = hub.version
        assert version == int(made["metadata"]["resourceVersion"])
        await store.create(POD, pod("b"))  # what is slow holds up nothing else
        while hub.version == version:
            await asyncio.sleep(0)
        gate.set_result("K")
        await until(session, "K")
        await cancel(*tasks)

        # after a restart they are there at once
        hub = Hub(Translator().translate, Metrics(), clock=lambda: 0.0, wall=lambda: 0.0)
        again = Keeper(store, hub, MeshSettings(), Debounce(0.0, 0.0), Metrics())
        again.keys({URI: "K"})
        await again.start()
        assert hub.world is not None
        assert hub.world.config.keys == {URI: "K"}
        await store.close()

    async def bounded() -> None:
        async with asyncio.timeout(20):
            await story()

    asyncio.run(bounded())


def test_a_policy_waits_for_its_first_keys(tmp_path: Path) -> None:
    """Its first configuration has them, so that no good token is refused after kubectl apply; a failure is known as well."""

    async def story() -> None:
        answers = iter(["K", FetchProblem("down")])

        async def fetch(at: KeysAt) -> str:
            await asyncio.sleep(0)
            answer = next(answers)
            if isinstance(answer, FetchProblem):
                raise answer
            return answer

        store = MemoryStore()
        await store.open()
        hub = Hub(Translator().translate, Metrics(), clock=lambda: 0.0, wall=lambda: 0.0)
        published: list[tuple[int, dict[str, str]]] = []
        publish = hub.publish

        async def noted(world: World, version: int, since: float) -> None:
            published.append((len(list(keys_at(world.config.security))), dict(world.config.keys)))
            await publish(world, version, since)

        hub.publish = noted  # type: ignore[method-assign]
        jwks = Jwks(tmp_path / "k.json", fetch, wall=lambda: 0.0)
        keeper = Keeper(
            store, hub, MeshSettings(), Debounce(0.0, 0.0), Metrics(), want=jwks.want, tried=jwks.tried, patience=60.0
        )
        jwks.changed = keeper.keys
        await keeper.start()
        tasks = [spawn(keeper.run(), "keeper"), spawn(jwks.run(), "jwks")]
        await store.create(REQUEST, authentication())
        while len(published) < 2:
            await asyncio.sleep(0)
        assert published == [(0, {}), (1, {URI: "K"})]
        await store.create(REQUEST, authentication("other", "http://other/jwks"))
        while published[-1][0] < 2:
            await asyncio.sleep(0)
        assert published[-1] == (2, {URI: "K"})
        await cancel(*tasks)
        await store.close()

    async def bounded() -> None:
        async with asyncio.timeout(20):
            await story()

    asyncio.run(bounded())
