"""The node: what it says of pods that do not come up."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from control.demo.node import Node, NotReady
from control.demo.plan import Addresses, ContainerPlan, PodPlan, Probe
from control.demo.state import State


class Told:
    """A reporter that wakes who waits for progress."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def progress(self, line: str) -> None:
        self.event.set()

    note = ready = failed = progress


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "it listens on nothing at 127.0.0.1:9"),
        ("/health", "nothing at 127.0.0.1:9 answers GET /health with a status below 400"),
    ],
)
def test_a_program_that_never_listens_is_told_where_it_should(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, path: str, said: str
) -> None:
    async def story() -> None:
        told = Told()
        node = Node(State(tmp_path), Addresses("127.1.0.0"), told)
        argv = (sys.executable, "-c", "import time; time.sleep(600)")
        pod = node.start(PodPlan("web", "127.0.0.1", (ContainerPlan("app", "x", argv, Probe("127.0.0.1", 9, path)),)))
        try:
            async with asyncio.timeout(10):
                while pod.containers[0].pid is None:
                    told.event.clear()
                    await told.event.wait()
            with pytest.raises(NotReady) as caught:
                await node.ready([pod], patience=0.0)
            log = tmp_path / "logs/default/web/app.log"
            assert str(caught.value) == f"web: container app is not ready: {said} (log: {log})"
        finally:
            await node.stop()

    asyncio.run(story())
    assert caplog.messages == []
