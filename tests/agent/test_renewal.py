"""When a certificate is asked for: half of its life, jitter, backoff, another root, a revoked serial; on a clock of paper."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from meshproxy.agent.renewal import Renewal, Standing
from meshproxy.model.security import Trust

DAY = 86_400.0
ME = "spiffe://cluster.local/ns/default/sa/book"


def held(since: float = 0.0, life: float = DAY, serial: str = "a1", issuer: str = "root1") -> Standing:
    return Standing(serial=serial, uri=ME, issuer=issuer, since=since, expires=since + life)


def renewal(draw: float = 0.5) -> Renewal:
    return Renewal(lambda: draw)


def test_the_first_one_is_due_at_once() -> None:
    assert renewal().due(17.0) == (17.0, "the first one")


def test_half_of_the_life_is_the_time() -> None:
    one = renewal()
    one.taken(held(since=1000.0), 1000.0)
    assert one.due(1000.0) == (1000.0 + DAY / 2, "half of its life is over")


@given(st.floats(0, 1, exclude_max=True), st.floats(1, 90 * DAY), st.floats(0, 2e9))
def test_jitter_is_within_a_hundredth(draw: float, life: float, since: float) -> None:
    one = renewal(draw)
    one.taken(held(since=since, life=life), since)
    share = (one.due(since).when - since) / life
    assert 0.49 - 1e-6 <= share <= 0.51 + 1e-6


def test_jitter_reaches_both_bounds() -> None:
    for draw, share in ((0.0, 0.49), (0.5, 0.5), (1.0, 0.51)):
        one = renewal(draw)
        one.taken(held(), 0.0)
        assert one.due(0.0).when == DAY * share


def test_each_certificate_has_a_time_of_its_own() -> None:
    one = renewal()
    one.taken(held(), 0.0)
    one.taken(held(since=DAY / 2, serial="b2"), DAY / 2)
    assert one.due(DAY / 2).when == DAY


def test_another_issuer_is_followed_at_once_and_only_once() -> None:
    one = renewal()
    one.taken(held(), 0.0)
    assert one.trusted(Trust(issuer="root1"))
    assert one.due(5.0).when == DAY / 2
    assert one.trusted(Trust(issuer="root2"))
    assert one.due(5.0) == (5.0, "control issues under another root")
    one.taken(held(since=5.0, issuer="root2"), 5.0)
    assert one.due(5.0).when == 5.0 + DAY / 2


def test_an_answer_that_is_no_better_is_not_asked_for_in_a_circle() -> None:
    """Control answers under the old root still, or under a newer one than the trust that we know."""
    one = renewal()
    one.taken(held(), 0.0)
    one.trusted(Trust(issuer="root2"))
    asked, now = 0, 0.0
    while now < 60:
        now = one.due(now).when
        one.taken(held(since=now), now)
        asked += 1
    assert asked < 100
    one.trusted(Trust(issuer="root1"))
    assert one.due(now).when == now + DAY / 2


def test_a_revoked_serial_is_replaced_at_once() -> None:
    one = renewal()
    one.taken(held(serial="a1"), 0.0)
    one.trusted(Trust(issuer="root1", revoked_serials=("ff", "a1")))
    assert one.due(3.0) == (3.0, "its serial is revoked")
    one.taken(held(since=3.0, serial="b2"), 3.0)
    assert one.due(3.0).when == 3.0 + DAY / 2


def test_a_revoked_identity_asks_for_nothing_until_its_time() -> None:
    """Control would say no; and when the revocation is undone, it is asked at once."""
    one = renewal()
    one.taken(held(), 0.0)
    one.trusted(Trust(issuer="root2", revoked_identities=(ME,), revoked_serials=("a1",)))
    assert one.revoked
    assert one.due(1.0) == (DAY / 2, "half of its life is over")
    one.trusted(Trust(issuer="root2"))
    assert not one.revoked
    assert one.due(2.0).when == 2.0


def test_the_same_trust_is_no_news() -> None:
    one = renewal()
    assert one.trusted(Trust(issuer="root1"))
    assert not one.trusted(Trust(issuer="root1"))


def test_without_a_certificate_tries_follow_briskly() -> None:
    one, now, waits = renewal(0.9), 0.0, []
    for _ in range(40):
        waits.append(one.failed(0, now))
        now = one.due(now).when
    assert waits[0] < 0.2
    assert max(waits[:15]) <= 0.5
    assert 4.0 < max(waits) <= 5.0


def test_while_the_old_one_lasts_tries_are_patient() -> None:
    one = renewal(0.9)
    one.taken(held(), 0.0)
    now, waits = one.due(0.0).when, []
    for _ in range(20):
        waits.append(one.failed(0, now))
        assert one.due(now).when == now + waits[-1]
        now += waits[-1]
    assert waits[0] < 2
    assert waits == sorted(waits)
    assert 50 < waits[-1] <= 60


def test_near_its_end_tries_are_brisk_again() -> None:
    one = renewal(0.9)
    one.taken(held(), 0.0)
    for _ in range(20):
        one.failed(0, DAY / 2)
    assert one.failed(0, DAY - 100) < 1


def test_a_certificate_that_has_ended_is_asked_for_until_there_is_one() -> None:
    one = renewal(0.9)
    one.taken(held(life=10.0), 0.0)
    now = 20.0
    for _ in range(50):
        assert one.failed(0, now) <= 5.0
        now = one.due(now).when
    assert one.due(now) == (now, "half of its life is over")


def test_no_is_taken_for_an_answer_slowly() -> None:
    for draw in (0.0, 0.999):
        one = renewal(draw)
        one.taken(held(), 0.0)
        wait = one.failed(403, DAY / 2)
        assert 150 <= wait <= 300
        assert one.refused
        one.taken(held(since=DAY), DAY)
        assert not one.refused


def test_control_heard_again_is_asked_at_once_unless_it_had_answered() -> None:
    one = renewal(0.9)
    one.failed(0, 100.0)
    one.reached()
    assert one.due(100.0).when == 100.0
    wait = one.failed(403, 100.0)
    one.reached()
    assert one.due(100.0).when == 100.0 + wait


@given(st.lists(st.sampled_from(["fail", "deny", "take", "rotate", "revoke", "same"]), max_size=60), st.integers(0, 999))
def test_it_never_asks_in_a_hurry_for_long_nor_forgets(steps: list[str], seed: int) -> None:
    """Whatever happens: something is due, not later than half of the life or the longest wait, and failures always wait."""
    dice = random.Random(seed)
    one, now = Renewal(dice.random), 0.0
    for number, step in enumerate(steps, 1):
        due = one.due(now)
        assert due.when >= 0
        if one.held is None:
            assert due.when <= now + 300
        now = max(now, due.when)
        if step == "fail":
            assert one.failed(0, now) >= 0.05
            assert one.due(now).when > now
        elif step == "deny":
            one.failed(403, now)
            assert one.due(now).when >= now + 150
        elif step == "take":
            one.taken(held(since=now, serial=f"{number:x}", issuer="root1"), now)
            assert one.due(now).when > now
        elif step == "rotate":
            one.trusted(Trust(issuer=f"root{number}"))
        elif step == "revoke" and one.held is not None:
            one.trusted(Trust(revoked_serials=(one.held.serial,)))
            assert one.due(now).when == now
        else:
            one.reached()
