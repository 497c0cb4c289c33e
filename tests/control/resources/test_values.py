"""Values: durations as Go reads them, RE2, names and hosts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.resources import values
from control.resources.values import host_covers, parse_duration, quote


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1.5s", 1.5),
        ("100ms", 0.1),
        ("3m", 180.0),
        ("1h30m", 5400.0),
        ("0s", 0.0),
        ("0", 0.0),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("+2s", 2.0),
        ("1m1s1ms", 61.001),
        ("10us", 1e-5),
        ("10µs", 1e-5),
        ("5ns", 5e-9),
        ("24h", 86400.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("5", 'a unit is missing, such as "5s"'),
        ("1.5", 'such as "1.5s"'),
        ("", "must be a duration"),
        ("s", "must be a duration"),
        ("1d", "must be a duration"),
        ("1s ", "must be a duration"),
        ("1 s", "must be a duration"),
        ("-1s", "must not be negative"),
        ("1e3s", "must be a duration"),
        ("٣s", "must be a duration"),
        ("1s\n", "must be a duration"),
        ("99999999999h", "too long"),
    ],
)
def test_what_is_no_duration(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_duration(text)


@given(st.text(max_size=12))
def test_a_duration_is_parsed_or_refused_on_one_line(text: str) -> None:
    try:
        assert parse_duration(text) >= 0
    except ValueError as error:
        assert "\n" not in str(error)


@given(st.integers(0, 10**9))
def test_milliseconds_are_exact(ms: int) -> None:
    assert round(parse_duration(f"{ms}ms") * 1000) == ms


@pytest.mark.parametrize("pattern", ["a.*", "^/v[0-9]+/(foo|bar)$", "(?i)abc", r"\d+", "ü", "(a*)*b"])
def test_regexes(pattern: str) -> None:
    values.compile_regex(pattern)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", "missing"),
        ("*", "no argument for repetition"),
        (r"(?=a)", "invalid"),
        (r"(a)\1", "invalid escape"),
        ("", "must not be empty"),
        ("a" * 1025, "at most 1024 bytes"),
        ("((((a{100}){100}){100}){100})", "repetition"),
    ],
)
def test_what_is_no_regex(pattern: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        values.compile_regex(pattern)


def test_a_regex_is_full_re2_and_matches_bytes_and_text() -> None:
    assert values.compile_regex("/a.*").fullmatch("/abc")
    assert not values.compile_regex("/a").fullmatch("/abc")


@pytest.mark.parametrize(
    "host", ["a", "a.b", "a.b.", "rating.default.svc.cluster.local", "*", "*.a.com", "*-x.a.com", "x_y.a", "A.b", "1a.b"]
)
def test_hosts(host: str) -> None:
    values.check_host(host)


@pytest.mark.parametrize(
    "host", ["", ".", "a..b", "-a", "a-", "a b", "a.*", "a.*.b", "a/b", "a:80", "1.2.3.4", "a" * 64, "a." * 200, "*.", "**"]
)
def test_what_is_no_host(host: str) -> None:
    with pytest.raises(ValueError):
        values.check_host(host)


@pytest.mark.parametrize(
    ("wide", "narrow", "covers"),
    [
        ("*", "a", True),
        ("*", "*.a", True),
        ("*.com", "a.com", True),
        ("*.com", "*.a.com", True),
        ("*.a.com", "*.com", False),
        ("*.com", "com", False),
        ("a", "a", True),
        ("a", "*", False),
        ("a.com", "b.com", False),
    ],
)
def test_host_covers(wide: str, narrow: str, covers: bool) -> None:
    assert host_covers(wide, narrow) is covers


@pytest.mark.parametrize("key", ["app", "app.kubernetes.io/name", "a-b_c.d", "A"])
def test_label_keys(key: str) -> None:
    values.check_label_key(key)


@pytest.mark.parametrize("key", ["", "/a", "a/", "a b", "-a", "a" * 64, "Ab_c/d", "a/b/c"])
def test_bad_label_keys(key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        values.check_label_key(key)


def test_labels_hold_values() -> None:
    values.check_labels({"a": "", "b": "v1.0.0"})
    with pytest.raises(ValueError, match="label value"):
        values.check_labels({"a": "x y"})


def test_names() -> None:
    assert (
        values.is_dns_label("a-1")
        and not values.is_dns_label("a.b")
        and not values.is_dns_label("A")
        and not values.is_dns_label("a\n")
    )
    assert values.is_dns_subdomain("a.b") and not values.is_dns_subdomain("a..b")
    assert values.is_ip("::1") and not values.is_ip("1.2.3")


def test_quote_is_short_and_on_one_line() -> None:
    assert quote("a\nb") == '"a?b"'
    assert len(quote("x" * 500)) == 62
    assert quote(5) == '"5"'


def test_base64_is_not_shown() -> None:
    values.check_base64("aGVsbG8=")
    with pytest.raises(ValueError, match=r"^must be base64$"):
        values.check_base64("hunter2!")
