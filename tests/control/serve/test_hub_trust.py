"""Whom the mesh trusts goes to every sidecar at once, in front of its configuration, and past one that it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import msgspec

from control.identity import ProxyIdentity
from control.serve.hub import Hub
from control.serve.metrics import Metrics
from control.serve.session import Session
from control.translate import ProxyId, Snapshot
from control.translate.snapshot import entry, make_layer
from control.world import MeshSettings, World
from meshproxy.model.cluster import Cluster
from meshproxy.model.delivery import Ack, FromControl, Nack, Push
from meshproxy.model.security import Trust

ONE, TWO = Trust(roots=("A",), issuer="a"), Trust(roots=("A", "B"), issuer="a")
MESH = MeshSettings(trust_domain="td", trust_domain_aliases=("old-td",))


def world(*colors: str, mesh: MeshSettings = MESH) -> World:
    """Pods a, b, … of these colours."""
    return World.of(
        (
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": "default", "labels": {"color": color}},
                "spec": {"containers": [{"name": "app"}]},
            }
            for name, color in zip("abc", colors, strict=False)
        ),
        mesh,
    )


def by_color(world: World, proxy: ProxyId) -> Snapshot:
    color = dict(proxy.labels)["color"]
    if color == "broken":
        raise KeyError("a bug in translation")
    return Snapshot((make_layer("outbound", {("cluster", color): entry("cluster", Cluster(name=color))}),))


def hub() -> Hub:
    return Hub(by_color, Metrics(), clock=lambda: 0.0, wall=lambda: 0.0)


def connect(subject: Hub, name: str, have: str = "") -> Session:
    return subject.connect(ProxyIdentity("default", name, "default", 1e12), have)


def push(session: Session) -> Push | None:
    """What is written now, if anything."""
    lines = b"".join(session.outgoing(0.0)).splitlines()
    found = [msgspec.json.decode(line, type=FromControl) for line in lines]
    assert len(found) <= 1
    return found[0] if found else None  # type: ignore[return-value]


def trust_in(sent: Push | None) -> Trust | None:
    resources = [resource for resource in (sent.set if sent else ()) if resource.kind == "trust"]
    return msgspec.json.decode(resources[0].body, type=Trust) if resources else None


def accept(session: Session, sent: Push | None) -> None:
    assert sent is not None
    assert session.answered(Ack(nonce=sent.nonce, version=sent.version), 0.0) == "accepted"


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)


def test_every_sidecar_is_told_at_once_and_only_what_changed() -> None:
    async def story() -> None:
        subject = hub()
        await subject.trust(ONE)  # before there is a world, as at the start
        await subject.publish(world("red", "blue"), 1, 0.0)
        sessions = [connect(subject, "a"), connect(subject, "b")]
        assert set(subject.distrusting()) == {"default/a", "default/b"}
        for session in sessions:
            sent = push(session)
            assert sent is not None
            assert sent.set[0].kind == "trust"  # before what needs it
            found = trust_in(sent)
            assert found is not None
            assert (found.domain, found.aliases, found.roots) == ("td", ("old-td",), ("A",))
            accept(session, sent)
        assert subject.distrusting() == {}
        await subject.trust(TWO)
        assert set(subject.distrusting()) == {"default/a", "default/b"}
        for session in sessions:
            sent = push(session)
            assert sent is not None
            assert [(one.kind, one.name) for one in sent.set] == [("trust", "mesh")]
            accept(session, sent)
        assert subject.distrusting() == {}
        await subject.trust(msgspec.structs.replace(TWO))  # the same again
        assert [push(session) for session in sessions] == [None, None]
        assert subject.distrusting() == {}

    run(story())


def test_new_aliases_are_new_trust() -> None:
    async def story() -> None:
        subject = hub()
        await subject.trust(ONE)
        await subject.publish(world("red"), 1, 0.0)
        session = connect(subject, "a")
        accept(session, push(session))
        await subject.publish(world("red", mesh=msgspec.structs.replace(MESH, trust_domain_aliases=())), 2, 0.0)
        found = trust_in(push(session))
        assert found is not None
        assert found.aliases == ()

    run(story())


def test_a_sidecar_that_refuses_its_configuration_is_still_told() -> None:
    async def story() -> None:
        subject = hub()
        await subject.trust(ONE)
        await subject.publish(world("red"), 1, 0.0)
        session = connect(subject, "a")
        good = push(session)
        accept(session, good)
        await subject.publish(world("blue"), 2, 0.0)
        bad = push(session)
        assert bad is not None
        assert good is not None
        nack = Nack(kind="cluster", name="blue", error="color: cannot be blue")
        session.answered(Ack(nonce=bad.nonce, version=good.version, nacks=(nack,)), 0.0)
        assert push(session) is None

        await subject.trust(TWO)
        sent = push(session)
        assert sent is not None
        assert [(one.kind, one.name) for one in sent.set] == [("trust", "mesh")]
        assert "cannot be blue" in session.problem
        accept(session, sent)
        assert subject.distrusting() == {}
        assert subject.distribution(2).pending == ("default/a",)  # it still does not run what was applied
        await subject.publish(world("green"), 3, 0.0)
        sent = push(session)
        assert sent is not None
        assert [(one.kind, one.name) for one in sent.set] == [("cluster", "green")]
        accept(session, sent)
        assert (session.problem, subject.distrusting()) == ("", {})

    run(story())


def test_who_cannot_be_told_is_named() -> None:
    async def story() -> None:
        subject = hub()
        await subject.trust(ONE)
        await subject.publish(world("red", "broken"), 1, 0.0)
        a, _, stray = connect(subject, "a"), connect(subject, "b"), connect(subject, "no-pod")
        accept(a, push(a))
        await subject.trust(TWO)
        assert not stray.has_pod  # nobody waits for a sidecar without a Pod
        assert subject.distrusting() == {
            "default/a": "has not confirmed yet",
            "default/b": "its configuration could not be computed: KeyError",
        }
        b = subject.session("default", "b")
        assert b is not None
        await subject.publish(world("red", "blue"), 2, 0.0)
        accept(b, push(b))
        await subject.publish(world("red", "broken"), 3, 0.0)
        assert push(b) is None
        await subject.trust(ONE)
        found = trust_in(push(b))  # the mistake is control's own; what is revoked is told all the same
        assert found is not None
        assert found.roots == ("A",)
        await subject.trust(TWO)
        version = push(a)
        assert version is not None
        accept(a, version)
        subject.disconnect(a)
        again = connect(subject, "a", version.version)  # it says what it runs, and that is so
        assert set(subject.distrusting()) == {"default/b"}  # what it is being told is no longer so
        assert push(again) is None

    run(story())
