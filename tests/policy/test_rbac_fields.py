"""Every field of source and operation and every ``when`` key, after the examples of Istio's AuthorizationPolicy reference."""

from __future__ import annotations

import pytest

from meshproxy.model.security import Condition, Operation, Policy, Rule, Source, Trust
from tests.policy.rbac_fakes import BOOKS, Flight, decide, matches

PLAIN = Flight()
MESH = Flight(identity=BOOKS)
ISSUER = "https://accounts.example.com"
USER = {"iss": ISSUER, "sub": "jo", "aud": ["shop", "stock"], "azp": "till", "groups": ["a", "b"], "realm": {"roles": ["admin"]}}
TOKEN = Flight(claims=USER)

SOURCES = [
    # field, values, a request that matches, one that does not
    ("principals", ("cluster.local/ns/default/sa/books",), MESH, PLAIN),
    ("principals", ("cluster.local/ns/default/*",), MESH, Flight(identity="spiffe://cluster.local/ns/other/sa/books")),
    ("principals", ("*/sa/books",), MESH, Flight(identity="spiffe://cluster.local/ns/default/sa/rating")),
    ("principals", ("*",), MESH, PLAIN),
    ("principals", ("*",), MESH, Flight(identity=BOOKS, mesh=False)),  # a certificate that is not of this mesh says nothing
    ("principals", ("*",), MESH, Flight(sni="books")),  # one-way TLS: no peer
    ("request_principals", (f"{ISSUER}/jo",), TOKEN, PLAIN),
    ("request_principals", ("*",), TOKEN, Flight(claims={"iss": ISSUER})),
    ("request_principals", (f"{ISSUER}/*",), TOKEN, Flight(claims={"iss": "https://other", "sub": "jo"})),
    ("request_principals", ("*/jo",), TOKEN, Flight(claims={"iss": ISSUER, "sub": "al"})),
    ("request_principals", ("*.example.com/jo",), TOKEN, Flight(claims={"iss": ISSUER, "sub": "al"})),
    ("request_principals", (f"{ISSUER}/j*",), TOKEN, Flight(claims={"iss": ISSUER, "sub": "al"})),
    ("request_principals", ("*jo",), TOKEN, Flight(claims={"iss": ISSUER, "sub": "al"})),
    ("request_principals", ("a/b/c",), Flight(claims={"iss": "a/b", "sub": "c"}), Flight(claims={"iss": "a", "sub": "b/c"})),
    ("namespaces", ("default",), MESH, PLAIN),
    ("namespaces", ("def*",), MESH, Flight(identity="spiffe://cluster.local/ns/other/sa/books")),
    ("namespaces", ("d*f*t",), MESH, Flight(identity="spiffe://cluster.local/ns/dft2/sa/books")),
    ("service_accounts", ("default/books",), MESH, Flight(identity="spiffe://cluster.local/ns/default/sa/books2")),
    ("trust_domains", ("cluster.local",), MESH, Flight(identity="spiffe://other/ns/default/sa/books")),
    ("ip_blocks", ("10.1.0.0/16",), PLAIN, Flight(source="10.2.0.1")),
    ("ip_blocks", ("10.1.2.3",), PLAIN, Flight(source="10.2.0.1", headers={"x-forwarded-for": "10.1.2.3"})),
    ("remote_ip_blocks", ("10.1.2.3",), PLAIN, Flight(headers={"x-forwarded-for": "10.1.2.3, 9.9.9.9"})),
    ("remote_ip_blocks", ("9.9.9.9",), Flight(headers={"x-forwarded-for": "10.1.2.3, 9.9.9.9"}), PLAIN),
    ("remote_ip_blocks", ("10.1.2.3",), Flight(headers={"x-forwarded-for": "nobody"}), Flight(source="10.1.2.4")),
    (
        "remote_ip_blocks",
        ("10.1.2.3",),
        Flight(direction="gateway", headers={"x-forwarded-for": "9.9.9.9,10.1.2.3"}),
        Flight(direction="gateway", source="8.8.8.8", headers={"x-forwarded-for": "10.1.2.3"}),
    ),
]


@pytest.mark.parametrize(("field", "values", "yes", "no"), SOURCES)
def test_source(field: str, values: tuple[str, ...], yes: Flight, no: Flight) -> None:
    rule = Rule(sources=(Source(**{field: values}),))
    assert matches(rule, yes)
    assert not matches(rule, no)
    negated = Rule(sources=(Source(**{"not_" + field: values}),))
    assert not matches(negated, yes)
    assert matches(negated, no)


