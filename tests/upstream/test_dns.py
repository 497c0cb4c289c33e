"""DNS clusters: every answer is an endpoint, answers outlive failures and configuration changes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from meshproxy.model.cluster import Cluster, Endpoint
from meshproxy.upstream.dns import DnsKeeper

CONFIG = Cluster(name="c", type="DNS")
NAME = Endpoint(address="rating.example", port=80)


class Resolver:
    """Stands for the event loop's resolver. ``answers``: addresses by name; a name that is not there fails."""

    def __init__(self) -> None:
        self.answers: dict[str, list[str]] = {}
        self.asked = 0
        self.broken: Exception = socket.gaierror("not known")

    def create_task(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(coroutine, name=name)

    async def getaddrinfo(self, host: str, port: int, type: int) -> list[Any]:
        self.asked += 1
        if host not in self.answers:
            raise self.broken
        return [(socket.AF_INET, type, 6, "", (address, port)) for address in self.answers[host]]


class World:
    def __init__(self) -> None:
        self.resolver = Resolver()
        self.updates: list[list[str]] = []
        self.keeper = DnsKeeper(self.resolver, self._update)  # type: ignore[arg-type]

    def _update(self, cluster: Any, config: Cluster, found: tuple[Endpoint, ...]) -> None:
        self.updates.append([endpoint.address for endpoint in found])

    async def until(self, true: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not true():
                await asyncio.sleep(0)


def run(story: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        world = World()
        await story(world)
        await world.keeper.aclose()

    asyncio.run(whole())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshproxy.upstream.dns._REFRESH", 0.001)
    monkeypatch.setattr("meshproxy.upstream.dns._RETRY", 0.001)


def test_every_answer_is_an_endpoint_and_changes_arrive() -> None:
    async def story(world: World) -> None:
        world.resolver.answers["rating.example"] = ["127.0.0.3", "127.0.0.2", "127.0.0.2"]
        world.keeper.watch(object(), CONFIG, (NAME,))
        await world.until(lambda: world.updates)
        assert world.updates[0] == ["127.0.0.2", "127.0.0.3"]
        world.resolver.answers["rating.example"] = ["127.0.0.4"]
        await world.until(lambda: world.updates[-1] == ["127.0.0.4"])

    run(story)


@pytest.mark.parametrize("broken", [socket.gaierror("not known"), UnicodeError("label too long")])
def test_a_name_that_fails_keeps_its_answers_and_stands_for_itself_before(broken: Exception) -> None:
    async def story(world: World) -> None:
        world.resolver.broken = broken
        world.keeper.watch(object(), CONFIG, (NAME,))
        await world.until(lambda: world.updates)
        assert world.updates[-1] == ["rating.example"]
        world.resolver.answers["rating.example"] = ["127.0.0.2"]
        await world.until(lambda: world.updates[-1] == ["127.0.0.2"])
        del world.resolver.answers["rating.example"]
        asked = world.resolver.asked
        await world.until(lambda: world.resolver.asked > asked + 2)
        assert world.updates[-1] == ["127.0.0.2"]

    run(story)


def test_the_same_words_twice_start_nothing_and_new_ones_keep_the_answers() -> None:
    async def story(world: World) -> None:
        world.resolver.answers["rating.example"] = ["127.0.0.2"]
        cluster = object()
        world.keeper.watch(cluster, CONFIG, (NAME,))
        (task,) = world.keeper._tasks.values()
        world.keeper.watch(cluster, CONFIG, (NAME,))
        assert list(world.keeper._tasks.values()) == [task]
        await world.until(lambda: world.updates)
        heavier = Endpoint(address="rating.example", port=80, weight=5)
        assert [one.address for one in world.keeper.resolved("c", (heavier,))] == ["127.0.0.2"]
        world.keeper.retain(set())
        assert [one.address for one in world.keeper.resolved("c", (heavier,))] == ["rating.example"]
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    run(story)
