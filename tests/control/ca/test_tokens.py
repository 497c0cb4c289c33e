"""Only what this mesh signed, for this purpose, in time, is somebody."""

from __future__ import annotations

import sqlite3
import tempfile
from math import inf
from pathlib import Path

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.ca.database import REMEMBERED
from control.ca.token_book import TokenBook, TokenRow
from control.ca.tokens import API_AUDIENCE, AUDIENCE, BOOTSTRAP, Tokens
from control.files import FileProblem
from control.identity import ROLES, Person, ProxyIdentity, Refused, Role

KEY = b"k" * 32
NOW = 1_000_000.0
BOOK = TokenBook(Path(tempfile.mkdtemp(prefix="mesh-tokens"), "tokens.db"))
TOKENS = Tokens(Path(), "a" * 40, KEY, BOOK)
GOOD = {"aud": AUDIENCE, "exp": NOW + 60, "jti": "1", "ns": "default", "pod": "book", "sa": "default"}


def test_persisted_privately(tmp_path: Path) -> None:
    first, again = Tokens.open(tmp_path), Tokens.open(tmp_path)
    assert first.admin_token == again.admin_token
    made = first.issue("default", "book", "bookish", NOW, 60)
    assert again.judge(made.token, NOW) == ProxyIdentity("default", "book", "bookish", NOW + 60, made.id)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert first.admin_token not in repr(first)
    assert made.token not in repr(made)
    first.close()
    again.close()


def test_admin() -> None:
    assert TOKENS.judge("a" * 40, NOW) == Person("mesh-admin", "admin", BOOTSTRAP, inf)
    assert isinstance(TOKENS.judge("a" * 41, NOW), Refused)


@pytest.mark.parametrize("role", ROLES)
def test_a_person_has_a_role_until_the_token_ends(role: Role) -> None:
    made = TOKENS.grant("ann", role, NOW, 60)
    assert TOKENS.judge(made.token, NOW + 59) == Person("ann", role, made.id, NOW + 60)
    assert TOKENS.judge(made.token, NOW + 60) == Refused("the bearer token has expired")


def test_a_token_of_one_kind_is_none_of_the_other() -> None:
    claims = {"exp": NOW + 60, "jti": "1"}
    for wrong in ({"aud": API_AUDIENCE, "ns": "a", "pod": "b", "sa": "c"}, {"aud": AUDIENCE, "sub": "ann", "role": "admin"}):
        assert isinstance(TOKENS.judge(jwt.encode({**claims, **wrong}, KEY, algorithm="HS256"), NOW), Refused)
    odd = {**claims, "aud": API_AUDIENCE, "sub": "ann", "role": "root"}
    assert isinstance(TOKENS.judge(jwt.encode(odd, KEY, algorithm="HS256"), NOW), Refused)
    both = {**claims, "aud": [API_AUDIENCE, AUDIENCE], "sub": "ann", "role": "admin", "ns": "a", "pod": "b", "sa": "c"}
    judged = TOKENS.judge(jwt.encode(both, KEY, algorithm="HS256"), NOW)
    assert isinstance(judged, Refused)


def test_what_was_taken_back_stays_so_over_a_restart(tmp_path: Path) -> None:
    first = Tokens.open(tmp_path)
    person, pod, other = (
        first.grant("ann", "view", NOW, 60),
        first.issue("ns", "pod", "sa", NOW, 60),
        first.grant("b", "edit", NOW, 60),
    )
    assert first.revoke("nothing", NOW) is None
    for made in (person, pod):
        row = first.revoke(made.id, NOW + 1)
        assert row is not None
        assert row.revoked == NOW + 1
        assert first.judge(made.token, NOW + 1) == Refused("the bearer token was revoked")
    first.close()
    again = Tokens.open(tmp_path)
    assert again.judge(person.token, NOW + 1) == again.judge(pod.token, NOW + 1) == Refused("the bearer token was revoked")
    assert isinstance(again.judge(other.token, NOW + 1), Person)
    rows = [(row.holder, row.role) for row in again.rows(NOW + 1)]
    assert rows[0] == ("mesh-admin", "admin")
    assert sorted(rows[1:]) == [("ann", "view"), ("b", "edit"), ("ns/pod", "sidecar")]
    assert [row.holder for row in again.rows(NOW + 61)] == ["mesh-admin"]
    again.close()