OPERATIONS = [
    ("hosts", ("books:8080",), PLAIN, Flight(host="books")),
    ("hosts", ("BOOKS",), Flight(host="Books"), PLAIN),  # any case, and the port is part of it, as in Istio
    ("hosts", ("books", "books:*"), PLAIN, Flight(host="rating:8080")),
    ("hosts", ("*.example.com",), Flight(host="a.example.com"), Flight(host="example.com")),
    ("ports", ("8080", "9090"), PLAIN, Flight(port=80)),
    ("methods", ("GET", "HEAD"), PLAIN, Flight(method="POST")),
    ("methods", ("*",), PLAIN, Flight(method="")),
    ("methods", ("P*",), Flight(method="PUT"), PLAIN),
    ("paths", ("/info*",), Flight("/info2"), Flight("/data")),
    ("paths", ("/data",), Flight("/data"), Flight("/data/1")),
    ("paths", ("/data",), Flight("/data?x=/other"), Flight("/other?/data")),
    ("paths", ("/Data",), Flight("/Data"), Flight("/data")),
    ("paths", ("*/private",), Flight("/a/private"), Flight("/private/a")),
    ("paths", ("/foo/{*}",), Flight("/foo/bar?q"), Flight("/foo/bar/baz")),
]


@pytest.mark.parametrize(("field", "values", "yes", "no"), OPERATIONS)
def test_operation(field: str, values: tuple[str, ...], yes: Flight, no: Flight) -> None:
    rule = Rule(operations=(Operation(**{field: values}),))
    assert matches(rule, yes)
    assert not matches(rule, no)
    negated = Rule(operations=(Operation(**{"not_" + field: values}),))
    assert not matches(negated, yes)
    assert matches(negated, no)


SNI = "outbound_.8080_._.books.default.svc.cluster.local"
WHEN = [
    ("request.headers[User-Agent]", ("Mozilla/*",), Flight(headers={"user-agent": "Mozilla/5.0"}), PLAIN),
    ("request.headers[x]", ("1,2",), Flight(headers={"x": "1,2"}), Flight(headers={"x": "1"})),
    ("request.headers[x]", ("*",), Flight(headers={"x": ""}), PLAIN),
    ("source.ip", ("10.1.2.3", "10.1.2.4"), PLAIN, Flight(source="10.2.0.0")),
    ("remote.ip", ("10.1.2.3", "10.2.0.0/16"), PLAIN, Flight(headers={"x-forwarded-for": "1.1.1.1"})),
    ("source.namespace", ("default",), MESH, PLAIN),
    ("source.serviceAccount", ("default/books",), MESH, PLAIN),
    ("source.trustDomain", ("cluster.local",), MESH, PLAIN),
    ("source.principal", ("cluster.local/ns/default/sa/books",), MESH, PLAIN),
    ("request.auth.principal", (f"{ISSUER}/jo",), TOKEN, PLAIN),
    ("request.auth.audiences", ("stock", "other"), TOKEN, Flight(claims={"aud": "shop"})),
    ("request.auth.presenter", ("till",), TOKEN, PLAIN),
    ("request.auth.claims[iss]", ("*.example.com",), TOKEN, PLAIN),
    ("request.auth.claims[groups]", ("b",), TOKEN, Flight(claims={"groups": ["c"]})),
    ("request.auth.claims[groups]", ("a*",), TOKEN, Flight(claims={"groups": "b"})),
    ("request.auth.claims[realm][roles]", ("admin",), TOKEN, Flight(claims={"realm": "roles"})),
    ("request.auth.claims[n]", ("1",), Flight(claims={"n": "1"}), Flight(claims={"n": 1})),  # strings and lists only
    ("destination.ip", ("10.9.9.9", "10.8.0.0/16"), PLAIN, Flight(local="10.7.0.1")),
    ("destination.port", ("8080", "443"), PLAIN, Flight(port=80)),
    ("connection.sni", (SNI,), Flight(sni=SNI), PLAIN),
]


@pytest.mark.parametrize(("key", "values", "yes", "no"), WHEN)
def test_when(key: str, values: tuple[str, ...], yes: Flight, no: Flight) -> None:
    rule = Rule(when=(Condition(key=key, values=values),))
    assert matches(rule, yes)
    assert not matches(rule, no)
    negated = Rule(when=(Condition(key=key, not_values=values),))
    assert not matches(negated, yes)
    assert matches(negated, no)
    both = Rule(when=(Condition(key=key, values=values, not_values=values),))
    assert not matches(both, yes)


