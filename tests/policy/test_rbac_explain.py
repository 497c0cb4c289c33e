"""Why policies decided: the same conditions, in words."""

from __future__ import annotations

from hypothesis import given

from meshproxy.model.security import Condition, Operation, Policy, Rule, Source, Trust
from meshproxy.policy.rbac import compile_policies
from meshproxy.policy.rbac_explain import Told, explain_policies
from tests.policy.rbac_fakes import BOOKS, Flight, decide
from tests.policy.test_rbac import flights, sets


def told(flight: object, *policies: Policy) -> list[Told]:
    return explain_policies(compile_policies(policies, Trust()), flight)  # type: ignore[arg-type]


def test_every_field_that_did_not_match_is_named_with_what_the_request_has() -> None:
    rule = Rule(
        sources=(Source(principals=("cluster.local/ns/default/sa/web",)), Source(namespaces=("test",), ip_blocks=("9.0.0.0/8",))),
        operations=(Operation(methods=("POST", "PUT"), paths=("/book/{*}",)),),
        when=(
            Condition(key="request.auth.claims[role]", values=("customer",)),
            Condition(key="request.headers[authorization]", values=("x",)),
        ),
    )
    flight = Flight("/book/1?x", identity=BOOKS, claims={"role": ["guest"]}, headers={"authorization": "Bearer secret"})
    (row,) = told(flight, Policy(name="default/p", rules=(rule,)))
    assert row == Told(
        "default/p",
        "ALLOW",
        0,
        False,
        False,
        'from[0] principals is cluster.local/ns/default/sa/web: it is "cluster.local/ns/default/sa/books"; '
        'from[1] namespaces is test: it is "default"; from[1] ipBlocks is 9.0.0.0/8: it is "10.1.2.3"; '
        'methods is one of POST, PUT: it is "GET"; '
        "request.auth.claims[role] is customer: it is ['guest']; "
        "request.headers[authorization] is x: it is not shown",
    )


def test_a_match_says_by_what() -> None:
    (row,) = told(
        Flight("/a", identity=BOOKS),
        Policy(
            name="default/p",
            action="DENY",
            rules=(Rule(sources=(Source(namespaces=("x",)), Source(not_principals=("x",))), operations=(Operation(),)),),
        ),
    )
    assert row.matched and row.reason == "principals is not x"


def test_policies_without_rules_and_unusable_ones() -> None:
    rows = told(
        Flight(),
        Policy(name="default/n"),
        Policy(name="default/d", action="DENY"),
        Policy(name="default/u", unusable="bad"),
        Policy(name="default/all", rules=(Rule(),)),
    )
    assert [(row.policy, row.matched, row.reason) for row in rows] == [
        ("default/d", False, "it has no rules, so it matches nothing"),
        ("default/all", True, "it matches every request"),
        ("default/n", False, "it has no rules, so it matches nothing: what no other ALLOW policy matches is denied"),
        ("default/u", True, "it cannot be obeyed, so everything is denied: bad"),
    ]


@given(sets, flights)
def test_it_is_never_a_second_opinion(given_: list[Policy], flight: Flight) -> None:
    rows = [row for row in told(flight, *given_) if not row.dry_run]
    denied = any(row.matched for row in rows if row.action == "DENY")
    allowed = any(row.matched for row in rows if row.action == "ALLOW") or not any(row.action == "ALLOW" for row in rows)
    assert decide(flight, *given_).allowed is (allowed and not denied)
    assert all(row.reason for row in rows)
