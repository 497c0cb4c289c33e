"""The push planner against a model of a proxy: one push outstanding at most, the newest state in the end, no loops."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from control.serve.plan import Order, Plan
from meshproxy.model.delivery import ORDER, Ack, Nack


@dataclass(frozen=True)
class Snap:
    version: str
    content: dict[str, int] = field(compare=False, default_factory=dict)


@dataclass(frozen=True)
class Diff:
    """``base``: the version that it may be applied to; None: any."""

    base: str | None
    to: Snap
    kinds: frozenset[str] = frozenset(ORDER)


def diff(old: Snap | None, new: Snap) -> Diff:
    return Diff(None if old is None else old.version, new)


REFUSAL = (Nack(kind="route", name="80", error="clusters: there is no such cluster"),)


class Planner(RuleBasedStateMachine):
    """``runs`` is what the proxy really runs; ``bad`` are versions that it refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = ""
        self.plan: Plan[Snap, Diff] = Plan(diff, "", "s")
        self.now = 0.0
        self.world = 0
        self.bad: set[str] = set()
        self.in_flight: Order[Snap, Diff] | None = None
        self.sent_since_change: list[str] = []
        self.pump()

    def pump(self) -> None:
        order = self.plan.next(self.now)
        if order is not None:
            assert self.in_flight is None, "a second push while one is outstanding"
            assert order.change.base in (None, self.runs), "a delta on something that the proxy does not run"
            self.in_flight = order
            self.sent_since_change.append(order.target.version)
        assert self.plan.next(self.now) is None

    @rule(number=st.integers(0, 5))
    def wants(self, number: int) -> None:
        self.world += 1
        self.now += 1
        if self.plan.wanted is None or self.plan.wanted.version != f"v{number}":
            self.sent_since_change.clear()
        self.plan.want(Snap(f"v{number}"), self.world, self.now)
        self.pump()

    @rule(number=st.integers(0, 5), bad=st.booleans())
    def turns(self, number: int, bad: bool) -> None:
        """The proxy starts or stops refusing a version (in truth: the proxy was upgraded)."""
        (self.bad.add if bad else self.bad.discard)(f"v{number}")

    @precondition(lambda self: self.in_flight is not None)
    @rule()
    def answers(self) -> None:
        assert self.in_flight is not None
        order, self.in_flight = self.in_flight, None
        version = order.target.version
        if version in self.bad:
            ack = Ack(nonce=order.nonce, version=self.runs, nacks=REFUSAL)
            assert self.plan.answer(ack) == ("refused", order)
        else:
            self.runs = version
            assert self.plan.answer(Ack(nonce=order.nonce, version=version)) == ("accepted", order)
        self.pump()

    @precondition(lambda self: self.in_flight is not None)
    @rule()
    def has_lost_its_state(self) -> None:
        """The proxy cannot apply a delta (it restarted its state): it asks for a full push."""
        assert self.in_flight is not None
        if self.in_flight.full:
            return
        order, self.in_flight = self.in_flight, None
        self.runs = ""
        nack = Nack(kind="push", name="", error="a change came before any full state: send a full push")
        self.plan.answer(Ack(nonce=order.nonce, version="", nacks=(nack,)))
        self.pump()
        if self.in_flight is not None:
            assert self.in_flight.full

    @rule(nonce=st.sampled_from(["", "s-0", "other-1"]))
    def answers_something_else(self, nonce: str) -> None:
        before = self.plan.outstanding
        assert self.plan.answer(Ack(nonce=nonce, version="v1")) == ("unexpected", None)
        assert self.plan.outstanding is before

    @rule()
    def reconnects(self) -> None:
        wanted = self.plan.wanted
        self.plan = Plan(diff, self.runs, f"s{self.now}")
        self.in_flight = None
        self.sent_since_change.clear()
        if wanted is not None:
            self.plan.want(wanted, self.world, self.now)
            if wanted.version == self.runs:
                assert self.plan.next(self.now) is None, "a push of what the proxy runs already"
                assert self.plan.status() == "SYNCED"
        self.pump()

    @invariant()
    def one_outstanding(self) -> None:
        assert self.plan.outstanding is self.in_flight

    @invariant()
    def a_refusal_does_not_loop(self) -> None:
        # Without a change each version goes out at most once, and once more in full when a delta found no ground.
        for version in set(self.sent_since_change):
            assert self.sent_since_change.count(version) <= 3

    @invariant()
    def settled_means_delivered(self) -> None:
        plan = self.plan
        if plan.wanted is None or self.in_flight is not None:
            return
        if plan.status() == "SYNCED":
            assert self.runs == plan.wanted.version
            assert plan.world == plan.wanted_world
            assert {plan.status(kind) for kind in ORDER} == {"SYNCED"}
        else:
            assert plan.status() == "ERROR", "idle, but neither delivered nor refused"

    def teardown(self) -> None:
        """Last version always delivered: once the proxy refuses nothing and something changes, it gets there."""
        self.bad.clear()
        self.wants(9)
        for _ in range(4):
            if self.in_flight is not None:
                self.answers()
        assert self.runs == "v9"
        assert self.plan.status() == "SYNCED"


