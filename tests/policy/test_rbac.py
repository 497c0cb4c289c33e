"""Which policy decides: DENY before ALLOW, an empty ALLOW denies, dry runs and AUDIT change nothing, CUSTOM asks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.model.security import Condition, Operation, Policy, Rule, Source, Trust
from meshproxy.policy.rbac import Custom, compile_policies
from tests.policy.rbac_fakes import BOOKS, Flight, decide, judge

ALL = Rule()
GET = Rule(operations=(Operation(methods=("GET",)),))
POST = Rule(operations=(Operation(methods=("POST",)),))
PLAIN = Flight()


def allow(*rules: Rule, name: str = "default/allow", **fields: Any) -> Policy:
    return Policy(name=name, rules=rules, **fields)


def deny(*rules: Rule, name: str = "default/deny", **fields: Any) -> Policy:
    return Policy(name=name, action="DENY", rules=rules, **fields)


@pytest.mark.parametrize(
    ("policies", "allowed", "detail"),
    [
        ((), True, ""),
        ((allow(),), False, "none"),
        ((allow(ALL),), True, ""),
        ((allow(GET),), True, ""),
        ((allow(POST),), False, "none"),
        ((allow(POST), allow(GET, name="default/b")), True, ""),
        ((deny(),), True, ""),
        ((deny(ALL),), False, "ns[default]-policy[deny]-rule[0]"),
        ((deny(POST),), True, ""),
        ((deny(POST, GET), allow(ALL)), False, "ns[default]-policy[deny]-rule[1]"),
        ((deny(POST), allow(POST)), False, "none"),
        ((Policy(name="default/a", action="AUDIT", rules=(ALL,)),), True, ""),
        ((deny(ALL, dry_run=True), allow(ALL)), True, ""),
        ((allow(POST, dry_run=True),), True, ""),  # a dry run is no ALLOW policy
        ((allow(ALL), Policy(name="default/u", unusable="no such action")), False, "ns[default]-policy[u]-unusable"),
        ((Policy(name="default/u", unusable="what", dry_run=True),), True, ""),
        ((Policy(name="default/c", action="CUSTOM", rules=(ALL,), provider="p"),), True, ""),  # not the judge's
    ],
)
def test_precedence(policies: tuple[Policy, ...], allowed: bool, detail: str) -> None:
    for order in (policies, policies[::-1]):
        decision = decide(PLAIN, *order)
        assert decision.allowed is allowed
        assert decision.detail == (f"rbac_access_denied_matched_policy[{detail}]" if detail else "")


def test_what_is_only_noted() -> None:
    judging = judge(
        allow(ALL),
        deny(GET, name="default/dry", dry_run=True),
        allow(POST, name="default/dry2", dry_run=True),
        Policy(name="default/audit", action="AUDIT", rules=(GET,)),
    )
    assert judging.notes
    noted = [(one.action, one.policy, one.result, one.dry_run) for one in judging.noted(PLAIN)]
    assert noted == [
        ("AUDIT", "default/audit", "matched", False),
        ("DENY", "default/dry", "denied", True),
        ("ALLOW", "", "denied", True),
    ]
    assert [one.result for one in judging.noted(Flight(method="POST"))] == ["allowed", "allowed"]
    assert not judge(allow(ALL)).notes


def custom(*policies: Policy, known: bool = True) -> Custom:
    return Custom("p", compile_policies(policies, Trust()), known)


def test_custom_asks_for_what_matches_by_provider() -> None:
    asking = Policy(name="default/c", action="CUSTOM", rules=(POST,), provider="p")
    other = Policy(name="default/o", action="CUSTOM", rules=(ALL,), provider="q")
    asked = custom(asking, other).ask(Flight(method="POST"))
    assert asked is not None and asked.allowed and asked.policy == "default/c"
    assert custom(asking, other).ask(PLAIN) is None


def test_custom_without_its_provider_denies_what_it_would_have_asked() -> None:
    asking = Policy(name="default/c", action="CUSTOM", rules=(POST,), provider="p")
    asked = custom(asking, known=False).ask(Flight(method="POST"))
    assert asked is not None and not asked.allowed
    assert asked.detail.endswith("[ns[default]-policy[c]-rule[0]-deny-due-to-bad-CUSTOM-action]")
    assert custom(asking, known=False).ask(PLAIN) is None


def test_custom_that_cannot_be_obeyed_denies_everything_and_a_dry_run_asks_nobody() -> None:
    broken = custom(Policy(name="default/c", action="CUSTOM", rules=(POST,), provider="p", unusable="bad")).ask(PLAIN)
    assert broken is not None and not broken.allowed
    dry = custom(Policy(name="default/c", action="CUSTOM", rules=(GET,), provider="p", dry_run=True))
    assert dry.ask(PLAIN) is None
    assert [one.dry_run for one in dry.noted(PLAIN)] == [True]


# -- properties

words = st.sampled_from(["a", "b", "a*", "*b", "*", "ab"])
some = st.lists(words, max_size=2).map(tuple)
blocks = st.lists(st.sampled_from(["10.0.0.0/8", "10.1.2.3", "192.168.0.0/16"]), max_size=2).map(tuple)
sources = st.builds(
    Source,
    principals=some,
    not_principals=some,
    request_principals=some,
    not_request_principals=some,
    namespaces=some,
    not_namespaces=some,
    ip_blocks=blocks,
    not_ip_blocks=blocks,
)
operations = st.builds(
    Operation, methods=some, not_methods=some, paths=some, not_paths=some, hosts=some, ports=st.sampled_from([(), ("8080",)])
)
keys = st.sampled_from(
    ["request.headers[x]", "source.namespace", "request.auth.claims[a]", "connection.sni", "experimental.envoy.filters.x[y]"]
)
conditions = st.builds(Condition, key=keys, values=st.lists(words, min_size=1, max_size=2).map(tuple), not_values=some)
rules = st.builds(
    Rule,
    sources=st.lists(sources, max_size=2).map(tuple),
    operations=st.lists(operations, max_size=2).map(tuple),
    when=st.lists(conditions, max_size=2).map(tuple),
)
names = st.sampled_from(["default/a", "default/b", "test/c"])
policies = st.builds(
    Policy,
    name=names,
    action=st.sampled_from(["ALLOW", "DENY", "AUDIT"]),
    rules=st.lists(rules, max_size=3).map(tuple),
    dry_run=st.booleans(),
)
sets = st.lists(policies, max_size=4)
values = st.sampled_from(["a", "b", "ab", "c"])
flights = st.builds(
    Flight,
    values,
    method=values,
    host=values,
    headers=st.dictionaries(st.just("x"), values, max_size=1),
    identity=st.none() | values.map(lambda one: f"spiffe://{one}/ns/{one}/sa/{one}") | values,
    claims=st.none() | st.fixed_dictionaries({"iss": values, "sub": values, "a": values | st.lists(values)}),
    source=st.sampled_from(["10.1.2.3", "192.168.1.1", "nowhere"]),
    port=st.sampled_from([8080, 80]),
)


@given(sets, st.builds(Policy, name=names, action=st.just("DENY"), rules=st.lists(rules).map(tuple)), flights)
def test_another_deny_never_allows_more(given_: list[Policy], more: Policy, flight: Flight) -> None:
    if decide(flight, *given_, more).allowed:
        assert decide(flight, *given_).allowed


@given(sets, st.builds(Policy, name=names, action=st.just("ALLOW"), rules=st.lists(rules).map(tuple)), flights)
def test_another_allow_beside_one_never_denies_more(given_: list[Policy], more: Policy, flight: Flight) -> None:
    first = Policy(name="default/z", rules=(Rule(sources=(Source(namespaces=("zz",)),)),))
    if decide(flight, *given_, first).allowed:
        assert decide(flight, *given_, first, more).allowed


@given(sets, flights, st.randoms(use_true_random=False))
def test_order_does_not_matter(given_: list[Policy], flight: Flight, shuffle: Any) -> None:
    turned = [
        Policy(
            **{
                **{name: getattr(one, name) for name in one.__struct_fields__},
                "rules": tuple(shuffle.sample(one.rules, len(one.rules))),
            }
        )
        for one in shuffle.sample(given_, len(given_))
    ]
    assert decide(flight, *turned).allowed is decide(flight, *given_).allowed


@given(sets, flights)
def test_an_empty_allow_among_denials_denies(given_: list[Policy], flight: Flight) -> None:
    others = [one for one in given_ if one.action != "ALLOW"]
    assert not decide(flight, *others, Policy(name="default/nothing")).allowed


@given(sets, flights, st.sampled_from(["ALLOW", "DENY", "AUDIT"]), st.booleans())
def test_what_is_unusable_never_allows_more_than_without(given_: list[Policy], flight: Flight, action: Any, dry: bool) -> None:
    bad = Policy(name="default/bad", action=action, rules=(Rule(when=(Condition(key="what"),)),), dry_run=dry)
    if decide(flight, *given_, bad).allowed:
        assert decide(flight, *given_).allowed


@given(sets, flights)
def test_dry_runs_and_audits_change_nothing(given_: list[Policy], flight: Flight) -> None:
    enforced = [one for one in given_ if not one.dry_run and one.action != "AUDIT"]
    assert decide(flight, *given_).allowed is decide(flight, *enforced).allowed


FIELDS = st.sampled_from(["principals", "request_principals", "namespaces"])


@given(FIELDS, st.lists(words, min_size=1, max_size=3).map(tuple), flights)
def test_a_negated_field_is_the_complement(field: str, given_: tuple[str, ...], flight: Flight) -> None:
    plain = decide(flight, allow(Rule(sources=(Source(**{field: given_}),))))
    negated = decide(flight, allow(Rule(sources=(Source(**{"not_" + field: given_}),))))
    assert plain.allowed is not negated.allowed


anything = st.text(max_size=12)
texts = st.lists(anything, max_size=3).map(tuple)
wild_sources = st.builds(Source, **dict.fromkeys(Source.__struct_fields__, texts))
wild_operations = st.builds(Operation, **dict.fromkeys(Operation.__struct_fields__, texts))
wild_keys = anything | st.sampled_from(
    ["request.headers[", "request.auth.claims[a][]", "source.ip", "destination.port", "remote.ip"]
)
wild_conditions = st.builds(Condition, key=wild_keys, values=texts, not_values=texts)
wild_rules = st.builds(
    Rule,
    sources=st.lists(wild_sources, max_size=1).map(tuple),
    operations=st.lists(wild_operations, max_size=1).map(tuple),
    when=st.lists(wild_conditions, max_size=1).map(tuple),
)
wild = st.builds(
    Policy,
    name=anything,
    action=st.sampled_from(["ALLOW", "DENY", "AUDIT", "CUSTOM"]),
    rules=st.lists(wild_rules, max_size=2).map(tuple),
    dry_run=st.booleans(),
    provider=st.sampled_from(["p", ""]),
)


@given(st.lists(wild, max_size=3), flights)
def test_no_policy_raises_when_compiled_or_asked(given_: list[Policy], flight: Flight) -> None:
    judging = judge(*given_)
    judging.judge(flight)
    judging.noted(flight)
    for known in (True, False):
        asked = custom(*given_, known=known)
        asked.ask(flight)
        asked.noted(flight)


def test_a_peer_is_asked_once_it_is_there() -> None:
    policy = allow(Rule(sources=(Source(principals=("cluster.local/ns/default/sa/books",)),)))
    assert decide(Flight(identity=BOOKS), policy).allowed
    assert not decide(PLAIN, policy).allowed
