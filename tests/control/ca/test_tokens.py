"""Only what this mesh signed, for this purpose, in time, is somebody."""

from __future__ import annotations

from pathlib import Path

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.ca.tokens import AUDIENCE, Tokens
from control.files import FileProblem
from control.identity import Admin, ProxyIdentity, Refused

KEY = b"k" * 32
NOW = 1_000_000.0
TOKENS = Tokens("a" * 40, KEY)
GOOD = {"aud": AUDIENCE, "exp": NOW + 60, "ns": "default", "pod": "book", "sa": "default"}


def test_persisted_privately(tmp_path: Path) -> None:
    first, again = Tokens.open(tmp_path), Tokens.open(tmp_path)
    assert first.admin_token == again.admin_token
    token = first.issue("default", "book", "bookish", NOW, 60)
    assert again.judge(token, NOW) == ProxyIdentity("default", "book", "bookish", NOW + 60)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert first.admin_token not in repr(first)


def test_admin() -> None:
    assert TOKENS.judge("a" * 40, NOW) == Admin()
    assert TOKENS.judge("a" * 41, NOW) != Admin()


def test_expiry_is_judged_by_the_given_time() -> None:
    token = TOKENS.issue("default", "book", "default", NOW, 60)
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
    token = TOKENS.issue("default", "book", "default", NOW, 60)
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