TestPlanner = Planner.TestCase
TestPlanner.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def plan_with(have: str = "") -> Plan[Snap, Diff]:
    return Plan(diff, have, "s")


def test_a_proxy_that_runs_it_already_gets_nothing() -> None:
    plan = plan_with("v1")
    plan.want(Snap("v1"), 7, 0.0)
    assert plan.next(0.0) is None
    assert (plan.status(), plan.status("route"), plan.world) == ("SYNCED", "SYNCED", 7)


def test_a_refused_version_waits_for_a_change() -> None:
    plan = plan_with()
    plan.want(Snap("v1"), 1, 0.0)
    first = plan.next(0.0)
    assert first is not None
    assert first.full
    plan.answer(Ack(nonce=first.nonce, version="", nacks=REFUSAL))
    assert plan.next(0.0) is None
    plan.want(Snap("v1"), 2, 1.0)
    assert plan.next(1.0) is None
    assert (plan.status(), plan.status("route"), plan.world) == ("ERROR", "ERROR", 0)
    plan.want(Snap("v2"), 3, 2.0)
    assert plan.next(2.0) is not None


def test_taking_a_refused_change_back_is_peace() -> None:
    plan = plan_with("v1")
    plan.want(Snap("v1"), 1, 0.0)
    plan.want(Snap("v2"), 2, 0.0)
    order = plan.next(0.0)
    assert order is not None
    plan.answer(Ack(nonce=order.nonce, version="v1", nacks=REFUSAL))
    plan.want(Snap("v1"), 3, 0.0)
    assert plan.next(0.0) is None
    assert (plan.status(), plan.nacks, plan.world) == ("SYNCED", (), 3)


def test_changes_during_a_push_go_as_one() -> None:
    plan = plan_with("v0")
    plan.want(Snap("v0"), 1, 0.0)
    plan.want(Snap("v1"), 2, 0.0)
    first = plan.next(0.0)
    for number in range(2, 9):
        plan.want(Snap(f"v{number}"), number + 1, 0.0)
        assert plan.next(0.0) is None
    assert first is not None
    plan.answer(Ack(nonce=first.nonce, version="v1"))
    second = plan.next(0.0)
    assert second is not None
    assert second.change == Diff("v1", Snap("v8"))


def test_a_proxy_that_says_it_runs_something_else_is_sent_everything_once() -> None:
    plan = plan_with("v1")
    plan.want(Snap("v1"), 1, 0.0)
    plan.want(Snap("v2"), 2, 0.0)
    delta = plan.next(0.0)
    assert delta is not None
    plan.answer(Ack(nonce=delta.nonce, version="v7"))
    full = plan.next(0.0)
    assert full is not None
    assert full.full
    plan.answer(Ack(nonce=full.nonce, version="v7"))
    assert plan.next(0.0) is None
    assert plan.status() == "ERROR"


def test_an_answer_that_does_not_come_is_overdue() -> None:
    plan = plan_with()
    assert not plan.overdue(100.0, 60.0)
    plan.want(Snap("v1"), 1, 0.0)
    plan.next(0.0)
    assert not plan.overdue(60.0, 60.0)
    assert plan.overdue(60.1, 60.0)
