"""Who calls whom: sidecars' answers put together, addresses named by pods, and who did not answer."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from control.serve.callers import called
from control.serve.hub import NotAnswered
from control.world import World
from meshproxy.model.delivery import Answer

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "old-1", "namespace": "shop", "labels": {"app": "old"}},
    "spec": {"containers": [{"name": "app"}]},
    "status": {"podIP": "10.0.0.9"},
}
ROW = {"listener": "inbound|8080", "how": "plaintext", "workload": "", "namespace": "", "requests": 2, "seen": 1.5}
TOLD = {
    "since": 1.0,
    "listeners": [{"name": "inbound|8080", "port": 8080, "mtls": "PERMISSIVE", "source": ""}],
    "callers": [{**ROW, "source": "10.0.0.9"}, {**ROW, "source": "10.9.9.9"}],
}


# Its node's address, which is that of the kubelet and of every other such pod: it says nothing of who calls.
ON_THE_HOST = {
    **POD,
    "metadata": {"name": "proxy-1", "namespace": "kube-system"},
    "spec": {"containers": [{"name": "app"}], "hostNetwork": True},
    "status": {"podIP": "10.9.9.9"},
}


class Hub:
    world = World.of([POD, ON_THE_HOST])

    def report(self) -> list[dict[str, Any]]:
        return [{"namespace": "default", "name": name} for name in ("a", "away", "cross", "edge")] + [
            {"namespace": "other", "name": "b"}
        ]

    async def ask(self, namespace: str, pod: str, verb: str, args: dict[str, Any], timeout: float) -> Answer:
        assert (verb, args) == ("callers", {})
        if pod == "away":
            raise NotAnswered("sidecar default/away did not answer within 3 s", connected=True)
        if pod == "cross":
            return Answer(id="1", ok=False, error="verb: unknown")
        told = {**TOLD, "listeners": []} if pod == "edge" else TOLD
        return Answer(id="1", result=msgspec.Raw(msgspec.json.encode(told)))


def test_answers_are_put_together() -> None:
    found = asyncio.run(called(Hub(), "default"))  # type: ignore[arg-type]
    (pod,) = found["pods"]  # a gateway has no such door
    assert (pod["namespace"], pod["pod"], pod["workload"], pod["since"]) == ("default", "a", "a", 1.0)
    known, unknown = pod["listeners"][0]["callers"]
    assert (known["workload"], known["namespace"], known["requests"]) == ("old-1", "shop", 2)
    assert (unknown["workload"], unknown["source"]) == ("", "10.9.9.9")
    assert {one["pod"]: one["problem"] for one in found["unanswered"]} == {
        "away": "sidecar default/away did not answer within 3 s",
        "cross": "verb: unknown",
    }


def test_every_namespace_is_asked_unless_one_is_given() -> None:
    assert [one["pod"] for one in asyncio.run(called(Hub()))["pods"]] == ["a", "b"]  # type: ignore[arg-type]
