"""Path normalisation: the table of B8.7 and the shapes that attackers try."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.policy.paths import Mode, normaliser

BASE = [
    ("/app/../admin", "/admin"),
    ("/app\\admin", "/app/admin"),
    ("/xyz%30..//abc", "/xyz0..//abc"),
    ("/a/./b", "/a/b"),
    ("/a/.", "/a/"),
    ("/a/b/..", "/a/"),
    ("/..", "/"),
    ("/../../etc/passwd", "/etc/passwd"),
    ("/a/%2e%2e/b", "/b"),
    ("/a/.%2E/b", "/b"),
    ("/a/..%2fb", "/a/..%2fb"),  # an encoded slash is no slash
    ("/a%2Fb%5cc", "/a%2Fb%5cc"),
    ("/%41%7e%5f", "/A~_"),
    ("/%2530", "/%2530"),  # no double decode
    ("/%zz%1", "/%zz%1"),
    ("/a//..", "/a/"),
    ("/.hidden/..x/x..", "/.hidden/..x/x.."),
    ("/A/b", "/A/b"),
    ("/a#frag", "/a"),
    ("/a?b=/../%30#frag", "/a?b=/../%30"),  # the query is left alone
    ("/a/..?x", "/?x"),
    ("/\xe9", "/%C3%A9"),
    ('/a"<>`{}', "/a%22%3C%3E%60%7B%7D"),
    ("/a%20b", "/a%20b"),
    ("\\a", "\\a"),  # not origin form
    ("*", "*"),
    ("host:443", "host:443"),
]


@pytest.mark.parametrize(("given_path", "expected"), BASE)
def test_base(given_path: str, expected: str) -> None:
    assert normaliser("BASE")(given_path.encode()) == expected.encode()


@pytest.mark.parametrize(
    ("given_path", "merged", "decoded"),
    [
        ("/a//b", "/a/b", "/a/b"),
        ("///", "/", "/"),
        ("/xyz%30..//abc", "/xyz0../abc", "/xyz0../abc"),
        ("/a%2f%2Fb", "/a%2f%2Fb", "/a/b"),
        ("/a%5cb", "/a%5cb", "/a/b"),
        ("/a/..%2fb", "/a/..%2fb", "/b"),
        ("/a%2f..%2fb", "/a%2f..%2fb", "/b"),
        ("/%252f", "/%252f", "/%252f"),
        ("/a?x=//", "/a?x=//", "/a?x=//"),
    ],
)
def test_slashes(given_path: str, merged: str, decoded: str) -> None:
    assert normaliser("MERGE_SLASHES")(given_path.encode()) == merged.encode()
    assert normaliser("DECODE_AND_MERGE_SLASHES")(given_path.encode()) == decoded.encode()


def test_none_only_cuts_the_fragment() -> None:
    assert normaliser("NONE")(b"/a/../%30//b#c") == b"/a/../%30//b"


@pytest.mark.parametrize("mode", ["BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"])
def test_a_nul_is_refused(mode: Mode) -> None:
    assert normaliser(mode)(b"/a%00b") is None
    assert normaliser(mode)(b"/a?b=%00") == b"/a?b=%00"


def test_a_clean_target_is_the_same_object() -> None:
    target = b"/rate/1?x=1&y=../z"
    assert normaliser("MERGE_SLASHES")(target) is target


PATHS = st.lists(st.sampled_from(["/", "a", ".", "..", "%2e", "%2F", "%5c", "%25", "%41", "\\", "//", "b"]), max_size=10)


@given(PATHS, st.sampled_from(["BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"]))
def test_what_comes_out_is_stable_and_has_no_dots(parts: list[str], mode: Mode) -> None:
    """Normalising twice changes nothing more: matched, forwarded and re-read paths are one."""
    normalise = normaliser(mode)
    once = normalise(("/" + "".join(parts)).encode())
    assert once is not None and once.startswith(b"/")
    assert not {b".", b".."} & set(once.split(b"/"))
    assert b"\\" not in once
    assert normalise(once) == once
    if mode != "BASE":
        assert b"//" not in once