def test_a_revoked_token_is_forgotten_long_after_it_has_expired(tmp_path: Path) -> None:
    book = TokenBook(tmp_path / "tokens.db")
    book.add(TokenRow("a", "ann", "view", NOW, NOW + 60), NOW)
    assert book.revoke("a", NOW) is not None
    book.add(TokenRow("b", "bob", "view", NOW, NOW + 60), NOW + 60)
    assert book.is_revoked("a")
    book.add(TokenRow("c", "cem", "view", NOW, NOW + 120), NOW + 60 + REMEMBERED)
    assert book.is_revoked("a")  # a clock that is ahead for a while brings nothing back
    book.add(TokenRow("d", "dan", "view", NOW, NOW + 120), NOW + 61 + REMEMBERED)
    assert not book.is_revoked("a")
    assert [row.id for row in book.rows(NOW)] == ["d"]
    book.close()


def test_a_book_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    TokenBook(tmp_path / "tokens.db").close()
    newer = sqlite3.connect(tmp_path / "tokens.db")
    newer.execute("PRAGMA user_version=2")
    newer.close()
    with pytest.raises(FileProblem, match=r"tokens.db: was written by a newer version \(its schema is 2, ours 1\)"):
        TokenBook(tmp_path / "tokens.db")


def test_the_kubeconfigs_own_token_gets_a_successor(tmp_path: Path) -> None:
    tokens = Tokens.open(tmp_path)
    old = tokens.admin_token
    assert tokens.revoke(BOOTSTRAP, NOW) is not None
    assert tokens.judge(old, NOW) == Refused("the bearer token is not one of this mesh")
    assert isinstance(tokens.judge(tokens.admin_token, NOW), Person)
    tokens.close()
    again = Tokens.open(tmp_path)
    assert again.admin_token == tokens.admin_token != old
    again.close()


def test_expiry_is_judged_by_the_given_time() -> None:
    token = TOKENS.issue("default", "book", "default", NOW, 60).token
    assert isinstance(TOKENS.judge(token, NOW + 59), ProxyIdentity)
    assert TOKENS.judge(token, NOW + 60) == Refused("the bearer token has expired")


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "other"},
        {"aud": None},
        {"exp": None},
        {"exp": "soon"},
        {"exp": NOW - 1},
        {"ns": None},
        {"ns": 7},
        {"pod": ""},
        {"sa": ["default"]},
    ],
)
def test_a_wrong_claim_is_refused(claims: dict[str, object]) -> None:
    wrong = {key: value for key, value in {**GOOD, **claims}.items() if value is not None}
    assert isinstance(TOKENS.judge(jwt.encode(wrong, KEY, algorithm="HS256"), NOW), Refused)


def test_a_wrong_key_or_algorithm_is_refused() -> None:
    assert isinstance(TOKENS.judge(jwt.encode(GOOD, b"x" * 32, algorithm="HS256"), NOW), Refused)
    assert isinstance(TOKENS.judge(jwt.encode(GOOD, b"k" * 64, algorithm="HS512"), NOW), Refused)
    assert isinstance(TOKENS.judge(jwt.encode(GOOD, None, algorithm="none"), NOW), Refused)
    assert isinstance(TOKENS.judge(jwt.encode(GOOD, KEY, algorithm="HS256"), NOW), ProxyIdentity)


@given(st.one_of(st.text(max_size=60), st.binary(max_size=60).map(lambda data: data.decode("latin-1"))))
def test_rubbish_is_refused_and_not_quoted(rubbish: str) -> None:
    judged = TOKENS.judge(rubbish, NOW)
    assert isinstance(judged, Refused)
    assert len(rubbish) < 6 or rubbish not in judged.why


@given(st.data())
def test_no_changed_token_passes(data: st.DataObject) -> None:
    token = TOKENS.issue("default", "book", "default", NOW, 60).token
    position = data.draw(st.integers(0, len(token) - 2))  # the last character may hold unused bits
    other = data.draw(st.sampled_from("abcdefghijABCDEFGHIJ0123456789-_."))
    changed = token[:position] + other + token[position + 1 :]
    assert changed == token or isinstance(TOKENS.judge(changed, NOW), Refused)


@pytest.mark.parametrize("ttl", [0, -1, 1e12, float("nan")])
def test_a_foolish_ttl_is_refused(ttl: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        TOKENS.issue("default", "book", "default", NOW, ttl)


def test_a_short_key_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "join.key").write_bytes(b"short")
    (tmp_path / "join.key").chmod(0o600)
    with pytest.raises(FileProblem, match="too short"):
        Tokens.open(tmp_path)
