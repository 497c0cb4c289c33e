"""Leading, on a clock of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from control.cluster.lease import Election
from control.store.kubernetes.client import ApiServer
from tests.control.kubeserver import Fault, KubeServer


class Time:
    """Moves when it is told; who sleeps is woken when its time has come."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []
        self._news = asyncio.Event()

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        self._sleepers.append((self.now + seconds, woken))
        self._news.set()
        await woken.wait()

    async def move(self, seconds: float, sleepers: int) -> None:
        """After so many have gone to sleep."""
        while sum(not woken.is_set() for _, woken in self._sleepers) < sleepers:
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), 20)
        self.now += seconds
        for due, woken in self._sleepers:
            if due <= self.now:
                woken.set()
        self._sleepers = [one for one in self._sleepers if not one[1].is_set()]


class Candidate:
    def __init__(self, election: Election) -> None:
        self.election = election
        self.led = 0
        self.leads = asyncio.Event()
        self.follows = asyncio.Event()
        self.task = asyncio.ensure_future(election.run(self._lead))

    async def _lead(self) -> None:
        self.led += 1
        self.follows.clear()
        self.leads.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.leads.clear()
            self.follows.set()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@asynccontextmanager
async def cluster(tmp_path: Path) -> AsyncIterator[tuple[KubeServer, ApiServer, Time]]:
    async with KubeServer() as server:
        api = ApiServer(server.kubeconfig(tmp_path / "kubeconfig"))
        await api.connect()
        try:
            yield server, api, Time()
        finally:
            await api.close()


def election(api: ApiServer, name: str, time: Time) -> Election:
    times: Any = {"clock": time.clock, "wall": time.clock, "sleep": time.sleep, "dice": lambda: 0.0}
    return Election(api, "istio-system", name, duration=15, renew=10, retry=2, **times)


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 60))  # type: ignore[arg-type]


async def holder(server: KubeServer) -> str:
    lease = server.kind("coordination.k8s.io", "leases", "Lease")
    found = await server.store.get(lease, "istio-system", "istio-leader")
    return str(found["spec"].get("holderIdentity", ""))


def test_one_of_two_leads_and_the_other_follows_when_it_falls_silent(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as (server, api, time):
            first = Candidate(election(api, "a", time))
            await first.leads.wait()
            second = Candidate(election(api, "b", time))
            await time.move(0, 2)
            first.task.cancel = lambda *_: False  # type: ignore[method-assign]
            first.election._renew = 1e9  # one that is stuck and says nothing any more
            first.election._try = asyncio.Event().wait  # type: ignore[method-assign,assignment]
            for _ in range(7):
                await time.move(2, 1)
                assert not second.leads.is_set()
            await time.move(2, 1)
            await asyncio.wait_for(second.leads.wait(), 20)
            assert await holder(server) == "b"
            await second.stop()
            assert await holder(server) == "", "who stops gives it back"
            del first.task.cancel
            await first.stop()

    run(story)


def test_who_cannot_renew_stops_leading_before_others_may_begin(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as (server, api, time):
            one = Candidate(election(api, "a", time))
            await one.leads.wait()
            server.faults.append(Fault("leases", 503, times=10_000))
            for _ in range(4):
                await time.move(2, 1)
                assert one.leads.is_set()
            await time.move(2, 1)
            await asyncio.wait_for(one.follows.wait(), 20)
            assert not one.election.leading
            server.faults.clear()
            await time.move(2, 1)
            await asyncio.wait_for(one.leads.wait(), 20)
            assert one.led == 2
            await one.stop()

    run(story)


def test_a_lease_that_was_given_back_is_taken_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as (server, api, time):
            first = Candidate(election(api, "a", time))
            await first.leads.wait()
            await first.stop()
            second = Candidate(election(api, "b", time))
            await asyncio.wait_for(second.leads.wait(), 20)
            lease = server.kind("coordination.k8s.io", "leases", "Lease")
            spec = (await server.store.get(lease, "istio-system", "istio-leader"))["spec"]
            assert (spec["holderIdentity"], spec["leaseTransitions"], spec["leaseDurationSeconds"]) == ("b", 1, 15)
            assert spec["renewTime"] == "1970-01-01T00:16:40.000000Z"
            await second.stop()

    run(story)


def test_of_two_that_write_at_once_one_leads(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as (_server, api, time):
            both = [Candidate(election(api, name, time)) for name in "ab"]
            await time.move(0, 2)  # one holds it, the other waits for its next try
            assert [one.leads.is_set() for one in both].count(True) == 1
            await asyncio.gather(*(one.stop() for one in both))

    run(story)
