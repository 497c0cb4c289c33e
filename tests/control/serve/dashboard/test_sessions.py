"""Codes and sessions: once, for a minute, never longer than the token, and bounded."""

from __future__ import annotations

from math import inf

from control.identity import Person
from control.serve.dashboard.sessions import CODE_LIFE, MAX_CODES, MAX_SESSIONS, SESSION_LIFE, Sessions

NOW = 1_700_000_000.0
ANN = Person("ann", "edit", "t1", inf)


def test_a_code_is_good_once() -> None:
    sessions = Sessions()
    code, expires = sessions.code(ANN, NOW)
    assert expires == NOW + CODE_LIFE
    found = sessions.sign_in(code, NOW + 1)
    assert found is not None and (found[1].name, found[1].role) == ("ann", "edit")
    assert sessions.sign_in(code, NOW + 1) is None
    assert sessions.find(found[0], NOW + 2) == found[1] and sessions.find(code, NOW + 2) is None


def test_a_code_is_good_for_a_minute() -> None:
    sessions = Sessions()
    code, _ = sessions.code(ANN, NOW)
    assert sessions.sign_in(code, NOW + CODE_LIFE) is None
    assert sessions.sign_in(code, NOW + 1) is None  # and is used up


def test_a_session_ends_with_its_token_and_after_eight_hours() -> None:
    sessions = Sessions()
    short = Person("bob", "view", "t2", NOW + 100)
    cookie, session = sessions.sign_in(sessions.code(short, NOW)[0], NOW) or ("", None)
    assert session is not None and sessions.find(cookie, NOW + 99) and sessions.find(cookie, NOW + 100) is None
    cookie, _ = sessions.sign_in(sessions.code(ANN, NOW)[0], NOW) or ("", None)
    assert sessions.find(cookie, NOW + SESSION_LIFE - 1) and sessions.find(cookie, NOW + SESSION_LIFE) is None


def test_revocation_ends_sessions_and_codes_of_that_token_only() -> None:
    sessions = Sessions()
    kept, _ = sessions.sign_in(sessions.code(Person("bob", "view", "t2", inf), NOW)[0], NOW) or ("", None)
    gone, _ = sessions.sign_in(sessions.code(ANN, NOW)[0], NOW) or ("", None)
    code, _ = sessions.code(ANN, NOW)
    sessions.revoked("t1")
    assert sessions.find(gone, NOW) is None and sessions.sign_in(code, NOW) is None and sessions.find(kept, NOW)
    sessions.sign_out(kept)
    assert sessions.find(kept, NOW) is None


def test_both_are_bounded_and_the_oldest_go() -> None:
    sessions = Sessions()
    codes = [sessions.code(ANN, NOW)[0] for _ in range(MAX_CODES + 1)]
    assert sessions.sign_in(codes[0], NOW) is None and sessions.sign_in(codes[1], NOW)
    cookies = [(sessions.sign_in(sessions.code(ANN, NOW)[0], NOW) or ("", None))[0] for _ in range(MAX_SESSIONS + 1)]
    assert sessions.find(cookies[0], NOW) is None and sessions.find(cookies[-1], NOW)


def test_no_secret_is_kept_or_shown() -> None:
    sessions = Sessions()
    code, _ = sessions.code(ANN, NOW)
    cookie, _ = sessions.sign_in(sessions.code(ANN, NOW)[0], NOW) or ("", None)
    kept = repr(sessions) + repr(sessions._codes) + repr(sessions._sessions)
    assert code not in kept and cookie not in kept