@pytest.mark.parametrize("values", [("a",), ("*",)])
def test_what_cannot_be_known_never_allows_and_always_denies(values: tuple[str, ...]) -> None:
    key = "experimental.envoy.filters.network.mysql_proxy[db.table]"
    for condition in (Condition(key=key, values=values), Condition(key=key, not_values=values)):
        rule = Rule(when=(condition,))
        assert not matches(rule, PLAIN)
        assert not decide(PLAIN, Policy(name="default/d", action="DENY", rules=(rule,))).allowed


UNUSABLE = [
    Rule(when=(Condition(key="source.shoe", values=("1",)),)),
    Rule(when=(Condition(key="source.ip"),)),
    Rule(when=(Condition(key="request.headers", values=("1",)),)),
    Rule(when=(Condition(key="request.headers[]", values=("1",)),)),
    Rule(when=(Condition(key="request.headers[a][b]", values=("1",)),)),
    Rule(when=(Condition(key="request.auth.claims[a", values=("1",)),)),
    Rule(sources=(Source(ip_blocks=("books",)),)),
    Rule(sources=(Source(principals=("",)),)),
    Rule(sources=(Source(not_service_accounts=("default/*",)),)),
    Rule(sources=(Source(service_accounts=("books",)),)),
    Rule(operations=(Operation(ports=("http",)),)),
    Rule(operations=(Operation(paths=("/{**}/{*}",)),)),
]


@pytest.mark.parametrize("rule", UNUSABLE)
@pytest.mark.parametrize("action", ["ALLOW", "DENY", "AUDIT"])
def test_what_cannot_be_obeyed_denies_everything_and_says_so(rule: Rule, action: str) -> None:
    policies = (
        Policy(name="default/all", rules=(Rule(),)),
        Policy(name="default/bad", action=action, rules=(Rule(), rule)),  # type: ignore[arg-type]
    )
    decision = decide(PLAIN, *policies)
    assert not decision.allowed
    assert decision.detail == "rbac_access_denied_matched_policy[ns[default]-policy[bad]-unusable]"
    assert "default/bad cannot be obeyed" in decision.reason and "rules[1]." in decision.reason


ALIASED = Trust(domain="new.example", aliases=("old.example",))


@pytest.mark.parametrize("named", ["new.example", "old.example", "cluster.local"])
@pytest.mark.parametrize("peer", ["new.example", "old.example"])
@pytest.mark.parametrize("rest", ["/ns/default/sa/books", "/ns/default/*"])
def test_any_name_of_the_trust_domain_stands_for_all(named: str, peer: str, rest: str) -> None:
    flight = Flight(identity=f"spiffe://{peer}/ns/default/sa/books")
    assert matches(Rule(sources=(Source(principals=(named + rest,)),)), flight, ALIASED)
    assert not matches(Rule(sources=(Source(not_principals=(named + rest,)),)), flight, ALIASED)
    assert matches(Rule(sources=(Source(trust_domains=(named,)),)), flight, ALIASED)
    assert matches(Rule(when=(Condition(key="source.principal", values=(named + rest,)),)), flight, ALIASED)


def test_a_foreign_trust_domain_is_nobodys_alias() -> None:
    flight = Flight(identity="spiffe://new.example/ns/default/sa/books")
    assert not matches(Rule(sources=(Source(principals=("other/ns/default/sa/books",)),)), flight, ALIASED)
    assert not matches(Rule(sources=(Source(trust_domains=("other",)),)), flight, ALIASED)


def test_fields_and_values_or_sources_and_operations_or_when_and() -> None:
    rule = Rule(
        sources=(Source(principals=("cluster.local/ns/default/sa/books",)), Source(namespaces=("test",))),
        operations=(Operation(methods=("GET",), paths=("/info*",)), Operation(methods=("POST",), paths=("/data",))),
        when=(Condition(key="request.auth.claims[iss]", values=(ISSUER,)),),
    )
    claims = {"iss": ISSUER}
    assert matches(rule, Flight("/info", identity=BOOKS, claims=claims))
    assert matches(rule, Flight("/data", method="POST", identity="spiffe://x/ns/test/sa/y", claims=claims))
    assert not matches(rule, Flight("/data", identity=BOOKS, claims=claims))
    assert not matches(rule, Flight("/info", claims=claims))
    assert not matches(rule, Flight("/info", identity=BOOKS))


def test_empty_fields_of_a_source_match_any() -> None:
    assert matches(Rule(sources=(Source(),), operations=(Operation(),)), PLAIN)
    assert matches(Rule(sources=(Source(namespaces=("x",)), Source())), PLAIN)
